"""From what the user holds to what the engine takes, and the way back of axes.

Arrays and tensors made into volumes, checks that any input must pass, the canonical axis
order (in-plane, in-plane, slice), and small option parsers. Reading files is ``medsr.io``'s work.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medsr.errors import DimensionError, GeometryError, UsageError
from medsr.geometry import Geometry
from medsr.io import labels
from medsr.io.modality import modality_of as modality_of
from medsr.volume import Modality, Source, Volume

logger = logging.getLogger(__name__)

BACKENDS = ("auto", "torch", "openvino", "onnxruntime")
"""Values of ``backend``: those of ``medsr.infer.engine.backends``, whose table needs torch, and
auto."""

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def volume_from_array(
    array: Any,
    *,
    affine: ArrayLike | None = None,
    array_spacing: Sequence[float] | None = None,
) -> Volume:
    """Make a volume of a NumPy array, a torch tensor or a MONAI ``MetaTensor``.

    Its modality is not known; see :func:`with_modality`.

    Args:
        array: ``(X, Y, Z)``, or ``(1, X, Y, Z)`` for tensors. An ``affine`` attribute (MetaTensor)
            gives the geometry where none is passed.
        affine: (4, 4) matrix from voxel index to RAS+ mm.
        array_spacing: Spacing in mm along X, Y, Z, where there is no affine.

    Raises:
        UsageError: No geometry, or two of them.
        DimensionError: Not one 3D volume.
        GeometryError: The affine or the spacing is unusable.
    """
    data, own_affine = _as_numpy(array)
    if affine is not None and array_spacing is not None:
        raise UsageError("both affine and array_spacing are given; give one of them")
    if affine is None and array_spacing is not None:
        spacing = np.asarray(array_spacing, dtype=np.float64)
        if spacing.shape != (3,) or not (spacing > 0).all():
            raise GeometryError(f"array_spacing {array_spacing!r} must be three positive mm")
        affine = np.diag([*spacing, 1.0])
    elif affine is None:
        affine = own_affine
    if affine is None:
        raise UsageError("an array has no geometry of its own; pass affine= or array_spacing=")
    if data.ndim != 3:
        raise DimensionError(f"the array has shape {data.shape}; one 3D volume is needed")
    if data.dtype.kind not in "biuf":
        raise DimensionError(f"the array holds {data.dtype}; real numbers are needed")
    if data.dtype.kind == "b":
        data = data.astype(np.uint8)
    stored = data.dtype
    if data.dtype.kind == "f":
        data = data.astype(np.float32, copy=False)
        # No file format holds half precision or more than double.
        stored = stored if stored == np.float64 else data.dtype
    geometry = Geometry((data.shape[0], data.shape[1], data.shape[2]), np.asarray(affine))
    return Volume(data, geometry, source=Source(format="array", path=None, dtype=stored))


def parse_modality(modality: str) -> Modality | None:
    """Return ``"MR"`` or ``"CT"`` for either case, None for ``"auto"``.

    Raises:
        UsageError: It is none of the three.
    """
    match modality.upper():
        case "AUTO":
            return None
        case "MR":
            return "MR"
        case "CT":
            return "CT"
    raise UsageError(f"modality {modality!r} is unknown; use auto, mr or ct")


def parse_backend(backend: str) -> str:
    """Return the name of a backend, or ``"auto"``; whether it is installed is not looked at.

    Raises:
        UsageError: It is none of :data:`BACKENDS`.
    """
    if backend not in BACKENDS:
        raise UsageError(f"backend {backend!r} is unknown; use {', '.join(BACKENDS)}")
    return backend


def parse_tolerance(consistency: bool | float) -> float | None:
    """The tolerance in a setting that is True (the default one) or a number.

    Raises:
        UsageError: The number is not above zero.
    """
    if consistency is True:
        return None
    if not (np.isfinite(consistency) and consistency > 0):
        raise UsageError(f"tolerance {consistency:g} must be a finite number above zero")
    return float(consistency)


def path_of(scan: object) -> Path | None:
    """Where a scan lies, as far as it is known: of a path, or a volume that was read from one."""
    if isinstance(scan, (str, Path)):
        return Path(scan)
    source = scan.source if isinstance(scan, Volume) else None
    return None if source is None else source.path


def check_name(path: Path | None, allow: Collection[str] = ()) -> None:
    """Refuse a segmentation by its name, before it is read.

    Raises:
        LabelsError: It is one, and "labels" are not allowed.
    """
    if path is not None and "labels" not in allow:
        labels.check(str(path), path=path)


def warn_of_doubts(volume: Volume, scan: object) -> None:
    """Log what a file's reader had to decide, once the file is taken.

    Readers of DICOM log it themselves, and who hands over a volume has its notes already.

    Args:
        volume: What was read.
        scan: What the user gave; a file is called by the name that was given.
    """
    source = volume.source
    if isinstance(scan, (str, Path)) and source is not None and source.format != "dicom":
        for note in source.notes:
            logger.warning("%s: %s", scan, note)


def warn(warning: str | None, scan: object) -> str | None:
    """Log a warning on a scan, if there is one, and return it.

    Args:
        warning: What there is to say.
        scan: What the user gave; a file is called by the name that was given.
    """
    if warning is not None:
        logger.warning("%s: %s", scan if isinstance(scan, (str, Path)) else "the scan", warning)
    return warning


def parse_bytes(amount: int | str | None) -> int | None:
    """Turn ``"4GB"``, ``"512 MiB"`` or a number of bytes into bytes (1 GB = 2**30).

    Raises:
        UsageError: It is no positive amount of memory.
    """
    if amount is None:
        return None
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?\s*", str(amount), re.IGNORECASE)
    count = int(float(match[1]) * _UNITS[match[2].upper()]) if match else 0
    if count < 1:
        raise UsageError(f"{amount!r} is no amount of memory; write for example 4GB or 800MB")
    return count


def _as_numpy(array: Any) -> tuple[NDArray[Any], NDArray[np.float64] | None]:
    """The voxels of an array or tensor, and its affine where it carries one."""
    if isinstance(array, np.ndarray):
        return array, None
    affine = getattr(array, "affine", None)
    if hasattr(array, "detach"):
        array = array.detach().cpu()
        array = array.float() if str(array.dtype) == "torch.bfloat16" else array
    data = np.asarray(array)
    if data.ndim == 4 and data.shape[0] == 1:
        data = data[0]
    if affine is None:
        return data, None
    return data, np.asarray(affine.cpu() if hasattr(affine, "cpu") else affine, dtype=np.float64)

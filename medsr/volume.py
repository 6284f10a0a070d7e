"""Volume: voxels with their grid, their meaning, and where they came from.

Holds the value types that every other part passes around. No file is read or written here (that
is ``medsr.io``) and no affine arithmetic is done (that is ``medsr.geometry``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from medsr.errors import DimensionError, GeometryError
from medsr.geometry import Geometry

__all__ = ["Derivation", "Source", "Volume", "units_of"]

Modality = Literal["MR", "CT"]
Units = Literal["HU", "arbitrary"]
SourceFormat = str
"""Name of a format of ``medsr.io.formats``, or "array" for none."""


def units_of(modality: Modality | None) -> Units:
    """Hounsfield units for CT, arbitrary units for everything else.

    Examples:
        >>> from medsr.volume import units_of
        >>> units_of("CT"), units_of("MR")
        ('HU', 'arbitrary')
    """
    return "HU" if modality == "CT" else "arbitrary"


@dataclass(frozen=True)
class Source:
    """What is needed to write the same kind of file back.

    Args:
        format: the kind of file the voxels came from; "array" for none.
        path: that file or folder, if any. It may name a patient: keep it out of logs and reports.
        dtype: type of the stored numbers, before slope and intercept.
        slope: native value = stored * slope + intercept.
        intercept: see ``slope``; in native units.
        header: nibabel header or DICOM reference; None if there is none.
        notes: sentences about what the reader or writer had to decide.
        padding: native value of voxels that hold no data (outside the scanner's field of view);
            None where the file does not say.

    Examples:
        >>> import numpy as np
        >>> from medsr.volume import Source
        >>> source = Source("nifti", dtype=np.dtype("int16"), slope=0.5, intercept=-1024.0)
        >>> 2048 * source.slope + source.intercept  # stored value to native units
        0.0
    """

    format: SourceFormat
    path: Path | None = None
    dtype: np.dtype[Any] = dataclasses.field(default_factory=lambda: np.dtype(np.float32))
    slope: float = 1.0
    intercept: float = 0.0
    header: object | None = dataclasses.field(default=None, repr=False, compare=False)
    notes: tuple[str, ...] = ()
    padding: float | None = None


@dataclass(frozen=True)
class Derivation:
    """How a volume was computed, for formats that can record it (DICOM).

    Args:
        model: name of the model.
        version: version of medsr.
        weight_hash: SHA-256 (hex) of the model's weights.
        description: one sentence for people; names no patient.
        scale: factor per array axis (X, Y, Z) of the volume being written.
        further: what was done after the model, in a few words; ``description`` says it too.
        request: name of the request that the volume answers; identifiers of a format that has any
            follow from it, so that the same request gives the same ones. New ones where None.

    Examples:
        >>> from medsr.volume import Derivation
        >>> how = Derivation(
        ...     model="ct-z4",
        ...     version="0.1.0",
        ...     weight_hash="9f2c" * 16,
        ...     description="Slices 5 mm apart restored to 1.25 mm by ct-z4",
        ...     scale=(1.0, 1.0, 4.0),
        ... )
        >>> how.scale, how.request is None  # without a request, new UIDs for every series written
        ((1.0, 1.0, 4.0), True)
    """

    model: str
    version: str
    weight_hash: str
    description: str
    scale: tuple[float, float, float]
    request: str | None = None
    further: str = ""


@dataclass(frozen=True, eq=False)
class Volume:
    """One 3D scalar image in space.

    Args:
        data: (X, Y, Z) array in native units, float32 or any integer type.
        geometry: its grid; the shapes must agree.
        modality: "MR", "CT", or None if unknown.
        units: "HU" if and only if the modality is CT.
        source: where it came from; None for an array made in memory.

    Raises:
        DimensionError: if the data are not 3D or hold no scalar intensities.
        GeometryError: if the shapes differ.
        TypeError: if the data are floating point other than float32.
        ValueError: if units and modality disagree.

    Examples:
        >>> import numpy as np
        >>> from medsr import Geometry, Volume
        >>> hu = np.full((64, 64, 10), -1000, dtype=np.int16)
        >>> hu[16:48, 16:48] = 40
        >>> grid = Geometry(hu.shape, np.diag([0.8, 0.8, 5.0, 1.0]))
        >>> scan = Volume(hu, grid, modality="CT", units="HU")
        >>> middle = scan.crop((16, 16, 2), (48, 48, 8))
        >>> middle.shape, middle.geometry.origin, int(middle.data.mean())
        ((32, 32, 6), (12.8, 12.8, 10.0), 40)
        >>> scan.permute((2, 0, 1)).spacing
        (5.0, 0.8, 0.8)
    """

    data: npt.NDArray[Any]
    geometry: Geometry
    modality: Modality | None = None
    units: Units = "arbitrary"
    source: Source | None = None

    def __post_init__(self) -> None:
        """Refuse what does not fit together."""
        if self.data.ndim != 3:
            raise DimensionError(
                f"the array has {self.data.ndim} dimensions {self.data.shape}; a volume has three"
            )
        if self.data.dtype.kind not in "iuf":
            raise DimensionError(
                f"the array holds {self.data.dtype}; a volume holds real numbers, one per voxel"
            )
        if self.data.dtype.kind == "f" and self.data.dtype != np.float32:
            raise TypeError(f"the array holds {self.data.dtype}; convert it with astype(float32)")
        if self.data.shape != self.geometry.shape:
            raise GeometryError(
                f"the array has shape {self.data.shape} and its geometry {self.geometry.shape}"
            )
        if self.units != units_of(self.modality):
            raise ValueError(f"units {self.units!r} do not go with modality {self.modality!r}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along (X, Y, Z)."""
        return self.geometry.shape

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between voxel centres along each array axis, in mm."""
        return self.geometry.spacing

    def permute(self, axes: Sequence[int]) -> Volume:
        """Reorder the array axes (new axis i is old ``axes[i]``); no voxel moves in space."""
        return self.replace(
            data=np.transpose(self.data, tuple(axes)), geometry=self.geometry.permute(axes)
        )

    def flip(self, axes: int | Iterable[int]) -> Volume:
        """Count voxels from the other end of ``axes``; no voxel moves in space."""
        flipped = (axes,) if isinstance(axes, int) else tuple(axes)
        return self.replace(data=np.flip(self.data, flipped), geometry=self.geometry.flip(flipped))

    def crop(self, start: Sequence[int], stop: Sequence[int]) -> Volume:
        """Keep voxels from ``start`` up to but not including ``stop`` along each axis."""
        window = tuple(slice(low, high) for low, high in zip(start, stop, strict=True))
        return self.replace(data=self.data[window], geometry=self.geometry.crop(start, stop))

    def replace(self, **changes: Any) -> Volume:
        """A copy with other fields; a new ``modality`` brings its units along."""
        if "modality" in changes:
            changes.setdefault("units", units_of(changes["modality"]))
        return dataclasses.replace(self, **changes)

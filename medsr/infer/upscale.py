"""A scan from end to end: :func:`upscale`, the call of the command line and the evaluation.

The steps are those of :class:`medsr.infer.upscaler.Upscaler`; here is only their order.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike, NDArray

from medsr import io
from medsr.errors import MemoryLimitError
from medsr.infer import prepare
from medsr.infer.outputs import Outputs
from medsr.infer.upscaler import Upscaler
from medsr.io.dicom.options import DEFAULTS, DicomOptions
from medsr.model import SRModel
from medsr.types import StageProgress
from medsr.volume import Volume

if TYPE_CHECKING:
    import torch

__all__ = ["UpscaleResult", "upscale"]


@dataclass(frozen=True)
class UpscaleResult:
    """What :func:`upscale` gives back.

    Args:
        volume: The result, float32 in native units, axes ordered as in the input. None where it
            is larger than memory, so that it was only written.
        report: What was done; the same that the JSON report holds.
        uncertainty: Where it was asked for, the standard deviation that the network expects of its
            error: float32 in native units on the grid of ``volume``.

    Examples:
        >>> import numpy as np
        >>> import medsr
        >>> x, y, z = np.mgrid[-1:1:24j, -1:1:24j, -1:1:6j]
        >>> ball = (800 * np.exp(-2 * (x**2 + y**2 + z**2))).astype(np.float32)
        >>> result = medsr.upscale(ball, modality="mr", array_spacing=(1.0, 1.0, 4.0))
        >>> result.whole().spacing
        (1.0, 1.0, 1.0)
        >>> result.report["model"]["name"], result.uncertainty is None
        ('mr-z4', True)
    """

    volume: Volume | None
    report: dict[str, Any]
    uncertainty: Volume | None = None

    def whole(self) -> Volume:
        """Return the result, where it must be in memory.

        Raises:
            MemoryLimitError: It was only written.
        """
        if self.volume is None:
            raise MemoryLimitError(
                "the result is larger than the memory there is and was only written to its file; "
                "raise the limit, or read the file by parts"
            )
        return self.volume


def upscale(
    scan: str | Path | Volume | NDArray[Any] | torch.Tensor,
    output: str | Path | None = None,
    *,
    model: str | Path | SRModel = "auto",
    modality: str = "auto",
    spacing: str | Sequence[float] | None = "iso",
    scale: Sequence[float] | None = None,
    device: str = "auto",
    precision: str = "auto",
    backend: str = "torch",
    max_memory: int | str | None = None,
    report: str | Path | None = None,
    preview: str | Path | None = None,
    uncertainty: bool | str | Path = False,
    consistency: bool | float = False,
    limits: bool = True,
    overwrite: bool = False,
    format: str | None = None,
    dicom: DicomOptions = DEFAULTS,
    allow: Collection[str] = (),
    affine: ArrayLike | None = None,
    array_spacing: Sequence[float] | None = None,
    series: str | None = None,
    progress: StageProgress | None = None,
    zoo_root: Path | None = None,
) -> UpscaleResult:
    """Bring a scan to a finer grid over the same physical extent.

    Args:
        scan: A file, a DICOM folder, a :class:`~medsr.volume.Volume`, or an array or tensor
            ``(X, Y, Z)`` with ``affine`` or ``array_spacing`` (a MONAI ``MetaTensor`` has its own).
        output: File or DICOM folder to write; nothing is written when not given.
        model: ``"auto"``, a shipped name, a model folder, or a loaded model.
        modality: ``"auto"``, ``"mr"`` or ``"ct"``.
        spacing: ``"iso"`` brings the slice spacing to the mean in-plane spacing; three numbers are
            mm along the array's own axes; None takes the model's own factor.
        scale: Factors along (in-plane, in-plane, slice), whichever array axis the slices lie
            along (the last, where no axis has clearly thicker voxels); instead of ``spacing``.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        precision: ``"auto"``, ``"fp32"`` or ``"bf16"``.
        backend: What runs the network: ``"torch"``, ``"openvino"``, ``"onnxruntime"``, or
            ``"auto"`` for the fastest that is installed.
        max_memory: Bytes, or text such as ``"4GB"``, that the process should stay below.
        report: JSON file to write.
        preview: PNG file to write, before and after side by side.
        uncertainty: True, or a file to write: the map of the standard deviation that the network
            expects of its error. It asks for a model that says one; ``"auto"`` prefers those.
        consistency: True, or a tolerance in native units (HU for CT): change the result as
            little as possible so that degrading it as in the model's training gives the scan; see
            :mod:`medsr.infer.consistency.project`. True takes 1 HU, or 0.1 % of an MR scan's range.
        limits: Whether the result is held to what the scan supports: an exactly constant
            background stays, nothing lies below the scan's least value or (CT) beyond what
            scanners store, and overshoot is bounded; see :mod:`medsr.infer.limits`. False gives
            the network's answer as it is.
        overwrite: Replace files that exist.
        format: ``"dicom"``, ``"nifti"``, ``"nrrd"``, ``"mha"`` or ``"mgz"``, whose ending is added
            to ``output`` where that has none; its name decides when not given.
        dicom: Series description and number, layout and de-identification of DICOM output.
        allow: What may be done to a scan that is refused otherwise, as for :func:`medsr.io.load`;
            and "labels": that it looks like a label image or mask, or is constant.
        affine: (4, 4) voxel index to RAS+ mm, for arrays.
        array_spacing: mm along X, Y, Z, for arrays without an affine.
        series: Which series of a DICOM folder, where it holds several.
        progress: Called with (stage, done, total).
        zoo_root: Folder of the models to choose from; those shipped when not given.

    Returns:
        The result and its report. Its grid is ``Geometry.refine`` of the scan's. The model's
        output is brought to the exact grid by a cubic B-spline, after a Gaussian where that grid
        is coarser than the model's; the map of uncertainty linearly, so that it stays above zero.

    Raises:
        MedsrError: The scan, the options, the model or the output cannot be used; see the
            classes in ``medsr.errors``. Nothing is written then.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> import medsr
        >>> x, y, z = np.mgrid[-1:1:24j, -1:1:24j, -1:1:6j]
        >>> ball = (800 * np.exp(-2 * (x**2 + y**2 + z**2))).astype(np.float32)
        >>> grid = medsr.Geometry(ball.shape, np.diag([1.0, 1.0, 4.0, 1.0]))
        >>> thick = medsr.Volume(ball, grid, "MR")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result = medsr.upscale(thick, Path(folder, "sharp.nii.gz"), model="mr-z4")
        ...     sharp = medsr.load(Path(folder, "sharp.nii.gz"), modality="MR")
        >>> sharp.shape, sharp.spacing
        ((24, 24, 24), (1.0, 1.0, 1.0))
        >>> sharp.geometry.same_grid(grid.refine((1, 1, 4)))
        True
        >>> coarser = medsr.upscale(thick, scale=(1, 1, 2))
        >>> coarser.volume.spacing
        (1.0, 1.0, 2.0)
    """
    sigma_file = None if isinstance(uncertainty, bool) else Path(uncertainty)
    upscaler = Upscaler(
        model=model,
        modality=modality,
        spacing=spacing,
        scale=scale,
        device=device,
        precision=precision,
        backend=backend,
        max_memory=max_memory,
        uncertainty=uncertainty is not False,
        consistency=consistency,
        limits=limits,
        allow=allow,
        zoo_root=zoo_root,
    )
    kind = io.parse_format(format)
    outputs = Outputs(
        scan=None if output is None else io.name_output(Path(output), kind),
        report=_path(report),
        preview=_path(preview),
        uncertainty=sigma_file,
        overwrite=overwrite,
        format=kind,
        dicom=dicom,
    )
    outputs.check_apart(prepare.path_of(scan))
    outputs.check()
    loaded = upscaler.read(scan, outputs, affine=affine, array_spacing=array_spacing, series=series)
    result = upscaler.compute(loaded, outputs, progress=progress)
    summary = upscaler.write(result, outputs)
    return UpscaleResult(result.after, summary, result.sigma)


def _path(name: str | Path | None) -> Path | None:
    return None if name is None else Path(name)

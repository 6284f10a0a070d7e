"""A scan from end to end: :func:`upscale`, the call of the command line and the evaluation.

The steps are those of :class:`medsr.infer.upscaler.Upscaler`; here is only their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from numpy.typing import ArrayLike, NDArray

from medsr import io
from medsr.errors import MemoryLimitError
from medsr.infer import prepare
from medsr.infer.options import UpscaleKeywords, UpscaleOptions
from medsr.infer.outputs import Outputs
from medsr.infer.upscaler import Upscaler
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
    options: UpscaleOptions | None = None,
    *,
    report: str | Path | None = None,
    preview: str | Path | None = None,
    affine: ArrayLike | None = None,
    array_spacing: Sequence[float] | None = None,
    series: str | None = None,
    progress: StageProgress | None = None,
    **changes: Unpack[UpscaleKeywords],
) -> UpscaleResult:
    """Bring a scan to a finer grid over the same physical extent.

    Args:
        scan: A file, a DICOM folder, a :class:`~medsr.volume.Volume`, or an array or tensor
            ``(X, Y, Z)`` with ``affine`` or ``array_spacing`` (a MONAI ``MetaTensor`` has its own).
        output: File or DICOM folder to write; nothing is written when not given.
        options: How the scan is upscaled; the defaults when not given.
        report: JSON file to write.
        preview: PNG file to write, before and after side by side.
        affine: (4, 4) voxel index to RAS+ mm, for arrays.
        array_spacing: mm along X, Y, Z, for arrays without an affine.
        series: Which series of a DICOM folder, where it holds several.
        progress: Called with (stage, done, total).
        **changes: Options that differ from ``options``, such as ``scale=(1, 1, 4)``: the fields of
            :class:`~medsr.infer.options.UpscaleOptions`, which says what each does.

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
    options = UpscaleOptions.of(options, **changes)
    upscaler = Upscaler(options)
    kind = options.output_format
    outputs = Outputs(
        scan=None if output is None else io.name_output(Path(output), kind),
        report=_path(report),
        preview=_path(preview),
        uncertainty=options.uncertainty_path,
        overwrite=options.overwrite,
        format=kind,
        dicom=options.dicom,
    )
    outputs.check_apart(prepare.path_of(scan))
    outputs.check()
    loaded = upscaler.read(scan, outputs, affine=affine, array_spacing=array_spacing, series=series)
    result = upscaler.compute(loaded, outputs, progress=progress)
    summary = upscaler.write(result, outputs)
    return UpscaleResult(result.after, summary, result.sigma)


def _path(name: str | Path | None) -> Path | None:
    return None if name is None else Path(name)

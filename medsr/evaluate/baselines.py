"""The methods without learning that every model must beat, from linear to total variation.

Interpolations resample in physical space, so the result lies on the truth's own grid whatever the
orientation. Voxels at the border lie between the outermost voxel centre and the edge of the image:
the B-spline mirrors there, and the others continue the outermost value. The Lanczos kernel is in
``windowed_sinc`` and the iteration of total variation in ``total_variation``, which is imported
when it is asked for and needs torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import SimpleITK

from medsr.errors import GeometryError, UsageError
from medsr.evaluate.windowed_sinc import lanczos
from medsr.geometry import Geometry
from medsr.volume import Volume

if TYPE_CHECKING:
    from medsr.degrade import Degradation

Interpolation = Literal["nearest", "linear", "bspline", "lanczos"]

INTERPOLATIONS: tuple[Interpolation, ...] = ("nearest", "linear", "bspline", "lanczos")
BASELINES: tuple[str, ...] = (*INTERPOLATIONS, "tv")

_WHAT = {
    "nearest": "The scan as it is: each of its voxels fills its own extent.",
    "linear": "Linear interpolation (SimpleITK).",
    "bspline": "Cubic B-spline interpolation (SimpleITK).",
    "lanczos": "Lanczos-windowed sinc interpolation, five neighbours on either side.",
    "tv": "Total variation: the smoothest scan that explains the slices, without learning.",
}
_INTERPOLATORS: dict[str, int] = {
    "nearest": SimpleITK.sitkNearestNeighbor,
    "linear": SimpleITK.sitkLinear,
    "bspline": SimpleITK.sitkBSpline3,
}
# The thickest slices that an assumed degradation explains; more is interpolated.
_LARGEST_FACTOR = 12


def describe_baseline(name: str) -> str:
    """Say in one sentence what a baseline is.

    Raises:
        UsageError: It is none of :data:`BASELINES`.

    Examples:
        >>> from medsr.evaluate.baselines import BASELINES, describe_baseline
        >>> BASELINES
        ('nearest', 'linear', 'bspline', 'lanczos', 'tv')
        >>> describe_baseline("bspline")
        'Cubic B-spline interpolation (SimpleITK).'
    """
    return _WHAT[_known(name)]


def restore_baseline(
    name: str, lr: Volume, grid: Geometry, degradation: Degradation[Any] | None = None
) -> Volume:
    """Restore a low-resolution scan without learning.

    Args:
        name: One of :data:`BASELINES`.
        lr: The scan, native units.
        grid: Shape and place of the result, in the same patient space.
        degradation: What made ``lr`` of a scan on ``grid``; only ``tv`` uses it, at its nominal
            parameters. None where that is not known (real pairs): ``tv`` then assumes Gaussian
            slice profiles without gap, of a full width at half maximum of the spacing of ``lr``,
            along every axis on which ``grid`` is at least one and a half times as fine.

    Returns:
        A float32 volume on exactly ``grid``, native units, with neither clipping nor rounding.

    Raises:
        UsageError: The name is unknown.
        GeometryError: The degradation does not lead from ``grid`` to the grid of ``lr``.

    Examples:
        >>> import numpy as np
        >>> from medsr import Geometry, Volume
        >>> from medsr.evaluate.baselines import restore_baseline
        >>> thick = Geometry((16, 16, 6), np.diag([1.0, 1.0, 4.0, 1.0]))
        >>> ramp = np.tile(np.arange(6, dtype=np.float32) * 100, (16, 16, 1))
        >>> fine = thick.refine((1, 1, 4))
        >>> result = restore_baseline("linear", Volume(ramp, thick, "MR"), fine)
        >>> result.spacing, result.data[8, 8, 8:12].tolist()
        ((1.0, 1.0, 1.0), [162.5, 187.5, 212.5, 237.5])
    """
    if _known(name) == "tv":
        return _total_variation(lr, grid, degradation)
    for interpolation in INTERPOLATIONS:
        if interpolation == name:
            return resample(lr, grid, interpolation)
    raise UsageError(f"baseline {name!r} is no interpolation")


def resample(volume: Volume, grid: Geometry, method: Interpolation) -> Volume:
    """Resample a volume onto a grid.

    Args:
        volume: Any volume; native units.
        grid: Shape and place of the result, in the same patient space.
        method: ``nearest``, ``linear``, ``bspline`` (third order, interpolating) or ``lanczos``.
            Where the axes of the two grids are not parallel, Lanczos refines ``volume`` along its
            own axes and a B-spline takes the step from there. A volume with an axis of two voxels
            is interpolated linearly instead of by B-spline.

    Returns:
        A float32 volume on exactly ``grid``, native units, with neither clipping nor rounding.

    Examples:
        >>> import numpy as np
        >>> from medsr import Geometry, Volume
        >>> from medsr.evaluate.baselines import resample
        >>> grid = Geometry((8, 8, 8), np.eye(4))
        >>> scan = Volume(np.ones(grid.shape, dtype=np.float32), grid)
        >>> resample(scan, grid.resize((16, 16, 8)), "bspline").spacing
        (0.5, 0.5, 1.0)
    """
    if method == "lanczos":
        data = lanczos(volume.data.astype(np.float32), volume.geometry, grid)
        if data is not None:
            return volume.replace(data=data, geometry=grid)
        fine = volume.geometry.refine(_factors(volume.geometry, grid))
        return resample(resample(volume, fine, "lanczos"), grid, "bspline")
    if method == "bspline" and 2 in volume.shape:
        # ITK mirrors an index once, which leaves an axis of two voxels at the other end and reads
        # memory that is not the image's.
        method = "linear"
    result = SimpleITK.Resample(
        _to_itk(volume.data.astype(np.float32), volume.geometry),
        referenceImage=_to_itk(np.zeros(grid.shape, dtype=np.uint8), grid),
        interpolator=_INTERPOLATORS[method],
        outputPixelType=SimpleITK.sitkFloat32,
        # A centre that rounding puts a hair outside the image takes the nearest voxel, never zero.
        useNearestNeighborExtrapolator=True,
    )
    data = np.ascontiguousarray(SimpleITK.GetArrayFromImage(result).transpose(2, 1, 0))
    return volume.replace(data=data, geometry=grid)


def _total_variation(lr: Volume, grid: Geometry, degradation: Degradation[Any] | None) -> Volume:
    """Total variation on ``grid``, or beside it and resampled where nothing leads from it to lr."""
    from medsr.degrade.slice_profile import SliceProfile
    from medsr.evaluate.total_variation import total_variation

    fine = grid
    if degradation is None:
        factors = _factors(lr.geometry, grid)
        degradation = SliceProfile(factor=factors)
        fine = lr.geometry.refine(factors)
        if fine.same_grid(grid):
            fine = grid
    elif min(grid.shape[i] // degradation.factor[i] for i in range(3)) < 1 or not (
        grid.coarsen(degradation.factor).same_grid(lr.geometry)
    ):
        raise GeometryError(
            f"the degradation divides by {degradation.factor} and does not lead from the grid "
            f"wanted, {grid.shape}, to that of the low-resolution scan, {lr.shape}"
        )
    result = total_variation(resample(lr, fine, "bspline"), lr, degradation)
    return result if fine is grid else resample(result, grid, "bspline")


def _factors(coarse: Geometry, fine: Geometry) -> tuple[int, int, int]:
    """How many voxels of ``fine`` one of ``coarse`` spans along its axes, rounded, at least one."""
    cosines = np.abs(coarse.directions.T @ fine.directions)
    spacing = np.asarray(fine.spacing)[cosines.argmax(axis=1)]
    ratios = np.asarray(coarse.spacing) / spacing
    x, y, z = (int(min(max(round(float(r)), 1), _LARGEST_FACTOR)) for r in ratios)
    return x, y, z


def _known(name: str) -> str:
    if name not in _WHAT:
        raise UsageError(f"baseline {name!r} is unknown; there are {', '.join(BASELINES)}")
    return name


def _to_itk(data: npt.NDArray[Any], geometry: Geometry) -> Any:
    """Make an ITK image of (X, Y, Z) data; ITK arrays run (Z, Y, X) and its space is LPS+."""
    image: Any = SimpleITK.GetImageFromArray(np.ascontiguousarray(data.transpose(2, 1, 0)))
    origin, spacing, direction = geometry.to_lps()
    image.SetOrigin(origin)
    image.SetSpacing(spacing)
    image.SetDirection(direction.ravel().tolist())
    return image

"""The interpolations that every model must beat: linear and cubic B-spline.

Both resample in physical space with SimpleITK, so the result lies on the truth's own grid whatever
the orientation. Voxels at the border lie between the outermost voxel centre and the edge of the
image: linear continues the outermost value there and the B-spline mirrors.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import SimpleITK

from medsr.geometry import Geometry
from medsr.volume import Volume

Interpolation = Literal["linear", "bspline"]

BASELINES: tuple[Interpolation, ...] = ("linear", "bspline")

_INTERPOLATORS: dict[Interpolation, int] = {
    "linear": SimpleITK.sitkLinear,
    "bspline": SimpleITK.sitkBSpline3,
}


def resample(volume: Volume, grid: Geometry, method: Interpolation) -> Volume:
    """Resample a volume onto a grid.

    Args:
        volume: Any volume; native units.
        grid: Shape and place of the result, in the same patient space.
        method: ``linear`` or ``bspline`` (third order, interpolating).

    Returns:
        A float32 volume on exactly ``grid``, native units, with neither clipping nor rounding.
    """
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


def _to_itk(data: npt.NDArray[Any], geometry: Geometry) -> Any:
    """Make an ITK image of (X, Y, Z) data; ITK arrays run (Z, Y, X) and its space is LPS+."""
    image: Any = SimpleITK.GetImageFromArray(np.ascontiguousarray(data.transpose(2, 1, 0)))
    origin, spacing, direction = geometry.to_lps()
    image.SetOrigin(origin)
    image.SetSpacing(spacing)
    image.SetDirection(direction.ravel().tolist())
    return image

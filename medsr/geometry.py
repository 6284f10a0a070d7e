"""Geometry: the shape of a voxel grid and where it lies in the patient.

This is the only place in medsr that does affine arithmetic. It knows no voxel values, no files and
no images; readers, degradations and inference all ask it for the grids they need.

Conventions. Indices are (X, Y, Z) as the array stores them and point at voxel centres; the affine
maps an index to RAS+ millimetres. A change of resolution keeps the physical extent: the outer
edges of the grid stay where they are and the voxel centres move.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from medsr.errors import GeometryError
from medsr.types import Float64Array, FloatTriple, Shape

__all__ = ["Geometry"]

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
# Below this determinant of the unit axes (a volume in 0...1) two axes are within 0.06 degrees.
_SINGULAR = 1e-3


def format_mm(values: Iterable[float]) -> str:
    """Millimetres for a message: ``0.9 x 0.9 x 6``."""
    return " x ".join(f"{value:.4g}" for value in values)


@dataclass(frozen=True, eq=False)
class Geometry:
    """A regular voxel grid in space.

    Args:
        shape: number of voxels along the array axes (X, Y, Z), each at least 1.
        affine: (4, 4), index of a voxel centre to RAS+ mm; kept as read-only float64.

    Raises:
        GeometryError: if the shape is empty or the affine is not finite, is singular, has a zero
            spacing or a last row other than 0 0 0 1.

    Examples:
        >>> import numpy as np
        >>> from medsr import Geometry
        >>> thick = Geometry((256, 256, 30), np.diag([0.9, 0.9, 5.0, 1.0]))
        >>> thick.spacing, thick.extent_mm, thick.slice_axis()
        ((0.9, 0.9, 5.0), (230.4, 230.4, 150.0), 2)
        >>> fine = thick.refine((1, 1, 5))
        >>> fine.shape, fine.spacing
        ((256, 256, 150), (0.9, 0.9, 1.0))
        >>> fine.origin  # the edges stay where they are, so the first centre moves
        (0.0, 0.0, -2.0)
        >>> fine.voxel_to_world((0, 0, 2))  # the centre of the first thick slice
        array([0., 0., 0.])
    """

    shape: Shape
    affine: Float64Array

    def __post_init__(self) -> None:
        """Normalise the types and refuse what is no grid."""
        object.__setattr__(self, "shape", _checked_shape(self.shape))
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4):
            raise GeometryError(f"the affine has shape {affine.shape}; it must be (4, 4)")
        if not np.isfinite(affine).all():
            raise GeometryError("the affine holds NaN or infinity; give the image a valid one")
        if not np.allclose(affine[3], (0.0, 0.0, 0.0, 1.0), rtol=0.0, atol=1e-6):
            raise GeometryError(f"the affine's last row is {affine[3].tolist()}, not 0 0 0 1")
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        if not (spacing > 0.0).all():
            raise GeometryError(
                f"the voxel spacing is {format_mm(spacing)} mm; every axis needs more than zero"
            )
        volume = abs(float(np.linalg.det(affine[:3, :3] / spacing)))
        if volume < _SINGULAR:
            raise GeometryError(
                f"the affine is singular (unit axes span {volume:.2g} of a cube): two axes coincide"
            )
        affine.flags.writeable = False
        object.__setattr__(self, "affine", affine)

    def __eq__(self, other: object) -> bool:
        """Exactly the same shape and affine; for a tolerance use :meth:`same_grid`."""
        if not isinstance(other, Geometry):
            return NotImplemented
        return self.shape == other.shape and np.array_equal(self.affine, other.affine)

    def __hash__(self) -> int:
        """Hash of the shape alone, which equal geometries share."""
        return hash(self.shape)

    # --- what the grid looks like -------------------------------------------------------------

    @property
    def spacing(self) -> FloatTriple:
        """Distance between voxel centres along each array axis, in mm."""
        return _triple(np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def origin(self) -> FloatTriple:
        """RAS+ position of the centre of voxel (0, 0, 0), in mm."""
        return _triple(self.affine[:3, 3])

    @property
    def directions(self) -> Float64Array:
        """(3, 3) array whose unit columns are the RAS+ directions of the array axes."""
        return np.asarray(self.affine[:3, :3] / np.asarray(self.spacing), dtype=np.float64)

    @property
    def axcodes(self) -> tuple[str, str, str]:
        """Closest anatomical direction of each array axis, such as ``("L", "P", "S")``."""
        left, _, right = np.linalg.svd(self.directions)
        rotation = left @ right  # the nearest one to axes that are sheared
        codes = ["", "", ""]
        for axis in np.argsort(-(rotation**2).max(axis=0), kind="stable"):  # the clearest first
            along = int(np.abs(rotation[:, axis]).argmax())
            codes[axis] = ("RAS" if rotation[along, axis] > 0 else "LPI")[along]
            rotation[along] = 0.0  # each direction once
        return codes[0], codes[1], codes[2]

    @property
    def extent_mm(self) -> FloatTriple:
        """Physical length of the grid along each array axis, outer edge to outer edge, in mm."""
        return _triple(np.asarray(self.shape) * np.asarray(self.spacing))

    @property
    def is_left_handed(self) -> bool:
        """Whether the three array axes form a left-handed frame in RAS+."""
        return float(np.linalg.det(self.affine[:3, :3])) < 0.0

    def is_orthogonal(self, tolerance: float = 1e-3) -> bool:
        """Whether the axes stand at right angles (cosines up to ``tolerance``), not sheared."""
        gram = self.directions.T @ self.directions
        return bool(np.abs(gram - np.eye(3)).max() <= tolerance)

    def corners_mm(self) -> Float64Array:
        """The eight outer corners (voxel edges, not centres), as (8, 3) RAS+ mm."""
        far = np.asarray(self.shape, dtype=np.float64) - 0.5
        indices = [[-0.5 if bit == 0 else far[i] for i, bit in enumerate(bits)] for bits in _BITS]
        return self.voxel_to_world(np.asarray(indices))

    def slice_axis(self, tolerance: float = 0.1) -> int | None:
        """Find the through-plane axis of a stack of thick slices.

        Args:
            tolerance: how much (relative) the thick axis must exceed each of the other two.

        Returns:
            Index of that array axis, or None for an isotropic grid or one with no single
            thickest axis.
        """
        spacing = self.spacing
        axis = max(range(3), key=spacing.__getitem__)
        others = max(spacing[i] for i in range(3) if i != axis)
        return axis if spacing[axis] > others * (1.0 + tolerance) else None

    # --- points -------------------------------------------------------------------------------

    def voxel_to_world(self, ijk: npt.ArrayLike) -> Float64Array:
        """Map indices (..., 3) of voxel centres (fractions allowed) to RAS+ mm (..., 3)."""
        points = np.asarray(ijk, dtype=np.float64)
        return np.asarray(points @ self.affine[:3, :3].T + self.affine[:3, 3])

    def world_to_voxel(self, xyz: npt.ArrayLike) -> Float64Array:
        """Map RAS+ mm (..., 3) to fractional voxel indices (..., 3)."""
        offsets = np.asarray(xyz, dtype=np.float64) - self.affine[:3, 3]
        return np.asarray(offsets @ np.linalg.inv(self.affine[:3, :3]).T)

    # --- other grids --------------------------------------------------------------------------

    def resize(self, shape: Sequence[int]) -> Geometry:
        """Lay a grid of another shape over the same physical extent: edges stay, centres move.

        With s = new shape / old shape, the spacing is divided by s and the origin moves by
        ``A (1/s - 1) / 2`` voxels.
        """
        new_shape = _checked_shape(shape)
        step = np.asarray(self.shape, dtype=np.float64) / np.asarray(new_shape, dtype=np.float64)
        return self._resampled(new_shape, step=step, first=(step - 1.0) / 2.0)

    def refine(self, scale: float | Sequence[float]) -> Geometry:
        """Divide the voxels: ``round(n * scale)`` of them along each axis over the same extent.

        Args:
            scale: factor for all axes or one per axis, above zero, whole or not. Where
                ``n * scale`` is no whole number the spacing gives way, never the extent.
        """
        factors = _per_axis(scale)
        if not all(math.isfinite(factor) and factor > 0.0 for factor in factors):
            raise GeometryError(f"scale is {factors}; each axis needs a factor above zero")
        return self.resize([max(1, round(n * s)) for n, s in zip(self.shape, factors, strict=True)])

    def coarsen(self, scale: int | Sequence[int]) -> Geometry:
        """Join blocks of ``scale`` voxels into one, dropping what is left over at the far end.

        The centre of coarse voxel k is at fine index ``(s - 1) / 2 + s k``.

        Args:
            scale: whole factor for all axes or one per axis, at least 1.

        Raises:
            GeometryError: if a factor is below 1, is not whole, or exceeds the number of voxels.
        """
        factors = _per_axis(scale)
        if not all(float(factor).is_integer() and factor >= 1 for factor in factors):
            raise GeometryError(f"scale is {factors}; coarsening needs whole factors from 1 up")
        whole = [int(factor) for factor in factors]
        shape = [n // s for n, s in zip(self.shape, whole, strict=True)]
        if min(shape) < 1:
            raise GeometryError(f"shape {self.shape} is too small to coarsen by {tuple(whole)}")
        step = np.asarray(whole, dtype=np.float64)
        return self._resampled(_checked_shape(shape), step=step, first=(step - 1.0) / 2.0)

    def crop(self, start: Sequence[int], stop: Sequence[int]) -> Geometry:
        """The grid of ``array[start[0]:stop[0], start[1]:stop[1], start[2]:stop[2]]``.

        Raises:
            GeometryError: unless 0 <= start < stop <= shape along every axis.
        """
        for low, high, size in zip(start, stop, self.shape, strict=True):
            if not 0 <= low < high <= size:
                raise GeometryError(
                    f"cannot crop {tuple(start)} to {tuple(stop)} out of shape {self.shape}"
                )
        shape = [high - low for low, high in zip(start, stop, strict=True)]
        first = np.asarray(start, dtype=np.float64)
        return self._resampled(_checked_shape(shape), step=np.ones(3), first=first)

    def permute(self, axes: Sequence[int]) -> Geometry:
        """The grid of ``array.transpose(axes)``: new axis i is old axis ``axes[i]``."""
        order = [operator.index(axis) for axis in axes]
        if sorted(order) != [0, 1, 2]:
            raise GeometryError(f"axes {tuple(order)} are no permutation of 0, 1, 2")
        affine = self.affine.copy()
        affine[:, :3] = self.affine[:, order]
        return Geometry((self.shape[order[0]], self.shape[order[1]], self.shape[order[2]]), affine)

    def flip(self, axes: int | Iterable[int]) -> Geometry:
        """The grid of ``numpy.flip(array, axes)``: the same voxels, counted from the other end."""
        flipped = {axes} if isinstance(axes, int) else set(axes)
        if not flipped <= {0, 1, 2}:
            raise GeometryError(f"cannot flip axes {sorted(flipped)}; they are 0, 1 and 2")
        step = np.asarray([-1.0 if i in flipped else 1.0 for i in range(3)])
        first = np.asarray([n - 1.0 if i in flipped else 0.0 for i, n in enumerate(self.shape)])
        return self._resampled(self.shape, step=step, first=first)

    def same_grid(self, other: Geometry, tol_mm: float = 1e-3) -> bool:
        """Whether both have the same shape and no corner differs by more than ``tol_mm``."""
        return self.shape == other.shape and self.corner_distance_mm(other) <= tol_mm

    def corner_distance_mm(self, other: Geometry) -> float:
        """The largest distance between like corners of the two grids, in mm."""
        return float(np.linalg.norm(self.corners_mm() - other.corners_mm(), axis=1).max())

    # --- ITK and DICOM ------------------------------------------------------------------------

    @classmethod
    def from_lps(
        cls,
        shape: Sequence[int],
        origin: Sequence[float],
        spacing: Sequence[float],
        direction: npt.ArrayLike,
    ) -> Geometry:
        """Build from the LPS+ description that ITK and DICOM use.

        Args:
            shape: voxels along (X, Y, Z).
            origin: LPS+ position of the centre of voxel (0, 0, 0), in mm.
            spacing: mm between centres along each axis, above zero.
            direction: nine numbers, row by row; its columns are the LPS+ axis directions.

        Source: DICOM PS3.3 C.7.6.2.1.1; ITK Software Guide, "Spacing, origin, direction".
        """
        steps = np.asarray(spacing, dtype=np.float64)
        if not (np.isfinite(steps).all() and (steps > 0.0).all()):
            raise GeometryError(
                f"the voxel spacing is {format_mm(steps)} mm; every axis needs more than zero"
            )
        columns = np.asarray(direction, dtype=np.float64).reshape(3, 3)
        affine = np.eye(4)
        affine[:3, :3] = _LPS_TO_RAS @ columns * steps
        affine[:3, 3] = _LPS_TO_RAS @ np.asarray(origin, dtype=np.float64)
        return cls(_checked_shape(shape), affine)

    def to_lps(self) -> tuple[FloatTriple, FloatTriple, Float64Array]:
        """The inverse of :meth:`from_lps`: origin (LPS+ mm), spacing (mm), direction (3, 3)."""
        origin = _LPS_TO_RAS @ self.affine[:3, 3]
        return _triple(origin), self.spacing, np.asarray(_LPS_TO_RAS @ self.directions)

    def _resampled(self, shape: Shape, *, step: Float64Array, first: Float64Array) -> Geometry:
        """Grid whose voxel k lies at this grid's index ``first + step * k``."""
        affine = self.affine.copy()
        affine[:3, :3] = self.affine[:3, :3] * step
        affine[:3, 3] = self.voxel_to_world(first)
        return Geometry(shape, affine)


_BITS = tuple(product((0, 1), repeat=3))


def _checked_shape(shape: Sequence[int]) -> Shape:
    """Three whole numbers from 1 up, or GeometryError."""
    try:
        sizes = tuple(operator.index(size) for size in shape)
    except TypeError:
        raise GeometryError(f"shape {shape!r} must be three whole numbers") from None
    if len(sizes) != 3 or min(sizes) < 1:
        raise GeometryError(f"shape {sizes} must be three whole numbers from 1 up")
    return sizes[0], sizes[1], sizes[2]


def _per_axis(scale: float | Sequence[float]) -> FloatTriple:
    """One factor per axis from a single number or three."""
    factors = (scale,) * 3 if isinstance(scale, (int, float)) else tuple(scale)
    if len(factors) != 3:
        raise GeometryError(f"scale {factors} must be one number or three")
    return factors[0], factors[1], factors[2]


def _triple(values: npt.ArrayLike) -> FloatTriple:
    """Three Python floats."""
    first, second, third = np.asarray(values, dtype=np.float64).tolist()
    return float(first), float(second), float(third)

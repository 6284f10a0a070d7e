"""Slices that are tilted and uneven at once, against SimpleITK's reading of each slice alone.

SimpleITK says where every pixel of a slice lies and what it is between pixels; what lies between
two slices is their mean, weighted by the distances along the normal. Nothing of it is our code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from pydicom.dataset import Dataset

from medsr import io
from medsr.hu import AIR_HU
from medsr.types import Float64Array
from medsr.volume import Volume

Make = Callable[..., Path]
BOTH = ("tilt", "gaps")


class Judge:
    """The slices of a folder as SimpleITK reads them, along their normal.

    ``padding`` is the native value of pixels without data.
    """

    def __init__(self, folder: Path, padding: float | None = None) -> None:
        self.padding = padding
        images = [SimpleITK.ReadImage(str(file)) for file in sorted(folder.iterdir())]
        self.normal = np.array(images[0].GetDirection()).reshape(3, 3)[:, 2]
        images.sort(key=lambda image: float(self.normal @ image.GetOrigin()))
        self.images = images
        self.along = np.array([self.normal @ image.GetOrigin() for image in images])

    def on_slice(self, index: int, point: Float64Array) -> float:
        """The value where a point falls on a slice along the normal; NaN where none is known."""
        image = self.images[index]
        foot = point + (self.along[index] - self.normal @ point) * self.normal
        x, y, z = image.TransformPhysicalPointToContinuousIndex(foot.tolist())
        assert abs(z) < 1e-3
        columns, rows, _ = image.GetSize()
        if not (-1e-3 <= x <= columns - 1 + 1e-3 and -1e-3 <= y <= rows - 1 + 1e-3):
            return float("nan")
        around = {
            image.GetPixel(min(int(u), columns - 1), min(int(v), rows - 1), 0)
            for u in (np.floor(x + 1e-3), np.ceil(x - 1e-3))
            for v in (np.floor(y + 1e-3), np.ceil(y - 1e-3))
        }
        if self.padding in around:
            return float("nan")
        return float(image.EvaluateAtPhysicalPoint(foot.tolist(), SimpleITK.sitkLinear))

    def between(self, point: Float64Array, step_mm: float) -> float:
        """The value at an LPS+ point; NaN where none is known.

        A slice within a hundredth of a step of a plane is taken as it is.
        """
        place = float(self.normal @ point)
        assert self.along[0] - 1e-3 <= place <= self.along[-1] + 1e-3  # mm
        nearest = int(np.abs(self.along - place).argmin())
        if abs(self.along[nearest] - place) <= 0.01 * step_mm:
            return self.on_slice(nearest, point)
        upper = int(np.searchsorted(self.along, place))
        gap = self.along[upper] - self.along[upper - 1]
        share = (place - self.along[upper - 1]) / gap
        below, above = self.on_slice(upper - 1, point), self.on_slice(upper, point)
        return below * (1.0 - share) + above * share


def agree(volume: Volume, judge: Judge, voxels: Sequence[tuple[int, ...]]) -> tuple[int, int]:
    """Compare voxels; how many were measured and how many lie beside the slices."""
    inside = outside = 0
    fill = AIR_HU if judge.padding is None else judge.padding
    for voxel in voxels:
        point = volume.geometry.voxel_to_world(voxel) * [-1.0, -1.0, 1.0]
        expected = judge.between(point, volume.spacing[2])
        found = float(volume.data[voxel])
        if np.isnan(expected):
            assert found == fill
            outside += 1
        else:
            assert abs(found - expected) < 0.05, (voxel, found, expected)
            inside += 1
    return inside, outside


def some_voxels(volume: Volume, count: int) -> list[tuple[int, ...]]:
    """Voxels anywhere, the first and the last plane among them."""
    generator = np.random.default_rng(7)
    chosen = generator.integers(0, volume.shape, (count, 3))
    chosen[: count // 8, 2], chosen[count // 8 : count // 4, 2] = 0, volume.shape[2] - 1
    return [tuple(map(int, voxel)) for voxel in chosen]


def _moved(shift: Callable[[int], Float64Array]) -> Callable[[Dataset, int], None]:
    def edit(dataset: Dataset, k: int) -> None:
        moved = np.array(dataset.ImagePositionPatient, dtype=float) + shift(k)
        dataset.ImagePositionPatient = [f"{value:.9f}"[:16] for value in moved]
        dataset.PatientPosition = "HFS"

    return edit


@pytest.mark.parametrize("degrees", [18.5, -11.0])
def test_tilted_and_uneven_slices_agree_with_itk(
    tmp_path: Path, make_series: Make, oblique_axes: Float64Array, degrees: float
) -> None:
    generator = np.random.default_rng(3)
    stored = generator.integers(0, 2000, (12, 14, 11)).astype(np.int16)
    # Thin below and thick above, with one slice close to its neighbour.
    along = np.array([0.0, 4.0, 8.0, 12.0, 16.0, 17.08, 24.08, 31.08, 38.08, 45.08, 52.08])
    drift = np.tan(np.radians(degrees))

    def shift(k: int) -> Float64Array:
        ahead = along[k] - 2.5 * k  # the fixture's spacing is 2.5 mm
        return np.asarray(oblique_axes[:, 2] * ahead + oblique_axes[:, 1] * along[k] * drift)

    folder = make_series(tmp_path / "s", stored, directions=oblique_axes, edit=_moved(shift))
    volume = io.load(folder, allow=BOTH)
    assert volume.geometry.is_orthogonal(1e-9)
    every = [voxel for voxel in np.ndindex(*volume.shape) if sum(voxel) % 3 == 0]
    inside, outside = agree(volume, Judge(folder), every)
    assert inside > 400
    assert outside > 150


def test_the_real_one_agrees_with_itk(shared_data: Path) -> None:
    folder = shared_data / "dicom" / "ct_gantry_tilt_uneven"
    volume = io.load(folder, allow=BOTH)
    judge = Judge(folder, padding=-1500.0)
    inside, outside = agree(volume, judge, some_voxels(volume, 3000))
    assert inside > 1500
    assert outside > 500

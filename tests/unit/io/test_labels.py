"""Label images, masks and constant volumes are told from scans, by name, header and values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from scipy import ndimage

from medsr import io
from medsr.errors import LabelsError
from medsr.io import labels
from medsr.io.planes import MemoryPlanes, chunks
from medsr.io.reading import open_planes
from medsr.io.survey import survey
from medsr.types import Array
from medsr.volume import Volume
from tests.conftest import make_phantom

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
SCANS = sorted(DATA.rglob("*.nii.gz"))


def _levels(volume: Volume) -> labels.Levels:
    return survey(MemoryPlanes(volume), "it").levels


def told(data: Array) -> str | None:
    levels = labels.Levels()
    levels.add(data)
    return levels.told()


def smooth(seed: int, sigma: float = 4.0) -> Array:
    noise = np.random.default_rng(seed).normal(size=(48, 44, 24))
    return ndimage.gaussian_filter(noise, sigma)


def parcels(count: int, seed: int = 0) -> Array:
    """Regions around random seeds: an atlas."""
    generator = np.random.default_rng(seed)
    shape = (48, 44, 24)
    points = np.array([generator.uniform(0, n, count) for n in shape]).T
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    best, found = np.full(shape, np.inf), np.zeros(shape, dtype=np.int64)
    for number, point in enumerate(points, start=1):
        distance = ((grid - point) ** 2).sum(axis=-1)
        found[distance < best] = number
        best = np.minimum(best, distance)
    return found


def a_point_for_each(count: int) -> Array:
    data = np.zeros((48, 44, 24), dtype=np.int16)
    data[24, 22, :count] = np.arange(1, count + 1)
    return data


def test_small_numbers_are_not_taken_for_what_they_round_to() -> None:
    for scale in (1e-4, 1e-8, 1e-20):
        assert told((smooth(1) * scale).clip(0, None).astype(np.float32)) is None
    assert told((smooth(1) > 0) + 1e-5 * smooth(2)) is not None


SEGMENTATIONS: dict[str, Callable[[], Array]] = {
    "mask": lambda: (smooth(1) > 0).astype(np.uint8),
    "mask of 255": lambda: (smooth(1) > 0).astype(np.uint8) * 255,
    "mask as float": lambda: (smooth(1) > 0).astype(np.float32),
    "three tissues": lambda: np.digitize(smooth(2), [-0.02, 0, 0.02]),
    "labels far apart": lambda: np.array([0, 2, 41, 1035, 2035])[parcels(4)],
    "small lesions beside large organs": lambda: np.where(
        smooth(3, 1.0) > 0.16, 1, 2 * (smooth(4) > 0)
    ),
    "unknown is -1": lambda: parcels(6) - 1 - (parcels(6) == 1),
    "atlas of 120": lambda: parcels(120),
    "atlas of wide numbers": lambda: (parcels(30) * 20_481_511).astype(np.int64),
    "points": lambda: a_point_for_each(20),
    "scaled by a file": lambda: (parcels(5) / 3).astype(np.float32) * np.float32(3),
}


@pytest.mark.parametrize("name", SEGMENTATIONS)
def test_segmentations_are_told_by_their_values(name: str) -> None:
    data = SEGMENTATIONS[name]()
    assert (told(data) or "").startswith("its values ("), name
    # A slab at a time, and along any axis.
    assert told(np.moveaxis(data, 2, 0)) is not None


def window(data: Array, low: float, high: float, steps: int) -> Array:
    return np.rint(np.clip((data - low) / (high - low), 0, 1) * (steps - 1)).astype(np.uint8)


NOISY = make_phantom((48, 44, 24))
SMOOTH = ndimage.gaussian_filter(NOISY, 1.0)
IMAGES: dict[str, Callable[[], Array]] = {
    "as it is": lambda: NOISY,
    "whole numbers": lambda: NOISY.round().astype(np.int16),
    "8 bits": lambda: window(NOISY, 0, 1000, 256),
    "8 bits, smooth": lambda: window(SMOOTH, 0, 1000, 256),
    "a narrow window": lambda: window(NOISY, 400, 700, 256),
    "6 bits": lambda: window(NOISY, 0, 1000, 64),
    "brain cut out": lambda: window(np.where(NOISY > 350, NOISY, 0), 0, 1000, 256),
    "grey values of a phantom, noise-free": lambda: (
        make_phantom((48, 44, 24), noise=0) / np.float32(7)
    ),
    "CT of few values": lambda: np.array([-1000, 0, 40, 300])[parcels(4) - 1],
    "each slice twice": lambda: np.repeat(window(NOISY, 0, 1000, 128), 2, axis=2),
    "noise of few values": lambda: np.random.default_rng(1).integers(0, 6, (30, 30, 20)),
}


@pytest.mark.parametrize("name", IMAGES)
def test_scans_are_not_taken_for_segmentations(name: str) -> None:
    assert told(IMAGES[name]()) is None


@pytest.mark.skipif(not SCANS, reason="needs the real scans in ../shared/data")
def test_no_real_scan_is_refused() -> None:
    for path in SCANS:
        volume = io.load(path)
        labels.check("it", path=path, source=volume.source, levels=_levels(volume))
    assert len(SCANS) > 1


@pytest.mark.skipif(not SCANS, reason="needs the real scans in ../shared/data")
def test_masks_of_real_scans_are_refused() -> None:
    for path in SCANS[::9]:
        volume = io.load(path)
        tissue = np.digitize(volume.data, np.quantile(volume.data, [0.5, 0.8]))
        tissue = ndimage.median_filter(tissue, 3).astype(np.int16)
        with pytest.raises(LabelsError, match="its values"):
            labels.check("it", levels=_levels(volume.replace(data=tissue)))


def test_both_ways_of_reading_see_the_same(tmp_path: Path) -> None:
    data = np.kron(parcels(40), np.ones((4, 4, 3), dtype=np.int64)).astype(np.uint16)
    for number, stored in enumerate((data, data.astype(np.float32), NOISY, SMOOTH.round())):
        path = tmp_path / f"{number}.nii.gz"
        nib.Nifti1Image(stored, np.eye(4)).to_filename(path)
        reader, whole = open_planes(path), io.load(path)
        by_slabs = survey(reader, "it").levels
        assert by_slabs.told() == _levels(whole).told()
        assert (by_slabs.low, by_slabs.high) == (whole.data.min(), whole.data.max())
    assert len(list(chunks(MemoryPlanes(io.load(tmp_path / "0.nii.gz"))))) > 0


@pytest.mark.parametrize(
    "name",
    [
        "sub-01_dseg.nii.gz",
        "sub-01_ses-2_space-T1w_desc-aseg_dseg.nii",
        "sub-01_label-GM_probseg.nii.gz",
        "sub-01_mask.nii.gz",
        "sub-01_desc-brain_mask.nii.gz",
        "sub-01_label-lesion_roi.nii.gz",
        "derivatives/labels/sub-01/anat/sub-01_T2w_seg-manual.nii.gz",
        "derivatives/labels/sub-01/anat/sub-01_T2w_labels-disc.nii.gz",
        "derivatives/x/sub-01/sub-01_T1w_lesion.nii.gz",
        "Segmentation.seg.nrrd",
    ],
)
def test_names_that_tell(name: str) -> None:
    with pytest.raises(LabelsError, match="its name"):
        labels.check(name, path=Path(name))


@pytest.mark.parametrize(
    "name",
    [
        "sub-01_T1w.nii.gz",
        "sub-mask_T1w.nii.gz",
        "sub-01_desc-brain_T1w.nii.gz",
        "derivatives/fmriprep/sub-01/anat/sub-01_desc-preproc_T1w.nii.gz",
        "brainmask.mgz",
        "patient_masked.nii.gz",
        "mask/brain.nii.gz",
        "seg3d_cardiac_LGE.nii.gz",
    ],
)
def test_names_that_do_not(name: str) -> None:
    assert labels.told_by_name(Path(name)) is None


def _with_intent(path: Path, code: int) -> Volume:
    image = nib.Nifti1Image(NOISY, np.eye(4))
    image.header["intent_code"] = code
    image.to_filename(path)
    return io.load(path)


@pytest.mark.parametrize(
    ("code", "words"),
    [(1002, "labels"), (1005, "labels"), (3, "a statistic"), (24, "a statistic"), (1006, "displ")],
)
def test_intents_that_tell(code: int, words: str, tmp_path: Path) -> None:
    volume = _with_intent(tmp_path / "a.nii", code)
    with pytest.raises(LabelsError, match=f"its header \\({words}"):
        labels.check("a.nii", source=volume.source)


@pytest.mark.parametrize("code", [0, 1001, 2001, 3000])
def test_intents_that_do_not(code: int, tmp_path: Path) -> None:
    assert labels.told_by_header(_with_intent(tmp_path / "a.nii", code).source) is None


def test_segments_in_a_header_tell(tmp_path: Path) -> None:
    image = SimpleITK.GetImageFromArray(NOISY.T)
    SimpleITK.WriteImage(image, tmp_path / "plain.nrrd")
    image.SetMetaData("Segment0_ID", "Segment_1")
    image.SetMetaData("Segment0_LabelValue", "1")
    SimpleITK.WriteImage(image, tmp_path / "drawn.nrrd")
    labels.check("it", source=io.load(tmp_path / "plain.nrrd").source)
    with pytest.raises(LabelsError, match="segments"):
        labels.check("it", source=io.load(tmp_path / "drawn.nrrd").source)
    with pytest.raises(LabelsError, match="segments"):
        labels.check("it", source=open_planes(tmp_path / "drawn.nrrd").header.source)


@pytest.mark.parametrize("value", [0, 7, -1000, 0.5])
def test_a_constant_is_no_scan(value: float) -> None:
    levels = labels.Levels()
    for _ in range(2):
        levels.add(np.full((5, 5, 5), value, dtype=np.float32))
    with pytest.raises(LabelsError, match=rf"every voxel is {value:g}; there is nothing"):
        labels.check("it", levels=levels)

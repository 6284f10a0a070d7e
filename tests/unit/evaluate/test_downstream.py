"""Segmentation by one method of truth and results; Dice equals SimpleITK's."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK
from scipy import ndimage

from medsr.evaluate.downstream import Segmenter
from medsr.evaluate.metrics import describe
from medsr.types import Float32Array

SPACING = (1.0, 1.0, 1.0)


@pytest.fixture
def head(phantom: Float32Array) -> Float32Array:
    """The phantom in air."""
    return np.pad(phantom, 5).astype(np.float32)


@pytest.fixture
def chest(rng: np.random.Generator) -> Float32Array:
    """A trunk with two lungs and a spine, HU."""
    shape = (60, 50, 24)
    x, y, z = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    volume = np.full(shape, -1000.0)  # the trunk is open at one end of z and closed at the other
    volume[(z < 20) & (((x - 30) / 28.0) ** 2 + ((y - 25) / 23.0) ** 2 <= 1)] = 40
    for centre in (17, 43):
        lung = ((x - centre) / 9.0) ** 2 + ((y - 22) / 13.0) ** 2 <= 1
        volume[lung & (z < 15)] = -860
    volume[(np.abs(x - 30) < 5) & (np.abs(y - 38) < 5) & (z < 17)] = 700
    volume[29:32, 9:12, 9:12] = 900  # a speck that is no bone
    return (volume + rng.normal(0, 8, shape)).astype(np.float32)


@pytest.mark.parametrize("modality", ["MR", "CT"])
def test_dice_and_volumes_equal_simpleitk(
    modality: str, head: Float32Array, chest: Float32Array
) -> None:
    hr = head if modality == "MR" else chest
    sr = ndimage.gaussian_filter1d(hr, 2.0, axis=2)
    segmenter = Segmenter(hr, modality, SPACING)
    scores = segmenter.score(sr)
    overlap = SimpleITK.LabelOverlapMeasuresImageFilter()
    images = (
        SimpleITK.GetImageFromArray(each) for each in (segmenter.segment(sr), segmenter.truth)
    )
    mine, truth = images
    overlap.Execute(mine, truth)
    for name, label in segmenter.structures.items():
        assert scores[f"dice@{name}"] == pytest.approx(overlap.GetDiceCoefficient(label), abs=1e-6)
        there = np.count_nonzero(segmenter.truth == label)
        found = np.count_nonzero(segmenter.segment(sr) == label)
        error = scores[f"volume_error@{name}"]
        assert error == pytest.approx(100 * (found / there - 1), abs=1e-9)
        # SimpleITK's measure divides the difference by the mean of both volumes.
        similarity = 2 * (found - there) / (found + there)
        assert overlap.GetVolumeSimilarity(label) == pytest.approx(similarity, abs=1e-9)
        assert describe(f"dice@{name}").label.startswith("Dice, ")
    assert min(scores[f"dice@{name}"] for name in segmenter.structures) < 0.99


@pytest.mark.parametrize("modality", ["MR", "CT"])
def test_the_truth_agrees_with_itself_and_more_blur_with_less(
    modality: str, head: Float32Array, chest: Float32Array
) -> None:
    hr = head if modality == "MR" else chest
    segmenter = Segmenter(hr, modality, SPACING)
    perfect = segmenter.score(hr)
    assert {perfect[f"dice@{name}"] for name in segmenter.structures} == {1.0}
    assert {perfect[f"volume_error@{name}"] for name in segmenter.structures} == {0.0}
    means = [
        np.mean([value for name, value in segmenter.score(each).items() if "dice" in name])
        for each in (ndimage.gaussian_filter(hr, sigma) for sigma in (0.4, 0.7, 1.5))
    ]
    assert means == sorted(means, reverse=True)
    assert means[-1] < 0.97


def test_the_spine_is_bone_and_a_speck_is_not(chest: Float32Array) -> None:
    labels = Segmenter(chest, "CT", SPACING).truth
    assert labels[30, 38, 12] == 3
    assert labels[30, 10, 10] == 0  # 27 voxels, less than 1 ml
    assert labels[17, 22, 12] == labels[43, 22, 0] == 1
    assert labels[30, 20, 12] == 2
    assert labels[0, 0, 12] == 0


def test_thresholds_follow_each_volume(head: Float32Array) -> None:
    segmenter = Segmenter(head, "MR", SPACING)
    brighter = segmenter.score(head * np.float32(3.0))
    assert min(value for name, value in brighter.items() if "dice" in name) > 0.99


def test_what_cannot_be_segmented_has_no_structure(head: Float32Array, chest: Float32Array) -> None:
    nothing = Segmenter(head, "MR", SPACING).score(np.zeros_like(head))
    assert nothing["dice@bright"] == 0.0
    assert nothing["volume_error@bright"] == -100.0
    without = np.where(chest > 200, np.float32(40), chest)
    assert np.isnan(Segmenter(without, "CT", SPACING).score(chest)["dice@bone"])
    with pytest.raises(ValueError, match="shapes differ"):
        Segmenter(head, "MR", SPACING).score(head[1:])
    with pytest.raises(ValueError, match="constant"):
        Segmenter(np.ones_like(head), "MR", SPACING)


def test_the_method_is_written_down(head: Float32Array, chest: Float32Array) -> None:
    assert "multi-Otsu" in Segmenter(head, "MR", SPACING).conventions()["segmentation"]
    assert "-500 HU" in Segmenter(chest, "CT", SPACING).conventions()["segmentation"]

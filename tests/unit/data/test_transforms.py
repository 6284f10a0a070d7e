"""Prepared scans: axes in turn, spacing, normalisation and the body's voxels."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import torch

from medsr.data.manifest import ScanRecord
from medsr.data.transforms import BODY_MR, body_threshold, prepare_scan, slice_axes
from medsr.model import Intensity, Normaliser

SPACING = (0.7, 0.9, 2.5)


def record(
    folder: Path, data: npt.NDArray[np.float32], sharp: str = "xyz", modality: str = "MR"
) -> ScanRecord:
    # Oblique and left-handed: spacing cannot be read off the diagonal.
    angle = 0.3
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0]])
    affine = np.eye(4)
    affine[:2, :3] = turn
    affine[:3, :3] = affine[:3, :3] * (np.array(SPACING) * [-1, 1, 1])
    path = folder / "scan.nii.gz"
    nib.save(nib.Nifti1Image(data, affine), path)
    return ScanRecord(path, "train", "someone", modality, sharp_axes=sharp)  # type: ignore[arg-type]


@pytest.fixture
def data() -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(3)
    volume = rng.uniform(200, 1000, (10, 9, 8)).astype(np.float32)
    volume[:3] = 0
    return volume


def test_every_sharp_axis_comes_last_in_turn(tmp_path: Path, data: npt.NDArray[np.float32]) -> None:
    entries = prepare_scan(record(tmp_path, data), Intensity.for_modality("MR"), (1, 1, 4))
    assert [entry.axis for entry in entries] == [0, 1, 2]
    assert [entry.shape for entry in entries] == [(9, 8, 10), (10, 8, 9), (10, 9, 8)]
    assert {entry.copies for entry in entries} == {3}
    divisor = Intensity.for_modality("MR").fit(data).divisor
    for entry in entries:
        image = entry.sample["image"][0].numpy() * divisor
        np.testing.assert_allclose(np.moveaxis(image, -1, entry.axis), data, rtol=1e-6)


def test_spacing_follows_the_array(tmp_path: Path, data: npt.NDArray[np.float32]) -> None:
    entries = prepare_scan(record(tmp_path, data), Intensity.for_modality("MR"), (1, 1, 2))
    x, y, z = SPACING
    for entry, expected in zip(entries, [(y, z, x), (x, z, y), (x, y, z)], strict=True):
        assert entry.spacing_mm == pytest.approx(expected, rel=1e-5)


def test_blurred_axes_never_serve_as_slice_axis(
    tmp_path: Path, data: npt.NDArray[np.float32]
) -> None:
    scan = record(tmp_path, data, sharp="xy")
    entries = prepare_scan(scan, Intensity.for_modality("MR"), (1, 1, 4))
    assert [entry.axis for entry in entries] == [0, 1]
    assert {entry.copies for entry in entries} == {2}


def test_isotropic_factors_take_each_fully_sharp_scan_once(
    tmp_path: Path, data: npt.NDArray[np.float32]
) -> None:
    intensity = Intensity.for_modality("MR")
    (entry,) = prepare_scan(record(tmp_path, data), intensity, (2, 2, 2))
    assert (entry.axis, entry.copies, entry.shape) == (2, 1, data.shape)
    blurred = record(tmp_path, data, sharp="xy")
    assert slice_axes(blurred, (2, 2, 2)) == ()
    assert prepare_scan(blurred, intensity, (2, 2, 2)) == ()


@pytest.mark.parametrize("modality", ["MR", "CT"])
def test_normalisation_is_that_of_the_model(
    tmp_path: Path, data: npt.NDArray[np.float32], modality: str
) -> None:
    native = data if modality == "MR" else data - 1000
    intensity = Intensity.for_modality(modality)  # type: ignore[arg-type]
    scan = record(tmp_path, native, sharp="z", modality=modality)
    (entry,) = prepare_scan(scan, intensity, (1, 1, 4))
    expected = intensity.fit(native).forward(native)
    image = entry.sample["image"]
    assert image.dtype == torch.float32
    assert image.shape == (1, *data.shape)
    np.testing.assert_allclose(image[0].numpy(), expected, rtol=1e-6, atol=1e-6)


def test_body_and_background_divide_the_voxels(
    tmp_path: Path, data: npt.NDArray[np.float32]
) -> None:
    for entry in prepare_scan(record(tmp_path, data), Intensity.for_modality("MR"), (1, 1, 4)):
        flat = entry.sample["image"][0].flatten() > entry.body_threshold
        body, rest = entry.sample["body_fg"].long(), entry.sample["body_bg"].long()
        assert torch.equal(body, flat.nonzero().flatten())
        assert torch.equal(rest, (~flat).nonzero().flatten())
        assert len(body) == 7 * 9 * 8


def test_the_body_lies_above_minus_500_hu_or_a_share_of_bright_tissue() -> None:
    ct = Intensity.for_modality("CT").fit(np.zeros(1))
    assert ct.inverse(torch.tensor(body_threshold("CT", ct))).item() == pytest.approx(
        -500, abs=0.01
    )
    assert body_threshold("MR", Normaliser(0, 700)) == BODY_MR

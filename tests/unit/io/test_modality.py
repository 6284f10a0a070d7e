"""CT, MR or in doubt: what values, names and the user's word come to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from medsr import io
from medsr.errors import ModalityError, NotHounsfieldError
from medsr.io.modality import Tally, judge, settle, tally
from medsr.types import Array

SHAPE = (40, 44, 24)


@pytest.fixture(scope="module")
def ct() -> Array:
    """A body of fat, organs and bone in air, in Hounsfield units with noise, as stored (int16)."""
    generator = np.random.default_rng(5)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    radius = np.hypot(x, y)
    data = np.full(SHAPE, -1000.0)
    data[radius < 0.85] = -105
    data[radius < 0.75] = 45
    data[np.hypot(x, y - 0.2) < 0.3] = 60 + 30 * np.sin(5 * z[np.hypot(x, y - 0.2) < 0.3])
    data[np.hypot(x, y + 0.5) < 0.18] = 800
    return np.asarray((data + generator.normal(0, 12, SHAPE)).round().astype(np.int16))


def of(data: Array) -> str | None:
    return judge(tally(data)).modality


def test_hounsfield_units_are_ct_whatever_lies_outside(ct: Array) -> None:
    assert of(ct) == of(ct.astype(np.float32)) == of(ct.clip(-1024, None)) == "CT"
    for fill in (-1024, -2000, -3024, -32768):
        filled = ct.copy()
        filled[:6] = fill
        assert of(filled) == "CT", fill
    zeros = ct.copy()
    zeros[:6] = 0
    assert of(zeros) == "CT"


def test_what_may_be_ct_is_asked(ct: Array) -> None:
    inside = ct[9:31, 10:34]
    assert inside.min() > -500
    assert of(inside) is None
    assert of(ct.clip(-160, 240)) is None
    assert of(((ct.clip(-160, 240) + 160) * 0.6375).astype(np.uint8)) is None
    assert of(ct + 1024) is None
    assert of((ct + 1000).clip(0, None).astype(np.uint16)) is None
    assert of(ct.clip(0, None)) is None
    for fill in (-1500, -2000, -3024):
        masked = np.where(ct < 0, fill, ct)
        assert of(masked) is None
        assert settle(judge(tally(masked)), "scan", asked="CT") == ("CT", None)


def test_magnitudes_are_mr(phantom: Array, rng: np.random.Generator) -> None:
    for factor in (0.05, 0.3, 1, 4, 30):
        assert of((phantom * factor).round().astype(np.int16)) == "MR"
    assert of(np.where(phantom > 100, phantom, 0)) == "MR"
    assert of(phantom[14:26, 12:24, 10:20]) == "MR"
    ripples = np.where(phantom > 100, phantom, rng.normal(0, 12, phantom.shape))
    assert of(ripples) == "MR"
    filled = phantom.copy()
    for fill in (-9999, -32768):
        filled[:4] = fill
        assert of(filled) == "MR"
        assert of(filled.clip(None, np.percentile(filled, 97))) == "MR"  # saturated


def test_normalised_values_are_mr_and_never_hounsfield(phantom: Array) -> None:
    inside = phantom > 100
    for data in (
        (phantom - phantom.mean()) / phantom.std(),
        np.where(inside, (phantom - phantom[inside].mean()) / phantom[inside].std(), 0),
        phantom / 500 - 1,
        phantom / 1000,
    ):
        found = judge(tally(data.astype(np.float32)))
        assert found.modality == "MR"
        assert settle(found, "scan", asked="MR")[0] == "MR"
        with pytest.raises(NotHounsfieldError, match=r"scan: values from .* HU"):
            settle(found, "scan", asked="CT")


def test_clearly_negative_and_as_wide_as_hounsfield_units_is_asked(
    rng: np.random.Generator,
) -> None:
    difference = rng.normal(0, 80, SHAPE)
    assert of(difference) is None
    masked = np.where(rng.random(SHAPE) < 0.4, rng.normal(0, 190, SHAPE), 0)
    assert (masked < -500).mean() > 1e-3
    assert of(masked) is None


def test_a_shifted_scan_is_not_said_to_be_ct_for_that(phantom: Array) -> None:
    assert of(phantom - 300) is None


def test_slab_by_slab_gives_the_same(ct: Array, phantom: Array) -> None:
    for data in (ct, ct + 1024, ct[9:31, 10:34], phantom, phantom / 7 - 3):
        counted = Tally()
        for start in range(0, data.shape[2], 5):
            counted.add(data[::2, ::2, start : start + 5][:, :, start % 2 :: 2])
        assert judge(counted) == judge(tally(data))


def test_an_option_against_the_values_is_warned_of(ct: Array, phantom: Array) -> None:
    for data, asked in ((phantom, "CT"), (ct, "MR"), (ct + 1024, "CT")):
        kind, warning = settle(judge(tally(data)), "scan", asked=asked)
        assert kind == asked
        assert warning is not None
        assert "modality" in warning
    for data, asked in ((ct, "CT"), (phantom, "MR"), (ct[9:31, 10:34], "CT")):
        assert settle(judge(tally(data)), "scan", asked=asked) == (asked, None)


def test_an_offset_that_may_be_one_is_spoken_of(rng: np.random.Generator) -> None:
    tissue = 900 + 40 * rng.gamma(4.0, 1.0, SHAPE)
    kind, warning = settle(judge(tally(tissue)), "scan")
    assert kind == "MR"
    assert "subtract" in str(warning)
    assert settle(judge(tally(tissue - 900)), "scan") == ("MR", None)


def test_doubt_says_what_was_seen_and_how_to_name_it(ct: Array) -> None:
    with pytest.raises(ModalityError) as caught:
        settle(judge(tally(ct + 1024)), "a.nii.gz")
    text = str(caught.value)
    assert text.startswith("a.nii.gz: ")
    for words in ("1024 too high", "--modality ct or --modality mr", "modality="):
        assert words in text
    assert caught.value.exit_code == 28


@pytest.mark.parametrize(
    ("name", "sidecar", "expected"),
    [
        ("sub-1/anat/sub-1_T1w.nii.gz", None, "MR"),
        ("sub-1/ct/sub-1_ct.nii.gz", None, "CT"),
        ("sub-1_ct.nii.gz", None, "CT"),
        ("scan.nii.gz", {"Modality": "CT"}, "CT"),
        ("scan.nii.gz", {"Modality": "MR"}, "MR"),
        ("scan.nii.gz", {"Modality": 7}, None),
        ("sub-1/anat/sub-1_T1w.nii.gz", {"Modality": "CT"}, None),
        ("scan_T1w.nii.gz", None, None),
    ],
)
def test_names_and_sidecars_settle_a_doubt(
    ct: Array, tmp_path: Path, name: str, sidecar: Any, expected: str | None
) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(ct[9:31, 10:34], np.eye(4)), path)
    if sidecar:
        path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(sidecar))
    assert io.load(path).modality == expected
    found = io.inspect(path, with_range=True)
    assert (found.modality, found.units is None) == (expected, expected is None)
    assert any("CT or MR?" in text for text in found.warnings) == (expected is None)


def test_a_name_against_the_values_is_a_doubt(ct: Array, phantom: Array) -> None:
    for data, named in ((phantom, "CT"), (ct, "MR"), (ct + 1024, "CT")):
        with pytest.raises(ModalityError, match=f"named {named}"):
            settle(judge(tally(data)), "scan", named=named)


def test_what_load_leaves_open_is_kept_open(ct: Array, tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    nib.save(nib.Nifti1Image(ct[9:31, 10:34], np.eye(4)), path)
    volume = io.load(path)
    assert (volume.modality, volume.units) == (None, "arbitrary")
    assert io.load(path, modality="CT").units == "HU"

"""A bad scan of a cohort is refused as what it is, and named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from medsr.data.manifest import ScanRecord
from medsr.data.reading import names_of, read_scan
from medsr.data.transforms import prepare_scan
from medsr.errors import (
    CorruptFileError,
    DimensionError,
    InputError,
    InputNotFoundError,
    NonFiniteError,
    TooFewSlicesError,
)
from medsr.intensity import Intensity


def nifti(path: Path, data: np.ndarray) -> None:
    nib.save(nib.Nifti1Image(data.astype(np.float32), np.eye(4)), path)


def values(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(100, 900, shape).astype(np.float32)


def not_a_number(path: Path) -> None:
    data = values(9, 8, 7)
    data[1, 2, 3] = np.nan
    nifti(path, data)


def infinite_in_mha(path: Path) -> None:
    data = values(7, 8, 9)
    data[3, 2, 1] = np.inf
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(data), path)


def cut_short(path: Path) -> None:
    nifti(path, values(9, 8, 7))
    path.write_bytes(path.read_bytes()[:1000])


BAD: dict[str, tuple[str, Callable[[Path], object], type[InputError]]] = {
    "NaN": ("sub-1/bad.nii.gz", not_a_number, NonFiniteError),
    "infinity": ("bad.mha", infinite_in_mha, NonFiniteError),
    "4D": ("bad.nii", lambda path: nifti(path, values(9, 8, 7, 2)), DimensionError),
    "2D": ("bad.nii", lambda path: nifti(path, values(9, 8)), InputError),
    "few slices": ("bad.nii", lambda path: nifti(path, values(9, 8, 2)), TooFewSlicesError),
    "truncated": ("bad.nii.gz", cut_short, CorruptFileError),
    "empty": ("bad.nii.gz", lambda path: path.write_bytes(b""), CorruptFileError),
    "text": ("bad.nrrd", lambda path: path.write_text("no image"), InputError),
    "a folder without images": ("series", Path.mkdir, InputError),
    "gone": ("bad.nii.gz", lambda path: None, InputNotFoundError),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_scan_is_named_with_its_own_code(kind: str, tmp_path: Path) -> None:
    name, make, expected = BAD[kind]
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    make(path)
    record = ScanRecord(path, "train", "SECRET", "MR")
    with pytest.raises(expected) as caught:
        prepare_scan(record, Intensity.for_modality("MR"), (1, 1, 2))
    message = str(caught.value)
    assert name in message
    assert message.count(str(path)) == 1
    assert "SECRET" not in message
    assert "\n" not in message
    assert 10 <= caught.value.exit_code <= 29 or 80 <= caught.value.exit_code <= 89


def test_the_cohort_says_which_modality_a_scan_has(tmp_path: Path) -> None:
    nifti(tmp_path / "a.nii", values(9, 8, 7))
    for modality, units in (("MR", "arbitrary"), ("CT", "HU")):
        volume = read_scan(ScanRecord(tmp_path / "a.nii", "train", "p", modality))  # type: ignore[arg-type]
        assert (volume.modality, volume.units) == (modality, units)
        np.testing.assert_array_equal(volume.data, nib.load(tmp_path / "a.nii").get_fdata())


def test_a_list_of_names_stays_short() -> None:
    assert names_of(["a", "b", "a"]) == "a, b"
    assert names_of(f"s{n}" for n in range(8)) == "s0, s1, s2, s3, s4 and 3 more"

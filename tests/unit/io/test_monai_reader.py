"""The MONAI reader: the same voxels and grid as medsr's own, through MONAI's transforms."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.data import MetaTensor
from monai.transforms import Compose, EnsureChannelFirstd, LoadImage, LoadImaged, Orientationd

from medsr import io
from medsr.errors import GeometryError, NonFiniteError
from medsr.geometry import Geometry
from medsr.io.monai_reader import MedsrReader
from medsr.volume import Volume

SHAPE = (6, 7, 8)
AFFINE = np.array([[0, -0.5, 0, 10], [-2, 0, 0, 20], [0, 0, 3, -30], [0, 0, 0, 1.0]])


@pytest.fixture(params=["a.nii.gz", "a.nrrd", "a.mha", "a.mgz"])
def scan(request: pytest.FixtureRequest, tmp_path: Path, rng: np.random.Generator) -> Path:
    data = rng.integers(0, 2000, SHAPE).astype(np.int16)
    return io.save(Volume(data, Geometry(SHAPE, AFFINE)), tmp_path / request.param)


@pytest.mark.parametrize("reader", [MedsrReader, MedsrReader()])
def test_a_dictionary_transform_gives_our_array_and_affine(scan: Path, reader: object) -> None:
    item = LoadImaged("image", reader=reader, ensure_channel_first=True)({"image": scan})
    image, volume = item["image"], io.load(scan)
    assert isinstance(image, MetaTensor)
    assert image.shape == (1, *SHAPE)
    np.testing.assert_array_equal(image[0].numpy(), volume.data)
    np.testing.assert_array_equal(image.affine.numpy(), volume.geometry.affine)
    np.testing.assert_allclose(image.pixdim.numpy(), volume.spacing)
    np.testing.assert_allclose(image.meta["spacing"], volume.spacing)
    assert image.meta["modality"] == "MR"


def test_monai_orients_as_nibabel_does(scan: Path) -> None:
    pipeline = Compose(
        [
            LoadImaged("image", reader=MedsrReader()),
            EnsureChannelFirstd("image"),
            Orientationd("image", axcodes="RAS"),
        ]
    )
    image = pipeline({"image": str(scan)})["image"]
    volume = io.load(scan)
    expected = nib.as_closest_canonical(nib.Nifti1Image(volume.data, volume.geometry.affine))
    np.testing.assert_array_equal(image[0].numpy(), np.asarray(expected.dataobj))
    np.testing.assert_allclose(image.affine.numpy(), expected.affine, atol=1e-9)


def test_several_files_become_channels_of_one_grid(tmp_path: Path) -> None:
    geometry = Geometry(SHAPE, AFFINE)
    for name, value in (("a.nii", 1), ("b.nii", 2)):
        io.save(Volume(np.full(SHAPE, value, np.int16), geometry), tmp_path / name)
    loader = LoadImage(reader=MedsrReader(), ensure_channel_first=True)
    image = loader([tmp_path / "a.nii", tmp_path / "b.nii"])
    assert image.shape == (2, *SHAPE)
    assert image.mean(dim=(1, 2, 3)).tolist() == [1.0, 2.0]
    shifted = Geometry(SHAPE, AFFINE + np.eye(4, k=3))
    io.save(Volume(np.zeros(SHAPE, np.int16), shifted), tmp_path / "c.nii")
    with pytest.raises(GeometryError, match="one grid"):
        loader([tmp_path / "a.nii", tmp_path / "c.nii"])


def test_refusals_are_ours(tmp_path: Path) -> None:
    data = np.zeros(SHAPE, np.float32)
    data[0, 0, 1] = np.nan
    nib.save(nib.Nifti1Image(data, AFFINE), tmp_path / "a.nii")
    # MONAI's own reader would take the file: it must not get the chance.
    assert np.isnan(LoadImage()(tmp_path / "a.nii").numpy()).any()
    with pytest.raises(NonFiniteError, match=r"\(0, 0, 1\)"):
        LoadImage(reader=MedsrReader())(tmp_path / "a.nii")


def test_the_modality_can_be_given(scan: Path) -> None:
    assert LoadImage(reader=MedsrReader(modality="CT"))(scan).meta["units"] == "HU"


def test_formats_are_known_by_name(scan: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no scan")
    assert MedsrReader().verify_suffix(scan)
    assert not MedsrReader().verify_suffix(tmp_path / "notes.txt")
    assert not MedsrReader().verify_suffix([scan, tmp_path / "none.nii"])

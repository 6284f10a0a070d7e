"""Slabs against the whole: readers, statistics and gzip streams."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medsr import io
from medsr.errors import CorruptFileError
from medsr.geometry import Geometry
from medsr.intensity import Intensity
from medsr.io import compressed, planes
from medsr.io.modality import judge, tally
from medsr.io.planes import MemoryPlanes
from medsr.io.reading import open_planes
from medsr.io.survey import PlaneValues, survey
from medsr.volume import Volume


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".mgz"])
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_slabs_are_parts_of_the_whole(
    tmp_path: Path, rng: np.random.Generator, ending: str, dtype: Any
) -> None:
    data = rng.integers(0, 999, (6, 7, 11)).astype(dtype)
    path = io.save(Volume(data, Geometry(data.shape, np.eye(4))), tmp_path / f"a{ending}")
    whole = io.load(path)
    reader = open_planes(path)
    assert reader.header.geometry == whole.geometry
    # Forward, forward with a gap, back to the start, to the end twice.
    for start, stop in [(0, 3), (3, 4), (6, 8), (1, 5), (5, 11), (9, 11)]:
        part = reader.read(start, stop)
        assert part.dtype == whole.data.dtype == reader.header.data.dtype
        np.testing.assert_array_equal(part, whole.data[:, :, start:stop])
    reader.close()


def test_a_truncated_stream_is_found_while_it_is_read(tmp_path: Path) -> None:
    data = np.random.default_rng(1).integers(0, 9999, (20, 20, 20)).astype(np.int16)
    nib.Nifti1Image(data, np.eye(4)).to_filename(tmp_path / "a.nii.gz")
    content = (tmp_path / "a.nii.gz").read_bytes()
    (tmp_path / "a.nii.gz").write_bytes(content[: len(content) * 3 // 4])
    reader = open_planes(tmp_path / "a.nii.gz")
    assert reader.read(0, 2).shape == (20, 20, 2)
    with pytest.raises(CorruptFileError, match="voxels"):
        reader.read(2, 20)


@given(
    seed=st.integers(0, 99),
    dtype=st.sampled_from(["u1", "i2", "u2", "i4", "u4", "f4"]),
    percentile=st.sampled_from([50.0, 99.5, 100.0]),
)
def test_normalisation_is_that_of_the_whole(seed: int, dtype: str, percentile: float) -> None:
    generator = np.random.default_rng(seed)
    data = (generator.gamma(2.0, 20.0, (9, 8, 14)) - 5.0 * (dtype[0] != "u")).astype(dtype)
    volume = Volume(data, Geometry(data.shape, np.eye(4)))
    reader = MemoryPlanes(volume)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planes, "CHUNK_BYTES", 3 * 9 * 8 * 4)
        found = survey(reader, "scan", step=3)
        assert (found.low, found.high) == (data.min(), data.max())
        assert found.judgement == judge(tally(data))
        np.testing.assert_array_equal(found.sample, data[::3, ::3, ::3])
        intensity = Intensity("percentile", percentile=percentile)
        fitted = intensity.fit_values(PlaneValues(reader, found))
    expected = intensity.fit(data)
    assert fitted.offset == expected.offset
    assert fitted.divisor == expected.divisor


@pytest.mark.parametrize("fill", [-1000, -2048])
def test_hounsfield_units_are_seen_in_chunks_too(rng: np.random.Generator, fill: int) -> None:
    data = np.full((12, 12, 9), fill, np.int16)
    data[3:9, 3:9] = rng.integers(-900, 300, (6, 6, 9))
    volume = Volume(data, Geometry(data.shape, np.eye(4)))
    found = survey(MemoryPlanes(volume), "scan").judgement
    assert found == judge(tally(data))
    assert found.modality == "CT"


def test_an_empty_scan_has_a_divisor_all_the_same() -> None:
    volume = Volume(np.zeros((5, 5, 5), np.float32), Geometry((5, 5, 5), np.eye(4)))
    reader = MemoryPlanes(volume)
    fitted = Intensity("percentile").fit_values(PlaneValues(reader, survey(reader, "scan")))
    assert fitted == Intensity("percentile").fit(volume.data)


def test_streams_are_gzip_and_always_the_same(tmp_path: Path) -> None:
    content = bytes(range(256)) * 999
    for name in ("a.gz", "b.gz"):
        with compressed.open_to_write(tmp_path / name) as stream:
            stream.write(content)
    assert gzip.decompress((tmp_path / "a.gz").read_bytes()) == content
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()
    (tmp_path / "c.gz").write_bytes(gzip.compress(content))
    with compressed.open_to_read(tmp_path / "c.gz") as stream:
        assert stream.read() == content

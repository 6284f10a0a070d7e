"""Every format of the table keeps to the contracts of ``Codec``, ``PlaneSource`` and ``PlaneFile``.

Formats that are written as folders are left to tests of their own: they take no volume that did
not come from them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import psutil
import pytest

from medsr import io
from medsr.errors import InputError
from medsr.geometry import Geometry
from medsr.io import formats
from medsr.io.dicom.options import DEFAULTS
from medsr.io.reading import count_voxels, open_planes
from medsr.volume import Source, Volume

SHAPE = (9, 8, 7)
AFFINE = np.array([[-0.9, 0, 0, 1], [0, 0, -5.5, 2], [0, 0.8, 0, 3], [0, 0, 0, 1.0]])
CASES = [
    pytest.param(known, suffix, dtype, id=f"{known.name}-{suffix}-{dtype}")
    for known in formats.table().values()
    for suffix in known.written
    for dtype in ("int16", "float32")
]


def scan(dtype: str) -> Volume:
    data = np.random.default_rng(3).integers(0, 900, SHAPE).astype(dtype)
    source = Source("array", dtype=np.dtype(dtype))
    return Volume(data, Geometry(SHAPE, AFFINE), "MR", source=source)


@pytest.mark.parametrize(("known", "suffix", "dtype"), CASES)
def test_parts_are_those_of_the_whole(
    known: formats.Format, suffix: str, dtype: str, tmp_path: Path
) -> None:
    volume = scan(dtype)
    path = io.save(volume, tmp_path / f"scan{suffix}")
    whole = io.load(path, modality="MR")
    np.testing.assert_array_equal(whole.data, volume.data)
    np.testing.assert_allclose(whole.geometry.affine, AFFINE, atol=1e-5)
    assert formats.format_of(path) == known
    assert count_voxels(path) == whole.data.size
    with open_planes(path) as source:
        np.testing.assert_array_equal(source.read(0, 2), whole.data[:, :, :2])
    assert str(path) not in {file.path for file in psutil.Process().open_files()}
    header = source.header
    assert header.geometry == whole.geometry
    assert header.source is not None
    assert header.source.format == known.name
    # Forward, with a gap, back, to the end, and again after the file was closed.
    for start, stop in ((0, 3), (3, 4), (5, 6), (1, 5), (4, 7), (0, 7), (6, 7)):
        part = source.read(start, stop)
        assert part.dtype == whole.data.dtype == header.data.dtype
        np.testing.assert_array_equal(part, whole.data[:, :, start:stop])
        if stop == 7:
            source.close()
    source.close()


@pytest.mark.parametrize(("known", "suffix", "dtype"), CASES)
def test_planes_make_the_file_that_the_whole_makes(
    known: formats.Format, suffix: str, dtype: str, tmp_path: Path
) -> None:
    volume = scan(dtype)
    whole = io.save(volume, tmp_path / f"whole{suffix}")
    parts = tmp_path / f"parts{suffix}"
    with io.creating(volume, parts) as sink:
        for start, stop in ((0, 1), (1, 4), (4, 7)):
            sink.append(volume.data[:, :, start:stop])
        sink.finish()
    assert parts.read_bytes() == whole.read_bytes()
    again = io.save(io.load(parts, modality="MR"), tmp_path / f"again{suffix}")
    np.testing.assert_array_equal(io.load(again, modality="MR").data, volume.data)


@pytest.mark.parametrize(("known", "suffix", "dtype"), CASES)
def test_a_description_is_that_of_the_scan(
    known: formats.Format, suffix: str, dtype: str, tmp_path: Path
) -> None:
    path = io.save(scan(dtype), tmp_path / f"scan{suffix}")
    whole, described = io.load(path), io.inspect(path, with_range=True)
    assert (described.format, described.shape, described.dtype) == (known.name, SHAPE, dtype)
    assert described.spacing_mm == whole.spacing
    assert described.value_range == (whole.data.min(), whole.data.max())
    assert known.load().companions(path) in ([], [path])
    known.load().check_writable(whole, DEFAULTS)


@pytest.mark.parametrize(("known", "suffix", "dtype"), CASES)
def test_what_is_cut_off_is_refused(
    known: formats.Format, suffix: str, dtype: str, tmp_path: Path
) -> None:
    path = io.save(scan(dtype), tmp_path / f"scan{suffix}")
    content = path.read_bytes()
    for length in (0, 40, len(content) // 2):
        path.write_bytes(content[:length])
        with pytest.raises(InputError):
            io.load(path)

"""NIfTI and MGZ files with absurd, mistyped and damaged headers, and compressed bombs."""

from __future__ import annotations

import gzip
import io as streams
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from medsr import io
from medsr.io.reading import open_planes

Edits = list[list[Any]]
SHAPE = (6, 5, 7)
WHOLE = [-(2**31), -32768, -1, 0, 1, 2, 3, 4, 7, 8, 16, 64, 128, 255, 512, 1024, 1536, 2304, 32767]
REAL = [0.0, -1.0, 1.0, 0.5, 3.0, 347.0, 352.0, 1e-30, 1e30, -1e30, float("nan"), float("inf")]
FIELDS = [name for name in nib.Nifti1Header.template_dtype.names if name != "sizeof_hdr"]


def blank(dtype: str = "i2", header: type = nib.Nifti1Header) -> tuple[Any, bytes]:
    """A good header and its voxels."""
    data = np.arange(210).reshape(SHAPE).astype(dtype)
    fields = header()
    fields.set_data_shape(SHAPE)
    fields.set_data_dtype(data.dtype)
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    fields.set_sform(affine, 1)
    fields.set_qform(affine, 1)
    fields["vox_offset"] = 352 if header is nib.Nifti1Header else 544
    fields["magic"] = b"n+1" if header is nib.Nifti1Header else fields["magic"]
    return fields, data.tobytes(order="F")


def test_the_headers_fuzzed_are_good_ones(tmp_path: Path) -> None:
    for name in ("nifti", "gz"):
        path = build([["kind", name]], tmp_path)
        assert io.load(path).data[1, 0, 0] == 35


def propose(rng: np.random.Generator, propose_spoil: Callable[..., Edits]) -> Edits:
    """Some fields set to other values, perhaps another type, compression and damaged bytes."""
    edits: Edits = [["kind", str(rng.choice(["nifti", "nifti", "gz", "nifti2"]))]]
    if rng.random() < 0.2:
        edits.append(["dtype", str(rng.choice(["u1", "i4", "f4", "f8", "u8", "i8"]))])
    template = nib.Nifti1Header.template_dtype
    for _ in range(int(rng.integers(0, 4))):
        field = str(rng.choice(FIELDS))
        base, shape = template[field].base, template[field].shape
        index = int(rng.integers(0, shape[0])) if shape else None
        if base.kind == "S":
            edits.append(["set", field, None, rng.bytes(3).hex()])
        else:
            values = REAL if base.kind == "f" else WHOLE
            edits.append(["set", field, index, values[rng.integers(len(values))]])
    if rng.random() < 0.4:
        edits += propose_spoil(rng, within=float(rng.choice([0.4, 1.0])))
    return edits


def build(edits: Edits, folder: Path) -> Path:
    """Write the file that the edits describe."""
    told = {edit[0]: edit[1] for edit in edits if edit[0] in ("kind", "dtype")}
    header_class = nib.Nifti2Header if told["kind"] == "nifti2" else nib.Nifti1Header
    fields, voxels = blank(told.get("dtype", "i2"), header_class)
    for kind, *what in edits:
        if kind == "set" and what[0] in fields.keys():  # noqa: SIM118 - a header is no dict
            field, index, value = what
            old = fields[field]
            dtype = old.dtype
            if dtype.kind == "S":
                fields[field] = bytes.fromhex(value)
                continue
            if dtype.kind in "iu":
                whole = int(value) if np.isfinite(value) else 0
                value = min(max(whole, np.iinfo(dtype).min), np.iinfo(dtype).max)
            if index is None or not old.shape:
                fields[field] = value
            else:
                old[index % old.size] = value
    raw = fields.binaryblock + bytes(4) + voxels
    for kind, *what in edits:
        if kind == "zeros":
            raw += bytes(what[0])
    from_conftest = _SPOIL[0]
    if told["kind"] == "gz":
        inner = [e for e in edits if e[0] == "byte"][:1]
        stream = gzip.compress(from_conftest(raw, inner), 6, mtime=0)
        path = folder / "a.nii.gz"
        path.write_bytes(from_conftest(stream, [e for e in edits if e not in inner]))
        return path
    path = folder / "a.nii"
    path.write_bytes(from_conftest(raw, edits))
    return path


_SPOIL: list[Callable[[bytes, Edits], bytes]] = []


@pytest.fixture(autouse=True)
def _spoil(spoil: Callable[[bytes, Edits], bytes]) -> None:
    _SPOIL[:] = [spoil]


def use(path: Path) -> None:
    """Everything that reads: the header, the whole, and slab by slab."""
    io.inspect(path)
    volume = io.load(path)
    assert np.isfinite(volume.geometry.affine).all()
    reader = open_planes(path)
    np.testing.assert_array_equal(reader.read(0, 2), volume.data[:, :, :2])
    io.save(volume, path.with_name("out.nii"))


def test_nifti(fuzz: Any, propose_spoil: Callable[..., Edits]) -> None:
    fuzz.run("nifti", lambda rng: propose(rng, propose_spoil), build, use, share=2.0)


def test_nifti_corpus(fuzz: Any) -> None:
    fuzz.replay("nifti", build, use)


def propose_mgz(rng: np.random.Generator, propose_spoil: Callable[..., Edits]) -> Edits:
    """Damage in the header's first 90 bytes, in the rest, or in the stream."""
    layer = str(rng.choice(["inner", "outer"], p=[0.7, 0.3]))
    within = 0.1 if layer == "inner" and rng.random() < 0.8 else 1.0
    return [["layer", layer], *propose_spoil(rng, within=within)]


def build_mgz(edits: Edits, folder: Path) -> Path:
    """Write the MGZ file that the edits describe."""
    data = np.arange(210).reshape(SHAPE).astype(np.int16)
    file = streams.BytesIO()
    image = nib.MGHImage(data, np.diag([1.0, 2.0, 3.0, 1.0]))
    image.file_map["image"].fileobj = file
    image.to_file_map()
    raw, inner = file.getvalue(), edits[0] == ["layer", "inner"]
    raw = _SPOIL[0](raw, edits) if inner else raw
    stream = gzip.compress(raw, 6, mtime=0)
    path = folder / "a.mgz"
    path.write_bytes(stream if inner else _SPOIL[0](stream, edits))
    return path


def test_mgz(fuzz: Any, propose_spoil: Callable[..., Edits]) -> None:
    fuzz.run("mgz", lambda rng: propose_mgz(rng, propose_spoil), build_mgz, use)


def test_mgz_corpus(fuzz: Any) -> None:
    fuzz.replay("mgz", build_mgz, use)


def test_a_bomb_behind_the_voxels_is_not_read_to_its_end(fuzz: Any, tmp_path: Path) -> None:
    """A gigabyte of zeros in a megabyte, behind a good scan."""
    fields, voxels = blank()
    path = tmp_path / "bomb.nii.gz"
    with gzip.open(path, "wb", 6) as file:
        file.write(fields.binaryblock + bytes(4) + voxels)
        for _ in range(256):
            file.write(bytes(1 << 20))
    fault, error = fuzz.one([], lambda edits, folder: path, use)
    assert fault is None
    assert "behind the voxels" in str(error)

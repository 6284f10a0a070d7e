"""DICOM in every encoding that is decoded, multi-frame, by DICOMDIR and zip, with damage anywhere.

Good files are made once, by pydicom and by encoders; a case changes their bytes: in a frame's own
header, in its data, in the functional groups, in the directory. Element by element,
``test_fuzz_dicom`` damages headers.
"""

from __future__ import annotations

import io as streams
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.fileset import FileSet

from medsr import io
from medsr.io.dicom.options import DicomOptions

Edits = list[list[Any]]
SLICES, ROWS, COLUMNS = 5, 20, 24
DAMAGED = 2  # the file whose pixels are damaged
DELIMITER = bytes.fromhex("feffdde000000000")
CT, ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4.1"
PLAIN, BIG_ENDIAN = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"


def jpeg8(plane: Any, **options: Any) -> Any:
    return imagecodecs.jpeg8_encode(plane, **options)


ENCODERS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "lossless": (
        "1.2.840.10008.1.2.4.57",
        lambda p: jpeg8(p, lossless=True, predictor=6, bitspersample=12),
    ),
    "sv1": (
        "1.2.840.10008.1.2.4.70",
        lambda p: jpeg8(p, lossless=True, predictor=1, bitspersample=16),
    ),
    "baseline": ("1.2.840.10008.1.2.4.50", lambda p: jpeg8((p >> 4).astype("u1"), level=80)),
    "extended": ("1.2.840.10008.1.2.4.51", lambda p: jpeg8(p, bitspersample=12, level=90)),
    "jpegls": ("1.2.840.10008.1.2.4.80", imagecodecs.jpegls_encode),
    "near": ("1.2.840.10008.1.2.4.81", lambda p: imagecodecs.jpegls_encode(p, level=3)),
    "jpeg2000": (
        "1.2.840.10008.1.2.4.90",
        lambda p: imagecodecs.jpeg2k_encode(p, reversible=True, codecformat="j2k"),
    ),
    "wavelet": (
        "1.2.840.10008.1.2.4.91",
        lambda p: imagecodecs.jpeg2k_encode(
            p, reversible=False, level=60, bitspersample=12, codecformat="j2k"
        ),
    ),
    "htj2k": ("1.2.840.10008.1.2.4.201", lambda p: imagecodecs.htj2k_encode(p, reversible=True)),
    "rle": (
        "1.2.840.10008.1.2.5",
        lambda p: pydicom.pixels.get_encoder("1.2.840.10008.1.2.5").encode(
            p.tobytes(), rows=ROWS, columns=COLUMNS, samples_per_pixel=1, bits_allocated=16,
            bits_stored=16, pixel_representation=0, photometric_interpretation="MONOCHROME2",
            number_of_frames=1, encoding_plugin="pydicom",
        ),
    ),
}  # fmt: skip
PLAINER = {"deflated": "1.2.840.10008.1.2.1.99", "big": BIG_ENDIAN, "plain": PLAIN}
SINGLE = [*ENCODERS, *PLAINER]
KINDS = [*SINGLE, "enhanced", "enhanced-jpeg2000", "enhanced-sv1", "dicomdir", "zip"]


def planes() -> Any:
    """(slices, rows, columns) 12-bit values."""
    z, y, x = np.mgrid[:SLICES, :ROWS, :COLUMNS]
    noise = np.random.default_rng(4).integers(0, 40, z.shape)
    return (60 * x + 90 * y + 100 * z + noise).astype("<u2")


def header(sop_class: str, syntax: str, number: int) -> Dataset:
    """What all objects have."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_class
    instance = f"1.2.826.0.1.7.{number + 1}"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = instance
    dataset.PatientName, dataset.PatientID = "Doe^Jane", "4711"
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20200102", "101010", "1"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.826.0.1.1", "1.2.826.0.1.3"
    dataset.FrameOfReferenceUID = "1.2.826.0.1.2"
    dataset.SeriesNumber, dataset.InstanceNumber = 3, number + 1
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL", "NONE"]
    dataset.Modality = "CT" if sop_class == CT else "MR"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = ROWS, COLUMNS, 1
    dataset.PhotometricInterpretation, dataset.PixelRepresentation = "MONOCHROME2", 0
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    return dataset


def encode(dataset: Dataset, pixels: Any, kind: str) -> bytes:
    """The bytes of a file with its pixels (frames, rows, columns) in an encoding."""
    buffer = streams.BytesIO()
    big = PLAINER.get(kind) == BIG_ENDIAN
    if kind in PLAINER:
        dataset.PixelData = pixels.astype(">u2" if big else "<u2").tobytes()
        dataset["PixelData"].VR = "OW"
    else:
        frames = [bytes(ENCODERS[kind][1](plane)) for plane in pixels]
        if kind == "baseline":
            dataset.BitsAllocated = dataset.BitsStored = 8
            dataset.HighBit = 7
        dataset.PixelData = encapsulate(frames)
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
    dataset.save_as(buffer, implicit_vr=False, little_endian=not big, enforce_file_format=True)
    return buffer.getvalue()


def syntax_of(kind: str) -> str:
    return PLAINER[kind] if kind in PLAINER else ENCODERS[kind][0]


def single(kind: str, k: int) -> bytes:
    """One slice of a CT series."""
    dataset = header(CT, syntax_of(kind), k)
    dataset.ImagePositionPatient = [-10, -20, round(3.6 * k, 2)]
    dataset.ImageOrientationPatient, dataset.PixelSpacing = [1, 0, 0, 0, 1, 0], [0.9, 0.9]
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    return encode(dataset, planes()[k : k + 1], kind)


def multi_frame(kind: str) -> bytes:
    """An enhanced MR object with functional groups."""
    dataset = header(ENHANCED_MR, syntax_of(kind), 0)
    dataset.NumberOfFrames = SLICES
    measures, plane, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.9, 0.9], 3.6
    plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = []
    for k in range(SLICES):
        frame, place, values, content = Dataset(), Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = [-10, -20, round(3.6 * k, 2)]
        values.RescaleSlope, values.RescaleIntercept, values.RescaleType = 1 + k, 0, "US"
        content.StackID, content.InStackPositionNumber, content.DimensionIndexValues = "1", k + 1, k
        frame.PlanePositionSequence, frame.FrameContentSequence = [place], [content]
        frame.PixelValueTransformationSequence = [values]
        dataset.PerFrameFunctionalGroupsSequence.append(frame)
    return encode(dataset, planes(), kind)


@cache
def seeds(kind: str) -> dict[str, bytes]:
    """The good files of a kind by their names; the one that is damaged comes first."""
    if kind.startswith("enhanced"):
        return {"series/all": multi_frame(kind.partition("-")[2] or "plain")}
    order = sorted(range(SLICES), key=lambda k: k != DAMAGED)
    if kind in SINGLE:
        return {f"series/{k}": single(kind, k) for k in order}
    if kind == "zip":
        return seeds("jpegls")
    place = Path(tempfile.mkdtemp())
    try:
        directory = FileSet()
        for raw in seeds("sv1").values():
            directory.add(pydicom.dcmread(streams.BytesIO(raw)))
        directory.write(place / "disc")
        found = sorted(file for file in (place / "disc").rglob("*") if file.is_file())
        found.sort(key=lambda file: file.name != "DICOMDIR")
        return {file.relative_to(place).as_posix(): file.read_bytes() for file in found}
    finally:
        shutil.rmtree(place)


def change(raw: bytes, edits: Edits, kind: str) -> bytes:
    """Apply edits; places are shares, of the header or of what begins with the pixel data."""
    tag = bytes.fromhex("7fe00010" if kind == "big" else "e07f1000")
    split = raw.rfind(tag)
    if split < 0:  # deflated, or a directory
        split = len(raw) // 3
    head, body = bytearray(raw[:split]), bytearray(raw[split:])
    for what, *how in edits:
        if what == "swap":
            other = next(iter(seeds(how[0]).values()))
            body = bytearray(other[other.rfind(bytes.fromhex("e07f1000")) :])
        elif what in ("body", "head", "start"):
            part = head if what == "head" else body
            size = min(len(part), 200) if what == "start" else len(part)
            if size:
                part[min(int(how[0] * size), size - 1)] = how[1]
        elif what == "flip" and body:
            body[min(int(how[0] * len(body)), len(body) - 1)] ^= 1 << how[1]
        elif what == "lose":
            at = int(how[0] * len(body))
            del body[at : at + how[1]]
        elif what == "frame" and raw[split + 8 : split + 12] == b"\xff" * 4:
            # The first frame cut, its length and all around it right.
            table = 12 + 8 + int.from_bytes(body[16:20], "little")
            size = int.from_bytes(body[table + 4 : table + 8], "little")
            kept = int(how[0] * size) // 2 * 2
            kept_item = body[table : table + 4] + kept.to_bytes(4, "little")
            frame = body[table + 8 : table + 8 + kept]
            body = body[:table] + kept_item + frame + body[table + 8 + size :]
    return bytes(head + body)


def build(edits: Edits, folder: Path) -> Path:
    """Write the files of one case; gives the path to read."""
    kind = next((how[0] for what, *how in edits if what == "kind"), "plain")
    files = dict(seeds(kind))
    first = next(iter(files))
    files[first] = change(files[first], edits, kind)
    if kind == "zip":
        buffer = streams.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, raw in files.items():
                archive.writestr(zipfile.ZipInfo(name), raw)
        path = folder / "scan.zip"
        path.write_bytes(_SPOIL[0](buffer.getvalue(), edits))
        return path
    for name, raw in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_SPOIL[0](raw, edits) if name == first else raw)
    if kind == "dicomdir":
        return folder / first
    return folder / "series"


def propose(rng: np.random.Generator, propose_spoil: Callable[..., Edits]) -> Edits:
    """A kind, and a few faults in one of its files."""
    edits: Edits = [["kind", str(rng.choice(KINDS))]]
    for _ in range(int(rng.integers(1, 4))):
        place, value = round(float(rng.random()), 5), int(rng.integers(0, 256))
        what = str(rng.choice(["body", "head", "start", "start", "flip", "flip", "lose", "frame"]))
        if what == "flip":
            value %= 8
        edits.append([what, place] if what == "frame" else [what, place, value])
    if rng.random() < 0.08:
        edits.append(["swap", str(rng.choice(SINGLE))])
    if rng.random() < 0.15:
        edits += propose_spoil(rng)
    return edits


def use(path: Path) -> None:
    """Everything that reads, and the writing back in both layouts."""
    io.inspect(path)
    io.list_volumes(path)
    volume = io.load(path)
    assert np.isfinite(volume.geometry.affine).all()
    assert np.isfinite(volume.data).all()
    # Beside a disc, since no result may lie among the images that its index names.
    place = path.parent.parent if path.name == "DICOMDIR" else path.parent
    for layout in ("classic", "enhanced"):
        written = io.save(
            volume, place / f"out-{layout}", format="dicom", dicom=DicomOptions.of(layout)
        )
        back = io.load(written)
        assert back.shape == volume.shape
        affine = volume.geometry.affine
        np.testing.assert_allclose(back.geometry.affine, affine, rtol=1e-4, atol=1e-3)


_SPOIL: list[Callable[[bytes, Edits], bytes]] = []


@pytest.fixture(autouse=True)
def _spoil(spoil: Callable[[bytes, Edits], bytes]) -> None:
    _SPOIL[:] = [spoil]


@pytest.mark.parametrize("kind", KINDS)
def test_the_files_fuzzed_are_good_ones(tmp_path: Path, kind: str) -> None:
    path = build([["kind", kind]], tmp_path)
    use(path)
    volume = io.load(path)
    assert volume.shape == (COLUMNS, ROWS, SLICES)
    if kind not in ("baseline", "extended", "near", "wavelet") and "enhanced" not in kind:
        assert np.array_equal(volume.data.T + 1024, planes())


def test_encoded(fuzz: Any, propose_spoil: Callable[..., Edits]) -> None:
    fuzz.run("encoded", lambda rng: propose(rng, propose_spoil), build, use, share=0.4, apart=True)


def test_encoded_corpus(fuzz: Any) -> None:
    fuzz.replay("encoded", build, use, apart=True)

"""DICOM files opened: the header that matters of each, its SOP class, or the file whole.

What keeps a damaged or hostile file from doing harm while it is parsed. What a header means is in
``header``; which files there are, in ``sources``.
"""

from __future__ import annotations

import zlib
from typing import BinaryIO

import pydicom
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import DeflatedExplicitVRLittleEndian

from medsr.errors import CorruptFileError, MedsrError
from medsr.io.dicom.read.header import HEADER_TAGS, SINGLE_FRAME
from medsr.io.dicom.read.sources import DicomFile
from medsr.io.dicom.read.stray import START_BYTES, begins_as_dicom
from medsr.io.dicom.uids import DerivedUids

MOST_INFLATED_BYTES = 2**30
"""What one deflated file may become."""

_MAGIC_AT = 128
_START_BYTES = 1024  # holds the file meta information
_INFLATE_BYTES = 1 << 20
_OF_A_SERIES = ("StudyInstanceUID", "FrameOfReferenceUID", "SeriesNumber", "Modality")
_BY_MODALITY = {str(modality): sop_class for sop_class, modality in SINGLE_FRAME.items()}


def read_header(file: DicomFile) -> FileDataset | None:
    """The attributes that matter, without pixel data; None if the file is not DICOM.

    Raises:
        InputError: if it cannot be read or parsed.
    """
    if not has_dicom_start(file):
        return None
    try:
        with file.open() as stream:
            _check_inflation(stream, file)
            return pydicom.dcmread(
                stream, stop_before_pixels=True, force=True, specific_tags=list(HEADER_TAGS)
            )
    except MedsrError:
        raise
    except InvalidDicomError:
        return None
    except Exception as error:  # pydicom lets many kinds through for damaged files
        raise damaged(file, error) from None


def read_dataset(file: DicomFile) -> FileDataset:
    """The whole file of a CT or MR image, pixel data included, made :func:`complete`.

    Raises:
        CorruptFileError: if it cannot be parsed.
        ArchiveError: if it cannot be unpacked.
    """
    try:
        with file.open(whole=True) as stream:
            dataset = pydicom.dcmread(stream, force=True)
        complete(dataset)
        return dataset
    except MedsrError:
        raise
    except Exception as error:  # pydicom lets many kinds through for damaged files
        raise damaged(file, error) from None


def sop_class_of(header: FileDataset) -> str:
    """The SOP class of a file, also of one whose data set says none; "" where nothing tells.

    A DICOMDIR has it in its file meta information alone. An image without one is taken for what
    its file meta information or its Modality says, if it has what the images of CT and MR have.
    """
    meta: Dataset = header.file_meta
    stated = header.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID")
    if stated:
        return str(stated)
    framed = header.get("Rows") and header.get("ImagePositionPatient")
    single = int(header.get("NumberOfFrames") or 1) == 1
    return _BY_MODALITY.get(str(header.get("Modality")), "") if framed and single else ""


def complete(header: FileDataset) -> tuple[str, ...]:
    """Give an image the identifiers that it lacks, from what else its header says.

    The SOP class is :func:`sop_class_of`, the instance that of the file meta information. The files
    of a series share study, frame of reference and SeriesNumber, as far as they state them; where
    they state neither of the former, nothing tells which of them belong together.

    Args:
        header: of a CT or MR image; changed in place.

    Returns:
        Keywords of what was missing and has a value now.
    """
    meta: Dataset = header.file_meta
    shared = [str(header.get(name) or "") for name in _OF_A_SERIES]
    stand_ins = {
        "SOPClassUID": sop_class_of(header),
        "SOPInstanceUID": str(meta.get("MediaStorageSOPInstanceUID") or ""),
    }
    if any(shared[:2]):
        stand_ins["StudyInstanceUID"] = _following_from("study", shared[:2])
        stand_ins["SeriesInstanceUID"] = _following_from("series", shared)
    missing = [name for name, value in stand_ins.items() if value and not header.get(name)]
    for name in missing:
        setattr(header, name, stand_ins[name])
    return tuple(missing)


def _following_from(kind: str, values: list[str]) -> str:
    return str(DerivedUids.of("\\".join((kind, *values))).series)


def damaged(file: DicomFile, error: Exception) -> CorruptFileError:
    """The error for a file that cannot be parsed."""
    # The library's own text may quote attribute values, so only its kind is passed on.
    return CorruptFileError(
        f"{file.name}: the DICOM file cannot be parsed ({type(error).__name__}); export it again"
    )


def has_dicom_start(file: DicomFile) -> bool:
    """Whether the file begins as DICOM; links to nothing and other things than files do not."""
    if file.member is None and not file.path.is_file():
        return False
    with file.open() as stream:
        try:
            return begins_as_dicom(stream.read(START_BYTES))
        except Exception as error:  # a damaged archive or disk fails in many ways
            raise damaged(file, error) from None


def _check_inflation(stream: BinaryIO, file: DicomFile) -> None:
    """Refuse a deflated file that would not fit into memory; the stream stands at its start again.

    Source: DICOM PS3.5 A.5; PS3.10 7.1, FileMetaInformationGroupLength.
    """
    start = stream.read(_START_BYTES)
    stream.seek(0)
    if DeflatedExplicitVRLittleEndian.encode("ascii") not in start:
        return
    # 4 bytes of tag, VR and length come before the value, which counts from its own end.
    stream.seek(_MAGIC_AT + 16 + int.from_bytes(start[_MAGIC_AT + 12 : _MAGIC_AT + 16], "little"))
    inflater, inflated = zlib.decompressobj(-zlib.MAX_WBITS), 0
    packed = stream.read(_INFLATE_BYTES)
    while packed and not inflater.eof:
        inflated += len(inflater.decompress(packed, _INFLATE_BYTES))
        packed = inflater.unconsumed_tail or stream.read(_INFLATE_BYTES)
        if inflated > MOST_INFLATED_BYTES:
            raise CorruptFileError(
                f"{file.name}: the deflated file grows beyond {MOST_INFLATED_BYTES >> 30} GiB; "
                "it is damaged or made to fill the memory"
            )
    stream.seek(0)

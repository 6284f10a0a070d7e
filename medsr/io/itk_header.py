"""Headers of NRRD and MetaImage files, parsed and checked; the voxels are read in ``itk``.

ITK's own readers were written for files of friends: damaged headers make them overrun a buffer,
take 1 mm for a spacing that is not there, or hand out memory without voxels (the fuzz tests keep
examples). What a header means is as in ITK, and tested against it.
"""

from __future__ import annotations

from pathlib import Path

from medsr.errors import InputNotFoundError
from medsr.io.itk_fields import TextHeader
from medsr.io.itk_metaimage import read_metaimage
from medsr.io.itk_nrrd import read_nrrd

NRRD_SUFFIXES = (".nrrd", ".nhdr")
_START_BYTES = 1 << 20


def read_text_header(path: Path) -> TextHeader:
    """Read and check the text of a header.

    Args:
        path: an NRRD file if its name ends in ``.nrrd`` or ``.nhdr``, else a MetaImage.

    Raises:
        InputNotFoundError: there is no such file.
        CorruptFileError: it is no such file, or a field is damaged or missing.
        UnsupportedFormatError: the voxels are spread over several files, or lie in another folder.
        DimensionError: 2D, or several frames.
        ComplexError: complex numbers.
        ColourError: colour.
        GeometryError: a spacing, direction or position is missing, not finite or not positive.
    """
    try:
        with path.open("rb") as file:
            start = file.read(_START_BYTES)
    except OSError as error:
        raise InputNotFoundError(f"{path}: {error.strerror or 'cannot be opened'}") from error
    if path.suffix.lower() in NRRD_SUFFIXES:
        return read_nrrd(path, start)
    return read_metaimage(path, start)

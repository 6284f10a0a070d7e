"""Fields of the text headers of NRRD and MetaImage, turned into numbers or refused.

What they mean is said in ``nrrd`` and ``metaimage``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from medsr.errors import (
    CorruptFileError,
    DimensionError,
    GeometryError,
    UnsupportedFormatError,
)
from medsr.geometry import Geometry

_Number = TypeVar("_Number", int, float)

Encoding = Literal["raw", "deflate", "bzip2", "text", "hex"]
NO_SPACING = "the header has no spacing; voxels of 1 mm were taken"
_MAX_AXES = 7
_MAX_SIZE = 1 << 31


@dataclass(frozen=True)
class TextHeader:
    """What the text at the start of a file says.

    Args:
        geometry: the grid.
        dtype: type and byte order of the stored numbers.
        encoding: how they are packed.
        data_file: where they lie: the file itself, or the one beside it that it names.
        offset: bytes before them in that file; None where they are its end.
        notes: sentences about what is doubtful.
    """

    geometry: Geometry
    dtype: np.dtype[Any]
    encoding: Encoding
    data_file: Path
    offset: int | None
    notes: tuple[str, ...] = ()

    @property
    def voxel_bytes(self) -> int:
        """Bytes of the voxels, unpacked."""
        return math.prod(self.geometry.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Fields:
    """Fields of a header, by name."""

    path: Path
    texts: dict[str, str]

    def get(self, name: str) -> str:
        """The text of a field; empty where there is none."""
        return self.texts.get(name, "")

    def axes(self, name: str) -> int:
        """How many axes there are."""
        count = self.whole(name, 1)[0]
        if not 1 <= count <= _MAX_AXES:
            raise DimensionError(f"{self.path}: {count} axes; three are needed")
        return count

    def whole(self, name: str, count: int, *, missing: list[int] | None = None) -> list[int]:
        """So many whole numbers."""
        if name not in self.texts:
            if missing is not None:
                return missing
            raise CorruptFileError(f"{self.path}: the header has no {name}; export it again")
        return self._parsed(name, self.texts[name].split(), count, int)

    def numbers(self, names: tuple[str, ...], count: int) -> list[float] | None:
        """The numbers of a field that has several names; by all that are there it is the same."""
        fields = {
            name: self._parsed(name, self.texts[name].split(), count, float)
            for name in names
            if name in self.texts
        }
        values = list(fields.values())
        if any(other != values[0] for other in values[1:]):
            raise GeometryError(f"{self.path}: {' and '.join(fields)} disagree; keep the right one")
        return values[0] if values else None

    def vector(self, name: str, text: str, count: int = 3) -> list[float]:
        """So many numbers in brackets."""
        return self._parsed(name, text.strip("() ").split(","), count, float)

    def grid(
        self,
        sizes: list[int],
        spacing: list[float],
        rows: npt.NDArray[np.float64],
        origin: list[float],
    ) -> Geometry:
        """The grid; each row is the LPS+ direction of an axis."""
        try:
            return Geometry.from_lps(sizes, origin, spacing, rows.T)
        except GeometryError as error:
            raise GeometryError(f"{self.path}: {error}; export it again") from None

    def _parsed(
        self, name: str, words: list[str], count: int, kind: Callable[[str], _Number]
    ) -> list[_Number]:
        """So many finite numbers, or a refusal."""
        try:
            values = [kind(word) for word in words[: _MAX_AXES**2] if len(word) < 64]
        except ValueError:
            values = []
        if len(values) != count or len(words) != count:
            raise CorruptFileError(f"{self.path}: {name} is not {count} number(s); export it again")
        if not all(math.isfinite(value) for value in values):
            raise GeometryError(f"{self.path}: {name} holds NaN or infinity; export it again")
        return values

    def volume(self, sizes: list[int]) -> list[int]:
        """The three sizes of a volume; further axes must have one entry."""
        if any(not 0 < size < _MAX_SIZE for size in sizes):
            raise CorruptFileError(f"{self.path}: the header gives {by(sizes)} voxels")
        if len(sizes) < 3:
            raise DimensionError(
                f"{self.path}: {by(sizes)} is no volume; three dimensions are needed"
            )
        if any(size > 1 for size in sizes[3:]):
            frames = math.prod(sizes[3:])
            raise DimensionError(
                f"{self.path}: {by(sizes)} holds {frames} frames; split it and give one"
            )
        return sizes[:3]

    def beside(self, name: str) -> Path:
        """The file with the voxels, which must lie in the header's own folder.

        A folder that the header names is compared and never looked into, so that a header from
        elsewhere cannot have anything but its own folder touched.
        """
        parts = name.split()
        if not parts or parts[0].upper() == "LIST" or "%" in name:
            raise UnsupportedFormatError(
                f"{self.path}: the voxels are spread over several files; convert it to one .nrrd "
                "or .mha"
            )
        here = self.path.parent
        name = name.replace(os.sep, "/")
        folder, _, base = name.rpartition("/")
        is_here = set(folder.split("/")) <= {".", ""} and not name.startswith("/")
        is_here = is_here or Path(folder) in (here.absolute(), here.resolve())
        if not is_here or "\\" in base or base in ("", ".", "..") or len(base) > 255:
            raise UnsupportedFormatError(
                f"{self.path}: the header names a file in another folder; put both side by side, "
                "and let it name the file alone"
            )
        data = here / base
        if not data.is_file():
            raise CorruptFileError(f"{self.path}: its file of voxels is not beside it; bring both")
        return data


def parse_fields(
    path: Path, text: str, mark: str, format: str, name_of: Callable[[str], str] = str
) -> Fields:
    """Take apart lines of ``name mark value``, no name twice.

    Args:
        path: the header's file.
        text: its lines.
        mark: what stands between name and value.
        format: what a message calls such files.
        name_of: the one spelling of a name.
    """
    fields: dict[str, str] = {}
    for line in text.split("\n"):
        name, found, value = line.partition(mark)
        if not line.strip():
            continue
        if not found or "\0" in line:
            raise CorruptFileError(f"{path}: a line is no field of {format}; export it again")
        name = name_of(name.strip())
        if name in fields:
            raise CorruptFileError(f"{path}: the header has a field twice; export it again")
        fields[name] = value.strip()
    return Fields(path, fields)


def by(sizes: Iterable[int]) -> str:
    """Sizes as messages have them."""
    return " x ".join(map(str, sizes))

"""DicomOptions: what a user may settle about DICOM output.

Values only, without pydicom, so that command lines can be checked before anything is imported.
What each option does is told where it is done (in ``dicom.write``: ``layout``, ``series``,
``deidentify``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from medsr.errors import UsageError

Layout = Literal["source", "classic", "enhanced"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)

_NUMBERS = range(-(2**31), 2**31)  # an Integer String; PS3.5 6.2
_LONGEST_DESCRIPTION = 64  # a Long String; PS3.5 6.2


@dataclass(frozen=True)
class DicomOptions:
    """How a derived DICOM series is written.

    Args:
        layout: "classic" is one file per slice, "enhanced" one multi-frame file; "source" keeps
            what the source was.
        series_description: SeriesDescription; the source's with " medsr" behind it where None.
        series_number: SeriesNumber; the source's plus 1000 where None.
        deidentify: whether what could identify the patient is removed, by the Basic Application
            Level Confidentiality Profile.

    Raises:
        UsageError: if DICOM has no place for a value.

    Examples:
        >>> from medsr.io.dicom.options import DicomOptions
        >>> DicomOptions(series_number=12).series_number
        12
        >>> DicomOptions.of("enhanced").layout
        'enhanced'
    """

    layout: Layout = "source"
    series_description: str | None = None
    series_number: int | None = None
    deidentify: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be written."""
        if self.layout not in LAYOUTS:
            raise UsageError(f"layout {self.layout!r} is not known; choose {', '.join(LAYOUTS)}")
        text = self.series_description
        if text is not None and (
            len(text) > _LONGEST_DESCRIPTION or "\\" in text or not text.isprintable()
        ):
            raise UsageError(
                f"a series description has at most {_LONGEST_DESCRIPTION} printable characters "
                "and no backslash"
            )
        if self.series_number is not None and self.series_number not in _NUMBERS:
            raise UsageError("a series number lies between -2147483648 and 2147483647")

    @classmethod
    def of(
        cls,
        layout: str = "source",
        series_description: str | None = None,
        series_number: int | None = None,
        deidentify: bool = False,
    ) -> DicomOptions:
        """Options from what a user typed.

        Raises:
            UsageError: as the class.
        """
        for choice in LAYOUTS:
            if layout == choice:
                return cls(choice, series_description, series_number, deidentify)
        raise UsageError(f"layout {layout!r} is not known; choose {', '.join(LAYOUTS)}")


DEFAULTS = DicomOptions()

"""From stored numbers to native values: which of several scalings in a header holds, in what unit.

The public rescale (RescaleSlope, RescaleIntercept) is what every reader applies, and so is it here.
An MR image without one may have a linear RealWorldValueMapping, which is taken then. Philips writes
a private scale slope beside its rescale: its values are comparable between slices only after
division by the product of both, so slices that differ in it are brought to one scale. CT images
of other values than Hounsfield units are refused here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from medsr.errors import CorruptFileError, NotHounsfieldError
from medsr.io.dicom.read.values import listed, number

Group = Callable[[str], Dataset]

_PHILIPS = "Philips MR Imaging DD 001"
_PHILIPS_CREATOR = (0x2005, 0x0010)
_PHILIPS_SCALE_SLOPE = (0x2005, 0x100E)
_PHILIPS_FRAME = (0x2005, 0x140F)  # the sequence that holds an enhanced frame's private elements
_SAME_SCALE = 1e-5  # relative

# RescaleType of images that CT models understand. Without one CT is in Hounsfield units, and
# archives that convert images write US where they do not know.
# Source: DICOM PS3.3 C.8.2.1 (CT image), C.11.1.1.2 (defined terms).
_UNSPECIFIED = "US"
HOUNSFIELD_TYPES = ("HU", "HU_MOD", _UNSPECIFIED)
_OTHER_TYPES = {
    "ED": "electron densities",
    "EDW": "electron densities relative to water",
    "MGML": "densities in mg/ml",
    "OD": "optical densities",
    "PCT": "percentages",
    "Z_EFF": "effective atomic numbers",
}

# What ImageType or FrameType says of maps that were computed of CT and that no RescaleType need
# tell from Hounsfield units.
# Source: DICOM PS3.3 C.8.16.1 (image type of enhanced CT), and the words of perfusion programs.
_MAPS = {
    "CBF": "blood flow",
    "RCBF": "blood flow",
    "CBV": "blood volume",
    "RCBV": "blood volume",
    "MTT": "mean transit time",
    "RMTT": "mean transit time",
    "TTP": "time to peak",
    "TMAX": "time to maximum",
    "TTD": "time to drain",
    "PERMEABILITY": "permeability",
    "EFF_ATOMIC_NUM": "effective atomic numbers",
    "ELECTRON_DENSITY": "electron densities",
    "MAT_FRACTIONAL": "shares of a material",
}
# What a derived image of unspecified values (US) is computed by, so that they are no longer
# Hounsfield units; a map of perfusion is, unless it says to be one of the others.
_COMPUTED = {"QUANTITY", "DIVISION", "MULTIPLICATION", "SUBTRACTION", "STD_DEVIATION"}
_STAYS = {"NONE", "MEAN", "MAXIMUM", "MINIMUM", "RESAMPLED"}
_HOUNSFIELD_UNIT = "[hnsf'U]"
"""Source: UCUM, the unified code for units of measure."""

SCALING_TAGS: tuple[Any, ...] = (
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "ModalityLUTSequence",
    "RealWorldValueMappingSequence",
    *((group << 16) + element for group, element in (_PHILIPS_CREATOR, _PHILIPS_SCALE_SLOPE)),
)


@dataclass(frozen=True)
class Rescale:
    """Native value = stored * slope + intercept.

    Args:
        slope: finite, not zero.
        intercept: finite, in native units.
        stated: whether RescaleSlope and RescaleIntercept are there.
        kind: RescaleType, such as "HU"; empty if absent.
        per_real: native units in one unit of what the scanner measured (Philips); None if unknown.
        other: what CT values are that are no Hounsfield units, as far as the header tells without
            RescaleType; empty if it does not say so.
    """

    slope: float = 1.0
    intercept: float = 0.0
    stated: bool = False
    kind: str = ""
    per_real: float | None = None
    other: str = ""

    def times(self, factor: float) -> Rescale:
        """The same in other native units."""
        return dataclasses.replace(
            self, slope=self.slope * factor, intercept=self.intercept * factor
        )


def rescale_of(group: Group, frame: Dataset, *, modality: str, where: str) -> Rescale:
    """Read the scaling of a slice.

    Args:
        group: look-up of functional groups, or of the file itself.
        frame: the slice's own functional groups, or the file itself.
        modality: "CT" or "MR".
        where: the file's name, for messages.

    Raises:
        CorruptFileError: if the values have no linear scaling.

    Source: DICOM PS3.3 C.11.1 (modality LUT), C.7.6.16.2.9 (pixel value transformation),
    C.7.6.16.2.11 (real world value mapping).
    """
    place = group("PixelValueTransformationSequence")
    slope = number(place, "RescaleSlope", float, where)
    intercept = number(place, "RescaleIntercept", float, where)
    if place.get("ModalityLUTSequence") or slope == 0.0:
        raise CorruptFileError(
            f"{where}: its values have no linear rescale (a lookup table or a slope of 0); "
            "export the series with RescaleSlope and RescaleIntercept"
        )
    stated = slope is not None and intercept is not None
    if slope is None and intercept is None and modality == "MR":
        slope, intercept = _real_world(group, where)
    rescale = Rescale(
        1.0 if slope is None else slope,
        0.0 if intercept is None else intercept,
        stated,
        str(place.get("RescaleType") or ""),
    )
    if not np.isfinite([rescale.slope, rescale.intercept]).all():
        raise CorruptFileError(
            f"{where}: RescaleSlope or RescaleIntercept is not finite; export the series again"
        )
    private = _philips_slope(frame, where)
    return dataclasses.replace(
        rescale,
        per_real=private and rescale.slope * private,
        other=_other_quantity(group, rescale) if modality == "CT" else "",
    )


def hounsfield_notes(scalings: Sequence[Rescale]) -> tuple[str, ...]:
    """Make sure that the slices of a CT volume are in Hounsfield units.

    Args:
        scalings: of all its slices.

    Returns:
        Sentences on what was taken for granted.

    Raises:
        CorruptFileError: if a slice has no rescale.
        NotHounsfieldError: if a slice says that its values are something else.

    Source: DICOM PS3.3 C.11.1.1.2 (rescale type).
    """
    if not all(scaling.stated for scaling in scalings):
        raise CorruptFileError(
            "CT slices without RescaleSlope and RescaleIntercept have no Hounsfield values; "
            "export the series again"
        )
    kinds = {scaling.kind.strip().upper() for scaling in scalings} - {""}
    other = sorted(kinds.difference(HOUNSFIELD_TYPES))
    if other:
        # Anything but a term of the standard may hold what somebody typed.
        named = next((f" but {_OTHER_TYPES[k]} ({k})" for k in other if k in _OTHER_TYPES), "")
        raise NotHounsfieldError(
            f"the header says (RescaleType) that the CT values are no Hounsfield units{named}, "
            "and CT models expect those; give the series of the same acquisition that is in HU"
        )
    if maps := sorted({scaling.other for scaling in scalings} - {""}):
        raise NotHounsfieldError(
            f"the header says that the CT values are no Hounsfield units but {maps[0]}, and CT "
            "models expect those; give the series of the same acquisition that is in HU"
        )
    if _UNSPECIFIED in kinds:
        return ("RescaleType says US (unspecified); the CT values are taken as Hounsfield units",)
    return ()


def on_one_scale(scalings: Sequence[Rescale]) -> list[Rescale]:
    """Bring slices whose native units differ (Philips) to the units of the first.

    Returns:
        The scalings as they are where all agree or any is unknown.

    Source: Chenevert et al., Translational Oncology 7 (2014) 65-71, equation for FP.
    """
    units = [s.per_real for s in scalings if s.per_real]
    if len(units) < len(scalings) or not units:
        return list(scalings)
    if max(units) - min(units) <= _SAME_SCALE * abs(units[0]):
        return list(scalings)
    return [s.times(units[0] / own) for s, own in zip(scalings, units, strict=True)]


def _real_world(group: Group, where: str) -> tuple[float | None, float | None]:
    """Slope and intercept of the one linear mapping that there is; None without."""
    place = group("RealWorldValueMappingSequence")
    items = list(place.get("RealWorldValueMappingSequence") or [place])
    if len(items) != 1:
        return None, None
    slope = number(items[0], "RealWorldValueSlope", float, where)
    intercept = number(items[0], "RealWorldValueIntercept", float, where)
    return (slope, intercept) if slope and intercept is not None else (None, None)


def _other_quantity(group: Group, rescale: Rescale) -> str:
    """What CT values are where they cannot be Hounsfield units, whatever RescaleType says.

    Three kinds of evidence count: ImageType names a map; the real world values have other units;
    and where the rescale is of no stated kind (US), ImageType names how a map is computed, or
    nothing that is stored could lie below water, as air and fat do.
    """
    top = group("ImageType")
    types = [*listed(top.get("ImageType")), *listed(_frame_type(group))]
    terms = [str(part).strip().upper() for part in types]
    for term in terms[2:]:
        if term in _MAPS:
            return f"{_MAPS[term]} ({term})"
    units = _units(group) - {"", "1"}  # 1 is no unit
    if units and _HOUNSFIELD_UNIT not in units:
        return "values in other units (RealWorldValueMappingSequence)"
    if rescale.kind.strip().upper() != _UNSPECIFIED:
        return ""
    is_map = _COMPUTED & {*terms} or ("PERFUSION" in terms and not _STAYS & {*terms})
    if "DERIVED" in terms and is_map:
        return "values of an unspecified kind (US) in a computed map"
    if top.get("PixelRepresentation") == 0 and rescale.slope > 0 <= rescale.intercept:
        return "values of an unspecified kind (US) that are never below 0"
    return ""


def _frame_type(group: Group) -> Any:
    return group("CTImageFrameTypeSequence").get("FrameType")


def _units(group: Group) -> set[str]:
    """UCUM codes of the units of real world values."""
    place = group("RealWorldValueMappingSequence")
    items = list(place.get("RealWorldValueMappingSequence") or [place])
    codes = [code for item in items for code in item.get("MeasurementUnitsCodeSequence") or []]
    return {
        str(code.get("CodeValue", "")).strip()
        for code in codes
        if str(code.get("CodingSchemeDesignator", "")).strip() == "UCUM"
    }


def _philips_slope(frame: Dataset, where: str) -> float | None:
    """Philips' private scale slope; None where it is absent or makes no sense."""
    place = frame
    if _PHILIPS_FRAME in frame and frame[_PHILIPS_FRAME].VR == "SQ":
        place = next(iter(frame[_PHILIPS_FRAME].value), frame)
    if _PHILIPS_CREATOR not in place or _PHILIPS not in str(place[_PHILIPS_CREATOR].value):
        return None
    try:
        slope = number(place, _PHILIPS_SCALE_SLOPE, float, where)
    except CorruptFileError:
        return None
    return slope if slope and np.isfinite(slope) and slope > 0 else None

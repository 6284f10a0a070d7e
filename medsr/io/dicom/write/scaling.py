"""How 16-bit numbers hold the values of a derived series.

CT is stored in int16, as whole HU unless the source has finer steps; MR with the source's sign, and
with a slope only where the source had one or its range asks for it. Values outside saturate.
"""

from __future__ import annotations

import math

import numpy as np
from pydicom.valuerep import format_number_as_ds

from medsr.io.dicom.read.reference import DicomReference
from medsr.io.scaling import Scaling, ValueRange
from medsr.volume import Source

_STORED_STEPS = 65534  # a 16-bit range, less one step for rounding at its ends
_SAME_STEP = 1e-3  # of a step


def dicom_scaling(source: Source, value_range: ValueRange) -> Scaling:
    """16-bit numbers with the slope and intercept exactly as a decimal string will hold them.

    Args:
        source: of a volume that came from DICOM.
        value_range: of the native values.

    Returns:
        A scaling whose steps are no coarser than the source's own where 16 bits suffice for the
        range of the result: of CT 1 HU or the source's finer step, of MR the source's step.

    Raises:
        OutputFormatError: if the volume did not come from DICOM.

    Source: DICOM PS3.3 C.11.1 (modality LUT).
    """
    reference = DicomReference.of(source)
    if reference.modality == "CT":
        return _ct_scaling(source, reference, value_range)
    dtype = np.dtype("<i2" if reference.signed else "<u2")
    slope, intercept = reference.slope, reference.intercept
    short = source.dtype.kind in "iu" and source.dtype.itemsize <= 2
    if (slope, intercept) == (1.0, 0.0) and short:
        return Scaling(dtype)
    info = np.iinfo(dtype)
    low, high = value_range()
    ends = sorted(((low - intercept) / slope, (high - intercept) / slope))
    if ends[0] < info.min - 0.5 or ends[1] > info.max + 0.5:
        slope, intercept = _covering(low, high, info.min)
    return Scaling(dtype, _as_written(slope), _as_written(intercept))


def _ct_scaling(source: Source, reference: DicomReference, value_range: ValueRange) -> Scaling:
    """Whole HU, unless the source's steps are finer, lie between, or reach beyond int16."""
    dtype = np.dtype("<i2")
    info = np.iinfo(dtype)
    step = min(abs(reference.slope), 1.0)
    # Where the steps lie, so that every value of the source is one of them.
    offset = math.remainder(reference.intercept, step)
    offset = 0.0 if abs(offset) < _SAME_STEP * step else offset
    if (step, offset) == (1.0, 0.0) and _highest(source, reference) <= info.max:
        return Scaling(dtype)
    low, high = value_range()
    if low < offset + step * info.min or high > offset + step * info.max:
        # As many whole steps off zero as bring the lowest value to the lowest number.
        offset += step * (math.floor((low - offset) / step + _SAME_STEP) - info.min)
        if high > offset + step * (info.max + _SAME_STEP):
            step, offset = _covering(low, high, info.min)
    return Scaling(dtype, _as_written(step), _as_written(offset))


def _highest(source: Source, reference: DicomReference) -> float:
    """The highest native value that the source's stored type has room for."""
    if (source.slope, source.intercept) != (reference.slope, reference.intercept):
        return math.inf  # every slice has a scaling of its own
    bits = reference.attributes.get("BitsStored")
    if source.dtype.kind not in "iu" or not isinstance(bits, int):
        return math.inf
    largest = float(2 ** max(bits - int(reference.signed), 0) - 1)
    return abs(reference.slope) * largest + reference.intercept


def _covering(low: float, high: float, least: int) -> tuple[float, float]:
    """Slope and intercept that spread ``low``...``high`` over 16 bits from ``least`` up."""
    wider = max((high - low) / _STORED_STEPS, float(np.finfo(np.float32).tiny))
    slope = _as_written(wider * (1.0 + 1e-9))
    return slope, low - slope * least


def _as_written(value: float) -> float:
    """The number that a decimal string of 16 characters holds."""
    return float(format_number_as_ds(float(value)))

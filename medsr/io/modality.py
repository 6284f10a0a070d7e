"""CT or MR? What the values of a scan and its name tell, and what they leave in doubt.

:class:`Tally` counts values, of a whole scan or chunk by chunk; :func:`judge` says what they look
like. A wrong model is worse than a question, so there are three answers: CT, MR, and in doubt. The
rule is explained in ``docs/explanation/intensities.md``.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medsr.errors import ModalityError, NotHounsfieldError
from medsr.hu import BODY_HU
from medsr.intensity import BACKGROUND, COMMON, RAISED, RIPPLE
from medsr.io.bids import BidsName, read_sidecar
from medsr.values import DIGITS, count_keys, keys_of, value_of
from medsr.volume import Modality, Volume

logger = logging.getLogger(__name__)

# Air is -1000 HU and dense bone or enamel below 3100; fill values outside the circular field of
# view (-2000, -2048, -3024) lie under the former.
LOWEST_HU, HIGHEST_HU = -1100.0, 3100.0
LOWEST_FILL = -4096.0
"""CT's fill values are not below; those of MR and of software are (-9999, -32768)."""
SOFT_HU = (-150.0, 250.0)
"""Fat, water, muscle, organs and blood."""
STORED_OFFSET = 1024.0
"""What scanners add to Hounsfield units to store them without a sign."""

_AIR, _PLAUSIBLE = 1e-3, 0.95  # shares of CT's voxels
_SOFT_SHARE, _NOT_AIR = 0.25, 0.05  # of what is no air, where there is enough of it to tell
_MUCH_ZERO, _LITTLE_AIR = 0.1, 0.01
_CLEARLY_NEGATIVE = 0.05  # of the 99.5th percentile
_NARROW = 30.0  # HU; 99 % of a CT span more
_OUTSIDE = 0.2  # share of voxels that no CT has beyond its range
_TINY = 20.0  # normalised values lie this near to 0
_CUT, _CUT_COUNT = 0.015, 20  # share of voxels at either end of a window, and how many at least
_FEW_LEVELS = 16  # so few values have ends of many voxels without a window
_FLOAT = np.dtype(np.float32)
_ADVICE = "name it with --modality ct or --modality mr (modality= in Python)"

# Source: BIDS 1.10, "Magnetic Resonance Imaging"; folders hold one kind each.
_MR_FOLDERS = frozenset({"anat", "func", "dwi", "fmap", "perf", "swi"})
_KINDS: dict[str, Modality] = {"MR": "MR", "CT": "CT"}


@dataclass(frozen=True)
class Judgement:
    """What the values of a scan look like.

    Args:
        modality: "CT" or "MR"; None where they leave doubt.
        seen: What was seen, in a few words.
        hounsfield: Whether they can be Hounsfield units.
        impossible: Whether they are so certainly none that CT is refused.
        offset: A warning where MR starts far above 0, for what may be an offset.
    """

    modality: Modality | None
    seen: str
    hounsfield: bool
    impossible: bool = False
    offset: str | None = None

    def question(self, named: Modality | None = None) -> str:
        """What to ask where this leaves doubt, or contradicts a name."""
        start = "CT or MR?" if named is None else f"named {named}, but is it?"
        return f"{start} It has {self.seen}; {_ADVICE}"


class Tally:
    """How often values occur: exactly for the lowest and the highest, else in bins of 0.8 %."""

    def __init__(self) -> None:
        self.bins = np.zeros(DIGITS, dtype=np.int64)
        self.low, self.high = np.inf, -np.inf
        self.at_low = self.at_high = self.fractions = 0

    def add(self, block: npt.NDArray[Any]) -> None:
        """Take note of values, an array of any shape."""
        if not block.size:
            return
        sample = np.asarray(block, dtype=np.float32).ravel()
        low, high = float(sample.min()), float(sample.max())
        if low < self.low:
            self.low, self.at_low = low, 0
        if high > self.high:
            self.high, self.at_high = high, 0
        self.at_low += int(np.count_nonzero(sample == self.low))
        self.at_high += int(np.count_nonzero(sample == self.high))
        if block.dtype.kind == "f":
            self.fractions += int(np.count_nonzero(sample != np.rint(sample)))
        self.bins += count_keys(keys_of(sample) >> 16, DIGITS)


def tally(data: npt.NDArray[Any]) -> Tally:
    """Count every second voxel of a volume along each axis."""
    counts = Tally()
    counts.add(data[::2, ::2, ::2])
    return counts


def judge(found: Tally) -> Judgement:
    """Tell CT from MR by the values.

    Args:
        found: Their counts, of one voxel at least.
    """
    seen = _Shape(found)
    summary = seen.words()
    if seen.size == 0 or seen.low == seen.high:
        return Judgement("MR", "all voxels are alike", hounsfield=True)
    impossible = seen.span <= _TINY and seen.fractions > 0.5
    if seen.air >= _AIR and seen.plausible >= _PLAUSIBLE:
        if seen.soft < _SOFT_SHARE and seen.not_air > _NOT_AIR:
            return Judgement(None, f"{summary}, with air but without soft tissue", hounsfield=True)
        if seen.zeros >= _MUCH_ZERO and seen.air <= _LITTLE_AIR:
            return Judgement(None, f"{summary}, much of it exactly 0", hounsfield=True)
        return Judgement("CT", f"{summary}, as in Hounsfield units", hounsfield=True)
    if seen.bottom < -_CLEARLY_NEGATIVE * seen.top:
        if seen.width < _NARROW or seen.plausible < 1 - _OUTSIDE:
            return Judgement("MR", f"{summary}, no Hounsfield units", False, impossible)
        return Judgement(None, f"{summary}: below 0 as no magnitude, without CT's air", True)
    if seen.is_stored_ct():
        text = f"{summary}, as in Hounsfield units stored {STORED_OFFSET:g} too high"
        return Judgement(None, text, hounsfield=False)
    if seen.fill is not None and seen.width >= _NARROW:
        around = f"around a fill value of {seen.fill:g}, as CT scanners have"
        return Judgement(None, f"{summary}, {around}", hounsfield=True)
    at_low = 0 if found.low < LOWEST_HU else found.at_low  # no end of the values but a fill
    cut = min(at_low, found.at_high) >= max(_CUT * seen.size, _CUT_COUNT)
    if cut and seen.levels > _FEW_LEVELS:
        return Judgement(None, f"{summary}, cut off at both ends as by a window", hounsfield=False)
    if seen.is_cut_at_water():
        text = f"{summary}, much of it exactly 0, the rest as in Hounsfield units above water"
        return Judgement(None, text, hounsfield=True)
    offset = None
    if seen.starts_high():
        offset = (
            f"{summary}: for MR that is far above 0. It is taken for a part from inside tissue; if "
            "an offset was added, subtract it"
        )
    text = f"{summary}, none clearly below 0"
    return Judgement("MR", text, seen.width >= _NARROW, impossible, offset)


def settle(
    judgement: Judgement,
    where: str,
    *,
    asked: Modality | None = None,
    named: Modality | None = None,
) -> tuple[Modality, str | None]:
    """Decide what a scan is whose format does not say it.

    Args:
        judgement: On its values.
        where: What a message calls it.
        asked: What the user says.
        named: What its name or sidecar says.

    Returns:
        Its modality, and a warning where the user's word contradicts the values, or where they may
        have an offset.

    Raises:
        ModalityError: It is in doubt.
        NotHounsfieldError: CT is asked for and the values are certainly none of Hounsfield's.
    """
    seen = judgement.seen
    offset = judgement.offset if asked == "MR" or asked is None else None
    if asked == "CT" and judgement.impossible:
        raise NotHounsfieldError(
            f"{where}: {seen}; these are no Hounsfield units (normalised?), and CT models expect "
            "those; give the CT in HU"
        )
    if asked is not None:
        doubtful = judgement.modality == "MR" or not judgement.hounsfield
        if not (doubtful if asked == "CT" else judgement.modality == "CT"):
            return asked, offset
        wrong = "does not look like a CT in Hounsfield units" if asked == "CT" else "looks like CT"
        return asked, f"the modality is taken as {asked}, as asked, but it {wrong}: {seen}"
    if named is None:
        if judgement.modality is None:
            raise ModalityError(f"{where}: {judgement.question()}")
        return judgement.modality, offset
    if judgement.modality in (None, named) and (named == "MR" or judgement.hounsfield):
        return named, offset
    raise ModalityError(f"{where}: {judgement.question(named)}")


def settled(
    volume: Volume, asked: Modality | None = None, judgement: Judgement | None = None
) -> tuple[Volume, str | None]:
    """Give a scan its modality: what is asked for, else what its file says, else its values.

    Args:
        volume: The scan.
        asked: What the user says.
        judgement: On its values, where that is known already.

    Returns:
        The scan, and a warning as of :func:`settle`, which its notes hold too. Where its file
        contradicts the user, that is logged.

    Raises:
        ModalityError: The values leave doubt and nobody says it.
        NotHounsfieldError: CT is asked for, and the values are no Hounsfield units.
    """
    if volume.modality is not None:
        if asked not in (None, volume.modality):
            said = volume.modality
            logger.warning("the file says modality %s; taken as %s, as asked", said, asked)
        return volume.replace(modality=asked or volume.modality), None
    kind, warning = _by_values(volume, asked, judgement)
    source = volume.source
    if warning is not None and source is not None:
        source = replace(source, notes=(*source.notes, warning))
    return volume.replace(modality=kind, source=source), warning


def modality_of(volume: Volume) -> Modality:
    """Return the modality of a scan; see :func:`settled`."""
    return volume.modality or _by_values(volume)[0]


def _by_values(
    volume: Volume, asked: Modality | None = None, judgement: Judgement | None = None
) -> tuple[Modality, str | None]:
    path = None if volume.source is None else volume.source.path
    return settle(
        judgement or judge(tally(volume.data)),
        "the scan" if path is None else str(path),
        asked=asked,
        named=None if path is None else named_modality(path),
    )


def named_modality(path: Path) -> Modality | None:
    """What BIDS says of a scan: its sidecar's field ``Modality``, else its folder or suffix.

    Returns:
        None where nothing is said, or both are and differ.
    """
    told = (read_sidecar(path) or {}).get("Modality")
    by_sidecar = _KINDS.get(told.upper()) if isinstance(told, str) else None
    name, by_place = BidsName.parse(path.name), None
    if name is not None and name.is_scan:
        folder = path.absolute().parent.name
        if folder in _MR_FOLDERS:
            by_place = _KINDS["MR"]
        elif folder == "ct" or name.suffix.lower() == "ct":
            by_place = _KINDS["CT"]
    return by_sidecar if by_place in (None, by_sidecar) else None if by_sidecar else by_place


class _Shape:
    """Figures on the values of a scan, the fill value left out where it lies under CT's air."""

    def __init__(self, found: Tally) -> None:
        counts = found.bins.copy()
        there = np.flatnonzero(counts)
        self.low, self.high = found.low, found.high
        is_fill = LOWEST_FILL <= found.low < LOWEST_HU and found.at_low >= COMMON * counts.sum()
        self.fill = found.low if is_fill else None
        if found.low < LOWEST_HU:
            counts[there[0]] -= found.at_low
            there = np.flatnonzero(counts)
        self.size = int(counts.sum())
        if self.size == 0:
            return
        self._counts = counts[there]
        # Bins are named by their value nearest to zero, which round bounds have to themselves.
        ends = (((place << 16), (place << 16) + DIGITS - 1) for place in there.tolist())
        self._values = np.array(
            [min((value_of(k, _FLOAT) for k in pair), key=abs) for pair in ends]
        )
        self.levels = len(there)
        self._cumulated = np.cumsum(self._counts)
        self.bottom, self.top = self._percentile(0.5), self._percentile(99.5)
        self.low = float(self._values[0]) if found.low < LOWEST_HU else found.low
        self.width = self.top - self.bottom
        self.span = max(abs(self.low), abs(self.high))
        self.air = self._share(-np.inf, BODY_HU, open_end=True)
        self.plausible = self._share(LOWEST_HU, HIGHEST_HU)
        self.zeros = self._share(0.0, 0.0)
        self.not_air = 1 - self.air
        self.soft = self._share(*SOFT_HU) / max(self.not_air, 1e-9)
        self.fractions = found.fractions / max(self.size * (1 - self.zeros), 1)  # of what is not 0

    def is_stored_ct(self) -> bool:
        """Whether the values less ``STORED_OFFSET`` are those of CT: air, soft tissue, bone."""
        air = self._share(-np.inf, BODY_HU + STORED_OFFSET)
        between = self._share(BODY_HU + STORED_OFFSET, SOFT_HU[0] + STORED_OFFSET)
        soft = self._share(*(bound + STORED_OFFSET for bound in SOFT_HU))
        hard = self._share(SOFT_HU[1] + STORED_OFFSET, np.inf)
        tail = self._percentile(99.9) >= 600 + STORED_OFFSET
        rest = max(1 - air, 1e-9)
        inside = self.high <= HIGHEST_HU + STORED_OFFSET and self.fractions < 0.5
        shaped = soft >= 0.7 * rest and between <= 0.1 and hard <= 0.2 * rest
        return inside and tail and shaped and rest > 0.2

    def starts_high(self) -> bool:
        """Whether the darkest voxels are far above 0, and are no background that tells the zero."""
        dark = self._share(-np.inf, self.bottom + RIPPLE * self.width)
        return self.bottom > RAISED * self.width > 0 and dark < BACKGROUND

    def is_cut_at_water(self) -> bool:
        """Whether these may be CT's values above 0: soft tissue, and little but far brighter bone.

        MR with zeros around the body has no such tail: its median is a quarter of its range.
        """
        zeros, above = self.zeros, 1 - self.zeros
        if self.low < 0 or zeros < 0.2 or above <= 0:
            return False
        median = self._percentile(100 * (zeros + above / 2))
        soft = (self._share(0.0, SOFT_HU[1]) - zeros) / above
        return 30 <= median <= 130 and self.top >= 5.5 * median and soft >= 0.65

    def words(self) -> str:
        """The range and what lies below zero."""
        if self.size == 0:
            return f"all values are {self.low:g}"
        below = self._share(-np.inf, 0.0, open_end=True)
        air = f" and {self.air:.2%} below {BODY_HU:g}" if self.air else ""
        return f"values from {self.low:.4g} to {self.high:.4g}, {below:.1%} below 0{air}"

    def _share(self, low: float, high: float, *, open_end: bool = False) -> float:
        upto = self._values < high if open_end else self._values <= high
        return float(self._counts[(self._values >= low) & upto].sum()) / self.size

    def _percentile(self, percent: float) -> float:
        rank = percent / 100 * (self.size - 1)
        return float(self._values[np.searchsorted(self._cumulated, rank, "right")])

"""Who may stand in two splits at once: by the spelling of identifiers, and by what scans show.

Splits by patient leak where one person has two identifiers, or one acquisition was saved twice.
Identifiers that differ in case, separators or a prefix are suspicious; scans of different
identifiers that show the same acquisition are named, whatever they are called. Findings name scans,
never patients. ``fingerprint`` compares scans.
"""

from __future__ import annotations

import heapq
import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from medsr.data.fingerprint import Fingerprint, coarse_likeness, fine_likeness, fingerprint
from medsr.data.manifest import ScanRecord
from medsr.errors import LeakError, MedsrError
from medsr.io import load
from medsr.patients import spelling
from medsr.types import Progress

logger = logging.getLogger(__name__)

SAME = 0.72
"""Likeness from which on two scans count as one acquisition; docs/how-to/cohorts.md measures it."""
CANDIDATES = 8
"""So many of the scans that look most like each one are compared closely."""
WORTH_A_LOOK = 0.15
"""Likeness on the coarse grid below which a pair is not compared closely."""
_AT_ONCE = 64

"""Called with (done, in all, what is being done)."""


@dataclass(frozen=True)
class Twins:
    """Two scans, of patients with different identifiers, that may be of one person.

    Attributes:
        first: One scan.
        second: The other.
        likeness: How alike the scans are, up to 1; None where only the identifiers are.

    Examples:
        >>> from pathlib import Path
        >>> from medsr.data.leaks import Twins
        >>> from medsr.data.manifest import ScanRecord
        >>> first = ScanRecord(Path("a.nii.gz"), "train", "sub-01", "MR")
        >>> second = ScanRecord(Path("b.nii.gz"), "dev", "patient1", "MR")
        >>> Twins(first, second, likeness=0.98).leaks
        True
    """

    first: ScanRecord
    second: ScanRecord
    likeness: float | None

    @property
    def leaks(self) -> bool:
        """Whether they stand in different splits."""
        return self.first.split != self.second.split


@dataclass(frozen=True)
class Leaks:
    """What a check found.

    Attributes:
        spellings: Pairs of patients with nearly the same identifier, by one scan of each.
        contents: Pairs of scans that show the same acquisition, the most alike first.
        unread: Names of scans that could not be read, and so were not compared, with the reason.
        compared: Pairs of scans compared by content.

    Examples:
        >>> from pathlib import Path
        >>> from medsr.data.leaks import Leaks, Twins
        >>> from medsr.data.manifest import ScanRecord
        >>> first = ScanRecord(Path("a.nii.gz"), "train", "p1", "MR")
        >>> second = ScanRecord(Path("b.nii.gz"), "train", "p2", "MR")
        >>> found = Leaks(contents=(Twins(first, second, likeness=0.98),), compared=1)
        >>> found.across  # in one split: no leak, though one person counts as two
        ()
        >>> found.refuse()
    """

    spellings: tuple[Twins, ...] = ()
    contents: tuple[Twins, ...] = ()
    unread: tuple[tuple[str, str], ...] = ()
    compared: int = 0

    @property
    def across(self) -> tuple[Twins, ...]:
        """The same acquisition in two splits."""
        return tuple(twins for twins in self.contents if twins.leaks)

    def refuse(self) -> None:
        """Refuse a cohort in which the same acquisition stands in two splits.

        Raises:
            LeakError: There is one.
        """
        if not self.across:
            return
        worst = self.across[0]
        more = f" and {len(self.across) - 1} more" if len(self.across) > 1 else ""
        raise LeakError(
            f"scans {worst.first.scan_id} ({worst.first.split}) and {worst.second.scan_id} "
            f"({worst.second.split}) show the same acquisition{more}; give both the same "
            "patient_id or leave one out, and split again"
        )


def check_leaks(
    records: Sequence[ScanRecord],
    *,
    content: bool = True,
    progress: Progress | None = None,
    workers: int | None = None,
) -> Leaks:
    """Look for one person under two identifiers.

    Args:
        records: A cohort, split or not.
        content: Also compare what the scans show; otherwise identifiers alone.
        progress: Told of every step.
        workers: Threads; as many as processors where None.

    Examples:
        >>> from pathlib import Path
        >>> from medsr.data.leaks import check_leaks
        >>> from medsr.data.manifest import ScanRecord
        >>> scans = [
        ...     ScanRecord(Path("a.nii.gz"), "train", "sub-01", "MR"),
        ...     ScanRecord(Path("b.nii.gz"), "dev", "SUB1", "MR"),
        ... ]
        >>> found = check_leaks(scans, content=False)  # identifiers alone; no scan is read
        >>> [(pair.first.scan_id, pair.second.scan_id) for pair in found.spellings]
        [('a', 'b')]
    """
    spellings = near_spellings(records)
    if not content:
        return Leaks(spellings)
    found, unread = _fingerprints(records, progress)
    contents, compared = same_content(found, progress=progress, workers=workers)
    return Leaks(spellings, contents, unread, compared)


def near_spellings(records: Sequence[ScanRecord]) -> tuple[Twins, ...]:
    """Find patients whose identifiers differ in case, separators, prefix or leading zeros only.

    Returns:
        A pair of scans for every pair of such patients, those across splits first.

    Examples:
        >>> from pathlib import Path
        >>> from medsr.data.leaks import near_spellings
        >>> from medsr.data.manifest import ScanRecord
        >>> scans = [ScanRecord(Path(f"{n}.nii.gz"), "all", n, "MR") for n in ("p-7", "P007", "p8")]
        >>> [(pair.first.patient_id, pair.second.patient_id) for pair in near_spellings(scans)]
        [('p-7', 'P007')]
    """
    by_spelling: dict[str, dict[str, ScanRecord]] = {}
    for record in records:
        people = by_spelling.setdefault(spelling(record.patient_id), {})
        people.setdefault(record.patient_id, record)
    same_scans = [
        Twins(first, second, None)
        for people in by_spelling.values()
        for first, second in combinations(people.values(), 2)
    ]
    return tuple(sorted(same_scans, key=lambda twins: not twins.leaks))


def same_content(
    prints: Sequence[tuple[ScanRecord, Fingerprint]],
    *,
    progress: Progress | None = None,
    workers: int | None = None,
) -> tuple[tuple[Twins, ...], int]:
    """Find scans of different identifiers that show the same acquisition.

    Every pair is compared coarsely; of the scans that look most like each one, the closest are
    compared finely.

    Args:
        prints: Scans with their fingerprints.
        progress: Told of every scan and candidate.
        workers: Threads; as many as processors where None.

    Returns:
        The pairs, the most alike first, and how many pairs were compared.

    Examples:
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from medsr import Geometry, Volume
        >>> from medsr.data.fingerprint import fingerprint
        >>> from medsr.data.leaks import same_content
        >>> from medsr.data.manifest import ScanRecord
        >>> data = np.random.default_rng(0).normal(size=(32, 32, 64)).astype(np.float32)
        >>> scan = Volume(data, Geometry(data.shape, np.diag([4.0, 4.0, 2.0, 1.0])))
        >>> records = [ScanRecord(Path(f"{n}.nii.gz"), "all", n, "MR") for n in ("p1", "p2")]
        >>> prints = [fingerprint(scan), fingerprint(scan.flip(0).permute((2, 0, 1)))]
        >>> twins, compared = same_content(list(zip(records, prints)), workers=1)
        >>> len(twins), compared  # the order of the axes does not hide it
        (1, 1)
    """
    workers = workers or os.cpu_count() or 1
    candidates, compared = _candidates(prints, progress, workers)
    twin_pairs: list[Twins] = []
    with ThreadPoolExecutor(workers) as pool:
        pairs = ((prints[i][1], prints[j][1]) for i, j in candidates)
        likeness = pool.map(lambda pair: fine_likeness(*pair), pairs)
        for number, ((i, j), value) in enumerate(zip(candidates, likeness, strict=True)):
            if progress is not None:
                progress(number, len(candidates), "comparing closely")
            if value >= SAME:
                twin_pairs.append(Twins(prints[i][0], prints[j][0], round(value, 3)))
    twin_pairs.sort(key=lambda twins: -(twins.likeness or 0.0))
    return tuple(twin_pairs), compared


def _fingerprints(
    records: Sequence[ScanRecord], progress: Progress | None
) -> tuple[list[tuple[ScanRecord, Fingerprint]], tuple[tuple[str, str], ...]]:
    """Fingerprint every scan that can be read; also say which cannot."""
    fingerprints: list[tuple[ScanRecord, Fingerprint]] = []
    unread: list[tuple[str, str]] = []
    for number, record in enumerate(records):
        if progress is not None:
            progress(number, len(records), "reading")
        try:
            fingerprints.append((record, fingerprint(load(record.path, modality=record.modality))))
        except MedsrError as error:
            unread.append((record.scan_id, type(error).__name__))
            logger.warning(
                "scan %d of the cohort cannot be read (%s) and was not compared",
                number + 1,
                type(error).__name__,
            )
    return fingerprints, tuple(unread)


def _candidates(
    prints: Sequence[tuple[ScanRecord, Fingerprint]], progress: Progress | None, workers: int
) -> tuple[list[tuple[int, int]], int]:
    """Pairs worth comparing closely, and how many were compared coarsely."""
    nearest: list[list[tuple[float, int, int]]] = [[] for _ in prints]
    compared = 0
    for i, (record, own) in enumerate(prints):
        if progress is not None:
            progress(i, len(prints), "comparing")
        others = [j for j in range(i) if prints[j][0].patient_id != record.patient_id]
        compared += len(others)
        for batch in _batches(others):
            spectra = np.stack([prints[j][1].coarse for j in batch])
            alike = coarse_likeness(own.coarse, spectra, workers=workers)
            for j, value in zip(batch, alike, strict=True):
                if value >= WORTH_A_LOOK:
                    for heap in (nearest[i], nearest[j]):
                        _keep(heap, (float(value), j, i))
    return sorted({(j, i) for heap in nearest for _, j, i in heap}), compared


def _keep(heap: list[tuple[float, int, int]], item: tuple[float, int, int]) -> None:
    if len(heap) < CANDIDATES:
        heapq.heappush(heap, item)
    else:
        heapq.heappushpop(heap, item)


def _batches(items: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(items), _AT_ONCE):
        yield items[start : start + _AT_ONCE]

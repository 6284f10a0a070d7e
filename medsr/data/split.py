"""Which patient goes into which split: by a fixed hash, stratified, and stable as a cohort grows.

Nothing here is random. Within each stratum (what modalities, contrasts and sites a patient's scans
have) patients stand in the order of a keyed hash of their identifiers and go, one after the other,
to the split that lacks most. ``lock`` stores the result.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from medsr.data.manifest import ScanRecord
from medsr.errors import UsageError

FRACTIONS = {"train": 0.7, "dev": 0.15, "test": 0.15}
METHOD = (
    "by patient: within each stratum in the order of BLAKE2b(patient_id, key=seed), each to the "
    "split that lacks most of its share of the stratum and of the whole"
)


def parse_fractions(text: str) -> dict[str, float]:
    """Read ``train=0.7,dev=0.15,test=0.15``.

    Raises:
        UsageError: The text is anything else, or the fractions do not add up to 1.

    Examples:
        >>> from medsr.data.split import parse_fractions
        >>> parse_fractions("train=0.8, test=0.2")
        {'train': 0.8, 'test': 0.2}
    """
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = (word.strip() for word in part.partition("="))
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not name or name in shares or not 0 < value <= 1:
            raise UsageError(
                f"fractions {text!r}: {part.strip()!r} is no NAME=FRACTION with a fraction above 0 "
                "up to 1; write train=0.7,dev=0.15,test=0.15"
            )
        shares[name] = value
    if not math.isclose(sum(shares.values()), 1.0, abs_tol=1e-6):
        raise UsageError(f"fractions {text!r} add up to {sum(shares.values()):g}; make that 1")
    return shares


def strata(records: Sequence[ScanRecord]) -> dict[str, str]:
    """Return each patient's stratum: modality, contrast and site of all its scans.

    Args:
        records: A cohort.

    Returns:
        Such as ``{"p1": "MR/FLAIR/B + MR/T1w/B"}``, in the order of the records.

    Examples:
        >>> from pathlib import Path
        >>> from medsr.data.manifest import ScanRecord
        >>> from medsr.data.split import strata
        >>> scans = [
        ...     ScanRecord(Path("a.nii.gz"), "all", "p1", "MR", contrast="T1w", site="B"),
        ...     ScanRecord(Path("b.nii.gz"), "all", "p1", "MR", contrast="FLAIR", site="B"),
        ... ]
        >>> strata(scans)
        {'p1': 'MR/FLAIR/B + MR/T1w/B'}
    """
    kinds: dict[str, set[str]] = {}
    for record in records:
        kind = "/".join(filter(None, (record.domain, record.site)))
        kinds.setdefault(record.patient_id, set()).add(kind)
    return {patient: " + ".join(sorted(found)) for patient, found in kinds.items()}


def split_patients(
    records: Sequence[ScanRecord],
    fractions: Mapping[str, float],
    *,
    seed: int = 0,
    known: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Assign every patient to a split.

    Args:
        records: A cohort; its own splits do not count.
        fractions: Share of the patients of each split; their sum is 1.
        seed: Another one gives another order of the patients.
        known: Splits of patients that keep theirs, whatever the fractions say.

    Returns:
        Patient to split.

    Examples:
        >>> from pathlib import Path
        >>> from medsr.data.manifest import ScanRecord
        >>> from medsr.data.split import split_patients
        >>> scans = [ScanRecord(Path(f"p{n}.nii.gz"), "all", f"p{n}", "MR") for n in range(10)]
        >>> splits = split_patients(scans, {"train": 0.8, "dev": 0.2}, seed=0)
        >>> sorted(splits.values()).count("dev")
        2
        >>> grown = [*scans, ScanRecord(Path("new.nii.gz"), "all", "new", "MR")]
        >>> later = split_patients(grown, {"train": 0.8, "dev": 0.2}, known=splits)
        >>> all(later[patient] == split for patient, split in splits.items())
        True
    """
    shares = {name: Fraction(str(value)) for name, value in fractions.items()}
    stratum = strata(records)
    assigned = {p: s for p, s in (known or {}).items() if p in stratum}
    everywhere = Counter(assigned.values())
    for name in sorted(set(stratum.values())):
        members = [patient for patient, of in stratum.items() if of == name]
        here = Counter(assigned[p] for p in members if p in assigned)
        new = [p for p in members if p not in assigned]
        for patient in sorted(new, key=lambda p: (_order(p, seed), p)):
            chosen = max(
                shares,
                key=lambda s: _lack(shares[s], here, s) + _lack(shares[s], everywhere, s),
            )
            assigned[patient] = chosen
            here[chosen] += 1
            everywhere[chosen] += 1
    return {patient: assigned[patient] for patient in stratum}


def apply_split(
    records: Sequence[ScanRecord], assigned: Mapping[str, str]
) -> tuple[ScanRecord, ...]:
    """Return the records with the splits of their patients.

    Examples:
        >>> from pathlib import Path
        >>> from medsr.data.manifest import ScanRecord
        >>> from medsr.data.split import apply_split
        >>> scans = [ScanRecord(Path("p1.nii.gz"), "all", "p1", "MR")]
        >>> apply_split(scans, {"p1": "dev"})[0].split
        'dev'
    """
    return tuple(replace(record, split=assigned[record.patient_id]) for record in records)


def _order(patient_id: str, seed: int) -> bytes:
    key = str(seed).encode()
    return hashlib.blake2b(patient_id.encode(), key=key, digest_size=16).digest()


def _lack(share: Fraction, counts: Counter[str], split: str) -> Fraction:
    """How many patients a split is short of once one more is assigned somewhere."""
    return share * (counts.total() + 1) - counts[split]

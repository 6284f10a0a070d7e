"""The scans of a training run, prepared in memory, split by patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medsr.data.cohort import read_cohort
from medsr.data.manifest import ScanRecord
from medsr.data.transforms import PreparedScan, prepare_scan
from medsr.errors import CohortError
from medsr.model import Intensity
from medsr.recipe import Recipe


@dataclass(frozen=True)
class Cohort:
    """Prepared scans.

    Attributes:
        intensity: How those of the recipe's first modality were normalised; each scan is
            normalised as its own modality asks.
        train: One entry per training scan and slice axis.
        validation: One entry per validation scan.
    """

    intensity: Intensity
    train: tuple[PreparedScan, ...]
    validation: tuple[PreparedScan, ...]


def load_cohort(recipe: Recipe) -> Cohort:
    """Read the manifest or lock, check its splits, and prepare the scans that the recipe names.

    Raises:
        CohortError: A patient stands in two splits, scans of a lock's training split have changed,
            or there is nothing to learn from.
    """
    data, factor = recipe.data, recipe.degradation.factor
    records = () if data.manifest is None else read_cohort(data.manifest, split=data.train_split)
    train: list[PreparedScan] = []
    if data.synthetic is None:
        for record in records:
            if record.split == data.train_split and data.takes(record.modality, record.contrast):
                train += prepare_scan(record, Intensity.for_modality(record.modality), factor)
        _check(train, recipe)
    return Cohort(
        Intensity.for_modality(data.modalities[0]), tuple(train), load_validation(recipe, records)
    )


def load_validation(recipe: Recipe, records: Sequence[ScanRecord]) -> tuple[PreparedScan, ...]:
    """Prepare the validation scans that the recipe names, each along one of its sharp axes.

    Args:
        recipe: Split, number of scans and factor.
        records: Rows of the manifest.
    """
    data, factor = recipe.data, recipe.degradation.factor
    wanted = [
        r
        for r in records
        if r.split == data.validation_split and data.takes(r.modality, r.contrast)
    ]
    validation: list[PreparedScan] = []
    for turn, record in enumerate(_spread(wanted, data.validation_scans)):
        entries = prepare_scan(record, Intensity.for_modality(record.modality), factor)
        if entries:
            validation.append(entries[turn % len(entries)])
    return tuple(validation)


def _check(scans: Sequence[PreparedScan], recipe: Recipe) -> None:
    """Refuse a cohort in which a modality that the recipe names has no scan to learn from."""
    data = recipe.data
    missing = [name for name in data.modalities if name not in {scan.modality for scan in scans}]
    if missing:
        kind = " ".join([missing[0], "or".join(f" {c} " for c in data.contrasts).strip()]).strip()
        raise CohortError(
            f"the manifest holds no {kind} scan in split {data.train_split!r} for factor "
            f"{recipe.degradation.factor}; check data.modality, data.contrasts and data.train_split"
        )


def _spread(records: list[ScanRecord], count: int) -> list[ScanRecord]:
    """Pick ``count`` records evenly, so that neighbours in the manifest do not crowd out others."""
    if len(records) <= count:
        return records
    step = (len(records) - 1) / max(1, count - 1)
    return [records[round(i * step)] for i in range(count)]

"""The scans of a training run, prepared in memory, split by patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medsr.data.manifest import ScanRecord, read_manifest
from medsr.data.transforms import PreparedScan, prepare_scan
from medsr.errors import CohortError
from medsr.model import Intensity
from medsr.recipe import Recipe


@dataclass(frozen=True)
class Cohort:
    """Prepared scans.

    Attributes:
        intensity: How they were normalised.
        train: One entry per training scan and slice axis.
        validation: One entry per validation scan.
    """

    intensity: Intensity
    train: tuple[PreparedScan, ...]
    validation: tuple[PreparedScan, ...]


def load_cohort(recipe: Recipe) -> Cohort:
    """Read the manifest, check its splits, and prepare the scans that the recipe names.

    Raises:
        CohortError: A patient stands in two splits, or there is nothing to learn from.
    """
    data, factor = recipe.data, recipe.degradation.factor
    records = read_manifest(data.manifest)
    intensity = Intensity.for_modality(data.modality)

    def prepared(split: str) -> list[tuple[PreparedScan, ...]]:
        chosen = [r for r in records if r.split == split and r.modality == data.modality]
        entries = (prepare_scan(r, intensity, factor) for r in chosen)
        return [entry for entry in entries if entry]

    train = prepared(data.train_split)
    if not train:
        raise CohortError(
            f"the manifest holds no {data.modality} scan in split {data.train_split!r} "
            f"for factor {factor}; check data.modality and data.train_split"
        )
    validation = load_validation(recipe, records)
    return Cohort(intensity, tuple(s for entry in train for s in entry), validation)


def load_validation(recipe: Recipe, records: Sequence[ScanRecord]) -> tuple[PreparedScan, ...]:
    """Prepare the validation scans that the recipe names, each along one of its sharp axes.

    Args:
        recipe: Split, number of scans and factor.
        records: Rows of the manifest.
    """
    data, factor = recipe.data, recipe.degradation.factor
    intensity = Intensity.for_modality(data.modality)
    wanted = [r for r in records if (r.split, r.modality) == (data.validation_split, data.modality)]
    validation: list[PreparedScan] = []
    for turn, record in enumerate(_spread(wanted, data.validation_scans)):
        entries = prepare_scan(record, intensity, factor)
        if entries:
            validation.append(entries[turn % len(entries)])
    return tuple(validation)


def _spread(records: list[ScanRecord], count: int) -> list[ScanRecord]:
    """Pick ``count`` records evenly, so that neighbours in the manifest do not crowd out others."""
    if len(records) <= count:
        return records
    step = (len(records) - 1) / max(1, count - 1)
    return [records[round(i * step)] for i in range(count)]

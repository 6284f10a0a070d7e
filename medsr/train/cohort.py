"""The scans of a training run, prepared in memory, split by patient."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from medsr.data.cohort import read_cohort
from medsr.data.manifest import ScanRecord, require_files
from medsr.data.reading import names_of
from medsr.data.transforms import PreparedScan, prepare_scan, slice_axes
from medsr.errors import CohortError
from medsr.model import Intensity
from medsr.recipe import Recipe
from medsr.train.validate import holds_body

logger = logging.getLogger(__name__)


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
        InputError: A scan cannot be used; the message names it.
    """
    data, factor = recipe.data, recipe.degradation.factor
    records: tuple[ScanRecord, ...] = ()
    if data.manifest is not None:
        records = read_cohort(data.manifest, split=data.train_split)
        require_files(data.manifest, (r for r in records if r.split == data.validation_split))
    train: list[PreparedScan] = []
    if data.synthetic is None:
        for record in _wanted(records, recipe, data.train_split):
            train += prepare_scan(record, Intensity.for_modality(record.modality), factor)
        _check(train, recipe)
        blank = [scan.scan_id for scan in train if not len(scan.sample["body_fg"])]
        if blank:
            logger.warning("no voxel of a body is in scans %s", names_of(blank))
    return Cohort(
        Intensity.for_modality(data.modalities[0]), tuple(train), load_validation(recipe, records)
    )


def load_validation(recipe: Recipe, records: Sequence[ScanRecord]) -> tuple[PreparedScan, ...]:
    """Prepare the validation scans that the recipe names, each along one of its sharp axes.

    Args:
        recipe: Split, number of scans and factor.
        records: Rows of the manifest.

    Raises:
        InputError: A scan cannot be used; the message names it.
    """
    data, factor = recipe.data, recipe.degradation.factor
    wanted = _wanted(records, recipe, data.validation_split)
    validation: list[PreparedScan] = []
    for turn, record in enumerate(_spread(wanted, data.validation_scans)):
        entries = prepare_scan(record, Intensity.for_modality(record.modality), factor)
        validation.append(entries[turn % len(entries)])
    with_body = tuple(scan for scan in validation if holds_body(scan, recipe))
    if len(with_body) < len(validation):
        there = {id(scan) for scan in with_body}
        logger.warning(
            "not validated on, as their centres are smaller than the factor or hold no voxel of "
            "the body: scans %s",
            names_of(scan.scan_id for scan in validation if id(scan) not in there),
        )
    return with_body


def _wanted(records: Sequence[ScanRecord], recipe: Recipe, split: str | None) -> list[ScanRecord]:
    """The scans of a split that the recipe takes and that are sharp along the axes it needs."""
    data, factor = recipe.data, recipe.degradation.factor
    taken = [r for r in records if r.split == split and data.takes(r.modality, r.contrast)]
    sharp = [r for r in taken if slice_axes(r, factor)]
    if len(sharp) < len(taken):
        logger.info(
            "split %s: %d of %d scans are not sharp along all axes, as factor %s needs, and are "
            "left out",
            split,
            len(taken) - len(sharp),
            len(taken),
            " x ".join(str(f) for f in factor),
        )
    return sharp


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

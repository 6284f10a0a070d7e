"""Adapting a trained model to a scanner: low-rank adapters, a handful of scans, a held-out check.

The recipe is made from what the model's spec says of its own training, and run by
:mod:`medsr.train.loop`; afterwards model and adapted model are compared on scans of patients that
were not learnt from. The adapters themselves are in ``medsr.networks.adapters``.
"""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import TypeAdapter, ValidationError

from medsr.data.cohort import read_cohort
from medsr.data.manifest import ScanRecord, require_files
from medsr.data.transforms import slice_axes
from medsr.errors import CohortError, OutOfScopeError, OutputExistsError
from medsr.infer.engine.device import resolve_device
from medsr.io.atomic import atomic_file
from medsr.model import Intensity, ModelSpec, SRModel
from medsr.recipe import (
    AdapterRecipe,
    DataRecipe,
    DegradationRecipe,
    LoopRecipe,
    NetworkRecipe,
    OptimiserRecipe,
    PatchRecipe,
    Recipe,
    SimulationRecipe,
    WeightedTerm,
    at_key,
    with_overrides,
)
from medsr.spec import SPEC_FILE
from medsr.train.assistants import MODEL_FOLDER
from medsr.train.cohort import load_validation
from medsr.train.loop import prepare_folder, run
from medsr.train.source import simulations
from medsr.train.validate import validate

logger = logging.getLogger(__name__)

STEPS = 300
MANIFEST_FILE = "cohort.csv"
KEPT_BACK = "kept-back"
"""Split of the patient who is kept back where the manifest has no split to check on."""
FIRST_CHOICE = ("dev", "validation", "val")
"""Splits to check on, where several are there."""
ENOUGH_PATIENTS = 3
"""From so many patients on, one is kept back; of two, neither can be spared."""
CHECKED_SCANS = 8
EPSILON = {"MR": 0.05, "CT": 0.02}
"""Where the Charbonnier loss turns from square to absolute, in normalised intensities."""


@dataclass(frozen=True)
class HeldOut:
    """Scans of patients that were not learnt from, before and after.

    Attributes:
        before: PSNR of the model, dB, one value a scan.
        after: PSNR of the adapted model, dB, in the same order.

    Examples:
        >>> from medsr.train.adapt import HeldOut
        >>> check = HeldOut(before=(34.0, 35.0), after=(34.5, 35.25))  # dB, two scans
        >>> check.gain, check.better
        (0.375, 2)
    """

    before: tuple[float, ...]
    after: tuple[float, ...]

    @property
    def gain(self) -> float:
        """Mean change of the PSNR, dB."""
        return fmean(a - b for a, b in zip(self.after, self.before, strict=True))

    @property
    def better(self) -> int:
        """Scans whose PSNR rose."""
        return sum(a > b for a, b in zip(self.after, self.before, strict=True))


@dataclass(frozen=True)
class Adapted:
    """What an adaptation gave.

    Attributes:
        folder: Folder of the adapted model.
        spec: Its spec.
        held_out: The check; None where there was nothing to check on.

    Examples:
        >>> from pathlib import Path
        >>> from medsr import ModelSpec, zoo
        >>> from medsr.train.adapt import Adapted, HeldOut
        >>> check = HeldOut(before=(34.0, 35.0), after=(34.5, 35.25))
        >>> found = Adapted(Path("runs/ours/model"), ModelSpec.read(zoo.path("mr-z4")), check)
        >>> found.held_out.gain > 0  # otherwise the shipped model is the better one
        True
    """

    folder: Path
    spec: ModelSpec
    held_out: HeldOut | None


def adapt(
    model: str | Path,
    cohort: str | Path,
    overrides: Sequence[str] = (),
    *,
    split: str = "train",
    held_out: str | None = None,
    out: str | Path | None = None,
    rank: int = 4,
    steps: int = STEPS,
    seed: int = 0,
    resume: bool = True,
    device: str = "auto",
    quiet: bool = False,
) -> Adapted:
    r"""Adapt a model to the scans of a cohort; the model itself is left as it is.

    Args:
        model: Name of a shipped model, or a model folder.
        cohort: Manifest or lock file of sharp scans from the scanner.
        overrides: ``key=value`` changes of the recipe, such as ``patches.batch=2``.
        split: Split to learn from.
        held_out: Split to check on; by default ``dev``, ``validation`` or ``val``, else another
            split, else one patient of ``split`` is kept back where it has three or more.
        out: Run folder; by default ``runs/NAME-adapted``.
        rank: Rank of the adapters, from 1.
        steps: Optimiser steps.
        seed: Seed of initialisation, data order and noise.
        resume: Go on from the run folder's checkpoint; otherwise start again.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        quiet: No progress bar.

    Returns:
        The adapted model's folder and spec, and how it did on held-out scans.

    Raises:
        CohortError: The manifest is wrong, or has no scan to learn from or to check on.
        ModelError: The model is unknown, damaged, or normalises in a way of its own.
        OutputExistsError: The run would overwrite the model it starts from.
        RecipeError: An override, the rank or the number of steps is wrong.
        CheckpointError: The run folder holds a checkpoint of another recipe.
        Interrupted: Ctrl-C; the checkpoint of the last finished step is kept.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> import medsr
        >>> from medsr.train.adapt import adapt
        >>> rng = np.random.default_rng(0)
        >>> tiny = ["patches.size=[6,6,4]", "patches.batch=1", "data.validation_size=[16,16,16]"]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     rows = ["path,split,patient_id,modality"]
        ...     for name, split in (("p1", "train"), ("p2", "dev")):
        ...         data = rng.uniform(0, 900, (40, 40, 64)).astype(np.float32)
        ...         scan = medsr.Volume(data, medsr.Geometry(data.shape, np.eye(4)), "MR")
        ...         _ = medsr.save(scan, Path(folder, f"{name}.nii.gz"))
        ...         rows.append(f"{name}.nii.gz,{split},{name},MR")
        ...     manifest = Path(folder, "cohort.csv")
        ...     _ = manifest.write_text("\n".join(rows))
        ...     out = Path(folder, "run")
        ...     found = adapt("mr-z4", manifest, tiny, steps=1, out=out, device="cpu", quiet=True)
        >>> found.spec.name, len(found.held_out.after)
        ('mr-z4-adapted', 1)
    """
    base = SRModel.load(model, device=resolve_device(device))
    recipe = _recipe(base.spec, str(model), str(cohort), split, rank=rank, steps=steps, seed=seed)
    recipe = with_overrides(recipe, overrides)
    folder = Path(out) if out is not None else Path("runs") / recipe.name
    if (folder / MODEL_FOLDER).resolve() == Path(model).resolve():
        raise OutputExistsError(
            f"{folder}: the adapted model would replace the one that it starts from; "
            "choose another --out"
        )
    simulations(recipe)
    listed = read_cohort(cohort, check_files=False)
    check, records = _choose_held_out(listed, recipe, held_out)
    require_files(cohort, (r for r in records if r.split in (split, check)))
    recipe = replace(recipe, data=replace(recipe.data, validation_split=check))
    if check == KEPT_BACK:
        prepare_folder(folder, keep=resume)
        _write_manifest(records, folder / MANIFEST_FILE)
        data = replace(recipe.data, manifest=str(folder / MANIFEST_FILE))
        recipe = replace(recipe, data=data)
    written = run(recipe, out=folder, resume=resume, device=device, quiet=quiet)
    adapted = SRModel.load(written, device=resolve_device(device))
    result = _compare(base, adapted, recipe, records) if check is not None else None
    spec = _with_result(adapted.spec, base.spec.name, result)
    with atomic_file(written / SPEC_FILE, overwrite=True) as temporary:
        temporary.write_text(spec.to_json(), encoding="utf-8")
    return Adapted(written, spec, result)


def _recipe(
    spec: ModelSpec, start: str, manifest: str, split: str, *, rank: int, steps: int, seed: int
) -> Recipe:
    """The recipe of an adaptation: the model's own simulation and patches, gentle steps."""
    if spec.intensity != Intensity.for_modality(spec.modality):
        raise OutOfScopeError(
            f"model {spec.name}: its intensities are normalised in a way that training does not "
            "know; only models that medsr train or distill made can be adapted"
        )
    told = spec.trained_degradation
    own = {k: v for k, v in told.items() if k not in ("kind", "factor", "by_modality")}
    others = {
        name: SimulationRecipe(other["kind"], {k: v for k, v in other.items() if k != "kind"})
        for name, other in told.get("by_modality", {}).items()
    }
    with at_key("(command line)"):
        adapters = AdapterRecipe(rank=rank)
        loop = LoopRecipe(steps=steps, validate_every=steps, checkpoint_every=50, log_every=10)
    return Recipe(
        name=f"{spec.name}-adapted",
        role=spec.role,
        seed=seed,
        data=DataRecipe(manifest, spec.modality, train_split=split, validation_scans=CHECKED_SCANS),
        degradation=DegradationRecipe(str(told.get("kind")), spec.scale, own, others),
        network=NetworkRecipe(spec.network, spec.options, start, adapters),
        losses=(WeightedTerm("charbonnier", options={"epsilon": EPSILON[spec.modality]}),),
        patches=_patches(spec.training),
        optimiser=OptimiserRecipe(warmup_steps=min(20, steps // 5), weight_decay=0.01),
        loop=loop,
    )


def _patches(training: Mapping[str, Any]) -> PatchRecipe:
    """The patches that the model was trained on, or those of this version where none are told."""
    told = training.get("recipe", {})
    try:
        return TypeAdapter(PatchRecipe).validate_python(told.get("patches", {}))
    except (ValidationError, AttributeError):
        return PatchRecipe()


def _choose_held_out(
    records: Sequence[ScanRecord], recipe: Recipe, wanted: str | None
) -> tuple[str | None, list[ScanRecord]]:
    """Choose the split to check on; return it and the records, one patient moved where needed."""
    data = recipe.data
    usable = [
        r
        for r in records
        if r.modality == data.modality and slice_axes(r, recipe.degradation.factor)
    ]
    others = dict.fromkeys(r.split for r in usable if r.split != data.train_split)
    if wanted is not None:
        if wanted not in others:
            raise CohortError(
                f"no {data.modality} scan that could be checked on is in split {wanted!r}, apart "
                f"from those learnt from; there is {', '.join(others) or 'none elsewhere'}"
            )
        return wanted, list(records)
    if others:
        preferred = [s for s in others if s.lower() in FIRST_CHOICE]
        return (preferred or [*others])[0], list(records)
    patients = list(dict.fromkeys(r.patient_id for r in usable if r.split == data.train_split))
    if len(patients) < ENOUGH_PATIENTS:
        logger.warning(
            "the cohort has no split to check on and fewer than %d patients, so nobody will know "
            "whether the adapted model is any better; add scans of another patient as split dev",
            ENOUGH_PATIENTS,
        )
        return None, list(records)
    logger.info("no split to check on: the last patient of %s is kept back", data.train_split)
    moved = [replace(r, split=KEPT_BACK) if r.patient_id == patients[-1] else r for r in records]
    return KEPT_BACK, moved


def _write_manifest(records: Sequence[ScanRecord], path: Path) -> None:
    """Write the columns of a manifest that training reads."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    columns = ("path", "split", "patient_id", "modality", "contrast", "sharp_axes", "region")
    writer.writerow(columns)
    writer.writerows([getattr(record, name) for name in columns] for record in records)
    with atomic_file(path, overwrite=True) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def _compare(
    base: SRModel, adapted: SRModel, recipe: Recipe, records: Sequence[ScanRecord]
) -> HeldOut | None:
    """Score both models on the centres of the held-out scans, each scan for itself."""
    degradations = simulations(recipe)
    before, after = [], []
    for scan in load_validation(recipe, records):
        scores = [
            validate(model.module, [scan], degradations, recipe).get("validation/psnr")
            for model in (base, adapted)
        ]
        if scores[0] is not None and scores[1] is not None:
            before.append(scores[0])
            after.append(scores[1])
    if not before:
        logger.warning("no held-out scan could be scored: none holds any voxel of the body")
        return None
    return HeldOut(tuple(before), tuple(after))


def _with_result(spec: ModelSpec, base: str, result: HeldOut | None) -> ModelSpec:
    """The spec, which now tells what the check showed."""
    number = len(spec.training["scans"])
    text = f"{base} adapted by low-rank adapters to {number} scan{'s' * (number > 1)}; "
    if result is None:
        return replace(spec, description=f"{text}never checked on held-out scans.")
    text += "" if result.gain > 0 else f"no better than {base}: "
    text += f"{result.gain:+.2f} dB on {len(result.before)} held-out."
    check = {
        "scans": len(result.before),
        "better": result.better,
        "psnr_before": round(fmean(result.before), 4),
        "psnr_after": round(fmean(result.after), 4),
        "psnr_gain": round(result.gain, 4),
    }
    return replace(spec, training={**spec.training, "held_out": check}, description=text)

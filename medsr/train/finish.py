"""What a finished run leaves behind: the model folder with weights and spec."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import torch

from medsr import zoo
from medsr._version import __version__
from medsr.degrade.slices import Slices
from medsr.errors import ModelError
from medsr.intensity import Intensity
from medsr.model import ModelSpec, SpacingRange, SRModel
from medsr.networks import SRNetwork
from medsr.networks.dam import DAM3D
from medsr.patients import TrainingPatients
from medsr.recipe import Recipe
from medsr.train.cohort import Cohort
from medsr.train.source import simulations

PAIR_FOLDER = "pair"


def save_model(network: SRNetwork, recipe: Recipe, cohort: Cohort, folder: Path) -> SRModel:
    """Write weights and spec of a trained network.

    Students are stored in float32, teachers in half precision. Of a pair
    (:class:`medsr.networks.DAM3D`) that was trained for its student the student is written, and the
    pair is left beside it, in ``pair``. The spec of a network that low-rank adapters changed says
    which model it was before.

    Args:
        network: Merged network.
        recipe: The recipe that made it.
        cohort: The scans it learnt from; their spacings become the spec's range.
        folder: Model folder.
    """
    factor = recipe.degradation.factor
    in_plane = [
        s * f for scan in cohort.train for s, f in zip(scan.spacing_mm[:2], factor, strict=False)
    ]
    through = [scan.spacing_mm[2] * f for scan in cohort.train for f in _distances(recipe)]
    if not cohort.train:
        # Without scans of its own a model knows of spacings what its teachers know.
        for name in (recipe.teacher, *recipe.teachers):
            if name is not None:
                taught = ModelSpec.read(zoo.resolve(name)).trained_spacing_mm
                in_plane += taught.in_plane
                through += taught.slice
    training = {
        "recipe": recipe.to_dict(),
        "scans": sorted({scan.scan_id for scan in cohort.train}),
        "patients": len({scan.patient_id for scan in cohort.train}),
    }
    if recipe.network.start is not None and recipe.network.adapters is not None:
        base = SRModel.load(recipe.network.start)
        training["adapted_from"] = _origin(base, recipe.network.adapters.rank)
        # The adapters leave the base's weights as they are, so its scans count as learnt from too.
        in_plane += base.spec.trained_spacing_mm.in_plane
        through += base.spec.trained_spacing_mm.slice
    spec = ModelSpec(
        name=recipe.name,
        version=__version__,
        network=recipe.network.name,
        options=network.merged_options(recipe.network.options),
        scale=factor,
        modality=recipe.data.modalities[0],
        role=recipe.role,
        intensity=cohort.intensity,
        halo=network.halo,
        multiple_of=network.multiple_of,
        trained_spacing_mm=SpacingRange(
            in_plane=(round(min(in_plane), 3), round(max(in_plane), 3)),
            slice=(round(min(through), 3), round(max(through), 3)),
        ),
        trained_degradation=_degradation(recipe),
        parameters=sum(p.numel() for p in network.parameters()),
        training=training,
        description=recipe.description,
        other_modalities={
            name: Intensity.for_modality(name) for name in recipe.data.modalities[1:]
        },
        training_patients=training_patients(recipe, cohort),
        trained_regions=_seen(recipe, cohort, "region"),
        trained_contrasts=_seen(recipe, cohort, "contrast"),
    )
    if isinstance(network, DAM3D) and recipe.role == "student":
        pair = replace(spec, name=f"{spec.name}-pair", role="teacher")
        SRModel(network, pair).save(folder.parent / PAIR_FOLDER, dtype=torch.float16)
        spec, network = _of_student(network, spec), network.student()
    model = SRModel(network, spec)
    model.save(folder, dtype=torch.float16 if recipe.role == "teacher" else None)
    return model


def training_patients(recipe: Recipe, cohort: Cohort) -> TrainingPatients:
    """Gather the training patients of a run: its own, its teachers' and those of its start.

    Args:
        recipe: Names the teachers and the model that the weights start from.
        cohort: The scans it learns from.
    """
    starts = [recipe.network.start, *(assistant.network.start for assistant in recipe.assistants)]
    named = dict.fromkeys((recipe.teacher, *recipe.teachers, *starts))
    learnt_from: list[tuple[str, TrainingPatients | None]] = []
    for name in filter(None, named):
        try:
            spec = ModelSpec.read(zoo.resolve(name))
        except ModelError:
            # It was there when the run began; a finished training is not thrown away for it.
            learnt_from.append((Path(name).name, None))
        else:
            learnt_from.append((spec.name, spec.training_patients))
    return TrainingPatients.gather((scan.patient_id for scan in cohort.train), learnt_from)


def _seen(recipe: Recipe, cohort: Cohort, what: Literal["region", "contrast"]) -> tuple[str, ...]:
    """Which regions or contrasts a model has seen, itself and before; none where one is not told.

    Args:
        recipe: Names the model that the weights start from, and teachers, whose scans count where
            there are no own ones.
        cohort: The scans it learns from.
        what: What to gather.
    """
    told: list[tuple[str, ...]] = [
        (scan.region if what == "region" else scan.domain.partition("/")[2],)
        for scan in cohort.train
    ]
    teachers = () if cohort.train else (recipe.teacher, *recipe.teachers)
    for name in filter(None, (recipe.network.start, *teachers)):
        try:
            spec = ModelSpec.read(zoo.resolve(name))
        except ModelError:
            return ()
        told.append(spec.trained_regions if what == "region" else spec.trained_contrasts)
    return tuple(sorted({text for texts in told for text in texts})) if _all(told) else ()


def _all(told: list[tuple[str, ...]]) -> bool:
    return all(texts and all(texts) for texts in told)


def outcome(network: SRNetwork, recipe: Recipe) -> SRNetwork:
    """Return what the recipe is after: of a pair the student, unless it asks for a teacher.

    Args:
        network: Merged network.
        recipe: The recipe that made it.
    """
    pair = isinstance(network, DAM3D) and recipe.role == "student"
    return cast("DAM3D", network).student().eval() if pair else network


def _of_student(pair: DAM3D, spec: ModelSpec) -> ModelSpec:
    """The spec of a pair's student, an ordinary plain network."""
    student = pair.student()
    return replace(
        spec,
        network="RepPlain3D",
        options=pair.student_options(),
        halo=student.halo,
        multiple_of=student.multiple_of,
        parameters=sum(p.numel() for p in student.parameters()),
    )


def _distances(recipe: Recipe) -> tuple[float, ...]:
    """Fine voxels from slice to slice: the factor, or the least and the most of any kind."""
    own = simulations(recipe)[recipe.data.modalities[0]]
    if isinstance(own, Slices) and recipe.network.name == "KnotPlain3D":
        return own.ratio
    return (float(recipe.degradation.factor[2]),)


def _degradation(recipe: Recipe) -> dict[str, Any]:
    """What the spec says of the degradation, and of those that single modalities have."""
    own = recipe.degradation
    plain: dict[str, Any] = {"kind": own.kind, "factor": list(own.factor), **own.options}
    others = {
        name: {"kind": other.kind, **other.options} for name, other in own.by_modality.items()
    }
    return plain | ({"by_modality": others} if others else {})


def _origin(base: SRModel, rank: int) -> dict[str, Any]:
    """What tells the model that was adapted from any other."""
    return {
        "name": base.spec.name,
        "version": base.spec.version,
        "weights_sha256": base.weight_hash,
        "scans": base.spec.training.get("scans", []),
        "rank": rank,
    }

"""What a finished run leaves behind: the model folder with weights and spec."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import medsr
from medsr.model import ModelSpec, SpacingRange, SRModel
from medsr.networks import SRNetwork
from medsr.recipe import Recipe
from medsr.train.cohort import Cohort


def save_model(network: SRNetwork, recipe: Recipe, cohort: Cohort, folder: Path) -> SRModel:
    """Write weights and spec of a trained network.

    Students are stored in float32, teachers in half precision. The spec of a network that low-rank
    adapters changed says which model it was before.

    Args:
        network: Merged network.
        recipe: The recipe that made it.
        cohort: The scans it learnt from; their spacings become the spec's range.
        folder: Model folder.
    """
    factor = recipe.degradation.factor
    spacings = [
        [s * f for s, f in zip(scan.spacing_mm, factor, strict=True)] for scan in cohort.train
    ]
    in_plane = [s for spacing in spacings for s in spacing[:2]]
    through = [spacing[2] for spacing in spacings]
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
        version=medsr.__version__,
        network=recipe.network.name,
        options=network.merged_options(recipe.network.options),
        scale=factor,
        modality=recipe.data.modality,
        role=recipe.role,
        intensity=cohort.intensity,
        halo=network.halo,
        multiple_of=network.multiple_of,
        trained_spacing_mm=SpacingRange(
            in_plane=(round(min(in_plane), 3), round(max(in_plane), 3)),
            slice=(round(min(through), 3), round(max(through), 3)),
        ),
        trained_degradation={
            "kind": recipe.degradation.kind,
            "factor": list(factor),
            **recipe.degradation.options,
        },
        parameters=sum(p.numel() for p in network.parameters()),
        training=training,
        description=recipe.description,
    )
    model = SRModel(network, spec)
    model.save(folder, dtype=torch.float16 if recipe.role == "teacher" else None)
    return model


def _origin(base: SRModel, rank: int) -> dict[str, Any]:
    """What tells the model that was adapted from any other."""
    return {
        "name": base.spec.name,
        "version": base.spec.version,
        "weights_sha256": base.weight_hash,
        "scans": base.spec.training.get("scans", []),
        "rank": rank,
    }

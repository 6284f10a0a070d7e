"""What a finished run leaves behind: the model folder with weights and spec."""

from __future__ import annotations

from pathlib import Path

import torch

import medsr
from medsr.model import ModelSpec, SpacingRange, SRModel
from medsr.networks import SRNetwork
from medsr.recipe import Recipe
from medsr.train.cohort import Cohort


def save_model(network: SRNetwork, recipe: Recipe, cohort: Cohort, folder: Path) -> SRModel:
    """Write weights and spec of a trained network.

    Students are stored in float32, teachers in half precision.

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
        training={
            "recipe": recipe.to_dict(),
            "scans": sorted({scan.scan_id for scan in cohort.train}),
            "patients": len({scan.patient_id for scan in cohort.train}),
        },
        description=recipe.description,
    )
    model = SRModel(network, spec)
    model.save(folder, dtype=torch.float16 if recipe.role == "teacher" else None)
    return model

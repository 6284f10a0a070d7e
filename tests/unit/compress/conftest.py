"""Models with random weights, large enough that what they add to the scan shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from medsr.model import Intensity, ModelSpec, SpacingRange, SRModel
from medsr.networks import build_network


def _model(network: str = "RepPlain3D", **options: Any) -> SRModel:
    torch.manual_seed(3)
    module = build_network(network, (1, 1, 2), **options)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    spec = ModelSpec(
        name="tiny",
        version="1",
        network=network,
        options=module.merged_options(options),
        scale=(1, 1, 2),
        modality="MR",
        role="student",
        intensity=Intensity.for_modality("MR"),
        halo=module.halo,
        multiple_of=module.multiple_of,
        trained_spacing_mm=SpacingRange((0.5, 1.5), (1.0, 4.0)),
        trained_degradation={"kind": "slice_profile", "factor": [1, 1, 2], "thickness": 1.0},
        parameters=sum(p.numel() for p in module.merged().parameters()),
        training={"steps": 1},
        description="random weights",
    )
    return SRModel(module.merged().eval().requires_grad_(False), spec)


@pytest.fixture(scope="session")
def make_model() -> Callable[..., SRModel]:
    """Build a merged random model of a network and its options, for factor (1, 1, 2)."""
    return _model

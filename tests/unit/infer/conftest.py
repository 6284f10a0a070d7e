"""Specs and models with random weights, for what must work whatever ships."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from medsr.model import Intensity, ModelSpec, SpacingRange, SRModel
from medsr.networks import build_network


def _spec(name: str = "mr-z4", **changes: Any) -> ModelSpec:
    values: dict[str, Any] = {
        "name": name,
        "version": "0",
        "network": "RepPlain3D",
        "options": {"width": 16, "depth": 1},
        "scale": (1, 1, 4),
        "modality": "MR",
        "role": "student",
        "intensity": Intensity.for_modality(changes.get("modality", "MR")),
        "halo": (3, 3, 3),
        "multiple_of": (1, 1, 1),
        "trained_spacing_mm": SpacingRange((0.6, 1.2), (2.4, 4.8)),
        "trained_degradation": {"kind": "slice_profile"},
        "parameters": 1000,
        "training": {},
        "description": "random weights",
    }
    return ModelSpec(**{**values, **changes})


def _model(detail: float = 0.01, **changes: Any) -> SRModel:
    spec = _spec(**changes)
    torch.manual_seed(5)
    network = build_network(spec.network, spec.scale, **spec.options)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(detail * torch.randn_like(parameter))
    return SRModel(network, spec)


@pytest.fixture
def make_spec() -> Callable[..., ModelSpec]:
    """Build a spec of a through-plane MR student; keywords change its fields."""
    return _spec


@pytest.fixture
def make_model() -> Callable[..., SRModel]:
    """Build a small random model; ``detail`` scales what it adds, other keywords as above."""
    return _model

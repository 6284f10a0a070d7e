"""SRResNet's batch normalisation: it learns, it is local in use, and it merges away exactly."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from medsr.errors import ModelError
from medsr.model import Intensity, ModelSpec, SpacingRange, SRModel
from medsr.networks import SRResNet3D, build_network

OPTIONS = {"width": 16, "blocks": 2}


def trained() -> SRResNet3D:
    """A network after a few steps, with statistics of its own."""
    torch.manual_seed(0)
    network = SRResNet3D((1, 1, 2), **OPTIONS).train()
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(4):
        lr, hr = torch.rand(2, 1, 6, 5, 4), torch.rand(2, 1, 6, 5, 8)
        optimiser.zero_grad()
        (network(lr) - hr).square().mean().backward()
        optimiser.step()
    return network


def test_merged_network_equals_the_trained_one_in_evaluation_alone() -> None:
    network = trained()
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm3d)]
    assert len(norms) == 5
    assert all(norm.running_mean.abs().max() > 1e-3 for norm in norms)  # type: ignore[union-attr]
    lr = torch.rand(1, 1, 7, 4, 3)
    with torch.no_grad():
        by_batch = network(lr)  # moves the statistics, so merging comes after it
        merged = network.eval().merged()
        assert not any(isinstance(m, nn.BatchNorm3d) for m in merged.modules())
        torch.testing.assert_close(merged(lr), network(lr), rtol=0, atol=1e-5)
        assert (merged(lr) - by_batch).abs().max() > 1e-3


def test_a_shift_of_the_batch_does_not_change_the_output_in_evaluation() -> None:
    network = trained().eval()
    dark, bright = torch.rand(1, 1, 5, 4, 3), 40 + torch.rand(1, 1, 5, 4, 3)
    with torch.no_grad():
        together = network(torch.cat([dark, bright]))
        torch.testing.assert_close(together[:1], network(dark), rtol=0, atol=1e-5)


def test_merged_model_is_saved_and_loaded_by_its_own_options(tmp_path: Path) -> None:
    merged = trained().merged().eval()
    options = merged.merged_options(OPTIONS)
    assert options == {**OPTIONS, "norm": False}
    spec = ModelSpec(
        name="mr-z2",
        version="1.0",
        network="SRResNet3D",
        options=options,
        scale=(1, 1, 2),
        modality="MR",
        role="teacher",
        intensity=Intensity.for_modality("MR"),
        halo=merged.halo,
        multiple_of=merged.multiple_of,
        trained_spacing_mm=SpacingRange((0.6, 1.2), (1.2, 2.4)),
        trained_degradation={"kind": "slice_profile"},
        parameters=sum(p.numel() for p in merged.parameters()),
        training={},
        description="for tests",
    )
    loaded = SRModel.load(SRModel(merged, spec).save(tmp_path / "model")).module
    lr = torch.rand(1, 1, 5, 4, 3)
    with torch.no_grad():
        assert torch.equal(loaded(lr), merged(lr))


def test_merging_twice_changes_nothing_more() -> None:
    merged = trained().merged()
    assert merged.merged() is merged


def test_no_blocks_are_refused() -> None:
    with pytest.raises(ModelError, match="blocks is 0"):
        build_network("SRResNet3D", (1, 1, 2), blocks=0)

"""Pruning gives ordinary narrower models, and takes out what matters least."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from medsr.compress import prune
from medsr.errors import MissingExtraError, ModelError, UsageError
from medsr.model import SRModel

MakeModel = Callable[..., SRModel]

needs_library = pytest.mark.skipif(
    find_spec("torch_pruning") is None,
    reason="needs torch-pruning (extra 'compress')",
)


@needs_library
@pytest.mark.parametrize(
    ("network", "options", "expected"),
    [
        ("RepPlain3D", {"width": 48, "depth": 2}, {"width": 32}),
        ("RepPlain3D", {"width": 32, "depth": 1, "fold": (2, 1, 1)}, {"width": 16}),
        ("ResNet3D", {"width": 32, "blocks": 2}, {"width": 16}),
        ("RRDBNet3D", {"width": 32, "growth": 16, "blocks": 1}, {"width": 16, "growth": 16}),
    ],
)
def test_the_result_is_an_ordinary_model(
    make_model: MakeModel,
    tmp_path: Path,
    network: str,
    options: dict[str, Any],
    expected: dict[str, int],
) -> None:
    model = make_model(network, **options)
    before = {key: value.clone() for key, value in model.module.state_dict().items()}
    pruned = prune(model, width=expected["width"])
    assert expected.items() <= pruned.spec.options.items()
    assert pruned.spec.name == f"tiny-w{expected['width']}"
    assert pruned.spec.parameters == sum(p.numel() for p in pruned.module.parameters())
    assert pruned.spec.parameters < 0.7 * model.spec.parameters
    loaded = SRModel.load(pruned.save(tmp_path / "pruned"))
    lr = torch.rand(1, 1, 6, 5, 4)
    assert torch.equal(loaded.module(lr), pruned.module(lr))
    assert loaded.spec.training["pruned"]["weights_sha256"] == model.weight_hash
    after = model.module.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert not any(p.requires_grad for p in model.module.parameters())


@needs_library
def test_growth_is_pruned_where_asked(make_model: MakeModel) -> None:
    model = make_model("RRDBNet3D", width=32, growth=32, blocks=1)
    pruned = prune(model, width=16, options={"growth": 16})
    assert pruned.spec.options == {"width": 16, "growth": 16, "blocks": 1}


@needs_library
@pytest.mark.parametrize("taylor", [False, True])
def test_dead_channels_go_first_and_nothing_changes(make_model: MakeModel, taylor: bool) -> None:
    model = make_model("RepPlain3D", width=32, depth=2)
    dead = torch.arange(1, 32, 2)
    network = model.module
    with torch.no_grad():
        for layer in (network.head, *network.body):
            layer.weight[dead] = 0
            layer.bias[dead] = 0
        for layer in (*network.body, network.tail):
            layer.weight[:, dead] = 0
    lr = torch.rand(2, 1, 7, 6, 5)
    pairs = [(lr, torch.rand(2, 1, 7, 6, 10))] if taylor else []
    pruned = prune(model, width=16, pairs=pairs)
    torch.testing.assert_close(pruned.module(lr), network(lr), rtol=1e-5, atol=1e-6)


@needs_library
def test_residual_channels_stay_aligned(make_model: MakeModel) -> None:
    model = make_model("ResNet3D", width=32, blocks=2)
    network = model.module
    dead = torch.arange(0, 32, 2)
    with torch.no_grad():
        for layer in (network.head, network.fuse, *(block.second for block in network.body)):
            layer.weight[dead] = 0
            layer.bias[dead] = 0
        for layer in (network.fuse, network.tail, *(block.first for block in network.body)):
            layer.weight[:, dead] = 0
        for block in network.body:  # and the channels within each block
            block.first.weight[dead] = 0
            block.first.bias[dead] = 0
            block.second.weight[:, dead] = 0
    lr = torch.rand(1, 1, 7, 6, 5)
    pruned = prune(model, ratio=0.5)
    torch.testing.assert_close(pruned.module(lr), network(lr), rtol=1e-5, atol=1e-6)


@needs_library
def test_a_pruned_model_can_be_trained_on(make_model: MakeModel, tmp_path: Path) -> None:
    from medsr.networks import build_network
    from medsr.train.objective import warm_start

    pruned = prune(make_model("RepPlain3D", width=32, depth=2), width=16)
    folder = pruned.save(tmp_path / "pruned")
    student = build_network("RepPlain3D", (1, 1, 2), width=16, depth=2, branches=["identity"])
    warm_start(student, str(folder))
    lr = torch.rand(1, 1, 6, 5, 4)
    torch.testing.assert_close(student(lr), pruned.module(lr), rtol=1e-5, atol=1e-6)


@needs_library
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either width or ratio"),
        ({"width": 16, "ratio": 0.5}, "either width or ratio"),
        ({"width": 32}, "cannot be pruned to 32"),
        ({"width": 20}, "multiple of 16"),
        ({"ratio": 1.5}, "between 0 and 1"),
    ],
)
def test_widths_that_make_no_sense_are_refused(
    make_model: MakeModel, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        prune(make_model("RepPlain3D", width=32, depth=1), **arguments)


@needs_library
def test_unknown_options_are_refused(make_model: MakeModel) -> None:
    with pytest.raises(ModelError, match="growth"):
        prune(make_model("RepPlain3D", width=32, depth=1), width=16, options={"growth": 16})


def test_a_missing_library_names_the_extra(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(MissingExtraError, match=r"medsr\[compress\]"):
        prune(make_model("RepPlain3D", width=32, depth=1), width=16)

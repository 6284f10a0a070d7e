"""Validation: figures that can be told beforehand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from medsr.data.manifest import ScanRecord
from medsr.data.transforms import PreparedScan
from medsr.degrade import SliceProfile
from medsr.networks import RepPlain3D
from medsr.recipe import Recipe
from medsr.train.cohort import _spread
from medsr.train.validate import centre, validate


def scan(value: float = 1.0) -> PreparedScan:
    image = value * torch.rand(1, 13, 12, 11, generator=torch.Generator().manual_seed(1))
    return PreparedScan({"image": image}, "someone", "scan", 2, (1.0, 1.0, 1.0), 1, 0.08)


def test_an_untrained_network_gains_nothing_over_its_own_interpolation(
    make_recipe: Callable[..., Recipe],
) -> None:
    # Its last layer is zero, so that it returns the linear interpolation that it starts from.
    network = RepPlain3D((1, 1, 2), width=16, depth=1, interpolation="linear").merged().eval()
    recipe = make_recipe(loop={"precision": "fp32"})
    scores = validate(network, [scan(), scan(0.7)], SliceProfile((1, 1, 2)), recipe)
    assert scores.keys() == {"validation/psnr", "validation/gain"}
    assert scores["validation/gain"] == pytest.approx(0, abs=1e-3)
    assert 5 < scores["validation/psnr"] < 30


def test_scans_without_body_are_left_out(make_recipe: Callable[..., Recipe]) -> None:
    network = RepPlain3D((1, 1, 2), width=16, depth=1).merged().eval()
    recipe = make_recipe(loop={"precision": "fp32"})
    assert validate(network, [scan(0.0)], SliceProfile((1, 1, 2)), recipe) == {}
    assert validate(network, [], SliceProfile((1, 1, 2)), recipe) == {}


def test_the_centre_is_cut_to_multiples_of_the_factor() -> None:
    image = torch.arange(13.0 * 12 * 11).reshape(1, 13, 12, 11)
    assert torch.equal(centre(image, (5, 100, 9), (1, 1, 2)), image[:, 4:9, :, 1:9])


def test_scans_are_picked_evenly() -> None:
    records = [ScanRecord(Path(f"{n}.nii"), "dev", f"p{n}", "MR") for n in range(10)]
    assert [r.patient_id for r in _spread(records, 4)] == ["p0", "p3", "p6", "p9"]
    assert _spread(records, 1) == records[:1]
    assert _spread(records, 10) == _spread(records, 99) == records

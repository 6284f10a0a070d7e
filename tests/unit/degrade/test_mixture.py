"""A mixture is one of its parts at a time, drawn by their shares."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from medsr.degrade import Mixture, MixtureParams, Separable, build_degradation
from medsr.errors import UsageError

FACTOR = (1, 1, 4)
PARTS: list[dict[str, Any]] = [
    {"kind": "slice_profile", "thickness": [0.9, 1.1], "share": 3},
    {"kind": "ct_slab", "noise": 0.1},
    {"kind": "kspace", "share": 0.5, "reach": 2},
]


def mixture(parts: list[dict[str, Any]] = PARTS) -> Mixture:
    built = build_degradation("mixture", FACTOR, of=parts)
    assert isinstance(built, Mixture)
    return built


def part(number: int) -> Any:
    options = {k: v for k, v in PARTS[number].items() if k != "share"}
    return build_degradation(options.pop("kind"), FACTOR, **options)


def test_parts_are_drawn_by_their_shares() -> None:
    generator = torch.Generator().manual_seed(1)
    drawn = [mixture().sample(generator) for _ in range(4000)]
    seen = Counter(params.part for params in drawn)
    for number, share in enumerate((3, 1, 0.5)):
        assert seen[number] / 4000 == pytest.approx(share / 4.5, abs=0.03)
    assert all(0.9 <= p.params.thickness <= 1.1 for p in drawn if p.part == 0)
    assert {p.sigma for p in drawn if p.part == 1} == {0.1}


@pytest.mark.parametrize("number", range(3))
def test_it_does_what_the_drawn_part_does(number: int) -> None:
    own = part(number)
    params = own.sample(torch.Generator().manual_seed(5))
    hr = torch.rand((1, 6, 5, 32), generator=torch.Generator().manual_seed(0))
    assert torch.equal(mixture().apply(hr, MixtureParams(number, params)), own.apply(hr, params))
    for ours, theirs in zip(
        mixture().operators((6, 5, 32), (6, 5, 8), MixtureParams(number, params)),
        own.operators((6, 5, 32), (6, 5, 8), params),
        strict=True,
    ):
        assert ours is theirs is None or torch.equal(ours, theirs)


def test_the_first_part_is_the_nominal_one() -> None:
    assert mixture().nominal() == MixtureParams(0, part(0).nominal())
    assert mixture().nominal().sigma == 0.0


def test_patches_get_the_largest_margin_and_the_parts_for_patches() -> None:
    assert mixture().margin == (0, 0, max(part(n).margin[2] for n in range(3)))
    crop = mixture().for_patches().parts[2]
    assert getattr(crop, "mirror", False)
    assert crop.margin == (0, 0, 8)
    assert not getattr(mixture().parts[2], "mirror", True)


def test_a_part_without_matrices_is_named() -> None:
    class Blur:
        factor, margin = FACTOR, (0, 0, 0)

    blurred = mixture()
    assert isinstance(blurred, Separable)
    blurred.parts[1] = Blur()  # type: ignore[assignment]
    with pytest.raises(TypeError, match="Blur"):
        blurred.operators((4, 4, 8), (4, 4, 2), MixtureParams(1, None))


@pytest.mark.parametrize(
    ("parts", "complaint"),
    [
        ([], "needs parts"),
        ([{"thickness": 1.0}], "part 0 of the mixture names no kind"),
        ([{"kind": "kspace", "share": 0}], "share of kspace is 0; it must be above 0"),
        ([{"kind": "kspace", "share": True, "gap": 1}], "gap"),
        ([{"kind": "blur"}], "'blur' is unknown"),
        ([{"kind": "kspace", "reach": -1}], "reach is -1"),
    ],
)
def test_wrong_parts_are_refused(parts: list[dict[str, Any]], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        mixture(parts)

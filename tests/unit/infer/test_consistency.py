"""The projection onto what degrades to the scan: exact, smallest, to a tolerance, and refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pydicom.dataset import Dataset
from scipy.sparse.linalg import LinearOperator, lsqr

from medsr import zoo
from medsr.degrade import Degradation, build_degradation, degrade_volume
from medsr.errors import UsageError
from medsr.geometry import Geometry
from medsr.infer.axes import AxisOrder
from medsr.infer.consistency import project, projection
from medsr.infer.consistency.check import ConsistencyCheck
from medsr.infer.consistency.project import make_consistent, projections
from medsr.infer.consistency.projection import GAIN_LIMIT, Projection, Residual
from medsr.infer.decide import Decision
from medsr.infer.outputs import describe_error
from medsr.infer.prepare import parse_tolerance
from medsr.io.dicom.write.derived import set_derivation
from medsr.model import ModelSpec
from medsr.types import Float32Array
from medsr.volume import Volume

EXACT: list[tuple[str, dict[str, Any]]] = [
    ("slice_profile", {"factor": (1, 1, 4)}),
    ("kspace", {"factor": (2, 2, 2)}),
    ("ct_slab", {"factor": (1, 1, 4)}),
    ("ct_slab", {"factor": (2, 2, 3), "psf_voxels": 0.6}),
]
IDS = [f"{kind}-{index}" for index, (kind, _) in enumerate(EXACT)]


def _volume(data: np.ndarray, geometry: Geometry, modality: Any = "CT") -> Volume:
    units = "HU" if modality == "CT" else "arbitrary"
    return Volume(data.astype(np.float32), geometry, modality, units)  # type: ignore[arg-type]


def _pair(
    rng: np.random.Generator, degradation: Degradation[Any], modality: str = "CT"
) -> tuple[Volume, Volume, Volume]:
    """Truth, scan, and a result that fits the scan badly."""
    shape = [4 * 5 * f for f in degradation.factor]
    geometry = Geometry((shape[0], shape[1], shape[2]), np.diag([-0.8, 0.8, 1.1, 1.0]))
    truth = _volume(300 * rng.standard_normal(shape), geometry, modality)
    result = truth.replace(data=(truth.data + 80 * rng.standard_normal(shape)).astype(np.float32))
    return truth, degrade_volume(truth, degradation), result


@pytest.mark.parametrize(("kind", "options"), EXACT, ids=IDS)
def test_the_projected_result_degrades_to_the_scan(
    kind: str, options: dict[str, Any], rng: np.random.Generator
) -> None:
    degradation = build_degradation(kind, **options)
    truth, lr, result = _pair(rng, degradation)
    projected, report = make_consistent(result, lr, degradation, tolerance=0.5)
    again = degrade_volume(projected, degradation)  # what users would run
    assert np.abs(again.data - lr.data).max() <= 0.5
    assert report.met
    assert report.before.largest > 5
    assert report.after.largest == pytest.approx(np.abs(again.data - lr.data).max(), abs=1e-2)
    assert projected.geometry == truth.geometry
    # What is nearer to a set that holds the truth is nearer to the truth.
    assert (
        np.square(projected.data - truth.data).mean() < np.square(result.data - truth.data).mean()
    )


@pytest.mark.parametrize(("kind", "options"), EXACT, ids=IDS)
def test_the_change_is_the_smallest_as_lsqr_finds_it(
    kind: str, options: dict[str, Any], rng: np.random.Generator
) -> None:
    degradation = build_degradation(kind, **options)
    _, lr, result = _pair(rng, degradation)
    projected, _ = make_consistent(result, lr, degradation, tolerance=1e-2)

    def apply(x: np.ndarray) -> np.ndarray:
        return degradation.apply(torch.from_numpy(x.reshape(result.shape)), params).numpy().ravel()

    def transposed(y: np.ndarray) -> np.ndarray:
        x = torch.zeros(result.shape, dtype=torch.float64, requires_grad=True)
        out = degradation.apply(x, params)
        (gradient,) = torch.autograd.grad(out, x, torch.from_numpy(y.reshape(lr.shape)))
        return gradient.numpy().ravel()

    params = degradation.nominal()
    size = (lr.data.size, result.data.size)
    operator = LinearOperator(size, matvec=apply, rmatvec=transposed, dtype=np.float64)
    start = result.data.astype(np.float64).ravel()
    residual = lr.data.astype(np.float64).ravel() - apply(start)
    smallest = lsqr(operator, residual, atol=1e-9, btol=1e-9)[0]
    change = (projected.data - result.data).ravel()
    # The tolerance leaves a little of the residual, a soft kernel magnifies it.
    assert change == pytest.approx(smallest, abs=0.05)
    assert np.linalg.norm(change) <= np.linalg.norm(smallest) * 1.001


@pytest.mark.parametrize("fine", [(9, 8, 29), (9, 8, 41), (21, 13, 40)])
@pytest.mark.parametrize("kind", ["slice_profile", "kspace", "ct_slab"])
def test_grids_that_no_factor_reaches(
    kind: str, fine: tuple[int, int, int], rng: np.random.Generator
) -> None:
    coarse = (9, 8, 10)
    degradation = build_degradation(kind, factor=(1, 1, 4))
    planned = Projection(degradation, fine, coarse)
    sr = (100 * rng.standard_normal(fine)).astype(np.float32)
    lr = (100 * rng.standard_normal(coarse)).astype(np.float32)
    before, after = planned.project(sr, lr, tolerance=1.0)
    assert before.largest > 50
    assert after.largest <= 1.0
    assert np.abs(planned.degrade(sr) - lr).max() <= 1.0
    # A constant stays what it is.
    flat = np.full(fine, 7.5, np.float32)
    planned.project(flat, np.full(coarse, 7.5, np.float32), tolerance=1e-2)
    assert flat == pytest.approx(7.5, abs=1e-3)


def test_work_in_parts_gives_the_same(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    degradation = build_degradation("kspace", factor=(2, 2, 2))
    _, lr, result = _pair(rng, degradation)
    whole, _ = make_consistent(result, lr, degradation)
    monkeypatch.setattr(projection, "_CHUNK", 3 * result.shape[1] * result.shape[2])
    parts, _ = make_consistent(result, lr, degradation)
    assert parts.data == pytest.approx(whole.data, abs=1e-2)


def test_differences_below_the_tolerance_are_left_alone(rng: np.random.Generator) -> None:
    degradation = build_degradation("ct_slab", factor=(1, 1, 4))
    truth, lr, _ = _pair(rng, degradation)
    near = truth.replace(data=truth.data + np.float32(9.0))
    same, report = make_consistent(near, lr, degradation, tolerance=10.0)
    assert np.array_equal(same.data, near.data)
    assert report.before == report.after
    # Beyond it, differences are brought to it and not to zero; so the noise of a scan can stay out.
    moved, report = make_consistent(near, lr, degradation, tolerance=5.0)
    assert report.after.largest == pytest.approx(5.0, rel=0.02)
    assert moved.data - truth.data == pytest.approx(5.0, rel=0.02)


def test_what_a_soft_kernel_erased_is_not_blown_up(rng: np.random.Generator) -> None:
    degradation = build_degradation("ct_slab", factor=(1, 1, 2), psf_voxels=5.0)
    geometry = Geometry((30, 30, 8), np.eye(4))
    truth = _volume(100 * rng.standard_normal(geometry.shape), geometry)
    lr = degrade_volume(truth, degradation)
    noise = 10 * rng.standard_normal(lr.shape).astype(np.float32)
    noisy = lr.replace(data=lr.data + noise)
    projected, report = make_consistent(truth, noisy, degradation, tolerance=0.5)
    assert report.out_of_reach > 0.5
    assert not report.met
    assert "more than the tolerance of 0.5 HU" in report.warning()
    change = projected.data - truth.data
    # Three passes may each reach the limit; without one the change would be beyond 1e6.
    assert np.sqrt(np.square(change).mean()) < 3 * GAIN_LIMIT * np.sqrt(np.square(noise).mean())
    assert report.after.rms < report.before.rms


def test_noise_of_the_parameters_is_left_out(rng: np.random.Generator) -> None:
    degradation = build_degradation("slice_profile", factor=(1, 1, 4), noise=50.0)
    geometry = Geometry((6, 6, 24), np.eye(4))
    truth = _volume(500 + 50 * rng.standard_normal(geometry.shape), geometry, "MR")
    params = degradation.sample(torch.Generator().manual_seed(1))
    lr = degrade_volume(truth, degradation, params)
    projected, report = make_consistent(truth, lr, degradation, params, tolerance=0.5)
    assert report.met
    assert report.degradation["parameters"]["sigma"] == 50.0
    clean = degrade_volume(projected, build_degradation("slice_profile", factor=(1, 1, 4)))
    assert np.abs(clean.data - lr.data).max() <= 0.5  # the noise is pinned into the result


def test_headers_say_what_was_done(rng: np.random.Generator) -> None:
    degradation = build_degradation("ct_slab", factor=(1, 1, 4))
    truth, lr, result = _pair(rng, degradation)
    _, report = make_consistent(result, lr, degradation)
    spec = zoo.specs()[0]
    model = SimpleNamespace(spec=spec, weight_hash="ab" * 32)
    decision = Decision(model, lr.geometry, lr.geometry, truth.geometry, [], False)
    how = decision.derivation(further=report.words())
    assert how.further == "consistent with the source to 1 HU"
    assert how.description.endswith(f"{spec.version}, {how.further}")
    dataset = Dataset()
    set_derivation(dataset, how)
    assert how.further in dataset.DerivationDescription
    missed = dataclasses.replace(report, met=False)
    assert missed.words() == "projected towards the source"
    assert describe_error(how).further == ""


def test_default_tolerances(rng: np.random.Generator) -> None:
    data = rng.uniform(0, 1000, (20, 20, 20)).astype(np.float32)
    assert project.default_tolerance(data, "CT") == 1.0
    foreground = data[data > 0.02 * data.max()]
    expected = np.percentile(foreground, 99.5) / 1000
    assert project.default_tolerance(data, "MR") == pytest.approx(expected)
    assert parse_tolerance(True) is None
    assert parse_tolerance(2) == 2.0
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="above zero"):
            parse_tolerance(wrong)


class _Crooked:
    """A degradation of somebody else's that is no matrix along each axis."""

    factor = (1, 1, 2)

    def nominal(self) -> None:
        return None


def test_refusals(rng: np.random.Generator) -> None:
    degradation = build_degradation("ct_slab", factor=(1, 1, 4))
    _, lr, result = _pair(rng, degradation)
    with pytest.raises(UsageError, match="coarser"):
        Projection(degradation, (8, 8, 16), (10, 8, 4))
    with pytest.raises(UsageError, match="_Crooked"):
        Projection(_Crooked(), (8, 8, 16), (8, 8, 4))  # type: ignore[arg-type]
    moved = result.replace(
        geometry=Geometry(result.shape, np.diag([1.0, 1.0, 1.0, 1.0]) + np.eye(4, k=3) * 5)
    )
    with pytest.raises(UsageError, match="same space"):
        make_consistent(moved, lr, degradation)


MIXED: dict[str, Any] = {
    "kind": "mixture",
    "factor": [1, 1, 4],
    "of": [
        {"kind": "slice_profile", "thickness": [0.95, 1.05], "share": 2},
        {"kind": "slice_profile", "thickness": [0.6, 1.3], "noise": [0.0, 0.03]},
        {"kind": "ct_slab", "thickness": [0.7, 1.1]},
        {"kind": "kspace"},
    ],
}


def nearest(
    known: Sequence[Projection], sr: Float32Array, lr: Float32Array, counted: Any = None
) -> tuple[Projection, Residual]:
    """What the check finds where a result comes in chunks of three planes, its scan in one."""
    check = ConsistencyCheck(known, AxisOrder((0, 1, 2), ()))
    check.note(0, lr, counted)
    for start in range(0, sr.shape[2], 3):
        check.push(sr[:, :, start : start + 3])
    return check.nearest()


def _mr_z4() -> ModelSpec:
    return next(spec for spec in zoo.specs() if spec.name == "mr-z4")


@pytest.mark.parametrize("kind", ["slice_profile", "ct_slab", "kspace"])
def test_of_several_degradations_the_one_that_fits_is_taken(
    kind: str, rng: np.random.Generator
) -> None:
    degradation = build_degradation(kind, factor=(1, 1, 4))
    truth, lr, _ = _pair(rng, degradation, "MR")
    near = np.asarray(truth.data + 3 * rng.standard_normal(truth.shape), dtype=np.float32)
    spec = dataclasses.replace(_mr_z4(), trained_degradation=MIXED)
    known = projections(spec, "MR", truth.shape, lr.shape)
    # Two parts differ in what they draw and not in their centre.
    assert [one.described["kind"] for one in known] == ["slice_profile", "ct_slab", "kspace"]
    found, residual = nearest(known, near, lr.data)
    assert found.described["kind"] == kind
    assert residual.rms < 3
    for one in known:
        difference = lr.data - one.degrade(near)
        assert residual.rms <= np.sqrt(np.square(difference).mean()) * 1.0001


def test_only_voxels_with_data_say_which_degradation_fits(rng: np.random.Generator) -> None:
    degradation = build_degradation("ct_slab", factor=(1, 1, 4))
    truth, lr, _ = _pair(rng, degradation, "MR")
    other = degrade_volume(truth, build_degradation("kspace", factor=(1, 1, 4))).data
    counted = np.zeros(lr.shape, bool)
    counted[:2] = True
    scan = np.where(counted, lr.data, other)
    spec = dataclasses.replace(_mr_z4(), trained_degradation=MIXED)
    known = projections(spec, "MR", truth.shape, lr.shape)
    assert nearest(known, truth.data, scan)[0].described["kind"] == "kspace"
    assert nearest(known, truth.data, scan, counted)[0].described["kind"] == "ct_slab"

"""Voxels without data come through ``upscale``: no ringing at their edge, the fill value exact."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from medsr import io
from medsr.geometry import Geometry
from medsr.infer.padding import Padding, find_padding, nearest
from medsr.infer.upscale import upscale
from medsr.io.planes import MemoryPlanes
from medsr.io.survey import survey
from medsr.model import Intensity, ModelSpec, SpacingRange, SRModel
from medsr.networks import build_network
from medsr.volume import Source, Volume, units_of

FILL = -3024
AFFINE = np.diag([0.8, 0.8, 3.2, 1.0])


@pytest.fixture(scope="module")
def model() -> SRModel:
    """A network of random weights that departs from interpolation."""
    spec = ModelSpec(
        name="random",
        version="0",
        network="RepPlain3D",
        options={"width": 16, "depth": 2},
        scale=(1, 1, 4),
        modality="CT",
        role="student",
        intensity=Intensity.for_modality("CT"),
        halo=(4, 4, 4),
        multiple_of=(1, 1, 1),
        trained_spacing_mm=SpacingRange((0.6, 1.2), (0.6, 4.8)),
        trained_degradation={},
        parameters=1000,
        training={},
        description="random weights",
    )
    torch.manual_seed(3)
    network = build_network(spec.network, spec.scale, **spec.options)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.03 * torch.randn_like(parameter))
    return SRModel(network.eval(), spec)


def _ct(fill: int) -> np.ndarray[Any, np.dtype[np.int16]]:
    """A round field of view with tissue up to its edge, ``fill`` outside."""
    generator = np.random.default_rng(0)
    data = generator.integers(-100, 200, (24, 22, 8)).astype(np.int16)
    x, y = np.meshgrid(np.linspace(-1, 1, 24), np.linspace(-1, 1, 22), indexing="ij")
    data[x**2 + y**2 > 0.9] = fill
    return data


def _outside(shape: tuple[int, ...], before: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Where the nearest voxel of the scan is padding."""
    indices = [nearest(n, m) for n, m in zip(before.shape, shape, strict=True)]
    return np.asarray(before == FILL)[np.ix_(*indices)]


def test_the_network_never_sees_padding(model: SRModel) -> None:
    filled = upscale(_ct(FILL), model=model, affine=AFFINE, modality="ct", precision="fp32").whole()
    air = upscale(_ct(-1024), model=model, affine=AFFINE, modality="ct", precision="fp32").whole()
    outside = _outside(filled.shape, _ct(FILL))
    assert outside.any()
    assert (filled.data[outside] == FILL).all()
    assert np.array_equal(filled.data[~outside], air.data[~outside])
    assert filled.data[~outside].min() > -2000


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_slab_by_slab_gives_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: SRModel, dtype: type
) -> None:
    # Slices along z, stored from below and mirrored in x.
    source = tmp_path / "ct.nii.gz"
    nib.save(nib.Nifti1Image(_ct(FILL).astype(dtype), AFFINE @ np.diag([-1, 1, 1, 1])), source)
    options: dict[str, Any] = {"model": model, "modality": "ct", "precision": "fp32"}
    upscale(source, tmp_path / "whole.nii.gz", **options)
    monkeypatch.setattr("medsr.infer.upscaler.is_large", lambda path, limit: True)
    monkeypatch.setattr("medsr.infer.chunks._thickest", lambda *_: 3)
    assert upscale(source, tmp_path / "slabs.nii.gz", **options).volume is None
    whole, slabs = (io.load(tmp_path / name).data for name in ("whole.nii.gz", "slabs.nii.gz"))
    outside = _outside(whole.shape, _ct(FILL))
    assert (slabs[outside] == FILL).all()
    assert (whole[outside] == FILL).all()
    assert np.abs(slabs.astype(float) - whole).max() <= 1


def _padding(volume: Volume, modality: Any) -> Padding | None:
    source = MemoryPlanes(volume)
    return find_padding(source, survey(source, "the scan"), modality)[0]


def test_fitted_normalisation_leaves_padding_out() -> None:
    generator = np.random.default_rng(1)
    clean = generator.integers(50, 1000, (10, 9, 8)).astype(np.uint16)
    filled = clean.copy()
    filled[:3] = 65535
    source = Source("dicom", padding=65535.0)
    volume = Volume(filled, Geometry(clean.shape, np.eye(4)), "MR", "arbitrary", source)
    padding = _padding(volume, "MR")
    assert padding is not None
    fit = Intensity.for_modality("MR").fit
    assert fit(filled[~padding.mask(filled)]) == fit(clean[3:])
    assert padding.removed(filled).max() < 1000


@pytest.mark.parametrize(
    ("modality", "stated", "low"), [("CT", -1024.0, -1020), ("MR", 0.0, 3), ("CT", None, -1090)]
)
def test_values_next_to_the_measured_ones_are_no_padding(
    modality: Any, stated: float | None, low: int, make_volume: Callable[..., Volume]
) -> None:
    data = np.full((6, 6, 6), 900, np.int16)
    data[0], data[1] = low, -1024 if stated is None else int(stated)
    assert _padding(make_volume(data, modality, stated), modality) is None


@pytest.fixture
def make_volume() -> Callable[..., Volume]:
    def make(data: np.ndarray[Any, Any], modality: Any, padding: float | None) -> Volume:
        source = Source("dicom", padding=padding)
        geometry = Geometry((6, 6, 6), np.eye(4))
        return Volume(data, geometry, modality, units_of(modality), source)

    return make

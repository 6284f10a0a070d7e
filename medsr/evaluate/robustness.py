"""How much is lost when the scan is noisier than in training, or when somebody attacks it.

Each scan is cut to a part, degraded, and then disturbed; restoration goes the way of every
evaluation. What is done with the scores is in ``results``, the loop over scans in ``cohort``. The
attack itself is :mod:`medsr.distill.attack`, which training against it uses too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from medsr.degrade import Degradation, degrade_volume
from medsr.degrade.noise import add_correlated, add_rician
from medsr.distill.attack import pgd
from medsr.errors import UsageError
from medsr.evaluate.metrics import Metrics, Reference, score
from medsr.infer.axes import AxisOrder
from medsr.infer.engine.device import resolve_device, resolve_precision
from medsr.model import SRModel
from medsr.volume import Modality, Volume

__all__ = ["Disturbances"]

_THIN = 8  # low-resolution voxels that a part keeps along every axis, where the scan has them


@dataclass(frozen=True)
class Disturbances:
    """How scans are disturbed.

    Args:
        part: Voxels of the truth along each axis that are cut out around the middle of the body;
            more along axes of a large factor, less where the scan is smaller.
        radius: The attack changes no voxel by more than this share of the range that the model
            normalises to one (for CT 2048 HU).
        steps: Steps of the attack.
        mr_sigma: Standard deviation of Rician noise, as a share of the truth's data range.
        ct_sigma_hu: Standard deviation of noise in HU.
        ct_correlation_voxels: In-plane correlation of that noise, standard deviation in voxels.
        seed: Of noise and of the attack's start.

    Raises:
        UsageError: A number is below zero, or ``part`` or ``steps`` below one.

    Examples:
        >>> from medsr.evaluate.plan import Plan
        >>> from medsr.evaluate.robustness import Disturbances
        >>> harder = Disturbances(part=32, ct_sigma_hu=40.0)
        >>> plan = Plan("cohort.csv", "dev", scale=(1, 1, 4), models=["ct-z4"], robust=harder)
        >>> plan.robust.describe("CT")["noise"]
        'the same with Gaussian noise, sigma 40 HU, correlated in plane over 0.8 voxels'
    """

    part: int = 48
    radius: float = 0.01
    steps: int = 10
    mr_sigma: float = 0.03
    ct_sigma_hu: float = 20.0
    ct_correlation_voxels: float = 0.8
    seed: int = 0

    def __post_init__(self) -> None:
        """Check what no type can show."""
        if min(self.part, self.steps) < 1:
            raise UsageError(f"part is {self.part} and steps {self.steps}; both must be at least 1")
        amounts = (self.radius, self.mr_sigma, self.ct_sigma_hu, self.ct_correlation_voxels)
        if not all(amount >= 0 for amount in amounts):
            raise UsageError("radius, noise and its correlation must be from 0")

    def describe(self, modality: Modality) -> dict[str, str]:
        """What each input is, in words, for result files."""
        noise = f"Rician noise, sigma {self.mr_sigma:g} of the data range"
        if modality == "CT":
            noise = (
                f"Gaussian noise, sigma {self.ct_sigma_hu:g} HU, correlated in plane over "
                f"{self.ct_correlation_voxels:g} voxels"
            )
        return {
            "clean": f"about {self.part} truth voxels along each axis, amid the body, degraded",
            "noise": f"the same with {noise}",
            "pgd": (
                "the same, attacked: no voxel changed by more than "
                f"{self.radius:g} of the model's range, {self.steps} steps of projected gradient "
                "against the truth in the mask; each model has its own attack"
            ),
        }


@dataclass(frozen=True)
class Scored:
    """One method's result for one disturbed input.

    Attributes:
        input: ``clean``, ``noise`` or ``pgd``.
        method: Label of the method.
        metrics: Quality in native units.
        seconds: Wall time of the restoration.
    """

    input: str
    method: str
    metrics: Metrics
    seconds: float


def examine(
    truth: Volume,
    reference: Reference,
    degradation: Degradation[Any],
    methods: Mapping[str, Callable[[Volume, Volume], Volume]],
    models: Mapping[str, SRModel],
    how: Disturbances,
    modality: Modality,
    *,
    device: str = "auto",
    precision: str = "auto",
) -> Iterator[Scored]:
    """Score every method on a part of a scan: clean, noisy, and under attack.

    Args:
        truth: Sharp scan, slice axis last, its sizes multiples of the degradation's factor.
        reference: Mask and range of the whole truth.
        degradation: How low resolution is simulated, with its nominal parameters.
        methods: What restores a degraded scan, by label; given that and the truth, whose grid the
            result takes.
        models: The models among the methods; those are attacked, by the gradient of their network.
        how: The disturbances.
        modality: Of the scan.
        device: Where the attack runs.
        precision: Of the attack's passes through the network.

    Yields:
        Scores, input by input.

    Raises:
        ValueError: The part holds nothing of the body.
    """
    window = _window(reference.mask, degradation.factor, how.part)
    hr = truth.crop([axis.start for axis in window], [axis.stop for axis in window])
    part = Reference(mask=reference.mask[window], data_range=reference.data_range)
    if not part.mask.any():
        raise ValueError("there is no foreground amid the scan")
    clean = degrade_volume(hr, degradation)

    def scored(name: str, lr: Volume, label: str) -> Scored:
        started = time.perf_counter()
        sr = methods[label](lr, hr)
        seconds = time.perf_counter() - started
        return Scored(name, label, score(sr.data, hr.data, part), seconds)

    for name, lr in (
        ("clean", clean),
        ("noise", add_noise(clean, modality, reference.data_range, how)),
    ):
        yield from (scored(name, lr, label) for label in methods)
    for label, model in models.items():
        attacked = attack(model, clean, hr, part, how, device=device, precision=precision)
        yield scored("pgd", attacked, label)


def add_noise(lr: Volume, modality: Modality, data_range: float, how: Disturbances) -> Volume:
    """Add the noise of a plausible, faster or lower-dose acquisition.

    Args:
        lr: Degraded scan, native units.
        modality: ``MR`` gets Rician noise, ``CT`` correlated Gaussian.
        data_range: Width of the truth's range, native units.
        how: The levels and the seed.
    """
    values = torch.from_numpy(np.ascontiguousarray(lr.data, dtype=np.float32))
    if modality == "CT":
        noisy = add_correlated(values, how.ct_sigma_hu, how.ct_correlation_voxels, how.seed)
    else:
        noisy = add_rician(values, how.mr_sigma * data_range, how.seed)
    return lr.replace(data=noisy.numpy())


def attack(
    model: SRModel,
    lr: Volume,
    hr: Volume,
    reference: Reference,
    how: Disturbances,
    *,
    device: str = "auto",
    precision: str = "auto",
) -> Volume:
    """Change a scan within bounds so that a model errs as much as possible.

    Args:
        model: Whose gradient is followed; its input is normalised as for any scan.
        lr: Degraded scan, native units.
        hr: Its truth, on the grid that the model restores.
        reference: Where errors count.
        how: Radius, steps and seed.
        device: Where the network runs.
        precision: Of its passes.

    Returns:
        The scan with a perturbation of at most ``how.radius`` times the model's range; nothing is
        brought below the value that the model normalises to zero (air), as no scanner writes it.
    """
    where = resolve_device(device)
    half = resolve_precision(precision, where) == "bf16"
    frame = AxisOrder.of(lr.geometry)
    normaliser = model.spec.intensity.fit(lr.data)
    inputs = normaliser.forward(_tensor(frame, lr.data)).to(where)
    truth = normaliser.forward(_tensor(frame, hr.data)).to(where)
    mask = _tensor(frame, reference.mask).to(where)
    network = model.module.to(where)

    def harm(tried: Tensor) -> Tensor:
        with torch.autocast(where.type, dtype=torch.bfloat16, enabled=half):
            sr: Tensor = network(tried)
        # A network with a head says more than the value, which comes first.
        error = (sr[:, :1].float() - truth) * mask
        return error.square().flatten(1).sum(dim=1) / mask.sum()

    generator = torch.Generator().manual_seed(how.seed)
    start = how.radius * (2 * torch.rand(inputs.shape, generator=generator) - 1)
    attacked = pgd(harm, inputs, how.radius, how.steps, start.to(where), lowest=0.0)
    native: npt.NDArray[np.float32] = normaliser.inverse(attacked)[0, 0].cpu().numpy()
    return lr.replace(data=np.ascontiguousarray(frame.array_data(native)))


def _tensor(frame: AxisOrder, data: npt.NDArray[Any]) -> Tensor:
    """(1, 1, X, Y, Z) in canonical order."""
    canonical = np.ascontiguousarray(frame.canonical_data(data), dtype=np.float32)
    return torch.from_numpy(canonical)[None, None]


def _window(
    mask: npt.NDArray[np.bool_], factor: tuple[int, int, int], size: int
) -> tuple[slice, slice, slice]:
    """The part amid the body, its ends on multiples of the factor."""
    rows = []
    for axis, step in enumerate(factor):
        profile = mask.sum(axis=tuple(other for other in range(3) if other != axis))
        middle = float(profile @ np.arange(profile.size)) / max(float(profile.sum()), 1.0)
        length = min(max(size, _THIN * step), profile.size) // step * step
        start = round((middle - length / 2) / step) * step
        start = min(max(start, 0), (profile.size - length) // step * step)
        rows.append(slice(start, start + length))
    return (rows[0], rows[1], rows[2])

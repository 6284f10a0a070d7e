"""Robustness: the student answers disturbed scans as the teacher answers the clean ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from medsr.batch import Batch
from medsr.degrade.base import as_range, draw_seed, uniform
from medsr.degrade.noise import add_correlated, add_rician
from medsr.distill.attack import at_inference, pgd
from medsr.distill.taps import Activations
from medsr.distill.term import Term
from medsr.distill.terms import TERMS
from medsr.errors import UsageError
from medsr.losses import build_loss

ATTACKS = ("pgd", "noise")
NOISES = ("gaussian", "rician")


@TERMS.register(
    "robust",
    recipe="configs/distill/robust.yaml",
)
class RobustTerm(Term):
    """Loss between the student's output for a disturbed scan and the teacher's for the scan itself.

    The disturbance is either the worst one within a box, which the student's own gradient finds, or
    the noise of another acquisition. The student is run in evaluation mode here, so that no running
    statistic learns from disturbed scans. Each run costs a pass of the student, and each step of
    the attack a pass forward and one back.

    What is random is drawn from torch's global generator, whose state a checkpoint holds.

    Args:
        attack: ``"pgd"`` (adversarial examples) or ``"noise"`` (smoothing).
        radius: For ``pgd``: no voxel changes by more, in normalised intensity; from 0.
        steps: For ``pgd``: steps of the attack, from a random start; at least 1.
        sigma: For ``noise``: standard deviation in normalised intensity, a number or
            ``[low, high]`` to draw from at each step.
        noise: For ``noise``: ``"gaussian"`` or ``"rician"`` (magnitude MR).
        correlation_voxels: For ``gaussian``: in-plane correlation, as a CT kernel makes it; 0 is
            white noise.
        loss: Name of a loss in :data:`medsr.losses.LOSSES`.
        **options: Arguments of the loss.

    Raises:
        UsageError: If an argument is out of its range.

    Source: Goldblum et al., "Adversarially robust distillation", AAAI 2020, equation 4; noise:
        Cohen, Rosenfeld, Kolter, "Certified adversarial robustness via randomized smoothing", ICML
        2019, section 3.3.

    Examples:
        >>> import torch
        >>> from medsr.batch import Batch
        >>> from medsr.distill import Distiller
        >>> from medsr.distill.terms import RobustTerm
        >>> from medsr.networks import build_network
        >>> networks = [build_network("RepPlain3D", (1, 1, 4), width=w, depth=2) for w in (16, 32)]
        >>> term = RobustTerm(attack="noise", noise="rician", sigma=(0.0, 0.05))
        >>> distiller = Distiller(*networks, [term])
        >>> batch = Batch(torch.rand(1, 1, 8, 8, 4), torch.rand(1, 1, 8, 8, 16))
        >>> bool(distiller(batch).losses["robust"] > 0)
        True
    """

    name = "robust"

    def __init__(
        self,
        attack: str = "pgd",
        radius: float = 0.01,
        steps: int = 3,
        sigma: float | tuple[float, float] = (0.0, 0.05),
        noise: str = "gaussian",
        correlation_voxels: float = 0.0,
        loss: str = "l1",
        **options: Any,
    ) -> None:
        super().__init__()
        if attack not in ATTACKS:
            raise UsageError(f"robust term: attack {attack!r} is none of {', '.join(ATTACKS)}")
        if noise not in NOISES:
            raise UsageError(f"robust term: noise {noise!r} is none of {', '.join(NOISES)}")
        if not (radius >= 0 and correlation_voxels >= 0 and steps >= 1):
            raise UsageError(
                f"robust term: radius is {radius}, correlation_voxels {correlation_voxels} and "
                f"steps {steps}; the first two must be from 0, steps from 1"
            )
        try:
            self.sigma = as_range(sigma, "sigma")
        except ValueError as error:
            raise UsageError(f"robust term: {error}") from error
        self.attack = attack
        self.radius = float(radius)
        self.steps = steps
        self.noise = noise
        self.correlation_voxels = float(correlation_voxels)
        self.loss = build_loss(loss, **options)
        self._student: tuple[nn.Module, ...] = ()

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        """Take note of the student, which this term runs itself."""
        # A tuple hides the student from nn.Module's registry of children.
        self._student = (student,)

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        """Disturb the scans, run the student on them, and compare with the teacher.

        Args:
            student: The student's activations for the scans themselves; not used.
            teacher: The teacher's activations for the scans themselves, without gradient.
            batch: The training pairs, whose low-resolution scans are disturbed.

        Returns:
            A float32 scalar, zero when the disturbance does not show and the outputs are equal.

        Raises:
            RuntimeError: If :meth:`bind` was not called.
        """
        if not self._student:
            raise RuntimeError("robust term: bind() must run before the first step")
        target = teacher.output.detach()
        with at_inference(self._student[0]) as network:
            if self.attack == "noise":
                disturbed = self._noisy(batch.lr)
            else:
                disturbed = self._attacked(network, batch.lr, target)
            value: Tensor = self.loss(network(disturbed), target)
        return value

    def _noisy(self, lr: Tensor) -> Tensor:
        """The scans as another acquisition with more noise would give them."""
        sigma, seed = uniform(*self.sigma, None), draw_seed(None)
        if self.noise == "rician":
            return add_rician(lr, sigma, seed)
        return add_correlated(lr, sigma, self.correlation_voxels, seed)

    def _attacked(self, network: nn.Module, lr: Tensor, target: Tensor) -> Tensor:
        """The scans with the disturbance that takes the student furthest from the teacher."""

        def harm(tried: Tensor) -> Tensor:
            error: Tensor = network(tried).float() - target.float()
            return error.abs().flatten(1).mean(dim=1)

        # On the processor, whose generator a checkpoint holds, wherever the scans are.
        start = (2 * torch.rand(lr.shape) - 1).to(lr.device, lr.dtype) * self.radius
        return pgd(harm, lr, self.radius, self.steps, start)

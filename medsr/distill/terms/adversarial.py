"""Adversarial: a discriminator learns to tell the student's output from the teacher's."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from medsr.batch import Batch
from medsr.distill.taps import Activations
from medsr.distill.term import Term
from medsr.distill.terms import TERMS
from medsr.errors import UsageError
from medsr.networks.discriminator import PatchDiscriminator3D

REALS = ("teacher", "hr", "both")
GAMES = ("hinge", "least_squares")


@TERMS.register(
    "adversarial",
    small={"width": 4, "strides": 1},
    recipe="configs/distill/adversarial.yaml",
)
class AdversarialTerm(Term):
    """The student is to fool a discriminator of 3D patches that learns beside it.

    Sharper texture comes with it, and texture that was not in the patient: expect PSNR to fall.
    No shipped model is trained with this term, and the card of a model that is says so.

    Both play in one step: the discriminator's loss sees the student's output detached, and the
    student's loss sees the discriminator frozen.

    Args:
        real: What the discriminator is shown as real: the ``"teacher"``'s output, the true volume
            (``"hr"``), or ``"both"``. ``"hr"`` needs no teacher.
        loss: ``"hinge"`` or ``"least_squares"``.
        width: Channels of the discriminator's first convolution.
        strides: How often the discriminator halves the grid.
        spectral: Normalise the discriminator's kernels by their spectral norms.
        r1: Weight of the penalty on the discriminator's slope at real volumes; 0 for none. It
            costs another backward pass.
        learning_rate: Peak learning rate of the discriminator.

    Raises:
        UsageError: If an argument is out of its range.

    Source: Goodfellow et al., "Generative adversarial nets", NeurIPS 2014; hinge: Lim and Ye,
        "Geometric GAN", 2017; least squares: Mao et al., ICCV 2017, equation 9; R1: Mescheder,
        Geiger, Nowozin, ICML 2018, equation 9.

    Examples:
        >>> import torch
        >>> from medsr.batch import Batch
        >>> from medsr.distill import Distiller
        >>> from medsr.distill.terms import AdversarialTerm
        >>> from medsr.networks import build_network
        >>> student = build_network("RepPlain3D", (1, 1, 4), width=16, depth=2)
        >>> distiller = Distiller(student, None, [AdversarialTerm(real="hr", width=16, strides=1)])
        >>> step = distiller(Batch(torch.rand(1, 1, 8, 8, 2), torch.rand(1, 1, 8, 8, 8)))
        >>> sorted(step.losses), sorted(step.adversaries)  # one loss for each side
        (['adversarial'], ['adversarial'])
    """

    name = "adversarial"
    adversary: nn.Module

    def __init__(
        self,
        real: str = "teacher",
        loss: str = "hinge",
        width: int = 32,
        strides: int = 2,
        spectral: bool = True,
        r1: float = 0.0,
        learning_rate: float = 2e-4,
    ) -> None:
        super().__init__()
        if real not in REALS:
            raise UsageError(f"adversarial term: real {real!r} is none of {', '.join(REALS)}")
        if loss not in GAMES:
            raise UsageError(f"adversarial term: loss {loss!r} is none of {', '.join(GAMES)}")
        if not (r1 >= 0 and learning_rate > 0):
            raise UsageError(
                f"adversarial term: r1 is {r1} and learning_rate {learning_rate}; r1 must be from "
                "0 and learning_rate above 0"
            )
        try:
            self.adversary = PatchDiscriminator3D(1, width, strides, spectral)
        except ValueError as error:
            raise UsageError(f"adversarial term: {error}") from error
        self.real = real
        self.loss = loss
        self.r1 = float(r1)
        self.adversary_learning_rate = float(learning_rate)
        self.needs_teacher = real != "hr"

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        """Return how far the student is from fooling the discriminator.

        Returns:
            A float32 scalar: for ``hinge`` the mean judgement with its sign turned, which may be
            negative and so takes no learned weight; for ``least_squares`` half the mean squared
            distance of the judgements from "real".
        """
        judged: Tensor = self.adversary(student.output)
        if self.loss == "hinge":
            return -judged.mean()
        return 0.5 * (judged - 1).square().mean()

    def adversary_loss(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        """Return how badly the discriminator tells the student's output from real ones.

        Args:
            student: The student's activations, without gradient.
            teacher: The teacher's activations, without gradient.
            batch: The training pairs, whose true volumes may be shown as real.

        Returns:
            A float32 scalar from 0; for ``hinge`` 2 and for ``least_squares`` ½ where it says 0
            about everything.
        """
        shown = {
            "teacher": [teacher.output],
            "hr": [batch.hr],
            "both": [teacher.output, batch.hr],
        }[self.real]
        real = torch.cat([volume.detach().float() for volume in shown])
        made: Tensor = self.adversary(student.output.detach().float())
        true: Tensor = self.adversary(real)
        if self.loss == "hinge":
            value = functional.relu(1 - true).mean() + functional.relu(1 + made).mean()
        else:
            value = 0.5 * ((true - 1).square().mean() + made.square().mean())
        return value + 0.5 * self.r1 * self._slope(real) if self.r1 > 0 else value

    def _slope(self, real: Tensor) -> Tensor:
        """Mean squared gradient of a judgement with respect to the real volumes."""
        # The gradient of a gradient is too coarse in half precision.
        with torch.autocast(device_type=real.device.type, enabled=False), torch.enable_grad():
            real = real.requires_grad_()
            judged: Tensor = self.adversary(real)
            (slope,) = torch.autograd.grad(judged.sum(), real, create_graph=True)
            return slope.square().sum() / judged.numel()

"""Entropy: the student is to be as sure of a voxel as its teacher is, and no surer."""

from __future__ import annotations

import math

from torch import Tensor, nn

from medsr.batch import Batch
from medsr.distill.taps import Activations, Tap
from medsr.distill.term import Term
from medsr.distill.terms import TERMS
from medsr.distill.terms._confidence import TeacherSigma, student_head
from medsr.networks.heads import READOUT, Readout


@TERMS.register(
    "entropy",
    small={"sigma": "error", "window": 3},
    head="gaussian",
    recipe="configs/distill/entropy.yaml",
)
class EntropyTerm(Term):
    """Mean excess of the student's predictive entropy over the teacher's.

    The student's is that of its distribution, ``½ log(2πe σ²)`` for the head ``gaussian``; the
    teacher's is that of its own distribution, or of a Gaussian with the sigma that is asked for.
    Where the student is surer than the teacher nothing is lost. Entropy alone knows no truth: join
    it with ``nll``, which pays for being sure and wrong.

    Args:
        sigma: Where the teacher's comes from, see ``TeacherSigma``: ``"head"``, ``"error"`` or
            ``"views"``.
        window: For ``"error"``, the edge of its cube in output voxels, odd.
        views: For ``"views"``, about how many the teacher is asked; each costs a pass.

    Raises:
        UsageError: If an argument is out of its range, the student's head gives values, or the
            teacher's does and ``sigma`` is ``"head"``.

    Source: Grandvalet and Bengio, "Semi-supervised learning by entropy minimization", NIPS 2004;
        here the teacher's entropy is the floor.

    Examples:
        >>> import torch
        >>> from medsr.batch import Batch
        >>> from medsr.distill import Distiller
        >>> from medsr.distill.terms import EntropyTerm, LikelihoodTerm
        >>> from medsr.networks import build_network
        >>> student = build_network("RepPlain3D", (1, 1, 4), width=16, depth=2, head="gaussian")
        >>> teacher = build_network("ResNet3D", (1, 1, 4), width=16, blocks=1, head="gaussian")
        >>> distiller = Distiller(student, teacher, [EntropyTerm(sigma="head"), LikelihoodTerm()])
        >>> batch = Batch(torch.rand(1, 1, 8, 8, 4), torch.rand(1, 1, 8, 8, 16))
        >>> sorted(distiller(batch).losses)
        ['entropy', 'nll']
    """

    name = "entropy"

    def __init__(self, sigma: str = "head", window: int = 5, views: int = 8) -> None:
        super().__init__()
        self._sigma = TeacherSigma(self.name, sigma, window, views)
        self.teacher_views = self._sigma.views
        self._readout: tuple[Readout, ...] = ()

    @property
    def needs(self) -> tuple[Tap, ...]:
        """The student's distribution, and the teacher's where it is asked for."""
        return (Tap(student=READOUT, teacher=self._sigma.tap),)

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        """Take note of both heads.

        Raises:
            UsageError: If one gives values that should give a distribution.
        """
        self._readout = (student_head(self.name, student),)
        self._sigma.bind(teacher)

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        """Compare the entropies.

        Args:
            student: The student's activations.
            teacher: The teacher's activations, without gradient.
            batch: The training pairs; the truth is used where ``sigma`` is ``"error"``.

        Returns:
            A float32 scalar in nats, zero when the student is nowhere less sure than the teacher.
        """
        student_entropy = self._readout[0].entropy(student.features[READOUT])
        if self._sigma.readout is not None and self._sigma.source == "head":
            teacher_entropy = self._sigma.readout.entropy(teacher.features[READOUT]).detach()
        else:
            teacher_entropy = self._sigma(teacher, batch).log() + 0.5 * math.log(
                2 * math.pi * math.e
            )
        return (student_entropy - teacher_entropy).clamp_min(0).mean()

"""Soft labels: the student's bins learn the whole distribution that the teacher gives a voxel."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from medsr.batch import Batch
from medsr.distill.taps import Activations, Tap
from medsr.distill.term import Term
from medsr.distill.terms import TERMS
from medsr.distill.terms._confidence import head_of, student_head
from medsr.errors import UsageError
from medsr.networks.heads import READOUT, BinnedReadout, Readout


@TERMS.register(
    "soft_label",
    small={"spread": 0.1},
    head="bins",
    recipe="configs/distill/soft-label.yaml",
)
class SoftLabelTerm(Term):
    """Divergence of the student's histogram from the teacher's, ``KL(t || s)``.

    What the teacher's soft label is depends on its head:

    - ``bins``: its own histogram. Both soft-maxes are taken at a temperature, and the divergence is
      multiplied by its square, so that gradients keep their size.
    - ``gaussian``: the share of its distribution in each of the student's bins.
    - ``value``: the same for a normal distribution around its value, of the width ``spread``.

    A temperature has a meaning for the first alone: the others have no soft-max to soften.

    Args:
        temperature: For a teacher with bins; above 0, 1 where not given.
        spread: For a teacher that gives values: a standard deviation in normalised intensity.

    Raises:
        UsageError: If an argument is out of its range, the heads do not go with the arguments, or
            both networks have bins that differ.

    Source: Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network", 2015, section 2;
        labels spread over bins: Imani and White, "Improving regression performance with
        distributional losses", ICML 2018.

    Examples:
        >>> import torch
        >>> from medsr.batch import Batch
        >>> from medsr.distill import Distiller
        >>> from medsr.distill.terms import SoftLabelTerm
        >>> from medsr.networks import build_network
        >>> student = build_network("RepPlain3D", (1, 1, 4), width=16, depth=2, head="bins")
        >>> teacher = build_network("ResNet3D", (1, 1, 4), width=16, blocks=1)
        >>> distiller = Distiller(student, teacher, [SoftLabelTerm(spread=0.02)])
        >>> batch = Batch(torch.rand(1, 1, 8, 8, 4), torch.rand(1, 1, 8, 8, 16))
        >>> bool(distiller(batch).losses["soft_label"] > 0)
        True
    """

    name = "soft_label"

    def __init__(self, temperature: float | None = None, spread: float | None = None) -> None:
        super().__init__()
        for name, value in (("temperature", temperature), ("spread", spread)):
            if value is not None and not 0 < value < float("inf"):
                raise UsageError(f"soft_label term: {name} is {value}; give a number above zero")
        self.temperature, self.spread = temperature, spread
        self._student: tuple[BinnedReadout, ...] = ()
        self._teacher: tuple[Readout, ...] = ()

    @property
    def needs(self) -> tuple[Tap, ...]:
        """The student's distribution, and the teacher's where it gives one."""
        return (Tap(student=READOUT, teacher=READOUT if self._teacher else ""),)

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        """Take note of both heads.

        Raises:
            UsageError: If they do not go with each other or with the options.
        """
        student_readout, teacher_readout = student_head(self.name, student), head_of(teacher)
        if not isinstance(student_readout, BinnedReadout):
            raise UsageError("soft_label term: the student needs network.options.head: bins")
        if isinstance(teacher_readout, BinnedReadout):
            _check_bins(student, teacher, student_readout, teacher_readout)
        elif self.temperature is not None:
            raise UsageError(
                "soft_label term: a temperature softens a soft-max and has no meaning where the "
                "teacher's head gives values; leave it out, or take a teacher with head: bins"
            )
        if teacher_readout is None and self.spread is None:
            raise UsageError("soft_label term: the teacher gives values; give the option spread")
        if teacher_readout is not None and self.spread is not None:
            raise UsageError("soft_label term: the teacher gives distributions; leave out spread")
        self._student = (student_readout,)
        self._teacher = () if teacher_readout is None else (teacher_readout,)

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        """Compare the distributions.

        Returns:
            A float32 scalar in nats per voxel, zero when the distributions are equal.
        """
        (readout,) = self._student
        said = student.features[READOUT]
        teacher_readout = self._teacher[0] if self._teacher else None
        temperature = 1.0
        if isinstance(teacher_readout, BinnedReadout):
            temperature = 1.0 if self.temperature is None else self.temperature
            label = torch.softmax(teacher.features[READOUT].float() / temperature, dim=1)
        else:
            # Both outputs lie on one grid; bins count from the student's interpolated scan.
            plain = (student.output - readout.mean(said)).detach()
            sigma: Tensor | float = self.spread or 0.0
            if teacher_readout is not None:
                sigma = teacher_readout.sigma(teacher.features[READOUT])
            label = readout.spread(teacher.output.float() - plain, torch.as_tensor(sigma))
        log_probabilities = functional.log_softmax(said / temperature, dim=1)
        divergence = functional.kl_div(log_probabilities, label.detach(), reduction="none").sum(
            dim=1
        )
        return divergence.mean() * temperature**2


def _check_bins(
    student: nn.Module, teacher: nn.Module | None, ours: BinnedReadout, theirs: BinnedReadout
) -> None:
    """Refuse histograms that do not speak of the same residuals."""
    if ours.options != theirs.options:
        raise UsageError(
            f"soft_label term: the student's bins {ours.options} are not the teacher's "
            f"{theirs.options}; give both networks the same head"
        )
    added = [getattr(network, "interpolation", None) for network in (student, teacher)]
    if added[0] != added[1]:
        raise UsageError(
            f"soft_label term: bins count from the interpolated scan, which is {added[0]} for the "
            f"student and {added[1]} for the teacher; give both networks one interpolation"
        )

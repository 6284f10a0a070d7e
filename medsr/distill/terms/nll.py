"""Likelihood of the truth: what trains a head that says a distribution; no teacher is asked."""

from __future__ import annotations

from torch import Tensor, nn

from medsr.batch import Batch
from medsr.distill.taps import Activations, Tap
from medsr.distill.term import Term
from medsr.distill.terms import TERMS
from medsr.distill.terms._confidence import student_head
from medsr.errors import UsageError
from medsr.networks.heads import READOUT, GaussianReadout, Readout


@TERMS.register(
    "nll",
    head="gaussian",
    recipe="configs/distill/gaussian.yaml",
)
class LikelihoodTerm(Term):
    """Negative log likelihood of the truth under the student's distribution.

    For the head ``gaussian`` it is the Gaussian's, weighted by ``sigma**(2 beta)`` held constant:
    without a weight, voxels that the network gives up (large sigma) hardly move the mean any more,
    and the mean gets worse than that of a network trained by a plain loss. For the head ``bins``
    it is the cross entropy, relative to the bins' widths; beyond the range the last bin counts.

    Args:
        beta: From 0 (the plain likelihood) to 1 (the mean learns as from squared errors); 1 where
            not given. Only for ``gaussian``.

    Raises:
        UsageError: If ``beta`` is out of its range, or the student's head does not go with it.

    Source: Seitzer et al., "On the pitfalls of heteroscedastic uncertainty estimation with
        probabilistic neural networks", ICLR 2022 (beta-NLL).

    Examples:
        >>> import torch
        >>> from medsr.batch import Batch
        >>> from medsr.distill import Distiller
        >>> from medsr.distill.terms import LikelihoodTerm
        >>> from medsr.networks import build_network
        >>> student = build_network("RepPlain3D", (1, 1, 4), width=16, depth=2, head="gaussian")
        >>> distiller = Distiller(student, None, [LikelihoodTerm(beta=0.5)])
        >>> lr = torch.rand(1, 1, 8, 8, 4)
        >>> near, far = (Batch(lr, student(lr).detach() + error) for error in (0.0, 1.0))
        >>> bool(distiller(near).losses["nll"] < distiller(far).losses["nll"])
        True
    """

    name = "nll"
    needs_teacher = False

    def __init__(self, beta: float | None = None) -> None:
        super().__init__()
        if beta is not None and not 0 <= beta <= 1:
            raise UsageError(f"nll term: beta is {beta}; give a number from 0 to 1")
        self.beta = beta
        self._readout: tuple[Readout, ...] = ()

    @property
    def needs(self) -> tuple[Tap, ...]:
        """The student's distribution."""
        return (Tap(student=READOUT, teacher=""),)

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        """Take note of the student's head.

        Raises:
            UsageError: If it gives values, or bins and ``beta`` is set.
        """
        readout = student_head(self.name, student)
        if self.beta is not None and not isinstance(readout, GaussianReadout):
            raise UsageError("nll term: beta is for the head gaussian; leave it out for bins")
        self._readout = (readout,)

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        """Compare the student's distribution with the truth.

        Returns:
            A float32 scalar in nats per voxel (weighted, see above); below zero where densities
            exceed one, as they do for small sigmas.
        """
        (readout,) = self._readout
        said = student.features[READOUT]
        # The head speaks of the residual: what the truth adds to the interpolated scan.
        plain = (student.output - readout.mean(said)).detach()
        loss = -readout.log_density(said, batch.hr.float() - plain)
        if isinstance(readout, GaussianReadout):
            beta = 1.0 if self.beta is None else self.beta
            loss = loss * readout.sigma(said).detach() ** (2 * beta)
        return loss.mean()

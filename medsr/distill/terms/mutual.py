"""Mutual learning: the student and a peer learn at once, each from the truth and the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from medsr.batch import Batch
from medsr.distill.taps import Activations
from medsr.distill.term import Term
from medsr.distill.terms import TERMS
from medsr.distill.terms._networks import build_own, check_network
from medsr.errors import UsageError
from medsr.losses import build_loss
from medsr.networks import SRNetwork


@TERMS.register(
    "mutual",
    small={"peer": {"name": "RepPlain3D", "options": {"width": 16, "depth": 2, "branches": False}}},
    recipe="configs/distill/mutual.yaml",
)
class MutualTerm(Term):
    """Loss between the student and a peer that learns beside it, both ways; no teacher is needed.

    The peer belongs to the term: the student's optimiser moves it too, checkpoints hold it, the
    saved model does not. The student's part is its loss to the peer's output; the peer's is its
    loss to the student's output and to the truth. Each takes the other's output as fixed, so that
    neither is pulled to the other's mistakes, and one backward pass serves both.

    Args:
        peer: ``{name, options}`` of the peer, as in a recipe's ``network``; it may be of the
            student's kind, from which its own initial weights tell it apart, or larger.
        truth: Weight of the peer's loss to the truth beside its loss to the student's output.
        loss: Name of a loss in :data:`medsr.losses.LOSSES`.
        **options: Arguments of the loss.

    Raises:
        UsageError: The loss or the peer is unknown, or ``truth`` is not above zero.

    Source: Zhang et al., "Deep mutual learning", CVPR 2018, equations 4 and 5, with a regression
        loss in place of the Kullback-Leibler divergence.

    Examples:
        >>> import torch
        >>> from medsr.batch import Batch
        >>> from medsr.distill import Distiller
        >>> from medsr.distill.terms import MutualTerm
        >>> from medsr.networks import build_network
        >>> student = build_network("RepPlain3D", (1, 1, 4), width=16, depth=2)
        >>> peer = {"name": "RepPlain3D", "options": {"width": 16, "depth": 2}}
        >>> distiller = Distiller(student, None, [MutualTerm(peer)])
        >>> batch = Batch(torch.rand(1, 1, 8, 8, 4), torch.rand(1, 1, 8, 8, 16))
        >>> distiller(batch).losses["mutual"].backward()
        >>> all(p.grad is not None for p in distiller.terms["mutual"].parameters())  # both learn
        True
    """

    name = "mutual"
    needs_teacher = False

    def __init__(
        self, peer: Mapping[str, Any], truth: float = 1.0, loss: str = "l1", **options: Any
    ) -> None:
        super().__init__()
        if not truth > 0:
            raise UsageError(
                f"mutual term: truth is {truth}; a peer that learns nothing else needs it above 0"
            )
        self.recipe = check_network(self.name, "peer", peer)
        self.truth = float(truth)
        self.loss = build_loss(loss, **options)
        self.peer: nn.Module | None = None

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        """Build the peer, unless it is there already.

        Raises:
            UsageError: The peer is unknown or does not take its options.
        """
        if self.peer is not None:
            return
        scale = cast("SRNetwork", student).scale
        peer = build_own(self.name, "peer", self.recipe, scale)
        self.peer = peer.to(next(student.parameters(), torch.empty(0)).device)

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        """Run the peer and compare both ways.

        Args:
            student: The student's activations.
            teacher: Not used.
            batch: The scans, and the truth.

        Returns:
            A float32 scalar: student to peer, peer to student, and ``truth`` times peer to truth.

        Raises:
            RuntimeError: If :meth:`bind` was not called.
        """
        if self.peer is None:
            raise RuntimeError("mutual term: bind() must run before the first step")
        answer = self.peer(batch.lr)
        learnt: Tensor = self.loss(student.output, answer.detach())
        taught: Tensor = self.loss(answer, student.output.detach())
        true: Tensor = self.loss(answer, batch.hr)
        return learnt + taught + self.truth * true

"""``Term``: what every method of distillation is, with defaults for what it may do besides.

The methods are in :mod:`medsr.distill.terms`, the step that asks them in
:mod:`medsr.distill.distiller`.
"""

from __future__ import annotations

from torch import Tensor, nn

from medsr.batch import Batch
from medsr.distill.taps import Activations, Tap


class Term(nn.Module):
    """One method of distillation: a loss between student and teacher, without its weight.

    A term has a name and a ``forward``; everything else has a default.

    Attributes:
        name: Under which the loss is logged.
        teacher_views: Size of the teacher's self-ensemble (:mod:`medsr.distill.self_ensemble`):
            about how many flipped and transposed copies of the scan it is asked. From 2 on the
            term receives the mean of the un-flipped answers as the teacher's output, and their
            standard deviation. Features are those of the scan itself.
        needs_teacher: False lets the term work without a teacher; it then receives the student's
            own detached activations in the teacher's place.
        adversary: A network that learns against the student by :meth:`adversary_loss`, with an
            optimiser of its own; ``forward`` sees it frozen. None for none.
        adversary_learning_rate: Its peak learning rate.

    Examples:
        >>> import torch
        >>> from medsr.batch import Batch
        >>> from medsr.distill import Distiller, Term
        >>> from medsr.networks import build_network
        >>> class EdgeTerm(Term):
        ...     name = "edges"
        ...
        ...     def forward(self, student, teacher, batch):
        ...         error = student.output - teacher.output
        ...         return error.diff(dim=-1).abs().mean()
        >>> networks = [build_network("RepPlain3D", (1, 1, 4), width=w, depth=2) for w in (16, 32)]
        >>> distiller = Distiller(*networks, [EdgeTerm()])
        >>> step = distiller(Batch(torch.rand(1, 1, 8, 8, 4), torch.rand(1, 1, 8, 8, 16)))
        >>> sorted(step.losses)
        ['edges']
    """

    name: str
    teacher_views: int = 1
    needs_teacher: bool = True
    adversary_learning_rate: float = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.adversary: nn.Module | None = None

    @property
    def needs(self) -> tuple[Tap, ...]:
        """The taps whose features the term reads; empty where outputs are enough."""
        return ()

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        """Look at both networks, once and before ``needs`` is read.

        A term that runs a network itself keeps it in a tuple, so that it is no child of the term.

        Args:
            student: Network to train.
            teacher: Network to learn from; None where there is none.

        Raises:
            UsageError: The term does not go with these networks.
        """

    def setup(self, student: Activations, teacher: Activations) -> None:
        """Create what depends on the features' channels, once and before the first step.

        Args:
            student: The student's activations for a tiny scan.
            teacher: The teacher's activations for the same scan.
        """

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        """Compare student and teacher.

        Args:
            student: The student's activations.
            teacher: The teacher's activations, without gradient.
            batch: The training pairs.

        Returns:
            A scalar.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement forward()")

    def adversary_loss(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        """Return what the adversary is to minimise; only for a term that has one.

        Args:
            student: The student's activations, without gradient.
            teacher: The teacher's activations, without gradient.
            batch: The training pairs.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement adversary_loss()")

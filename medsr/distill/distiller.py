"""The distiller: one training step of a student beside a frozen teacher.

Methods of distillation live in :mod:`medsr.distill.terms`; the loop, the loss to the truth and the
optimiser in ``medsr.train``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import cast

import torch
from torch import Tensor, nn

from medsr.distill.taps import Activations, DistillTerm, FeatureTaps
from medsr.errors import UsageError

FLIPS: tuple[tuple[int, ...], ...] = tuple(
    axes for count in (1, 2, 3) for axes in combinations((-3, -2, -1), count)
)
"""The flips of a self-ensemble in the order in which they are used; seven in all."""

_PROBE_SIZE = 4  # voxels along each axis of the scan that tells the taps' channels


class Distiller(nn.Module):
    """Student, teacher and terms as one module with one forward pass.

    The module owns the student and the terms with their projections. The teacher is no child:
    it is in neither ``parameters()`` nor ``state_dict()``, it does not follow ``train()``, and it
    follows ``to()``. Building a distiller freezes the teacher's parameters and puts it in
    evaluation mode.

    Args:
        student: Network to train.
        teacher: Network to learn from, of the student's scale.
        terms: Pairs of a weight (finite, >= 0) and a :class:`~medsr.distill.taps.DistillTerm`.

    Raises:
        UsageError: If student and teacher share parameters or differ in scale, a tap does not
            exist, or a weight is out of range.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        terms: Sequence[tuple[float, DistillTerm]],
    ) -> None:
        super().__init__()
        _check_networks(student, teacher)
        self.student = student
        self.terms = nn.ModuleDict()
        self.weights: dict[str, float] = {}
        for weight, term in terms:
            if not isinstance(term, nn.Module) or not isinstance(term, DistillTerm):
                raise UsageError(f"{type(term).__name__} is no distillation term")
            if not (math.isfinite(weight) and weight >= 0):
                raise UsageError(
                    f"distillation term {term.name!r}: weight is {weight}; give zero or more"
                )
            if not 0 <= _flips(term) <= len(FLIPS):
                raise UsageError(
                    f"distillation term {term.name!r}: {_flips(term)} flips; give 0 to {len(FLIPS)}"
                )
            name = self._unused_name(term.name)
            self.weights[name] = float(weight)
            self.terms[name] = term
        # A tuple hides the teacher from nn.Module's registry of children.
        self._teacher = (teacher.requires_grad_(False).eval(),)
        taps = [tap for _, term in terms for tap in term.needs]
        self._student_taps = FeatureTaps(student, (tap.student for tap in taps), "student")
        self._teacher_taps = FeatureTaps(teacher, (tap.teacher for tap in taps), "teacher")
        self._setup_terms()

    @property
    def teacher(self) -> nn.Module:
        """The frozen teacher."""
        return self._teacher[0]

    def trainable_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters for the optimiser: the student's and those of the terms' projections."""
        return (parameter for parameter in self.parameters() if parameter.requires_grad)

    def forward(
        self, lr: Tensor, hr: Tensor, with_teacher: bool = True
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Run the student, ask the teacher, and compare them.

        Args:
            lr: Normalised low-resolution scan, (B, 1, X, Y, Z).
            hr: True volume, (B, 1, X·sx, Y·sy, Z·sz); passed on to the terms.
            with_teacher: ``False`` leaves the teacher and all terms out, for a last phase of
                training on the truth alone.

        Returns:
            The student's output and the losses of the terms by name. Each is a float32 scalar
            already multiplied by its weight, so that their sum is the distillation loss. Terms of
            weight zero are left out. The loss to the truth is the caller's to add.
        """
        active = [name for name, weight in self.weights.items() if weight > 0]
        if not with_teacher or not active:
            return self.student(lr), {}
        with self._student_taps.record() as features:
            output: Tensor = self.student(lr)
        student = Activations(output, features)
        teachers = self._ask_teacher(lr, {_flips(self.terms[name]) for name in active})
        losses = {
            name: self.weights[name]
            * self.terms[name](student, teachers[_flips(self.terms[name])], hr).float()
            for name in active
        }
        return output, losses

    def close(self) -> None:
        """Take all hooks off both networks; the distiller is not to be used afterwards."""
        self._student_taps.remove()
        self._teacher_taps.remove()

    @torch.no_grad()
    def _ask_teacher(self, lr: Tensor, counts: set[int]) -> dict[int, Activations]:
        """Ask the teacher once per flip; return its activations by the number of flips."""
        # no_grad and not inference_mode: the targets are saved for the student's backward pass.
        teacher = self.teacher.eval()
        with self._teacher_taps.record() as features:
            total: Tensor = teacher(lr)
        answers = {0: Activations(total, features)}
        for count, axes in enumerate(FLIPS[: max(counts)], start=1):
            total = total + teacher(lr.flip(axes)).flip(axes)
            if count in counts:
                answers[count] = Activations(total / (count + 1), features)
        return answers

    @torch.no_grad()
    def _setup_terms(self) -> None:
        """Show the terms what both networks give for a tiny scan, on the student's device."""
        waiting = [term for term in self.terms.values() if callable(getattr(term, "setup", None))]
        if not waiting:
            return
        student = _probe(self.student, self._student_taps)
        teacher = _probe(self.teacher, self._teacher_taps)
        for term in waiting:
            cast("Callable[[Activations, Activations], None]", term.setup)(student, teacher)

    def _unused_name(self, name: str) -> str:
        number = 2
        candidate = name
        while candidate in self.weights:
            candidate, number = f"{name}_{number}", number + 1
        return candidate

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Distiller:
        # What to(), cuda() and float() go through: the teacher follows although it is no child.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.teacher._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


def _flips(term: object) -> int:
    return int(getattr(term, "teacher_flips", 0))


def _check_networks(student: nn.Module, teacher: nn.Module) -> None:
    """Refuse pairs of networks that cannot be distilled."""
    shared = {id(p) for p in student.parameters()} & {id(p) for p in teacher.parameters()}
    if shared or student is teacher:
        raise UsageError("student and teacher share parameters; give the teacher its own copy")
    ours, theirs = getattr(student, "scale", None), getattr(teacher, "scale", None)
    if ours is not None and theirs is not None and tuple(ours) != tuple(theirs):
        raise UsageError(
            f"the student enlarges by {tuple(ours)} and the teacher by {tuple(theirs)}; "
            "both must have one scale"
        )


def _probe(network: nn.Module, taps: FeatureTaps) -> Activations:
    """Activations of an empty scan; modes of the network's modules are put back."""
    training = [(module, module.training) for module in network.modules()]
    like = next(network.parameters(), torch.empty(0))
    lr = torch.zeros((1, 1, *(_PROBE_SIZE,) * 3), device=like.device, dtype=like.dtype)
    try:
        with taps.record() as features:
            output: Tensor = network.eval()(lr)
    finally:
        for module, mode in training:
            module.training = mode
    return Activations(output, features)

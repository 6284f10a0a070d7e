"""The distiller: one training step of a student beside a frozen teacher.

Methods of distillation live in :mod:`medsr.distill.terms`; the loop, the loss to the truth, the
weights of the losses and the optimisers in ``medsr.train``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn

from medsr.batch import Batch
from medsr.distill.self_ensemble import Transform, transforms_for
from medsr.distill.taps import Activations, FeatureTaps
from medsr.distill.term import Term
from medsr.errors import UsageError

_PROBE_SIZE = 4  # voxels along each axis of the scan that tells the taps' channels


@dataclass(frozen=True)
class Distilled:
    """What a step gives.

    Attributes:
        output: The student's answer, (B, 1, X·sx, Y·sy, Z·sz).
        losses: What the student is to minimise: the terms' float32 scalars by name, unweighted.
        adversaries: What the terms' adversaries are to minimise, likewise; apart from the student.

    Examples:
        >>> import torch
        >>> from medsr.distill import Distilled
        >>> step = Distilled(torch.zeros(1, 1, 8, 8, 8), {"output": torch.tensor(0.25)})
        >>> float(2.0 * step.losses["output"])  # the caller weighs the terms
        0.5
    """

    output: Tensor
    losses: dict[str, Tensor] = field(default_factory=dict)
    adversaries: dict[str, Tensor] = field(default_factory=dict)


class Distiller(nn.Module):
    """Student, teacher and terms as one module with one forward pass.

    The module owns the student and the terms with their projections. The teacher is no child:
    it is in neither ``parameters()`` nor ``state_dict()``, it does not follow ``train()``, and it
    follows ``to()``. Building a distiller freezes the teacher's parameters and puts it in
    evaluation mode.

    Args:
        student: Network to train.
        teacher: Network to learn from, of the student's scale; None where no term needs one. A
            teacher with a true attribute ``wants_domains`` is called with the batch's domains too.
        terms: The methods. One that shares another's name gets a number: ``feature_2``.

    Raises:
        UsageError: If student and teacher share parameters or differ in scale, a tap does not
            exist or gives nothing, or a term needs a teacher and there is none.

    Examples:
        >>> import torch
        >>> from medsr.batch import Batch
        >>> from medsr.distill import Distiller, build_term
        >>> from medsr.networks import build_network
        >>> student = build_network("RepPlain3D", (1, 1, 4), width=16, depth=2)
        >>> teacher = build_network("ResNet3D", (1, 1, 4), width=32, blocks=2)
        >>> terms = [build_term("output"), build_term("feature", student="body.1", teacher="fuse")]
        >>> distiller = Distiller(student, teacher, terms)
        >>> optimiser = torch.optim.AdamW(distiller.trainable_parameters(), lr=1e-3)
        >>> batch = Batch(torch.rand(2, 1, 8, 8, 4), torch.rand(2, 1, 8, 8, 16))
        >>> step = distiller(batch)
        >>> sorted(step.losses)
        ['feature', 'output']
        >>> truth = (step.output - batch.hr).abs().mean()  # the loss to the truth is the caller's
        >>> (truth + step.losses["output"] + 0.1 * step.losses["feature"]).backward()
        >>> optimiser.step()
        >>> any(key.startswith("teacher") for key in distiller.state_dict())
        False
    """

    def __init__(
        self, student: nn.Module, teacher: nn.Module | None, terms: Sequence[Term]
    ) -> None:
        super().__init__()
        if teacher is not None:
            _check_networks(student, teacher)
        self.student = student
        self.terms = nn.ModuleDict()
        for term in terms:
            if not isinstance(term, Term):
                raise UsageError(f"{type(term).__name__} is no distillation term")
            if teacher is None and term.needs_teacher:
                raise UsageError(f"distillation term {term.name!r} needs a teacher; name one")
            self.terms[self._unused_name(term.name)] = term
        # A tuple hides the teacher from nn.Module's registry of children.
        self._teacher = () if teacher is None else (teacher.requires_grad_(False).eval(),)
        self._transforms = transforms_for(getattr(student, "scale", (1, 2, 3)))
        for term in terms:
            if term.teacher_views > len(self._transforms):
                raise UsageError(
                    f"distillation term {term.name!r}: {term.teacher_views} views of the scan; "
                    f"networks of this scale have {len(self._transforms)}"
                )
        for term in terms:
            term.bind(student, teacher)
        taps = [tap for term in terms for tap in term.needs]
        student_names = (tap.student for tap in taps if tap.student)
        self._student_taps = FeatureTaps(student, student_names, "student")
        self._teacher_taps = None
        if teacher is not None:
            teacher_names = (tap.teacher for tap in taps if tap.teacher)
            self._teacher_taps = FeatureTaps(teacher, teacher_names, "teacher")
        self._setup_terms()

    @property
    def teacher(self) -> nn.Module | None:
        """The frozen teacher; None where there is none."""
        return self._teacher[0] if self._teacher else None

    @property
    def adversaries(self) -> dict[str, nn.Module]:
        """The networks of the terms that learn against the student, by the terms' names."""
        found = {name: self.term(name).adversary for name in self.terms}
        return {name: network for name, network in found.items() if network is not None}

    def term(self, name: str) -> Term:
        """Return the term of this name, of ``terms``."""
        return cast("Term", self.terms[name])

    def trainable_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters for the student's optimiser: its own and those of the terms' projections."""
        adversary_ids = {
            id(p) for network in self.adversaries.values() for p in network.parameters()
        }
        return (p for p in self.parameters() if p.requires_grad and id(p) not in adversary_ids)

    def forward(self, batch: Batch, active: Collection[str] | None = None) -> Distilled:
        """Run the student, ask the teacher, and compare them.

        Args:
            batch: Training pairs.
            active: Names of the terms to ask; all where None. With none at all the teacher is not
                asked either, which makes a last phase of training on the truth alone.

        Returns:
            The student's output, the losses of the terms and those of their adversaries. The loss
            to the truth is the caller's to add.
        """
        names = [name for name in self.terms if active is None or name in active]
        if not names:
            return Distilled(self.student(batch.lr))
        with self._student_taps.record() as features:
            output: Tensor = self.student(batch.lr)
        student = Activations(output, features)
        counts = {self.term(name).teacher_views for name in names}
        teachers = self._ask_teacher(batch, counts, student)
        result = Distilled(output)
        for name in names:
            term = self.term(name)
            teacher = teachers[term.teacher_views]
            adversary = term.adversary
            if adversary is None:
                result.losses[name] = term(student, teacher, batch).float()
                continue
            # The student's loss goes through the adversary but leaves no gradient in it.
            adversary.requires_grad_(False)
            result.losses[name] = term(student, teacher, batch).float()
            adversary.requires_grad_(True)
            loss = term.adversary_loss(student.detached(), teacher, batch)
            result.adversaries[name] = loss.float()
        return result

    def close(self) -> None:
        """Take all hooks off both networks; the distiller is not to be used afterwards."""
        self._student_taps.remove()
        if self._teacher_taps is not None:
            self._teacher_taps.remove()

    @torch.no_grad()
    def _ask_teacher(
        self, batch: Batch, counts: set[int], student: Activations
    ) -> dict[int, Activations]:
        """Ask the teacher once per transform; return its activations by how many there were."""
        if self.teacher is None or self._teacher_taps is None:
            return dict.fromkeys(counts, student.detached())
        # no_grad and not inference_mode: the targets are saved for the student's backward pass.
        teacher = self.teacher.eval()
        extra = (batch.domains,) if getattr(teacher, "wants_domains", False) else ()

        def ask(transform: Transform) -> Tensor:
            return transform.undo(teacher(transform.apply(batch.lr), *extra))

        with self._teacher_taps.record() as features:
            first = ask(self._transforms[0])
        answers = {1: Activations(first, features)}
        total, squares = torch.zeros_like(first), torch.zeros_like(first)
        for count, transform in enumerate(self._transforms[1 : max(counts)], start=2):
            # Differences to the first answer: squares of the answers would cancel.
            difference = ask(transform) - first
            total, squares = total + difference, squares + difference.square()
            if count in counts:
                mean = total / count
                spread = (squares / count - mean.square()).clamp_min(0).sqrt()
                answers[count] = Activations(first + mean, features, spread)
        return answers

    @torch.no_grad()
    def _setup_terms(self) -> None:
        """Show the terms what both networks give for a tiny scan, on the student's device.

        Taps that give nothing are found here, before the first step.
        """
        waiting = [term for term in map(self.term, self.terms) if type(term).setup != Term.setup]
        teacher_names = () if self._teacher_taps is None else self._teacher_taps.names
        if not (waiting or self._student_taps.names or teacher_names):
            return
        student = teacher = _probe(self.student, self._student_taps)
        if self.teacher is not None and self._teacher_taps is not None:
            teacher = _probe(self.teacher, self._teacher_taps)
        for term in waiting:
            term.setup(student, teacher)

    def _unused_name(self, name: str) -> str:
        number = 2
        candidate = name
        while candidate in self.terms:
            candidate, number = f"{name}_{number}", number + 1
        return candidate

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Distiller:
        # What to(), cuda() and float() go through: the teacher follows although it is no child.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.teacher is not None:
            self.teacher._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


def _check_networks(student: nn.Module, teacher: nn.Module) -> None:
    """Refuse pairs of networks that cannot be distilled."""
    shared = {id(p) for p in student.parameters()} & {id(p) for p in teacher.parameters()}
    if shared or student is teacher:
        raise UsageError("student and teacher share parameters; give the teacher its own copy")
    student_scale, teacher_scale = getattr(student, "scale", None), getattr(teacher, "scale", None)
    if (
        student_scale is not None
        and teacher_scale is not None
        and tuple(student_scale) != tuple(teacher_scale)
    ):
        raise UsageError(
            f"the student enlarges by {tuple(student_scale)} and the teacher by "
            f"{tuple(teacher_scale)}; both must have one scale"
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
    taps.check(features)
    return Activations(output, features)

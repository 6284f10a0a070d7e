"""Student branches: a teacher is trained so that a student can go on from its features.

The network in training is the teacher-to-be. What a student later learns from it is an ordinary
recipe with this teacher.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from medsr.batch import Batch
from medsr.distill.taps import Activations, Tap
from medsr.distill.term import Term
from medsr.distill.terms import TERMS
from medsr.distill.terms._features import projection
from medsr.distill.terms._networks import build_own, check_network
from medsr.errors import UsageError
from medsr.losses import build_loss
from medsr.networks import SRNetwork


@TERMS.register(
    "student_branches",
    small={
        "student": {"name": "RepPlain3D", "options": {"width": 16, "depth": 2, "branches": False}},
        "taps": {"body.1": "body.0"},
    },
    recipe="configs/teachers/mr-z4-friendly.yaml",
)
class StudentBranchesTerm(Term):
    """Loss of student-shaped branches that grow out of the network's features.

    At each tap the network's features go through a 1³ convolution into a copy of the student, in
    the place of the copy's own features, and its later layers make a volume of them. The branch is
    to meet the truth and the network's own output. Its gradient reaches the network through the
    tapped features, which so become what the student's later layers can use.

    The network's output is held fixed as a target, so that no branch pulls it to its own mistakes;
    the layers of a copy before its tap stay as they are, since nothing reads what they give (they
    are still run, which costs less than a pass of the student). Branches and projections stay with
    the term; the model that is saved is the network alone.

    Args:
        student: ``{name, options}`` of the student, as in a recipe's ``network``. It must work on
            the grid on which the network does.
        taps: Submodules of the student by submodules of the network, for example
            ``{"body.4": "body.2", "body.9": "body.5"}``; one branch each.
        truth: Weight of the loss to the truth.
        own: Weight of the loss to the network's own output; 0 leaves it out.
        loss: Name of a loss in :data:`medsr.losses.LOSSES`.
        **options: Arguments of the loss.

    Raises:
        UsageError: There is no tap, a weight is negative or both are zero, the student or the loss
            is unknown, or the student cannot take the network's features.

    Source: Park et al., "Learning student-friendly teacher networks for knowledge distillation",
        NeurIPS 2021, section 3.2 (L_KL and L_CE of the branches, here with a regression loss; that
        the network's output is held fixed is this implementation's choice).

    Examples:
        >>> import torch
        >>> from medsr.batch import Batch
        >>> from medsr.distill import Distiller
        >>> from medsr.distill.terms import StudentBranchesTerm
        >>> from medsr.networks import build_network
        >>> teacher = build_network("ResNet3D", (1, 1, 4), width=32, blocks=2)  # in training
        >>> student = {"name": "RepPlain3D", "options": {"width": 16, "depth": 2}}
        >>> term = StudentBranchesTerm(student, taps={"body.1": "body.0"})
        >>> distiller = Distiller(teacher, None, [term])
        >>> batch = Batch(torch.rand(1, 1, 8, 8, 4), torch.rand(1, 1, 8, 8, 16))
        >>> bool(distiller(batch).losses["student_branches"] > 0)
        True
    """

    name = "student_branches"
    needs_teacher = False

    def __init__(
        self,
        student: Mapping[str, Any],
        taps: Mapping[str, str],
        truth: float = 1.0,
        own: float = 1.0,
        loss: str = "l1",
        **options: Any,
    ) -> None:
        super().__init__()
        if not taps:
            raise UsageError("student_branches term: taps is empty; name at least one")
        if min(truth, own) < 0 or max(truth, own) == 0:
            raise UsageError(
                f"student_branches term: weights are truth {truth} and own {own}; "
                "neither may be negative nor both zero"
            )
        self.student = check_network(self.name, "student", student)
        self.taps = dict(taps)
        self.truth, self.own = float(truth), float(own)
        self.loss = build_loss(loss, **options)
        self.branches = nn.ModuleList()

    @property
    def needs(self) -> tuple[Tap, ...]:
        """The taps in the network; nothing of a teacher."""
        return tuple(Tap(student=place, teacher="") for place in self.taps)

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        """Build a copy of the student for each tap.

        Raises:
            UsageError: The student is unknown, does not take its options, or has no such tap.
        """
        like = next(student.parameters(), torch.empty(0))
        self._scale = cast("SRNetwork", student).scale
        for place in self.taps.values():
            network = build_own(self.name, "student", self.student, self._scale)
            self.branches.append(_Branch(network, place).to(like.device))

    def setup(self, student: Activations, teacher: Activations) -> None:
        """Create the projections for the network's widths, and freeze what stays unused.

        Raises:
            UsageError: The student works on another grid than the network.
        """
        shape = student.output.shape
        size = [n // factor for n, factor in zip(shape[2:], self._scale, strict=True)]
        scan = student.output.new_zeros((1, 1, *size))
        for place, branch in zip(self.taps, self._branches(), strict=True):
            branch.fit(scan, student.features[place], place)

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        """Run the branches on the network's features.

        Args:
            student: The network's activations.
            teacher: Not used.
            batch: The scans, and the truth.

        Returns:
            A float32 scalar, the mean over branches; zero when all give the truth and the
            network's output.

        Raises:
            RuntimeError: If :meth:`bind` was not called.
        """
        if not self.branches:
            raise RuntimeError("student_branches term: bind() must run before the first step")
        target = student.output.detach()
        losses = []
        for place, branch in zip(self.taps, self._branches(), strict=True):
            answer = branch(batch.lr, student.features[place])
            losses.append(self.truth * self.loss(answer, batch.hr))
            if self.own:
                losses.append(self.own * self.loss(answer, target))
        return torch.stack(losses).sum() / len(self.branches)

    def _branches(self) -> list[_Branch]:
        return [cast("_Branch", branch) for branch in self.branches]


class _Branch(nn.Module):
    """A student that takes another network's features in the place of its own at one tap."""

    def __init__(self, network: nn.Module, place: str):
        super().__init__()
        modules = dict(network.named_modules())
        if not place or place not in modules:
            offered = ", ".join(getattr(network, "taps", ()))
            raise UsageError(
                f"student_branches term: {place!r} is no submodule of the student "
                f"{type(network).__name__}; it offers {offered}"
            )
        self.network = network
        self.projection: nn.Conv3d | None = None
        self._given: Tensor | None = None
        self._found: tuple[int, ...] = ()
        modules[place].register_forward_hook(self._replace)

    def forward(self, lr: Tensor, features: Tensor) -> Tensor:
        """Return the student's answer (B, 1, X·sx, Y·sy, Z·sz) with these features at its tap."""
        if self.projection is None:
            raise RuntimeError("student_branches term: setup() must run before the first step")
        self._given = self.projection(features)
        try:
            answer: Tensor = self.network(lr)
        finally:
            self._given = None
        return answer

    def fit(self, scan: Tensor, features: Tensor, place: str) -> None:
        """Create the projection for features like these, and freeze the layers before the tap."""
        with torch.no_grad():
            self.network(scan)
        if self._found[2:] != tuple(features.shape[2:]):
            raise UsageError(
                f"student_branches term: of a scan of {tuple(scan.shape[2:])} voxels the network "
                f"has {tuple(features.shape[2:])} cells at {place!r} and the student "
                f"{self._found[2:]}; give both networks one fold"
            )
        if self.projection is None:
            layer = projection(features.shape[1], self._found[1])
            self.projection = layer.to(features.device)
        parameters = list(self.network.parameters())
        with torch.enable_grad():
            total = self(scan, torch.zeros_like(features)).sum()
        reached = torch.autograd.grad(total, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, reached, strict=True):
            parameter.requires_grad_(gradient is not None)

    def _replace(self, module: nn.Module, inputs: object, output: Tensor) -> Tensor | None:
        self._found = tuple(output.shape)
        return self._given

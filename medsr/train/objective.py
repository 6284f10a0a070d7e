"""What a training step minimises: losses against the truth, and distillation where asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn

from medsr.distill import Distiller, build_term
from medsr.errors import CheckpointError, UsageError
from medsr.losses import build_loss
from medsr.model import SRModel
from medsr.networks import SRNetwork, build_network
from medsr.recipe import Recipe


class Objective(nn.Module):
    """The student, its losses and its distillation terms as one module with one forward pass.

    The state dictionary holds the student and the terms' projections, never the teacher.

    Args:
        student: Network to train.
        losses: Loss modules by name, each with its weight.
        distiller: Wraps the same student; None without a teacher.
    """

    def __init__(
        self,
        student: SRNetwork,
        losses: dict[str, tuple[float, nn.Module]],
        distiller: Distiller | None = None,
    ):
        super().__init__()
        self.weights = {name: weight for name, (weight, _) in losses.items()}
        self.losses = nn.ModuleDict({name: loss for name, (_, loss) in losses.items()})
        if distiller is None:
            self.student = student
        self.distiller = distiller

    @property
    def network(self) -> SRNetwork:
        """The student."""
        return cast("SRNetwork", self.student if self.distiller is None else self.distiller.student)

    def trainable_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters for the optimiser: the student's and the terms' projections."""
        return (p for p in self.parameters() if p.requires_grad)

    def forward(self, lr: Tensor, hr: Tensor) -> dict[str, Tensor]:
        """Return every weighted loss by name, float32 scalars whose sum is to be minimised.

        Args:
            lr: Low-resolution patches ``(B, 1, X, Y, Z)``.
            hr: Truth ``(B, 1, X·sx, Y·sy, Z·sz)``.
        """
        named: dict[str, Tensor] = {}
        if self.distiller is None:
            sr = self.student(lr)
        else:
            sr, named = self.distiller(lr, hr)
        values = {name: self.weights[name] * loss(sr, hr) for name, loss in self.losses.items()}
        return values | {f"distill_{name}": value for name, value in named.items()}


def build_objective(recipe: Recipe) -> Objective:
    """Build student, teacher, losses and terms; the recipe's seed decides the initial weights.

    Raises:
        CheckpointError: The weights to start from do not fit.
        MedsrError: A network, loss or term does not take its options.
    """
    torch.manual_seed(recipe.seed)
    student = build_network(
        recipe.network.name, recipe.degradation.factor, **recipe.network.options
    )
    if recipe.network.start is not None:
        warm_start(student, recipe.network.start)
    losses = {
        term.name: (term.weight, build_loss(term.name, **term.options)) for term in recipe.losses
    }
    if len(losses) != len(recipe.losses):
        raise UsageError("losses: a name is given twice; join them into one with a summed weight")
    if recipe.teacher is None:
        return Objective(student, losses)
    terms = [(term.weight, build_term(term.name, **term.options)) for term in recipe.terms]
    teacher = SRModel.load(recipe.teacher).module
    teacher = teacher.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return Objective(student, losses, Distiller(student, teacher, terms))


def warm_start(network: SRNetwork, start: str) -> None:
    """Take over the weights of a model (folder or shipped name).

    A network with training-time branches takes a merged model's kernels into its plain branch and
    silences the others, so that it starts as exactly the same function.
    """
    state = SRModel.load(start).module.state_dict()
    own = network.state_dict()
    fitting = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
    if len(fitting) != len(state):
        raise CheckpointError(
            f"network.start: {len(state) - len(fitting)} of {len(state)} weights do not fit "
            "network.options; give the options the model was trained with"
        )
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name in fitting:
                parameter.copy_(fitting[name])
            elif name.rpartition(".")[2] in ("expand", "edge_mix", "identity"):
                parameter.zero_()

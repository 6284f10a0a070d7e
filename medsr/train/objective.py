"""What a training step minimises: losses against the truth, and distillation where asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn

from medsr.distill import Distiller, build_term
from medsr.errors import CheckpointError, RecipeError
from medsr.losses import build_loss
from medsr.model import SRModel
from medsr.networks import RepPlain3D, SRNetwork, build_network
from medsr.networks.grow import grow
from medsr.recipe import Recipe, at_key


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
        ModelError: The teacher cannot be loaded.
        RecipeError: A network, loss or term is unknown or does not take its options.
    """
    torch.manual_seed(recipe.seed)
    with at_key("network"):
        student = build_network(
            recipe.network.name, recipe.degradation.factor, **recipe.network.options
        )
    if recipe.network.start is not None:
        warm_start(student, recipe.network.start)
    losses: dict[str, tuple[float, nn.Module]] = {}
    for number, loss in enumerate(recipe.losses):
        if loss.name in losses:
            raise RecipeError(
                f"recipe: losses.{number}: {loss.name} is given twice; join them into one"
            )
        with at_key(f"losses.{number}"):
            losses[loss.name] = (loss.weight, build_loss(loss.name, **loss.options))
    if recipe.teacher is None:
        return Objective(student, losses)
    terms = []
    for number, term in enumerate(recipe.terms):
        with at_key(f"terms.{number}"):
            terms.append((term.weight, build_term(term.name, **term.options)))
    teacher = SRModel.load(recipe.teacher).module
    teacher = teacher.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    for axis, (size, *folds) in enumerate(
        zip(recipe.patches.size, student.multiple_of, teacher.multiple_of, strict=True)
    ):
        if any(size % fold for fold in folds):
            raise RecipeError(
                f"recipe: patches.size.{axis}: {size} is no multiple of the networks' folds "
                f"{folds}; their features could not be compared"
            )
    with at_key("terms"):
        distiller = Distiller(student, teacher, terms)
    return Objective(student, losses, distiller)


def warm_start(network: SRNetwork, start: str) -> None:
    """Take over the weights of a model (folder or shipped name).

    A network with training-time branches takes a merged model's kernels into its plain branch and
    silences the others; a larger ``RepPlain3D`` is grown from a smaller one. Either way it starts
    as exactly the same function.

    Raises:
        CheckpointError: The weights do not fit the network.
    """
    module = SRModel.load(start).module
    plain = isinstance(module, RepPlain3D) and isinstance(network, RepPlain3D)
    if plain and _size(module) != _size(network):
        try:
            grow(cast("RepPlain3D", module), cast("RepPlain3D", network))
        except ValueError as error:
            raise CheckpointError(f"network.start: {error}; mend network.options") from error
        return
    state = module.state_dict()
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


def _size(network: SRNetwork) -> tuple[int, int]:
    """Width and depth of a plain network."""
    plain = cast("RepPlain3D", network)
    return plain.width, len(plain.body)

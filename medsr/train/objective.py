"""What a training step minimises: losses against the truth, and distillation where asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from medsr.batch import Batch
from medsr.distill import Distiller, Term, build_term
from medsr.distill.pool import TeacherPool
from medsr.errors import CheckpointError, RecipeError
from medsr.losses import build_loss
from medsr.networks import SRNetwork, build_network
from medsr.networks.adapters import add_adapters
from medsr.networks.dam import DAM3D
from medsr.networks.grow import grow
from medsr.networks.heads import READOUT, with_head
from medsr.networks.knots import KnotPlain3D, knots_from
from medsr.networks.repplain import RepPlain3D
from medsr.recipe import Recipe, Weight, at_key
from medsr.train.teachers import load_named, load_teacher
from medsr.train.weights import LossWeights, gradient_cosines


class Objective(nn.Module):
    """The student, its losses and its distillation terms as one module with one forward pass.

    The state dictionary holds the student, the terms' projections and adversaries, and learned
    weights; never the teacher.

    Args:
        student: Network to train.
        losses: Loss modules against the truth by name.
        weights: Weight of every loss and, under ``distill_NAME``, of every term.
        distiller: Wraps the same student; None without terms.

    Attributes:
        cosines: Between the gradients of the losses, when they were last compared.
    """

    def __init__(
        self,
        student: SRNetwork,
        losses: Mapping[str, nn.Module],
        weights: Mapping[str, Weight],
        distiller: Distiller | None = None,
    ):
        super().__init__()
        self.losses = nn.ModuleDict(dict(losses))
        if distiller is None:
            self.student = student
        self.distiller = distiller
        self.weights = LossWeights(weights)
        self.cosines: dict[str, float] = {}

    @property
    def network(self) -> SRNetwork:
        """The student."""
        return cast("SRNetwork", self.student if self.distiller is None else self.distiller.student)

    @property
    def adversaries(self) -> list[tuple[nn.Module, float]]:
        """Networks that learn against the student, each with its learning rate."""
        if self.distiller is None:
            return []
        return [
            (network, self.distiller.term(name).adversary_learning_rate)
            for name, network in self.distiller.adversaries.items()
        ]

    def trainable_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters for the student's optimiser: all but those of adversaries."""
        adversary_ids = {id(p) for network, _ in self.adversaries for p in network.parameters()}
        return (p for p in self.parameters() if p.requires_grad and id(p) not in adversary_ids)

    def forward(
        self,
        lr: Tensor,
        hr: Tensor,
        domains: tuple[str, ...] = (),
        progress: float = 0.0,
        compare: bool = False,
        condition: Tensor | None = None,
        sampling: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return every weighted loss by name, float32 scalars whose sum is to be minimised.

        Losses of adversaries (``adversary_NAME``) are among them: they reach the adversary's
        parameters alone, and no other loss does.

        Args:
            lr: Low-resolution patches ``(B, 1, X, Y, Z)``.
            hr: Truth ``(B, 1, X·sx, Y·sy, Z·sz)``.
            domains: What each patch shows, see :class:`medsr.batch.Batch`.
            progress: Share of the run that is over, from 0 to 1.
            compare: Also compare the losses' gradients and keep the :attr:`cosines`.
            condition: See :class:`medsr.batch.Batch`.
            sampling: See :class:`medsr.batch.Batch`.

        Raises:
            RecipeError: A loss or term cannot do with patches of this size.
        """
        active = self.weights.active(progress)
        values: dict[str, Tensor] = {}
        adversaries: dict[str, Tensor] = {}
        if self.distiller is None:
            sr = self.student(lr) if condition is None else self.student(lr, condition)
        else:
            terms = [name for name in self.distiller.terms if f"distill_{name}" in active]
            with _on_patches("terms"):
                result = self.distiller(Batch(lr, hr, domains), terms)
            sr = result.output
            values = {f"distill_{name}": loss for name, loss in result.losses.items()}
            adversaries = {f"adversary_{name}": v for name, v in result.adversaries.items()}
        if sampling is not None:
            sr = sr @ sampling.T
        with _on_patches("losses"):
            truth = {name: loss(sr, hr) for name, loss in self.losses.items() if name in active}
        weighed: dict[str, Tensor] = self.weights(truth | values, progress)
        if compare and len(weighed) > 1:
            # Here, before a launcher's wrapper sees the losses and counts backward passes.
            with torch.autocast(sr.device.type, enabled=False):
                trained = [p for p in self.network.parameters() if p.requires_grad]
                self.cosines = gradient_cosines(weighed, trained)
        return weighed | adversaries


def build_objective(recipe: Recipe, teacher: nn.Module | None = None) -> Objective:
    """Build student, teacher, losses and terms; the recipe's seed decides the initial weights.

    Args:
        recipe: What to build.
        teacher: Network that teaches in the place of the recipe's teacher.

    Raises:
        CheckpointError: The weights to start from do not fit.
        ModelError: The teacher cannot be loaded.
        RecipeError: A network, loss or term is unknown or does not take its options.
    """
    torch.manual_seed(recipe.seed)
    student = build_student(recipe, start=recipe.network.start)
    losses: dict[str, nn.Module] = {}
    weights: dict[str, Weight] = {}
    for number, loss in enumerate(recipe.losses):
        if loss.name in losses:
            raise RecipeError(
                f"recipe: losses.{number}: {loss.name} is given twice; join them into one"
            )
        with at_key(f"losses.{number}"):
            losses[loss.name] = build_loss(loss.name, **loss.options)
        weights[loss.name] = loss.weight
    if not recipe.terms:
        _check_head(student, recipe, [])
        return Objective(student, losses, weights)
    terms = []
    for number, term in enumerate(recipe.terms):
        with at_key(f"terms.{number}"):
            terms.append(build_term(term.name, **term.options))
    teacher = load_teacher(recipe) if teacher is None else teacher
    if teacher is not None:
        teacher.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        _check_grids(student, cast("SRNetwork", teacher), recipe)
    with at_key("terms"):
        if isinstance(teacher, TeacherPool) and any(tap.teacher for t in terms for tap in t.needs):
            raise RecipeError(
                "several teachers have one common output and no common features; "
                "take terms that read outputs, such as output"
            )
        distiller = Distiller(student, teacher, terms)
    _check_head(student, recipe, terms)
    for name, term in zip(distiller.terms, recipe.terms, strict=True):
        weights[f"distill_{name}"] = term.weight
    return Objective(student, losses, weights, distiller)


def build_student(recipe: Recipe, *, start: str | None) -> SRNetwork:
    """Build the network to train, with adapters where the recipe asks for them.

    Args:
        recipe: Network, scale and adapters.
        start: Folder or name of the model to start from; None leaves the initial weights.

    Raises:
        CheckpointError: The weights to start from do not fit.
        RecipeError: The network is unknown or does not take its options, or the adapters theirs.
    """
    network, adapters = recipe.network, recipe.network.adapters
    with at_key("network"):
        student = build_network(network.name, recipe.degradation.factor, **network.options)
    if start is not None:
        warm_start(student, start)
    if adapters is None:
        return student
    student = student.merged()
    with at_key("network.adapters"):
        add_adapters(student, adapters.rank, adapters.alpha, adapters.layers)
    return student


def _check_head(student: SRNetwork, recipe: Recipe, terms: Sequence[Term]) -> None:
    """Refuse a head whose sigma nothing teaches; adapters start from one that was taught."""
    taught = any(tap.student == READOUT for term in terms for tap in term.needs)
    if student.readout is not None and recipe.network.adapters is None and not taught:
        raise RecipeError(
            "recipe: network.options.head: no term teaches the distribution; add the term nll"
        )


def _check_grids(student: SRNetwork, teacher: SRNetwork, recipe: Recipe) -> None:
    """Refuse patches on which the networks' grids of features do not meet."""
    for axis, (size, *folds) in enumerate(
        zip(recipe.patches.size, student.multiple_of, teacher.multiple_of, strict=True)
    ):
        if any(size % fold for fold in folds):
            raise RecipeError(
                f"recipe: patches.size.{axis}: {size} is no multiple of the networks' folds "
                f"{folds}; their features could not be compared"
            )


def warm_start(network: SRNetwork, start: str) -> None:
    """Take over the weights of a model (folder or shipped name).

    A network with training-time branches takes a merged model's kernels into its plain branch and
    silences the others; a larger ``RepPlain3D`` is grown from a smaller one; the student within a
    ``DAM3D`` takes the weights of a student, to which the fresh trunk adds nothing. Each way it
    starts as exactly the same function. A network that says distributions starts
    from a model that gives values with these as its mean (for bins up to what they resolve).

    Raises:
        CheckpointError: The weights do not fit the network.
    """
    module = load_named(start, "network.start").module
    if isinstance(network, DAM3D) and not isinstance(module, DAM3D):
        network = network.pupil
    if network.readout is not None and module.readout is None:
        try:
            module = with_head(module, network.head_options)
        except ValueError as error:
            raise CheckpointError(f"network.start: {error}; choose another start") from error
    if isinstance(network, KnotPlain3D) and not isinstance(module, KnotPlain3D):
        module = knots_from(cast("RepPlain3D", module), network.scale[2])
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


@contextmanager
def _on_patches(key: str) -> Iterator[None]:
    """Name the recipe's key where patches turn out too small, or not to divide, in a step."""
    try:
        yield
    except ValueError as error:
        raise RecipeError(f"recipe: {key}: {error}") from error


def _size(network: SRNetwork) -> tuple[int, int]:
    """Width and depth of a plain network."""
    plain = cast("RepPlain3D", network)
    return plain.width, len(plain.body)

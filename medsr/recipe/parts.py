"""The parts of a recipe: frozen dataclasses that pydantic validates, one for each key.

Those about scans are in ``data``, about teachers in ``teaching``; the whole is in ``recipe``,
reading in ``read``.
"""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag
from pydantic.dataclasses import dataclass

PositiveTriple = tuple[
    Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]
]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]

_CONFIG = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=_CONFIG)
class PatchRecipe:
    """What one training step sees.

    Attributes:
        size: Patch in low-resolution voxels.
        batch: Patches a step (per process).
        foreground: Share of patches centred on the body.
        intensity_jitter: Intensities are multiplied by 1 ± this.
        flips: Flip along each axis with probability one half.
        rotations: Turn by multiples of 90° in plane (all planes for isotropic factors).

    Examples:
        >>> from medsr.recipe import PatchRecipe
        >>> patches = PatchRecipe(size=(32, 32, 8), batch=4)  # low-resolution voxels
        >>> patches.flips, patches.foreground
        (True, 0.9)
    """

    size: PositiveTriple = (24, 24, 12)
    batch: Count = 8
    foreground: Fraction = 0.9
    intensity_jitter: Fraction = 0.1
    flips: bool = True
    rotations: bool = True


@dataclass(frozen=True, config=_CONFIG)
class AdapterRecipe:
    """Low-rank adapters, the only parameters of the network that are then trained.

    Attributes:
        rank: Rank of what is added to each kernel.
        alpha: What is added is multiplied by ``alpha / rank``.
        layers: Patterns of module names; convolutions that fit one of them are adapted.

    Examples:
        >>> from medsr.recipe import AdapterRecipe, NetworkRecipe
        >>> adapters = AdapterRecipe(rank=4, layers=("body.*",))
        >>> NetworkRecipe("RepPlain3D", start="mr-z4", adapters=adapters).adapters.rank
        4
    """

    rank: Count = 4
    alpha: Positive = 4.0
    layers: tuple[str, ...] = ("*",)


@dataclass(frozen=True, config=_CONFIG)
class NetworkRecipe:
    """A network by name and its options.

    Attributes:
        name: Name in ``medsr.networks.NETWORKS``.
        options: The network's own arguments, without the scale.
        start: Folder or name of a model whose weights are taken as the start; None for none. A
            larger ``RepPlain3D`` is grown from a smaller one.
        adapters: Keep the start's weights and train low-rank adapters of its convolutions, which
            are merged at the end; None to train all weights.

    Examples:
        >>> from medsr.networks import build_network
        >>> from medsr.recipe import NetworkRecipe
        >>> chosen = NetworkRecipe("RepPlain3D", {"width": 32, "depth": 8})
        >>> build_network(chosen.name, (1, 1, 4), **chosen.options).halo
        (10, 10, 10)
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    start: str | None = None
    adapters: AdapterRecipe | None = None

    def __post_init__(self) -> None:
        """Check what no single key can show."""
        if self.adapters is not None and self.start is None:
            raise ValueError("adapters change a trained model: give start too")


@dataclass(frozen=True, config=_CONFIG)
class Ramp:
    """A weight that moves linearly from one value to another while the run goes on.

    Attributes:
        start: Weight until ``begin``, from 0.
        end: Weight from ``until`` on, from 0; at 0 the loss is left out, a teacher not asked.
        begin: Share of the run's steps at which it starts to move.
        until: Share of the run's steps at which it arrives, at least ``begin``.

    Examples:
        >>> from medsr.recipe import Ramp, WeightedTerm
        >>> fading = Ramp(start=1.0, end=0.0, begin=0.5)  # the teacher falls silent by the end
        >>> WeightedTerm("output", weight=fading).weight.until
        1.0
    """

    start: NotNegative
    end: NotNegative
    begin: Fraction = 0.0
    until: Fraction = 1.0

    def __post_init__(self) -> None:
        """Check what no single key can show."""
        if self.until < self.begin:
            raise ValueError("until is below begin")


@dataclass(frozen=True, config=_CONFIG)
class Learned:
    """A weight that is learned with the network, by the loss's own uncertainty.

    Attributes:
        learned: Weight at the start.

    Examples:
        >>> from medsr.recipe import Learned, WeightedTerm
        >>> losses = (WeightedTerm("l1", Learned()), WeightedTerm("gradient", Learned(0.1)))
        >>> [loss.weight.learned for loss in losses]  # the weights that the run starts from
        [1.0, 0.1]
    """

    learned: Positive = 1.0


def _kind_of_weight(value: Any) -> str:
    if isinstance(value, Learned) or (isinstance(value, dict) and "learned" in value):
        return "<learned>"
    return "<ramp>" if isinstance(value, Ramp | dict) else "<fixed>"


Weight = Annotated[
    Annotated[Positive, Tag("<fixed>")]
    | Annotated[Ramp, Tag("<ramp>")]
    | Annotated[Learned, Tag("<learned>")],
    Discriminator(_kind_of_weight),
]
"""A number, a :class:`Ramp` or a :class:`Learned` weight."""


@dataclass(frozen=True, config=_CONFIG)
class WeightedTerm:
    """A loss or distillation term by name, with its weight and options.

    Examples:
        >>> from medsr.losses import build_loss
        >>> from medsr.recipe import WeightedTerm
        >>> term = WeightedTerm("charbonnier", weight=0.5, options={"epsilon": 1e-2})
        >>> build_loss(term.name, **term.options).epsilon
        0.01
    """

    name: str
    weight: Weight = 1.0
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, config=_CONFIG)
class OptimiserRecipe:
    """Muon for hidden kernels and AdamW for the rest: warm-up, plateau, cosine.

    Attributes:
        learning_rate: AdamW's peak learning rate.
        muon_learning_rate: Muon's peak learning rate, on AdamW's scale (its updates have the same
            root mean square); 0 leaves all parameters to AdamW.
        plateau: Share of the steps at the peak before the cosine begins.
        final_share: The cosine ends at this share of the peaks.
        warmup_steps: Linear warm-up.
        weight_decay: AdamW's decoupled weight decay.
        muon_weight_decay: Muon's decoupled weight decay.
        betas: Adam's momenta.
        clip_norm: Gradients are scaled to at most this norm.
        ema_decay: Decay of the moving average of the weights, which is what is validated and
            saved; 0 switches it off.

    Examples:
        >>> from medsr.recipe import OptimiserRecipe
        >>> adamw_alone = OptimiserRecipe(learning_rate=5e-4, muon_learning_rate=0)
        >>> adamw_alone.warmup_steps, adamw_alone.ema_decay
        (50, 0.99)
    """

    learning_rate: Positive = 1e-3
    muon_learning_rate: NotNegative = 1e-3
    plateau: BelowOne = 0.3
    final_share: Fraction = 0.01
    warmup_steps: Annotated[int, Field(ge=0)] = 50
    weight_decay: NotNegative = 1e-4
    muon_weight_decay: NotNegative = 0.01
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.99)
    clip_norm: Positive = 0.5
    ema_decay: BelowOne = 0.99


@dataclass(frozen=True, config=_CONFIG)
class LoopRecipe:
    """How long to train, and how often to look.

    Attributes:
        steps: Optimiser steps in all.
        precision: ``auto`` takes bf16 where the processor or GPU has it.
        validate_every: Steps between validations on whole scans.
        checkpoint_every: Steps between checkpoints.
        log_every: Steps between lines of the log.

    Examples:
        >>> from medsr.recipe import LoopRecipe
        >>> loop = LoopRecipe(steps=10_000, validate_every=2_000)
        >>> loop.steps // loop.validate_every  # validations
        5
    """

    steps: Count = 4000
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    validate_every: Count = 1000
    checkpoint_every: Count = 250
    log_every: Count = 50

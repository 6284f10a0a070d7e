"""What is decided about one scan before any network runs: the model, the grid, the memory.

Only the scan's grid and modality are looked at, so a scan can be decided upon from its header.
The rules by which grids and models are chosen are in ``medsr.infer.choose``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil

from medsr import zoo
from medsr._version import __version__
from medsr.errors import MemoryLimitError, NoUncertaintyError
from medsr.geometry import Geometry
from medsr.infer import choose
from medsr.infer.axes import AxisOrder
from medsr.infer.options import UpscaleOptions
from medsr.model import SRModel
from medsr.volume import Derivation, Modality

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

RESERVE_BYTES = 128 * 2**20
"""Kept free under a memory limit for kernels and libraries that load while the network runs."""

SLOW = (
    "the memory limit of %.0f MiB leaves the network little room, and it will take much longer "
    "than with more; raise --max-memory, or close other programs where no limit was given"
)

FREE_SHARE = 0.6
"""Of the memory that is free, a scan may take this much where no limit is given."""


def default_limit() -> int:
    """Bytes that the process should stay below where no limit is given."""
    used = int(psutil.Process().memory_info().rss)
    return used + int(FREE_SHARE * psutil.virtual_memory().available)


@dataclass(frozen=True)
class Decision:
    """What will be computed of a scan.

    Args:
        model: The model that will run.
        before: The scan's grid, axes as in its array.
        grid: The same in canonical order.
        target: Grid of the result in canonical order.
        warnings: What the user should know.
        uncertain: Whether the map of the expected error comes too.
    """

    model: SRModel
    before: Geometry
    grid: Geometry
    target: Geometry
    warnings: list[str]
    uncertain: bool

    @cached_property
    def order(self) -> AxisOrder:
        """Of the scan's axes."""
        return AxisOrder.of(self.before)

    @cached_property
    def result(self) -> Geometry:
        """Grid of the result, axes as in the scan."""
        return self.before.resize(self.order.array_shape(self.target.shape))

    def derivation(self, request: str | None = None, further: str = "") -> Derivation:
        """How the result comes to be, for formats that record it.

        Args:
            request: See :class:`~medsr.volume.Derivation`.
            further: What is done to the network's result, in a few words.
        """
        x, y, z = (n / o for n, o in zip(self.result.shape, self.before.shape, strict=True))
        name = f"{self.model.spec.name} {self.model.spec.version}"
        sentence = f"Super-resolution by medsr {__version__}, model {name}"
        return Derivation(
            model=name,
            version=__version__,
            weight_hash=self.model.weight_hash,
            description=f"{sentence}, {further}" if further else sentence,
            scale=(x, y, z),
            request=request,
            further=further,
        )

    def network(self) -> torch.nn.Module:
        """What the engine runs: the model's network, asked for sigma too where it is wanted."""
        if not self.uncertain:
            return self.model.module
        from medsr.networks.heads import MeanAndSigma

        return MeanAndSigma(self.model.module)


@dataclass
class ModelCache:
    """The models that were loaded so far, each read from disk once.

    Args:
        zoo_root: Folder of the models to choose from; those shipped when None.
    """

    zoo_root: Path | None = None
    _loaded: dict[Path, SRModel] = field(default_factory=dict, repr=False)

    def get(self, model: str | Path | SRModel) -> SRModel:
        """Return a model by its name or folder, or the loaded one that was given.

        Raises:
            ModelError: There is none of that name, or it is damaged.
        """
        if isinstance(model, SRModel):
            return model
        folder = zoo.resolve(model, self.zoo_root)
        if folder not in self._loaded:
            from medsr.infer.engine.backends.load import load_model

            self._loaded[folder] = loaded = load_model(folder)
            if loaded.spec.trained_regions:
                logger.info("%s was trained on %s", loaded.spec.name, loaded.spec.seen)
        return self._loaded[folder]


def decide(
    geometry: Geometry,
    modality: Modality,
    options: UpscaleOptions,
    load: Callable[[str | Path | SRModel], SRModel],
) -> Decision:
    """Settle the model and the target grid; refuse or warn where they do not suit the scan.

    Args:
        geometry: The scan's grid, axes as in its array.
        modality: What the scan is.
        options: What was asked for.
        load: Gives a model by its name, such as :meth:`ModelCache.get`.

    Raises:
        UsageError: The grid asked for is nowhere finer than the scan's.
        OutOfScopeError: No model suits the scan and none was named.
        NoUncertaintyError: The model gives values only and ``options`` ask for more.
        ModelError: The model cannot be loaded.
    """
    order = AxisOrder.of(geometry)
    grid = order.canonical_geometry(geometry)
    spacing, scale = options.spacing, options.scale
    if spacing is not None and not isinstance(spacing, str):
        spacing = order.canonical_values(choose.positive_triple(spacing, "spacing"))
    if scale is not None:
        scale = order.canonical_scale(choose.positive_triple(scale, "scale"))
    target = choose.find_target(grid, spacing=spacing, scale=scale)
    if isinstance(options.model, str) and options.model == "auto":
        specs = zoo.specs(options.zoo_root)
        if options.uncertain:
            specs = [s for s in specs if s.options.get("head", "value") != "value"] or specs
        spec = choose.choose(specs, grid, modality, target)
        model = load(spec.name)
        warnings: list[str] = []
    else:
        model = load(options.model)
        spec = model.spec
        default = scale is None and spacing == "iso"
        target = choose.named_target(target, spec, default=default)
        reasons = choose.misfits(spec, grid, modality)
        joined = "; ".join(reasons)
        warnings = [f"{spec.name} was not trained for this scan: {joined}"] if reasons else []
    if options.uncertain and getattr(model.module, "readout", None) is None:
        raise NoUncertaintyError(
            f"model {spec.name} gives values and no uncertainty; name a model whose network has "
            "the option head (gaussian or bins), or do without the map"
        )
    settled, beyond = choose.settle(target, spec, grid)
    warnings = warnings + choose.hazards(spec) + beyond
    return Decision(model, geometry, grid, settled, warnings, options.uncertain)


def bytes_left_for_engine(limit: int | None, decision: Decision) -> int | None:
    """Bytes that the engine may take for its output and one tile, the process itself deducted.

    Args:
        limit: Bytes that the process should stay below; None for no limit.
        decision: What is to be computed.

    Raises:
        MemoryLimitError: The result and what saving it takes do not fit.
    """
    if limit is None:
        return None
    used = int(psutil.Process().memory_info().rss) + RESERVE_BYTES
    scale, shape = decision.model.spec.scale, decision.grid.shape
    enlarged = 4 * int(np.prod([n * s for n, s in zip(shape, scale, strict=True)]))
    wanted = 4 * int(np.prod(decision.target.shape))
    maps = 2 if decision.uncertain else 1
    # Resampling holds both grids and one in between; writing holds the numbers as stored as well.
    needed = used + (maps + 1) * wanted + (maps * enlarged if enlarged != wanted else 0)
    if needed > limit:
        raise MemoryLimitError(
            f"the result needs about {needed / 2**20:.0f} MiB of memory, program included, and "
            f"the limit is {limit / 2**20:.0f} MiB; raise the limit or ask for a coarser grid"
        )
    return limit - used

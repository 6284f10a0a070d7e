"""What a step of a recipe costs, so that runs can be given equal time instead of equal steps."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median

from lightning_fabric import Fabric

from medsr.infer.engine.device import resolve_device, resolve_precision
from medsr.recipe import Recipe
from medsr.train.cohort import Cohort
from medsr.train.loop import take_step
from medsr.train.source import open_stream
from medsr.train.state import TrainState

WARM_UP = 2
"""Steps of each recipe that are taken first and not timed."""


def seconds_per_step(
    recipes: Sequence[Recipe],
    cohort: Cohort,
    *,
    rounds: int = 5,
    steps: int = 4,
    device: str = "cpu",
) -> tuple[float, ...]:
    """Time training steps of several recipes in turn, their batches included.

    What slows the machine down for a while so meets all recipes alike.

    Args:
        recipes: What to time; assistants are left out.
        cohort: Prepared scans that suit all recipes.
        rounds: How often each recipe has its turn, from 1.
        steps: Steps a turn, from 1.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Returns:
        Median seconds of a step for each recipe: processor time of this process on a processor,
        which other programs do not lengthen, and wall time on a GPU.
    """
    place = resolve_device(device)
    clock = time.process_time if place.type == "cpu" else time.perf_counter
    turns: list[list[float]] = [[] for _ in recipes]
    runs = []
    for recipe in recipes:
        half = resolve_precision(recipe.loop.precision, place) == "bf16"
        fabric = Fabric(
            accelerator=place.type,
            devices=[place.index] if ":" in str(place) else 1,
            precision="bf16-mixed" if half else "32-true",
        )
        fabric.launch()
        state = TrainState.fresh(recipe, fabric.device)
        stream = open_stream(recipe, cohort, 0)
        runs.append((fabric, recipe, fabric.setup_module(state.objective), stream, state))
    for turn in range(rounds + 1):
        for times, (fabric, recipe, module, stream, state) in zip(turns, runs, strict=True):
            number = steps if turn else WARM_UP
            begun = clock()
            for _ in range(number):
                # The losses that a step returns are numbers, so that the GPU has finished.
                take_step(fabric, recipe, module, stream.batch(state.step), state)
            if turn:
                times.append((clock() - begun) / number)
    return tuple(median(times) for times in turns)

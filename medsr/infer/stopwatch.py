"""Wall-clock seconds of the stages of one run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, get_args

Stage = Literal["start", "load", "prepare", "network", "restore", "save"]
STAGES: tuple[Stage, ...] = get_args(Stage)
"""``start`` is the import of torch and what needs it, where that was still to be done."""


@dataclass
class Stopwatch:
    """Wall-clock seconds by stage.

    Args:
        seconds: Seconds spent so far; a stage that is entered twice adds up.
    """

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    @contextmanager
    def stage(self, name: Stage) -> Iterator[None]:
        """Add the time of a ``with`` block to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start

    def rounded(self) -> dict[str, float]:
        """Seconds by stage and in total, to the millisecond."""
        stages = {name: round(value, 3) for name, value in self.seconds.items()}
        return {**stages, "total": round(sum(self.seconds.values()), 3)}

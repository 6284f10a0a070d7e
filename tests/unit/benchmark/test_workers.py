"""Tasks run in order, here or in processes; one that fails stops no other, and Ctrl-C stops all."""

from __future__ import annotations

import math
import operator
import time
from typing import Any

import pytest

from medsr.benchmark import workers
from medsr.benchmark.workers import Task, places_for, run_tasks
from medsr.errors import Interrupted


@pytest.mark.parametrize("count", [1, 2])
def test_a_task_that_fails_stops_no_other(count: int) -> None:
    tasks = [
        Task("root", math.sqrt, (9.0,)),
        Task("wrong", math.sqrt, (-1.0,)),
        Task("sum", operator.add, (1, 2)),
    ]
    found: dict[str, Any] = {}
    begun: list[str] = []
    run_tasks(
        tasks,
        lambda task, result: found.__setitem__(task.name, result),
        workers=count,
        started=lambda task: begun.append(task.name),
    )
    assert begun == ["root", "wrong", "sum"]
    assert found["root"] == 3.0
    assert isinstance(found["wrong"], ValueError)
    assert found["sum"] == 3


def test_an_interruption_leaves_what_waits_undone() -> None:
    done: list[str] = []

    def keep(task: Task, result: Any) -> None:
        done.append(task.name)
        if len(done) == 1:
            raise KeyboardInterrupt

    tasks = [Task(f"nap {i}", time.sleep, (0.1,)) for i in range(6)]
    with pytest.raises(Interrupted, match="goes on"):
        run_tasks(tasks, keep, workers=2)
    assert 1 <= len(done) <= 3


def test_workers_are_pinned_to_idle_cores_only(monkeypatch: pytest.MonkeyPatch) -> None:
    class Process:
        def cpu_affinity(self) -> list[int]:
            return [0, 2, 3]

    monkeypatch.setattr(workers.psutil, "Process", Process)
    monkeypatch.setattr(workers.psutil, "cpu_percent", lambda **_: [90.0, 0.0, 1.0, 2.0])
    assert places_for(2) == [2, 3]
    assert places_for(3) == [-1, -1, -1]
    monkeypatch.delattr(Process, "cpu_affinity")
    assert places_for(2) == [-1, -1]


def test_a_worker_that_was_asked_stops_before_it_trains() -> None:
    workers.stop_if_asked()
    workers._note(2, None)
    try:
        with pytest.raises(Interrupted):
            workers.stop_if_asked()
    finally:
        workers._asked.clear()

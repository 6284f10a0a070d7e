"""Pieces of work in this process, or in several of one thread each, pinned to cores that are idle.

Small networks hardly gain from a second thread: two trainings of one thread each on two cores do
far more than one of two threads. Ctrl-C stops the trainings at their next step, so that each keeps
its checkpoint; what has been finished by then is still reported.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.queues import Queue
from types import FrameType
from typing import Any

import psutil

from medsr.errors import Interrupted, MedsrError

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
_BUSY_PERCENT = 50.0

_asked = threading.Event()
"""Set in a worker process that was asked to stop while it did not train."""


@dataclass(frozen=True)
class Task:
    """A piece of work.

    Attributes:
        name: What progress calls it.
        function: Module-level function.
        arguments: Its arguments; they and its result can be pickled.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]


Done = Callable[[Task, Any], None]
"""Called with a finished task and its result, or the exception it ended with."""


def run_tasks(
    tasks: Sequence[Task],
    done: Done,
    *,
    workers: int = 1,
    started: Callable[[Task], None] | None = None,
) -> None:
    """Run tasks, in their order as far as workers are free.

    Args:
        tasks: What to do.
        done: Told of every task that ended, in this process.
        workers: Processes; 1 works in this one, with the threads it has.
        started: Told of every task before it starts.

    Raises:
        Interrupted: Ctrl-C; unfinished tasks were stopped.
        MedsrError: A worker process died.
    """
    say = started or (lambda task: None)
    if workers == 1:
        for task in tasks:
            say(task)
            done(task, _outcome(task))
    elif tasks:
        _in_processes(tasks, done, say, workers)


def stop_if_asked() -> None:
    """End the task in hand if its worker process was asked to stop.

    Raises:
        Interrupted: It was.
    """
    if _asked.is_set():
        raise Interrupted("stopped; the same command goes on")


def places_for(workers: int) -> list[int]:
    """Return a core for each worker; -1 for all of them where not enough cores are idle.

    A worker that is pinned to a core that another program keeps busy would wait beside an idle one.
    """
    affinity = getattr(psutil.Process(), "cpu_affinity", None)
    if affinity is None:
        return [-1] * workers
    load = psutil.cpu_percent(interval=_LOOK_SECONDS, percpu=True)
    idle = [core for core in affinity() if core < len(load) and load[core] < _BUSY_PERCENT]
    return idle[:workers] if len(idle) >= workers else [-1] * workers


def _outcome(task: Task) -> Any:
    """Run a task; return its result, or the error that concerns this task alone."""
    try:
        return task.function(*task.arguments)
    except Interrupted:
        raise
    except Exception as error:
        logger.debug("%s failed", task.name, exc_info=error)
        return error


def _in_processes(
    tasks: Sequence[Task], done: Done, started: Callable[[Task], None], workers: int
) -> None:
    # Not fork: torch's threads do not survive it.
    context = multiprocessing.get_context("spawn")
    places: Queue[int] = context.Queue()
    for place in places_for(workers):
        places.put(place)
    level = logging.getLogger("medsr").level
    waiting, running = list(tasks), dict[Future[Any], Task]()
    with ProcessPoolExecutor(workers, context, _set_up, (places, level)) as pool:

        def collect(futures: set[Future[Any]]) -> None:
            for future in futures:
                task = running.pop(future)
                error = future.exception()
                if isinstance(error, Interrupted | KeyboardInterrupt):
                    continue
                if isinstance(error, BrokenProcessPool):
                    raise MedsrError(
                        "a worker process died, perhaps for want of memory; lower --workers"
                    ) from error
                done(task, error if error is not None else future.result())

        try:
            while waiting or running:
                # No more than there are workers: what the pool has taken cannot be taken back.
                while waiting and len(running) < workers:
                    task = waiting.pop(0)
                    started(task)
                    running[pool.submit(_outcome, task)] = task
                collect(wait(running, return_when=FIRST_COMPLETED).done)
        except KeyboardInterrupt as stop:
            for process in multiprocessing.active_children():
                if process.pid is not None:
                    os.kill(process.pid, signal.SIGINT)
            collect(wait(running).done)
            raise Interrupted("stopped; the same command goes on") from stop


def _set_up(places: Queue[int], level: int) -> None:
    """Prepare a worker process: one thread, one core, and a calm way to stop."""
    import torch

    torch.set_num_threads(1)
    place, process = places.get(), psutil.Process()
    pin = getattr(process, "cpu_affinity", None)
    if pin and place >= 0:
        pin([place])
    if hasattr(os, "setpgrp"):
        # Ctrl-C in a terminal then reaches the main process alone, which passes it on once.
        os.setpgrp()
    signal.signal(signal.SIGINT, _note)
    for name in ("medsr", "lightning_fabric", "lightning.fabric", "monai"):
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    warnings.simplefilter("ignore")
    threading.Thread(target=_follow_parent, daemon=True).start()


def _note(number: int, frame: FrameType | None) -> None:
    _asked.set()


def _follow_parent() -> None:
    """End this process when the main one is gone without having said so."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)

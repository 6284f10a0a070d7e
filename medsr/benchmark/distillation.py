"""Every method of distillation on the same student: same start, same batches, same steps.

For each seed one untrained student is written, and every arm starts from it; the batches depend on
seed and step alone. Each finished arm is written at once under a key made of all that it depends
on, so a run that was stopped goes on with the arms in hand, from their checkpoints. What an arm is,
is in ``arms``; how it is trained and scored, in ``arm_work``; what the numbers say, in
``distillation_stats``; table, picture and page, in ``distillation_report``.
"""

from __future__ import annotations

import json
import logging
import platform
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from medsr._version import __version__
from medsr.benchmark.arm_work import (
    make_start,
    score_interpolation,
    score_shipped,
    time_steps,
    train_and_score,
)
from medsr.benchmark.arms import REFERENCE, Benchmark, fingerprint, read_benchmark
from medsr.benchmark.distillation_stats import LEVEL, summarise
from medsr.benchmark.workers import Task, run_tasks
from medsr.errors import MedsrError, UsageError
from medsr.evaluate.metrics import conventions
from medsr.io.atomic import atomic_file, check_output
from medsr.model import SRModel
from medsr.recipe import Recipe
from medsr.types import Progress

logger = logging.getLogger(__name__)

SCHEMA = 1
NAME = "distillation"

"""Called with (tasks done, tasks in all, those in hand)."""

_LIBRARIES = ("torch", "monai", "lightning-fabric", "numpy", "scipy")


def run(
    recipe: str | Path,
    out: str | Path,
    overrides: Sequence[str] = (),
    *,
    seeds: int = 3,
    methods: Sequence[str] = (),
    folder: str | Path = "runs/distillation",
    workers: int = 1,
    device: str = "cpu",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train and score every arm that ``out`` does not hold yet.

    Args:
        recipe: YAML file of base and arms, see :mod:`medsr.benchmark.arms`.
        out: JSON file of results; what it holds is kept as far as it still applies.
        overrides: ``key=value`` changes of the file, such as ``base.loop.steps=100``.
        seeds: Seeds 0 to this less one.
        methods: Arms to run; all where empty. The reference arm is always run.
        folder: Folder of the runs.
        workers: Processes of one thread each, pinned to a core; 1 works in this process.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        progress: Told whenever a task starts or ends.

    Returns:
        What the file holds: ``about``, ``references``, ``timing``, ``runs``, ``failures`` and
        ``summary``.

    Raises:
        Interrupted: Ctrl-C; finished arms are in the file.
        MedsrError: The file of arms or the cohort cannot be used.
        UsageError: An arm is unknown, a number out of range, or ``out`` holds something else.
    """
    benchmark = read_benchmark(recipe, overrides)
    chosen = _chosen(benchmark, methods)
    if seeds < 1 or workers < 1:
        raise UsageError("seeds and workers start at 1")
    out, folder = Path(out), Path(folder)
    check_output(out, overwrite=True)
    results = _open(out, benchmark)
    results["about"] |= _about(benchmark, recipe, overrides, seeds, workers, device)
    session = _Session(benchmark, results, out, folder, device, progress)
    session.fixed(workers)
    if any(benchmark.arms[name].as_long_as for name in chosen):
        session.time(chosen, workers)
    session.arms(chosen, seeds, workers)
    session.write()
    return results


class _Session:
    """A run of the benchmark: what is known, what is to be done, and where it is written."""

    def __init__(
        self,
        benchmark: Benchmark,
        results: dict[str, Any],
        out: Path,
        folder: Path,
        device: str,
        progress: Progress | None,
    ):
        self.benchmark, self.results, self.out = benchmark, results, out
        self.folder, self.device, self.progress = folder, device, progress
        self.reference = benchmark.recipe(REFERENCE, 0)
        self.in_hand: list[str] = []

    def write(self) -> None:
        """Write the file, whole or not at all."""
        self.results["summary"] = summarise(self.results)
        text = json.dumps(self.results, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        with atomic_file(self.out, overwrite=True) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def fixed(self, workers: int) -> None:
        """Score the B-spline and the teacher, which no arm changes."""
        scoring, known = self.benchmark.scoring, self.results["references"]
        teacher = (self.reference, scoring, self.benchmark.teacher, self.device)
        tasks = [
            Task("bspline", score_interpolation, (self.reference, scoring, "bspline")),
            Task("teacher", score_shipped, teacher),
        ]

        def keep(task: Task, result: Any) -> None:
            known[task.name] = _unless_failed(result)

        self._run([task for task in tasks if task.name not in known], keep, workers)

    def time(self, chosen: Sequence[str], workers: int) -> None:
        """Find the steps of arms that are to last as long as others."""
        tasks = []
        for name in chosen:
            target = self.benchmark.arms[name].as_long_as
            if target is None:
                continue
            pair = [self.benchmark.recipe(arm, 0) for arm in (name, target)]
            key = fingerprint([self.benchmark.key(recipe) for recipe in pair])
            if self.results["timing"].get(name, {}).get("key") != key:
                task = Task(f"timing {name}", time_steps, (pair, self.device))
                tasks.append((task, name, target, key, pair[1].loop.steps))

        def keep(task: Task, result: Any) -> None:
            own, other = _unless_failed(result)
            name, target, key, steps = next(rest for first, *rest in tasks if first is task)
            self.results["timing"][name] = {
                "as_long_as": target,
                "seconds_per_step": {name: own, target: other},
                "ratio": other / own,
                "steps": max(1, round(steps * other / own)),
                "key": key,
            }

        # In the processes that train, so that the ratio is taken under the same conditions.
        self._run([entry[0] for entry in tasks], keep, workers)

    def arms(self, chosen: Sequence[str], seeds: int, workers: int) -> None:
        """Train and score what is missing, one seed after the other."""
        self.results["failures"] = []
        runs = self.results["runs"]
        # What an arm gave under an earlier recipe no longer stands for it.
        runs[:] = [r for r in runs if r["key"] == self._key(r["arm"], r["seed"])]
        finished = {(run["arm"], run["seed"]) for run in runs}
        tasks, meanings = [], {}
        for seed in range(seeds):
            bare = self.benchmark.recipe(REFERENCE, seed)
            start = self.folder / f"start-{seed}-{fingerprint(bare.to_dict()['network'])[:8]}"
            for name in chosen:
                if (name, seed) in finished:
                    continue
                make_start(bare, self.benchmark.teacher, start)
                recipe = self._recipe(name, seed, str(start))
                key = self.benchmark.key(recipe)
                place = self.folder / f"{name}-{seed}-{key[:8]}"
                arguments = (recipe, self.benchmark.scoring, place, self.device)
                task = Task(f"{name} {seed}", train_and_score, arguments)
                tasks.append(task)
                meanings[id(task)] = {
                    "arm": name,
                    "seed": seed,
                    "steps": recipe.loop.steps,
                    "key": key,
                }

        def keep(task: Task, result: Any) -> None:
            meaning = meanings[id(task)]
            if isinstance(result, Exception):
                logger.warning("%s: %s", task.name, result)
                self.results["failures"].append({**meaning, "error": str(result)})
            else:
                runs.append({**meaning, **result})
                order = list(self.benchmark.arms)
                runs.sort(key=lambda run: (order.index(run["arm"]), run["seed"]))

        self._run(tasks, keep, workers)

    def _recipe(self, arm: str, seed: int, start: str) -> Recipe:
        """The recipe of an arm, with the steps that were found for it."""
        found = self.results["timing"].get(arm, {}).get("steps")
        steps = None if self.benchmark.arms[arm].as_long_as is None else found
        return self.benchmark.recipe(arm, seed, start=start, steps=steps)

    def _key(self, arm: str, seed: int) -> str:
        return self.benchmark.key(self._recipe(arm, seed, "start"))

    def _run(self, tasks: Sequence[Task], keep: Callable[[Task, Any], None], workers: int) -> None:
        finished = 0

        def tell() -> None:
            if self.progress is not None:
                self.progress(finished, len(tasks), ", ".join(self.in_hand) or "done")

        def started(task: Task) -> None:
            self.in_hand.append(task.name)
            tell()

        def done(task: Task, result: Any) -> None:
            nonlocal finished
            finished += 1
            self.in_hand.remove(task.name)
            keep(task, result)
            self.write()
            tell()

        try:
            run_tasks(tasks, done, workers=workers, started=started)
        finally:
            self.in_hand.clear()


def _chosen(benchmark: Benchmark, methods: Sequence[str]) -> list[str]:
    unknown = [name for name in methods if name not in benchmark.arms]
    if unknown:
        raise UsageError(f"{unknown[0]!r} is no arm; there are {', '.join(benchmark.arms)}")
    return [n for n in benchmark.arms if not methods or n in methods or n == REFERENCE]


def _unless_failed(result: Any) -> Any:
    """Return what a task gave on which all others depend."""
    if isinstance(result, MedsrError):
        raise result
    if isinstance(result, Exception):
        raise MedsrError(f"{type(result).__name__}: {result}") from result
    return result


def _open(path: Path, benchmark: Benchmark) -> dict[str, Any]:
    """Return what an earlier run left, without arms that are no longer there; else a fresh start.

    The teacher's weights are part of what must agree.
    """
    mark = fingerprint(
        {
            "base": benchmark.shown_base(),
            "scoring": asdict(benchmark.scoring),
            "teacher": SRModel.load(benchmark.teacher).weight_hash,
        }
    )
    fresh: dict[str, Any] = {
        "schema": SCHEMA,
        "benchmark": NAME,
        "about": {"base_key": mark},
        "references": {},
        "timing": {},
        "runs": [],
        "failures": [],
    }
    if not path.exists():
        return fresh
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if (stored["benchmark"], stored["schema"]) != (NAME, SCHEMA):
            raise ValueError("another benchmark")
        same = stored["about"]["base_key"] == mark
        stored["runs"] = [run for run in stored["runs"] if run["arm"] in benchmark.arms]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: holds no result of this benchmark; name another file") from error
    if not same:
        raise UsageError(
            f"{path}: was measured with another base, scoring or teacher; name another file"
        )
    return {**fresh, **stored}


def _about(
    benchmark: Benchmark,
    recipe: str | Path,
    overrides: Sequence[str],
    seeds: int,
    workers: int,
    device: str,
) -> dict[str, Any]:
    versions = {"medsr": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            logger.debug("%s carries no version", name)
    words = [shlex.quote(text) for text in overrides]
    shown = Path(recipe).name if Path(recipe).is_absolute() else Path(recipe).as_posix()
    words += [f"--recipe {shown}", "--json FILE", f"--seeds {seeds}"]
    teacher = SRModel.load(benchmark.teacher)
    return {
        "command": " ".join(["medsr benchmark distillation", *words, f"--workers {workers}"]),
        "versions": versions,
        "machine": {"processor": platform.machine(), "device": device, "workers": workers},
        "base": benchmark.shown_base(),
        "arms": {
            name: {"about": arm.about, "as_long_as": arm.as_long_as, "changes": dict(arm.changes)}
            for name, arm in benchmark.arms.items()
        },
        "scoring": asdict(benchmark.scoring),
        "conventions": conventions(teacher.spec.modality),
        "teacher": {
            "name": teacher.spec.name,
            "parameters": teacher.spec.parameters,
            "weights_sha256": teacher.weight_hash,
        },
        "statistics": {
            "mean": "rows of a patient first, then patients, then seeds",
            "difference": f"same seed, same scan; {LEVEL:.0%} bootstrap (BCa) over patients",
            "significant": "that interval and the paired t interval over seeds both exclude zero",
            "seconds": "processor time of the training; wall time on a GPU; median over seeds",
        },
    }

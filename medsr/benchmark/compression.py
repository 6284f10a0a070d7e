"""Pruning, int8 and distillation side by side, alone and combined, on the same axes.

Every row is one way to make a model from a teacher or a student: left as it is, pruned, trained on
after pruning with or without the teacher, quantised. A finished row is written at once under a key
made of all that it depends on, so a run that was stopped goes on with the row that was in hand, and
training within a row goes on from its checkpoint. How numbers are taken is in ``measure``, how
models are made in ``compression_models``, tables and pictures in ``compression_report``.
"""

from __future__ import annotations

import json
import logging
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from medsr import zoo
from medsr._version import __version__
from medsr.benchmark.compression_models import SCHEMA, Settings, Variant, Workshop, variants
from medsr.benchmark.measure import DevScans, cost, summarise
from medsr.compress.prune import half_width
from medsr.errors import UsageError
from medsr.io.atomic import atomic_file
from medsr.model import SRModel
from medsr.types import Progress

logger = logging.getLogger(__name__)

"""Called with (rows done, rows in all, the row that comes next)."""

_LIBRARIES = ("torch", "openvino", "nncf", "torch-pruning")


def run(
    teacher: str | Path,
    students: Sequence[str | Path],
    out: str | Path,
    settings: Settings,
    *,
    teacher_width: int | None = None,
    student_width: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Make and measure every row that ``out`` does not hold yet.

    Args:
        teacher: Name or folder of the teacher.
        students: Names or folders of students, trained plainly or distilled.
        out: JSON file; rows that it holds are kept where nothing that they depend on has changed.
        settings: What all rows have in common.
        teacher_width: Channels to prune the teacher to; by default half of its own.
        student_width: The same for the students. A model that is no wider is not pruned.
        progress: Told of every row before it starts.

    Returns:
        What the file holds: ``about``, and ``rows`` in order.

    Raises:
        KeyboardInterrupt: Ctrl-C; finished rows are in the file.
        MedsrError: A model, the cohort or a recipe cannot be used, or ``out`` holds something else.
    """
    out = Path(out)
    folders: dict[str, Path] = {}
    for source in (teacher, *students):
        folders[_label(source, folders)] = zoo.resolve(source)
    names = list(folders)
    workshop = Workshop(settings, names[0], folders)
    scans = DevScans(
        settings.cohort,
        workshop.base(names[0]).spec,
        split=settings.split,
        limit=settings.limit,
    )
    widths = {
        name: _narrower(workshop.base(name), student_width if number else teacher_width)
        for number, name in enumerate(names)
    }
    rows = variants(names[0], names[1:], widths)
    stored = _read(out)
    # All keys at once: a recipe that is missing or wrong shows before hours are spent.
    keys = [workshop.key(variant) for variant in rows]
    results: dict[str, Any] = {"schema": SCHEMA, "benchmark": "compression"}
    results |= {"about": _about(settings), "rows": []}
    for done, (key, variant) in enumerate(zip(keys, rows, strict=True)):
        if progress is not None:
            progress(done, len(rows), variant.label)
        row = stored.get(key)
        if row is None:
            row = {"key": key, **_measured(workshop, variant, scans)}
            logger.info("%s: %+.2f dB", variant.label, row["gain"]["mean"])
        results["rows"].append(row)
        # Rows of an earlier run that are still to come stay in the file.
        mine = {entry["key"] for entry in results["rows"]}
        rest = [entry for entry in stored.values() if entry["key"] not in mine]
        last = done + 1 == len(rows)
        _write(results if last else {**results, "rows": [*results["rows"], *rest]}, out)
    if progress is not None:
        progress(len(rows), len(rows), "done")
    return results


def _measured(workshop: Workshop, variant: Variant, scans: DevScans) -> dict[str, Any]:
    settings = workshop.settings
    model, folder = workshop.make(variant)
    where = "cpu" if variant.int8 else settings.device
    options = {"device": where, "precision": settings.precision}
    costs = cost(model, folder, shape=settings.shape, runs=settings.runs, **options)
    gain = summarise(list(scans.gains(model, **options)))
    return {
        "label": variant.label,
        **asdict(variant),
        "network": model.spec.network,
        "options": model.spec.options,
        "weights_sha256": model.weight_hash,
        **costs.to_dict(),
        "gain": gain,
    }


def _narrower(model: SRModel, width: int | None) -> int | None:
    """Return the width to prune a model to, or None where that leaves it as it is."""
    own = getattr(model.module, "width", None)
    if not isinstance(own, int):
        return None
    wanted = half_width(model.module) if width is None else width
    return wanted if wanted < own else None


def _label(source: str | Path, taken: dict[str, Path]) -> str:
    """Return a short name; the folder ``model`` of a run is called after the run."""
    path = Path(source)
    name = path.parent.name if path.name == "model" else path.name
    label, number = name, 2
    while label in taken:
        label, number = f"{name}-{number}", number + 1
    return label


def _about(settings: Settings) -> dict[str, Any]:
    library_versions = {"medsr": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            library_versions[name] = version(name)
        except PackageNotFoundError:
            logger.debug("%s is not installed", name)
    return {
        "versions": library_versions,
        "machine": {"processor": platform.machine(), "threads": torch.get_num_threads()},
        "settings": {
            "split": settings.split,
            "limit": settings.limit,
            "steps": settings.steps,
            "recipe": None if settings.recipe is None else settings.recipe.name,
            "overrides": list(settings.overrides),
            "shape": list(settings.shape),
            "runs": settings.runs,
            "device": settings.device,
            "precision": settings.precision,
        },
        "scans": "each scan once, its sharp axes taken in turn as slice axis, without noise",
    }


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """Return the rows of an earlier run by key."""
    if not path.exists():
        return {}
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["benchmark"] == "compression" and stored["schema"] == SCHEMA:
            return {row["key"]: row for row in stored["rows"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.debug("%s is no result", path, exc_info=error)
    raise UsageError(f"{path}: holds no result of this benchmark; name another file")


def _write(results: dict[str, Any], path: Path) -> None:
    text = json.dumps(results, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_file(path, overwrite=True) as temporary:
        temporary.write_text(text, encoding="utf-8")

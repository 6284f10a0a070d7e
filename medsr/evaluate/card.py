"""Model cards: what a model is, what it learnt from, how it scored, and where it ends.

A card is Markdown made from the model's spec and from a ``results.json`` that ``medsr evaluate``
wrote, so no figure in it was typed by hand. Where the data came from is not known to a spec; it is
a list that the caller gives.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medsr.errors import CohortError
from medsr.evaluate import markdown
from medsr.evaluate.report.reading import ReportData
from medsr.evaluate.results.table import REFERENCE_METHOD
from medsr.infer.choose import hazards
from medsr.model import ModelSpec

_MEANS = "Means over people, all rows of a person averaged first, with 95 % intervals over people."
_ROWS = "± is the standard deviation over rows."
LIMITS = (
    "Trained on the few scans named above; pathology, implants, children, contrast agents and "
    "other body parts were not or hardly seen.",
    "Low resolution was simulated. Real scans differ in profile, noise and motion; the further "
    "they differ, the less the scores apply.",
    "Detail finer than the scan is an estimate. It can be wrong, it can be absent, and small "
    "lesions may lose contrast.",
    "Scores are means over few people; the spread is given with them.",
)


def read_results(path: str | Path) -> dict[str, Any]:
    """Read a ``results.json``.

    Raises:
        CohortError: It cannot be read or holds no summary.
    """
    path = Path(path)
    try:
        plain: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CohortError(f"{path}: is no results.json; make one with medsr evaluate") from error
    if not isinstance(plain, dict) or "summary" not in plain or "scans" not in plain:
        raise CohortError(f"{path}: holds no summary; make it again with medsr evaluate")
    return dict(plain)


def read_precision(path: str | Path, name: str, weights_sha256: str) -> dict[str, Any]:
    """Read what bf16 costs a model from a result of ``medsr benchmark inference --cohort``.

    Args:
        path: Its JSON.
        name: The model's name.
        weights_sha256: Hash of the model's weights, as ``SRModel.weight_hash`` gives it.

    Returns:
        ``mean`` and ``worst`` in dB, ``scans`` and ``split``.

    Raises:
        CohortError: It cannot be read, holds nothing of this model, or measured other weights.
    """
    path, again = Path(path), "make it with medsr benchmark inference --cohort CSV --json FILE"
    try:
        entry: Any = json.loads(path.read_text(encoding="utf-8"))["precision_psnr_db"][name]
        measured, _ = entry["weights_sha256"], (entry["mean"], entry["worst"], entry["scans"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CohortError(f"{path}: does not say what bf16 costs {name}; {again}") from error
    if measured != weights_sha256:
        raise CohortError(f"{path}: {name} had other weights when bf16 was scored; {again}")
    return dict(entry)


def score_table(results: Mapping[str, Any], methods: Sequence[str] | None = None) -> str:
    """Render the summary of an evaluation as a Markdown table.

    Args:
        results: Content of ``results.json``.
        methods: Which methods, in this order; all by default.

    Returns:
        One line a method: PSNR, gain over B-spline (mean, least and most by row), SSIM and
        MAE. After ± stands the standard deviation over rows.
    """
    lines = [
        "| method | PSNR dB | over B-spline dB (least … most) | SSIM | MAE |",
        "| --- | --- | --- | --- | --- |",
    ]
    for method in methods or list(results["summary"]):
        of = results["summary"][method]
        gain = of.get("psnr_gain_over_bspline")
        gained = "" if gain is None else "{mean:+.2f} ({min:+.2f} … {max:+.2f})".format(**gain)
        cells = [
            method,
            _with_spread(of["psnr"], 2),
            gained,
            _with_spread(of["ssim"], 4),
            _with_spread(of["mae"], 2),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def gain_table(results: Mapping[str, Any], methods: Sequence[str]) -> str:
    """Render the PSNR gain over B-spline of every row, one column a method."""
    rows: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for row in results["scans"]:
        rows.setdefault((row["scan_id"], row["axis"]), {})[row["method"]] = row
    head = " | ".join(f"{method} dB" for method in methods)
    lines = [f"| scan | axis | B-spline dB | {head} |", "| --- " * (3 + len(methods)) + "|"]
    for (scan, axis), found in rows.items():
        base = found[REFERENCE_METHOD]["psnr"]
        gains = " | ".join(f"{found[method]['psnr_gain']:+.2f}" for method in methods)
        lines.append(f"| {scan} | {axis} | {base:.2f} | {gains} |")
    return "\n".join(lines) + "\n"


def model_card(
    spec: ModelSpec,
    results: Mapping[str, Any],
    label: str,
    data: Sequence[str],
    notes: Sequence[str] = (),
    undistilled: str | None = None,
    precision: Mapping[str, Any] | None = None,
) -> str:
    """Write a model's card.

    Args:
        spec: The model's spec.
        results: An evaluation in which the model took part.
        label: What the evaluation calls the model.
        data: Training data sets with origin and licence, one sentence each.
        notes: What else a user should know, one sentence each.
        undistilled: What the evaluation calls the same network, trained for equal steps without a
            teacher; the card then says what distillation gave.
        precision: What bf16 costs the model, of :func:`read_precision`; the card then says so.

    Raises:
        CohortError: The model, or the undistilled one, took no part in the evaluation.
    """
    for method in filter(None, (label, undistilled)):
        if method not in results["summary"]:
            raise CohortError(
                f"the results hold no method {method!r}; evaluate with --model {method}"
            )
    trained = spec.trained_spacing_mm
    recipe = spec.training.get("recipe", {})
    teachers = [name for name in (recipe.get("teacher"), *recipe.get("teachers", ())) if name]
    names = ", ".join(f"`{_run(name)}`" for name in teachers)
    learnt = f"distilled from {names}" if teachers else "trained on the truth"
    start = recipe.get("network", {}).get("start")
    begun = f", begun with the weights of `{_run(start)}`" if start else ""
    factor = " × ".join(map(str, spec.scale))
    about = [
        f"- {spec.description}",
        f"- Network: {spec.network}, {spec.parameters:,} parameters at inference, factor {factor} "
        "(in-plane, in-plane, slice).",
        f"- {spec.role.capitalize()}, {learnt}{begun}; {recipe.get('loop', {}).get('steps', '?')} "
        "steps of the recipe stored in `spec.json`.",
        f"- Input: {' and '.join(spec.modalities)}, in-plane spacing {_range(trained.in_plane)} "
        f"mm, slice spacing {_range(trained.slice)} mm in training. Native units in, native units "
        "out, no clipping.",
        f"- Trained on {spec.seen}.",
        f"- Simulated low resolution: `{json.dumps(spec.trained_degradation)}`.",
    ]
    parts = [
        f"# {spec.name} {spec.version}",
        "**For research. Not for diagnosis.**",
        *(f"**Warning: {hazard}.**" for hazard in hazards(spec)),
        "\n".join(about),
        "## Data",
        "\n".join(f"- {line}" for line in data),
        "## Scores",
        score_section(results, label, undistilled, precision),
        "## Limits",
        "\n".join(f"- {line}" for line in (*notes, *LIMITS)),
    ]
    return "\n\n".join(parts) + "\n"


def score_section(
    results: Mapping[str, Any],
    label: str,
    undistilled: str | None = None,
    precision: Mapping[str, Any] | None = None,
) -> str:
    """Write what a card says of a model's scores.

    Args:
        results: As for :func:`model_card`.
        label: What the evaluation calls the model.
        undistilled: As for :func:`model_card`.
        precision: As for :func:`model_card`.

    Returns:
        Whom it was scored on; means over patients beside cubic B-spline and the best of the other
        methods; the regions of the body, where they are known; what distillation and bf16 changed;
        the command and the conventions. Of results without statistics, means over rows.
    """
    cohort = results["cohort"]
    scans = f"{_count(cohort['scans'], 'scan', 'scans')} of "
    people = f"{_count(cohort['patients'], 'person', 'people')} of the split `{cohort['split']}`"
    conventions = "\n".join(f"- {k}: {v}" for k, v in results["conventions"].items())
    parts = [
        f"{scans}{people}, none of them in the model's training data; {results['task']['axes']}. "
        f"{_MEANS if 'statistics' in results else _ROWS}",
        *_score_tables(results, label, undistilled),
        *([] if undistilled is None else [_distillation(results, label, undistilled)]),
        *([] if precision is None else [_bf16(precision)]),
        f"Made with `{results['command']}`. Conventions:",
        conventions,
    ]
    return "\n\n".join(parts)


def _score_tables(results: Mapping[str, Any], label: str, undistilled: str | None) -> list[str]:
    """The table of methods, and that of regions where there is one."""
    if "statistics" not in results:
        shown = ("linear", REFERENCE_METHOD, label, undistilled)
        return [score_table(results, [m for m in results["summary"] if m in shown]).rstrip()]
    of = ReportData(results)
    method = of.method(label)
    rival = of.rival(method, of.primary)
    chosen = {of.reference, label, undistilled, None if rival is None else rival.name}
    regions = markdown.regions(of, method)
    return [
        markdown.scores(of, [m for m in of.methods if m.name in chosen]),
        *([f"By region of the body:\n\n{regions}"] if regions else []),
    ]


def _distillation(results: Mapping[str, Any], label: str, undistilled: str) -> str:
    """What a teacher gave, row by row."""
    psnr: dict[str, dict[tuple[str, str], float]] = {label: {}, undistilled: {}}
    for row in results["scans"]:
        if row["method"] in psnr:
            psnr[row["method"]][row["scan_id"], row["axis"]] = row["psnr"]
    given = [value - psnr[undistilled][key] for key, value in psnr[label].items()]
    return (
        f"What distillation gave: {sum(given) / len(given):+.2f} dB ({min(given):+.2f} … "
        f"{max(given):+.2f} by row) against `{undistilled}`, the same network from the same start, "
        "trained for equal steps without a teacher. One training of each: the difference says "
        "nothing about chance."
    )


def _bf16(precision: Mapping[str, Any]) -> str:
    """What ``--precision auto`` gives up where it takes bf16."""
    return (
        f"bf16 differs from fp32 by {precision['mean']:+.4f} dB of PSNR (worst "
        f"{precision['worst']:+.4f} dB) over {_count(len(precision['scans']), 'scan', 'scans')} of "
        f"the split `{precision['split']}`; `--precision auto` takes it where the processor or GPU "
        "computes in it."
    )


def _with_spread(metric: Mapping[str, float | None], digits: int) -> str:
    mean, spread = metric["mean_over_rows"], metric["std_over_rows"]
    if mean is None:
        return "–"
    return f"{mean:.{digits}f}" + ("" if spread is None else f" ± {spread:.{digits}f}")


def _run(path: str) -> str:
    """Name of a run or shipped model, from the path that a recipe gives."""
    return Path(path).parent.name if Path(path).name == "model" else Path(path).name


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _range(limits: tuple[float, float]) -> str:
    return f"{limits[0]:.2f}–{limits[1]:.2f}"

"""The results of ``distillation`` as a Markdown table, a picture, and a page of the documentation.

What the numbers mean is in ``distillation_stats``. A page says what was measured and how; what
follows from it is written by hand below a mark, and kept when the page is made again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from medsr.benchmark.arms import LONGER, REFERENCE
from medsr.benchmark.distillation_stats import by_patient
from medsr.benchmark.pictures import new_figure, save_figure
from medsr.io.atomic import atomic_file, check_output

HAND = "<!-- Below this line the page is written by hand, and kept when it is made again. -->"

_COLUMNS = (
    "arm",
    "PSNR dB (± over seeds)",
    "over undistilled dB [95 %]",
    "seeds better",
    "beyond chance",
    "over longer dB [95 %]",
    "gap recovered",
    "steps",
    "seconds",
    "cost",
)


def table(results: Mapping[str, Any]) -> str:
    """Render a result as a Markdown table, one arm a row, the best first.

    Args:
        results: What ``distillation.run`` returned, or its JSON read back.

    Returns:
        The fixed references first, then the undistilled arms, then the others by their mean
        difference; arms that failed last. It ends with a newline.
    """
    lines = [list(_COLUMNS), ["---", *["---:"] * (len(_COLUMNS) - 1)]]
    blank = [""] * (len(_COLUMNS) - 2)
    names = {"bspline": "cubic B-spline", "teacher": f"teacher `{_teacher(results)}`"}
    for key, label in names.items():
        if key in results["references"]:
            mean = fmean(by_patient(results["references"][key]).values())
            lines.append([label, f"{mean:.3f}", *blank])
    for arm, entry in ranked(results):
        lines.append(_row(arm, entry))
    for failure in results["failures"]:
        what = f"{failure['arm']}, seed {failure['seed']}: failed"
        lines.append([what, "", *blank])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def ranked(results: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return arms with their summaries: the undistilled ones, then the others, best first."""

    def place(item: tuple[str, Mapping[str, Any]]) -> tuple[int, float]:
        arm, entry = item
        return (arm != REFERENCE) + (arm not in (REFERENCE, LONGER)), -entry["psnr"]

    return sorted(results["summary"].items(), key=place)


def plot(results: Mapping[str, Any], path: str | Path, *, overwrite: bool = False) -> Path:
    """Draw every arm's difference to the undistilled one, with its interval over patients.

    Args:
        results: What ``distillation.run`` returned, or its JSON read back.
        path: PNG or SVG file.
        overwrite: Replace a file that exists.

    Returns:
        The path.

    Raises:
        MissingExtraError: The extra ``report`` is not installed.
        OutputError: The file cannot be written.
    """
    target = Path(path)
    check_output(target, overwrite=overwrite)
    arms = [(arm, entry) for arm, entry in ranked(results) if entry.get("difference")][::-1]
    figure = new_figure(figsize=(8, 1.5 + 0.28 * len(arms)), layout="constrained")
    axes = figure.subplots()
    for place, (_, entry) in enumerate(arms):
        found = entry["difference"]
        sure = bool(found["significant"])
        colour = "tab:grey" if not sure else "tab:green" if found["mean"] > 0 else "tab:red"
        low, high = found["over_patients"] or (found["mean"], found["mean"])
        axes.plot([low, high], [place, place], color=colour, linewidth=3, alpha=0.4)
        axes.plot(found["mean"], place, "o", color=colour)
        seeds = [*found["by_seed"].values()]
        axes.plot(seeds, [place] * len(seeds), "|", color="black", markersize=7)
    axes.axvline(0, color="black", linewidth=1, label="undistilled")
    _mark_teacher(axes, _gap(results))
    axes.set_yticks(range(len(arms)), [arm for arm, _ in arms])
    axes.set_xlabel("PSNR over the undistilled student, dB (bars: patients, ticks: seeds)")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="lower right", fontsize=8)
    return save_figure(figure, target, overwrite=overwrite)


def write_page(
    results: Mapping[str, Any], path: str | Path, *, data: str | None, picture: str | None
) -> Path:
    """Write the page of the documentation; what was added below its mark is kept.

    Args:
        results: What ``distillation.run`` returned, or its JSON read back.
        path: Markdown file; replaced.
        data: Link to the JSON, relative to the page; None for none.
        picture: Link to the picture, relative to the page; None for none.

    Returns:
        The path.

    Raises:
        OutputError: The file cannot be written.
    """
    target = Path(path)
    kept = "\n"
    if target.is_file():
        kept = target.read_text(encoding="utf-8").partition(HAND)[2] or "\n"
    with atomic_file(target, overwrite=True) as temporary:
        text = page(results, data=data, picture=picture) + "\n" + HAND + kept
        temporary.write_text(text, encoding="utf-8")
    return target


def page(results: Mapping[str, Any], *, data: str | None = None, picture: str | None = None) -> str:
    """Return the page's text up to the mark; arguments as :func:`write_page`."""
    about = results["about"]
    base, teacher = about["base"], about["teacher"]
    network, patches = base["network"], base.get("patches", {})
    rows = results["references"].get("bspline", [])
    patients = {row["patient_id"] for row in rows}
    seeds = sorted({run["seed"] for run in results["runs"]})
    parameters = next((run["parameters"] for run in results["runs"]), 0)
    parts = [
        "# Methods of distillation",
        f"The same student ({network['name']}, {_options(network)}; {parameters:,} parameters) "
        f"from the same start, over the same batches (patches of {patches.get('size')} "
        f"low-resolution voxels, {patches.get('batch')} a step), for the same "
        f"{base['loop']['steps']} steps, by every method; teacher `{teacher['name']}` "
        f"({teacher['parameters']:,} parameters). Task: "
        f"{'/'.join(_listed(base['data']['modality']))}, `{base['degradation']['kind']}`, factors "
        f"{base['degradation']['factor']}. Seeds: {len(seeds)}. Scored: {len(rows)} rows of "
        f"{len(patients)} patients of the split `{about['scoring']['split']}`, "
        "on which nothing was trained.",
        f"![PSNR of every method over the undistilled student]({picture})" if picture else "",
        table(results).rstrip(),
        "## How to read it",
        _reading(results),
        "## The arms",
        _arms(about["arms"]),
        "## To make it again",
        f"```text\n{about['command']}\n```",
        "The run goes on where it stopped; an arm that is added to the file of arms is trained "
        "alone."
        + (f" All rows, with the recipe of every arm, are in the [JSON]({data})." if data else "")
        + f" Versions: {', '.join(f'{k} {v}' for k, v in about['versions'].items())}.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _row(arm: str, entry: Mapping[str, Any]) -> list[str]:
    std, found = entry["std_over_seeds"], entry.get("difference")
    psnr = f"{entry['psnr']:.3f}" + ("" if std is None else f" ± {std:.3f}")
    better, sure = "", ""
    if found:
        seeds = found["by_seed"].values()
        better = f"{sum(value > 0 for value in seeds)} of {len(seeds)}"
        sure = {True: "yes", False: "no", None: "–"}[found["significant"]]
    gap, cost = entry.get("gap_recovered"), entry.get("relative_cost")
    return [
        arm,
        psnr,
        _difference(found),
        better,
        sure,
        _difference(entry.get("over_longer")) if arm != REFERENCE else "",
        "" if gap is None or arm == REFERENCE else f"{gap:.0%}",
        f"{entry['steps']}",
        f"{entry['seconds']:.0f}",
        "" if cost is None else f"{cost:.2f}",
    ]


def _difference(found: Mapping[str, Any] | None) -> str:
    if not found:
        return ""
    interval = found["over_patients"]
    doubt = "" if interval is None else f" [{interval[0]:+.3f}, {interval[1]:+.3f}]"
    return f"{found['mean']:+.3f}{doubt}"


def _reading(results: Mapping[str, Any]) -> str:
    timing = results["timing"].get(LONGER)
    compared = sum(1 for entry in results["summary"].values() if entry.get("difference"))
    lines = [
        "PSNR is taken in the body, in native units, as everywhere in these benchmarks. A "
        "patient's rows are averaged first, then patients, then seeds; ± is the standard deviation "
        "over seeds.",
        "Differences are paired: same seed, same scan. The interval is a bootstrap over patients, "
        "seeds averaged. *Beyond chance* asks more: that the paired t interval over seeds excludes "
        f"zero as well. Of {compared} arms some may pass by luck; nothing is corrected for that.",
        "*Gap recovered* is the share of the way from the undistilled student to the teacher.",
        "*Seconds* are processor time of the training alone, *cost* is relative to the undistilled "
        "arm.",
        "Each method is joined to the loss to the truth with one weight that was chosen once and "
        "not tuned; other weights, students, budgets or teachers may rank otherwise.",
    ]
    if timing:
        lines.append(
            f"`{LONGER}` is the undistilled student trained for as long as `{timing['as_long_as']}`"
            f" takes: {timing['ratio']:.2f} times the steps, by timing both at the start."
        )
    return "\n".join(f"- {line}" for line in lines)


def _arms(arms: Mapping[str, Mapping[str, Any]]) -> str:
    lines = ["| arm | what it is | terms |", "| --- | --- | --- |"]
    for name, arm in arms.items():
        terms = arm["changes"].get("terms", [])
        shown = ", ".join(f"`{t['name']}` {_weight(t.get('weight', 1.0))}" for t in terms)
        lines.append(f"| {name} | {arm['about']} | {shown} |")
    return "\n".join(lines)


def _weight(weight: Any) -> str:
    if isinstance(weight, int | float):
        return f"{weight:g}"
    if "learned" in weight:
        return f"learned, from {weight['learned']:g}"
    begin, until = weight.get("begin", 0.0), weight.get("until", 1.0)
    return f"{weight['start']:g} → {weight['end']:g} from {begin:.0%} to {until:.0%} of the steps"


def _options(network: Mapping[str, Any]) -> str:
    shown = {k: v for k, v in network.get("options", {}).items() if isinstance(v, int | str)}
    return ", ".join(f"{key} {value}" for key, value in shown.items())


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _mark_teacher(axes: Any, gap: float | None) -> None:
    """Draw the teacher's line, or say where it is if it would squeeze all else together."""
    if gap is None:
        return
    low, high = axes.get_xlim()
    if low <= gap <= high + 0.5 * (high - low):
        axes.axvline(gap, color="tab:blue", linestyle="--", linewidth=1, label="teacher")
    else:
        axes.plot([], [], "--", color="tab:blue", linewidth=1, label=f"teacher: {gap:+.2f} dB")


def _teacher(results: Mapping[str, Any]) -> str:
    return str(results["about"]["teacher"]["name"])


def _gap(results: Mapping[str, Any]) -> float | None:
    teacher, plain = results["references"].get("teacher"), results["summary"].get(REFERENCE)
    if not teacher or not plain:
        return None
    return fmean(by_patient(teacher).values()) - float(plain["psnr"])

"""The results of ``compression`` as a Markdown table and as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medsr.benchmark.pictures import logarithmic, new_figure, save_figure
from medsr.io.atomic import check_output

_COLUMNS = ("model", "gain dB (± over scans)", "parameters", "MACs per voxel", "seconds", "bytes")
_AXES = (
    ("median_seconds", "seconds a volume"),
    ("macs_per_voxel", "multiply-accumulates a voxel"),
    ("file_bytes", "bytes on disk"),
)
_COLOURS = {"teacher": "tab:red", "student": "tab:blue"}


def table(results: Mapping[str, Any]) -> str:
    """Render a result as a Markdown table, one model a row.

    Args:
        results: What ``compression.run`` returned, or its JSON read back.

    Returns:
        Gain over B-spline with its standard deviation over scans, parameters, multiply-accumulates
        per voxel of the result, median seconds with their range, bytes. It ends with a newline.
    """
    lines = [list(_COLUMNS), ["---", *["---:"] * (len(_COLUMNS) - 1)]]
    for row in results["rows"]:
        gain, (least, most) = row["gain"], row["seconds_range"]
        spread = "" if gain["std"] is None else f" ± {gain['std']:.2f}"
        lines.append(
            [
                row["label"],
                f"{gain['mean']:+.2f}{spread}",
                _short(row["parameters"]),
                _short(row["macs_per_voxel"]),
                f"{row['median_seconds']:.3g} ({least:.3g} … {most:.3g})",
                _short(row["file_bytes"]),
            ]
        )
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def plot(results: Mapping[str, Any], path: str | Path, *, overwrite: bool = False) -> Path:
    """Draw quality against seconds, multiply-accumulates and bytes.

    Args:
        results: What ``compression.run`` returned, or its JSON read back.
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
    figure = new_figure(figsize=(13, 5), layout="constrained")
    for axes, (key, label) in zip(figure.subplots(1, 3, sharey=True), _AXES, strict=True):
        for number, row in enumerate(results["rows"], start=1):
            # Squares are int8; filled marks have been trained to be what they are.
            axes.scatter(
                row[key],
                row["gain"]["mean"],
                marker="s" if row["int8"] else "o",
                color=_COLOURS[row["role"]],
                facecolors=None if _trained(row) else "none",
                label=f"{number}  {row['label']}",
            )
            axes.annotate(
                str(number),
                (row[key], row["gain"]["mean"]),
                xytext=(4, 3),
                textcoords="offset points",
                fontsize=8,
            )
        logarithmic(axes)
        axes.set_xlabel(label)
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("PSNR over B-spline, dB")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=8)
    return save_figure(figure, target, overwrite=overwrite)


def _trained(row: Mapping[str, Any]) -> bool:
    return row["width"] is None or row["training"] != "none"


def _short(value: float) -> str:
    """Write a number with a thousands letter: ``226 K``."""
    for limit, letter in ((1e9, " G"), (1e6, " M"), (1e3, " K")):
        if value >= limit:
            return f"{value / limit:.3g}{letter}"
    return f"{value:.3g}"

"""The results of ``inference`` as tables and as a page of the documentation.

A table here is plain cells, which the command draws on the screen and the page holds as Markdown.
The page says what was measured and how; what follows from it is written by hand below a mark, and
kept when the page is made again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medsr.io.atomic import atomic_file

HAND = "<!-- Below this line the page is written by hand, and kept when it is made again. -->"

READING = (
    "Times are medians over rounds of one process; in parentheses the least and the greatest. All "
    "arms run in every round, each round from another one on. The volume is the same for all: "
    "random voxels, without any air to leave out. A round to warm up, in which kernels are chosen "
    "and graphs compiled, is not counted.",
    "*MONAI* is its `SlidingWindowInferer` in fp32 with 64-voxel windows (clipped to the volume, "
    "so that nothing is padded) and Gaussian weights: the same merged network, the same weights.",
    "*GFLOP/s* are useful ones: twice the network's multiply-accumulates per voxel times the "
    "voxels, over the time. What an arm computes more than once, halo or overlap, counts as time "
    "and not as work.",
    "*Of the limit* is that rate over the rate of a product of two large square matrices (torch) "
    "in the same precision, measured within the same rounds.",
    "*Memory* is what the process grew by while the arm ran, its result included: resident memory "
    "is read every 5 ms, after freed memory was given back. What a library keeps for good, such "
    "as compiled graphs and packed weights, counts for the arm that needed it first.",
    "*Difference* is the largest absolute difference to MONAI's answer at overlap 0.5, over that "
    "answer's range, where it is the network's own: at voxels that lie the network's halo away "
    "from every edge of every window that covers them (edges on the volume's faces excepted, "
    "where the whole volume ends as well). Elsewhere MONAI blends answers that were padded with "
    "zeros at windows' edges; *everywhere* includes those seams, which are MONAI's.",
)
"""What the columns mean, one paragraph each."""


@dataclass(frozen=True)
class Table:
    """Cells of text.

    Args:
        title: One line.
        header: Names of the columns; the first is flush left, the others right.
        rows: As many cells each as the header has.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """Render as Markdown, without the title; ends with a newline."""
        lines = [self.header, ("---", *["---:"] * (len(self.header) - 1)), *self.rows]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def tables(results: Mapping[str, Any]) -> list[Table]:
    """Return the tables of all that a result holds.

    Args:
        results: What ``inference.run`` returned, with ``linearity`` and ``precision_psnr_db`` where
            they were measured, or its JSON read back.
    """
    drawn = []
    if "arms" in results:
        drawn += [_arms(results), _ratios(results)]
    if "linearity" in results:
        drawn.append(_linearity(results["linearity"]))
    if "precision_psnr_db" in results:
        drawn.append(_precision(results["precision_psnr_db"]))
    return drawn


def write_page(results: Mapping[str, Any], path: str | Path, *, data: str | None) -> Path:
    """Write the page of the documentation; what was added below its mark is kept.

    Args:
        results: As :func:`tables`; ``arms`` must be there.
        path: Markdown file; replaced.
        data: Link to the JSON, relative to the page; None for none.

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
        temporary.write_text(page(results, data=data) + "\n" + HAND + kept, encoding="utf-8")
    return target


def page(results: Mapping[str, Any], *, data: str | None = None) -> str:
    """Return the page's text up to the mark; arguments as :func:`write_page`."""
    model, machine = results["model"], results["machine"]
    shape, scale = _times(results["shape"]), _times(results["scale"])
    parts = [
        "# Inference",
        f"`{model['name']}` ({model['parameters']:,} parameters, "
        f"{model['macs_per_voxel'] / 1e3:.0f} K multiply-accumulates per voxel of the scan, halo "
        f"{max(model['halo'])}) over {shape} voxels, factor {scale}, by medsr's engine, by MONAI's "
        f"sliding window and by every backend that is installed. {_machine(machine)} Rounds: "
        f"{results['runs']}.",
    ]
    for table in tables(results):
        parts += [f"## {table.title}", table.markdown().rstrip()]
    if results["missing"]:
        lines = [f"- {_arm_name(name)}: {reason}" for name, reason in results["missing"].items()]
        parts.append("Not measured here:\n\n" + "\n".join(lines))
    share = results["comparison"]["share_of_voxels"]
    compared = (
        f"Differences were taken over {share:.0%} of the voxels."
        if share is not None
        else f"Differences were taken over {results['comparison']['where']}."
    )
    parts += [
        "## How to read it",
        "\n".join(f"- {line}" for line in READING) + f"\n- {compared}",
        "## To make it again",
        f"```text\n{results['command']}\n```",
        (f"Every single time is in the [JSON]({data}). " if data else "")
        + "Versions: "
        + ", ".join(f"{k} {v}" for k, v in _versions(results).items() if v)
        + ".",
    ]
    return "\n\n".join(parts) + "\n"


def _arms(results: Mapping[str, Any]) -> Table:
    header = ("arm", "seconds", "GFLOP/s", "of the limit", "memory", "difference", "everywhere")
    rows = []
    for arm in results["arms"].values():
        rows.append(
            (
                arm["label"],
                _spread(arm["median_seconds"], arm["seconds_range"]),
                _three(arm["gflops"]),
                "–" if arm["share_of_limit"] is None else f"{arm['share_of_limit']:.0%}",
                _bytes(arm["peak_extra_bytes"]),
                _small(arm["max_relative_difference"]),
                _small(arm["max_relative_difference_everywhere"]),
            )
        )
    for precision, limit in results["limits"].items():
        rate = _spread(limit["median_gflops"], limit["gflops_range"])
        rows.append((f"limit: matrix product, {precision}", "", rate, "100%", "", "", ""))
    return Table(f"Time for {_times(results['shape'])} voxels", header, tuple(rows))


def _ratios(results: Mapping[str, Any]) -> Table:
    rows = []
    for key, ratio in results["ratios"].items():
        ours, theirs = key.split("_vs_")
        arms = results["arms"]
        range_ = results["ratio_ranges"][key]
        rows.append((arms[ours]["label"], arms[theirs]["label"], _spread(ratio, range_)))
    return Table("How many times faster", ("arm", "against", "times faster"), tuple(rows))


def _linearity(linear: Mapping[str, Any]) -> Table:
    rows = [
        (
            _times(size["shape"]),
            f"{size['voxels'] / 1e6:.2f} M",
            _spread(size["median_seconds"], [min(size["seconds"]), max(size["seconds"])]),
            f"{1e9 * size['seconds_per_voxel']:.0f}",
            f"{size['deviation']:+.0%}",
        )
        for size in linear["sizes"]
    ]
    title = (
        f"Time by size ({linear['precision']}; largest deviation {linear['largest_deviation']:.0%})"
    )
    header = ("shape", "voxels", "seconds", "ns per voxel", "from the median")
    return Table(title, header, tuple(rows))


def _precision(models: Mapping[str, Any]) -> Table:
    rows = [
        (name, f"{entry['mean']:+.4f}", f"{entry['worst']:+.4f}", str(len(entry["scans"])))
        for name, entry in models.items()
    ]
    header = ("model", "bf16 less fp32, dB", "worst scan, dB", "scans")
    return Table("What bf16 costs in PSNR", header, tuple(rows))


def _machine(machine: Mapping[str, Any]) -> str:
    """Say what decides about speed in one sentence."""
    if machine["device"] == "cuda":
        tf32 = "with" if machine["tf32"] else "without"
        return f"Machine: {machine['gpu']}, fp32 {tf32} TF32."
    special = ("amx_bf16", "avx512_bf16", "avx512_vnni", "avx512", "avx2", "neon", "sve")
    present = [name for name in special if machine["capabilities"].get(name)]
    kinds = f", {', '.join(present)}" if present else ""
    count = machine["threads"]
    threads = f"{count} thread{'' if count == 1 else 's'}"
    return f"Machine: {threads}, {machine['architecture']}{kinds}."


def _versions(results: Mapping[str, Any]) -> dict[str, str | None]:
    peer = results["peer"]
    return {**results["machine"]["versions"], peer["library"]: peer["version"]}


def _arm_name(name: str) -> str:
    """``openvino_bf16`` as ``openvino, bf16``."""
    return ", ".join(name.rsplit("_", 1))


def _spread(middle: float, ends: Sequence[float]) -> str:
    return f"{_three(middle)} ({_three(ends[0])} … {_three(ends[1])})"


def _three(value: float) -> str:
    """Three digits, never in powers of ten."""
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}"


def _bytes(count: int) -> str:
    return f"{count / 2**20:.0f} MiB"


def _small(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.1e}" if value else "0"


def _times(values: Sequence[int]) -> str:
    return " × ".join(map(str, values))

"""Writes the figures of the documentation: every table of the shipped models' scores.

A page holds blocks between ``<!-- figures: NAME ARGUMENTS -->`` and ``<!-- end of figures -->``.
What stands between is written by this program from the results committed under
``docs/benchmarks``, and by nothing else, so that a figure stands in one place and cannot drift from
its file. ``tests/contract/test_pages.py`` holds the pages to it.

    python tools/pages.py                     rewrite all pages
    python tools/pages.py --check             only say which pages are stale; leaves with 1
    python tools/pages.py --commands          the evaluations behind the pages
    python tools/pages.py --take FOLDER       take their results over from FOLDER/NAME, then rewrite
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from medsr.evaluate import markdown
from medsr.evaluate.card import read_precision, score_section
from medsr.evaluate.report.reading import ReportData, interval, text
from medsr.evaluate.report.rivals import gain

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "docs" / "benchmarks"
ZOO = ROOT / "medsr" / "zoo"
PAGES = (
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted(ZOO.glob("*/card.md")),
)
BLOCK = re.compile(
    r"<!-- figures: (?P<name>\S+)(?P<rest>[^\n]*?) -->\n(?P<body>.*?)<!-- end of figures -->",
    re.DOTALL,
)

_MR, _CT = "--scale 1,1,4 --modality mr", "--scale 1,1,4 --modality ct"
_KINDS = f"--model mr-z4 --model runs/mr-z4-narrow/model {_MR} --baselines bspline --parts none"
RUNS = {
    "mr-z4": f"--model mr-z4 --model mr-z4-teacher {_MR}",
    "mr-iso2": "--model mr-iso2 --model mr-iso2-teacher --scale 2,2,2 --modality mr",
    "ct-z4": f"--model ct-z4 --model ct-z4-teacher {_CT} --consistency",
    "mr-z4-nominal": _KINDS,
    "mr-z4-seed1": f"{_KINDS} --seed 1",
    "mr-z4-ct_slab": f"{_KINDS} --kind ct_slab",
    "mr-z4-kspace": f"{_KINDS} --kind kspace",
    "mr-z4-consistency": (
        f"--model mr-z4 {_MR} --baselines bspline --parts consistency --consistency"
    ),
    "mr-iso2-consistency": (
        "--model mr-iso2 --scale 2,2,2 --modality mr --baselines bspline --parts consistency "
        "--consistency"
    ),
}
"""Options of ``medsr evaluate`` by the name of the file that keeps what came of it."""

KINDS = {
    "Gaussian, as thick as apart, no noise": "mr-z4-nominal",
    "thickness (0.8 to 1.2) and noise (0 to 3 %) drawn, `--seed 1`": "mr-z4-seed1",
    "rectangular, `--kind ct_slab`": "mr-z4-ct_slab",
    "partitions of a 3D scan, `--kind kspace`": "mr-z4-kspace",
}
TEACHING = (
    ("mr-z4-narrow", "mr-z4", "mr-z4-plain", "mr-z4-teacher"),
    ("mr-z4", "mr-z4", "mr-z4-broad-plain", "mr-z4-teacher"),
    ("mr-iso2", "mr-iso2", "mr-iso2-plain", "mr-iso2-teacher"),
    ("ct-z4", "ct-z4", "ct-z4-plain", "ct-z4-teacher"),
)
"""Folder of the results, and what they call student, student without a teacher, and teacher."""


@cache
def read(path: Path) -> dict[str, Any]:
    """Read a result file."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def there(name: str) -> bool:
    """Whether an evaluation has been made and kept."""
    return (BENCHMARKS / "evaluation" / f"{name}.json").is_file()


def evaluation(name: str) -> ReportData:
    """An evaluation of the shipped models."""
    return ReportData(read(BENCHMARKS / "evaluation" / f"{name}.json"))


def scored(name: str) -> str:
    """Whom it was scored on, the command, scores, comparisons, regions, scans."""
    of = evaluation(name)
    regions = markdown.regions(of)
    return "\n\n".join(
        [
            f"{markdown.who(of)[:1].upper()}{markdown.who(of)[1:]}.",
            f"`{of.data['command']}`",
            markdown.scores(of),
            markdown.compared_with_rivals(of),
            *(["By region of the body:", regions] if regions else []),
            "By scan, gain over cubic B-spline in dB, mean over its axes (least):",
            markdown.by_scan(of),
        ]
    )


def short(name: str) -> str:
    """The headline of an evaluation and what became of small lesions."""
    return markdown.in_short(evaluation(name))


def lesions(name: str) -> str:
    """Lesions by diameter: the classical methods that are rivals, the models."""
    of = evaluation(name)
    hard = ("bspline", "lanczos", "tv")
    shown = [m for m in of.methods if m.name in hard or (m.learned and not m.projects)]
    who = f"`{name}` and its teacher; {markdown.who(of)}:"
    return f"{who}\n\n{markdown.lesions(of, shown)}"


def kinds() -> str:
    """What is left of the gain on slices of other kinds."""
    made = {words: name if there(name) else "mr-z4" for words, name in KINDS.items()}
    found = {words: evaluation(name) for words, name in made.items()}
    who = markdown.who(next(iter(found.values())))
    rows = markdown.gains_by_kind(found, ("mr-z4-narrow", "mr-z4"))
    return f"{who[:1].upper()}{who[1:]}; gain over cubic B-spline in dB.\n\n{rows}"


def teaching() -> str:
    """What a teacher gave: students with and without, and the teachers, row by row."""
    lines = []
    for folder, student, plain, teacher in TEACHING:
        results = read(BENCHMARKS / folder / "results.json")
        psnr: dict[str, dict[tuple[str, str], float]] = {}
        for row in results["scans"]:
            psnr.setdefault(row["method"], {})[row["scan_id"], row["axis"]] = row["psnr"]
        cells = []
        for label in (student, teacher):
            steps = [value - psnr[plain][key] for key, value in psnr[label].items()]
            ends = f"{text(min(steps), 2, signed=True)} … {text(max(steps), 2, signed=True)}"
            cells.append(f"{text(sum(steps) / len(steps), 2, signed=True)} ({ends})")
        cohort = results["cohort"]
        people = f"{cohort['scans']} of {cohort['patients']}"
        lines.append([f"`{folder}`", people, str(len(psnr[plain])), *cells])
    head = ["Task", "scans of people", "rows", "student, dB", "teacher, dB"]
    return markdown.table(head, lines)


def consistency() -> str:
    """What the projection onto the scan changes, over all rows of the split."""
    lines = []
    for name in ("mr-z4-consistency", "mr-iso2-consistency", "ct-z4"):
        if not there(name):
            continue
        of = evaluation(name)
        for method in (m for m in of.methods if m.projects and m.role == "student"):
            plain = of.method(method.projects)
            found = gain(of, method, plain, "psnr")
            if found is None:
                continue
            left = [of.estimate(m.name, "consistency_rmse") for m in (plain, method)]
            step = text(found.difference, 2, signed=True)
            bounds = interval(found.bounds, 2, signed=True)
            lines.append(
                [
                    f"`{plain.name}`",
                    f"{step} ({bounds})" if bounds else step,
                    f"{found.better} of {found.patients}",
                    *(text(None if e is None else e.mean, 2) for e in left),
                ]
            )
    head = ["Model", "PSNR with less without, dB", "better for", "residual without", "with"]
    return markdown.table(head, lines)


def physics() -> str:
    """What total variation gains over interpolation."""
    lines = []
    for name in ("mr-z4", "mr-iso2", "ct-z4"):
        of = evaluation(name)
        tv, base = of.method("tv"), of.method("bspline")
        found = gain(of, tv, base, "psnr")
        if found is not None:
            step, bounds = (
                text(found.difference, 2, signed=True),
                interval(found.bounds, 2, signed=True),
            )
            gained = f"{step} ({bounds})" if bounds else step
            lines.append([f"that of `{name}`", gained, f"{found.better} of {found.patients}"])
    return markdown.table(["Task", "total variation less B-spline, dB", "better for"], lines)


def card(name: str) -> str:
    """The scores of a shipped model's card."""
    task = name.removesuffix("-teacher")
    weights = hashlib.sha256((ZOO / name / "weights.safetensors").read_bytes()).hexdigest()
    data = read(BENCHMARKS / "evaluation" / f"{task}.json")
    rounded = None
    precision = read(BENCHMARKS / "inference.json")["precision_psnr_db"].get(name, {})
    if precision.get("weights_sha256") == weights:
        rounded = read_precision(BENCHMARKS / "inference.json", name, weights)
    return score_section(data, name, precision=rounded)


def commands() -> str:
    """The evaluations behind the pages."""
    lines = [
        f"medsr evaluate {options} --cohort ../shared/data/manifest.csv --split dev --no-report "
        f"--out runs/evaluation/{name}"
        for name, options in RUNS.items()
    ]
    return "\n".join(["```text", *lines, "python tools/pages.py --take runs/evaluation", "```"])


BLOCKS: dict[str, Callable[..., str]] = {
    "card": card,
    "commands": commands,
    "consistency": consistency,
    "kinds": kinds,
    "lesions": lesions,
    "physics": physics,
    "scored": scored,
    "short": short,
    "teaching": teaching,
}


def rewrite(page: str) -> str:
    """Return a page's text with every block made anew."""

    def made(found: re.Match[str]) -> str:
        head = found[0].partition("\n")[0]
        body = BLOCKS[found["name"]](*found["rest"].split())
        return f"{head}\n\n{body}\n\n<!-- end of figures -->"

    return BLOCK.sub(made, page)


def take(folder: Path) -> list[str]:
    """Take over the results of the runs in a folder; rows of single lesions are left behind.

    Returns:
        Names of the evaluations that were found.
    """
    found = []
    for name in RUNS:
        path = folder / name / "results.json"
        if not path.is_file():
            continue
        data = json.loads(path.read_text(encoding="utf-8"))
        if "lesions" in data:
            data["lesions"] = {k: v for k, v in data["lesions"].items() if k != "rows"}
        words = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
        target = BENCHMARKS / "evaluation" / f"{name}.json"
        target.write_text(words + "\n", encoding="utf-8")
        found.append(name)
    return found


def main(arguments: list[str]) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Write the figures of the documentation.")
    parser.add_argument("--check", action="store_true", help="change nothing; 1 if any is stale")
    parser.add_argument("--commands", action="store_true", help="print the evaluations behind it")
    parser.add_argument("--take", type=Path, metavar="FOLDER", help="take results over from there")
    asked = parser.parse_args(arguments)
    if asked.commands:
        sys.stdout.write("\n".join(commands().splitlines()[1:-1]) + "\n")
        return 0
    if asked.take is not None:
        names = take(asked.take)
        sys.stdout.write(f"taken: {', '.join(names) or 'nothing'}\n")
    stale = 0
    for path in PAGES:
        old = path.read_text(encoding="utf-8")
        new = rewrite(old)
        if new == old:
            continue
        stale += 1
        sys.stdout.write(f"{'stale' if asked.check else 'written'}: {path.relative_to(ROOT)}\n")
        if not asked.check:
            path.write_text(new, encoding="utf-8")
    return int(asked.check and stale > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Inspects and upscales every scan below a folder, and prints a table to be read line by line.

Each scan goes through ``medsr inspect`` and ``medsr upscale`` as a user would give them, without
any option. Results are read back by SimpleITK: their outer corners must be where the scan's are.
Nothing is kept but the table.

    python tools/every_scan.py FOLDER            files and DICOM folders, however deep
    python tools/every_scan.py FOLDER --out table.md
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import SimpleITK

from medsr.cli.main import main as medsr

FILES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".mgz")
COLUMNS = (
    "scan",
    "inspect",
    "upscale",
    "seconds",
    "model",
    "corners apart, mm",
    "range before",
    "range after",
    "at the least value, %",
    "what was said",
)


def scans(folder: Path) -> Iterator[Path]:
    """Volumes, and folders that hold files without being of volumes."""
    for path in sorted([folder, *folder.rglob("*")]):
        if (path.is_file() and path.name.endswith(FILES)) or (
            path.is_dir() and any(_is_slice(entry) for entry in path.iterdir())
        ):
            yield path


def _is_slice(entry: Path) -> bool:
    if not entry.is_file() or entry.name.startswith("."):
        return False
    with entry.open("rb") as file:
        head = file.read(132)
    return head[128:] == b"DICM" or entry.suffix.lower() in (".dcm", ".ima")


def run(*arguments: str) -> tuple[int, str]:
    """A command's exit code, and what it said on standard error, in one line."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = medsr(list(arguments))
    return code, " ".join(said.getvalue().replace("medsr: ", "").split()).replace("|", "/")


def corners(path: Path) -> np.ndarray:
    """Outer corners of a volume, mm, sorted: the order of axes is of no account."""
    image = SimpleITK.ReadImage(str(path), SimpleITK.sitkFloat32)
    ends = [(-0.5, n - 0.5) for n in image.GetSize()]
    places = [
        image.TransformContinuousIndexToPhysicalPoint(ends) for ends in itertools.product(*ends)
    ]
    return np.array(sorted(places))


def row(scan: Path, name: str, folder: Path) -> list[str]:
    """One line of the table."""
    inspected, _ = run("inspect", str(scan))
    result, report = folder / "result.nii.gz", folder / "report.json"
    started = time.perf_counter()
    code, said = run("upscale", str(scan), str(result), "--report", str(report), "--quiet")
    cells = [name, str(inspected), str(code), f"{time.perf_counter() - started:.1f}"]
    if code:
        return [*cells, "", "", "", "", "", said]
    model = json.loads(report.read_text(encoding="utf-8"))["model"]["name"]
    apart, before, least = "", "", ""
    sr = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(result)))
    if scan.is_file():
        lr = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(scan)))
        apart = f"{np.abs(corners(scan) - corners(result)).max():.1e}"
        before = f"{lr.min():g} … {lr.max():g}"
        least = f"{(lr == lr.min()).mean():.1%} → {(sr == sr.min()).mean():.1%}"
    result.unlink()
    report.unlink()
    return [*cells, model, apart, before, f"{sr.min():g} … {sr.max():g}", least, said]


def table(folder: Path) -> Iterator[str]:
    """Lines of a Markdown table."""
    yield "| " + " | ".join(COLUMNS) + " |"
    yield "| " + " | ".join("---" for _ in COLUMNS) + " |"
    for scan in scans(folder):
        name = scan.relative_to(folder).as_posix()
        with tempfile.TemporaryDirectory() as place:
            yield "| " + " | ".join(row(scan, name, Path(place))) + " |"


def main() -> int:
    """Print the table, or write it; lines come as scans are done."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        out = sys.stdout
        if options.out is not None:
            out = stack.enter_context(options.out.open("w", encoding="utf-8"))
        for line in table(options.folder):
            out.write(line + "\n")
            out.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())

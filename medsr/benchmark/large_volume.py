"""Measures one volume larger than memory: a synthetic CT, a limit, a process of its own.

Run as ``python -m medsr.benchmark.large_volume``. The scan is written plane by plane, ``medsr
upscale`` runs with the limit, and the largest resident memory that the system saw is set beside it,
with what the bare interpreter takes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medsr import io
from medsr.geometry import Geometry
from medsr.infer.prepare import parse_bytes
from medsr.io.planes import header_of
from medsr.io.writing import creating
from medsr.volume import Source

SPACING_MM = (0.7, 0.7, 2.8)
"""Of the synthetic scan: thick slices, four times as long as the pixels."""

_MEASURE = """
import json, resource, subprocess, sys
done = subprocess.run([sys.executable, *sys.argv[1:]])
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(json.dumps({"peak": peak * (1 if sys.platform == "darwin" else 1024)}))
sys.exit(done.returncode)
"""


def write_scan(path: Path, shape: tuple[int, int, int]) -> None:
    """Write a CT-like int16 scan without ever holding it: a body with ribs, lungs and noise.

    Args:
        path: Where; its ending chooses the format.
        shape: Voxels along X, Y, Z.
    """
    generator = np.random.default_rng(5)
    grid = Geometry(shape, np.diag([*SPACING_MM, 1.0]))
    header = header_of(grid, np.int16, modality="CT", source=Source("array", dtype=np.dtype("<i2")))
    x, y = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape[:2]), indexing="ij")
    body = (x / 0.85) ** 2 + (y / 0.6) ** 2 < 1
    lungs = ((np.abs(x) - 0.4) / 0.28) ** 2 + (y / 0.4) ** 2 < 1
    with creating(header, path) as writer:
        for k in range(shape[2]):
            ribs = body & (np.sin(9 * x + 0.4 * k) * np.cos(11 * y - 0.2 * k) > 0.9)
            plane = np.select([ribs, lungs, body], [700.0, -850.0, 40.0], -1000.0)
            plane += generator.normal(0.0, 12.0, plane.shape)
            writer.append(plane.astype(np.float32)[:, :, None])
        writer.finish()


def measure(
    shape: tuple[int, int, int],
    limit: str,
    *,
    model: str = "auto",
    precision: str = "auto",
    ending: str = ".nii.gz",
    folder: Path | None = None,
) -> dict[str, Any]:
    """Upscale a synthetic scan under a limit.

    Args:
        shape: Voxels of the scan along X, Y, Z.
        limit: As for ``--max-memory``.
        model: As for ``--model``.
        precision: As for ``--precision``.
        ending: Format of scan and result.
        folder: Where both lie while they are needed; the system's temporary folder by default.

    Returns:
        The limit, the peak of the process, that of the bare interpreter, the seconds and the
        report.

    Raises:
        subprocess.CalledProcessError: The run failed; its message is on standard error.
    """
    with tempfile.TemporaryDirectory(dir=folder) as place:
        scan, result, report = (Path(place) / n for n in ("in" + ending, "out" + ending, "r.json"))
        write_scan(scan, shape)
        bare = _peak(["-c", "pass"])
        start = time.perf_counter()
        command = ["-m", "medsr", "upscale", str(scan), str(result), "--modality", "ct", "--quiet"]
        options = {"--max-memory": limit, "--model": model, "--precision": precision}
        peak = _peak([*command, *(t for o in options.items() for t in o), "--report", str(report)])
        seconds = time.perf_counter() - start
        return {
            "limit_bytes": parse_bytes(limit),
            "peak_bytes": peak,
            "interpreter_bytes": bare,
            "seconds": round(seconds, 2),
            "result_shape": list(io.inspect(result).shape),
            "report": json.loads(report.read_text(encoding="utf-8")),
        }


def _peak(arguments: list[str]) -> int:
    """Largest resident memory, in bytes, of this Python run with some arguments."""
    command = [sys.executable, "-c", _MEASURE, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8", check=True)
    return int(json.loads(done.stdout.splitlines()[-1])["peak"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure as the command line says; JSON goes to standard output or to ``--json``."""
    parser = argparse.ArgumentParser(prog="python -m medsr.benchmark.large_volume")
    parser.add_argument("--shape", default="512,512,128")
    parser.add_argument("--max-memory", default="2GB")
    parser.add_argument("--model", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--ending", default=".nii.gz")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args(arguments)
    x, y, z = (int(part) for part in chosen.shape.split(","))
    measured = measure(
        (x, y, z),
        chosen.max_memory,
        model=chosen.model,
        precision=chosen.precision,
        ending=chosen.ending,
    )
    text = json.dumps(measured, indent=2) + "\n"
    if chosen.json is None:
        sys.stdout.write(text)
    else:
        chosen.json.write_text(text, encoding="utf-8")
    return (
        0
        if measured["peak_bytes"] <= measured["limit_bytes"] + measured["interpreter_bytes"]
        else 1
    )


if __name__ == "__main__":
    sys.exit(main())

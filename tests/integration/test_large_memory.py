"""The memory that a volume larger than memory takes, measured in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from medsr.infer.chunks import divide

CODE = """
import sys, threading, time
sys.path.insert(0, sys.argv[1])
import numpy as np, psutil, torch
torch.set_num_threads(1)
from test_large import _model, _nifti
from medsr.infer.upscale import upscale

resident = lambda: psutil.Process().memory_info().rss
most = 0

def watch():
    global most
    while True:
        most = max(most, resident())
        time.sleep(0.002)

folder = sys.argv[2]
data = np.random.default_rng(0).integers(0, 900, (160, 160, 24)).astype(np.int16)
scan = _nifti(folder + "/in.nii", data)
small = _nifti(folder + "/small.nii", data[:16, :16, :8])
options = {"model": _model(), "precision": "fp32", "scale": (1.5, 1.5, 8)}
upscale(small, folder + "/a.nii", **options)
before = resident()
limit = before + (96 + 75) * 2**20
threading.Thread(target=watch, daemon=True).start()
result = upscale(scan, folder + "/out.nii", max_memory=limit, **options)
assert result.volume is None
sys.stdout.write(f"{before} {limit} {most}")
"""


def test_the_limit_is_kept(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", CODE, str(Path(__file__).parent), str(tmp_path)]
    done = subprocess.run(arguments, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    before, limit, peak = map(int, done.stdout.split()[-3:])
    # The result takes 44 MB as float32 and the usual way three times as much; 96 MB are reserved.
    assert before < peak <= limit


@pytest.mark.parametrize("flipped", [False, True])
def test_cores_partition_the_planes(flipped: bool) -> None:
    found = divide(37, 5, 4, 8, flipped=flipped)
    assert sum(piece.planes for piece in found) == 37
    assert all(a.start <= b.start and a.stop <= b.stop for a, b in pairwise(found))
    assert found[0].start == 0
    assert found[-1].stop == 37
    for piece in found:
        assert 0 <= piece.crop <= piece.stop - piece.start - piece.planes

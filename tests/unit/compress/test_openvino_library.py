"""A process that has used OpenVINO and NNCF can still be stopped."""

from __future__ import annotations

import signal
import subprocess
import sys
from importlib.util import find_spec

import pytest

from medsr.compress.openvino_library import openvino_core

missing = [name for name in ("openvino", "nncf") if find_spec(name) is None]
pytestmark = pytest.mark.skipif(
    bool(missing), reason=f"needs {' and '.join(missing)} (extra 'compress')"
)

# With faulthandler, so that there is a signal stack to be put back, as in every test of pytest.
BEGIN = """
import faulthandler, gc, signal
import torch
from medsr.compress import quantise
from medsr.infer.engine.backends import BACKENDS
from medsr.model import Intensity, ModelSpec, SpacingRange, SRModel
from medsr.networks import build_network

faulthandler.enable()
torch.set_num_threads(1)
network = build_network("RepPlain3D", (1, 1, 2), width=16, depth=1, branches=False).eval()
"""
RUN = """
runs = [BACKENDS["openvino"].prepare(network, (8, 8, 8)) for _ in range(3)]
"""
QUANTISE = """
spec = ModelSpec(
    name="tiny", description="", version="0", network="RepPlain3D",
    options={"width": 16, "depth": 1, "branches": False}, scale=(1, 1, 2), modality="MR",
    role="student", intensity=Intensity.for_modality("MR"), halo=network.halo,
    multiple_of=network.multiple_of, trained_spacing_mm=SpacingRange((0.6, 1.2), (1.2, 2.4)),
    trained_degradation={}, parameters=1, training={},
)
patches = [torch.rand(1, 1, 8, 8, 8) for _ in range(2)]
runs = [quantise(SRModel(network, spec), patches) for _ in range(2)]
for run in runs:
    run.module(patches[0])
"""
END = """
while runs:  # the oldest first: each one's successor outlives it
    del runs[0]
    gc.collect()
seen = []
signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))
signal.raise_signal(signal.SIGUSR1)
assert seen == [1]
"""


def test_there_is_one_core() -> None:
    assert openvino_core() is openvino_core()
    assert "CPU" in openvino_core().available_devices


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="signals of Unix")
@pytest.mark.parametrize("use", [RUN, QUANTISE], ids=["run", "quantise"])
def test_a_signal_is_still_heard(use: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + use + END],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]

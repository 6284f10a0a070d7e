"""Fixtures that every test may use: synthetic volumes, random generators, the real data if any.

Fixtures that more than one test file needs. A fixture that serves one file belongs in that file.
Nothing here needs the network; only ``shared_data`` needs files outside the repository, and it
skips with a reason where they are absent.
"""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

# Before numpy and torch start their thread pools: two test workers share two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
# Nothing that is measured here belongs into the user's cache.
os.environ["MEDSR_CACHE"] = "off"

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, settings

REPOSITORY = Path(__file__).resolve().parents[1]

# A shell that starts the suite in the background lets it ignore Ctrl-C, and all that tests start.
_in_main_thread = threading.current_thread() is threading.main_thread()
if _in_main_thread and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Shared machines stall: an example that was slow once is no failure.
settings.register_profile(
    "medsr", deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("medsr")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test that is skipped for want of a program that is said to be there.

    ``MEDSR_TESTS_REQUIRE`` holds the names of programs and packages, separated by spaces; where
    the reason of a skip names one of them, something else is wrong, and nothing was proved.
    """
    report = yield
    required = set(os.environ.get("MEDSR_TESTS_REQUIRE", "").lower().split())
    if required and report.skipped and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2]
        missed = sorted(required.intersection(re.findall(r"[a-z0-9][\w.+-]*", reason.lower())))
        if missed:
            report.outcome = "failed"
            report.longrepr = f"{reason}; MEDSR_TESTS_REQUIRE says that {missed[0]} is there"
    return report


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread() -> None:
    """Keep torch to one thread, so that parallel test workers do not fight for cores."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real CT and MR scans beside the repository; skips where it is absent."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not (folder / "manifest.csv").is_file():
        pytest.skip("needs the real scans in ../shared/data, which are not here")
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    """A random generator with a fixed seed, fresh for each test."""
    return np.random.default_rng(20240917)


def make_phantom(
    shape: tuple[int, int, int] = (40, 36, 32), *, noise: float = 8.0, seed: int = 7
) -> npt.NDArray[np.float32]:
    """A head-like sharp volume: nested ellipsoids, a bright sheet, a few small beads, noise.

    Args:
        shape: Voxels along X, Y, Z.
        noise: Standard deviation of the noise; the brightest tissue is near 1000.
        seed: Seed of noise and of the beads' places.

    Returns:
        A (X, Y, Z) float32 array with air (near 0) around the head, never below zero.
    """
    generator = np.random.default_rng(seed)
    axes = [np.linspace(-1.0, 1.0, n, dtype=np.float64) for n in shape]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    volume = np.zeros(shape, dtype=np.float64)

    def fill(
        centre: tuple[float, float, float], radii: tuple[float, float, float], v: float
    ) -> None:
        inside = sum(
            ((axis - c) / r) ** 2 for axis, c, r in zip((x, y, z), centre, radii, strict=True)
        )
        volume[np.asarray(inside) <= 1.0] = v

    fill((0.0, 0.0, 0.0), (0.88, 0.92, 0.90), 900.0)
    fill((0.0, 0.0, 0.0), (0.80, 0.84, 0.82), 250.0)
    fill((0.0, 0.0, 0.0), (0.74, 0.78, 0.76), 600.0)
    fill((-0.2, 0.1, 0.0), (0.14, 0.40, 0.30), 150.0)
    fill((0.2, 0.1, 0.0), (0.14, 0.40, 0.30), 150.0)
    for _ in range(12):
        centre = tuple(generator.uniform(-0.5, 0.5, size=3))
        fill(centre, (0.10, 0.10, 0.10), float(generator.uniform(300.0, 1000.0)))
    sheet = np.abs(z - 0.25 * np.sin(4.0 * x)) < 0.05
    volume[sheet & (volume > 500.0)] = 800.0
    volume += generator.normal(0.0, noise, size=shape)
    return np.maximum(volume, 0.0).astype(np.float32)


@pytest.fixture
def phantom() -> npt.NDArray[np.float32]:
    """A sharp (40, 36, 32) float32 volume with structure, air and noise, between 0 and ~1000."""
    return make_phantom()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Give the folder of a small model with random weights, named "tiny"; see ``make``."""
    import torch

    from medsr.model import Intensity, ModelSpec, SpacingRange, SRModel
    from medsr.networks import build_network

    made: dict[str, Path] = {}

    def make(modality: str = "MR", scale: tuple[int, int, int] = (1, 1, 4), **more: Any) -> Path:
        """Make it, or give the one that was made of the same arguments.

        Args:
            modality: "MR" or "CT".
            scale: Whole factors.
            **more: Further options of the network, such as ``head="gaussian"``.
        """
        name = repr((modality, scale, sorted(more.items())))
        if name in made:
            return made[name]
        torch.manual_seed(4)
        options = {"width": 16, "depth": 1, "branches": False, **more}
        network = build_network("RepPlain3D", scale, **options)
        spec = ModelSpec(
            name="tiny",
            description="random weights, for tests",
            version="0",
            network="RepPlain3D",
            options=options,
            scale=scale,
            modality=modality,
            role="student",
            intensity=Intensity.for_modality(modality),
            halo=network.halo,
            multiple_of=network.multiple_of,
            trained_spacing_mm=SpacingRange((0.6, 1.2), (2.4, 4.8)),
            trained_degradation={},
            parameters=sum(p.numel() for p in network.parameters()),
            training={},
        )
        made[name] = SRModel(network, spec).save(tmp_path_factory.mktemp("model") / "tiny")
        return made[name]

    return make


# What `make quick` leaves out: training, DICOM, statistics, networks' exports, whole runs.
SLOW = ("integration", "contract", "fuzz", "unit/train", "unit/distill", "unit/benchmark")
SLOW += ("unit/compress", "unit/evaluate", "unit/pacs", "unit/infer/engine", "unit/io/dicom")
SLOW += ("unit/io/test_dicom", "unit/networks/test_unet", "unit/cli/test_commands")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow, by folder and module."""
    here = Path(__file__).parent
    for item in items:
        inside = item.path.is_relative_to(here)
        if inside and item.path.relative_to(here).as_posix().startswith(SLOW):
            item.add_marker(pytest.mark.slow)

"""How fast the student networks are at one size, measured side by side in one process.

Parameters and multiply-accumulates do not tell a network's speed: depthwise, grouped and planar
convolutions save operations and are bound by memory instead. Every round times all networks in
turn, so that whatever slows the machine down meets them alike, and the ratios are taken within
rounds. Quality is not measured here; see ``medsr.evaluate``.
"""

from __future__ import annotations

import json
import logging
import math
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from medsr._version import __version__
from medsr.errors import UsageError
from medsr.infer.engine.device import resolve_device, resolve_precision
from medsr.io.atomic import atomic_file, check_output
from medsr.networks import NETWORKS, SRNetwork, build_network
from medsr.types import CountProgress, Triple

logger = logging.getLogger(__name__)

"""Called with the rounds done and the rounds in all."""

SCHEMA = 1
REFERENCE = "RepPlain3D"
"""The network that the others are compared with: the shipped students'."""

_COMPARED = {name: sizes for name in NETWORKS if (sizes := NETWORKS.find(name).compared)}
STUDENTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {REFERENCE: _COMPARED[REFERENCE], **_COMPARED}
)
"""Every student network with the options of its recipe, all of about 226 K parameters."""

_COUNTED: Triple = (4, 4, 4)


@dataclass(frozen=True)
class Speed:
    """One network at one precision.

    Attributes:
        seconds: Wall time of each round's forward pass.
        ratios: The same over the reference's, round by round.
        gflops: Useful rate at the median time, 10⁹ floating-point operations a second; a
            multiply-accumulate counts as two.
    """

    seconds: tuple[float, ...]
    ratios: tuple[float, ...]
    gflops: float

    def to_dict(self) -> dict[str, Any]:
        """Return medians and spread beside the single values, as plain data."""
        plain = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}
        for name, values in (("seconds", self.seconds), ("ratio", self.ratios)):
            plain[f"median_{name}"] = median(values)
            plain[f"{name}_range"] = [min(values), max(values)]
        return plain


def run(
    *,
    shape: Triple = (96, 96, 24),
    scale: Triple = (1, 1, 4),
    networks: Mapping[str, Mapping[str, Any]] = STUDENTS,
    precisions: Sequence[str] = ("fp32", "bf16"),
    rounds: int = 9,
    device: str = "cpu",
    threads: int | None = None,
    progress: CountProgress | None = None,
) -> dict[str, Any]:
    """Time a forward pass of every network, as the engine would run it on one tile.

    The networks are merged for inference and have random weights, on which speed does not depend.
    On a processor activations are ``channels_last_3d``; bf16 is autocast.

    Args:
        shape: Low-resolution voxels of the volume.
        scale: Integer factors along X, Y and Z.
        networks: Options by name; :data:`REFERENCE` must be among them.
        precisions: ``"fp32"``, ``"bf16"``; each is measured in rounds of its own. Without native
            support bf16 is emulated, and very slow.
        rounds: How often every network is timed, after one pass to warm up.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: Threads of PyTorch on the processor; by default as many as it is set to.
        progress: Told after every round, warming up included.

    Returns:
        The measurement as plain data, ready for :func:`save` and :func:`table`.

    Raises:
        UsageError: The reference is missing, or rounds, threads or a precision are out of range.
        ModelError: A network is unknown or does not take its options.
        DeviceError: The device is not there.
    """
    if REFERENCE not in networks:
        raise UsageError(f"{REFERENCE} is not among the networks; the others are compared with it")
    if rounds < 1 or (threads is not None and threads < 1) or min(shape) < 1 or not precisions:
        raise UsageError("rounds, threads and sizes start at 1, and one precision is needed")
    resolved = resolve_device(device)
    wanted = [resolve_precision(precision, resolved) for precision in precisions]
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            built = {
                name: build_network(name, scale, **options).merged().eval().to(resolved)
                for name, options in networks.items()
            }
            lr = torch.rand(1, 1, *shape).to(resolved)
        work = {name: macs_per_voxel(network) for name, network in built.items()}
        speeds: dict[str, dict[str, Speed]] = {name: {} for name in built}
        for i, precision in enumerate(wanted):

            def report(done: int, offset: int = i * (rounds + 1)) -> None:
                if progress is not None:
                    progress(offset + done, len(wanted) * (rounds + 1))

            seconds = _interleaved(built, lr, precision == "bf16", rounds, report)
            for name, times in seconds.items():
                ratios = tuple(t / r for t, r in zip(times, seconds[REFERENCE], strict=True))
                rate = 2e-9 * work[name] * math.prod(shape) / median(times)
                speeds[name][precision] = Speed(times, ratios, rate)
        return {
            "schema": SCHEMA,
            "benchmark": "networks",
            "versions": {
                "medsr": __version__,
                "python": platform.python_version(),
                "torch": torch.__version__,
            },
            "machine": _machine(resolved),
            "shape": list(shape),
            "scale": list(scale),
            "rounds": rounds,
            "reference": REFERENCE,
            "networks": [
                {
                    "name": name,
                    "options": dict(networks[name]),
                    "parameters": sum(p.numel() for p in network.parameters()),
                    "macs_per_voxel": work[name],
                    "halo": list(network.halo),
                    "speed": {key: speed.to_dict() for key, speed in speeds[name].items()},
                }
                for name, network in built.items()
            ],
        }
    finally:
        torch.set_num_threads(before)


def macs_per_voxel(network: SRNetwork) -> float:
    """Count the multiply-accumulates of a network per low-resolution voxel.

    Convolutions count, padding included; activations, additions and copies do not.
    """
    size = [n * m for n, m in zip(_COUNTED, network.multiple_of, strict=True)]
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(torch.zeros(1, 1, *size, device=next(network.parameters()).device))
    return counter.get_total_flops() / 2 / math.prod(size)


def save(results: Mapping[str, Any], path: str | Path, *, overwrite: bool = False) -> Path:
    """Write what :func:`run` returned as JSON, whole or not at all.

    Raises:
        OutputExistsError: The file is there and ``overwrite`` is False.
        OutputNotWritableError: It cannot be written.
    """
    target = Path(path)
    check_output(target, overwrite=overwrite)
    with atomic_file(target, overwrite=overwrite) as temporary:
        text = json.dumps(results, indent=2, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
    return target


def table(results: Mapping[str, Any]) -> str:
    """Render a measurement as a Markdown table, one network a row.

    Args:
        results: What :func:`run` returned, or its JSON read back.

    Returns:
        Size and work of each network; by precision the median time, and the median ratio to the
        reference with its least and greatest value. It ends with a newline.
    """
    networks: list[dict[str, Any]] = results["networks"]
    precisions = list(networks[0]["speed"])
    header = ["network", "parameters", "MACs per voxel", "halo"]
    for precision in precisions:
        header += [f"{precision} ms", f"times {results['reference']} (least … most)"]
    rows = [header, ["---", *["---:"] * (len(header) - 1)]]
    for network in networks:
        row = [
            f"`{network['name']}`",
            f"{network['parameters'] / 1e3:.0f} K",
            f"{network['macs_per_voxel'] / 1e3:.0f} K",
            f"{max(network['halo'])}",
        ]
        for precision in precisions:
            speed = network["speed"][precision]
            least, most = speed["ratio_range"]
            row += [
                f"{1e3 * speed['median_seconds']:.0f}",
                f"{speed['median_ratio']:.2f} ({least:.2f} … {most:.2f})",
            ]
        rows.append(row)
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _interleaved(
    networks: Mapping[str, SRNetwork],
    lr: torch.Tensor,
    reduced: bool,
    rounds: int,
    report: Callable[[int], None],
) -> dict[str, tuple[float, ...]]:
    """Time all networks round by round, each round from another one on; warm up first."""
    names = list(networks)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        start = number % len(names)
        for name in names[start:] + names[:start]:
            taken = _time(networks[name], lr, reduced)
            if number > 0:
                seconds[name].append(taken)
        logger.debug("round %d of %d", number, rounds)
        report(number + 1)
    return {name: tuple(times) for name, times in seconds.items()}


def _time(network: SRNetwork, lr: torch.Tensor, reduced: bool) -> float:
    """Return the wall time of one forward pass, seconds."""
    precision: AbstractContextManager[Any] = (
        torch.autocast(lr.device.type, dtype=torch.bfloat16) if reduced else nullcontext()
    )
    with torch.no_grad(), precision:
        _wait(lr.device)
        start = time.perf_counter()
        network(lr)
        _wait(lr.device)
        return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _machine(device: torch.device) -> dict[str, Any]:
    """Tell what decides about speed: the processor's kind, its threads and instructions."""
    query = getattr(torch.cpu, "get_capabilities", None)
    capabilities: dict[str, Any] = query() if query else {}
    return {
        "processor": platform.machine(),
        "device": str(device),
        "threads": torch.get_num_threads(),
        "instructions": sorted(
            name
            for name, value in capabilities.items()
            if value is True and name.startswith(("amx", "avx", "neon", "sve"))
        ),
    }

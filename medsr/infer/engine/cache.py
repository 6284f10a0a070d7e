"""What is measured once per machine and kept: small JSON files in the user's cache folder.

Figures of a machine and the fastest backend for a network are worth keeping, and never worth a
failed run: a file that is damaged or a folder that cannot be written to count as nothing kept.
One file holds one answer, so runs side by side do not disturb each other. An answer counts for
:data:`KEPT_DAYS` days, and for an hour where other programs kept the machine busy while it was
measured (:class:`Disturbance`). Nothing of a scan or a patient ever gets here.

The environment variable ``MEDSR_CACHE`` names another folder, or ``off``.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import platformdirs
import psutil
import torch

from medsr._version import __version__
from medsr.errors import OutputError
from medsr.io.atomic import atomic_file

logger = logging.getLogger(__name__)

VARIABLE = "MEDSR_CACHE"
OFF = ("off", "0", "none", "no", "false")
"""Values of the variable by which nothing is kept."""

KEPT_DAYS = 30
"""Days after which an answer is measured anew: drivers, cooling and virtual machines change."""

BUSY_DAYS = 1 / 24
"""The same of what was measured while other programs kept the machine busy."""

QUIET_SHARE = 0.1
"""Share of the processors from which on other programs keep a machine busy."""

LIBRARIES = ("torch", "openvino", "onnxruntime")
"""Their versions are part of every key: another version may be faster or slower."""


class Disturbance:
    """Measures how much of the processors other programs take, in a ``with`` block.

    Attributes:
        share: Of the processors that this process may use, 0 to 1; known after the block.

    Example:
        >>> with Disturbance() as others:
        ...     pass
        >>> 0 <= others.share <= 1
        True
    """

    share = 0.0

    def __enter__(self) -> Disturbance:
        self._before = self._seconds()
        return self

    def __exit__(self, *_: object) -> None:
        busy, total, own = (
            after - before for after, before in zip(self._seconds(), self._before, strict=True)
        )
        self.share = min(max((busy - own) / total, 0.0), 1.0) if total > 0 else 0.0

    @property
    def days(self) -> float:
        """How long what was measured in the block is worth keeping."""
        return KEPT_DAYS if self.share <= QUIET_SHARE else BUSY_DAYS

    @staticmethod
    def _seconds() -> tuple[float, float, float]:
        """Seconds since the machine started: processors busy, all of them, this process."""
        process = psutil.Process()
        every = psutil.cpu_times(percpu=True)
        usable = process.cpu_affinity() if hasattr(process, "cpu_affinity") else None
        mine = every if not usable else [every[k] for k in usable if k < len(every)] or every
        total = sum(sum(times[:8]) for times in mine)  # guests are among user and nice
        idle = sum(times.idle + getattr(times, "iowait", 0.0) for times in mine)
        own = process.cpu_times()
        return total - idle, total, own.user + own.system


def cache_folder() -> Path | None:
    """Return the folder of the cache, whether it exists or not; None where it is switched off."""
    chosen = os.environ.get(VARIABLE, "").strip()
    if chosen.lower() in OFF:
        return None
    if chosen:
        return Path(chosen)
    return platformdirs.user_cache_path("medsr", appauthor=False)


def machine() -> dict[str, Any]:
    """Describe the machine as far as speed depends on it, as plain data.

    Returns:
        Processor and what it can do, threads that torch uses, system, and versions of the
        libraries that compute; None for those that are not installed.
    """
    query = getattr(torch.cpu, "get_capabilities", None)
    capabilities: dict[str, Any] = dict(query()) if query else {}
    return {
        "processor": capabilities.pop("cpu_name", "") or platform.processor(),
        "architecture": platform.machine(),
        "system": platform.system(),
        "capabilities": {name: value for name, value in sorted(capabilities.items()) if value},
        "threads": torch.get_num_threads(),
        "versions": {"medsr": __version__, **{name: _version(name) for name in LIBRARIES}},
    }


def machine_key(kind: str, **parts: Any) -> str:
    """Return the key under which an answer that holds on this machine alone is kept.

    Args:
        kind: What is kept, a short word of letters, digits and hyphens; the file's name begins
            with it.
        **parts: What else the answer depends on, as plain data (JSON).

    Returns:
        A name fit for a file, the same in every process on a machine of this kind.
    """
    text = json.dumps([machine(), parts], sort_keys=True)
    return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:24]}"


def read(key: str) -> dict[str, Any] | None:
    """Return what was kept under a key, or None: nothing there, damaged, not readable, or old.

    Args:
        key: See :func:`machine_key`.
    """
    try:
        folder = cache_folder()
        if folder is None:
            return None
        entry = json.loads((folder / f"{key}.json").read_text(encoding="utf-8"))
        left_days = (float(entry.pop("expires")) - time.time()) / 86400
    except FileNotFoundError:
        return None
    except (OSError, RuntimeError, ValueError, AttributeError, KeyError, TypeError) as error:
        logger.debug("nothing read from the cache: %s", error)
        return None
    # A clock that was set back must not keep an answer for longer.
    return entry if 0 < left_days <= KEPT_DAYS + 1 else None


def write(key: str, value: dict[str, Any], *, days: float = KEPT_DAYS) -> None:
    """Keep an answer; where that is not possible, nothing happens.

    Args:
        key: See :func:`machine_key`.
        value: Plain data (JSON).
        days: How long it counts.
    """
    try:
        folder = cache_folder()
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        expires = int(time.time() + 86400 * days)
        text = json.dumps({**value, "expires": expires}, indent=2) + "\n"
        with atomic_file(folder / f"{key}.json", overwrite=True) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except (OSError, RuntimeError, OutputError) as error:
        logger.debug("nothing written to the cache: %s", error)


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None

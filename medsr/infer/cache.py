"""What is measured once per machine and kept: small JSON files in the user's cache folder.

Figures of a machine and the fastest backend for a network are worth keeping, and never worth a
failed run: a file that is damaged or a folder that cannot be written to count as nothing kept.
One file holds one answer, so runs side by side do not disturb each other. What is measured is the
callers' business, and nothing of a scan or a patient ever gets here.

The environment variable ``MEDSR_CACHE`` names another folder, or ``off``.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import platformdirs
import torch

from medsr import __version__
from medsr.errors import OutputError
from medsr.io.atomic import atomic_file

logger = logging.getLogger(__name__)

VARIABLE = "MEDSR_CACHE"
OFF = ("off", "0", "none", "no", "false")
"""Values of the variable by which nothing is kept."""

LIBRARIES = ("torch", "openvino", "onnxruntime")
"""Their versions are part of every key: another version may be faster or slower."""


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
    """Return what was kept under a key, or None: nothing there, damaged, or not readable.

    Args:
        key: See :func:`machine_key`.
    """
    try:
        folder = cache_folder()
        if folder is None:
            return None
        found = json.loads((folder / f"{key}.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, RuntimeError, ValueError) as error:
        logger.debug("nothing read from the cache: %s", error)
        return None
    return found if isinstance(found, dict) else None


def write(key: str, value: dict[str, Any]) -> None:
    """Keep an answer; where that is not possible, nothing happens.

    Args:
        key: See :func:`machine_key`.
        value: Plain data (JSON).
    """
    try:
        folder = cache_folder()
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(value, indent=2) + "\n"
        with atomic_file(folder / f"{key}.json", overwrite=True) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except (OSError, RuntimeError, OutputError) as error:
        logger.debug("nothing written to the cache: %s", error)


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None

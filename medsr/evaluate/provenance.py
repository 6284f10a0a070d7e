"""What must be known to read an evaluation's numbers, as plain data for ``results.json``.

Versions, and what degraded and restored the scans. The command that repeats it is in ``plan``,
conventions of the metrics are in ``metrics``.
"""

from __future__ import annotations

import logging
import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from medsr._version import __version__
from medsr.degrade import DEGRADATIONS, Degradation
from medsr.model import SRModel

logger = logging.getLogger(__name__)

_LIBRARIES = ("torch", "monai", "numpy", "scipy", "scikit-image", "SimpleITK", "nibabel")


def describe_model(model: SRModel) -> dict[str, Any]:
    """Name, version, size and hash of a model."""
    spec = model.spec
    return {
        "what": spec.description,
        "name": spec.name,
        "version": spec.version,
        "role": spec.role,
        "network": spec.network,
        "parameters": spec.parameters,
        "weights_sha256": model.weight_hash,
    }


def describe_degradation(degradation: Degradation[Any]) -> dict[str, Any]:
    """Kind, factor and nominal parameters of a degradation."""
    params = degradation.nominal()
    kind = next((name for name, cls in DEGRADATIONS.items() if type(degradation) is cls), "")
    return {
        "kind": kind or type(degradation).__name__,
        "factor": list(degradation.factor),
        "parameters": asdict(params),
        "draw": "nominal: central parameters, no noise, nothing random",
    }


def versions() -> dict[str, str]:
    """Versions of medsr, Python and the libraries that the numbers depend on."""
    library_versions = {"medsr": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            library_versions[name] = version(name)
        except PackageNotFoundError:
            logger.debug("%s carries no version", name)
    return library_versions

"""What must be known to read an evaluation's numbers, as plain data for ``results.json``.

The command that repeats it, versions, and what degraded and restored the scans. No folder of one
machine is named. Conventions of the metrics are in ``metrics``.
"""

from __future__ import annotations

import logging
import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medsr import __version__
from medsr.degrade import DEGRADATIONS, Degradation
from medsr.model import SRModel
from medsr.volume import Modality

if TYPE_CHECKING:
    from medsr.evaluate.plan import Plan

logger = logging.getLogger(__name__)

MARGIN_DB = 0.1
"""By how much a student's PSNR may lie below its teacher's, unless told otherwise."""

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


def repeating_command(plan: Plan, modality: Modality) -> str:
    """Return the command that repeats an evaluation; folders of one machine are left out."""
    from medsr.evaluate.baselines import BASELINES
    from medsr.evaluate.runner import PARTS

    words = ["medsr evaluate", *(f"--model {_shown(model)}" for model in plan.models)]
    words += [f"--method {name}=DIR" for name in plan.others]
    words += [f"--cohort {Path(plan.cohort).name}", f"--split {plan.split}"]
    if plan.scale is not None:
        words += [f"--scale {','.join(map(str, plan.scale))}"]
    words += ["--pairs"] if plan.pairs else []
    words += [f"--modality {modality.lower()}"]
    words += [f"--kind {plan.kind}"] if plan.kind is not None else []
    words += [f"--seed {plan.seed}"] if plan.seed is not None else []
    if set(plan.baselines) | {"bspline"} != set(BASELINES):
        words += [f"--baselines {','.join(plan.baselines) or 'bspline'}"]
    if set(plan.parts) != set(PARTS):
        words += [f"--parts {','.join(part for part in PARTS if part in plan.parts) or 'none'}"]
    words += ["--consistency"] if plan.consistency else []
    words += [f"--margin {plan.margin_db:g}"] if plan.margin_db != MARGIN_DB else []
    words += [f"--limit {plan.limit}"] if plan.limit is not None else []
    words += ["--robust"] if plan.robust is not None else []
    words += ["--allow-train"] if plan.allow_train else []
    return " ".join([*words, "--out DIR"])


def versions() -> dict[str, str]:
    """Versions of medsr, Python and the libraries that the numbers depend on."""
    found = {"medsr": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            logger.debug("%s carries no version", name)
    return found


def _shown(model: str | Path) -> str:
    """A model's name, or its folder's; the folder of a run is told from others of its kind."""
    path = Path(model)
    return f"{path.parent.name}/{path.name}" if path.name == "model" else path.name

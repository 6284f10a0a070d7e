"""A plan: what to evaluate and how, as data, refused where it contradicts itself.

Nothing is read here; a plan meets its cohort and its models in ``cohort``.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medsr.errors import UsageError
from medsr.evaluate.baselines import BASELINES
from medsr.evaluate.robustness import Disturbances
from medsr.evaluate.runner import PARTS
from medsr.types import Scale
from medsr.volume import Modality

MARGIN_DB = 0.1
"""By how much a student's PSNR may lie below its teacher's, unless told otherwise."""

__all__ = ["Plan"]


@dataclass(frozen=True)
class Plan:
    """What to evaluate, and how.

    Args:
        cohort: CSV file, BIDS folder or lock file, see :func:`medsr.data.cohort.read_cohort`.
        split: Which split.
        scale: Factors; through-plane (only the last above 1: every sharp axis of a scan serves
            as slice axis in turn) or isotropic (all equal: scans that are sharp along x, y, z).
            None, with ``pairs`` alone: the models' own.
        models: Names of shipped models or model folders, all of one modality.
        others: Folders with results of other tools, by the name they take in the results.
        baselines: Names of :data:`~medsr.evaluate.baselines.BASELINES`; ``bspline`` is always
            among them.
        modality: Which scans; None takes the models' modality, else the cohort's only one.
        kind: Degradation; None takes ``ct_slab`` for CT, ``slice_profile`` for MR through-plane
            and ``kspace`` for MR isotropic.
        seed: Draws parameters and noise of the degradation, others for every scan and axis; None
            takes the central parameters without noise.
        pairs: Compare real pairs, a thick scan (column ``lr_path``) with the thin one, instead of
            simulating.
        parts: What is looked at beside the metrics; see :data:`~medsr.evaluate.runner.PARTS`.
        consistency: Score every model a second time, projected onto the scan.
        margin_db: By how much a student's PSNR may lie below its teacher's and still count as no
            worse; set before the results are known.
        limit: Only the first scans.
        device: As ``medsr upscale``.
        precision: As ``medsr upscale``.
        max_memory: As ``medsr upscale``.
        allow_train: Permit the split ``train``, whose scores say nothing about new patients, and
            models that were trained on patients of the split.
        robust: Also score a part of every scan noisy and under attack; None leaves that out.
        write_inputs: Folder that takes the low-resolution scans, for other tools.

    Examples:
        >>> from medsr.evaluate.plan import Plan
        >>> plan = Plan(cohort="cohort.csv", split="dev", scale=(1, 1, 4), models=["mr-z4"])
        >>> plan.command("MR").startswith("medsr evaluate --model mr-z4 --cohort cohort.csv")
        True
    """

    cohort: str | Path
    split: str
    scale: Scale | None = None
    models: Sequence[str | Path] = ()
    others: Mapping[str, Path] = field(default_factory=dict)
    baselines: Collection[str] = BASELINES
    modality: Modality | None = None
    kind: str | None = None
    seed: int | None = None
    pairs: bool = False
    parts: Collection[str] = PARTS
    consistency: bool = False
    margin_db: float = MARGIN_DB
    limit: int | None = None
    device: str = "auto"
    precision: str = "auto"
    max_memory: str | int | None = None
    allow_train: bool = False
    robust: Disturbances | None = None
    write_inputs: Path | None = None

    def __post_init__(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            UsageError: An option is unknown or does not go with another.
        """
        unknown = [part for part in self.parts if part not in PARTS]
        if unknown:
            raise UsageError(f"part {unknown[0]!r} is unknown; there are {', '.join(PARTS)}")
        if not 0 <= self.margin_db < math.inf:
            raise UsageError(f"margin {self.margin_db:g} dB: give zero or more")
        if self.pairs:
            simulated = self.scale, self.kind, self.seed, self.robust
            if any(option is not None for option in simulated) or self.consistency:
                raise UsageError(
                    "pairs are real scans: scale, kind, seed, robust and consistency "
                    "belong to simulated ones; leave them out"
                )
        elif self.scale is None:
            raise UsageError("give a scale: 1,1,N (through-plane) or N,N,N (isotropic)")
        else:
            check_scale(self.scale)
        if self.split.lower() == "train" and not self.allow_train:
            raise UsageError(
                "split train was used for training and its scores mislead; "
                "take another split, or pass --allow-train"
            )

    def command(self, modality: Modality) -> str:
        """Return the command that repeats it; folders of one machine are left out.

        Args:
            modality: Of the scans that were found.
        """
        arguments = ["medsr evaluate", *(f"--model {_shown(model)}" for model in self.models)]
        arguments += [f"--method {name}=DIR" for name in self.others]
        arguments += [f"--cohort {Path(self.cohort).name}", f"--split {self.split}"]
        if self.scale is not None:
            arguments += [f"--scale {','.join(map(str, self.scale))}"]
        arguments += ["--pairs"] if self.pairs else []
        arguments += [f"--modality {modality.lower()}"]
        arguments += [f"--kind {self.kind}"] if self.kind is not None else []
        arguments += [f"--seed {self.seed}"] if self.seed is not None else []
        if set(self.baselines) | {"bspline"} != set(BASELINES):
            arguments += [f"--baselines {','.join(self.baselines) or 'bspline'}"]
        if set(self.parts) != set(PARTS):
            arguments += [
                f"--parts {','.join(part for part in PARTS if part in self.parts) or 'none'}"
            ]
        arguments += ["--consistency"] if self.consistency else []
        arguments += [f"--margin {self.margin_db:g}"] if self.margin_db != MARGIN_DB else []
        arguments += [f"--limit {self.limit}"] if self.limit is not None else []
        arguments += ["--robust"] if self.robust is not None else []
        arguments += ["--allow-train"] if self.allow_train else []
        return " ".join([*arguments, "--out DIR"])


def check_scale(scale: Scale) -> None:
    """Refuse a scale that is neither through-plane nor isotropic.

    Raises:
        UsageError: It is something else.
    """
    x, y, z = scale
    if not ((x == y == 1 and z > 1) or (x == y == z and x > 1)):
        raise UsageError(
            f"scale {x},{y},{z} cannot be scored; give 1,1,N (through-plane) or N,N,N (isotropic)"
        )


def default_kind(modality: Modality, scale: Scale) -> str:
    """The degradation that scans of a modality are taken to have undergone."""
    if modality == "CT":
        return "ct_slab"
    return "kspace" if scale[0] == scale[2] else "slice_profile"


def _shown(model: str | Path) -> str:
    """A model's name, or its folder's; the folder of a run is told from others of its kind."""
    path = Path(model)
    return f"{path.parent.name}/{path.name}" if path.name == "model" else path.name

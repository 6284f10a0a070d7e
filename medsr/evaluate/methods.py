"""What restores a low-resolution scan: classical baselines, models, and other tools' results.

Every method gives its result on the truth's own grid, in native units. Models restore through
``medsr.infer.upscale``, the very call behind ``medsr upscale``; other tools restore on their own,
from files that :func:`write_inputs` wrote, and their results are read from a folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from medsr.errors import (
    CohortError,
    InputNotFoundError,
    MedsrError,
    OutputExistsError,
    UsageError,
)
from medsr.evaluate.baselines import BASELINES, describe_baseline, resample, restore_baseline
from medsr.evaluate.provenance import describe_model
from medsr.evaluate.results.store import make_folder
from medsr.evaluate.tasks import Task, inside
from medsr.infer.engine.backends.load import load_model
from medsr.infer.options import UpscaleOptions
from medsr.infer.upscale import upscale
from medsr.io import formats, load, save
from medsr.io.atomic import check_output
from medsr.model import SRModel
from medsr.volume import Modality, Volume

Variant = Literal["", "lesions"]
"""Which low-resolution scan of a task: the scan itself, or the one with implanted lesions."""
Role = Literal["baseline", "student", "teacher", "external"]

CONSISTENT = "+consistency"
# A margin around the scan is no harm; several times its extent is an affine that was lost.
_LEAST_WITHIN = 0.5


@dataclass(frozen=True)
class Restored:
    """What a method gave back.

    Attributes:
        volume: On the truth's grid, float32, native units.
        sigma: The error that the method expects, where it says one; same grid and units.
    """

    volume: Volume
    sigma: Volume | None = None


class Method(Protocol):
    """Something that restores."""

    @property
    def name(self) -> str:
        """Label in all results."""
        ...

    @property
    def role(self) -> Role:
        """What kind of method."""
        ...

    def describe(self) -> dict[str, Any]:
        """Plain data for ``results.json``."""
        ...

    def restore(self, task: Task, lr: Volume, variant: Variant = "") -> Restored:
        """Restore a low-resolution scan.

        Args:
            task: Whose truth's grid the result takes.
            lr: On the grid of ``task.lr``.
            variant: What ``lr`` is.

        Raises:
            MedsrError: It cannot.
        """
        ...


@dataclass(frozen=True)
class Baseline:
    """A classical method; see :mod:`medsr.evaluate.baselines`."""

    name: str
    role: Role = "baseline"

    def describe(self) -> dict[str, Any]:
        """See :class:`Method`."""
        return {"what": describe_baseline(self.name), "role": self.role}

    def restore(self, task: Task, lr: Volume, variant: Variant = "") -> Restored:
        """See :class:`Method`."""
        return Restored(restore_baseline(self.name, lr, task.truth.geometry, task.degradation))


@dataclass(frozen=True)
class Model:
    """A model of medsr.

    Attributes:
        name: Label.
        model: Loaded.
        modality: Of the scans.
        options: How it runs: device, precision, memory, and whether the result is projected so
            that degrading it returns the scan.
    """

    name: str
    model: SRModel
    modality: Modality
    options: UpscaleOptions

    @property
    def role(self) -> Role:
        """Student or teacher, as the spec says."""
        return self.model.spec.role

    def describe(self) -> dict[str, Any]:
        """See :class:`Method`."""
        about = describe_model(self.model)
        if self.options.consistency:
            about["what"] += " Projected so that degrading it returns the scan."
            about["projects"] = self.name.removesuffix(CONSISTENT)
        return {**about, "consistency": bool(self.options.consistency)}

    def restore(self, task: Task, lr: Volume, variant: Variant = "") -> Restored:
        """See :class:`Method`."""
        result = upscale(
            lr,
            options=self.options,
            model=self.model,
            modality=self.modality,
            # Of a real pair the model takes its own factor; the truth's grid comes after.
            scale=None if task.degradation is None else self.model.spec.scale,
            spacing=None,
            uncertainty=getattr(self.model.module, "readout", None) is not None and not variant,
            allow=("labels",),  # a cohort says what its scans are
        )
        volume, sigma = result.whole(), result.uncertainty
        if not volume.geometry.same_grid(task.truth.geometry):
            if task.degradation is not None:
                raise CohortError(
                    f"{task.job.where}: the result of {self.name} does not lie on the truth's grid "
                    "and cannot be scored"
                )
            volume = resample(volume, task.truth.geometry, "bspline")
            sigma = None if sigma is None else resample(sigma, task.truth.geometry, "linear")
        return Restored(volume, sigma)


@dataclass(frozen=True)
class Folder:
    """Results of another tool, one file a task: ``SCAN_axis-z.nii.gz`` and so on.

    Attributes:
        name: Label.
        folder: Where the files are.
        modality: Of the scans.
    """

    name: str
    folder: Path
    modality: Modality
    role: Role = "external"

    def describe(self) -> dict[str, Any]:
        """See :class:`Method`."""
        return {
            "what": (
                "Another tool's results, read from files; where their grid is not the truth's, "
                "brought there by cubic B-spline"
            ),
            "role": self.role,
        }

    def restore(self, task: Task, lr: Volume, variant: Variant = "") -> Restored:
        """See :class:`Method`.

        Raises:
            InputNotFoundError: There is no file for the task.
            CohortError: The file cannot be read, or lies elsewhere than the scan.
        """
        path = self.find(task, variant)
        try:
            volume = load(path, modality=self.modality)
        except MedsrError as error:
            text = str(error).replace(str(path), path.name)
            raise CohortError(f"{self.name}: {text}") from error
        grid = task.truth.geometry
        if volume.geometry.same_grid(grid):
            data = np.ascontiguousarray(volume.data, dtype=np.float32)
            return Restored(volume.replace(data=data, geometry=grid))
        there = inside(grid, volume.geometry)
        if not there.all() and not (task.covered is not None and there[task.covered].all()):
            raise CohortError(
                f"{self.name}: {path.name} covers {float(there.mean()):.0%} of the scan; a result "
                "must keep the physical extent of its input (affine included)"
            )
        within = float(inside(volume.geometry, lr.geometry).mean())
        if within < _LEAST_WITHIN:
            raise CohortError(
                f"{self.name}: {path.name} reaches far beyond the scan, in which only "
                f"{within:.0%} of it lie; a result must keep the physical extent of its input "
                "(affine included)"
            )
        return Restored(resample(volume, grid, "bspline"))

    def find(self, task: Task, variant: Variant = "") -> Path:
        """The file of a task.

        Raises:
            InputNotFoundError: There is none.
        """
        name = file_name(task, variant)
        for suffix in (end for known in formats.table().values() for end in known.written):
            path = self.folder / f"{name}{suffix}"
            if path.is_file():
                return path
        without = "; --parts without lesions asks for none" if variant == "lesions" else ""
        raise InputNotFoundError(
            f"{self.name}: no file {name}.nii.gz in its folder; write the inputs with "
            f"--write-inputs and keep their names{without}"
        )


def file_name(task: Task, variant: Variant = "") -> str:
    """Name of a task's files without suffix."""
    return task.job.name + (f"_{variant}" if variant else "")


def write_input(task: Task, lr: Volume, folder: Path, variant: Variant = "") -> Path:
    """Write what the methods are given, for other tools: NIfTI, float32, native units.

    Raises:
        OutputError: It cannot be written.
    """
    path = folder / f"{file_name(task, variant)}.nii.gz"
    # Nothing of the source's header: the grid is another one, and texts may name somebody.
    save(lr.replace(source=None), path, overwrite=True)
    return path


def take_inputs(folder: Path, names: Iterable[str], others: Mapping[str, Path]) -> None:
    """Make the folder of :func:`write_input`; what a stopped run wrote there may be there still.

    Args:
        folder: Its parent must exist.
        names: Of the jobs whose scans will be written.
        others: Folders with results of other tools.

    Raises:
        UsageError: It is one of those folders.
        OutputExistsError: It holds other files, which might be replaced.
        OutputNotWritableError: It cannot be made.
    """
    if any(folder.resolve() == other.resolve() for other in others.values()):
        raise UsageError(f"--write-inputs {folder}: results are read from there; choose another")
    if not folder.is_dir():
        check_output(folder, overwrite=False)
        make_folder(folder)
        return
    expected = {f"{name}{variant}.nii.gz" for name in names for variant in ("", "_lesions")}
    strange = [path for path in folder.iterdir() if path.name not in expected]
    if strange:
        raise OutputExistsError(
            f"--write-inputs {folder}: the folder holds {len(strange)} other files; choose a new "
            "or empty one"
        )


def choose_baselines(names: Iterable[str]) -> tuple[Baseline, ...]:
    """Baselines by name, ``bspline`` always among them, in the order of the table.

    Raises:
        UsageError: There is no such baseline.
    """
    wanted = [*names, "bspline"]
    unknown = [name for name in wanted if name not in BASELINES]
    if unknown:
        raise UsageError(f"baseline {unknown[0]!r} is unknown; there are {', '.join(BASELINES)}")
    return tuple(Baseline(name) for name in BASELINES if name in wanted)


def load_models(sources: Sequence[str | Path], taken: Iterable[str]) -> dict[str, SRModel]:
    """Models by label, which is their name, numbered where it is taken.

    Raises:
        ModelError: A model is unknown or damaged.
    """
    labelled: dict[str, SRModel] = {}
    used = set(taken)
    for source in sources:
        model = load_model(source)
        label, number = model.spec.name, 2
        while label in used:
            label, number = f"{model.spec.name}-{number}", number + 1
        used.add(label)
        labelled[label] = model
    return labelled


def check_folders(others: Mapping[str, Path], taken: Iterable[str]) -> None:
    """Refuse names and folders of other tools' results that cannot be used.

    Raises:
        UsageError: A name is empty or taken.
        InputNotFoundError: A folder is not there.
    """
    used = set(taken)
    for name, folder in others.items():
        if not name or name in used:
            raise UsageError(f"--method {name}=...: the name is empty or taken; choose another")
        if not folder.is_dir():
            raise InputNotFoundError(f"--method {name}: {folder} is no folder")

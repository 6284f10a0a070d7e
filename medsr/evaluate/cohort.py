"""``evaluate``: a plan, checked against cohort and models, run, and put into results.

What is compared is in ``tasks``, what restores in ``methods``, the loop in ``runner``, what is
inferred over patients in ``statistics``, and what is said about a run in ``about``.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from medsr.data.cohort import cohort_digest, read_cohort, require_scans
from medsr.data.manifest import ScanRecord, select
from medsr.data.overlap import refuse_training_patients, training_scans, training_warnings
from medsr.degrade import Degradation, build_degradation
from medsr.errors import CohortError, UsageError
from medsr.evaluate import lesions, metrics
from medsr.evaluate.baselines import BASELINES
from medsr.evaluate.calibration import mean_calibrations
from medsr.evaluate.methods import (
    CONSISTENT,
    Folder,
    Method,
    Model,
    check_folders,
    choose_baselines,
    load_models,
    take_inputs,
)
from medsr.evaluate.plan import Plan, default_kind
from medsr.evaluate.provenance import versions
from medsr.evaluate.results import Results, intervals, statistics
from medsr.evaluate.results.regions import by_region
from medsr.evaluate.results.store import Unfinished
from medsr.evaluate.results.table import REFERENCE_METHOD
from medsr.evaluate.robustness import Scored, examine
from medsr.evaluate.runner import Found, Look, Runner
from medsr.evaluate.sampling import build_drawn
from medsr.evaluate.tasks import RealPairs, Simulated, Task, Tasks
from medsr.infer.options import UpscaleOptions
from medsr.model import SRModel
from medsr.types import Progress, Scale
from medsr.volume import Modality, Volume


class Evaluation:
    r"""A plan whose cohort and models were read and fit together.

    Raises:
        CohortError: The cohort is wrong, has no scan that fits, or holds patients that a model was
            trained on.
        UsageError: Scale, models and modality do not go together.
        ModelError: A model is unknown or damaged.
        MissingExtraError: The extra ``report`` is not installed.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> import medsr
        >>> from medsr.evaluate.cohort import Evaluation
        >>> from medsr.evaluate.plan import Plan
        >>> data = np.random.default_rng(0).uniform(200, 800, (24, 24, 48)).astype(np.float32)
        >>> scan = medsr.Volume(data, medsr.Geometry(data.shape, np.eye(4)), "MR")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = medsr.save(scan, Path(folder, "p1.nii.gz"))
        ...     manifest = Path(folder, "cohort.csv")
        ...     header = "path,split,patient_id,modality,sharp_axes"
        ...     _ = manifest.write_text(f"{header}\np1.nii.gz,dev,p1,MR,z")
        ...     evaluation = Evaluation(Plan(manifest, "dev", scale=(1, 1, 4), models=["mr-z4"]))
        >>> [(job.record.scan_id, job.label) for job in evaluation.tasks.jobs]
        [('p1', 'z')]
        >>> [method.name for method in evaluation.methods][-1]
        'mr-z4'
    """

    def __init__(self, plan: Plan) -> None:
        intervals.check_installed()
        self.plan = plan
        records = read_cohort(plan.cohort, check_files=False)
        baselines = choose_baselines(plan.baselines)
        check_folders(plan.others, BASELINES)
        self.models = load_models(plan.models, (*BASELINES, *plan.others))
        for name, model in self.models.items():
            _check_factor(name, model, plan.scale)
        self.modality = _modality(plan.modality, self.models, select(records, split=plan.split))
        self.records = select(records, split=plan.split, modality=self.modality)[: plan.limit]
        self.warnings = _warnings(self.models, self.records, allow=plan.allow_train)
        self.tasks: Tasks = self._tasks()
        if not self.tasks.jobs:
            raise CohortError(self._nothing())
        require_scans(plan.cohort, list(dict.fromkeys(job.record for job in self.tasks.jobs)))
        options = UpscaleOptions(
            device=plan.device, precision=plan.precision, max_memory=plan.max_memory
        )
        methods: list[Method] = list(baselines)
        for name, model in self.models.items():
            methods.append(Model(name, model, self.modality, options))
            if plan.consistency:
                label = name + CONSISTENT
                methods.append(
                    Model(label, model, self.modality, options.replace(consistency=True))
                )
        methods += [Folder(name, path, self.modality) for name, path in plan.others.items()]
        self.methods = tuple(methods)

    def run(
        self, unfinished: Unfinished | None = None, *, progress: Progress | None = None
    ) -> Results:
        """Restore and score everything.

        Args:
            unfinished: Keeps what was found until all of it is there, so that a run that was
                stopped goes on.
            progress: Told of every restoration before it starts.

        Returns:
            Rows, means and all that is needed to read them.

        Raises:
            CohortError: Nothing could be scored.
        """
        if self.plan.write_inputs is not None:
            names = (job.name for job in self.tasks.jobs)
            take_inputs(self.plan.write_inputs, names, self.plan.others)
        runner = Runner(
            self.modality,
            self.methods,
            parts=tuple(self.plan.parts),
            seed=self.plan.seed or 0,
            look=self._look(),
            inputs=self.plan.write_inputs,
        )
        rows = runner.run(self.tasks, unfinished or Unfinished(None, {}), progress)
        if not rows.cases:
            reasons = [*rows.skipped, *(entry["reason"] for entry in rows.failed)]
            raise CohortError(f"split {self.plan.split}: nothing could be scored; {reasons[0]}")
        return self._results(rows)

    def open(self, scan_id: str, axis: str) -> Task:
        """Read one task again, for pictures.

        Raises:
            CohortError: There is none of that name.
        """
        for job in self.tasks.jobs:
            if (job.record.scan_id, job.label) == (scan_id, axis):
                return self.tasks.open(job)
        raise CohortError(f"no scan {scan_id}, axis {axis}, is in the evaluation")

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All that the rows depend on."""
        plan = self.plan
        return {
            "about": self._about(),
            "seed": plan.seed,
            "parts": sorted(plan.parts),
            "scans": [f"{job.name} {job.record.path.name}" for job in self.tasks.jobs],
            "inputs": None if plan.write_inputs is None else str(plan.write_inputs),
            "others": {name: str(path) for name, path in plan.others.items()},
            "robust": None if plan.robust is None else plan.robust.describe(self.modality),
        }

    def _results(self, found: Found) -> Results:
        methods = {method.name: method.describe() for method in self.methods}
        parts: dict[str, Any] = {
            "statistics": statistics.analyse(
                found.cases, methods, reference=REFERENCE_METHOD, margin=self.plan.margin_db
            )
        }
        roles = {name: str(about["role"]) for name, about in methods.items()}
        regions = by_region(found.cases, roles)
        if regions:
            parts["regions"] = regions
        if found.lesions:
            parts["lesions"] = {
                "settings": lesions.settings(self.modality),
                "summary": lesions.summarise(found.lesions),
                "rows": found.lesions,
            }
        if found.calibrations:
            parts["calibration"] = mean_calibrations(found.calibrations)
        if found.notes:
            parts["tasks"] = found.notes
        about = self._about()
        # Counts in the words (edges found, scales) are those of the first scan.
        about["conventions"] = found.conventions[0] if found.conventions else {}
        if self.plan.robust is not None:
            about["inputs"] = self.plan.robust.describe(self.modality)
        return Results(
            about,
            tuple(found.cases),
            tuple(found.skipped),
            tuple(found.disturbed),
            found=parts,
            failed=tuple(found.failed),
        )

    def _about(self) -> dict[str, Any]:
        plan = self.plan
        return {
            "command": plan.command(self.modality),
            "versions": versions(),
            "machine": {
                "processor": platform.machine(),
                "device": plan.device,
                "precision": plan.precision,
            },
            "cohort": {
                "manifest": Path(plan.cohort).name,
                "sha256": cohort_digest(plan.cohort),
                "split": plan.split,
                "modality": self.modality,
                "scans": len({job.record.scan_id for job in self.tasks.jobs}),
                "patients": len({job.record.patient_id for job in self.tasks.jobs}),
            },
            "warnings": list(self.warnings),
            **self.tasks.describe(),
            "methods": {method.name: method.describe() for method in self.methods},
        }

    def _tasks(self) -> Tasks:
        if self.plan.scale is None:
            return RealPairs(self.records, self.modality)
        scale, seed = self.plan.scale, self.plan.seed
        if seed is None:
            return Simulated(self.records, self.modality, scale, self._degradation)
        degradation, drawn = build_drawn(self._kind, scale, self.modality)
        return Simulated(self.records, self.modality, scale, degradation, seed, drawn)

    @cached_property
    def _degradation(self) -> Degradation[Any]:
        return build_degradation(self._kind, self.plan.scale or (1, 1, 1))

    @property
    def _kind(self) -> str:
        return self.plan.kind or default_kind(self.modality, self.plan.scale or (1, 1, 1))

    def _nothing(self) -> str:
        if self.plan.pairs:
            return (
                f"split {self.plan.split}: no {self.modality} scan has a thick scan beside it; "
                "name them in the column lr_path"
            )
        return (
            f"split {self.plan.split}: no {self.modality} scan is sharp along x, y and z, as an "
            "isotropic scale needs; take a through-plane scale or another split"
        )

    def _look(self) -> Look | None:
        plan = self.plan
        if plan.robust is None:
            return None
        look = partial(
            examine,
            degradation=self._degradation,
            models=self.models,
            how=plan.robust,
            modality=self.modality,
            device=plan.device,
            precision=plan.precision,
        )
        methods = [method for method in self.methods if not isinstance(method, Folder)]

        def scored(task: Task, reference: metrics.Reference) -> Iterable[Scored]:
            def by(method: Method) -> Callable[[Volume, Volume], Volume]:
                # A part of a scan is a task of its own.
                return lambda lr, hr: method.restore(replace(task, lr=lr, truth=hr), lr).volume

            return look(
                task.truth, reference, methods={method.name: by(method) for method in methods}
            )

        return scored


def evaluate(plan: Plan, *, progress: Progress | None = None) -> Results:
    r"""Score baselines, models and other tools on a split of a cohort.

    Args:
        plan: What and how.
        progress: Told of every restoration before it starts.

    Raises:
        MedsrError: As :class:`Plan` and :class:`Evaluation`.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> import medsr
        >>> from medsr.evaluate.cohort import evaluate
        >>> from medsr.evaluate.plan import Plan
        >>> data = np.random.default_rng(0).uniform(200, 800, (24, 24, 48)).astype(np.float32)
        >>> scan = medsr.Volume(data, medsr.Geometry(data.shape, np.eye(4)), "MR")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = medsr.save(scan, Path(folder, "p1.nii.gz"))
        ...     manifest = Path(folder, "cohort.csv")
        ...     header = "path,split,patient_id,modality,sharp_axes"
        ...     _ = manifest.write_text(f"{header}\np1.nii.gz,dev,p1,MR,z")
        ...     plan = Plan(manifest, "dev", scale=(1, 1, 4), baselines=("linear",), parts=())
        ...     results = evaluate(plan)
        >>> [(case.scan_id, case.axis, case.method) for case in results.cases]
        [('p1', 'z', 'linear'), ('p1', 'z', 'bspline')]
    """
    return Evaluation(plan).run(progress=progress)


def _check_factor(name: str, model: SRModel, scale: Scale | None) -> None:
    factor = model.spec.scale
    if scale is not None and factor != scale:
        raise UsageError(
            f"model {name} restores {','.join(map(str, factor))}, "
            f"not {','.join(map(str, scale))}; leave it out or change --scale"
        )


def _modality(
    wanted: Modality | None, models: Mapping[str, SRModel], records: Sequence[ScanRecord]
) -> Modality:
    served: list[set[Modality]] = [set(model.spec.modalities) for model in models.values()]
    common = set.intersection(*served) if served else set()
    if served and not common:
        raise UsageError("the models are for different modalities; evaluate MR and CT apart")
    there = {record.modality for record in records}
    candidates = (common & there or common) if served else there
    if wanted is not None:
        if served and wanted not in common:
            raise UsageError(f"the models are for {' and '.join(common)}, not for {wanted}")
        return wanted
    if len(candidates) > 1:
        raise UsageError("the split holds MR and CT; choose with --modality or name a model")
    return candidates.pop()


def _warnings(
    models: Mapping[str, SRModel], records: Sequence[ScanRecord], *, allow: bool
) -> tuple[str, ...]:
    """What results must say of the models' training patients.

    Raises:
        TrainingPatientsError: A model learnt from patients that are scored, and nobody allowed it.
    """
    specs = [model.spec for model in models.values()]
    if not allow:
        return refuse_training_patients(specs, records)
    overlaps = [(spec.name, len(training_scans(spec, records))) for spec in specs]
    return (
        *(
            f"model {name} learnt from the patients of {count} scans scored here: its scores "
            "flatter it"
            for name, count in overlaps
            if count
        ),
        *training_warnings(specs),
    )

"""Whether a model would be scored on its own training patients.

Models carry salted hashes of their training patients (``medsr.patients``); here they are tested
against a cohort, and a score that would flatter is refused. Identifiers are compared in any
spelling. Messages name scans, never patients.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from medsr.data.manifest import ScanRecord
from medsr.errors import TrainingPatientsError

if TYPE_CHECKING:
    from medsr.model import ModelSpec

_NAMED = 5


def training_scans(spec: ModelSpec, records: Sequence[ScanRecord]) -> tuple[ScanRecord, ...]:
    """Return the scans of a model's training patients; none where it does not state them.

    Args:
        spec: The model's spec.
        records: Scans; each patient costs tens of milliseconds.

    Examples:
        >>> from dataclasses import replace
        >>> from pathlib import Path
        >>> from medsr import ModelSpec, zoo
        >>> from medsr.data.manifest import ScanRecord
        >>> from medsr.data.overlap import training_scans
        >>> from medsr.patients import TrainingPatients
        >>> told = TrainingPatients.gather(["p1"], cost=2)
        >>> spec = replace(ModelSpec.read(zoo.path("mr-z4")), training_patients=told)
        >>> scans = [ScanRecord(Path(f"{n}.nii.gz"), "dev", n, "MR") for n in ("p1", "p2")]
        >>> [scan.scan_id for scan in training_scans(spec, scans)]
        ['p1']
    """
    if spec.training_patients is None:
        return ()
    overlapping = spec.training_patients.overlap(record.patient_id for record in records)
    return tuple(record for record in records if record.patient_id in overlapping)


def training_warnings(specs: Iterable[ModelSpec]) -> tuple[str, ...]:
    """Return what results must say of models that do not state all their training patients.

    Args:
        specs: The models that are scored.

    Examples:
        >>> from dataclasses import replace
        >>> from medsr import ModelSpec, zoo
        >>> from medsr.data.overlap import training_warnings
        >>> silent = replace(ModelSpec.read(zoo.path("mr-z4")), training_patients=None)
        >>> len(training_warnings([silent]))
        1
    """
    messages = []
    for spec in specs:
        told = spec.training_patients
        if told is None:
            messages.append(
                f"model {spec.name} does not state its training patients; whether it was trained "
                "on patients scored here cannot be known"
            )
        elif not told.is_complete:
            messages.append(
                f"model {spec.name} was taught by {', '.join(told.unstated)}, which does not state "
                "its training patients; whether they are scored here cannot be known"
            )
    return tuple(messages)


def refuse_training_patients(
    specs: Iterable[ModelSpec], records: Sequence[ScanRecord]
) -> tuple[str, ...]:
    """Refuse to score models on their own training patients.

    Args:
        specs: The models' specs.
        records: The scans that would be scored, and no others.

    Returns:
        What the results must say of models that do not state their training patients; see
        :func:`training_warnings`.

    Raises:
        TrainingPatientsError: A model learnt from any of the patients.

    Examples:
        >>> from dataclasses import replace
        >>> from pathlib import Path
        >>> from medsr import ModelSpec, zoo
        >>> from medsr.data.manifest import ScanRecord
        >>> from medsr.data.overlap import refuse_training_patients
        >>> from medsr.errors import TrainingPatientsError
        >>> from medsr.patients import TrainingPatients
        >>> told = TrainingPatients.gather(["p1"], cost=2)
        >>> spec = replace(ModelSpec.read(zoo.path("mr-z4")), training_patients=told)
        >>> try:
        ...     refuse_training_patients([spec], [ScanRecord(Path("a.nii.gz"), "dev", "p1", "MR")])
        ... except TrainingPatientsError as error:
        ...     print(error.exit_code)
        54
    """
    specs = tuple(specs)
    for spec in specs:
        scans = training_scans(spec, records)
        if scans:
            count = len({record.patient_id for record in scans})
            everybody = len({record.patient_id for record in records})
            names = ", ".join(record.scan_id for record in scans[:_NAMED])
            more = f" and {len(scans) - _NAMED} more" if len(scans) > _NAMED else ""
            raise TrainingPatientsError(
                f"model {spec.name} learnt from {count} of the {everybody} patients to be scored "
                f"(scans {names}{more}), so its scores would flatter it; take another split or "
                "leave the model out. If these are other people who share an identifier by "
                "chance, put the name of their data set before it"
            )
    return training_warnings(specs)

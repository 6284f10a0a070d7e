"""Whether a model has learnt from the people it would be scored on.

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
    """Return the scans of patients whom a model learnt from; none where it does not say.

    Args:
        spec: The model's spec.
        records: Scans; each patient costs tens of milliseconds.
    """
    if spec.training_patients is None:
        return ()
    known = spec.training_patients.overlap(record.patient_id for record in records)
    return tuple(record for record in records if record.patient_id in known)


def training_warnings(specs: Iterable[ModelSpec]) -> tuple[str, ...]:
    """Return what results must say of models that do not tell, or not all, whom they learnt from.

    Args:
        specs: The models that are scored.
    """
    found = []
    for spec in specs:
        told = spec.training_patients
        if told is None:
            found.append(
                f"model {spec.name} does not say whom it was trained on; whether it learnt from "
                "patients scored here cannot be known"
            )
        elif not told.is_complete:
            found.append(
                f"model {spec.name} learnt from {', '.join(told.unstated)}, which does not say "
                "whom it was trained on; whether that was on patients scored here cannot be known"
            )
    return tuple(found)


def refuse_training_patients(
    specs: Iterable[ModelSpec], records: Sequence[ScanRecord]
) -> tuple[str, ...]:
    """Refuse to score models on patients whom they learnt from.

    Args:
        specs: The models' specs.
        records: The scans that would be scored, and no others.

    Returns:
        What the results must say of models that do not tell whom they learnt from; see
        :func:`training_warnings`.

    Raises:
        TrainingPatientsError: A model learnt from any of the patients.
    """
    specs = tuple(specs)
    for spec in specs:
        scans = training_scans(spec, records)
        if scans:
            known = len({record.patient_id for record in scans})
            everybody = len({record.patient_id for record in records})
            names = ", ".join(record.scan_id for record in scans[:_NAMED])
            more = f" and {len(scans) - _NAMED} more" if len(scans) > _NAMED else ""
            raise TrainingPatientsError(
                f"model {spec.name} learnt from {known} of the {everybody} patients to be scored "
                f"(scans {names}{more}), so its scores would flatter it; take another split or "
                "leave the model out. If these are other people who share an identifier by "
                "chance, put the name of their data set before it"
            )
    return training_warnings(specs)

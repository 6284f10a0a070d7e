"""The Brain Imaging Data Structure: names, sidecars and the description of a derived dataset.

A scan that is described by a JSON file hands on what stays true of its result. Of a sidecar only
technical fields are kept: names, dates and places of people are not among them. Names and small
JSON files alone are handled here; ``medsr.infer`` knows which results there are.

Source: BIDS specification 1.10, "Common principles" and "Derivatives".
"""

from __future__ import annotations

import json
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from medsr.geometry import Geometry
from medsr.volume import Derivation

DESCRIPTION = "dataset_description.json"
LABEL = "sr"
"""The value of the entity ``desc`` that results have."""

RAW = "raw"
"""What a derived dataset calls the one it was made of."""

_ENTITY = re.compile(r"[a-zA-Z]+-[a-zA-Z0-9+]+")
_SUFFIX = re.compile(r"[a-zA-Z0-9]+")
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_OLDEST_VERSION = "1.8.0"  # the first with URIs and DatasetLinks
_LARGEST_BYTES = 1 << 20
_LONGEST_TEXT = 200

# What is true of the result as it was of the scan: BIDS's fields on hardware, contrast and
# preparation, without those on places, people, dates, serial numbers, slices and matrix sizes.
KEPT = frozenset(
    """
    Modality Manufacturer ManufacturersModelName SoftwareVersions MagneticFieldStrength
    ReceiveCoilName ReceiveCoilActiveElements MatrixCoilMode CoilCombinationMethod
    GradientSetType MRTransmitCoilSequence ConversionSoftware ConversionSoftwareVersion
    PulseSequenceType ScanningSequence SequenceVariant ScanOptions SequenceName
    NonlinearGradientCorrection MRAcquisitionType MTState MTOffsetFrequency
    MTPulseBandwidth MTNumberOfPulses MTPulseShape MTPulseDuration SpoilingState SpoilingType
    SpoilingRFPhaseIncrement SpoilingGradientMoment SpoilingGradientDuration
    PhaseEncodingDirection InPlanePhaseEncodingDirectionDICOM TotalReadoutTime EchoTime EchoTime1
    EchoTime2 EchoNumber InversionTime DwellTime RepetitionTime RepetitionTimeExcitation
    RepetitionTimePreparation FlipAngle NegativeContrast MultibandAccelerationFactor
    ParallelReductionFactorInPlane ParallelAcquisitionTechnique PartialFourier
    PartialFourierDirection NumberShots EchoTrainLength PixelBandwidth WaterFatShift
    ImagingFrequency ImagedNucleus SAR NumberOfAverages PercentSampling VariableFlipAngleFlag
    AnatomicalLandmarkCoordinates BodyPart BodyPartDetails BodyPartDetailsOntology
    ContrastBolusIngredient SkullStripped SpatialReference Units KVP ExposureTime
    XRayTubeCurrent XRayExposure ConvolutionKernel FilterType ImageType
    """.split()  # noqa: SIM905 - a list would be four times as long
)
_THROUGH_PLANE = ("SliceThickness", "SpacingBetweenSlices")


@dataclass(frozen=True)
class BidsName:
    """The name of a file, taken apart.

    Args:
        entities: such as ``("sub-01", "ses-2")``, in their order.
        suffix: such as ``T1w``.
        ending: ``.nii``, ``.nii.gz`` or ``.json``.
    """

    entities: tuple[str, ...]
    suffix: str
    ending: str

    @classmethod
    def parse(cls, name: str) -> BidsName | None:
        """Take a name apart; None where it does not follow BIDS."""
        ending = next((e for e in (".nii.gz", ".nii", ".json") if name.endswith(e)), None)
        if ending is None:
            return None
        *entities, suffix = name.removesuffix(ending).split("_")
        keys = [entity.split("-")[0] for entity in entities]
        fits = all(map(_ENTITY.fullmatch, entities)) and _SUFFIX.fullmatch(suffix) is not None
        return (
            cls(tuple(entities), suffix, ending) if fits and len(set(keys)) == len(keys) else None
        )

    @property
    def is_scan(self) -> bool:
        """Whether it names an image of a subject."""
        return self.ending != ".json" and any(e.startswith("sub-") for e in self.entities[:1])

    def derived(self) -> str:
        """The name of the result: ``desc-sr`` before the suffix.

        A description that is there grows: ``desc-preproc`` becomes ``desc-preprocSr``.

        >>> BidsName.parse("sub-01_T1w.nii.gz").derived()
        'sub-01_desc-sr_T1w.nii.gz'
        """
        old = next((e for e in self.entities if e.startswith("desc-")), None)
        entities = [e for e in self.entities if e != old]
        entities.append(f"desc-{LABEL}" if old is None else old + LABEL.capitalize())
        return "_".join([*entities, self.suffix]) + self.ending

    def applies_to(self, other: BidsName) -> bool:
        """Whether a sidecar of this name holds for a scan of the other (inheritance principle)."""
        return self.suffix == other.suffix and set(self.entities) <= set(other.entities)


def derived_name(name: str) -> str:
    """The name of a scan's result, folders before it kept; other names than BIDS's are kept too."""
    path = PurePosixPath(name)
    parsed = BidsName.parse(path.name)
    if parsed is None or not parsed.is_scan:
        return name
    return str(path.with_name(parsed.derived()))


def is_dataset(folder: Path) -> bool:
    """Whether a folder is the root of a BIDS dataset."""
    return (folder / DESCRIPTION).is_file()


def dataset_of(path: Path) -> Path | None:
    """The root of the dataset that a file belongs to, if any."""
    return next((parent for parent in path.absolute().parents if is_dataset(parent)), None)


def sidecar_path(scan: Path) -> Path:
    """Where the sidecar of a NIfTI file lies."""
    stem = scan.name
    for ending in (".gz", ".nii"):
        stem = stem[: -len(ending)] if stem.lower().endswith(ending) else stem
    return scan.with_name(f"{stem}.json")


def sidecars_of(scan: Path) -> list[Path]:
    """The JSON files on a scan: the one beside it, in a dataset those above; the nearest last."""
    name, root = BidsName.parse(scan.name), dataset_of(scan)
    if root is None or name is None or not name.is_scan:
        beside = sidecar_path(scan)
        return [beside] if beside.is_file() else []
    sidecars = []
    for folder in reversed(scan.absolute().parents):
        if folder != root and root not in folder.parents:
            continue
        fitting = []
        for file in folder.glob("*.json"):
            parsed = BidsName.parse(file.name)
            if parsed is not None and parsed.applies_to(name):
                fitting.append((len(parsed.entities), file))
        sidecars += [file for _, file in sorted(fitting)]
    return sidecars


def read_sidecar(scan: Path) -> dict[str, Any] | None:
    """What is said of a scan in JSON, see :func:`sidecars_of`.

    Returns:
        All fields, the nearest file's before the others'; None where no file holds any.
    """
    read = [fields for fields in map(_read, sidecars_of(scan)) if fields is not None]
    return {key: value for fields in read for key, value in fields.items()} if read else None


def derived_sidecar(
    fields: dict[str, Any],
    source: Path,
    output: Path,
    grids: tuple[Geometry, Geometry],
    derivation: Derivation,
) -> dict[str, Any]:
    """The sidecar of a result.

    Args:
        fields: what :func:`read_sidecar` gave of the scan.
        source: the scan.
        output: the result.
        grids: of the scan and of the result, axes alike.
        derivation: how it was computed.

    Returns:
        Fields that are still true, the thickness of slices as it is now, and where it came from.
        Timing of slices and sizes of matrices are gone.
    """
    short_fields = {key: value for key, value in fields.items() if key in KEPT and _is_short(value)}
    before, after = grids
    axis = before.slice_axis()
    thickness = round(after.spacing[2 if axis is None else axis], 6)
    short_fields |= {key: thickness for key in _THROUGH_PLANE if key in fields}
    return {
        **short_fields,
        "Description": derivation.description,
        "Sources": [source_uri(source, output)],
    }


def source_uri(source: Path, output: Path) -> str:
    """How a result names its scan: a BIDS URI where one can be resolved, else a relative path."""
    root = dataset_of(source)
    if root is None:
        return source.name
    inside = source.absolute().relative_to(root).as_posix()
    target = dataset_of(output)
    if target == root:
        return f"bids::{inside}"
    links = (_read(target / DESCRIPTION) or {}).get("DatasetLinks") if target else None
    for name, place in links.items() if isinstance(links, dict) else ():
        if target and isinstance(place, str) and (target / place).resolve() == root.resolve():
            return f"bids:{name}:{inside}"
    return inside


def derived_description(source: Path, output: Path, version: str) -> dict[str, Any]:
    """The ``dataset_description.json`` of results.

    Args:
        source: root of the dataset that they are made of.
        output: root of theirs.
        version: of medsr.
    """
    told = (_read(source / DESCRIPTION) or {}).get("BIDSVersion")
    has_version = isinstance(told, str) and _VERSION.fullmatch(told) is not None
    numbers = max(_numbers(str(told)), _numbers(_OLDEST_VERSION)) if has_version else None
    place = Path(os.path.relpath(source.resolve(), output.resolve())).as_posix()
    return {
        "Name": "Super-resolved scans",
        "BIDSVersion": ".".join(map(str, numbers or _numbers(_OLDEST_VERSION))),
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "medsr", "Version": version}],
        "DatasetLinks": {RAW: place},
    }


def as_text(fields: dict[str, Any]) -> str:
    """JSON as BIDS's files have it."""
    return json.dumps(fields, indent=2, ensure_ascii=False) + "\n"


def _read(file: Path) -> dict[str, Any] | None:
    """A small JSON object, or None for anything else."""
    try:
        if file.stat().st_size > _LARGEST_BYTES:
            return None
        fields = json.loads(file.read_bytes())  # bytes, so that a byte-order mark counts
    except (OSError, ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None


def _is_short(value: object) -> bool:
    """Whether a field holds numbers that JSON knows or a few words, and no tree or tale."""
    if isinstance(value, str):
        return len(value) <= _LONGEST_TEXT
    if isinstance(value, list):
        return len(value) <= _LONGEST_TEXT and all(map(_is_short, value))
    if isinstance(value, dict):
        return all(isinstance(v, (int, float, list)) and _is_short(v) for v in value.values())
    return value is None or isinstance(value, int) or _is_finite(value)


def _is_finite(value: object) -> bool:
    """Whether it is a float that JSON can hold: Python reads and writes NaN, which is no JSON."""
    return isinstance(value, float) and math.isfinite(value)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))

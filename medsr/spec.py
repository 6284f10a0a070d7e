"""``ModelSpec``: all that inference must know of a model, and the file ``spec.json``.

Needs no torch; the weights are :class:`medsr.model.SRModel`'s.
"""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError, field_validator, model_validator
from pydantic.dataclasses import dataclass

from medsr.errors import ModelFileError
from medsr.intensity import Intensity
from medsr.patients import TrainingPatients
from medsr.volume import Modality

SPEC_FILE = "spec.json"
WEIGHTS_FILE = "weights.safetensors"

_CONFIG = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=_CONFIG)
class SpacingRange:
    """The voxel spacings (mm) of the low-resolution scans that a model was trained on.

    Args:
        in_plane: Smallest and largest spacing across the first two axes, mm.
        slice: Smallest and largest spacing along the last (slice) axis, mm.

    Examples:
        >>> from medsr.model import SpacingRange
        >>> SpacingRange(in_plane=(0.8, 1.2), slice=(3.0, 6.0))  # mm
        SpacingRange(in_plane=(0.8, 1.2), slice=(3.0, 6.0))
    """

    in_plane: tuple[float, float]
    slice: tuple[float, float]

    @field_validator("in_plane", "slice")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1]:
            raise ValueError("a spacing range is (low, high) in mm with 0 < low <= high")
        return value


@dataclass(frozen=True, config=_CONFIG)
class ModelSpec:
    """All that inference must know of a model; unknown keys are errors.

    Args:
        name: Name of the model, for example ``"mr-z4"``.
        version: Version of the weights.
        network: Name in ``medsr.networks.NETWORKS``.
        options: Options of the network, as given to ``build_network``.
        scale: Factor along (in-plane, in-plane, slice) axis.
        modality: ``"MR"`` or ``"CT"``; of a model for both, the one it is foremost for.
        role: ``"student"`` (small and fast) or ``"teacher"`` (large and slow).
        intensity: How input of this modality is normalised.
        halo: Input voxels on each side that one output voxel depends on, per axis.
        multiple_of: Tile starts must be multiples of this, per axis.
        trained_spacing_mm: Spacings of the low-resolution training scans.
        trained_degradation: Kind and options of the simulated degradation.
        parameters: Number of parameters at inference.
        training: Recipe, steps, teacher and data names.
        description: One sentence for a person.
        other_modalities: Further modalities that the model was trained on, and how their input is
            normalised.
        training_patients: Salted hashes of the training patients' identifiers; None where the
            model does not state them.
        trained_regions: Parts of the body that the training scans show; empty where not known.
        trained_contrasts: Their contrasts; empty where not known.

    Examples:
        >>> from medsr import ModelSpec, zoo
        >>> spec = ModelSpec.read(zoo.path("ct-z4"))
        >>> spec.scale, spec.modality, spec.role
        ((1, 1, 4), 'CT', 'student')
        >>> spec.intensity_for("CT").offset  # HU
        -1024.0
        >>> ModelSpec.from_json(spec.to_json()) == spec
        True
    """

    name: str
    version: str
    network: str
    options: dict[str, Any]
    scale: tuple[int, int, int]
    modality: Modality
    role: Literal["student", "teacher"]
    intensity: Intensity
    halo: tuple[int, int, int]
    multiple_of: tuple[int, int, int]
    trained_spacing_mm: SpacingRange
    trained_degradation: dict[str, Any]
    parameters: int
    training: dict[str, Any]
    description: str
    other_modalities: dict[Modality, Intensity] = field(default_factory=dict)
    training_patients: TrainingPatients | None = None
    trained_regions: tuple[str, ...] = ()
    trained_contrasts: tuple[str, ...] = ()

    @property
    def seen(self) -> str:
        """What the training scans show, in words: ``brain MR (T1w, T2w)``."""
        what = "/".join(self.modalities)
        if self.trained_contrasts:
            what += f" ({', '.join(self.trained_contrasts)})"
        if not self.trained_regions:
            return f"{what} of a region that it does not tell"
        return f"{', '.join(self.trained_regions)} {what}"

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """All modalities that the model was trained on, the foremost first."""
        return (self.modality, *self.other_modalities)

    def intensity_for(self, modality: Modality) -> Intensity:
        """Return how input of a modality is normalised; the foremost's way for unknown ones."""
        return self.other_modalities.get(modality, self.intensity)

    @model_validator(mode="after")
    def _check_modalities(self) -> ModelSpec:
        if self.modality in self.other_modalities:
            raise ValueError(f"other_modalities names {self.modality} again")
        return self

    @field_validator("scale", "multiple_of")
    @classmethod
    def _positive(cls, value: tuple[int, int, int]) -> tuple[int, int, int]:
        if min(value) < 1:
            raise ValueError("every entry must be at least 1")
        return value

    @field_validator("halo")
    @classmethod
    def _not_negative(cls, value: tuple[int, int, int]) -> tuple[int, int, int]:
        if min(value) < 0:
            raise ValueError("no entry may be negative")
        return value

    def to_json(self) -> str:
        """Return the spec as indented JSON text that :meth:`from_json` reads back."""
        return _SPEC.dump_json(self, indent=2).decode() + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, *, where: str = SPEC_FILE) -> ModelSpec:
        """Read a spec from JSON text.

        Args:
            text: The content of ``spec.json``.
            where: Name used in messages.

        Raises:
            ModelFileError: The text is no JSON, a key is unknown or missing, or a value is wrong.
        """
        try:
            return _SPEC.validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(str(part) for part in first["loc"]) or "(whole file)"
            raise ModelFileError(
                f"{where}: {key}: {first['msg']}; correct the key or save the model again"
            ) from error

    @classmethod
    def read(cls, folder: str | Path) -> ModelSpec:
        """Read ``spec.json`` of a model folder.

        Raises:
            ModelFileError: The file is missing, unreadable or invalid.
        """
        path = Path(folder) / SPEC_FILE
        try:
            text = path.read_bytes()
        except OSError as error:
            raise ModelFileError(
                f"{path}: cannot be read ({error.strerror}); a model folder holds "
                f"{SPEC_FILE} and {WEIGHTS_FILE}"
            ) from error
        return cls.from_json(text, where=str(path))


_SPEC: TypeAdapter[ModelSpec] = TypeAdapter(ModelSpec)

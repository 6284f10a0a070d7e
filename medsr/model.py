"""A trained network together with everything that inference must know about it.

:class:`ModelSpec` is what ``spec.json`` holds; :class:`SRModel` is the network with its spec,
saved to and loaded from a folder. Defined elsewhere: how voxel values reach the network and come
back (``medsr.intensity``), which models ship (``medsr.zoo``), which one fits a scan
(``medsr.infer.choose``) and how a network is run over a volume (``medsr.infer.engine.engine``).

Importing this module imports no torch, so that specs can be listed quickly; torch is imported when
weights are read or written.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError, field_validator, model_validator
from pydantic.dataclasses import dataclass

from medsr.errors import ModelError, ModelFileError
from medsr.intensity import Intensity, Normaliser
from medsr.patients import TrainingPatients
from medsr.volume import Modality

if TYPE_CHECKING:
    import torch

    from medsr.networks import SRNetwork

__all__ = ["Intensity", "ModelSpec", "Normaliser", "SRModel", "SpacingRange"]

WEIGHTS_FILE = "weights.safetensors"
_SLACK = 16
SPEC_FILE = "spec.json"
CARD_FILE = "card.md"

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


class SRModel:
    """A network and its spec.

    Args:
        module: The network that ``spec`` describes; its parameters must be those of
            ``build_network(spec.network, spec.scale, **spec.options)``.
        spec: What inference must know.
        weight_hash: SHA-256 of the weight file that the module came from; computed from the
            parameters when not given.

    Examples:
        >>> import tempfile
        >>> import torch
        >>> from medsr import SRModel
        >>> model = SRModel.load("ct-z4")
        >>> model.module(torch.zeros(1, 1, 12, 12, 4)).shape  # slices four times as dense
        torch.Size([1, 1, 12, 12, 16])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     copy = SRModel.load(model.save(folder))
        >>> copy.weight_hash == model.weight_hash
        True
    """

    def __init__(
        self, module: SRNetwork, spec: ModelSpec, *, weight_hash: str | None = None
    ) -> None:
        self.module = module
        self.spec = spec
        self._weight_hash = weight_hash

    @property
    def weight_hash(self) -> str:
        """SHA-256 (hex) of the weight file, or of the file that :meth:`save` would write."""
        if self._weight_hash is not None:
            return self._weight_hash
        return hashlib.sha256(_serialise(self.module.state_dict(), None)).hexdigest()

    def save(self, folder: str | Path, *, dtype: torch.dtype | None = None) -> Path:
        """Write ``weights.safetensors`` and ``spec.json``; each file appears whole or not at all.

        Args:
            folder: Folder of the model; made when absent, other files in it are left alone.
            dtype: Floating type to store the weights in, for example ``torch.float16`` for a
                large teacher; as they are when not given.

        Returns:
            The folder.

        Raises:
            ModelFileError: The spec describes another network, or the folder is not writable.
        """
        state = self.module.state_dict()
        expected = _build(self.spec).state_dict()
        _check_keys(state, expected, self.spec.name)
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _write_whole(folder / WEIGHTS_FILE, _serialise(state, dtype))
            _write_whole(folder / SPEC_FILE, self.spec.to_json().encode())
        except OSError as error:
            raise ModelFileError(
                f"{folder}: cannot be written ({error.strerror}); choose a folder you may write to"
            ) from error
        return folder

    @classmethod
    def load(cls, name_or_folder: str | Path, *, device: str | torch.device = "cpu") -> SRModel:
        """Load a shipped model by name, or any model from its folder, ready for inference.

        Args:
            name_or_folder: A name of ``medsr.zoo.names()`` or a folder that :meth:`save` wrote.
            device: Where the parameters go.

        Returns:
            The model with its training-time branches merged, in evaluation mode, in float32
            whatever type the weights are stored in, with gradients off.

        Raises:
            UnknownModelError: Neither a shipped name nor a folder.
            ModelFileError: The folder is incomplete, or weights and spec do not fit each other.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        # medsr.zoo reads specs through this module, so it can only be imported here.
        from medsr import zoo

        folder = zoo.resolve(name_or_folder)
        spec = ModelSpec.read(folder)
        path = folder / WEIGHTS_FILE
        try:
            content = path.read_bytes()
            state = load(content)
        except OSError as error:
            raise ModelFileError(
                f"{path}: cannot be read ({error.strerror}); copy the whole model folder again"
            ) from error
        except SafetensorError as error:
            raise ModelFileError(f"{path}: damaged weights ({error}); copy it again") from error
        _check_size(spec, state)
        network = _build(spec)
        _check_keys(state, network.state_dict(), spec.name)
        # Copies into the network's own float32, whatever type is stored.
        network.load_state_dict(state, strict=True)
        module = network.eval().merged().eval().requires_grad_(False).to(device)
        return cls(module, spec, weight_hash=hashlib.sha256(content).hexdigest())


def _build(spec: ModelSpec) -> SRNetwork:
    from medsr.networks import build_network

    try:
        return build_network(spec.network, spec.scale, **spec.options)
    except ModelError as error:
        raise ModelFileError(
            f"model {spec.name}: network {spec.network} cannot be built from its options "
            f"({error}); correct {SPEC_FILE}"
        ) from error


def _check_size(spec: ModelSpec, state: Mapping[str, torch.Tensor]) -> None:
    """Refuse options that ask for another network than that of the weights, before it is built.

    Neither depth nor width can be far beyond the number and the sizes of the tensors; what is near
    is built without memory first. So no settings that somebody sent can fill a machine.
    """
    import torch

    seen = max([len(state), *(size for value in state.values() for size in value.shape)], default=0)
    for name, value in spec.options.items():
        if isinstance(value, (int, float)) and abs(value) > _SLACK * (seen + _SLACK):
            raise ModelFileError(
                f"model {spec.name}: option {name} asks for a network far larger than the weights; "
                f"correct {SPEC_FILE}"
            )
    try:
        with torch.device("meta"):
            skeleton = _build(spec).state_dict()
    except (NotImplementedError, RuntimeError):
        return  # a network that cannot be built without memory
    _check_keys(state, skeleton, spec.name)


def _check_keys(
    found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], name: str
) -> None:
    """Raise ModelFileError at the first parameter that is missing, surplus or of another shape."""
    for problem, keys in (
        ("is missing", expected.keys() - found.keys()),
        ("is unknown", found.keys() - expected.keys()),
    ):
        if keys:
            raise ModelFileError(
                f"model {name}: parameter {min(keys)} {problem} ({len(keys)} in all); "
                "the weights belong to another network or other options"
            )
    for key, value in expected.items():
        if found[key].shape != value.shape:
            raise ModelFileError(
                f"model {name}: parameter {key} has shape {tuple(found[key].shape)}, the network "
                f"needs {tuple(value.shape)}; the weights belong to other options"
            )


def _serialise(state: Mapping[str, torch.Tensor], dtype: torch.dtype | None) -> bytes:
    from safetensors.torch import save

    def stored(value: torch.Tensor) -> torch.Tensor:
        if dtype is not None and value.is_floating_point():
            value = value.to(dtype)
        # clone(): safetensors refuses tensors that share memory; contiguous: channels_last does.
        return value.detach().cpu().clone().contiguous()

    return bytes(save({key: stored(value) for key, value in state.items()}))


def _write_whole(path: Path, content: bytes) -> None:
    """Write to a temporary name beside ``path``, then rename, so no half file is ever seen."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)

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
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from medsr.errors import ModelError, ModelFileError, OutputError
from medsr.intensity import Intensity, Normaliser
from medsr.spec import SPEC_FILE, WEIGHTS_FILE, ModelSpec, SpacingRange

if TYPE_CHECKING:
    import torch

    from medsr.networks import SRNetwork

__all__ = ["Intensity", "ModelSpec", "Normaliser", "SRModel", "SpacingRange"]

_SLACK = 16
CARD_FILE = "card.md"


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
        from medsr.io.atomic import atomic_file, reason_of

        state = self.module.state_dict()
        expected = _build(self.spec).state_dict()
        _check_keys(state, expected, self.spec.name)
        folder = Path(folder)
        contents = {WEIGHTS_FILE: _serialise(state, dtype), SPEC_FILE: self.spec.to_json().encode()}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, content in contents.items():
                with atomic_file(folder / name, overwrite=True) as temporary:
                    temporary.write_bytes(content)
        except (OSError, OutputError) as error:
            raise ModelFileError(
                f"{folder}: cannot be written ({reason_of(error)}); choose a folder you may write "
                "to"
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

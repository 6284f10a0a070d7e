"""int8 models: the network's inner work in 8-bit integers, everything around it as before.

Only ``residual``, the convolutions, is quantised; folding, voxel shuffle and the interpolated scan
that the result is added to stay in float32, so errors of quantisation touch the detail alone. A
quantised network is an ``SRNetwork``: the tile engine, ``medsr.upscale`` and the evaluation take it
as it is. The library that does the arithmetic is behind a :class:`Backend`, one file each; the
shipped one is in ``openvino_int8``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from medsr.errors import ModelError, ModelFileError, UsageError
from medsr.io.atomic import atomic_file
from medsr.model import ModelSpec, SRModel
from medsr.networks import SRNetwork
from medsr.networks.blocks import pad_to_multiple, voxel_unshuffle
from medsr.networks.heads import Head
from medsr.spec import SPEC_FILE
from medsr.types import Triple

DETAILS_FILE = "int8.json"
KEPT_FLOAT = ("head", "tail")
"""The first convolution sees the scan itself, which has more than 256 shades, and the last makes
the voxels; both cost little."""


class Runner(Protocol):
    """The quantised ``residual`` of one network."""

    def __call__(self, folded: Tensor) -> Tensor:
        """Map ``(B, in_channels, X, Y, Z)`` float32 on the CPU to ``(B, out_channels, …)``."""
        ...

    def save(self, folder: Path) -> None:
        """Write the backend's files into an existing folder."""
        ...


class Backend(Protocol):
    """A library that quantises networks and runs them.

    Attributes:
        files: Names of the files that :meth:`Runner.save` writes.
    """

    files: tuple[str, ...]

    def quantise(
        self, network: SRNetwork, inputs: Sequence[Tensor], keep_float: Sequence[str]
    ) -> Runner:
        """Choose integer ranges from folded ``inputs`` and quantise all other layers."""
        ...

    def load(self, folder: Path) -> Runner:
        """Read what :meth:`Runner.save` wrote."""
        ...


# Name -> the module whose `BACKEND` it is; imported when asked for.
BACKENDS: dict[str, str] = {"openvino": "medsr.compress.openvino_int8"}
DEFAULT_BACKEND = "openvino"


class QuantisedNetwork(SRNetwork):
    """A network whose ``residual`` is computed by a backend, on the CPU; it cannot be trained.

    Args:
        runner: The backend's side.
        scale: As of the network that was quantised; so are the rest.
        fold: Voxels folded into channels.
        interpolation: What the result is added to.
        multiple_of: Alignment of tile starts.
        halo: Low-resolution voxels on each side that an output voxel may depend on.
        head: What is said of every output voxel.
        computed_by: Name of the backend.
    """

    def __init__(
        self,
        runner: Runner,
        *,
        scale: Triple,
        fold: Triple,
        interpolation: str,
        multiple_of: Triple,
        halo: Triple,
        head: Head = "value",
        computed_by: str = DEFAULT_BACKEND,
    ):
        super().__init__(scale, fold, interpolation, head)
        self.runner, self.computed_by = runner, computed_by
        self._multiple_of, self._halo = multiple_of, halo

    @property
    def multiple_of(self) -> Triple:
        """Alignment of tile starts in low-resolution voxels."""
        return self._multiple_of

    @property
    def halo(self) -> Triple:
        """Low-resolution voxels on each side that an output voxel may depend on."""
        return self._halo

    def residual(self, folded: Tensor) -> Tensor:
        """Map ``(B, in_channels, …)`` to ``(B, out_channels, …)`` float32, without gradients."""
        plain = folded.detach().to(device="cpu", dtype=torch.float32).contiguous()
        return self.runner(plain).to(folded.device)


class QuantisedModel(SRModel):
    """An int8 network with its spec; goes wherever a loaded model goes.

    Args:
        module: The quantised network.
        spec: The float model's spec under another name; ``parameters`` counts those of the float
            model, each of which now takes a byte.
        details: Backend and origin, as plain data; what ``int8.json`` holds.
        weight_hash: SHA-256 over the backend's files; computed when first asked for if not given.

    Examples:
        >>> import tempfile
        >>> import torch
        >>> from medsr import SRModel
        >>> from medsr.compress import quantise
        >>> small = quantise(SRModel.load("ct-z4"), [torch.rand(1, 1, 12, 12, 6)])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     sorted(file.name for file in small.save(folder).iterdir())
        ['int8.bin', 'int8.json', 'int8.xml', 'spec.json']
    """

    def __init__(
        self,
        module: QuantisedNetwork,
        spec: ModelSpec,
        details: Mapping[str, Any],
        *,
        weight_hash: str | None = None,
    ) -> None:
        super().__init__(module, spec, weight_hash=weight_hash)
        self.details = dict(details)

    @property
    def weight_hash(self) -> str:
        """SHA-256 (hex) over the backend's files, in the order of their names."""
        if self._weight_hash is None:
            files = self._contents().values()
            self._weight_hash = hashlib.sha256(b"".join(files)).hexdigest()
        return self._weight_hash

    def save(self, folder: str | Path, *, dtype: torch.dtype | None = None) -> Path:
        """Write the backend's files, ``int8.json`` and ``spec.json``; each appears whole.

        Args:
            folder: Folder of the model; made when absent.
            dtype: Must be None: integers have no other type.

        Returns:
            The folder.

        Raises:
            ModelFileError: The folder is not writable.
            UsageError: A ``dtype`` is given.
        """
        if dtype is not None:
            raise UsageError(f"int8 weights cannot be stored as {dtype}; leave dtype out")
        folder = Path(folder)
        text = {
            DETAILS_FILE: json.dumps(self.details, indent=2) + "\n",
            SPEC_FILE: self.spec.to_json(),
        }
        contents = self._contents() | {name: value.encode() for name, value in text.items()}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ModelFileError(
                f"{folder}: cannot be made ({error.strerror}); choose a folder you may write to"
            ) from error
        for name, content in contents.items():
            with atomic_file(folder / name, overwrite=True) as temporary:
                temporary.write_bytes(content)
        return folder

    @classmethod
    def load(
        cls, name_or_folder: str | Path, *, device: str | torch.device = "cpu"
    ) -> QuantisedModel:
        """Load an int8 model from the folder that :meth:`save` wrote.

        Args:
            name_or_folder: The folder.
            device: Where results go; the arithmetic is done on the CPU.

        Raises:
            MissingExtraError: The extra ``openvino`` is not installed.
            ModelFileError: The folder is incomplete or damaged.
        """
        folder = Path(name_or_folder)
        spec = ModelSpec.read(folder)
        path = folder / DETAILS_FILE
        try:
            details = json.loads(path.read_text(encoding="utf-8"))
            backend = find_backend(details["backend"])
            content = b"".join((folder / name).read_bytes() for name in sorted(backend.files))
            fold, interpolation = tuple(details["fold"]), str(details["interpolation"])
        except OSError as error:
            raise ModelFileError(
                f"{error.filename}: cannot be read ({error.strerror}); copy the whole int8 model "
                "folder again"
            ) from error
        except (KeyError, TypeError, ValueError) as error:
            raise ModelFileError(f"{path}: is no description of an int8 model ({error})") from error
        network = QuantisedNetwork(
            backend.load(folder),
            scale=spec.scale,
            fold=cast("Triple", fold),
            interpolation=interpolation,
            multiple_of=spec.multiple_of,
            halo=spec.halo,
            head=spec.options.get("head", "value"),
            computed_by=details["backend"],
        )
        digest = hashlib.sha256(content).hexdigest()
        return cls(network.eval(), spec, details, weight_hash=digest)

    def _contents(self) -> dict[str, bytes]:
        """The backend's files by name, sorted."""
        runner = cast("QuantisedNetwork", self.module).runner
        with tempfile.TemporaryDirectory() as folder:
            runner.save(Path(folder))
            files = sorted(Path(folder).iterdir())
            return {file.name: file.read_bytes() for file in files}


def quantise(
    model: SRModel,
    patches: Sequence[Tensor],
    *,
    backend: str = DEFAULT_BACKEND,
    keep_float: Sequence[str] = KEPT_FLOAT,
) -> QuantisedModel:
    """Quantise a trained model to int8 (static, after training).

    Args:
        model: Float model; it is left as it was.
        patches: Normalised low-resolution patches ``(1, 1, X, Y, Z)`` that show which values
            occur, see :func:`medsr.compress.calibration_patches`.
        backend: A key of :data:`BACKENDS`.
        keep_float: Submodules that stay in float32; those that the network lacks are passed over.

    Returns:
        The int8 model.

    Raises:
        MissingExtraError: The extra ``compress`` is not installed.
        ModelError: The backend is unknown, or the network does more than ``residual`` says.
        UsageError: There are no patches.

    Examples:
        >>> import torch
        >>> from medsr import SRModel
        >>> from medsr.compress import quantise
        >>> model = SRModel.load("ct-z4")
        >>> patches = [torch.rand(1, 1, 12, 12, 6) for _ in range(4)]  # better: of real scans
        >>> small = quantise(model, patches)
        >>> small.module(patches[0]).shape
        torch.Size([1, 1, 12, 12, 24])
    """
    if not patches:
        raise UsageError("quantisation needs at least one patch to calibrate with")
    chosen = find_backend(backend)
    spec, network = model.spec, model.module.merged().eval()
    own: Callable[..., Tensor] = type(network).forward
    if own is not SRNetwork.forward:
        raise ModelError(
            f"model {spec.name}: {type(network).__name__} has a forward pass of its own and cannot "
            "be quantised; take a network whose work is done in residual()"
        )
    inputs = [
        voxel_unshuffle(pad_to_multiple(patch.float(), network.multiple_of), network.fold)
        for patch in patches
    ]
    runner = chosen.quantise(network, [i.contiguous() for i in inputs], keep_float)
    quantised = QuantisedNetwork(
        runner,
        scale=network.scale,
        fold=network.fold,
        interpolation=network.interpolation,
        multiple_of=network.multiple_of,
        halo=network.halo,
        head=network.head_options,
        computed_by=backend,
    )
    details = {
        "backend": backend,
        "from": spec.name,
        "weights_sha256": model.weight_hash,
        "fold": list(network.fold),
        "interpolation": network.interpolation,
        "kept_float": list(keep_float),
        "calibration": {"patches": len(patches), "voxels": sum(p.numel() for p in patches)},
    }
    new = dataclasses.replace(
        spec, name=f"{spec.name}-int8", description=f"{spec.name} quantised to int8"
    )
    return QuantisedModel(quantised.eval(), new, details)


def find_backend(name: str) -> Backend:
    """Return a backend by name.

    Raises:
        ModelError: There is none of that name.
    """
    if name not in BACKENDS:
        raise ModelError(f"int8 backend {name!r} is none of {', '.join(BACKENDS)}")
    return cast("Backend", import_module(BACKENDS[name]).BACKEND)

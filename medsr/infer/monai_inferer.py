"""The engine as a MONAI inferer, for validation and pipelines written with MONAI."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.inferers.inferer import Inferer
from torch import Tensor, nn

from medsr.errors import UsageError
from medsr.geometry import Geometry
from medsr.infer.engine.engine import Engine
from medsr.types import CountProgress, Shape


class TiledInferer(Inferer):
    """Sliding-window inference that equals the whole-volume result to float tolerance.

    Args:
        core: Largest core of a block in low-resolution voxels, per axis or one number for all; by
            default chosen by the engine.
        precision: ``"auto"``, ``"fp32"`` or ``"bf16"``.
        max_memory_bytes: Limit for the output array and one block's activations together.
        device: Where blocks are run; by default where the network's parameters are.
        progress: Called with (steps done, steps in all) at the start and after every step.
        backend: Name in ``medsr.infer.engine.backends.BACKENDS``.

    The network must carry ``scale``, ``halo`` and ``multiple_of`` (all of ``medsr.networks`` do),
    and ``channels`` where its output has more than one.

    Examples:
        >>> import torch
        >>> from medsr.infer.monai_inferer import TiledInferer
        >>> from medsr.networks import build_network
        >>> network = build_network("RepPlain3D", (1, 1, 4), width=16, depth=2).eval()
        >>> lr = torch.rand(1, 1, 24, 24, 10)  # normalised, the slice axis last
        >>> sr = TiledInferer(core=8, precision="fp32")(lr, network)
        >>> with torch.no_grad():
        ...     torch.allclose(sr, network(lr), atol=1e-5)  # tiles give what the whole volume gives
        True
    """

    def __init__(
        self,
        core: int | Shape | None = None,
        *,
        precision: str = "auto",
        max_memory_bytes: int | None = None,
        device: str | torch.device | None = None,
        progress: CountProgress | None = None,
        backend: str = "torch",
    ) -> None:
        self.core = core
        self.precision = precision
        self.max_memory_bytes = max_memory_bytes
        self.device = device
        self.progress = progress
        self.backend = backend

    def engine(self, network: nn.Module) -> Engine:
        """Return the engine that runs a network.

        Raises:
            UsageError: The network does not say its scale, halo and alignment.
        """
        return Engine(
            network,
            device=self.device,
            precision=self.precision,
            backend=self.backend,
            max_memory_bytes=self.max_memory_bytes,
            core=self.core,
        )

    def __call__(
        self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Tensor:
        """Enlarge a batch of volumes.

        Args:
            inputs: Normalised volumes ``(B, 1, X, Y, Z)``; a MONAI ``MetaTensor`` comes back as
                one, on the grid that keeps its physical extent.
            network: An ``SRNetwork`` or a module with the same attributes, in evaluation mode.
            *args: Refused: a network here takes a volume and nothing else.
            **kwargs: Refused as well.

        Returns:
            ``(B, channels, X·sx, Y·sy, Z·sz)`` float32 on the device of ``inputs``, without
            gradients; one channel unless the network has more.

        Raises:
            MemoryLimitError: Not even the smallest block fits into the memory allowed.
            UsageError: ``inputs`` is not 5D with one channel, there are further arguments, or the
                network lacks scale, halo or alignment.
        """
        if inputs.ndim != 5 or inputs.shape[1] != 1:
            raise UsageError(f"inputs have shape {tuple(inputs.shape)}; (B, 1, X, Y, Z) is needed")
        if args or kwargs:
            raise UsageError("the network is called with the volume alone; bind what else it takes")
        engine = self.engine(network)  # type: ignore[arg-type]
        plain: Tensor = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        plans = [engine.plan_for(item[0]) for item in plain]
        total, before = sum(plan.steps for plan in plans), 0
        results = []
        for item, plan in zip(plain, plans, strict=True):
            if self.progress is not None:
                engine.progress = _shifted(self.progress, before, total)
            results.append(engine.run(item[0], plan=plan))
            before += plan.steps
        outputs = torch.stack(results) if len(results) > 1 else results[0][None]
        return _with_affine(outputs, inputs) if isinstance(inputs, MetaTensor) else outputs


def _shifted(progress: CountProgress, before: int, total: int) -> CountProgress:
    """Count steps over a whole batch; its items' starts are said once."""

    def shifted(done: int, _: int) -> None:
        if done or not before:
            progress(before + done, total)

    return shifted


def _with_affine(outputs: Tensor, inputs: MetaTensor) -> MetaTensor:
    """Attach the affines that keep each input's physical extent."""
    x, y, z = inputs.shape[2:]
    fine = (outputs.shape[2], outputs.shape[3], outputs.shape[4])
    affines = np.asarray(inputs.affine.cpu(), dtype=np.float64)
    stack = affines if affines.ndim == 3 else affines[np.newaxis]
    refined = np.stack([Geometry((x, y, z), affine).resize(fine).affine for affine in stack])
    affine = torch.as_tensor(refined if affines.ndim == 3 else refined[0])
    meta = {key: value for key, value in inputs.meta.items() if key != "affine"}
    result = MetaTensor(outputs, affine=affine, meta=meta)
    result.is_batch = inputs.is_batch
    return result

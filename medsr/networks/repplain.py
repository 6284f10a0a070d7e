"""``RepPlain3D``: a plain stack of dense 3³ convolutions, trained through richer branches.

Every convolution is, in training, a sum of linear branches: the 3³ kernel itself, a 1³ expansion
followed by a 3³ convolution, a scaled identity, and fixed gradient operators behind a 1³
convolution. Since all branches are linear and only the outermost one carries a bias, their sum is
one 3³ kernel, also at zero-padded borders. It is summed in weight space at every training step, so
the branches cost next to nothing, and once and for all by :meth:`RepPlain3D.merged`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from medsr.networks import NETWORKS
from medsr.networks.blocks import SRNetwork, check_width, conv3, zero_conv3
from medsr.networks.heads import Head
from medsr.types import Triple

Network = TypeVar("Network", bound=SRNetwork)

BRANCHES = ("expand", "gradient", "identity")
"""What may join the plain 3³ kernel in training."""


def check_branches(branches: Sequence[str] | bool) -> tuple[str, ...]:
    """Return the branches by name.

    Raises:
        ValueError: If one is none of :data:`BRANCHES`.
    """
    if isinstance(branches, bool):
        return BRANCHES if branches else ()
    unknown = [name for name in branches if name not in BRANCHES]
    if unknown:
        raise ValueError(f"branch {unknown[0]!r} is none of {', '.join(BRANCHES)}")
    return tuple(branches)


def gradient_kernels() -> Tensor:
    """Return the fixed operators: Sobel along X, Y, Z and the Laplacian, ``(4, 1, 3, 3, 3)``.

    Each is scaled to unit L1 norm, so that no operator dominates at the start.
    """
    smooth, slope = torch.tensor([1.0, 2.0, 1.0]), torch.tensor([-1.0, 0.0, 1.0])
    sobel = [
        torch.einsum("i,j,k->ijk", *(slope if axis == a else smooth for a in range(3)))
        for axis in range(3)
    ]
    laplacian = torch.zeros(3, 3, 3)
    laplacian[1, 1, :] = laplacian[1, :, 1] = laplacian[:, 1, 1] = 1.0
    laplacian[1, 1, 1] = -6.0
    kernels = torch.stack([*sobel, laplacian])
    return (kernels / kernels.abs().sum(dim=(1, 2, 3), keepdim=True))[:, None]


def matrix_norm(kernel: Tensor) -> Tensor:
    """Return the spectral norm of a kernel as a matrix ``(out, in·27)``, a scalar.

    It is the most by which the convolution can amplify a single 3³ neighbourhood. On a whole
    volume, where neighbourhoods overlap, it amplifies by at most √27 times as much (by two to
    three times in trained networks). It is exact and has no state, unlike a power iteration:
    training, evaluation and merging see one and the same number.

    Source: the norm of Miyato et al., "Spectral Normalization for Generative Adversarial
    Networks", ICLR 2018, section 2.1.
    """
    matrix = kernel.flatten(1)
    matrix = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
    largest = torch.linalg.eigvalsh(matrix @ matrix.T)[-1]
    # At zero the root has no finite slope; eigenvalues may miss zero by rounding.
    norm: Tensor = largest.clamp(min=torch.finfo(matrix.dtype).tiny).sqrt()
    return norm


class RepConv3d(nn.Module):
    """A 3³ convolution given as the sum of linear branches.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        branches: Which of :data:`BRANCHES` join the plain kernel. ``identity`` takes part only
            where both channel counts are equal.
        expansion: The 1³ branch widens the input to ``expansion · in_channels``.
        limit: A kernel whose :func:`matrix_norm` is larger than this is scaled down to it, with
            its gradient; None for no limit.

    Source: the branches follow Zhang et al. 2021, "Edge-oriented Convolution Block for Real-time
    Super Resolution on Mobile Devices", in three dimensions and without inner biases.
    """

    gradients: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        branches: Sequence[str] = BRANCHES,
        expansion: int = 2,
        limit: float | None = None,
    ):
        super().__init__()
        self.limit = limit
        plain = conv3(in_channels, out_channels)
        self.weight = plain.weight
        self.bias = nn.Parameter(torch.zeros(out_channels))
        for name in ("squeeze", "expand", "edge_mix", "identity"):
            self.register_parameter(name, None)
        if "expand" in branches:
            wide = expansion * in_channels
            self.squeeze = nn.Parameter(torch.empty(wide, in_channels))
            self.expand = nn.Parameter(torch.empty(out_channels, wide, 3, 3, 3))
            nn.init.normal_(self.squeeze, std=in_channels**-0.5)
            nn.init.normal_(self.expand, std=0.3 * (27 * wide) ** -0.5)
        if "gradient" in branches:
            self.edge_mix = nn.Parameter(torch.empty(4, out_channels, in_channels))
            nn.init.normal_(self.edge_mix, std=0.3 * in_channels**-0.5)
        if "identity" in branches and in_channels == out_channels:
            self.identity = nn.Parameter(torch.ones(out_channels))
        self.register_buffer("gradients", gradient_kernels(), persistent=False)

    def kernel(self) -> Tensor:
        """Return the one kernel that equals all branches, ``(out, in, 3, 3, 3)``."""
        kernel = self._summed()
        return kernel if self.limit is None else kernel * self._share(kernel, self.limit)

    def _summed(self) -> Tensor:
        """The sum of the branches, however large."""
        kernel: Tensor = self.weight
        if self.expand is not None:
            kernel = kernel + torch.einsum("owxyz,wi->oixyz", self.expand, self.squeeze)
        if self.edge_mix is not None:
            edges = torch.einsum("goi,gxyz->oixyz", self.edge_mix, self.gradients[:, 0])
            kernel = kernel + edges
        if self.identity is not None:
            centre = functional.pad(torch.diag(self.identity)[:, :, None, None, None], (1,) * 6)
            kernel = kernel + centre
        return kernel

    @staticmethod
    def _share(kernel: Tensor, limit: float) -> Tensor:
        """What is left of a kernel under a limit of its norm, at most 1."""
        return (limit / matrix_norm(kernel)).clamp(max=1.0).to(kernel.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, in, X, Y, Z)`` to ``(B, out, X, Y, Z)``."""
        with torch.autocast(x.device.type, enabled=False):
            kernel = self.kernel().contiguous(memory_format=torch.channels_last_3d)
        return functional.conv3d(x, kernel, self.bias, padding=1)

    def forward_branches(self, x: Tensor) -> Tensor:
        """Compute every branch as a convolution of its own; the oracle for :meth:`kernel`."""
        if self.limit is not None:
            x = x * self._share(self._summed(), self.limit)
        out = functional.conv3d(x, self.weight, self.bias, padding=1)
        if self.expand is not None:
            wide = functional.conv3d(x, self.squeeze[:, :, None, None, None])
            out = out + functional.conv3d(wide, self.expand, padding=1)
        if self.edge_mix is not None:
            for mix, operator in zip(self.edge_mix, self.gradients, strict=True):
                mixed = functional.conv3d(x, mix[:, :, None, None, None])
                depthwise = operator.expand(mixed.shape[1], 1, 3, 3, 3)
                out = out + functional.conv3d(mixed, depthwise, padding=1, groups=mixed.shape[1])
        if self.identity is not None:
            out = out + x * self.identity[:, None, None, None]
        return out

    def merge(self) -> nn.Conv3d:
        """Return the plain convolution with this module's kernel and bias."""
        kernel = self.kernel().detach()
        merged = nn.Conv3d(kernel.shape[1], kernel.shape[0], kernel_size=3, padding=1)
        merged = merged.to(device=kernel.device, dtype=kernel.dtype)
        with torch.no_grad():
            merged.weight.copy_(kernel)
            merged.bias.copy_(self.bias)  # type: ignore[union-attr]
        return merged


def _merged_state(network: nn.Module) -> dict[str, Tensor]:
    """Return the state that ``network`` has once every :class:`RepConv3d` in it is merged.

    It fits the same network built without branches.
    """
    state = network.state_dict()
    for name, module in network.named_modules():
        if isinstance(module, RepConv3d):
            state = {key: v for key, v in state.items() if not key.startswith(f"{name}.")}
            state |= {f"{name}.{key}": v for key, v in module.merge().state_dict().items()}
    return state


def merge_into(plain: Network, network: SRNetwork) -> Network:
    """Give a network without branches the merged weights of its counterpart, as copies.

    Args:
        plain: Built as ``network`` was, without branches.
        network: May hold :class:`RepConv3d` anywhere.

    Returns:
        ``plain``, on the device, in the type and in the mode of ``network``.
    """
    plain.load_state_dict(_merged_state(network))
    parameter = next(network.parameters())
    return plain.to(device=parameter.device, dtype=parameter.dtype).train(network.training)


def plain_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of the network without branches: nothing to expand or to limit."""
    dropped = ("expansion", "spectral_norm")
    return {k: v for k, v in options.items() if k not in dropped} | {"branches": False}


@NETWORKS.register(
    "RepPlain3D",
    small={"width": 16, "depth": 2},
    recipe="configs/students/mr-z4-start.yaml",
    compared={"width": 32, "depth": 8, "branches": ["identity"]},
)
class RepPlain3D(SRNetwork):
    """The student: ``depth`` dense 3³ convolutions with ReLU between them.

    Args:
        scale: Integer factors along X, Y and Z.
        width: Channels, a multiple of 16.
        depth: Convolutions from ``width`` to ``width`` channels.
        branches: Branches of the body's convolutions in training, any of :data:`BRANCHES`;
            ``True`` for all of them, ``False`` for the plain stack that :meth:`merged` returns.
        expansion: See :class:`RepConv3d`.
        fold: Voxels folded into channels before the head, see :class:`SRNetwork`.
        interpolation: ``"nearest"`` or ``"linear"`` residual.
        head: ``"value"``, ``"gaussian"`` or ``"bins"``, see ``SRNetwork``.
        spectral_norm: Spectral normalisation: the body's kernels are held at most at this
            :func:`matrix_norm` in training, and stay there when merged. It bounds how noise can
            grow within the network. Weights to start from are scaled down where they exceed it.
            None for no limit.

    Source: Zhang et al. 2021, "Edge-oriented Convolution Block for Real-time Super Resolution on
        Mobile Devices" (ECBSR): a plain stack at inference, branches in training; ReLU in place of
        PReLU.

    Examples:
        >>> import torch
        >>> from medsr.networks import RepPlain3D
        >>> trained = RepPlain3D((1, 1, 4), width=16, depth=2)
        >>> plain = trained.merged()  # one kernel for each sum of branches
        >>> [sum(p.numel() for p in network.parameters()) for network in (trained, plain)]
        [46788, 16036]
        >>> lr = torch.rand(1, 1, 8, 8, 4)
        >>> torch.allclose(trained(lr), plain(lr), atol=1e-6)
        True
    """

    def __init__(
        self,
        scale: Triple,
        width: int = 32,
        depth: int = 8,
        branches: Sequence[str] | bool = True,
        expansion: int = 2,
        fold: Triple = (1, 1, 1),
        interpolation: str = "nearest",
        head: Head = "value",
        spectral_norm: float | None = None,
    ):
        super().__init__(scale, fold, interpolation, head)
        check_width(width)
        if spectral_norm is not None and not 0 < spectral_norm < math.inf:
            raise ValueError(f"spectral_norm is {spectral_norm}; it must be positive, or null")
        self.spectral_norm = spectral_norm
        self.width = width
        self.radius = depth + 2
        self.branches = check_branches(branches)

        def convolution() -> nn.Module:
            if not self.branches and spectral_norm is None:
                return conv3(width, width)
            return RepConv3d(width, width, self.branches, expansion, spectral_norm)

        self.head = conv3(self.in_channels, width)
        self.body = nn.ModuleList(convolution() for _ in range(depth))
        self.tail = zero_conv3(width, self.out_channels)
        self.taps = tuple(f"body.{i}" for i in range(depth))

    def residual(self, folded: Tensor) -> Tensor:
        """Map ``(B, in_channels, …)`` to ``(B, out_channels, …)``."""
        x = functional.relu(self.head(folded))
        for convolution in self.body:
            x = functional.relu(convolution(x))
        out: Tensor = self.tail(x)
        return out

    def chain(self) -> tuple[nn.Conv3d, ...] | None:
        """Return all convolutions; None before merging, or where there is more than they do."""
        body = [module for module in self.body if isinstance(module, nn.Conv3d)]
        if len(body) < len(self.body) or self.fold != (1, 1, 1):
            return None
        if self.interpolation != "nearest" or self.readout is not None:
            return None
        return (self.head, *body, self.tail)

    def merged(self) -> RepPlain3D:
        """Return an equal network of plain convolutions; the parameters are copies."""
        plain = RepPlain3D(
            self.scale,
            width=self.width,
            depth=len(self.body),
            branches=False,
            fold=self.fold,
            interpolation=self.interpolation,
            head=self.head_options,
        )
        return merge_into(plain, self)

    def merged_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of the plain stack: no branches, nothing to expand or to limit."""
        return plain_options(options)

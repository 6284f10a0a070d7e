"""Building blocks shared by the networks: voxel shuffle, folding, the interpolated residual.

Only tensor operations and small modules live here; whole networks have a file each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from medsr.networks.heads import Head, Readout, build_readout, readout_of
from medsr.types import Triple


def voxel_shuffle(x: Tensor, factor: Triple) -> Tensor:
    """Move channels into space: the 3D form of the pixel shuffle.

    Args:
        x: Tensor ``(B, C·fx·fy·fz, X, Y, Z)``.
        factor: Voxels gained along X, Y and Z.

    Returns:
        Tensor ``(B, C, X·fx, Y·fy, Z·fz)``.

    Source: Shi et al. 2016, "Real-Time Single Image and Video Super-Resolution", eq. 4.

    Examples:
        >>> import torch
        >>> from medsr.networks.blocks import voxel_shuffle
        >>> channels = torch.arange(4.0).reshape(1, 4, 1, 1, 1)
        >>> voxel_shuffle(channels, (1, 1, 4)).flatten().tolist()  # four slices from one
        [0.0, 1.0, 2.0, 3.0]
    """
    if factor == (1, 1, 1):
        return x
    fx, fy, fz = factor
    b, c, nx, ny, nz = x.shape
    x = x.reshape(b, c // (fx * fy * fz), fx, fy, fz, nx, ny, nz)
    x = x.permute(0, 1, 5, 2, 6, 3, 7, 4)
    return x.reshape(b, -1, nx * fx, ny * fy, nz * fz)


def voxel_unshuffle(x: Tensor, factor: Triple) -> Tensor:
    """Move space into channels, the inverse of :func:`voxel_shuffle`.

    Args:
        x: Tensor ``(B, C, X, Y, Z)`` whose sizes are multiples of ``factor``.
        factor: Voxels folded along X, Y and Z.

    Returns:
        Tensor ``(B, C·fx·fy·fz, X/fx, Y/fy, Z/fz)``.

    Examples:
        >>> import torch
        >>> from medsr.networks.blocks import voxel_shuffle, voxel_unshuffle
        >>> x = torch.rand(1, 1, 8, 8, 4)
        >>> folded = voxel_unshuffle(x, (2, 2, 1))
        >>> folded.shape, torch.equal(voxel_shuffle(folded, (2, 2, 1)), x)
        (torch.Size([1, 4, 4, 4, 4]), True)
    """
    if factor == (1, 1, 1):
        return x
    fx, fy, fz = factor
    b, c, nx, ny, nz = x.shape
    x = x.reshape(b, c, nx // fx, fx, ny // fy, fy, nz // fz, fz)
    x = x.permute(0, 1, 3, 5, 7, 2, 4, 6)
    return x.reshape(b, c * fx * fy * fz, nx // fx, ny // fy, nz // fz)


def pad_to_multiple(x: Tensor, multiple: Triple) -> Tensor:
    """Repeat the last voxel at the far ends until every size is a multiple.

    Args:
        x: Tensor ``(B, C, X, Y, Z)``.
        multiple: Wanted divisors along X, Y and Z.

    Returns:
        ``x`` itself when nothing is missing, otherwise a padded copy.

    Examples:
        >>> import torch
        >>> from medsr.networks.blocks import pad_to_multiple
        >>> pad_to_multiple(torch.rand(1, 1, 7, 8, 5), (4, 4, 1)).shape
        torch.Size([1, 1, 8, 8, 5])
    """
    missing = [-size % m for size, m in zip(x.shape[2:], multiple, strict=True)]
    if not any(missing):
        return x
    return functional.pad(x, (0, missing[2], 0, missing[1], 0, missing[0]), mode="replicate")


def enlarge(lr: Tensor, scale: Triple, mode: str) -> Tensor:
    """Interpolate with edges kept in place, the residual that networks add to.

    Args:
        lr: Tensor ``(B, C, X, Y, Z)``.
        scale: Integer factors along X, Y and Z.
        mode: ``"nearest"`` or ``"linear"`` (trilinear, half-voxel centres).

    Returns:
        Tensor ``(B, C, X·sx, Y·sy, Z·sz)``.

    Raises:
        ValueError: If the mode is unknown.

    Examples:
        >>> import torch
        >>> from medsr.networks.blocks import enlarge
        >>> slices = torch.tensor([0.0, 4.0]).reshape(1, 1, 1, 1, 2)
        >>> enlarge(slices, (1, 1, 2), "nearest").flatten().tolist()
        [0.0, 0.0, 4.0, 4.0]
        >>> enlarge(slices, (1, 1, 2), "linear").flatten().tolist()  # edges stay where they are
        [0.0, 1.0, 3.0, 4.0]
    """
    if mode == "nearest":
        for axis, factor in enumerate(scale, start=2):
            if factor > 1:
                lr = lr.repeat_interleave(factor, dim=axis)
        return lr
    if mode == "linear":
        size = [n * s for n, s in zip(lr.shape[2:], scale, strict=True)]
        return functional.interpolate(lr, size=size, mode="trilinear", align_corners=False)
    raise ValueError(f"residual mode {mode!r} is none of 'nearest', 'linear'")


def conv3(in_channels: int, out_channels: int) -> nn.Conv3d:
    """Return a 3³ convolution with zero padding that keeps the size.

    Examples:
        >>> import torch
        >>> from medsr.networks.blocks import conv3
        >>> conv3(1, 16)(torch.rand(1, 1, 8, 8, 4)).shape
        torch.Size([1, 16, 8, 8, 4])
    """
    return nn.Conv3d(in_channels, out_channels, kernel_size=3, padding=1)


def conv1(in_channels: int, out_channels: int) -> nn.Conv3d:
    """Return a 1³ (pointwise) convolution.

    Examples:
        >>> import torch
        >>> from medsr.networks.blocks import conv1
        >>> conv1(32, 16)(torch.rand(1, 32, 8, 8, 4)).shape
        torch.Size([1, 16, 8, 8, 4])
    """
    return nn.Conv3d(in_channels, out_channels, kernel_size=1)


def depthwise3(channels: int) -> nn.Conv3d:
    """Return a 3³ convolution with zero padding in which every channel sees itself alone.

    Examples:
        >>> from medsr.networks.blocks import conv3, depthwise3
        >>> [layer.weight.numel() for layer in (conv3(16, 16), depthwise3(16))]
        [6912, 432]
    """
    return nn.Conv3d(channels, channels, kernel_size=3, padding=1, groups=channels)


def he_normal(convolution: nn.Conv3d, slope: float = 0.0) -> nn.Conv3d:
    """Draw weights that keep the scale of what follows a (leaky) ReLU; biases become zero.

    Networks for super-resolution do without batch norm, so that nothing else keeps it.

    Args:
        convolution: Changed in place.
        slope: Of the rectifier for negative values; 1 where there is none.

    Returns:
        The same convolution.

    Source: He et al. 2015, "Delving Deep into Rectifiers", eq. 10 and 15.

    Examples:
        >>> import torch
        >>> from medsr.networks.blocks import conv3, he_normal
        >>> layers = [he_normal(conv3(32, 32)) for _ in range(4)]
        >>> x = torch.rand(1, 32, 12, 12, 12)
        >>> for layer in layers:
        ...     x = torch.relu(layer(x))
        >>> 0.05 < x.std().item() < 5  # neither vanished nor exploded
        True
    """
    nn.init.kaiming_normal_(convolution.weight, a=slope)
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    return convolution


def zero_conv3(in_channels: int, out_channels: int) -> nn.Conv3d:
    """Return a 3³ convolution that gives zero until it is trained.

    Examples:
        >>> import torch
        >>> from medsr.networks.blocks import zero_conv3
        >>> bool(zero_conv3(16, 4)(torch.rand(1, 16, 8, 8, 4)).any())
        False
    """
    convolution = conv3(in_channels, out_channels)
    for parameter in convolution.parameters():
        nn.init.zeros_(parameter)
    return convolution


def check_width(width: int, name: str = "width") -> None:
    """Refuse channel counts for which CPU kernels fall onto a slow path.

    Raises:
        ValueError: If ``width`` is no positive multiple of 16.

    Examples:
        >>> from medsr.networks.blocks import check_width
        >>> check_width(32)
        >>> check_width(20)
        Traceback (most recent call last):
            ...
        ValueError: width is 20; it must be a positive multiple of 16
    """
    if width < 16 or width % 16:
        raise ValueError(f"{name} is {width}; it must be a positive multiple of 16")


def check_count(count: int, name: str) -> None:
    """Refuse a number of blocks, levels or the like below one.

    Raises:
        ValueError: If ``count`` is less than 1.

    Examples:
        >>> from medsr.networks.blocks import check_count
        >>> check_count(0, "blocks")
        Traceback (most recent call last):
            ...
        ValueError: blocks is 0; it must be at least 1
    """
    if count < 1:
        raise ValueError(f"{name} is {count}; it must be at least 1")


class SRNetwork(nn.Module):
    """Skeleton of every network: fold, features, shuffle, residual, crop.

    Subclasses set ``radius`` (receptive-field radius in folded voxels), and ``stride`` where they
    work on coarser grids too, and implement :meth:`residual`, which maps the folded scan, whose
    sizes are multiples of the stride, to ``out_channels`` channels.

    Args:
        scale: Integer factors along X, Y and Z.
        fold: Voxels folded into channels before the first convolution; a network with a fold
            works on a coarser grid, which makes wide bodies affordable.
        interpolation: What the network's output is added to, ``"nearest"`` or ``"linear"``.
        head: What is said of every output voxel: ``"value"``, or a distribution, ``"gaussian"`` or
            ``"bins"`` (with options as a mapping); see :mod:`medsr.networks.heads`.

    Attributes:
        scale: As given.
        readout: Reads the distribution from the tail's channels, and its output is what terms of
            distillation tap; None where the head gives a value.
        stride: Folded voxels per voxel of the coarsest grid within the network; 1 where it keeps
            the grid, more where it goes down and up again.
        multiple_of: Tile starts must be multiples of this (fold times stride).
        halo: Low-resolution voxels on each side that an output voxel may depend on.
        taps: Names of submodules whose outputs serve as features for distillation.
        live_channels: Channels alive at once per folded voxel, library copies included, by which
            an engine fits tiles into memory; None where the widest convolution tells.

    Examples:
        >>> import torch
        >>> from medsr.networks import SRNetwork, build_network
        >>> network: SRNetwork = build_network("RepPlain3D", (1, 1, 4), width=16, depth=2)
        >>> network(torch.rand(1, 1, 12, 12, 5)).shape  # any size from 1
        torch.Size([1, 1, 12, 12, 20])
        >>> network.halo, network.multiple_of  # what an engine needs to cut tiles
        ((4, 4, 4), (1, 1, 1))
        >>> network.taps  # where a distillation term can read features
        ('body.0', 'body.1')
    """

    radius: int
    stride: Triple = (1, 1, 1)
    taps: tuple[str, ...] = ()
    live_channels: int | None = None

    readout: Readout | None

    def __init__(
        self,
        scale: Triple,
        fold: Triple = (1, 1, 1),
        interpolation: str = "nearest",
        head: Head = "value",
    ):
        super().__init__()
        scale, fold = _triple(scale, "scale"), _triple(fold, "fold")
        if interpolation not in ("nearest", "linear"):
            raise ValueError(f"interpolation {interpolation!r} is none of 'nearest', 'linear'")
        self.scale = scale
        self.fold = fold
        self.interpolation = interpolation
        self.readout = build_readout(head)

    @property
    def head_options(self) -> Head:
        """The option ``head`` that builds this network's head."""
        return "value" if self.readout is None else self.readout.options

    @property
    def values_per_voxel(self) -> int:
        """Numbers that the tail gives for one output voxel."""
        return 1 if self.readout is None else self.readout.channels

    @property
    def multiple_of(self) -> Triple:
        """Alignment of tile starts in low-resolution voxels."""
        x, y, z = (f * s for f, s in zip(self.fold, self.stride, strict=True))
        return (x, y, z)

    @property
    def halo(self) -> Triple:
        """Low-resolution voxels on each side that an output voxel may depend on."""
        x, y, z = (self.radius * f + f - 1 for f in self.fold)
        return (x, y, z)

    @property
    def in_channels(self) -> int:
        """Channels after folding."""
        return math.prod(self.fold)

    @property
    def out_channels(self) -> int:
        """Channels before the final voxel shuffle."""
        return math.prod(self.fold) * math.prod(self.scale) * self.values_per_voxel

    def residual(self, folded: Tensor) -> Tensor:
        """Map ``(B, in_channels, …)`` to ``(B, out_channels, …)``."""
        raise NotImplementedError(f"{type(self).__name__} must implement residual()")

    def forward(self, lr: Tensor, *told: Tensor) -> Tensor:
        """Enlarge a scan.

        Args:
            lr: Normalised low-resolution scan ``(B, 1, X, Y, Z)``, any size from 1.
            *told: What else :meth:`residual` takes; most networks take nothing.

        Returns:
            ``(B, 1, X·sx, Y·sy, Z·sz)`` in float32, also under autocast.
        """
        return self._restore(lr, *told)[0]

    def distribution(self, lr: Tensor) -> tuple[Tensor, Tensor]:
        """Enlarge a scan and say how sure that is.

        Args:
            lr: As for :meth:`forward`.

        Returns:
            What :meth:`forward` returns, and the standard deviation that the network expects of
            its error, in the same shape and units.

        Raises:
            NoUncertaintyError: If the network's head gives values.
        """
        readout = readout_of(self)
        mean, parameters = self._restore(lr)
        return mean, readout.sigma(parameters)

    def _restore(self, lr: Tensor, *told: Tensor) -> tuple[Tensor, Tensor]:
        """Return the restored scan, and what the head says of each of its voxels."""
        padded = pad_to_multiple(lr, self.multiple_of)
        folded = voxel_unshuffle(padded, self.fold)
        if folded.device.type == "cpu":
            folded = folded.contiguous(memory_format=torch.channels_last_3d)
        detail = self.residual(folded, *told)
        fine = tuple(f * s for f, s in zip(self.fold, self.scale, strict=True))
        detail = voxel_shuffle(detail, (fine[0], fine[1], fine[2]))
        x, y, z = (n * s for n, s in zip(lr.shape[2:], self.scale, strict=True))
        plain = enlarge(padded.float(), self.scale, self.interpolation)[:, :, :x, :y, :z]
        said = detail.float()[:, :, :x, :y, :z]
        if self.readout is None:
            return plain + said, said
        said = self.readout(said)
        return plain + self.readout.mean(said), said

    def chain(self) -> tuple[nn.Conv3d, ...] | None:
        """Return the 3³ convolutions that are the whole network, where it is no more than that.

        Returns:
            Convolutions with zero padding and a ReLU after each but the last, whose channels are
            shuffled into space and added to the nearest voxel; None for any other network. An
            engine can run such a chain plane by plane.
        """
        return None

    def merged(self) -> SRNetwork:
        """Return the network for inference; itself where there is nothing to merge."""
        return self

    def merged_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options that build what :meth:`merged` returns.

        Args:
            options: The options that this network was built with.
        """
        return dict(options)


class ResidualTrunk(SRNetwork):
    """Head, a body of residual blocks, one long skip around it, voxel-shuffle tail.

    The tail starts at zero, so a fresh network returns the interpolated scan.

    Args:
        scale: Integer factors along X, Y and Z.
        width: Channels of the trunk, a multiple of 16.
        blocks: The body; each maps ``width`` channels to ``width``.
        depth: Convolutions in a row within the body, for the receptive field.
        fold: See :class:`SRNetwork`.
        interpolation: See :class:`SRNetwork`.
        head: See :class:`SRNetwork`.
        pointwise_fuse: Close the body with a 1³ convolution in place of a 3³ one, which would
            outweigh a body of light blocks.

    Examples:
        >>> import torch
        >>> from medsr.networks.blocks import ResidualTrunk, conv3
        >>> body = [conv3(16, 16), conv3(16, 16)]
        >>> network = ResidualTrunk((1, 1, 4), width=16, blocks=body, depth=2)
        >>> network(torch.rand(1, 1, 8, 8, 4)).shape, network.halo, network.taps
        (torch.Size([1, 1, 8, 8, 16]), (5, 5, 5), ('body.0', 'body.1', 'fuse'))
    """

    def __init__(
        self,
        scale: Triple,
        width: int,
        blocks: Sequence[nn.Module],
        depth: int,
        fold: Triple = (1, 1, 1),
        interpolation: str = "nearest",
        head: Head = "value",
        pointwise_fuse: bool = False,
    ):
        super().__init__(scale, fold, interpolation, head)
        self.width = width
        self.radius = depth + (2 if pointwise_fuse else 3)
        self.head = conv3(self.in_channels, width)
        self.body = nn.ModuleList(blocks)
        self.fuse = (conv1 if pointwise_fuse else conv3)(width, width)
        self.tail = zero_conv3(width, self.out_channels)
        self.taps = (*(f"body.{i}" for i in range(len(blocks))), "fuse")

    def residual(self, folded: Tensor) -> Tensor:
        """Map ``(B, in_channels, …)`` to ``(B, out_channels, …)``."""
        head = self.head(folded)
        x = head
        for block in self.body:
            x = block(x)
        out: Tensor = self.tail(self.fuse(x) + head)
        return out


def _triple(value: Triple, name: str) -> Triple:
    """Check three positive integers (lists from recipes are welcome)."""
    x, y, z = (int(v) for v in value)
    if min(x, y, z) < 1 or (x, y, z) != tuple(value):
        raise ValueError(f"{name} is {tuple(value)}; it must be three integers from 1")
    return (x, y, z)

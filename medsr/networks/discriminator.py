"""A critic of volumes: tells real patches from made ones, for adversarial training.

It restores nothing, so it is no :class:`~medsr.networks.blocks.SRNetwork` and not in the table of
networks. What it is trained for lives in ``medsr.distill.terms``.
"""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from medsr.networks.blocks import check_count, he_normal

_SLOPE = 0.2
_NARROW = 2  # voxels


class PatchDiscriminator3D(nn.Module):
    """Strided 3³ convolutions that judge every place of a volume by itself.

    Each judgement sees a patch of the volume only, so the network judges texture and takes volumes
    of any size. There is no batch norm, whose statistics would mix real and made volumes. The
    spectral normalisation bounds how fast the judgement can change with the volume.

    Args:
        channels: Of the volumes.
        width: Channels after the first convolution; doubled at each stride, up to eight times.
        strides: Convolutions that halve the grid; each nearly doubles what a judgement sees (17
            voxels for 2, 33 for 3).
        spectral: Divide each kernel, seen as a matrix, by its largest singular value.

    Raises:
        ValueError: If a number is below 1.

    Source: Isola et al., "Image-to-image translation with conditional adversarial networks", CVPR
        2017, section 3.2.2; Miyato et al., "Spectral normalization for generative adversarial
        networks", ICLR 2018, equation 8.
    """

    def __init__(
        self, channels: int = 1, width: int = 32, strides: int = 2, spectral: bool = True
    ) -> None:
        super().__init__()
        check_count(channels, "channels")
        check_count(width, "width")
        check_count(strides, "strides")
        widths = [width * min(2**level, 8) for level in range(strides + 1)]
        convolutions = [nn.Conv3d(channels, width, kernel_size=3, padding=1)]
        for before, after in pairwise(widths):
            convolutions.append(nn.Conv3d(before, after, kernel_size=3, stride=2, padding=1))
        convolutions.append(nn.Conv3d(widths[-1], 1, kernel_size=3, padding=1))
        for convolution in convolutions:
            he_normal(convolution, slope=_SLOPE)
            if spectral:
                parametrizations.spectral_norm(convolution)
        self.body = nn.ModuleList(convolutions)

    def forward(self, volume: Tensor) -> Tensor:
        """Judge volumes.

        Args:
            volume: (B, C, X, Y, Z), any size.

        Returns:
            Float32 judgements (B, 1, ⌈X/2ⁿ⌉, ⌈Y/2ⁿ⌉, ⌈Z/2ⁿ⌉) for n strides, without bounds; high
            for real.
        """
        if volume.device.type == "cpu":
            volume = volume.contiguous(memory_format=torch.channels_last_3d)
        for number, layer in enumerate(self.body, start=1):
            convolution = cast("nn.Conv3d", layer)
            # The power iteration behind a normalised kernel needs float32, autocast or not.
            with torch.autocast(device_type=volume.device.type, enabled=False):
                weight, bias = convolution.weight, convolution.bias
            # On two voxels along X, oneDNN's bfloat16 gradient of a kernel is not even repeatable.
            half = torch.is_autocast_enabled(volume.device.type) and volume.shape[2] > _NARROW
            with torch.autocast(device_type=volume.device.type, enabled=half):
                volume = functional.conv3d(
                    volume if half else volume.to(weight.dtype),
                    weight,
                    bias,
                    convolution.stride,
                    convolution.padding,
                )
            if number < len(self.body):
                volume = functional.leaky_relu(volume, _SLOPE)
        return volume.float()

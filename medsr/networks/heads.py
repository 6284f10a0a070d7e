"""Heads: what a network says about an output voxel beyond one value.

A network with the head ``value`` gives the restored intensity and no more. With ``gaussian`` or
``bins`` it gives a distribution of each voxel's residual (what is added to the interpolated scan);
its mean is the restored intensity, its standard deviation, sigma, the uncertainty. Everything is in
normalised intensity. How distributions are trained is ``medsr.distill.terms``' affair, what a sigma
map is worth ``medsr.evaluate.calibration``'s.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from medsr.errors import NoUncertaintyError

if TYPE_CHECKING:
    from medsr.networks.blocks import SRNetwork

__all__ = ["MeanAndSigma", "build_readout", "readout_of", "with_head"]

HEADS = ("value", "gaussian", "bins")
"""What a network's option ``head`` may name."""

READOUT = "readout"
"""The submodule of a network with a distribution: the tap under which terms find it."""

Head = str | Mapping[str, Any]
"""A name of :data:`HEADS`, or a mapping with that name as ``kind`` and the readout's arguments."""


class Readout(Protocol):
    """A module without parameters that reads distributions from the tail's channels.

    Called with the raw channels on the fine grid, ``(B, channels, X, Y, Z)`` in float32, it returns
    the distributions' parameters in the same shape, which all its methods take.

    Attributes:
        channels: Raw channels per output voxel.
        options: Arguments that build it again, ``kind`` among them.
    """

    channels: int
    options: dict[str, Any]

    def __call__(self, raw: Tensor) -> Tensor:
        """Return the parameters."""
        ...

    def mean(self, parameters: Tensor) -> Tensor:
        """Return the mean of the residual, ``(B, 1, X, Y, Z)``."""
        ...

    def sigma(self, parameters: Tensor) -> Tensor:
        """Return the standard deviation, ``(B, 1, X, Y, Z)``."""
        ...

    def entropy(self, parameters: Tensor) -> Tensor:
        """Return the differential entropy in nats, ``(B, 1, X, Y, Z)``."""
        ...

    def log_density(self, parameters: Tensor, residual: Tensor) -> Tensor:
        """Return the log density at a residual, both ``(B, 1, X, Y, Z)``."""
        ...

    def widened(self, value: Tensor) -> Tensor:
        """Return what a tail's weight or bias must be for the mean to be what ``value`` gave."""
        ...


class GaussianReadout(nn.Module):
    """A normal distribution per voxel: two channels, the mean and the logarithm of sigma.

    Log sigma lies between the logarithms of ``sigma``'s ends whatever the tail gives (by a
    logistic function, so that its gradient never vanishes at a limit); a tail at zero gives their
    geometric mean.

    Args:
        sigma: Smallest and largest standard deviation, in normalised intensity.

    Raises:
        ValueError: If they are not positive and in order.

    Source: Kendall and Gal 2017, "What Uncertainties Do We Need in Bayesian Deep Learning for
        Computer Vision?" (the network predicts the logarithm).
    """

    channels = 2

    def __init__(self, sigma: Sequence[float] = (1e-3, 1.0)):
        super().__init__()
        low, high = (float(end) for end in sigma)
        if not 0 < low < high < math.inf:
            raise ValueError(f"head: sigma is {[*sigma]}; it must be two numbers 0 < low < high")
        self.options: dict[str, Any] = {"kind": "gaussian", "sigma": [low, high]}
        self.low, self.high = math.log(low), math.log(high)

    def forward(self, raw: Tensor) -> Tensor:
        """Return mean and log sigma, ``(B, 2, X, Y, Z)``."""
        log_sigma = self.low + (self.high - self.low) * torch.sigmoid(raw[:, 1:].float())
        return torch.cat((raw[:, :1].float(), log_sigma), dim=1)

    def mean(self, parameters: Tensor) -> Tensor:
        """Return the mean of the residual, ``(B, 1, X, Y, Z)``."""
        return parameters[:, :1]

    def sigma(self, parameters: Tensor) -> Tensor:
        """Return the standard deviation, ``(B, 1, X, Y, Z)``."""
        return parameters[:, 1:].exp()

    def entropy(self, parameters: Tensor) -> Tensor:
        """Return ``½ log(2πe σ²)``, ``(B, 1, X, Y, Z)``."""
        return parameters[:, 1:] + 0.5 * math.log(2 * math.pi * math.e)

    def log_density(self, parameters: Tensor, residual: Tensor) -> Tensor:
        """Return the log density at a residual, both ``(B, 1, X, Y, Z)``."""
        mean, log_sigma = parameters[:, :1], parameters[:, 1:]
        scaled = (residual - mean) * torch.exp(-log_sigma)
        return -0.5 * scaled.square() - log_sigma - 0.5 * math.log(2 * math.pi)

    def widened(self, value: Tensor) -> Tensor:
        """Return a tail's weight or bias with channels for log sigma, which are zero."""
        return torch.cat((value, torch.zeros_like(value)))


class BinnedReadout(nn.Module):
    """A histogram per voxel: soft-max over bins of the residual; the mean is its expectation.

    The bins are narrow around zero, where most residuals lie, and wide at the ends (their edges
    follow a hyperbolic sine). Within a bin the density is even; residuals beyond ``reach`` count to
    the last bin, and the mean cannot leave the range. A fixed Gaussian of standard deviation
    ``reach / 10`` around zero multiplies what the tail gives, so that a tail at zero starts there.

    Args:
        bins: How many, at least 2.
        reach: The bins cover residuals from ``-reach`` to ``reach`` in normalised intensity.

    Raises:
        ValueError: If an argument is out of its range.

    Source: Imani and White 2018, "Improving Regression Performance with Distributional Losses".
    """

    edges: Tensor
    centres: Tensor
    widths: Tensor
    prior: Tensor

    def __init__(self, bins: int = 33, reach: float = 1.0):
        super().__init__()
        if bins < 2 or int(bins) != bins or not 0 < reach < math.inf:
            raise ValueError(
                f"head: {bins} bins over ±{reach}; give 2 or more over a range above 0"
            )
        self.channels = int(bins)
        self.options: dict[str, Any] = {"kind": "bins", "bins": int(bins), "reach": float(reach)}
        self.start = reach / 10
        steps = torch.linspace(-1, 1, bins + 1, dtype=torch.float64)
        edges = reach * torch.sinh(_CURVE * steps) / math.sinh(_CURVE)
        edges = (edges - edges.flip(0)) / 2  # symmetric to the last bit: no bias of the mean
        centres, widths = (edges[1:] + edges[:-1]) / 2, edges.diff()
        prior = widths.log() - centres.square() / (2 * self.start**2)
        for name, values in (
            ("edges", edges),
            ("centres", centres),
            ("widths", widths),
            ("prior", prior),
        ):
            self.register_buffer(name, values.float(), persistent=False)

    def forward(self, raw: Tensor) -> Tensor:
        """Return the bins' log probabilities, ``(B, bins, X, Y, Z)``."""
        return functional.log_softmax(raw.float() + _per_bin(self.prior), dim=1)

    def mean(self, parameters: Tensor) -> Tensor:
        """Return the expectation of the residual, ``(B, 1, X, Y, Z)``."""
        return (parameters.exp() * _per_bin(self.centres)).sum(dim=1, keepdim=True)

    def sigma(self, parameters: Tensor) -> Tensor:
        """Return the standard deviation, that within the bins included, ``(B, 1, X, Y, Z)``."""
        within = self.widths.square() / 12
        squares = _per_bin(self.centres.square() + within)
        second = (parameters.exp() * squares).sum(dim=1, keepdim=True)
        variance = second - self.mean(parameters).square()
        return variance.clamp_min(float(within.min())).sqrt()

    def entropy(self, parameters: Tensor) -> Tensor:
        """Return ``-Σ p log(p / width)``, ``(B, 1, X, Y, Z)``."""
        density = parameters - _per_bin(self.widths.log())
        return -(parameters.exp() * density).sum(dim=1, keepdim=True)

    def log_density(self, parameters: Tensor, residual: Tensor) -> Tensor:
        """Return the log density at a residual, both ``(B, 1, X, Y, Z)``."""
        index = torch.bucketize(residual.float(), self.edges[1:-1])
        return parameters.gather(1, index) - self.widths.log()[index]

    def widened(self, value: Tensor) -> Tensor:
        """Return a tail's weight or bias that makes the histogram a Gaussian around ``value``.

        The logarithm of a Gaussian of fixed width is linear in its centre, so this is exact for
        the histogram; its expectation differs from the value by what the bins do not resolve and,
        near ``reach``, by what they cut off.
        """
        slopes = self.centres.to(value) / self.start**2
        return torch.cat([slope * value for slope in slopes])

    def spread(self, mean: Tensor, sigma: Tensor) -> Tensor:
        """Return the probabilities that a normal distribution gives the bins.

        Args:
            mean: Of the residual, ``(B, 1, X, Y, Z)``.
            sigma: Standard deviation, of a shape that broadcasts to it.

        Returns:
            ``(B, bins, X, Y, Z)``; the outer bins take what lies beyond them.
        """
        inner = _per_bin(self.edges[1:-1])
        below = torch.special.ndtr((inner - mean.float()) / sigma)
        ends = torch.zeros_like(below[:, :1]), torch.ones_like(below[:, :1])
        return torch.cat((ends[0], below, ends[1]), dim=1).diff(dim=1)


class MeanAndSigma(nn.Module):
    """A network whose one output holds mean and sigma, ``(B, 2, …)``, for the tile engine.

    Args:
        network: A network with a distribution; not copied.

    Raises:
        NoUncertaintyError: If it has none.

    Examples:
        >>> import torch
        >>> from medsr.networks import build_network
        >>> from medsr.networks.heads import MeanAndSigma
        >>> network = build_network("RepPlain3D", (1, 1, 4), width=16, depth=2, head="gaussian")
        >>> both = MeanAndSigma(network.eval())
        >>> both(torch.rand(1, 1, 8, 8, 4)).shape  # mean, and standard deviation of the error
        torch.Size([1, 2, 8, 8, 16])
    """

    channels = 2

    def __init__(self, network: SRNetwork):
        super().__init__()
        readout_of(network)
        self.network = network
        self.scale, self.fold = network.scale, network.fold
        self.halo, self.multiple_of = network.halo, network.multiple_of
        self.values_per_voxel = network.values_per_voxel
        self.live_channels = network.live_channels

    def forward(self, lr: Tensor) -> Tensor:
        """Map ``(B, 1, X, Y, Z)`` to ``(B, 2, X·sx, Y·sy, Z·sz)`` in float32."""
        return torch.cat(self.network.distribution(lr), dim=1)


def build_readout(head: Head) -> Readout | None:
    """Build what the option ``head`` of a network asks for.

    Args:
        head: See :data:`Head`.

    Returns:
        The readout; None for ``"value"``.

    Raises:
        ValueError: If the kind is unknown or an argument is wrong.

    Examples:
        >>> from medsr.networks.heads import build_readout
        >>> readout = build_readout({"kind": "bins", "bins": 17})
        >>> readout.channels, build_readout("value") is None
        (17, True)
    """
    options = {"kind": head} if isinstance(head, str) else dict(head)
    kind = options.pop("kind", None)
    try:
        if kind == "gaussian":
            return GaussianReadout(**options)
        if kind == "bins":
            return BinnedReadout(**options)
    except TypeError as error:
        raise ValueError(f"head {kind!r} does not take these options: {error}") from error
    if kind != "value" or options:
        raise ValueError(f"head {head!r} is none of {', '.join(HEADS)}")
    return None


def readout_of(network: nn.Module) -> Readout:
    """Return a network's readout.

    Raises:
        NoUncertaintyError: If the network gives values only.

    Examples:
        >>> from medsr.networks import build_network
        >>> from medsr.networks.heads import readout_of
        >>> network = build_network("RepPlain3D", (1, 1, 4), width=16, depth=2, head="gaussian")
        >>> readout_of(network).options["sigma"]  # smallest and largest standard deviation
        [0.001, 1.0]
    """
    readout = getattr(network, READOUT, None)
    if readout is None:
        raise NoUncertaintyError(
            f"{type(network).__name__} gives values and no distribution; "
            "take a model whose network has the option head: gaussian or bins"
        )
    return cast("Readout", readout)


def with_head(network: SRNetwork, head: Head) -> SRNetwork:
    """Return a copy of a network that gives values, with a head that says the same and more.

    Args:
        network: Merged network whose last layer is the convolution ``tail``; left as it is.
        head: See :data:`Head`.

    Returns:
        The network with the head. Its mean is the value: exactly for ``gaussian``, and for
        ``bins`` as :meth:`BinnedReadout.widened` says.

    Raises:
        ValueError: If the network has a head already, or its last layer is another one.

    Examples:
        >>> import torch
        >>> from medsr import SRModel
        >>> from medsr.networks.heads import with_head
        >>> trained = SRModel.load("mr-z4").module
        >>> surer = with_head(trained, "gaussian")
        >>> lr = torch.rand(1, 1, 12, 12, 4)
        >>> with torch.no_grad():
        ...     mean, sigma = surer.distribution(lr)
        ...     torch.allclose(mean, trained(lr), atol=1e-5), sigma.shape
        (True, torch.Size([1, 1, 12, 12, 16]))
    """
    readout = build_readout(head)
    tail = getattr(network, "tail", None)
    if network.readout is not None or not isinstance(tail, nn.Conv3d):
        raise ValueError(f"{type(network).__name__} cannot be given a head")
    if readout is None:
        return copy.deepcopy(network)
    wider = copy.deepcopy(network)
    wider.readout = cast("Any", readout)
    channels = tail.out_channels * readout.channels
    larger = nn.Conv3d(tail.in_channels, channels, kernel_size=3, padding=1).to(tail.weight)
    with torch.no_grad():
        larger.weight.copy_(readout.widened(tail.weight))
        if larger.bias is not None and tail.bias is not None:
            larger.bias.copy_(readout.widened(tail.bias))
    wider.tail = larger
    return wider


_CURVE = 4.0
"""How much narrower the bins are in the middle; the ends' are 27 (cosh 4) times as wide."""


def _per_bin(values: Tensor) -> Tensor:
    """Shape one number per bin for ``(B, bins, X, Y, Z)``."""
    return values.reshape(1, -1, 1, 1, 1)

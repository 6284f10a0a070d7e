"""Spectral norms: the student's layers amplify as much as the teacher's do."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv3d_input

from medsr.batch import Batch
from medsr.distill.taps import Activations
from medsr.distill.term import Term
from medsr.distill.terms import TERMS
from medsr.errors import UsageError
from medsr.networks.repplain import RepConv3d

logger = logging.getLogger(__name__)

_SETTLING_ITERATIONS = 30
_CONVERGED = 3e-4  # relative change of the norm in one iteration
_FLOOR = 1e-2  # layers that are quieter than this on both sides hardly count
_TINY = 1e-12


@dataclass(frozen=True)
class Layer:
    """A convolution as a linear operator on volumes of one size; its bias has no part in it.

    Attributes:
        module: Plain convolution with zero padding, or one with training-time branches.
    """

    module: nn.Conv3d | RepConv3d

    def kernel(self) -> Tensor:
        """Return the kernel (out, in/groups, …) of this moment, with its graph."""
        if isinstance(self.module, RepConv3d):
            return self.module.kernel()
        return self.module.weight

    @property
    def channels(self) -> int:
        """Channels of the operator's argument."""
        groups = 1 if isinstance(self.module, RepConv3d) else self.module.groups
        return self.kernel().shape[1] * groups

    def apply(self, x: Tensor, kernel: Tensor) -> Tensor:
        """Return the operator's value for (1, in, X, Y, Z)."""
        return functional.conv3d(x, kernel, None, *self._geometry())

    def adjoint(self, y: Tensor, kernel: Tensor, size: torch.Size) -> Tensor:
        """Return the adjoint's value for ``y``; ``size`` is that of the operator's argument."""
        back: Tensor = conv3d_input(size, kernel, y, *self._geometry())  # type: ignore[no-untyped-call]
        return back

    def _geometry(self) -> tuple[Any, ...]:
        """Stride, padding, dilation and groups."""
        if isinstance(self.module, RepConv3d):
            return 1, 1, 1, 1
        return self.module.stride, self.module.padding, self.module.dilation, self.module.groups


def power_iteration(
    layer: Layer, kernel: Tensor, start: Tensor, iterations: int, converged: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Estimate an operator's spectral norm, its largest gain in Euclidean length.

    The estimate never exceeds the norm, and has the norm's gradient with respect to the kernel in
    the limit; the vectors carry none.

    Args:
        layer: The operator.
        kernel: Its kernel.
        start: Where to start, (1, in, X, Y, Z) of length one; its size is the grid.
        iterations: Each applies the operator and its adjoint once.
        converged: Stop when the gain changes relatively by less than this.

    Returns:
        The norm, a scalar, and the argument whose gain it is, to start from next time.

    Source: Miyato et al., "Spectral normalization for generative adversarial networks", ICLR 2018,
        algorithm 1, with the convolution in place of the kernel as a matrix as in Gouk et al.,
        "Regularisation of neural networks by enforcing Lipschitz continuity", 2021, section 3.2.
    """
    with torch.no_grad():
        fixed, v, before = kernel.detach(), start, 0.0
        for _ in range(iterations):
            gained = layer.adjoint(layer.apply(v, fixed), fixed, start.shape)
            gain = gained.norm()
            # A kernel of zeros leaves no direction to go on from.
            v = torch.where(gain > 0, gained / gain.clamp(min=_TINY), v)
            if converged:
                now = float(gain)
                if abs(now - before) <= converged * now:
                    break
                before = now
        u = functional.normalize(layer.apply(v, fixed).flatten(), dim=0)
    return (u * layer.apply(v, kernel).flatten()).sum(), v


@TERMS.register(
    "spectral",
    small={"grid": [4, 4, 4]},
    recipe="configs/distill/spectral.yaml",
)
class SpectralTerm(Term):
    """Squared difference between corresponding convolutions' spectral norms, over their sum.

    A layer's norm is the largest gain of its convolution, zero-padded as in the network, on
    volumes of a stated grid. It bounds how much the layer can amplify noise. The teacher's norms
    are found once. For the student's a few power iterations a step suffice, since they go on from
    the vectors of the step before; these are buffers of the term, so a run that is resumed takes
    the same steps. A layer with training-time branches counts as its one merged kernel, and the
    gradient reaches every branch.

    By default those layers correspond that are at the same share of the depth, in the order in
    which the networks name them; a teacher that was grown from the student is better paired by
    name. Two ReLU networks can be one function with different norms, so this is a
    regulariser beside other terms and no term to learn from alone.

    Args:
        pairs: Names ``[student, teacher]`` of the corresponding convolutions; None for all of the
            student's.
        grid: Voxels along X, Y, Z of the volumes on which the norms are taken.
        iterations: Power iterations a step, from 1.

    Raises:
        UsageError: If an option is out of range.

    Source: Shang et al., "Lipschitz continuity guided knowledge distillation" (LONDON), ICCV 2021,
        which matches spectral norms of products of features; here the convolutions' own norms, as
        in Yoshida and Miyato, "Spectral norm regularization for improving the generalizability of
        deep learning", 2017.

    Examples:
        >>> import torch
        >>> from medsr.batch import Batch
        >>> from medsr.distill import Distiller
        >>> from medsr.distill.terms import SpectralTerm
        >>> from medsr.networks import build_network
        >>> student = build_network("RepPlain3D", (1, 1, 4), width=16, depth=2)
        >>> teacher = build_network("RepPlain3D", (1, 1, 4), width=32, depth=4)
        >>> term = SpectralTerm()
        >>> distiller = Distiller(student, teacher, [term])
        >>> term.pairs  # layers at the same share of the depth
        (('head', 'head'), ('body.0', 'body.1'), ('body.1', 'body.2'), ('tail', 'tail'))
    """

    name = "spectral"

    teacher_norms: Tensor

    def __init__(
        self,
        pairs: Sequence[Sequence[str]] | None = None,
        grid: Sequence[int] = (6, 6, 6),
        iterations: int = 2,
    ) -> None:
        super().__init__()
        if len(grid) != 3 or min(grid) < 1:
            raise UsageError(f"spectral term: grid is {list(grid)}; give three sizes from 1")
        if iterations < 1:
            raise UsageError(f"spectral term: iterations is {iterations}; give 1 or more")
        if pairs is not None and (not pairs or any(_no_pair(pair) for pair in pairs)):
            raise UsageError(
                "spectral term: pairs are lists of two names, [student's layer, teacher's layer]"
            )
        self._named = None if pairs is None else [(pair[0], pair[1]) for pair in pairs]
        self.grid = tuple(grid)
        self.iterations = iterations
        self.pairs: tuple[tuple[str, str], ...] = ()
        self._layers: tuple[Layer, ...] = ()

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        """Pair the layers, find the teacher's norms and bring the student's vectors near.

        Raises:
            UsageError: If a named layer does not exist or a network has no convolution.
        """
        student_layers, teacher_layers = (
            _layers(student, "student"),
            _layers(cast("nn.Module", teacher), "teacher"),
        )
        self.pairs = tuple(self._named or _by_depth(list(student_layers), list(teacher_layers)))
        for (name, other), role in [(pair, "student") for pair in self.pairs]:
            _check_name(name, student_layers, role)
            _check_name(other, teacher_layers, "teacher")
        self._layers = tuple(student_layers[name] for name, _ in self.pairs)
        spectra: dict[str, Tensor] = {}
        for _, name in self.pairs:
            if name not in spectra:
                spectra[name] = self._settled(teacher_layers[name])[0]
        self.register_buffer(
            "teacher_norms", torch.stack([spectra[name] for _, name in self.pairs])
        )
        for number, layer in enumerate(self._layers):
            self.register_buffer(f"vector_{number}", self._settled(layer)[1])
        for (name, other), norm in zip(self.pairs, self.teacher_norms.tolist(), strict=True):
            logger.debug("spectral term: %s follows %s, norm %.3f", name, other, norm)

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        """Compare the norms of this moment.

        Returns:
            A float32 scalar from 0, when all norms agree, to 1, when one network's are all zero.

        Raises:
            RuntimeError: If :meth:`bind` was not called.
        """
        norms = self.student_norms()
        total = (norms + self.teacher_norms).clamp(min=_FLOOR)
        return ((norms - self.teacher_norms) / total).square().mean()

    def student_norms(self) -> Tensor:
        """Return the student's norms, one for each pair, after a few more power iterations.

        Raises:
            RuntimeError: If :meth:`bind` was not called.
        """
        if not self._layers:
            raise RuntimeError("spectral term: bind() must run before the first step")
        norms = []
        with torch.autocast(self.teacher_norms.device.type, enabled=False):
            for number, layer in enumerate(self._layers):
                vector = cast(Tensor, getattr(self, f"vector_{number}"))
                kernel = layer.kernel().float()
                # The graph keeps the new vector; what is written to is the buffer alone.
                norm, latest = power_iteration(layer, kernel, vector.clone(), self.iterations)
                vector.copy_(latest)
                norms.append(norm)
        return torch.stack(norms)

    def _settled(self, layer: Layer) -> tuple[Tensor, Tensor]:
        """Norm and vector of a layer, from a fixed start until they hardly change."""
        with torch.no_grad():
            kernel = layer.kernel().float()
            # Of a generator of its own: building a term leaves the run's random numbers alone.
            start = torch.randn(
                (1, layer.channels, *self.grid), generator=torch.Generator().manual_seed(0)
            ).to(kernel.device)
            start = start / start.norm()
            return power_iteration(layer, kernel, start, _SETTLING_ITERATIONS, _CONVERGED)


def _layers(network: nn.Module, role: str) -> dict[str, Layer]:
    """The network's 3D convolutions by name, in the order of registration."""
    layers: dict[str, Layer] = {}
    for name, module in network.named_modules():
        # Other paddings than a number of zeros would be other operators.
        plain = isinstance(module, nn.Conv3d) and module.padding_mode == "zeros"
        if (plain and not isinstance(module.padding, str)) or isinstance(module, RepConv3d):
            layers[name] = Layer(cast("nn.Conv3d | RepConv3d", module))
    if not layers:
        raise UsageError(f"spectral term: the {role} {type(network).__name__} has no convolution")
    return layers


def _by_depth(ours: Sequence[str], theirs: Sequence[str]) -> list[tuple[str, str]]:
    """Pair each of our layers with theirs at the same share of the depth."""
    last = max(len(ours) - 1, 1)
    return [(n, theirs[round(i * (len(theirs) - 1) / last)]) for i, n in enumerate(ours)]


def _no_pair(pair: object) -> bool:
    return (
        isinstance(pair, str)
        or not isinstance(pair, Sequence)
        or len(pair) != 2
        or not all(isinstance(name, str) for name in pair)
    )


def _check_name(name: str, layers: dict[str, Layer], role: str) -> None:
    if name not in layers:
        raise UsageError(
            f"spectral term: {name!r} is no convolution of the {role}; it has {', '.join(layers)}"
        )

"""Taps: where a term looks into student and teacher, and the hooks that fetch what is there.

How a step is run lives in :mod:`medsr.distill.distiller`; what is compared, in
:mod:`medsr.distill.terms`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from torch import Tensor, nn

from medsr.errors import UsageError


@dataclass(frozen=True)
class Tap:
    """A pair of places whose features a term compares.

    Attributes:
        student: Name of a submodule of the student, as in ``named_modules()``; empty for a term
            that looks into the teacher alone.
        teacher: Name of a submodule of the teacher; empty for a term that looks into the student
            alone.

    Examples:
        >>> from medsr.distill import Tap
        >>> from medsr.networks import build_network
        >>> student = build_network("RepPlain3D", (1, 1, 4), width=16, depth=3)
        >>> teacher = build_network("ResNet3D", (1, 1, 4), width=32, blocks=4)
        >>> student.taps[-1], teacher.taps[-1]
        ('body.2', 'fuse')
        >>> Tap(student.taps[-1], teacher.taps[-1])  # the last features of both
        Tap(student='body.2', teacher='fuse')
    """

    student: str
    teacher: str


@dataclass(frozen=True)
class Activations:
    """What one network said about a batch.

    Attributes:
        output: Restored volume, (B, 1, X·sx, Y·sy, Z·sz).
        features: Outputs of the tapped submodules by their names, each (B, C, X', Y', Z') on the
            grid on which the submodule works.
        spread: Standard deviation of the answers, in the output's shape, where the network was
            asked about several views.

    Examples:
        >>> import torch
        >>> from medsr.distill import Activations
        >>> output = torch.rand(1, 1, 8, 8, 16, requires_grad=True)
        >>> seen = Activations(output, {"body.1": 2 * output[..., ::4]})
        >>> seen.features["body.1"].requires_grad, seen.detached().output.requires_grad
        (True, False)
    """

    output: Tensor
    features: dict[str, Tensor] = field(default_factory=dict)
    spread: Tensor | None = None

    def detached(self) -> Activations:
        """Return the same values without their graph."""
        features = {name: value.detach() for name, value in self.features.items()}
        spread = None if self.spread is None else self.spread.detach()
        return Activations(self.output.detach(), features, spread)


class FeatureTaps:
    """Forward hooks on named submodules, set once and silent outside :meth:`record`.

    The features belong to whoever recorded them; nothing is kept here after the recording, so
    that neither memory nor a graph outlives a training step.

    Args:
        network: The network to listen to.
        names: Submodules as in ``network.named_modules()``; repeated names count once.
        role: What messages call the network, for example ``"teacher"``.

    Attributes:
        names: As given, each once.

    Raises:
        UsageError: If the network has no submodule of a name.

    Examples:
        >>> import torch
        >>> from medsr.distill import FeatureTaps
        >>> from medsr.networks import build_network
        >>> network = build_network("RepPlain3D", (1, 1, 4), width=16, depth=3)
        >>> taps = FeatureTaps(network, ["body.0", "body.2"])
        >>> with taps.record() as features:
        ...     _ = network(torch.rand(1, 1, 8, 8, 4))
        >>> {name: tuple(value.shape) for name, value in features.items()}
        {'body.0': (1, 16, 8, 8, 4), 'body.2': (1, 16, 8, 8, 4)}
        >>> taps.remove()
    """

    def __init__(self, network: nn.Module, names: Iterable[str], role: str = "network") -> None:
        self._features: dict[str, Tensor] | None = None
        modules = dict(network.named_modules())
        self.names = tuple(dict.fromkeys(names))
        self._role = role
        for name in self.names:
            if not name or name not in modules:
                offered = getattr(network, "taps", ()) or tuple(filter(None, modules))
                raise UsageError(
                    f"tap {name!r} is no submodule of the {role} {type(network).__name__}; "
                    f"it offers {', '.join(offered)}"
                )
        self._handles = [
            modules[name].register_forward_hook(partial(self._keep, name)) for name in self.names
        ]

    @contextmanager
    def record(self) -> Iterator[dict[str, Tensor]]:
        """Collect features during the ``with`` block.

        Yields:
            A dictionary that fills with the submodules' outputs while the network runs; it is
            the caller's own afterwards. If a submodule runs several times its last output stays.
        """
        features: dict[str, Tensor] = {}
        self._features = features
        try:
            yield features
        finally:
            self._features = None

    def check(self, features: Mapping[str, Tensor]) -> None:
        """Refuse places that gave nothing while the network ran.

        Args:
            features: What a recording of one whole pass yielded.

        Raises:
            UsageError: A submodule was not called, as a list of layers is not.
        """
        for name in self.names:
            if name not in features:
                raise UsageError(
                    f"tap {name!r} of the {self._role} gives nothing, since the network does not "
                    "call it as a whole; choose a submodule within it"
                )

    def remove(self) -> None:
        """Take the hooks off the network."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _keep(self, name: str, module: nn.Module, inputs: object, output: object) -> None:
        if self._features is None:
            return
        if not isinstance(output, Tensor):
            raise UsageError(
                f"tap {name!r} ({type(module).__name__}) returns {type(output).__name__}; "
                "choose a submodule that returns one tensor"
            )
        self._features[name] = output

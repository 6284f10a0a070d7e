"""The networks: one file each, and the table of their names.

A network maps a normalised low-resolution tensor ``(B, 1, X, Y, Z)`` to
``(B, 1, X·sx, Y·sy, Z·sz)`` and says what an engine must know: ``scale``, ``halo``,
``multiple_of`` and ``taps``. Third parties add theirs by an entry point in the group
``medsr.networks``, which is asked only when a name misses this table.
"""

from __future__ import annotations

from typing import Any

from medsr.errors import ModelError
from medsr.networks.blocks import SRNetwork, Triple
from medsr.networks.dam import DAM3D
from medsr.networks.fsrcnn import FSRCNN3D
from medsr.networks.mobilenet import MobileNet3D
from medsr.networks.plain25d import Plain25D
from medsr.networks.rcan import RCAN3D
from medsr.networks.repplain import RepPlain3D
from medsr.networks.resnet import ResNet3D
from medsr.networks.rrdb import RRDBNet3D
from medsr.networks.shufflenet import ShuffleNet3D
from medsr.networks.span import Span3D
from medsr.networks.srresnet import SRResNet3D
from medsr.networks.unet import UNet3D
from medsr.plugins import check_options, look_up

NETWORKS: dict[str, type[SRNetwork]] = {
    "DAM3D": DAM3D,
    "FSRCNN3D": FSRCNN3D,
    "MobileNet3D": MobileNet3D,
    "Plain25D": Plain25D,
    "RCAN3D": RCAN3D,
    "RepPlain3D": RepPlain3D,
    "ResNet3D": ResNet3D,
    "RRDBNet3D": RRDBNet3D,
    "ShuffleNet3D": ShuffleNet3D,
    "Span3D": Span3D,
    "SRResNet3D": SRResNet3D,
    "UNet3D": UNet3D,
}

__all__ = [
    "DAM3D",
    "FSRCNN3D",
    "MobileNet3D",
    "NETWORKS",
    "Plain25D",
    "RCAN3D",
    "RRDBNet3D",
    "RepPlain3D",
    "ResNet3D",
    "SRNetwork",
    "SRResNet3D",
    "ShuffleNet3D",
    "Span3D",
    "UNet3D",
    "build_network",
]


def build_network(name: str, scale: Triple, **options: Any) -> SRNetwork:
    """Build a network by name.

    Args:
        name: A key of :data:`NETWORKS`, or an entry point of the group ``medsr.networks``.
        scale: Integer factors along X, Y and Z.
        **options: The network's own arguments.

    Returns:
        The network with freshly initialised parameters.

    Raises:
        ModelError: If the name is unknown or an option is none of the network's.

    Examples:
        >>> from medsr.networks import NETWORKS, build_network
        >>> "Span3D" in NETWORKS
        True
        >>> student = build_network("RepPlain3D", (1, 1, 4), width=32, depth=8, head="gaussian")
        >>> student.scale, student.values_per_voxel  # mean and standard deviation of every voxel
        ((1, 1, 4), 2)
    """
    cls = look_up(name, NETWORKS, group="medsr.networks", what="network", error=ModelError)
    try:
        check_options(cls, options)
        return cls(scale, **options)
    except (TypeError, ValueError) as error:
        raise ModelError(f"network {name}: {error}") from error

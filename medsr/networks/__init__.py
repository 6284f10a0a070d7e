"""The networks: one file each, which registers it.

A network maps a normalised low-resolution tensor ``(B, 1, X, Y, Z)`` to
``(B, 1, X·sx, Y·sy, Z·sz)`` and says what an engine must know: ``scale``, ``halo``,
``multiple_of`` and ``taps``. Third parties add theirs by an entry point in the group
``medsr.networks``, or register it themselves. The classes are attributes of this package, too.
"""

from __future__ import annotations

from typing import Any

from medsr.errors import ModelError
from medsr.networks.blocks import SRNetwork
from medsr.plugins import Registry, check_options
from medsr.types import Triple

__all__ = ["NETWORKS", "SRNetwork", "build_network"]

NETWORKS: Registry[type[SRNetwork]] = Registry(
    "network", __name__, ModelError, group="medsr.networks"
)
"""Every network by the name that recipes use."""


def __getattr__(name: str) -> Any:
    return NETWORKS.attribute(name)


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
    cls = NETWORKS.find(name).factory
    try:
        check_options(cls, options)
        return cls(scale, **options)
    except (TypeError, ValueError) as error:
        raise ModelError(f"network {name}: {error}") from error

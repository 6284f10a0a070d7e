"""Networks that a term builds for itself, by what its options say of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medsr.errors import ModelError, UsageError
from medsr.networks import SRNetwork, build_network
from medsr.types import Triple

_KEYS = ("name", "options")


def check_network(term: str, key: str, plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``{name, options}`` of a network, as in a recipe's ``network``.

    Args:
        term: Name of the term, for messages.
        key: The term's option that names the network.
        plain: What the option holds.

    Raises:
        UsageError: There is no name, another key, or options that are no mapping.
    """
    unknown = [name for name in plain if name not in _KEYS]
    if unknown:
        raise UsageError(f"{term} term: {key}.{unknown[0]}: unknown key; give name and options")
    name, options = plain.get("name"), plain.get("options", {})
    if not isinstance(name, str) or not isinstance(options, Mapping):
        raise UsageError(
            f"{term} term: {key}: give the name of a network, and a mapping of options"
        )
    return {"name": name, "options": dict(options)}


def build_own(term: str, key: str, plain: Mapping[str, Any], scale: Triple) -> SRNetwork:
    """Build the network that :func:`check_network` has accepted.

    Args:
        term: Name of the term, for messages.
        key: The term's option that names the network.
        plain: ``{name, options}``.
        scale: Integer factors along X, Y and Z.

    Raises:
        UsageError: The network is unknown or does not take its options.
    """
    try:
        return build_network(plain["name"], scale, **plain["options"])
    except ModelError as error:
        raise UsageError(f"{term} term: {key}: {error}") from error

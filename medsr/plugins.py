"""Names that recipes and options use: the built-in table first, then what other packages add.

Other packages add networks, degradations and distillation terms by entry points, which are asked
only when a name misses the table. What is done with the class that is found is the caller's work.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import TypeVar, cast

from medsr.errors import MedsrError

T = TypeVar("T")


def look_up(
    name: str, table: Mapping[str, T], *, group: str, what: str, error: type[MedsrError]
) -> T:
    """Find what a name stands for.

    Args:
        name: What the user wrote.
        table: What is built in.
        group: Entry point group in which other packages publish.
        what: What messages call it, for example ``"network"``.
        error: Class of the refusal.

    Returns:
        The table's entry, or the object that an entry point loads.

    Raises:
        MedsrError: ``error``, where nothing has this name or the other package does not load.
    """
    if name in table:
        return table[name]
    offered = {point.name: point for point in entry_points(group=group)}
    if name not in offered:
        known = ", ".join(sorted({*table, *offered}))
        raise error(f"{what} {name!r} is unknown; known are {known}")
    try:
        return cast("T", offered[name].load())
    except (ImportError, AttributeError) as problem:
        raise error(
            f"{what} {name!r} of {offered[name].value} cannot be loaded ({problem}); "
            "mend or remove the package that offers it"
        ) from problem

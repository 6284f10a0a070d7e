"""Names and options of recipes: the built-in table first, then what other packages add.

Other packages add networks, degradations and distillation terms by entry points, which are asked
only when a name misses the table. What is done with the class that is found is the caller's work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import entry_points
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

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


def check_options(factory: Callable[..., object], options: Mapping[str, Any]) -> None:
    """Refuse options whose type is plainly not the one that the factory's annotations name.

    Numbers, texts, truth values, lists and mappings are told apart, which is what YAML can hold;
    annotations with any other type let everything pass. What is in a list, and whether a number is
    in its range, is for the factory to say.

    Args:
        factory: A class or function with annotations.
        options: Its arguments by name; unknown names are left to the call itself.

    Raises:
        TypeError: An option is of another type, or a text where a list is wanted.
    """
    target = factory.__init__ if isinstance(factory, type) else factory  # type: ignore[misc]
    try:
        hints = get_type_hints(target)
    except (NameError, TypeError):
        return  # of another package, written for type checkers alone
    for name, value in options.items():
        wanted = _kinds(hints.get(name))
        if wanted and not any(_KINDS[kind](value) for kind in wanted):
            hint = " (YAML reads 1e-3 as text; write 1.0e-3)" if _is_number(value) else ""
            raise TypeError(f"{name} is {value!r}; give {' or '.join(wanted)}{hint}")


_KINDS: dict[str, Callable[[object], bool]] = {
    "a whole number": lambda value: isinstance(value, Integral) and not isinstance(value, bool),
    "a number": lambda value: isinstance(value, Real) and not isinstance(value, bool),
    "a text": lambda value: isinstance(value, str),
    "true or false": lambda value: isinstance(value, bool),
    "a list": lambda value: (
        isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)
    ),
    "a mapping": lambda value: isinstance(value, Mapping),
    "null": lambda value: value is None,
}
_NAMES: dict[object, str] = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
    list: "a list",
    tuple: "a list",
    Sequence: "a list",
    dict: "a mapping",
    Mapping: "a mapping",
    NoneType: "null",
}


def _kinds(hint: object) -> tuple[str, ...]:
    """What YAML may give for an annotation; empty where that cannot be said."""
    members = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    found = [_NAMES.get(get_origin(member) or member) for member in members]
    return () if None in found else tuple(dict.fromkeys(cast("list[str]", found)))


def _is_number(value: object) -> bool:
    """Whether this is a text that Python would read as a number."""
    try:
        return isinstance(value, str) and float(value) is not None
    except ValueError:
        return False

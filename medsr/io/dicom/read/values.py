"""Attribute values as plain numbers, or a refusal that names the attribute and not its value.

What the attributes mean is known elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from pydicom.dataset import Dataset

from medsr.errors import CorruptFileError

T = TypeVar("T")
Vector = tuple[float, ...]

_MALFORMED = (ValueError, TypeError, ArithmeticError, NotImplementedError)


def listed(value: Any) -> Sequence[Any]:
    """The values of an attribute that may have none, one or several."""
    if value is None:
        return []
    return [value] if isinstance(value, str) or not isinstance(value, Sequence) else value


def number(dataset: Dataset, name: Any, kind: Callable[[Any], T], where: str) -> T | None:
    """One number, None if absent or empty.

    Args:
        dataset: where it is looked up.
        name: keyword or tag.
        kind: what makes a number of the value, such as ``int``.
        where: the file's name, for the message.

    Raises:
        CorruptFileError: if the value is no number.
    """
    try:
        value = dataset.get(name)
        value = getattr(value, "value", value) if not isinstance(name, str) else value
        return None if value is None or value == "" else kind(value)
    except _MALFORMED:
        raise CorruptFileError(f"{where}: {name} is not a number; export the file again") from None


def vector(dataset: Dataset, name: str, length: int, where: str) -> Vector | None:
    """``length`` numbers, None if absent or empty.

    Raises:
        CorruptFileError: if there are more or fewer, or other values.
    """
    try:
        value = dataset.get(name)
        if value is None or value == "" or len(value) == 0:
            return None
        numbers = tuple(float(part) for part in value)
    except _MALFORMED:
        numbers = ()
    if len(numbers) != length:
        raise CorruptFileError(
            f"{where}: {name} does not hold {length} numbers; export the file again"
        )
    return numbers

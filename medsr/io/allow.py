"""What a user may allow medsr to do with a scan that it refuses by default.

Only the names; what each does is documented where it is done (``dicom.read.choose``,
``dicom.read.regular``, ``labels``).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, cast, get_args

from medsr.errors import UsageError

Allowance = Literal["gaps", "tilt", "duplicates", "few-slices", "labels"]
ALLOWANCES: tuple[Allowance, ...] = get_args(Allowance)

NOTHING: frozenset[Allowance] = frozenset()


def parse_allowances(names: Iterable[str]) -> frozenset[Allowance]:
    """Check names of allowances.

    Raises:
        UsageError: if one is not known.
    """
    given = [names] if isinstance(names, str) else list(names)
    for name in given:
        if name not in ALLOWANCES:
            raise UsageError(f"{name!r} cannot be allowed; choose among {', '.join(ALLOWANCES)}")
    return frozenset(cast("list[Allowance]", given))

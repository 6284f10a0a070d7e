"""Methods of distillation, one file each, which registers them.

A term is a :class:`medsr.distill.term.Term`. Other packages add terms through the entry point group
``medsr.distill_terms``, or register them themselves. The classes are attributes of this package,
too.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from medsr.distill.term import Term
from medsr.errors import UsageError
from medsr.plugins import Registry, check_options

__all__ = ["ENTRY_POINTS", "TERMS", "build_term"]

ENTRY_POINTS = "medsr.distill_terms"
"""Entry point group in which other packages publish terms."""

TERMS: Registry[Callable[..., Term]] = Registry(
    "distillation term", __name__, UsageError, group=ENTRY_POINTS
)
"""Every term by the name that recipes use."""


_OF_LOSSES = {
    "FrequencyTerm": "frequency",
    "GradientTerm": "gradient",
    "SSIMTerm": "ssim",
    "WaveletTerm": "wavelet",
}  # deprecated names of what build_term builds


def __getattr__(name: str) -> Any:
    if name in _OF_LOSSES:
        message = f"{name} is deprecated; call build_term({_OF_LOSSES[name]!r}, …)"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return TERMS[_OF_LOSSES[name]]
    return TERMS.attribute(name)


def build_term(name: str, **options: Any) -> Term:
    """Build a term by its name.

    Args:
        name: A key of :data:`TERMS`, or the name of an entry point in :data:`ENTRY_POINTS`.
        **options: Arguments of the term's class.

    Returns:
        A term for :class:`medsr.distill.Distiller`.

    Raises:
        UsageError: If no term has this name, or it does not take these options.

    Examples:
        >>> from medsr.distill.terms import TERMS, build_term
        >>> "attention" in TERMS
        True
        >>> build_term("output", loss="charbonnier", views=8).teacher_views
        8
    """
    factory = TERMS.find(name).factory
    try:
        check_options(factory, options)
        return factory(**options)
    except TypeError as error:
        raise UsageError(
            f"distillation term {name!r} does not take these options: {error}"
        ) from error

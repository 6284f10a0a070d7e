"""Methods of distillation, one file each, and the table that names them.

A term is an ``nn.Module`` with the members of :class:`medsr.distill.taps.DistillTerm`. Other
packages add terms through the entry point group ``medsr.distill_terms``, which is looked up only
when a name misses the table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from medsr.distill.taps import DistillTerm
from medsr.distill.terms.adversarial import AdversarialTerm
from medsr.distill.terms.affinity import AffinityTerm
from medsr.distill.terms.attention import AttentionTerm
from medsr.distill.terms.confidence import ConfidenceTerm
from medsr.distill.terms.contrastive import ContrastiveTerm
from medsr.distill.terms.dam import DAMTerm
from medsr.distill.terms.entropy import EntropyTerm
from medsr.distill.terms.feature import FeatureTerm
from medsr.distill.terms.frequency import FrequencyTerm
from medsr.distill.terms.gradient import GradientTerm
from medsr.distill.terms.mutual import MutualTerm
from medsr.distill.terms.nll import LikelihoodTerm
from medsr.distill.terms.output import OutputTerm
from medsr.distill.terms.robust import RobustTerm
from medsr.distill.terms.soft_label import SoftLabelTerm
from medsr.distill.terms.spectral import SpectralTerm
from medsr.distill.terms.ssim import SSIMTerm
from medsr.distill.terms.student_branches import StudentBranchesTerm
from medsr.distill.terms.vid import VariationalTerm
from medsr.distill.terms.wavelet import WaveletTerm
from medsr.errors import UsageError
from medsr.plugins import check_options, look_up

__all__ = [
    "ENTRY_POINTS",
    "TERMS",
    "AdversarialTerm",
    "AffinityTerm",
    "AttentionTerm",
    "ConfidenceTerm",
    "ContrastiveTerm",
    "DAMTerm",
    "EntropyTerm",
    "FeatureTerm",
    "FrequencyTerm",
    "GradientTerm",
    "LikelihoodTerm",
    "MutualTerm",
    "OutputTerm",
    "RobustTerm",
    "SSIMTerm",
    "SoftLabelTerm",
    "SpectralTerm",
    "StudentBranchesTerm",
    "VariationalTerm",
    "WaveletTerm",
    "build_term",
]

ENTRY_POINTS = "medsr.distill_terms"
"""Entry point group in which other packages publish terms."""

TERMS: dict[str, Callable[..., DistillTerm]] = {
    "adversarial": AdversarialTerm,
    "affinity": AffinityTerm,
    "attention": AttentionTerm,
    "confidence": ConfidenceTerm,
    "contrastive": ContrastiveTerm,
    "dam": DAMTerm,
    "entropy": EntropyTerm,
    "feature": FeatureTerm,
    "frequency": FrequencyTerm,
    "gradient": GradientTerm,
    "mutual": MutualTerm,
    "nll": LikelihoodTerm,
    "output": OutputTerm,
    "robust": RobustTerm,
    "soft_label": SoftLabelTerm,
    "spectral": SpectralTerm,
    "ssim": SSIMTerm,
    "student_branches": StudentBranchesTerm,
    "vid": VariationalTerm,
    "wavelet": WaveletTerm,
}
"""Every built-in term by the name that recipes use."""


def build_term(name: str, **options: Any) -> DistillTerm:
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
    factory = look_up(name, TERMS, group=ENTRY_POINTS, what="distillation term", error=UsageError)
    try:
        check_options(factory, options)
        return factory(**options)
    except TypeError as error:
        raise UsageError(
            f"distillation term {name!r} does not take these options: {error}"
        ) from error

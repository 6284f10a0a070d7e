"""Frequencies: the student's output is to have the teacher's Fourier spectrum."""

from __future__ import annotations

from medsr.distill.terms.output import OutputTerm


class FrequencyTerm(OutputTerm):
    """Absolute error between the Fourier spectra of the student's and the teacher's output.

    Args:
        form: ``"complex"``, or ``"polar"`` for magnitudes and phases apart.
        phase: For ``polar``: what an error of one radian costs, in normalised intensity; from 0.
        emphasis: Frequencies are weighted by their distance from zero to this power; from 0.
        views: As for :class:`medsr.distill.terms.output.OutputTerm`.

    Raises:
        UsageError: If an argument is out of its range.

    Source: Fuoli, Van Gool, Timofte, "Fourier space losses for efficient perceptual image
        super-resolution", ICCV 2021, between student and teacher.

    Examples:
        >>> import torch
        >>> from medsr.batch import Batch
        >>> from medsr.distill import Activations
        >>> from medsr.distill.terms import FrequencyTerm
        >>> lr, answer = torch.rand(1, 1, 8, 8, 4), torch.rand(1, 1, 8, 8, 16)
        >>> term = FrequencyTerm(form="complex", emphasis=1.0)
        >>> offset = term(Activations(answer + 0.1), Activations(answer), Batch(lr, answer))
        >>> round(float(offset), 4)  # with an emphasis, the mean intensity has no weight
        0.0
    """

    name = "frequency"

    def __init__(
        self, form: str = "complex", phase: float = 0.02, emphasis: float = 0.0, views: int = 1
    ) -> None:
        super().__init__("frequency", views, form=form, phase=phase, emphasis=emphasis)

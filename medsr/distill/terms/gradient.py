"""Gradients: the student's output is to have the teacher's edges."""

from __future__ import annotations

from collections.abc import Sequence

from medsr.distill.terms.output import OutputTerm


class GradientTerm(OutputTerm):
    """Absolute error between the first differences of the student's and the teacher's output.

    A constant offset costs nothing, so a voxel-wise loss or term belongs beside it.

    Args:
        spacing: Voxel spacing along X, Y, Z in mm; differences then become slopes. All axes count
            alike where None.
        views: As for :class:`medsr.distill.terms.output.OutputTerm`.

    Raises:
        UsageError: If a spacing is not positive.

    Source: Mathieu, Couprie, LeCun, "Deep multi-scale video prediction beyond mean square error",
        ICLR 2016, section 3.3, with exponent one, between student and teacher.

    Examples:
        >>> import torch
        >>> from medsr.batch import Batch
        >>> from medsr.distill import Activations
        >>> from medsr.distill.terms import GradientTerm
        >>> lr, answer = torch.rand(1, 1, 8, 8, 4), torch.rand(1, 1, 8, 8, 16)
        >>> term = GradientTerm(spacing=(1.0, 1.0, 1.25))  # mm
        >>> offset = term(Activations(answer + 0.1), Activations(answer), Batch(lr, answer))
        >>> round(float(offset), 4)
        0.0
    """

    name = "gradient"

    def __init__(self, spacing: Sequence[float] | None = None, views: int = 1) -> None:
        super().__init__("gradient", views, spacing=spacing)

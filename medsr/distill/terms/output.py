"""Teacher output: the student learns the teacher's answer as if it were a second truth.

``frequency``, ``gradient``, ``ssim`` and ``wavelet`` are this term with the loss of that name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from medsr.batch import Batch
from medsr.distill.taps import Activations
from medsr.distill.term import Term
from medsr.distill.terms import TERMS
from medsr.errors import UsageError
from medsr.losses import build_loss


@TERMS.register(
    "output",
    recipe="configs/distill/mr-z4.yaml",
)
class OutputTerm(Term):
    """Loss between the student's and the teacher's output.

    Args:
        loss: Name of a loss in :data:`medsr.losses.LOSSES`.
        views: About how many views of the scan the teacher is asked; from 2 on it learns from the
            mean of the un-flipped answers. Each view costs a pass of the teacher. Flips along X,
            Y, Z come first, then along pairs, then all three, then the same transposed; 8 views for
            three different factors, 16 where two are equal, 48 where all are.
        temperature: Refused: a temperature softens a soft-max, and an output is an intensity.
        name: Under which it is logged, where several losses between outputs are terms.
        **options: Arguments of the loss.

    Raises:
        UsageError: If the loss is unknown, ``views`` is below 1, or a temperature is given.

    Source: Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network", 2015, with a
        regression loss; self-ensemble: Timofte et al., "Seven ways to improve example-based
        single image super resolution", CVPR 2016, section 3.

    Examples:
        >>> import torch
        >>> from medsr.batch import Batch
        >>> from medsr.distill import Activations
        >>> from medsr.distill.terms import OutputTerm
        >>> lr, hr = torch.rand(1, 1, 8, 8, 4), torch.rand(1, 1, 8, 8, 16)
        >>> term = OutputTerm(loss="l1", views=8)  # the mean of eight flips of the scan
        >>> round(float(term(Activations(hr + 0.1), Activations(hr), Batch(lr, hr))), 4)
        0.1
    """

    def __init__(
        self,
        loss: str = "l1",
        views: int = 1,
        temperature: float | None = None,
        name: str = "output",
        **options: Any,
    ) -> None:
        super().__init__()
        self.name = name
        if temperature is not None:
            raise UsageError(
                "output term: a temperature softens a soft-max and has no meaning for intensities; "
                "leave it out, or take the term soft_label with networks of head: bins"
            )
        if views < 1:
            raise UsageError(f"output term: views is {views}; give 1 (the scan itself) or more")
        self.loss = build_loss(loss, **options)
        self.teacher_views = views

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        """Compare the outputs.

        Returns:
            A float32 scalar, zero when the outputs are equal.
        """
        loss: Tensor = self.loss(student.output, teacher.output)
        return loss


def _of_loss(loss: str) -> Callable[..., OutputTerm]:
    """Return what builds the term that is called after its loss."""

    def build(views: int = 1, **options: Any) -> OutputTerm:
        return OutputTerm(loss, views, name=loss, **options)

    return build


for _loss, _small, _description, _source in (
    (
        "frequency",
        {},
        "Absolute error between the Fourier spectra of the student's and the teacher's output.",
        'Fuoli, Van Gool, Timofte, "Fourier space losses for efficient perceptual image '
        'super-resolution", ICCV 2021, between student and teacher.',
    ),
    (
        "gradient",
        {},
        "Absolute error between the first differences of the student's and the teacher's output.",
        'Mathieu, Couprie, LeCun, "Deep multi-scale video prediction beyond mean square error", '
        "ICLR 2016, section 3.3, with exponent one, between student and teacher.",
    ),
    (
        "ssim",
        {"window": 3, "sigma": 0.8},
        "One minus the structural similarity between the student's and the teacher's output.",
        'Wang et al., "Image quality assessment: from error visibility to structural similarity", '
        "IEEE TIP 13(4), 2004, equation 13, between student and teacher.",
    ),
    (
        "wavelet",
        {},
        "Absolute error between the Haar sub-bands of the student's and the teacher's output.",
        'Zhang et al., "Wavelet knowledge distillation: towards efficient image-to-image '
        'translation", CVPR 2022, section 3.2.',
    ),
):
    TERMS.register(
        _loss,
        small=_small,
        recipe=f"configs/distill/{_loss}.yaml",
        description=_description,
        source=_source,
    )(_of_loss(_loss))

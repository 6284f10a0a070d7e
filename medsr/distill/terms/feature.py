"""Projected features: the student's features, linearly mapped, imitate the teacher's."""

from __future__ import annotations

from torch import Tensor

from medsr.batch import Batch
from medsr.distill.taps import Activations
from medsr.distill.terms import TERMS
from medsr.distill.terms._features import ProjectedTerm, paired, projection, standardise


@TERMS.register(
    "feature",
    small={"student": "body.1", "teacher": "body.2"},
    recipe="configs/distill/feature.yaml",
)
class FeatureTerm(ProjectedTerm):
    """Mean squared error between projected student features and the teacher's.

    Both sides are standardised first, each channel to mean zero and variance one over batch and
    voxels; then a 1³ convolution maps the student's channels onto the teacher's. So the loss is
    about 1 at the start whatever the networks' scales are (a raw projection, still random, would
    drown every other loss), loud channels do not drown quiet ones, and 1 means "no better than
    the teacher's mean". Where the networks work on different grids (one folds voxels into
    channels), the finer features are averaged over the cells of the coarser grid.

    With equal channel counts the projection starts as the identity.

    Args:
        student: Submodule of the student whose output is taken, for example ``"body.5"``.
        teacher: Submodule of the teacher.
        student_channels: Channels of the student's features; found by :meth:`setup` if not given.
        teacher_channels: Channels of the teacher's features; likewise.

    Raises:
        UsageError: If only one of the channel counts is given.

    Source: Romero et al., "FitNets: hints for thin deep nets", ICLR 2015, equation 3.

    Examples:
        >>> import torch
        >>> from medsr.batch import Batch
        >>> from medsr.distill import Activations
        >>> from medsr.distill.terms import FeatureTerm
        >>> term = FeatureTerm("body.5", "body.9", student_channels=16, teacher_channels=16)
        >>> hr, features = torch.zeros(1, 1, 4, 4, 16), torch.rand(1, 16, 4, 4, 4)
        >>> student = Activations(hr, {"body.5": features})
        >>> teacher = Activations(hr, {"body.9": 3 * features + 1})
        >>> loss = term(student, teacher, Batch(hr[..., ::4], hr))
        >>> round(loss.item(), 4)  # both sides are standardised first
        0.0
    """

    name = "feature"

    def __init__(
        self,
        student: str,
        teacher: str,
        student_channels: int | None = None,
        teacher_channels: int | None = None,
    ) -> None:
        super().__init__(student, teacher)
        self._create_given(student_channels, teacher_channels)

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        """Compare the features at the tap.

        Returns:
            A float32 scalar, zero when the projected features equal the teacher's.

        Raises:
            RuntimeError: If :meth:`setup` was not called.
            ValueError: If one grid is not a whole multiple of the other.
        """
        if self.projection is None:
            raise RuntimeError("feature term: setup() must run before the first step")
        source, target = paired(student, teacher, self.tap)
        projected = self.projection(standardise(source))
        error: Tensor = (projected.float() - standardise(target)).square()
        return error.mean()

    def _create(self, student_channels: int, teacher_channels: int) -> None:
        self.projection = projection(student_channels, teacher_channels)

"""Projected features: the student's features, linearly mapped, imitate the teacher's."""

from __future__ import annotations

from torch import Tensor, nn

from medsr.batch import Batch
from medsr.distill.taps import Activations, Tap
from medsr.distill.terms._features import paired, projection, standardise
from medsr.errors import UsageError


class FeatureTerm(nn.Module):
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
    """

    name = "feature"

    def __init__(
        self,
        student: str,
        teacher: str,
        student_channels: int | None = None,
        teacher_channels: int | None = None,
    ) -> None:
        super().__init__()
        self.tap = Tap(student=student, teacher=teacher)
        self.projection: nn.Conv3d | None = None
        if student_channels is not None and teacher_channels is not None:
            self.projection = projection(student_channels, teacher_channels)
        elif student_channels is not None or teacher_channels is not None:
            raise UsageError("feature term: give both student_channels and teacher_channels")

    @property
    def needs(self) -> tuple[Tap, ...]:
        """The one pair of submodules that is compared."""
        return (self.tap,)

    def setup(self, student: Activations, teacher: Activations) -> None:
        """Create the projection for these networks, unless it is there already.

        Args:
            student: The student's activations for a scan of any size.
            teacher: The teacher's activations for the same scan.
        """
        if self.projection is None:
            source = student.features[self.tap.student]
            target = teacher.features[self.tap.teacher]
            self.projection = projection(source.shape[1], target.shape[1]).to(source.device)

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        """Compare the features at the tap.

        Args:
            student: The student's activations.
            teacher: The teacher's activations, without gradient.
            batch: The training pairs; not used.

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

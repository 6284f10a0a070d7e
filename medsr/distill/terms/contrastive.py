"""Contrast: the student is to be near the teacher and far from everything else."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from medsr.batch import Batch
from medsr.distill.taps import Activations, Tap
from medsr.distill.term import Term
from medsr.distill.terms import TERMS
from medsr.distill.terms._features import paired, pool_to, standardise
from medsr.errors import UsageError

NEGATIVES = ("patches", "input")
"""What the student is to be far from."""

_TINY = 1e-8


@TERMS.register(
    "contrastive",
    small={"negatives": "patches", "dimension": 8, "student": "body.1", "teacher": "body.2"},
    recipe="configs/distill/contrastive.yaml",
)
class ContrastiveTerm(Term):
    """Contrast between the teacher's answer for the same place and the negatives.

    With ``negatives="patches"`` features are averaged over small blocks of the training patches
    and each network's head maps a block to a vector of length one. From all blocks of the batch
    the student's vector has to pick out the teacher's for the same block: the InfoNCE loss, as a
    share of its value for a blind guess. So 1 means "knows nothing".

    With ``negatives="input"`` the outputs are compared, and the negative is the interpolated scan:
    the distance to the teacher over the sum of the student's and the teacher's distances to the
    interpolated scan, 0 for the teacher's answer and 1 for the interpolated scan itself. Distances
    are mean absolute differences, of the volumes and of their slopes at full and half resolution,
    which take the place of the features of a network trained on photographs.

    Args:
        negatives: ``"patches"`` or ``"input"``.
        student: Submodule of the student whose output is taken; for ``patches`` only.
        teacher: Submodule of the teacher; likewise.
        cells: The most blocks per training patch, from 2.
        dimension: Length of the heads' vectors.
        temperature: Cosines are divided by it before the soft-max; positive.
        student_channels: Channels of the student's features; found by :meth:`setup` if not given.
        teacher_channels: Channels of the teacher's features; likewise.

    Raises:
        UsageError: If an option is unknown, out of range or missing.

    Source: InfoNCE: van den Oord, Li, Vinyals, "Representation learning with contrastive predictive
        coding", 2018, equation 4; between networks: Tian, Krishnan, Isola, "Contrastive
        representation distillation", ICLR 2020. Input as negative: Wang et al., "Towards compact
        single image super-resolution via contrastive self-distillation" (CSD), IJCAI 2021; there
        the student's distance alone is below the line, which vanishes for a network that starts
        as the interpolation.

    Examples:
        >>> import torch
        >>> from medsr.batch import Batch
        >>> from medsr.distill import Activations
        >>> from medsr.distill.terms import ContrastiveTerm
        >>> term = ContrastiveTerm(negatives="input")
        >>> lr, hr = torch.rand(1, 1, 8, 8, 4), torch.rand(1, 1, 8, 8, 16)
        >>> teacher = Activations(hr)
        >>> float(term(Activations(hr), teacher, Batch(lr, hr)))  # the teacher's own answer
        0.0
        >>> plain = torch.nn.functional.interpolate(lr, size=hr.shape[2:], mode="nearest")
        >>> 0 < float(term(Activations(plain), teacher, Batch(lr, hr)))
        True
    """

    name = "contrastive"

    def __init__(
        self,
        negatives: str = "patches",
        student: str | None = None,
        teacher: str | None = None,
        cells: int = 64,
        dimension: int = 64,
        temperature: float = 0.1,
        student_channels: int | None = None,
        teacher_channels: int | None = None,
    ) -> None:
        super().__init__()
        if negatives not in NEGATIVES:
            raise UsageError(
                f"contrastive term: negatives {negatives!r} is none of {', '.join(NEGATIVES)}"
            )
        if cells < 2 or dimension < 2:
            raise UsageError(
                f"contrastive term: cells is {cells} and dimension {dimension}; give 2 or more"
            )
        if not (temperature > 0 and math.isfinite(temperature)):
            raise UsageError(f"contrastive term: temperature is {temperature}; give a positive one")
        self.tap: Tap | None = None
        if student is not None and teacher is not None:
            self.tap = Tap(student=student, teacher=teacher)
        if (negatives == "patches") != (self.tap is not None) or (student is None) != (
            teacher is None
        ):
            raise UsageError(
                "contrastive term: name the submodules student and teacher for "
                "negatives: patches, and neither for negatives: input"
            )
        self.cells = cells
        self.dimension = dimension
        self.temperature = temperature
        self.student_head: nn.Conv3d | None = None
        self.teacher_head: nn.Conv3d | None = None
        if student_channels is not None and teacher_channels is not None:
            self._create(student_channels, teacher_channels)
        elif student_channels is not None or teacher_channels is not None:
            raise UsageError("contrastive term: give both student_channels and teacher_channels")

    @property
    def needs(self) -> tuple[Tap, ...]:
        """The one pair of submodules that is compared; none where outputs are."""
        return () if self.tap is None else (self.tap,)

    def setup(self, student: Activations, teacher: Activations) -> None:
        """Create the heads for these networks, unless they are there or not needed."""
        if self.tap is not None and self.student_head is None:
            source = student.features[self.tap.student]
            target = teacher.features[self.tap.teacher]
            self._create(source.shape[1], target.shape[1])
            self.to(source.device)

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        """Contrast student and teacher.

        Args:
            student: The student's activations.
            teacher: The teacher's activations, without gradient.
            batch: The training pairs; the low-resolution ones are the negatives of ``input``.

        Returns:
            A float32 scalar from 0, about 1 where nothing was learned.

        Raises:
            RuntimeError: If :meth:`setup` was not called.
            ValueError: If one grid is not a whole multiple of the other.
        """
        with torch.autocast(student.output.device.type, enabled=False):
            if self.tap is None:
                return _against_input(student.output, teacher.output, batch.lr)
            if self.student_head is None or self.teacher_head is None:
                raise RuntimeError("contrastive term: setup() must run before the first step")
            source, target = paired(student, teacher, self.tap)
            student_vectors = self._vectors(source, self.student_head)
            teacher_vectors = self._vectors(target, self.teacher_head)
            right = torch.arange(student_vectors.shape[0], device=student_vectors.device)
            loss = functional.cross_entropy(
                student_vectors @ teacher_vectors.T / self.temperature, right
            )
            return loss / math.log(max(student_vectors.shape[0], 2))

    def _vectors(self, features: Tensor, head: nn.Conv3d) -> Tensor:
        """One vector of length one for each block of the batch, (B·blocks, dimension)."""
        mapped = head(standardise(pool_to(features, self.cells)))
        return functional.normalize(mapped.flatten(2).transpose(1, 2).flatten(0, 1), dim=1)

    def _create(self, student_channels: int, teacher_channels: int) -> None:
        self.teacher_head = _head(teacher_channels, self.dimension)
        if student_channels == teacher_channels:
            # Equal features are then each other's best match from the start.
            self.student_head = copy.deepcopy(self.teacher_head)
        else:
            self.student_head = _head(student_channels, self.dimension)


def _head(channels: int, dimension: int) -> nn.Conv3d:
    """A 1³ convolution that keeps angles as well as the dimension allows."""
    head = nn.Conv3d(channels, dimension, kernel_size=1, bias=False)
    nn.init.orthogonal_(head.weight)
    return head


def _against_input(student_vectors: Tensor, teacher_vectors: Tensor, lr: Tensor) -> Tensor:
    """Distance to the teacher over the distances of both to the interpolated scan."""
    student_vectors, teacher_vectors = student_vectors.float(), teacher_vectors.detach().float()
    size = tuple(student_vectors.shape[2:])
    smooth = functional.interpolate(lr.float(), size=size, mode="trilinear", align_corners=False)
    near = _distances(student_vectors - teacher_vectors)
    far = _distances(student_vectors - smooth) + _distances(teacher_vectors - smooth)
    return (near / (far + _TINY)).mean()


def _distances(difference: Tensor) -> Tensor:
    """Mean absolute value of a difference, of its slopes, and of those at half resolution."""
    half = functional.avg_pool3d(difference, 2, ceil_mode=True, count_include_pad=False)
    return torch.stack([difference.abs().mean(), _steepness(difference), _steepness(half)])


def _steepness(volume: Tensor) -> Tensor:
    """Mean absolute difference of neighbours, summed over the axes."""
    slopes = [volume.diff(dim=axis).abs().mean() for axis in (2, 3, 4) if volume.shape[axis] > 1]
    return torch.stack([*slopes, volume.new_zeros(())]).sum()

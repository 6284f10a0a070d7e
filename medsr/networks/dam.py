"""``DAM3D``: teacher and student as one network with a shared stem, for training as a pair.

How the student imitates the teacher is the term ``dam``
(:mod:`medsr.distill.terms.dam`); this is only what the two compute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from medsr.networks import NETWORKS
from medsr.networks.blocks import SRNetwork, check_count, check_width, conv3, zero_conv3
from medsr.networks.repplain import RepConv3d, RepPlain3D, check_branches, merge_into, plain_options
from medsr.types import Triple


@NETWORKS.register(
    "DAM3D",
    small={"width": 16, "depth": 2, "student_width": 16, "student_depth": 2, "shared": 1},
    recipe="configs/distill/dam-pair.yaml",
)
class DAM3D(SRNetwork):
    """A plain student, and a wider trunk that goes on from the student's first layers.

    The student ``pupil`` is a whole :class:`RepPlain3D`. Its head and first ``shared`` convolutions
    are the stem of both; from there the trunk (``body``, ``width`` channels) runs beside the
    student's own layers. What the network returns is the teacher's answer: the student's detail
    plus what the trunk adds to it. So the pair can begin as a trained student, whose function it
    then is exactly, and the teacher has only to learn what the student lacks.

    Args:
        scale: Integer factors along X, Y and Z.
        width: Channels of the trunk, a multiple of 16.
        depth: Convolutions of the trunk.
        student_width: Channels of stem and student, a multiple of 16.
        student_depth: Hidden convolutions of the student, those of the stem included.
        shared: Hidden convolutions in the stem.
        branches: See :class:`RepPlain3D`; for student and trunk.
        expansion: See :class:`medsr.networks.repplain.RepConv3d`.
        fold: Voxels folded into channels before the head, see :class:`SRNetwork`.
        interpolation: ``"nearest"`` or ``"linear"`` residual.

    Attributes:
        pupil: The student, which answers by itself as well.

    Source: one network with a stem for teacher and student follows Lan, Zhu, Gong, "Knowledge
        distillation by on-the-fly native ensemble", NeurIPS 2018 (shared low layers, branches that
        learn together); that the trunk's answer is added to the student's is this
        implementation's choice.

    Examples:
        >>> import torch
        >>> from medsr.networks import DAM3D
        >>> pair = DAM3D((1, 1, 4), width=32, depth=3, student_width=16, student_depth=3, shared=1)
        >>> lr = torch.rand(1, 1, 8, 8, 4)
        >>> pair(lr).shape == pair.pupil(lr).shape  # teacher and student answer alike
        True
    """

    def __init__(
        self,
        scale: Triple,
        width: int = 64,
        depth: int = 10,
        student_width: int = 32,
        student_depth: int = 8,
        shared: int = 2,
        branches: Sequence[str] | bool = True,
        expansion: int = 2,
        fold: Triple = (1, 1, 1),
        interpolation: str = "nearest",
    ):
        super().__init__(scale, fold, interpolation)
        check_width(width)
        check_count(depth, "depth")
        if not 0 <= shared < student_depth:
            raise ValueError(f"shared is {shared}; it must be from 0 to below student_depth")
        self.branches = check_branches(branches)
        self.shared = shared
        self.width = width
        self.radius = 2 + shared + max(depth, student_depth - shared)
        self.pupil = RepPlain3D(
            scale, student_width, student_depth, self.branches, expansion, fold, interpolation
        )

        def convolution(source: int) -> nn.Module:
            if not self.branches:
                return conv3(source, width)
            return RepConv3d(source, width, self.branches, expansion)

        widths = [student_width] + [width] * (depth - 1)
        self.body = nn.ModuleList(convolution(source) for source in widths)
        self.tail = zero_conv3(width, self.out_channels)
        self.taps = (
            *(f"body.{i}" for i in range(depth)),
            *(f"pupil.body.{i}" for i in range(student_depth)),
        )

    def residual(self, folded: Tensor) -> Tensor:
        """Map ``(B, in_channels, …)`` to ``(B, out_channels, …)``."""
        x = functional.relu(self.pupil.head(folded))
        for convolution in self.pupil.body[: self.shared]:
            x = functional.relu(convolution(x))
        student = x
        for convolution in self.pupil.body[self.shared :]:
            student = functional.relu(convolution(student))
        for convolution in self.body:
            x = functional.relu(convolution(x))
        out: Tensor = self.pupil.tail(student) + self.tail(x)
        return out

    def student(self) -> RepPlain3D:
        """Return a copy of the student as an ordinary plain network, merged for inference."""
        return self.pupil.merged()

    def student_options(self) -> dict[str, Any]:
        """Return the options of ``RepPlain3D`` that build what :meth:`student` returns."""
        return {
            "width": self.pupil.width,
            "depth": len(self.pupil.body),
            "branches": False,
            "fold": list(self.fold),
            "interpolation": self.interpolation,
        }

    def merged(self) -> DAM3D:
        """Return an equal network of plain convolutions; the parameters are copies."""
        plain = DAM3D(
            self.scale,
            width=self.width,
            depth=len(self.body),
            student_width=self.pupil.width,
            student_depth=len(self.pupil.body),
            shared=self.shared,
            branches=False,
            fold=self.fold,
            interpolation=self.interpolation,
        )
        return merge_into(plain, self)

    def merged_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of the plain pair: no branches, nothing to expand."""
        return plain_options(options)

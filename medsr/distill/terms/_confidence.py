"""How sure a teacher is of each voxel, from its head, its error, or its views; no loss is here."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from medsr.batch import Batch
from medsr.distill.taps import Activations
from medsr.errors import UsageError
from medsr.networks.heads import READOUT, Readout

SOURCES = ("head", "error", "views")
SIGMA_FLOOR = 1e-3
"""Smallest standard deviation that is taken for one, in normalised intensity."""


def head_of(network: nn.Module | None) -> Readout | None:
    """Return a network's readout; None where it gives values, or where there is no network."""
    readout: Readout | None = getattr(network, READOUT, None)
    return readout


def student_head(term: str, student: nn.Module) -> Readout:
    """Return the student's readout.

    Raises:
        UsageError: If it gives values.
    """
    readout = head_of(student)
    if readout is None:
        raise UsageError(
            f"{term} term: the student gives values and no distribution; "
            "give it network.options.head: gaussian or bins"
        )
    return readout


class TeacherSigma:
    """The teacher's standard deviation at every output voxel.

    Args:
        term: Name of the term that asks, for messages.
        source: ``"head"`` takes what the teacher's head says; ``"error"`` the root mean square of
            its error against the truth around the voxel; ``"views"`` the standard deviation of its
            answers about flipped and transposed copies. Views share most of their errors, so that
            this last one is far too small; only where it is larger and smaller tells something.
        window: Edge in voxels of the cube over which the error is averaged, odd.
        views: About how many views the teacher is asked, at least 2.

    Raises:
        UsageError: If an argument is out of its range.
    """

    def __init__(self, term: str, source: str, window: int, views: int) -> None:
        if source not in SOURCES:
            raise UsageError(f"{term} term: sigma is {source!r}; choose {', '.join(SOURCES)}")
        if window < 1 or window % 2 == 0:
            raise UsageError(f"{term} term: window is {window}; give an odd number")
        if views < 2:
            raise UsageError(f"{term} term: views is {views}; give 2 or more")
        self.term, self.source, self.window = term, source, window
        self.views = views if source == "views" else 1
        self.readout: Readout | None = None

    @property
    def tap(self) -> str:
        """The teacher's submodule that is read; empty for none."""
        return READOUT if self.source == "head" else ""

    def bind(self, teacher: nn.Module | None) -> None:
        """Look whether the teacher says what is asked of it.

        Raises:
            UsageError: If its head is to tell and gives values.
        """
        self.readout = head_of(teacher)
        if self.source == "head" and self.readout is None:
            raise UsageError(
                f"{self.term} term: the teacher gives values and no distribution; take one with "
                "head: gaussian or bins, or the option sigma: error or views"
            )

    def __call__(self, teacher: Activations, batch: Batch) -> Tensor:
        """Return it as float32, (B, 1, X·sx, Y·sy, Z·sz), at least :data:`SIGMA_FLOOR`."""
        if self.source == "head" and self.readout is not None:
            sigma = self.readout.sigma(teacher.features[READOUT])
        elif self.source == "views" and teacher.spread is not None:
            sigma = teacher.spread
        else:
            squares = (teacher.output.float() - batch.hr.float()).square()
            sigma = functional.avg_pool3d(
                squares, self.window, stride=1, padding=self.window // 2, count_include_pad=False
            ).sqrt()
        return torch.clamp_min(sigma.detach().float(), SIGMA_FLOOR)

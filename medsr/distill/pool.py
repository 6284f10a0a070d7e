"""``TeacherPool``: several frozen teachers that speak as one, each where it is good.

How good each of them is where is measured in ``medsr.train.teachers``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from medsr.errors import UsageError
from medsr.networks import SRNetwork
from medsr.types import Triple

NEGLIGIBLE = 0.01
"""Teachers whose weight in a domain is below this are not asked there."""


def inverse_error_weights(errors: Sequence[float], sharpness: float) -> tuple[float, ...]:
    """Return weights, of sum one, that go with mean squared errors to the power ``-sharpness``.

    Args:
        errors: Mean squared error of each teacher, above zero.
        sharpness: 0 gives equal weights, 1 the weights of least variance for teachers whose errors
            are independent, more gives more to the best.

    Returns:
        The weights; those below :data:`NEGLIGIBLE` are zero.

    Source: Bates and Granger, "The combination of forecasts", Operational Research Quarterly 1969,
        for the inverse error; the power is this implementation's.

    Examples:
        >>> from medsr.distill.pool import inverse_error_weights
        >>> weights = inverse_error_weights([0.01, 0.03], sharpness=1.0)  # mean squared errors
        >>> [round(weight, 3) for weight in weights]
        [0.75, 0.25]
    """
    logarithms = [-sharpness * math.log(max(error, 1e-20)) for error in errors]
    highest = max(logarithms)
    raw = [math.exp(value - highest) for value in logarithms]
    shares = [value if value >= NEGLIGIBLE * sum(raw) else 0.0 for value in raw]
    return tuple(value / sum(shares) for value in shares)


class TeacherPool(nn.Module):
    """Weighted mean of several teachers' answers, with weights for each sample's domain.

    It has one output and no features of its own, so only terms that read outputs learn from it.
    Until :meth:`weigh` is called all teachers count alike.

    Args:
        teachers: Trained networks of one scale.

    Attributes:
        scale: Of all teachers.
        multiple_of: What suits all teachers' folds.
        wants_domains: The distiller hands on what each sample shows.
        weights: By domain (``"MR/T1w"``), by modality (``"MR"``), and by ``""`` for all else; one
            number a teacher, of sum one.

    Raises:
        UsageError: There is no teacher, or they differ in scale.

    Source: the weighted mean of several teachers' answers as one target follows You et al.,
        "Learning from multiple teacher networks", KDD 2017; weights by domain are this
        implementation's choice.

    Examples:
        >>> import torch
        >>> from medsr.distill.pool import TeacherPool
        >>> from medsr.networks import build_network
        >>> teachers = [build_network("RepPlain3D", (1, 1, 4), width=16, depth=d) for d in (2, 3)]
        >>> pool = TeacherPool(teachers)
        >>> pool.weigh({"MR/T1w": [0.01, 0.03]}, sharpness=1.0)
        >>> [round(weight, 3) for weight in pool.weights_for("MR/T1w")]
        [0.75, 0.25]
        >>> pool(torch.rand(1, 1, 8, 8, 4), domains=["MR/T1w"]).shape
        torch.Size([1, 1, 8, 8, 16])
    """

    wants_domains = True

    def __init__(self, teachers: Sequence[SRNetwork]) -> None:
        super().__init__()
        if not teachers:
            raise UsageError("a pool of teachers needs at least one")
        scales = {tuple(teacher.scale) for teacher in teachers}
        if len(scales) > 1:
            raise UsageError(f"the teachers enlarge by {sorted(scales)}; all must have one scale")
        self.teachers = nn.ModuleList(teachers)
        self.scale: Triple = teachers[0].scale
        multiples = zip(*(teacher.multiple_of for teacher in teachers), strict=True)
        x, y, z = (math.lcm(*sizes) for sizes in multiples)
        self.multiple_of: Triple = (x, y, z)
        self.weights: dict[str, tuple[float, ...]] = {"": (1 / len(teachers),) * len(teachers)}

    def weigh(self, errors: Mapping[str, Sequence[float]], sharpness: float) -> None:
        """Weigh the teachers by their errors.

        A domain that was not measured gets the weights of its modality's mean errors, or those of
        all domains' mean errors.

        Args:
            errors: Mean squared error of each teacher, by domain.
            sharpness: See :func:`inverse_error_weights`.
        """
        groups: dict[str, list[Sequence[float]]] = {}
        for domain, values in errors.items():
            if len(values) != len(self.teachers):
                raise UsageError(
                    f"{len(values)} errors in {domain} for {len(self.teachers)} teachers"
                )
            for name in {"", domain.partition("/")[0], domain}:
                groups.setdefault(name, []).append(values)
        for name, rows in groups.items():
            means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
            self.weights[name] = inverse_error_weights(means, sharpness)

    def weights_for(self, domain: str) -> tuple[float, ...]:
        """Return the teachers' weights in a domain, of sum one."""
        own_weights = self.weights.get(domain) or self.weights.get(domain.partition("/")[0])
        return own_weights or self.weights[""]

    def forward(self, lr: Tensor, domains: Sequence[str] = ()) -> Tensor:
        """Ask the teachers and return their weighted mean.

        Args:
            lr: Low-resolution patches (B, 1, X, Y, Z).
            domains: What each patch shows; unknown where empty.

        Returns:
            (B, 1, X·sx, Y·sy, Z·sz) in float32.
        """
        names = tuple(domains) or ("",) * len(lr)
        table = lr.new_tensor([self.weights_for(name) for name in names], dtype=torch.float32)
        total: Tensor | None = None
        for teacher, column in zip(self.teachers, table.T, strict=True):
            (rows,) = torch.nonzero(column, as_tuple=True)
            if not len(rows):
                continue
            answer = cast("Tensor", teacher(lr[rows])).float()
            if total is None:
                total = answer.new_zeros((len(lr), *answer.shape[1:]))
            total[rows] += column[rows].view(-1, 1, 1, 1, 1) * answer
        if total is None:
            raise RuntimeError("no teacher has a weight; weigh() gives at least one")
        return total

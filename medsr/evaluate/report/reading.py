"""Reads the plain data of ``results.json`` for the report, whatever parts of it are there.

Answers questions (which methods, which metric along which axis, what mean with what interval) and
writes numbers as text. What is said about them is in ``headline``, ``answers``
and ``tables``.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from medsr.evaluate.metrics.catalogue import describe
from medsr.evaluate.results.patients import means

LONG_NAMES = {
    "linear": "linear",
    "bspline": "cubic B-spline",
    "lanczos": "Lanczos",
    "tv": "total variation",
}
"""How the built-in baselines are called in sentences."""

MAIN = ("psnr", "ssim", "ms_ssim", "nrmse", "mae", "bias", "hfen")
"""Metrics of a whole scan, in the order of the tables."""

AXES = ("x", "y", "z")
_BLOCKS = "nearest"  # whose steps pass for sharp edges
_PROJECTED = "+consistency"
_MINUS = "\N{MINUS SIGN}"
_NOT_METRICS = frozenset(
    {"patient_id", "scan_id", "axis", "method", "region", "seconds", "psnr_gain"}
)


@dataclass(frozen=True)
class Method:
    """A method as the report shows it.

    Args:
        name: Key in the data.
        title: Name in sentences.
        role: ``baseline``, ``student``, ``teacher`` or ``external``.
        what: One sentence.
        number: Its place, which chooses colour and marker.
        projects: The model whose result it projects onto the scan; empty for all others.
    """

    name: str
    title: str
    role: str
    what: str
    number: int
    projects: str = ""

    @property
    def capital(self) -> str:
        """Name at the head of a sentence; the names of models stay as they are."""
        return self.title if self.learned else f"{self.title[:1].upper()}{self.title[1:]}"

    @property
    def learned(self) -> bool:
        """Whether it is more than a built-in baseline."""
        return self.role != "baseline"


@dataclass(frozen=True)
class Info:
    """How a metric is called and read; ``better`` is ``higher``, ``lower`` or ``zero``."""

    name: str
    label: str
    unit: str
    better: str
    what: str

    @property
    def title(self) -> str:
        """Label with a capital and the unit in brackets."""
        label = self.label[:1].upper() + self.label[1:]
        return f"{label} ({self.unit})" if self.unit else label

    @property
    def direction(self) -> str:
        """Which way is better, in words."""
        return {"higher": "higher is better", "lower": "lower is better"}.get(
            self.better, "nearer zero is better"
        )

    def key(self, value: float) -> float:
        """A number that is larger where ``value`` is better."""
        return value if self.better == "higher" else -abs(value)


@dataclass(frozen=True)
class Estimate:
    """A mean over patients; ``low`` and ``high`` are None where there is no interval."""

    mean: float
    low: float | None = None
    high: float | None = None

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The interval, if there is one."""
        return None if self.low is None or self.high is None else (self.low, self.high)


class ReportData:
    """The data of a ``results.json``, asked in the report's words.

    Args:
        data: As :mod:`medsr.evaluate.results` writes it; every part may be missing.
    """

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.data = data
        self.statistics: Mapping[str, Any] = data.get("statistics") or {}
        settings: Mapping[str, Any] = self.statistics.get("settings") or {}
        self.settings = settings
        self.reference = str(settings.get("reference", "bspline"))
        self.primary = str(settings.get("primary", "psnr"))
        self.confidence = float(settings.get("confidence", 0.95))
        self.cohort: Mapping[str, Any] = data.get("cohort") or {}
        self.modality = str(self.cohort.get("modality", "MR"))

    @cached_property
    def rows(self) -> list[Mapping[str, Any]]:
        """The flat rows, one a scan, axis and method."""
        return list(self.data.get("scans") or [])

    @cached_property
    def methods(self) -> tuple[Method, ...]:
        """Methods that scored anything, baselines first."""
        described: Mapping[str, Any] = self.data.get("methods") or {}
        scored = dict.fromkeys(
            [*(row["method"] for row in self.rows), *(self.statistics.get("means") or {})]
        )
        names = [*(n for n in described if n in scored), *(n for n in scored if n not in described)]
        described_methods = [(name, described.get(name) or {}) for name in names]
        described_methods.sort(key=lambda entry: _role(*entry) != "baseline")
        return tuple(
            Method(
                name,
                LONG_NAMES.get(name, name),
                _role(name, of),
                str(of.get("what", "")),
                n,
                str(of.get("projects") or _plain(name)),
            )
            for n, (name, of) in enumerate(described_methods)
        )

    def method(self, name: str) -> Method:
        """A method by its name."""
        return next(
            (method for method in self.methods if method.name == name),
            Method(name, LONG_NAMES.get(name, name), _role(name, {}), "", len(self.methods)),
        )

    @property
    def learned(self) -> tuple[Method, ...]:
        """Methods that are no built-in baselines."""
        return tuple(method for method in self.methods if method.learned)

    @property
    def lead(self) -> Method | None:
        """The method the report is about: the first student, else the first model or folder."""
        students = [method for method in self.learned if method.role == "student"]
        return next(iter(students or self.learned), None)

    def rivals(self, method: Method) -> tuple[Method, ...]:
        """All that a method has to beat.

        That is every other method but teachers (of a teacher: but students and teachers, who are
        compared by non-inferiority), its own projection onto the scan, and blocks.
        """
        kin = {"teacher"} if method.role != "teacher" else {"student", "teacher"}
        own = {method.name, method.projects or method.name}
        return tuple(
            other
            for other in self.methods
            if other.role not in kin
            and not own & {other.name, other.projects or other.name}
            and other.name != _BLOCKS
        )

    def rival(
        self, method: Method, metric: str, among: Collection[str] | None = None
    ) -> Method | None:
        """The best of a method's rivals by their means of a metric; None where there is none.

        Args:
            method: Whose rivals.
            metric: By which metric.
            among: Names of those that count; all where None.
        """
        info = self.info(metric)
        rivals = [m for m in self.rivals(method) if among is None or m.name in among]
        means = {other: self.estimate(other.name, metric) for other in rivals}
        rival_means = {other: estimate.mean for other, estimate in means.items() if estimate}
        return (
            max(rival_means, key=lambda other: info.key(rival_means[other]))
            if rival_means
            else None
        )

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that any method has."""
        names: dict[str, None] = {}
        for of in (self.statistics.get("means") or {}).values():
            names.update(dict.fromkeys(of))
        for row in self.rows[:50]:
            names.update(dict.fromkeys(name for name in row if name not in _NOT_METRICS))
        return tuple(names)

    def info(self, metric: str) -> Info:
        """Name, unit and direction of a metric; from the catalogue where the data are silent."""
        of: Mapping[str, Any] | None = (self.data.get("metrics") or {}).get(metric)
        if of is None:
            of = asdict(describe(metric, "CT" if self.modality == "CT" else "MR"))
        return Info(
            name=metric,
            label=str(of.get("label", metric)),
            unit=str(of.get("unit", "")),
            better=str(of.get("better", "higher")),
            what=str(of.get("what", "")),
        )

    def estimate(self, method: str, metric: str) -> Estimate | None:
        """Mean of a metric over patients, with its interval where there is one."""
        of = ((self.statistics.get("means") or {}).get(method) or {}).get(metric)
        if of and finite(of.get("mean")):
            return Estimate(float(of["mean"]), number(of.get("low")), number(of.get("high")))
        values = list(self.per_patient(method, metric).values())
        return Estimate(math.fsum(values) / len(values)) if values else None

    def per_patient(self, method: str, metric: str) -> dict[str, float]:
        """A metric by patient; rows of a patient are averaged where statistics are missing."""
        of_method = (self.statistics.get("per_patient") or {}).get(method)
        if of_method is None:
            return means(
                (str(row["patient_id"]), float(row[metric]))
                for row in self.rows
                if row["method"] == method and finite(row.get(metric))
            )
        return {
            str(patient): float(of[metric])
            for patient, of in of_method.items()
            if finite(of.get(metric))
        }

    def comparison(self, method: str, against: str, metric: str) -> Mapping[str, Any] | None:
        """The paired comparison of two methods, if it was made."""
        for found in self.statistics.get("comparisons") or []:
            if (found["method"], found["against"], found["metric"]) == (method, against, metric):
                return dict(found)
        return None

    @cached_property
    def patients(self) -> int:
        """How many patients were scored."""
        counted = self.statistics.get("patients") or self.cohort.get("patients")
        return int(counted or len({row.get("patient_id") for row in self.rows}))

    @property
    def through_plane(self) -> bool:
        """Whether only the slice axis, the last of the scored grid, was degraded."""
        scale = [int(s) for s in (self.data.get("task") or {}).get("scale") or []]
        return len(scale) == 3 and scale[0] == scale[1] == 1 < scale[2]

    def best(self, metric: str) -> str | None:
        """The method with the best mean; blocks, whose steps pass for sharp edges, never are."""
        info = self.info(metric)
        contenders = [m for m in self.methods if m.name != _BLOCKS]
        means = {m.name: self.estimate(m.name, metric) for m in contenders}
        method_means = {name: estimate.mean for name, estimate in means.items() if estimate}
        return (
            max(method_means, key=lambda name: info.key(method_means[name]))
            if len(method_means) > 1
            else None
        )

    def digits(self, metric: str) -> int:
        """Decimals that show the differences between methods to about three figures."""
        means = [self.estimate(method.name, metric) for method in self.methods]
        return decimals([estimate.mean for estimate in means if estimate])

    def percent(self) -> str:
        """The confidence level, as ``95 %``."""
        return f"{100 * self.confidence:g}\N{NARROW NO-BREAK SPACE}%"

    def family(self, *prefixes: str) -> tuple[str, ...]:
        """Metrics whose names start with one of the prefixes, in the data's order."""
        return tuple(name for name in self.metrics if name.startswith(prefixes))

    def along_axes(self, stem: str) -> tuple[str, ...]:
        """``stem_x_mm``, ``stem_y_mm`` and ``stem_z_mm`` as far as they are there."""
        return tuple(n for n in (f"{stem}_{a}_mm" for a in AXES) if n in self.metrics)

    def across(self, stem: str) -> str | None:
        """The metric along the axis that was degraded most: z, as scored grids have it last."""
        return next(iter(reversed(self.along_axes(stem))), None)


def _plain(name: str) -> str:
    """The model behind a projected one, by its name: older results do not say it otherwise."""
    return name.removesuffix(_PROJECTED) if name.endswith(_PROJECTED) else ""


def number(value: object) -> float | None:
    """A finite float, or None."""
    return float(value) if finite(value) and isinstance(value, int | float) else None


def finite(value: object) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)


def decimals(values: Iterable[float]) -> int:
    """Decimals that show the spread of values to about three figures."""
    finite_values = [value for value in values if math.isfinite(value)]
    spread = (max(finite_values) - min(finite_values)) if finite_values else 0.0
    size = spread or max((abs(value) for value in finite_values), default=0.0) / 10
    return 2 if size <= 0 else min(4, max(0, 2 - math.floor(math.log10(size) + 1e-9)))


def text(value: float | None, digits: int = 2, *, signed: bool = False) -> str:
    """A number as text with a true minus sign; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "\N{EN DASH}"
    written = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    if float(written) == 0:
        written = written.lstrip("+-")
    return written.replace("-", _MINUS)


def interval(bounds: Sequence[float] | None, digits: int = 2, *, signed: bool = False) -> str:
    """``2.3 to 3.2``, or nothing."""
    if bounds is None:
        return ""
    return " to ".join(text(bound, digits, signed=signed) for bound in bounds)


def with_unit(value: str, unit: str) -> str:
    """A number and its unit, which no line break parts."""
    return f"{value}\N{NO-BREAK SPACE}{unit}" if unit else value


def p_value(p: float | None) -> str:
    """A p value with two figures, ``< 0.001`` below that."""
    if p is None or not math.isfinite(p):
        return "\N{EN DASH}"
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def _role(name: str, of: Mapping[str, Any]) -> str:
    role = of.get("role")
    if role in ("baseline", "student", "teacher", "external"):
        return str(role)
    if role:
        return "student"
    return "baseline" if name in LONG_NAMES else "student"

"""The block ``statistics`` of an evaluation: means, comparisons, non-inferiority, worst rows.

Patients are the unit throughout (``patients``); the numbers come from ``intervals``. Which
comparisons there are is fixed here, before any result is seen: every model and every other tool
against the reference, every student against every teacher (projected onto the scan or not, but
alike), and, described without a test, every model and other tool against the other baselines, and
every projected model against itself as it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any, Literal

from medsr.evaluate.metrics.catalogue import describe
from medsr.evaluate.results.intervals import (
    FEWEST,
    bootstrap_interval,
    cautious_interval,
    holm,
    rank_biserial,
    sign_flip_p,
)
from medsr.evaluate.results.patients import (
    Better,
    Row,
    Scores,
    differences,
    over_patients,
    scores,
    tidy,
)

CONFIDENCE = 0.95
RESAMPLES = 9999
SEED = 20240917
WORST_ROWS = 5
TESTED = (
    "psnr",
    "ssim",
    "mae",
    "hfen",
    "psnr@edges",
    "resolution_z_mm",
    "edge_width_z_mm",
    "consistency_rmse",
    "dice@*",
)
"""Metrics that get p values; ``*`` stands for every region. The primary metric always does."""

_EFFECT = "matched-pairs rank-biserial correlation, above 0 where the method is better"
_NONE = Scores({}, 0)
# Below this a patient's difference is rounding.
_EQUAL = 1e-9


@dataclass(frozen=True)
class _Pair:
    """A comparison: two methods, and the family it is corrected in."""

    method: str
    against: str
    family: Literal["reference", "teacher", "described"]


@dataclass(frozen=True)
class _Analysis:
    """Rows with the settings; one method a part of the block."""

    roles: Mapping[str, str]
    projects: Mapping[str, str]
    reference: str
    primary: str
    margin: float
    confidence: float
    resamples: int
    seed: int
    tested: tuple[str, ...]
    names: tuple[str, ...]
    table: Mapping[tuple[str, str], Scores]

    @property
    def bootstrap(self) -> dict[str, Any]:
        """Arguments of every interval."""
        return {"confidence": self.confidence, "resamples": self.resamples, "seed": self.seed}

    def is_tested(self, metric: str) -> bool:
        """Whether p values are given for a metric."""
        base = metric.partition("@")[0]
        return metric == self.primary or metric in self.tested or f"{base}@*" in self.tested

    def with_role(self, *roles: str) -> list[str]:
        """Methods of these roles that have rows, in order."""
        return [method for method, role in self.roles.items() if role in roles]

    def pairs(self) -> Iterator[_Pair]:
        """All comparisons, fixed by roles alone."""
        if self.reference in self.roles:
            for method in self.with_role("student", "teacher", "external"):
                if method != self.reference:
                    yield _Pair(method, self.reference, "reference")
        for student in self.with_role("student"):
            for teacher in self.with_role("teacher"):
                if (student in self.projects) == (teacher in self.projects):
                    yield _Pair(student, teacher, "teacher")
        for method in self.with_role("student", "teacher", "external"):
            for baseline in self.with_role("baseline"):
                if self.reference not in (method, baseline):
                    yield _Pair(method, baseline, "described")
        for method, plain in self.projects.items():
            if method in self.roles and plain in self.roles:
                yield _Pair(method, plain, "described")

    def metrics(self) -> tuple[str, ...]:
        """Metrics that occur, the primary one first."""
        return tuple(sorted(self.names, key=lambda name: name != self.primary))

    def means(self) -> dict[str, dict[str, Any]]:
        """Mean with interval over patients, by method and metric."""
        return {
            method: {
                metric: self._mean(self._scores(method, metric))
                for metric in self.metrics()
                if self._scores(method, metric).by_place
            }
            for method in self.roles
        }

    def _scores(self, method: str, metric: str) -> Scores:
        """Numbers of a method; none where no row names the metric."""
        return self.table.get((method, metric), _NONE)

    def _mean(self, found: Scores) -> dict[str, Any]:
        values = list(over_patients(found.by_place).values())
        low, high = bootstrap_interval(values, **self.bootstrap) or (None, None)
        return {
            "mean": fmean(values),
            "low": low,
            "high": high,
            "patients": len(values),
            "median": median(values),
            "min": min(values),
            "max": max(values),
            "dropped": found.dropped,
        }

    def comparisons(self) -> list[dict[str, Any]]:
        """All pairs and metrics; corrected among the pairs of a family, each metric apart."""
        entries = []
        families: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for metric in self.metrics():
            for pair in self.pairs():
                if pair.family == "described" and not self.is_tested(metric):
                    continue
                entry = self._compare(pair, metric)
                if entry is None:
                    continue
                entries.append(entry)
                if entry["p"] is not None:
                    families.setdefault((metric, pair.family), []).append(entry)
        for family in families.values():
            for entry, p in zip(family, holm([e["p"] for e in family]), strict=True):
                entry["p_corrected"] = p
        return entries

    def _compare(self, pair: _Pair, metric: str) -> dict[str, Any] | None:
        better = describe(metric).better
        gaps = self._gaps(pair, metric, better)
        if not gaps:
            return None
        gains = [_gain(gap, better) for gap in gaps]
        low, high = bootstrap_interval(gaps, **self.bootstrap) or (None, None)
        p = None
        if self.is_tested(metric) and pair.family != "described":
            p = sign_flip_p(gaps, resamples=self.resamples, seed=self.seed)
        return {
            "method": pair.method,
            "against": pair.against,
            "metric": metric,
            "patients": len(gaps),
            "difference": fmean(gaps),
            "low": low,
            "high": high,
            "p": p,
            "p_corrected": None,
            "effect": rank_biserial(gains),
            "effect_name": _EFFECT,
            "better": sum(gain > 0 for gain in gains),
            "worse": sum(gain < 0 for gain in gains),
            "equal": sum(gain == 0 for gain in gains),
        }

    def _gaps(self, pair: _Pair, metric: str, better: Better) -> list[float]:
        """One difference a patient."""
        ours, theirs = self._scores(pair.method, metric), self._scores(pair.against, metric)
        return list(over_patients(differences(ours, theirs, better)).values())

    def non_inferiority(self) -> list[dict[str, Any]]:
        """Every student against every teacher by the primary metric."""
        better = describe(self.primary).better
        verdicts = []
        for pair in self.pairs():
            gaps = self._gaps(pair, self.primary, better) if pair.family == "teacher" else []
            if not gaps:
                continue
            ends = cautious_interval(gaps, **self.bootstrap)
            # The end towards which the student is worse.
            worst = None if ends is None else min(_gain(end, better) for end in ends)
            verdicts.append(
                {
                    "method": pair.method,
                    "against": pair.against,
                    "metric": self.primary,
                    "patients": len(gaps),
                    "margin": self.margin,
                    "difference": fmean(gaps),
                    "low": None if ends is None else ends[0],
                    "high": None if ends is None else ends[1],
                    "non_inferior": None if worst is None else worst > -self.margin,
                }
            )
        return verdicts

    def per_patient(self) -> dict[str, dict[str, dict[str, float]]]:
        """Every patient's number by method and metric."""
        by_method: dict[str, dict[str, dict[str, float]]] = {method: {} for method in self.roles}
        for (method, metric), its in self.table.items():
            for patient, value in over_patients(its.by_place).items():
                by_method[method].setdefault(patient, {})[metric] = value
        return by_method

    def worst(self) -> list[dict[str, Any]]:
        """Of every model and other tool the rows that gain least over the reference."""
        better = describe(self.primary).better
        worst_rows = []
        for pair in self.pairs():
            if pair.family != "reference":
                continue
            ours = self._scores(pair.method, self.primary)
            theirs = self._scores(pair.against, self.primary)
            gaps = differences(ours, theirs, better)
            for place in sorted(gaps, key=lambda one: _gain(gaps[one], better))[:WORST_ROWS]:
                patient, scan, axis = place
                worst_rows.append(
                    {
                        "method": pair.method,
                        "metric": self.primary,
                        "patient_id": patient,
                        "scan_id": scan,
                        "axis": axis,
                        "value": ours.by_place[place],
                        "gain": _gain(gaps[place], better),
                    }
                )
        return worst_rows

    def settings(self) -> dict[str, Any]:
        """What was done, in words."""
        return {
            "confidence": self.confidence,
            "resamples": self.resamples,
            "seed": self.seed,
            "interval": f"BCa bootstrap over patients; none below {FEWEST} patients",
            "test": "two-sided sign-flip permutation of the patients' mean difference, exact up "
            f"to {self.resamples.bit_length() - 1} patients; n patients give no p below 2/2^n; "
            f"none below {FEWEST} patients",
            "correction": "Holm over the methods compared with the reference, and over the pairs "
            "of student and teacher; each metric apart, so that only the primary metric confirms; "
            "against other baselines nothing is tested",
            "reference": self.reference,
            "primary": self.primary,
            "tested": [metric for metric in self.metrics() if self.is_tested(metric)],
            "effect": _EFFECT,
            "difference": "method minus against, where both have a number; of a metric that "
            "should be near zero, of the magnitudes",
            "non_inferiority": "the wider of the BCa bootstrap and Student's t at either end; "
            "non-inferior where the whole interval is better than minus the margin",
            "margin": self.margin,
        }


def analyse(
    cases: Sequence[Row],
    methods: Mapping[str, Mapping[str, Any]],
    *,
    reference: str = "bspline",
    primary: str = "psnr",
    margin: float = 0.1,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    tested: Sequence[str] = TESTED,
) -> dict[str, Any]:
    """Say what the rows tell about patients.

    Args:
        cases: One row a scan, axis and method.
        methods: Their ``role`` by name: ``baseline``, ``student``, ``teacher`` or ``external``;
            a method without one counts as external. One whose result was projected onto the scan
            names the method as it was in ``projects``.
        reference: What every model and other tool is compared with.
        primary: The metric that decides.
        margin: How much worse than its teacher a student may be and still count as non-inferior,
            in the unit of ``primary``; from 0.
        confidence: Level of all two-sided intervals.
        resamples: Of bootstrap and, where it is not exact, of the test.
        seed: Of both.
        tested: Metrics that get p values besides ``primary``; ``dice@*`` takes every region.

    Returns:
        ``settings``, ``patients``, ``means``, ``comparisons``, ``non_inferiority``,
        ``per_patient`` and ``worst`` as plain data; every number is finite or None.

    Raises:
        ValueError: Margin or confidence make no sense.
        MissingExtraError: statsmodels is not installed.

    Examples:
        >>> from medsr.evaluate.results import CaseResult
        >>> from medsr.evaluate.results.statistics import analyse
        >>> methods = {"bspline": {"role": "baseline"}, "ours": {"role": "student"}}
        >>> cases = [
        ...     CaseResult(f"p{n}", f"s{n}", "z", method, {"psnr": 30 + n / 10 + gain}, seconds=1.0)
        ...     for n in range(6)
        ...     for method, gain in (("bspline", 0.0), ("ours", 2.0))
        ... ]
        >>> found = analyse(cases, methods)
        >>> (gain,) = found["comparisons"]
        >>> gain["against"], gain["patients"], round(gain["difference"], 3), round(gain["p"], 3)
        ('bspline', 6, 2.0, 0.031)
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; it lies between 0 and 1")
    if not margin >= 0:
        raise ValueError(f"margin is {margin}; it is a number from 0")
    table = tidy(cases)
    analysis = _Analysis(
        roles={
            name: str(methods.get(name, {}).get("role", "external"))
            for name in table["method"].unique()
        },
        projects={
            name: str(about["projects"]) for name, about in methods.items() if "projects" in about
        },
        reference=reference,
        primary=primary,
        margin=margin,
        confidence=confidence,
        resamples=resamples,
        seed=seed,
        tested=tuple(tested),
        names=tuple(table["metric"].unique()),
        table=scores(table),
    )
    return {
        "settings": analysis.settings(),
        "patients": int(table["patient_id"].nunique()),
        "means": analysis.means(),
        "comparisons": analysis.comparisons(),
        "non_inferiority": analysis.non_inferiority(),
        "per_patient": analysis.per_patient(),
        "worst": analysis.worst(),
    }


def _gain(difference: float, better: Better) -> float:
    """How much better the method is, above 0, where rounding counts for nothing."""
    if abs(difference) < _EQUAL:
        return 0.0
    return difference if better == "higher" else -difference

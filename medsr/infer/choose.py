"""Which grid a scan is brought to, and which model brings it there.

Everything here reasons about spacings and specs; no voxel is touched and no torch imported. All
triples are in canonical order: the two in-plane axes, then the slice axis (``medsr.infer.prepare``
permutes scans into it).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from medsr.errors import OutOfScopeError, UsageError
from medsr.geometry import Geometry
from medsr.model import ModelSpec
from medsr.types import FloatTriple
from medsr.volume import Modality

FAR = 1.5
"""A spacing is far outside a trained range beyond this factor of its ends."""

ALMOST = 0.05
"""Ratios closer than this (relative) count as equal: headers round their spacings."""


@dataclass(frozen=True)
class Target:
    """The grid asked for, and how a message calls it.

    Args:
        geometry: The wanted grid in canonical order; None asks for the model's own factor.
        ratio: Wanted voxels per input voxel and axis; None with ``geometry``.
    """

    geometry: Geometry | None
    ratio: FloatTriple | None


def in_plane_spacing(geometry: Geometry) -> float:
    """Mean of the two in-plane spacings, mm."""
    return (geometry.spacing[0] + geometry.spacing[1]) / 2


def has_thick_slices(geometry: Geometry) -> bool:
    """Whether the voxels are clearly longer along the slice axis than within the plane."""
    return geometry.slice_axis() == 2


def shape_of_voxels(geometry: Geometry) -> str:
    """Say why there is no slice axis to refine, for a message."""
    if max(geometry.spacing) <= min(geometry.spacing) * 1.1:
        return f"already isotropic ({_mm(geometry.spacing)} mm)"
    return f"without one thick slice axis ({_mm(geometry.spacing)} mm)"


def find_target(
    geometry: Geometry, *, spacing: str | Sequence[float] | None, scale: Sequence[float] | None
) -> Target:
    """Turn the options into a grid.

    Args:
        geometry: The scan's grid in canonical order.
        spacing: ``"iso"``, three spacings in mm in canonical order, or None for the model's own
            factor. Ignored at ``"iso"`` when ``scale`` is given.
        scale: Factors in canonical order.

    Returns:
        The target. ``"iso"`` on a scan whose slices are not thick leaves it to the model.

    Raises:
        UsageError: Both options, or values that are not three positive numbers, or a grid that is
            nowhere finer than the scan.
    """
    if scale is not None:
        if spacing is not None and not isinstance(spacing, str):
            raise UsageError("both spacing and scale are given; give one of them")
        ratio = positive_triple(scale, "scale")
    elif isinstance(spacing, str):
        if spacing != "iso":
            raise UsageError(f"spacing {spacing!r} is unknown; use 'iso' or three numbers in mm")
        if not has_thick_slices(geometry):
            return Target(None, None)
        ratio = (1.0, 1.0, geometry.spacing[2] / in_plane_spacing(geometry))
    elif spacing is not None:
        wanted = positive_triple(spacing, "spacing")
        x, y, z = (old / new for old, new in zip(geometry.spacing, wanted, strict=True))
        ratio = (x, y, z)
    else:
        return Target(None, None)
    if max(ratio) <= 1 + ALMOST:
        error = UsageError(
            f"the grid asked for is nowhere finer than the scan's {_mm(geometry.spacing)} mm; "
            "there is nothing to restore"
        )
        error.nothing_to_do = scale is None  # of factors, it is so for every scan
        raise error
    return Target(geometry.refine(ratio), ratio)


def choose(
    specs: Sequence[ModelSpec], geometry: Geometry, modality: Modality, target: Target
) -> ModelSpec:
    """Choose the best-fitting student for a scan.

    Args:
        specs: The models to choose from.
        geometry: The scan's grid in canonical order.
        modality: The scan's modality.
        target: The grid asked for.

    Returns:
        Among the students of this modality that refine the axes asked for and were trained on such
        scans, the one with the smallest factor that reaches the target, else the largest factor.

    Raises:
        OutOfScopeError: None fits; the message says why and what can be done.
    """
    advice = "name one with --model to run it all the same"
    students = [s for s in specs if s.role == "student" and modality in s.modalities]
    if not students:
        shipped = ", ".join(s.name for s in specs) or "none"
        raise OutOfScopeError(f"no shipped model is for {modality} (shipped: {shipped}); {advice}")
    if target.ratio is None:
        error = OutOfScopeError(
            f"the scan is {shape_of_voxels(geometry)}; "
            "ask for a finer grid with --scale or --spacing, or name a model with --model"
        )
        error.nothing_to_do = True
        raise error
    ratio = target.ratio
    axes = _refined_axes(ratio)
    fitting = [s for s in students if _refined_axes(s.scale) == axes]
    if not fitting:
        available = ", ".join(f"{s.name} {_factor(s.scale)}" for s in students)
        raise OutOfScopeError(
            f"no shipped {modality} model refines by {_factor(ratio)} "
            f"(in-plane, in-plane, slice); there are {available}; {advice}"
        )
    problems = {spec.name: misfits(spec, geometry, modality) for spec in fitting}
    suited = [spec for spec in fitting if not problems[spec.name]]
    if not suited:
        name, reasons = next(iter(problems.items()))
        raise OutOfScopeError(f"{name} was not trained for this scan: {reasons[0]}; {advice}")

    def order(spec: ModelSpec) -> tuple[bool, float]:
        reach = math.prod(spec.scale) / math.prod(ratio)
        falls_short = reach < 1 - ALMOST
        return (falls_short, -reach if falls_short else reach)

    return min(suited, key=order)


def misfits(spec: ModelSpec, geometry: Geometry, modality: Modality) -> list[str]:
    """Say in what kind a scan differs from those that a model was trained on.

    Args:
        spec: The model.
        geometry: The scan's grid in canonical order.
        modality: The scan's modality.

    Returns:
        Reasons, each a clause; empty when the model suits the scan. A slice spacing outside the
        trained range is no reason for a through-plane model: the factor tells of it.
    """
    reasons = []
    if modality not in spec.modalities:
        served = " and ".join(spec.modalities)
        reasons.append(f"the scan is {modality} and the model is for {served}")
    trained = spec.trained_spacing_mm
    for label, spacing, (low, high) in (
        ("in-plane", min(geometry.spacing[:2]), trained.in_plane),
        ("in-plane", max(geometry.spacing[:2]), trained.in_plane),
        ("slice", geometry.spacing[2], trained.slice),
    ):
        if label == "slice" and spec.scale[:2] == (1, 1):
            continue
        if not low / FAR <= spacing <= high * FAR:
            reason = (
                f"its {label} spacing of {spacing:.3g} mm is far from the "
                f"{low:.3g} to {high:.3g} mm of training"
            )
            if reason not in reasons:
                reasons.append(reason)
    if spec.scale[:2] == (1, 1) and not has_thick_slices(geometry):
        reasons.append(f"it is {shape_of_voxels(geometry)} and the model is for thick slices")
    return reasons


def hazards(spec: ModelSpec) -> list[str]:
    """Say what the way in which a model was trained can do to any scan.

    Args:
        spec: The model.

    Returns:
        Sentences without a full stop; empty for a model that was trained without an adversary.
    """
    recipe = spec.training.get("recipe") or {}
    for term in recipe.get("terms") or []:
        if term.get("name") == "adversarial" or (term.get("options") or {}).get("adversarial"):
            return [
                f"{spec.name} was trained to fool a discriminator: fine texture may be invented, "
                "look real and not be in the patient"
            ]
    return []


def settle(target: Target, spec: ModelSpec, geometry: Geometry) -> tuple[Geometry, list[str]]:
    """Fix the grid of the result, once the model is known.

    Args:
        target: The grid asked for.
        spec: The model.
        geometry: The scan's grid in canonical order.

    Returns:
        The grid in canonical order, and a warning where interpolation must go beyond the model.
    """
    if target.geometry is None or target.ratio is None:
        return geometry.refine(spec.scale), []
    if not any(
        wanted > factor * (1 + ALMOST)
        for wanted, factor in zip(target.ratio, spec.scale, strict=True)
    ):
        return target.geometry, []
    warning = (
        f"the grid asked for refines by {_factor(target.ratio)} and {spec.name} by "
        f"{_factor(spec.scale)}; the rest is interpolated and adds no detail"
    )
    return target.geometry, [warning]


def named_target(target: Target, spec: ModelSpec, *, default: bool) -> Target:
    """Let a model named by the user bring its own factor where no grid was asked for.

    Args:
        target: What :func:`find_target` made of the options.
        spec: The model that the user named.
        default: Whether spacing and scale were left at their defaults.

    Returns:
        ``target``, or the model's own factor where the default (thick slices made as fine as the
        plane) is not what this model does.
    """
    if default and spec.scale[:2] != (1, 1):
        return Target(None, None)
    return target


def positive_triple(values: Sequence[float], what: str) -> FloatTriple:
    """Return three positive numbers, whatever kind of sequence holds them.

    Args:
        values: What the user gave.
        what: Name of the option, for the message.

    Raises:
        UsageError: They are anything else.
    """
    try:
        x, y, z = (float(value) for value in values)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{what} {values!r} must be three numbers") from error
    if not all(math.isfinite(value) and value > 0 for value in (x, y, z)):
        raise UsageError(f"{what} {values!r} must be three positive numbers")
    return (x, y, z)


def _refined_axes(ratio: Sequence[float]) -> tuple[bool, ...]:
    return tuple(value > 1 + ALMOST for value in ratio)


def _mm(spacing: Sequence[float]) -> str:
    return " x ".join(f"{value:.3g}" for value in spacing)


def _factor(ratio: Sequence[float]) -> str:
    return " x ".join(f"{value:.3g}" for value in ratio)

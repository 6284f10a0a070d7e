"""A picture of one run: three orthogonal planes as acquired, by cubic B-spline, and by medsr.

Planes are shown in radiological orientation (patient's right on the left, anterior and superior
up) with true proportions in millimetres. Drawn with Pillow; nothing here computes a result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from medsr.geometry import Geometry
from medsr.infer.resample import apply_rows, operator
from medsr.io.survey import sample_step
from medsr.types import Float32Array
from medsr.volume import Modality, Volume

PANEL_PIXELS = 420
"""Longest side of a panel."""

CT_WINDOW_HU = (-1000.0, 600.0)
"""From air to soft bone; padding outside the field of view would spoil percentiles."""

_GAP = 10
_HEADER = 54
_MARGIN = 30
_BACKGROUND = (14, 15, 18)
_TITLE = (236, 238, 242)
_SUBTITLE = (150, 156, 168)
# Axis that the plane stands on, once the axes run to the right, to the front and up.
_PLANES = (("coronal", 1), ("sagittal", 0), ("axial", 2))


@dataclass(frozen=True)
class View:
    """What of a scan is shown.

    Args:
        low: Native value shown black.
        high: Native value shown white.
        centre: Where the planes cross, as a fraction of the extent per array axis.
    """

    low: float
    high: float
    centre: tuple[float, float, float]


def choose_view(sample: NDArray[Any], modality: Modality | None) -> View:
    """Choose grey values and planes by a coarse sample of the scan, in its axes."""
    low, high = _window(sample, modality)
    return View(low, high, _centre_of_interest(sample, low, high))


class Preview:
    """Collects the planes that a picture shows, from planes along the last axis, and draws them.

    Args:
        before: Grid of the scan as acquired.
        after: The finer grid over the same extent, axes in the same order.
        view: What is shown.
    """

    def __init__(self, before: Geometry, after: Geometry, view: View) -> None:
        self._before, self._after, self._view = before, after, view
        self._at = tuple(int(c * n) for c, n in zip(view.centre, before.shape, strict=True))
        self._fine_at = tuple(int(c * n) for c, n in zip(view.centre, after.shape, strict=True))
        shapes = zip(before.shape, after.shape, strict=True)
        self._rows = [operator(old, new) for old, new in shapes]
        # For each axis that a plane stands on: parts of it along the last axis, or the plane.
        self._acquired: list[list[Float32Array]] = [[], [], []]
        self._splined: list[list[Float32Array]] = [[], [], []]
        self._refined: list[list[Float32Array]] = [[], [], []]

    def add_before(self, start: int, planes: NDArray[Any]) -> None:
        """Look at planes of the scan, ``start`` being the place of the first."""
        _keep(self._acquired, start, planes, self._at)
        for axis in range(3):
            weights = self._rows[axis][self._fine_at[axis]]
            if axis == 2:
                weights = weights[start : start + planes.shape[2]]
            part = np.tensordot(planes.astype(np.float32, copy=False), weights, axes=(axis, 0))
            if axis == 2 and self._splined[axis]:
                self._splined[axis][0] += part
            else:
                self._splined[axis].append(part)

    def add_after(self, start: int, planes: NDArray[Any]) -> None:
        """Look at planes of the result, ``start`` being the place of the first."""
        _keep(self._refined, start, planes, self._fine_at)

    def draw(self, *, method: str) -> Image.Image:
        """Draw the picture, once all planes were added.

        Args:
            method: What the last column is called, for example the model's name.
        """
        extent = self._before.extent_mm
        pixels_per_mm = PANEL_PIXELS / max(extent)
        coarse, fine = _spacing(self._before), _spacing(self._after)
        titles = (("as acquired", coarse), ("cubic B-spline", fine), (method, fine))
        codes = self._before.axcodes
        order = [next(i for i, c in enumerate(codes) if c in pair) for pair in ("RL", "AP", "SI")]
        rows: list[list[Image.Image]] = []
        for _, standing in _PLANES:
            axis = order[standing]
            i, j = (order[k] for k in range(3) if k != standing)
            size = (round(extent[i] * pixels_per_mm), round(extent[j] * pixels_per_mm))
            planes = (
                (_whole(self._acquired[axis]), Image.Resampling.NEAREST),
                (self._spline(axis), Image.Resampling.BICUBIC),
                (_whole(self._refined[axis]), Image.Resampling.BICUBIC),
            )
            low, high = self._view.low, self._view.high
            rows.append(
                [_panel(_turned(p, (i, j), codes), low, high, size, how) for p, how in planes]
            )
        return _compose(rows, titles)

    def _spline(self, axis: int) -> Float32Array:
        """The plane of the finer grid by cubic B-spline."""
        plane = np.expand_dims(_whole(self._splined[axis]), axis)
        return np.squeeze(
            apply_rows(plane, [None if k == axis else self._rows[k] for k in range(3)]), axis=axis
        )


def draw_preview(before: Volume, after: Volume, *, method: str) -> Image.Image:
    """Draw the picture of volumes in memory.

    Args:
        before: The scan as acquired.
        after: The result on a finer grid over the same extent, axes in the same order.
        method: What the last column is called, for example the model's name.
    """
    step = sample_step(before.shape)
    view = choose_view(before.data[::step, ::step, ::step], before.modality)
    preview = Preview(before.geometry, after.geometry, view)
    preview.add_before(0, before.data)
    preview.add_after(0, after.data)
    return preview.draw(method=method)


def _keep(
    kept: list[list[Float32Array]], start: int, planes: NDArray[Any], at: tuple[int, ...]
) -> None:
    """Keep what lies in the three planes at ``at``."""
    for axis in (0, 1):
        kept[axis].append(np.take(planes, at[axis], axis).astype(np.float32))
    if start <= at[2] < start + planes.shape[2]:
        kept[2].append(planes[:, :, at[2] - start].astype(np.float32))


def _whole(parts: list[Float32Array]) -> Float32Array:
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def _turned(
    plane: Float32Array, axes: tuple[int, int], codes: tuple[str, str, str]
) -> Float32Array:
    """A plane that holds array ``axes``, in this order and towards right, anterior, superior."""
    turned = plane if axes[0] < axes[1] else plane.T
    return np.flip(turned, tuple(k for k, axis in enumerate(axes) if codes[axis] in "LPI"))


def _compose(rows: list[list[Image.Image]], titles: tuple[tuple[str, str], ...]) -> Image.Image:
    """Lay the panels out under their titles."""
    width = max(panel.width for row in rows for panel in row)
    heights = [row[0].height for row in rows]
    canvas = Image.new(
        "RGB",
        (_MARGIN + 3 * width + 4 * _GAP, _HEADER + sum(heights) + _GAP * (len(rows) + 1)),
        _BACKGROUND,
    )
    draw = ImageDraw.Draw(canvas)
    for column, (title, subtitle) in enumerate(titles):
        x = _MARGIN + _GAP + column * (width + _GAP)
        draw.text((x, 10), title, fill=_TITLE, font=ImageFont.load_default(17))
        draw.text((x, 33), subtitle, fill=_SUBTITLE, font=ImageFont.load_default(13))
    y = _HEADER
    for (name, _), row, height in zip(_PLANES, rows, heights, strict=True):
        canvas.paste(_upright_label(name, height), (6, y))
        for column, panel in enumerate(row):
            x = _MARGIN + _GAP + column * (width + _GAP) + (width - panel.width) // 2
            canvas.paste(panel, (x, y))
        y += height + _GAP
    return canvas


def _window(sample: NDArray[Any], modality: Modality | None) -> tuple[float, float]:
    """Grey window: fixed for CT, else from percentiles; never empty."""
    if modality == "CT":
        return CT_WINDOW_HU
    low, high = np.percentile(sample, (0.5, 99.7))
    return float(low), float(high) if high > low else float(low) + 1.0


def _centre_of_interest(data: NDArray[Any], low: float, high: float) -> tuple[float, float, float]:
    """Middle of the bright part, as a fraction of the extent in (0, 1) per axis."""
    bright = data > low + 0.2 * (high - low)
    x, y, z = (_median_position(bright, axis) for axis in range(3))
    return (x, y, z)


def _median_position(mask: NDArray[np.bool_], axis: int) -> float:
    counts = mask.sum(axis=tuple(k for k in range(3) if k != axis)).astype(np.float64)
    if counts.sum() == 0:
        return 0.5
    middle = int(np.searchsorted(np.cumsum(counts), counts.sum() / 2))
    return (middle + 0.5) / len(counts)


def _panel(
    plane: NDArray[Any], low: float, high: float, size: tuple[int, int], how: Image.Resampling
) -> Image.Image:
    """One plane in grey at its physical proportions, both of its axes turned for display."""
    grey = np.clip((plane.astype(np.float32) - low) / (high - low), 0.0, 1.0)
    turned = np.ascontiguousarray((255.0 * grey[::-1, ::-1].T).round().astype(np.uint8))
    return Image.fromarray(turned).resize((max(size[0], 1), max(size[1], 1)), how).convert("RGB")


def _upright_label(text: str, height: int) -> Image.Image:
    label = Image.new("RGB", (height, 20), _BACKGROUND)
    font = ImageFont.load_default(13)
    draw = ImageDraw.Draw(label)
    left = (height - draw.textlength(text, font=font)) / 2
    draw.text((left, 2), text, fill=_SUBTITLE, font=font)
    return label.rotate(90, expand=True)


def _spacing(geometry: Geometry) -> str:
    return " x ".join(f"{value:.3g}" for value in geometry.spacing) + " mm"

"""A picture of one run: three orthogonal planes as acquired, by cubic B-spline, and by medsr.

Planes are shown in radiological orientation (patient's right on the left, anterior and superior
up) with true proportions in millimetres. Drawn with Pillow; nothing here computes a result.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from medsr.geometry import Geometry
from medsr.infer.resample import resample_plane
from medsr.volume import Volume

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


def draw_preview(before: Volume, after: Volume, *, method: str) -> Image.Image:
    """Draw the picture.

    Args:
        before: The scan as acquired.
        after: The result on a finer grid over the same extent, axes in the same order.
        method: What the last column is called, for example the model's name.
    """
    before, after = _to_ras(before), _to_ras(after)
    low, high = _window(before)
    centre = _centre_of_interest(before.data, low, high)
    extent = before.geometry.extent_mm
    pixels_per_mm = PANEL_PIXELS / max(extent)
    coarse, fine = _spacing(before.geometry), _spacing(after.geometry)
    titles = (("as acquired", coarse), ("cubic B-spline", fine), (method, fine))

    rows: list[list[Image.Image]] = []
    for _, axis in _PLANES:
        i, j = (k for k in range(3) if k != axis)
        size = (round(extent[i] * pixels_per_mm), round(extent[j] * pixels_per_mm))
        n, m = before.shape[axis], after.shape[axis]
        at, at_fine = int(centre[axis] * n), int(centre[axis] * m)
        planes = (
            (np.take(before.data, at, axis), Image.Resampling.NEAREST),
            (resample_plane(before.data, after.shape, axis, at_fine), Image.Resampling.BICUBIC),
            (np.take(after.data, at_fine, axis), Image.Resampling.BICUBIC),
        )
        rows.append([_panel(plane, low, high, size, how) for plane, how in planes])

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


def _to_ras(volume: Volume) -> Volume:
    """Order and flip the axes so that they run to the right, to the front and up."""
    codes = volume.geometry.axcodes
    order = [next(i for i, code in enumerate(codes) if code in pair) for pair in ("RL", "AP", "SI")]
    backward = [k for k, i in enumerate(order) if codes[i] in "LPI"]
    turned = volume.permute((order[0], order[1], order[2]))
    return turned.flip(tuple(backward)) if backward else turned


def _window(volume: Volume) -> tuple[float, float]:
    """Grey window: fixed for CT, else from percentiles of every few voxels; never empty."""
    if volume.modality == "CT":
        return CT_WINDOW_HU
    data = volume.data
    step = max(1, round((data.size / 2e6) ** (1 / 3)))
    low, high = np.percentile(data[::step, ::step, ::step], (0.5, 99.7))
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

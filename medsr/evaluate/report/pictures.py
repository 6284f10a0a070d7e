"""Pictures of a case: three planes of every volume side by side, with error maps at one scale.

Planes stand in radiological orientation (patient's right on the left, anterior and superior up)
and in true proportions. Only the display interpolates: the scan at low resolution is shown in its
own voxels, everything on the truth's grid smoothly.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medsr.evaluate.report.cases import Case
from medsr.evaluate.report.reading import ReportData, text
from medsr.volume import Volume

PIXELS = 460
"""Longest side of a picture."""

LUNG_HU = (-1350.0, 150.0)
SOFT_TISSUE_HU = (-160.0, 240.0)

_PLANES = ("axial", "coronal", "sagittal")
# Which canonical axis (right, anterior, superior) each plane stands on.
_STANDING = {"axial": 2, "coronal": 1, "sagittal": 0}
_DIRECTIONS = {"R": "right–left", "A": "front–back", "S": "head–feet"}
# HU of lung, and the share of the volume from which on a CT is shown as a chest.
_LUNG_RANGE_HU = (-950.0, -600.0)
_LUNG_SHARE = 0.1


@dataclass(frozen=True)
class Window:
    """Grey values: what is black, what is white, and what that is called."""

    low: float
    high: float
    words: str


@dataclass(frozen=True)
class Picture:
    """An image in the page.

    Args:
        uri: The image as a data address.
        alt: What it shows.
        width: Pixels.
        height: Pixels.
    """

    uri: str
    alt: str
    width: int
    height: int


@dataclass(frozen=True)
class Column:
    """One volume of a plane: its picture, its error map if it is a result, and what it scored."""

    title: str
    number: int | None
    picture: Picture
    error: Picture | None
    score: str


@dataclass(frozen=True)
class Plane:
    """One plane through all volumes of a case."""

    name: str
    degraded: bool
    columns: tuple[Column, ...]


@dataclass(frozen=True)
class CasePictures:
    """Everything that is shown of a case.

    Args:
        case: The case.
        window: Grey values.
        planes: Axial, coronal, sagittal; that in the plane of the slices comes last.
        error_high: Absolute error at the bright end of the error maps, native units.
        ramp: Colours of the error maps from none to ``error_high``, as CSS.
        direction: Along which direction of the body the scan was degraded.
        consistency: Maps of what the result misses of its own scan; empty where not computed.
        consistency_high: The bright end of those maps, native units.
        at_mm: Where the planes cross, RAS+ mm.
    """

    case: Case
    window: Window
    planes: tuple[Plane, ...]
    error_high: float
    ramp: str
    direction: str
    consistency: tuple[Picture, ...]
    consistency_high: float
    at_mm: tuple[float, float, float]


def draw_case(case: Case, of: ReportData) -> CasePictures:
    """Draw a case.

    Args:
        case: Volumes in native units.
        of: The evaluation, for names and scores.
    """
    truth = canonical(case.truth)
    results = {name: canonical(volume) for name, volume in case.results.items()}
    errors = {name: np.abs(v.data - truth.data.astype(np.float32)) for name, v in results.items()}
    reference = errors.get(of.reference)
    if reference is None:
        reference = next(iter(errors.values()), np.zeros(truth.shape, np.float32))
    window = choose_window(case.truth)
    high = float(np.percentile(reference[reference > 0], 99)) if reference.any() else 1.0
    centre = _centre(reference)
    scores = _scores(case, of)
    direction = case.truth.geometry.axcodes[2] if case.axis != "xyz" else ""
    standing = {"L": 0, "R": 0, "P": 1, "A": 1, "I": 2, "S": 2}
    planes = []
    for name in _PLANES:
        axis = _STANDING[name]
        shown = _Shown(name, axis, centre, truth, case, of, window, high)
        thick = canonical(case.lr)
        acquired = _spacing(thick)
        columns = [shown.column(thick, "low resolution", None, None, acquired, sharp=True)]
        for method in (m for m in of.methods if m.name in results):
            columns.append(
                shown.column(
                    results[method.name],
                    method.title,
                    method.number,
                    errors[method.name],
                    scores.get(method.name, ""),
                )
            )
        columns.append(shown.column(truth, "truth", None, None, _spacing(truth)))
        degraded = not direction or standing[direction] != axis
        planes.append(Plane(name, degraded, tuple(columns)))
    planes.sort(key=lambda plane: not plane.degraded)  # what was restored is seen first
    maps, reach = _consistency(case, centre)
    return CasePictures(
        case=case,
        window=window,
        planes=tuple(planes),
        error_high=high,
        ramp=_ramp_css(),
        direction=_DIRECTIONS[{"L": "R", "P": "A", "I": "S"}.get(direction, direction)]
        if direction
        else "all directions",
        consistency=maps,
        consistency_high=reach,
        at_mm=_at_mm(truth, centre),
    )


def canonical(volume: Volume) -> Volume:
    """Let the array axes run to the right, to the front and up, as nearly as they can."""
    codes = volume.geometry.axcodes
    order = [next(i for i, code in enumerate(codes) if code in pair) for pair in ("RL", "AP", "SI")]
    turned = volume.permute(order)
    flips = [i for i, code in enumerate(turned.geometry.axcodes) if code in "LPI"]
    return turned.flip(flips) if flips else turned


def choose_window(truth: Volume) -> Window:
    """Choose grey values: lung or soft tissue for CT, percentiles of the foreground for MR."""
    data = truth.data
    if truth.modality == "CT":
        lung = ((data > _LUNG_RANGE_HU[0]) & (data < _LUNG_RANGE_HU[1])).mean() > _LUNG_SHARE
        low, high = LUNG_HU if lung else SOFT_TISSUE_HU
        name = "lung window" if lung else "soft-tissue window"
        words = f"{name}, {text(low, 0)} to {text(high, 0)} HU"
        return Window(low, high, words)
    foreground = data[data > 0.02 * float(data.max())]
    # Ringing of an earlier resampling goes below zero and would grey the background.
    low = 0.0 if foreground.size and float(np.median(foreground)) > 0 else float(data.min())
    high = float(np.percentile(foreground, 99.5)) if foreground.size else low + 1.0
    words = f"{text(low, 0)} to {text(high, 0)} in the scan's own units"
    return Window(low, max(high, low + 1e-6), words)


class _Shown:
    """One plane at one place, through whichever volume is asked for."""

    def __init__(
        self,
        name: str,
        axis: int,
        centre: Sequence[float],
        truth: Volume,
        case: Case,
        of: ReportData,
        window: Window,
        high: float,
    ) -> None:
        self._name, self._axis, self._at = name, axis, centre[axis]
        extent = truth.geometry.extent_mm
        across, up = (i for i in range(3) if i != axis)
        scale = PIXELS / max(extent)
        self._size = (max(1, round(extent[across] * scale)), max(1, round(extent[up] * scale)))
        self._case, self._of, self._window, self._high = case, of, window, high

    def column(
        self,
        volume: Volume,
        title: str,
        number: int | None,
        error: NDArray[Any] | None,
        score: str,
        *,
        sharp: bool = False,
    ) -> Column:
        """Cut the volume, and its error if there is one."""
        window = self._window
        grey = _bytes(self._cut(volume.data), window.low, window.high)
        about = f"{self._name} plane of {self._case.scan_id}, axis {self._case.axis}"
        wrong = None
        if error is not None:
            map_of = Image.fromarray(_bytes(self._cut(error), 0.0, self._high))
            wrong = self._picture(map_of, f"Absolute error of {title}, {about}", colours=True)
        scan = self._picture(Image.fromarray(grey), f"{title}, {about}", sharp=sharp)
        return Column(title, number, scan, wrong, score)

    def _cut(self, data: NDArray[Any]) -> NDArray[Any]:
        place = min(int(self._at * data.shape[self._axis]), data.shape[self._axis] - 1)
        return cut(data, self._axis, place)

    def _picture(
        self, image: Image.Image, alt: str, *, sharp: bool = False, colours: bool = False
    ) -> Picture:
        how = Image.Resampling.NEAREST if sharp else Image.Resampling.BICUBIC
        image = image.resize(self._size, how)
        if colours:
            image.putpalette(_ramp().tobytes(), "RGB")
        return Picture(data_uri(image), alt, *self._size)


def cut(data: NDArray[Any], axis: int, place: int) -> NDArray[Any]:
    """Cut a plane of canonical data, first row on top, the patient's right on the left."""
    plane = np.take(data, place, axis=axis)
    # Rows run up (superior or anterior), columns to the patient's left or back.
    return np.ascontiguousarray(plane.T[::-1, ::-1])


def data_uri(image: Image.Image) -> str:
    """Return an image as a PNG in a data address."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _scores(case: Case, of: ReportData) -> dict[str, str]:
    """The primary metric of each method for this case, as text."""
    info = of.info(of.primary)
    return {
        str(row["method"]): f"{text(row.get(of.primary), 1)} {info.unit}".strip()
        for row in of.rows
        if (row.get("scan_id"), row.get("axis")) == (case.scan_id, case.axis)
    }


def _spacing(volume: Volume) -> str:
    return " × ".join(f"{step:.3g}" for step in volume.spacing) + " mm"


def _consistency(case: Case, centre: Sequence[float]) -> tuple[tuple[Picture, ...], float]:
    """Three planes of the consistency map, at a scale of their own."""
    if case.consistency is None:
        return (), 0.0
    residual = canonical(case.consistency)
    size = np.abs(residual.data.astype(np.float32))
    high = max(float(np.percentile(size, 99.5)), 1e-6)
    extent = residual.geometry.extent_mm
    pictures = []
    for name in _PLANES:
        axis = _STANDING[name]
        across, up = (i for i in range(3) if i != axis)
        place = min(int(centre[axis] * size.shape[axis]), size.shape[axis] - 1)
        image = Image.fromarray(_bytes(cut(size, axis, place), 0.0, high))
        scale = PIXELS / max(extent)
        wanted = (max(1, round(extent[across] * scale)), max(1, round(extent[up] * scale)))
        image = image.resize(wanted, Image.Resampling.NEAREST)
        image.putpalette(_ramp().tobytes(), "RGB")
        alt = f"What the result misses of its own scan, {name} plane of {case.scan_id}"
        pictures.append(Picture(data_uri(image), alt, *wanted))
    return tuple(pictures), high


def _centre(error: NDArray[Any]) -> tuple[float, float, float]:
    """Where the reference errs most, as fractions of the extent: the planes go through there."""
    step = tuple(slice(None, None, max(1, n // 96)) for n in error.shape)
    weight = error[step].astype(np.float64)
    if not weight.any():
        return (0.5, 0.5, 0.5)
    place = []
    for axis in range(3):
        along = weight.sum(axis=tuple(i for i in range(3) if i != axis))
        at = (np.arange(along.size) + 0.5) / along.size
        place.append(float((along * at).sum() / along.sum()))
    return (place[0], place[1], place[2])


def _at_mm(truth: Volume, centre: Sequence[float]) -> tuple[float, float, float]:
    """The place of a fraction of the extent, RAS+ mm."""
    voxel = [part * size - 0.5 for part, size in zip(centre, truth.shape, strict=True)]
    x, y, z = (float(value) for value in truth.geometry.voxel_to_world(voxel))
    return (x, y, z)


def _bytes(plane: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    scaled = (plane.astype(np.float32) - low) * (255.0 / (high - low))
    grey: NDArray[np.uint8] = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return grey


def _ramp() -> NDArray[np.uint8]:
    """256 colours from black to white over red, perceptually even."""
    from matplotlib import colormaps

    colours: NDArray[np.uint8] = colormaps["inferno"](np.arange(256), bytes=True)[:, :3]
    return np.ascontiguousarray(colours)


def _ramp_css() -> str:
    stops = ", ".join("rgb({}, {}, {})".format(*_ramp()[n]) for n in (0, 51, 102, 153, 204, 255))
    return f"linear-gradient(to right, {stops})"

"""What the viewer in the page needs: the NiiVue library and the volumes, bounded in size.

NiiVue is taken from an installed package that carries it (nilearn's wheel); where there is none,
the page is written without a viewer and says so. Volumes become gzipped NIfTI whose numbers read in
native units. The page's own code for the viewer is ``templates/viewer.js``.
"""

from __future__ import annotations

import base64
import gzip
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from medsr.evaluate.report.cases import Case
from medsr.evaluate.report.pictures import CasePictures
from medsr.evaluate.report.reading import Method, ReportData
from medsr.hu import BODY_HU
from medsr.volume import Volume

logger = logging.getLogger(__name__)

BUDGET_BYTES = 19_000_000
"""What all volumes of a page may take in it."""

STEPS = 2048
"""Steps of grey that the range of an MR scan is stored in; CT is stored to the HU."""

_CARRIERS = ("nilearn",)
_LIBRARY = re.compile(r"(^|/)niivue(\.umd)?(\.min)?\.js$")
_MOST_RESULTS = 4
# Air that is kept around the body, in voxels.
_MARGIN = 4
_BODY_SHARE = 0.05


@dataclass(frozen=True)
class Library:
    """NiiVue as found: gzipped source in base64, and the package it came from."""

    source: str
    carrier: str


@dataclass(frozen=True)
class Stored:
    """A volume in the page: gzipped NIfTI in base64, under a name of its own."""

    name: str
    data: str


@dataclass(frozen=True)
class ViewerCase:
    """The volumes of a case and, as plain data, how the page shows them."""

    volumes: tuple[Stored, ...]
    settings: dict[str, Any]


def find_library() -> Library | None:
    """Find NiiVue in an installed package.

    Returns:
        The library, or None (with a warning that names the extra) where no package carries it.
    """
    for carrier in _CARRIERS:
        try:
            histogram = distribution(carrier)
        except PackageNotFoundError:
            continue
        for file in histogram.files or ():
            if not _LIBRARY.search(file.as_posix()):
                continue
            path = histogram.locate_file(file)
            try:
                source = path.read_bytes()  # type: ignore[attr-defined]
            except OSError:
                continue
            packed = base64.b64encode(gzip.compress(source, 9, mtime=0)).decode("ascii")
            return Library(packed, f"{carrier} {histogram.version}")
    logger.warning(
        "report: no installed package carries NiiVue, so the page has no interactive viewer; "
        "pip install 'medsr[report]'"
    )
    return None


def store_cases(
    cases: Sequence[Case], pictures: Sequence[CasePictures], of: ReportData
) -> tuple[ViewerCase, ...]:
    """Pack the volumes of all cases, each within its share of the budget.

    Args:
        cases: What is shown.
        pictures: Their pictures, whose grey values and planes the viewer starts with.
        of: The evaluation, for names and units.
    """
    share = BUDGET_BYTES // max(1, len(cases))
    pairs = zip(cases, pictures, strict=True)
    return tuple(_store(n, case, drawn, of, share) for n, (case, drawn) in enumerate(pairs))


def _store(number: int, case: Case, drawn: CasePictures, of: ReportData, budget: int) -> ViewerCase:
    shown = _chosen(case, of)
    start, stop = body_box(case.truth)
    step = _step(case.truth)
    for _ in range(6):
        volumes = {"lr": crop_to(case.lr, case.truth.crop(start, stop))}
        volumes |= {m.name: case.results[m.name].crop(start, stop) for m in shown}
        volumes["truth"] = case.truth.crop(start, stop)
        packed = [pack(volume, step) for volume in volumes.values()]
        size = sum(map(len, packed))
        if size <= budget:
            break
        start, stop = _shrunk(start, stop, 0.97 * (budget / size) ** (1 / 3))
    names = [f"volume-{number}-{place}" for place in range(len(packed))]
    titles = ["low resolution", *(m.title for m in shown), "truth"]
    accents = [None, *(m.number for m in shown), None]
    whole = start == (0, 0, 0) and stop == case.truth.shape
    return ViewerCase(
        volumes=tuple(Stored(name, data) for name, data in zip(names, packed, strict=True)),
        settings={
            "volumes": [
                {"id": name, "title": title, "accent": accent}
                for name, title, accent in zip(names, titles, accents, strict=True)
            ],
            "reference": _place(shown, _rival(case, of)),
            "model": _place(shown, of.lead.name if of.lead else ""),
            "window": [drawn.window.low, drawn.window.high],
            "range": list(_range(case.truth)),
            "unit": "HU" if case.truth.units == "HU" else "",
            "digits": 0 if step >= 0.3 else min(6, int(np.ceil(-np.log10(step)))),
            "at": list(drawn.at_mm),
            "cropped": not whole,
            "step": step,
        },
    )


def _chosen(case: Case, of: ReportData) -> list[Method]:
    """The best rival and what is judged; other baselines would only take room."""
    restored = [method for method in of.methods if method.name in case.results]
    chosen = [method for method in restored if method.learned or method.name == _rival(case, of)]
    return (chosen or restored)[:_MOST_RESULTS]


def _rival(case: Case, of: ReportData) -> str:
    """What the method that the report is about is set against, of what the case holds."""
    best_rival = None if of.lead is None else of.rival(of.lead, of.primary, case.results)
    return of.reference if best_rival is None else best_rival.name


def _place(shown: Sequence[Method], name: str) -> int:
    """Place of a method among the volumes of the viewer, the low resolution being the first."""
    places = [n for n, method in enumerate(shown, start=1) if method.name == name]
    return places[0] if places else len(shown)


def body_box(truth: Volume) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """First and one past the last voxel of the body along each axis, with a margin."""
    level = BODY_HU
    if truth.modality != "CT":
        level = _BODY_SHARE * float(np.percentile(truth.data, 99.5))
    inside = truth.data > level
    start, stop = [], []
    for axis, size in enumerate(truth.shape):
        along = np.flatnonzero(inside.any(axis=tuple(i for i in range(3) if i != axis)))
        first, last = (int(along[0]), int(along[-1])) if along.size else (0, size - 1)
        start.append(max(0, first - _MARGIN))
        stop.append(min(size, last + 1 + _MARGIN))
    return tuple(start), tuple(stop)


def crop_to(volume: Volume, place: Volume) -> Volume:
    """Crop a volume to the voxels that touch another volume's extent."""
    there = volume.geometry.world_to_voxel(place.geometry.corners_mm())
    low = np.floor(there.min(axis=0) + 0.5 + 1e-3).astype(int)
    high = np.ceil(there.max(axis=0) + 0.5 - 1e-3).astype(int)
    size = np.array(volume.shape)
    low = np.clip(low, 0, size - 1)
    high = np.clip(high, low + 1, size)
    return volume.crop(low.tolist(), high.tolist())


def pack(volume: Volume, step: float) -> str:
    """Write a volume as gzipped int16 NIfTI in base64; ``step`` is native units a count."""
    counts = np.rint(np.nan_to_num(volume.data.astype(np.float64)) / step)
    data: NDArray[np.int16] = np.clip(counts, -32768, 32767).astype(np.int16)
    new: Any = nibabel.Nifti1Image
    image = new(data, volume.geometry.affine, dtype=np.int16)
    image.header.set_slope_inter(step, 0.0)
    image.header.set_xyzt_units("mm")
    return base64.b64encode(gzip.compress(image.to_bytes(), 6, mtime=0)).decode("ascii")


def _step(truth: Volume) -> float:
    """How fine values are stored, in native units."""
    if truth.modality == "CT":
        return 1.0
    low, high = float(truth.data.min()), float(truth.data.max())
    return float(f"{max((high - low) / STEPS, 1e-12):.3g}")


def _range(truth: Volume) -> tuple[float, float]:
    """What the sliders for the grey values reach over."""
    if truth.modality == "CT":
        return (-1500.0, 3071.0)
    low, high = float(truth.data.min()), float(np.percentile(truth.data, 99.95))
    return (low, max(high, low + 1.0))


def _shrunk(
    start: Sequence[int], stop: Sequence[int], factor: float
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A box about the same middle, its sides times ``factor``."""
    first, last = [], []
    for low, high in zip(start, stop, strict=True):
        side = max(8, round((high - low) * factor))
        begin = max(0, (low + high - side) // 2)
        first.append(begin)
        last.append(min(high, begin + side))
    return tuple(first), tuple(last)

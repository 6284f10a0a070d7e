"""Pictures and stored volumes: orientation, windows, native values, sizes, NiiVue's place."""

from __future__ import annotations

import base64
import gzip
import io
import logging
from collections.abc import Callable
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from medsr.evaluate.report import Case, viewer
from medsr.evaluate.report.pictures import (
    LUNG_HU,
    SOFT_TISSUE_HU,
    canonical,
    choose_window,
    cut,
    draw_case,
)
from medsr.evaluate.report.reading import ReportData
from medsr.geometry import Geometry
from medsr.volume import Volume

Maker = Callable[..., Case]


@pytest.fixture
def of(evaluation: Callable[..., dict[str, Any]]) -> ReportData:
    return ReportData(evaluation())


def _read(stored: str) -> Any:
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(stored)))


def _decode(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_canonical_equals_nibabel(make_case: Maker) -> None:
    truth = make_case().truth
    turned = canonical(truth)
    judge = nibabel.as_closest_canonical(nibabel.Nifti1Image(truth.data, truth.geometry.affine))
    np.testing.assert_array_equal(turned.data, judge.get_fdata())
    np.testing.assert_allclose(turned.geometry.affine, judge.affine, atol=1e-9)


def test_planes_stand_as_radiologists_read_them() -> None:
    # (right, anterior, superior) corners of RAS data, one bright voxel each.
    data = np.zeros((4, 5, 6), np.float32)
    data[3, 4, 5] = 1.0  # right, front, top
    assert cut(data, 2, 5)[0, 0] == 1.0  # axial: front above, right on the left
    assert cut(data, 1, 4)[0, 0] == 1.0  # coronal: top above, right on the left
    assert cut(data, 0, 3)[0, 0] == 1.0  # sagittal: top above, front on the left
    assert cut(data, 0, 3).shape == (6, 5)


def test_windows(make_case: Maker) -> None:
    assert choose_window(make_case(modality="CT").truth).low == SOFT_TISSUE_HU[0]
    truth = make_case(modality="CT").truth
    lung = truth.replace(data=np.where(truth.data > -500, -800, -1000).astype(np.float32))
    assert (choose_window(lung).low, choose_window(lung).high) == LUNG_HU
    magnetic = make_case().truth
    window = choose_window(magnetic)
    assert window.low == 0.0
    assert np.percentile(magnetic.data, 90) < window.high <= magnetic.data.max()


def test_errors_share_one_scale(make_case: Maker, of: ReportData) -> None:
    case = make_case()
    drawn = draw_case(case, of)
    error = np.abs(case.results["bspline"].data - case.truth.data)
    assert drawn.error_high == pytest.approx(np.percentile(error[error > 0], 99), rel=1e-5)
    for plane in drawn.planes:
        maps = [column.error for column in plane.columns if column.error]
        assert len(maps) == len(case.results)
        assert plane.columns[0].error is None
        assert plane.columns[-1].error is None
        # A better method is darker.
        means = [_decode(found.uri).mean() for found in maps]
        assert means[0] > means[1] > means[2]
        assert {(c.picture.width, c.picture.height) for c in plane.columns} == {
            (maps[0].width, maps[0].height)
        }
    assert [plane.degraded for plane in drawn.planes] == [True, True, False]
    assert len(drawn.consistency) == 3


def test_stored_values_are_native(make_case: Maker) -> None:
    truth = make_case(modality="CT").truth
    image = _read(viewer.pack(truth, 1.0))
    assert image.get_data_dtype() == np.int16
    np.testing.assert_allclose(image.get_fdata(), truth.data, atol=0.5)
    np.testing.assert_allclose(image.affine, truth.geometry.affine, atol=1e-4)
    magnetic = make_case().truth
    stored = viewer.pack(magnetic, 0.35)
    raw = io.BytesIO(gzip.decompress(base64.b64decode(stored)))
    assert nibabel.Nifti1Header.from_fileobj(raw).get_slope_inter() == (pytest.approx(0.35), 0.0)
    image = _read(stored)
    np.testing.assert_allclose(image.get_fdata(), magnetic.data, atol=0.176)


def test_volumes_share_their_place(make_case: Maker, of: ReportData) -> None:
    case = make_case()
    (stored,) = viewer.store_cases([case], [draw_case(case, of)], of)
    assert [v["title"] for v in stored.settings["volumes"]] == [
        "low resolution",
        "cubic B-spline",
        "mr-z4",
        "truth",
    ]
    assert (stored.settings["reference"], stored.settings["model"]) == (1, 2)
    images = [_read(volume.data) for volume in stored.volumes]
    truth = images[-1]
    assert {image.shape for image in images[1:]} == {truth.shape}
    extent = Geometry(truth.shape, truth.affine).corners_mm()
    thick = Geometry(images[0].shape, images[0].affine).corners_mm()
    assert np.all(thick.min(axis=0) <= extent.min(axis=0) + 1e-3)
    assert np.all(thick.max(axis=0) >= extent.max(axis=0) - 1e-3)
    inside = case.truth.data > 100
    assert int((truth.get_fdata() > 100).sum()) == int(inside.sum())


def test_volumes_keep_to_the_budget(
    make_case: Maker, of: ReportData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(viewer, "BUDGET_BYTES", 60_000)
    cases = [make_case(), make_case(label="median")]
    stored = viewer.store_cases(cases, [draw_case(case, of) for case in cases], of)
    assert 20_000 < sum(len(v.data) for case in stored for v in case.volumes) <= 60_000
    assert all(case.settings["cropped"] for case in stored)


def test_the_body_is_cut_out() -> None:
    data = np.zeros((40, 40, 40), np.float32)
    data[10:20, 15:30, 5:35] = 100.0
    volume = Volume(data, Geometry(data.shape, np.eye(4)))
    assert viewer.body_box(volume) == ((6, 11, 1), (24, 34, 39))
    empty = Volume(np.zeros((9, 9, 9), np.float32), Geometry((9, 9, 9), np.eye(4)))
    assert viewer.body_box(empty) == ((0, 0, 0), (9, 9, 9))


def test_niivue_comes_from_an_installed_package() -> None:
    pytest.importorskip("nilearn")
    library = viewer.find_library()
    assert library is not None
    assert library.carrier.startswith("nilearn ")
    source = gzip.decompress(base64.b64decode(library.source)).decode()
    assert "Niivue" in source
    assert len(source) > 1_000_000


@pytest.mark.parametrize("carriers", [(), ("no-such-package",), ("pytest",)])
def test_without_niivue_the_page_says_so(
    evaluation: Callable[..., dict[str, Any]],
    make_case: Maker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    carriers: tuple[str, ...],
) -> None:
    from medsr.evaluate.report import render

    monkeypatch.setattr(viewer, "_CARRIERS", carriers)
    with caplog.at_level(logging.WARNING):
        page = render(evaluation(minimal=True), [make_case()])
    assert "medsr[report]" in caplog.text
    assert "written without the interactive viewer" in page
    assert 'id="viewer-settings"' not in page
    assert 'id="cases"' in page

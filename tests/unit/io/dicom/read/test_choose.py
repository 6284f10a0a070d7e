"""Several volumes in one source are told apart, listed and picked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from typer.testing import CliRunner

from medsr import errors, io
from medsr.cli import app

Make = Callable[..., Path]
UID = "1.2.826.0.1.3"


def _times(make_series: Make, folder: Path, edits: list[Callable[[Dataset, int], None]]) -> Path:
    for number, edit in enumerate(edits):
        data = np.full((4, 4, 5), 100 * (number + 1), np.int16)
        make_series(folder, data, modality="MR", rescale=None, edit=edit, prefix=f"t{number}")
    return folder


def _phase(number: int) -> Callable[[Dataset, int], None]:
    def edit(dataset: Dataset, k: int) -> None:
        dataset.TemporalPositionIdentifier = number
        dataset.TriggerTime = 10.0 * number + k  # differs from slice to slice too

    return edit


def test_a_time_series_is_refused_by_its_own_error_and_split(
    tmp_path: Path, make_series: Make
) -> None:
    folder = _times(make_series, tmp_path / "s", [_phase(1), _phase(2), _phase(3)])
    with pytest.raises(errors.TimeSeriesError, match=r"3 volumes.*TemporalPositionIdentifier 2"):
        io.load(folder)
    for name in (f"{UID}:2", "2"):
        assert np.unique(io.load(folder, series=name).data).tolist() == [200]


def test_a_time_series_that_nothing_sorts_is_refused(tmp_path: Path, make_series: Make) -> None:
    def nothing(dataset: Dataset, k: int) -> None:
        pass

    def late(dataset: Dataset, k: int) -> None:
        dataset.TriggerTime = 500.0 + k  # differs everywhere, so it makes no volumes

    folder = _times(make_series, tmp_path / "s", [nothing, late])
    with pytest.raises(errors.TimeSeriesError, match="2 images at each of 5 positions"):
        io.load(folder)
    same = _times(make_series, tmp_path / "t", [nothing, nothing])
    with pytest.raises(errors.DuplicateSlicesError):  # same contrast, other pixels
        io.load(same)


def test_volumes_are_listed_with_what_can_be_said(tmp_path: Path, make_series: Make) -> None:
    folder = make_series(tmp_path / "s", series="1.2.3")
    make_series(folder, np.ones((5, 5, 8), np.int16), series="1.2.4", prefix="b", modality="MR")
    make_series(folder, np.ones((6, 6, 2), np.int16), series="1.2.5", prefix="c")
    good, other, short = io.list_volumes(folder)
    assert (good.series, good.modality, good.shape, good.fault) == ("1.2.3", "CT", (9, 7, 6), None)
    assert good.spacing_mm == pytest.approx((0.8, 0.9, 2.5))
    assert (other.number, other.series, other.shape) == (2, "1.2.4", (5, 5, 8))
    assert short.exit_code == errors.TooFewSlicesError.exit_code
    assert io.load(folder, series="2").shape == (5, 5, 8)
    assert io.inspect(folder, series="1.2.4").shape == (5, 5, 8)
    allowed = io.list_volumes(folder, allow=["few-slices"])
    assert [volume.fault for volume in allowed] == [None] * 3


def test_inspect_lists_on_the_command_line(
    tmp_path: Path, make_series: Make, identifiers: tuple[str, ...]
) -> None:
    folder = make_series(tmp_path / "s", series="1.2.3")
    make_series(folder, np.ones((5, 5, 8), np.int16), series="1.2.4", prefix="b", modality="MR")
    long = "1.2.826.0.1." + "7" * 52
    make_series(tmp_path / "two" / "a", series=long)
    make_series(tmp_path / "two" / "b", series="1.2.3")
    told = CliRunner().invoke(app, ["inspect", str(tmp_path / "two")]).stdout
    assert sum(long in line for line in told.splitlines()) == 1  # to be copied, in 80 columns
    run = CliRunner().invoke(app, ["inspect", str(folder), "--json"])
    assert run.exit_code == 0
    assert [each["series"] for each in json.loads(run.stdout)["volumes"]] == ["1.2.3", "1.2.4"]
    table = CliRunner().invoke(app, ["inspect", str(folder)])
    assert "1.2.4" in table.stdout
    assert not any(word in table.stdout for word in (*identifiers, "T1 axial"))
    one = CliRunner().invoke(app, ["inspect", str(folder), "--series", "2", "--json"])
    assert json.loads(one.stdout)["shape"] == [5, 5, 8]


def test_other_formats_hold_one_volume(tmp_path: Path) -> None:
    file = tmp_path / "a.nii"
    file.write_bytes(b"x")
    with pytest.raises(errors.UsageError):
        io.list_volumes(file)
    with pytest.raises(errors.UsageError):
        io.inspect(file, series="1.2.3")

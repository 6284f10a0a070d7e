"""Acquisitions merged into one series are split, and one acquisition stays one; dcm2niix judges."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from typer.testing import CliRunner

from medsr import errors, io
from medsr.cli import app

Make = Callable[..., Path]
Edit = Callable[[Dataset, int], None]
SHAPE = (6, 5, 6)
STEP = 4.0


def _series(
    make_series: Make,
    folder: Path,
    edits: list[Edit],
    *,
    apart: float = 0.0,
    modality: str = "MR",
    counts: tuple[int, ...] = (),
) -> Path:
    """One series of several acquisitions; each lies ``apart`` mm from the one before it.

    All values of the first are near 100, of the second near 200, and so on.
    """
    for index, edit in enumerate(edits):
        count = counts[index] if counts else SHAPE[2]
        noise = np.random.default_rng(index).integers(0, 50, (*SHAPE[:2], count))
        make_series(
            folder,
            (100 * (index + 1) + noise).astype(np.int16),
            modality=modality,
            rescale=(1.0, 0.0) if modality == "CT" else None,
            origin=(0.0, 0.0, index * apart),
            spacing=(0.8, 0.9, STEP),
            numbers=[100 * index + k + 1 for k in range(count)],
            prefix=f"a{index}",
            edit=_and(_thick, edit),
        )
    return folder


def _thick(dataset: Dataset, k: int) -> None:
    dataset.SliceThickness = STEP


def _and(*edits: Edit) -> Edit:
    def edit(dataset: Dataset, k: int) -> None:
        for each in edits:
            each(dataset, k)

    return edit


def _set(**values: Any) -> Edit:
    def edit(dataset: Dataset, k: int) -> None:
        for name, value in values.items():
            setattr(dataset, name, value)

    return edit


def _private(group: int, creator: str, element: int, kind: str, value: Any) -> Edit:
    def edit(dataset: Dataset, k: int) -> None:
        dataset.private_block(group, creator, create=True).add_new(element, kind, value)

    return edit


def _level(path: Path, series: str, **options: Any) -> int:
    """Which acquisition a volume is of; fails where it is a mixture."""
    volume = io.load(path, series=series, **options)
    levels = set((volume.data // 100).astype(int).ravel().tolist())
    assert len(levels) == 1, "a mixture"
    return levels.pop()


CONTRASTS: dict[str, tuple[str, Edit, Edit]] = {
    "EchoTime": ("MR", _set(EchoTime="20"), _set(EchoTime="80.0")),
    "EchoNumbers": ("MR", _set(EchoNumbers=1), _set(EchoNumbers=2)),
    "ConvolutionKernel": ("CT", _set(ConvolutionKernel="B30f"), _set(ConvolutionKernel="B70f")),
    "KVP": ("CT", _set(KVP=80), _set(KVP=140)),
    "ImageType": (
        "MR",
        _set(ImageType=["ORIGINAL", "PRIMARY", "M"]),
        _set(ImageType=["ORIGINAL", "PRIMARY", "P"]),
    ),
    "InversionTime": ("MR", _set(InversionTime=100), _set(InversionTime=900)),
    "FlipAngle": ("MR", _set(FlipAngle=5), _set(FlipAngle=20)),
    "DiffusionBValue": ("MR", _set(DiffusionBValue=0.0), _set(DiffusionBValue=800.0)),
    "RescaleType": ("MR", _set(RescaleType="US"), _set(RescaleType="HZ")),
    "RepetitionTime": ("MR", _set(RepetitionTime=500), _set(RepetitionTime=4000)),
    "ScanOptions": ("MR", _set(), _set(ScanOptions="FS")),
    "ContrastBolusAgent": ("MR", _set(), _set(ContrastBolusAgent="agent")),
    "ReceiveCoilName": ("MR", _set(ReceiveCoilName="A1"), _set(ReceiveCoilName="A2")),
    "SequenceName": ("MR", _set(SequenceName="*ep_b0"), _set(SequenceName="*ep_b900#1")),
}
PRIVATE: dict[str, tuple[Edit, Edit]] = {
    "Siemens": (
        _private(0x0019, "SIEMENS MR HEADER", 0x0C, "IS", "50"),
        _private(0x0019, "SIEMENS MR HEADER", 0x0C, "IS", "800"),
    ),
    "Siemens whose types were lost": (
        _private(0x0019, "SIEMENS MR HEADER", 0x0C, "UN", b"50"),
        _private(0x0019, "SIEMENS MR HEADER", 0x0C, "UN", b"800 "),
    ),
    "GE": (
        _private(0x0043, "GEMS_PARM_01", 0x39, "IS", [50, 8, 0, 0]),
        _private(0x0043, "GEMS_PARM_01", 0x39, "IS", [1000000800, 8, 0, 0]),
    ),
    "Philips": (
        _private(0x2001, "Philips Imaging DD 001", 0x03, "FL", 50.0),
        _private(0x2001, "Philips Imaging DD 001", 0x03, "UN", np.float32(800).tobytes()),
    ),
    "UIH": (
        _private(0x0065, "Image Private Header", 0x09, "FD", 50.0),
        _private(0x0065, "Image Private Header", 0x09, "UN", np.float64(800).tobytes()),
    ),
}


@pytest.mark.parametrize("apart", [0.0, STEP / 2, STEP / 4])
@pytest.mark.parametrize("name", CONTRASTS)
def test_contrasts_never_make_one_stack(
    tmp_path: Path, make_series: Make, name: str, apart: float
) -> None:
    modality, first, second = CONTRASTS[name]
    folder = _series(make_series, tmp_path / "s", [first, second], apart=apart, modality=modality)
    for allow in ([], ["gaps"]):
        with pytest.raises(errors.TimeSeriesError, match=f"2 volumes here.*{name} "):
            io.load(folder, allow=allow)
    assert {_level(folder, number) for number in "12"} == {1, 2}
    assert [volume.fault for volume in io.list_volumes(folder)] == [None, None]
    assert {volume.spacing_mm[2] for volume in io.list_volumes(folder)} == {STEP}


@pytest.mark.parametrize("apart", [0.0, STEP / 4])
@pytest.mark.parametrize("maker", PRIVATE)
def test_private_b_values_tell_volumes_apart(
    tmp_path: Path, make_series: Make, maker: str, apart: float
) -> None:
    folder = _series(make_series, tmp_path / "s", list(PRIVATE[maker]), apart=apart)
    with pytest.raises(
        errors.TimeSeriesError, match=r"DiffusionBValue 50\).*DiffusionBValue 800\)"
    ):
        io.load(folder)
    assert [_level(folder, number) for number in "12"] == [1, 2]


@pytest.mark.skipif(shutil.which("dcm2niix") is None, reason="needs dcm2niix")
@pytest.mark.parametrize("apart", [STEP / 2, STEP / 4])
def test_dcm2niix_finds_the_same_echoes(tmp_path: Path, make_series: Make, apart: float) -> None:
    _, first, second = CONTRASTS["EchoTime"]
    maker = _set(Manufacturer="SIEMENS", MRAcquisitionType="2D")
    edits = [_and(maker, first), _and(maker, second)]
    folder = _series(make_series, tmp_path / "s", edits, apart=apart)
    (tmp_path / "judge").mkdir()
    run = ["dcm2niix", "-z", "n", "-o", str(tmp_path / "judge"), str(folder)]
    subprocess.run(run, check=True, capture_output=True)
    judged = sorted(io.load(file).data.mean() for file in (tmp_path / "judge").glob("*.nii"))
    ours = sorted(io.load(folder, series=number).data.mean() for number in "12")
    assert ours == pytest.approx(judged)


def test_free_text_is_not_quoted(tmp_path: Path, make_series: Make) -> None:
    edits = [_set(SequenceName="Jane Doe"), _set(SequenceName="Jane Roe")]
    folder = _series(make_series, tmp_path / "s", edits)
    with pytest.raises(errors.TimeSeriesError, match="SequenceName 1 of 2") as caught:
        io.load(folder)
    assert "Jane" not in str(caught.value)


def test_four_stacks_between_each_other(tmp_path: Path, make_series: Make) -> None:
    edits = [
        _set(EchoTime=time, ImageType=["ORIGINAL", "PRIMARY", kind])
        for time in (10, 20)
        for kind in "MP"
    ]
    folder = _series(make_series, tmp_path / "s", edits, apart=1.0)
    assert sorted(_level(folder, number) for number in "1234") == [1, 2, 3, 4]


def test_an_echo_that_lacks_a_slice_is_not_blended(tmp_path: Path, make_series: Make) -> None:
    _, first, second = CONTRASTS["EchoTime"]
    folder = _series(make_series, tmp_path / "s", [first, second], apart=STEP / 2)
    (folder / "a1103.dcm").unlink()
    with pytest.raises(errors.TimeSeriesError, match="2 volumes"):
        io.load(folder, allow=["gaps"])
    assert _level(folder, "1") == 1
    with pytest.raises(errors.MissingSlicesError, match=r"1 slice\(s\) missing"):
        io.load(folder, series="2")
    assert _level(folder, "2", allow=["gaps"]) == 2


@pytest.mark.parametrize("apart", [0.0, STEP / 2, STEP / 4])
def test_a_few_stray_images_name_the_way_out(
    tmp_path: Path, make_series: Make, apart: float
) -> None:
    _, first, second = CONTRASTS["EchoTime"]
    folder = _series(make_series, tmp_path / "s", [first, second], apart=apart, counts=(8, 2))
    with pytest.raises(errors.SeveralSeriesError, match=r"--series.*1\. .*8 slices"):
        io.load(folder)
    assert _level(folder, "1") == 1
    short = io.list_volumes(folder)[1]
    assert short.exit_code == errors.TooFewSlicesError.exit_code


def test_an_image_of_another_matrix_names_the_way_out(tmp_path: Path, make_series: Make) -> None:
    folder = make_series(tmp_path / "s", np.full((6, 5, 8), 7, np.int16))
    make_series(folder, np.full((9, 9, 1), 3, np.int16), prefix="z", numbers=[99])
    for series in (None, "1.2.826.0.1.3"):
        with pytest.raises(errors.GeometryError, match=r"8 \+ 1 slices.*--series 1 \(CT, 8 sl"):
            io.load(folder, series=series)
    assert io.load(folder, series="1").shape == (6, 5, 8)


def test_upscale_and_inspect_number_the_same_volumes(tmp_path: Path, make_series: Make) -> None:
    folder = make_series(tmp_path / "s", series="1.2.3")
    make_series(folder, np.ones((9, 9, 1), np.int16), series="1.2.3", prefix="z", numbers=[99])
    make_series(folder, np.ones((4, 4, 5), np.int16), series="1.2.4", prefix="c")
    listed = io.list_volumes(folder)
    with pytest.raises(errors.SeveralSeriesError) as caught:
        io.load(folder)
    said = str(caught.value)
    assert said.startswith(f"{len(listed)} volumes here")
    assert all(f"{volume.number}. {volume.series}: " in said for volume in listed)
    assert CliRunner().invoke(app, ["inspect", str(folder), "--series", "3"]).exit_code == 0


def test_one_bad_plane_does_not_bar_the_others(tmp_path: Path, make_series: Make) -> None:
    folder = make_series(tmp_path / "s")
    for part in "ab":  # different images of one place
        data = np.full((4, 4, 5), ord(part), np.int16)
        make_series(folder, data, prefix=part)
    bad, good = sorted(io.list_volumes(folder), key=lambda volume: volume.fault is None)
    assert (bad.exit_code, good.exit_code) == (errors.DuplicateSlicesError.exit_code, 0)
    assert io.load(folder, series=str(good.number)).shape == (9, 7, 6)


def _one_volume(folder: Path, count: int) -> None:
    assert io.load(folder).shape == (*SHAPE[:2], count)
    assert len(io.list_volumes(folder)) == 1


@pytest.mark.parametrize(
    "differs",
    [
        lambda k: {"AcquisitionNumber": k % 2 + 1},  # packages
        lambda k: {"AcquisitionNumber": k // 5 + 1},  # slabs side by side
        lambda k: {"AcquisitionNumber": k + 1},  # every slice
        lambda k: {"TriggerTime": 700.0 * (k % 2) + k},  # heartbeats
        lambda k: {"AcquisitionTime": f"1200{(k % 2) * 20 + k:02d}"},  # odd slices, then even
        lambda k: {"EchoTime": "10" if k % 2 else "10.02"},  # hardly another echo
        lambda k: {"EchoTime": "10" if k % 2 else "10.0"},
        lambda k: {"EchoTime": 10 if k in (1, 2, 5) else 20},  # no stack for itself
        lambda k: {"ImageType": ["DERIVED", "PRIMARY", "M"] if k in (0, 9) else ["ORIGINAL"]},
    ],
)
def test_one_acquisition_stays_one(
    tmp_path: Path, make_series: Make, differs: Callable[[int], dict[str, Any]]
) -> None:
    def edit(dataset: Dataset, k: int) -> None:
        _set(**differs(k))(dataset, k)

    _one_volume(_series(make_series, tmp_path / "s", [edit], counts=(10,)), 10)


def test_stacks_side_by_side_are_one_with_a_warning(tmp_path: Path, make_series: Make) -> None:
    def edit(dataset: Dataset, k: int) -> None:
        dataset.EchoTime = 10 if k < 5 else 20

    folder = _series(make_series, tmp_path / "s", [edit], counts=(10,))
    _one_volume(folder, 10)
    said = "several acquisitions side by side: slices differ in EchoTime"
    assert said in io.load(folder).source.notes
    assert said in io.inspect(folder).warnings


def test_packages_that_lack_a_slice_are_not_torn_apart(tmp_path: Path, make_series: Make) -> None:
    def edit(dataset: Dataset, k: int) -> None:
        dataset.AcquisitionNumber = k % 2 + 1

    folder = _series(make_series, tmp_path / "s", [edit], counts=(12,))
    (folder / "a0005.dcm").unlink()
    with pytest.raises(errors.MissingSlicesError, match=r"1 slice\(s\) missing"):
        io.load(folder)


COUNTED: dict[str, Callable[[int], Edit]] = {
    "AcquisitionNumber": lambda index: _set(AcquisitionNumber=index + 1),
    "TemporalPositionIdentifier": lambda index: _set(TemporalPositionIdentifier=index + 1),
    "time": lambda index: _clock("AcquisitionTime", index),
}


def _clock(name: str, index: int, phase: Callable[[int], float] = lambda k: 3.0 * (k % 3)) -> Edit:
    """Slices taken one after the other out of order, a minute for each acquisition."""

    def edit(dataset: Dataset, k: int) -> None:
        setattr(dataset, name, f"12{index:02d}{phase(k) + k / 100:09.6f}")

    return edit


@pytest.mark.parametrize(("apart", "count"), [(STEP / 4, 2), (STEP / 2, 2), (STEP / 8, 3)])
@pytest.mark.parametrize("name", COUNTED)
def test_acquisitions_that_only_counters_tell_apart(
    tmp_path: Path, make_series: Make, name: str, apart: float, count: int
) -> None:
    edits = [COUNTED[name](index) for index in range(count)]
    folder = _series(make_series, tmp_path / "s", edits, apart=apart)
    if name == "time" and apart == STEP / 2:
        return  # what packages of one acquisition look like too
    for allow in ([], ["gaps"]):
        with pytest.raises(errors.TimeSeriesError, match=f"{count} volumes here.*{name} 2"):
            io.load(folder, allow=allow)
    numbers = map(str, range(1, count + 1))
    assert [_level(folder, number) for number in numbers] == list(range(1, count + 1))


def test_acquisitions_that_overlap_at_their_ends(tmp_path: Path, make_series: Make) -> None:
    edits = [COUNTED["AcquisitionNumber"](index) for index in range(2)]
    folder = _series(make_series, tmp_path / "s", edits, apart=SHAPE[2] * STEP - 5.0)
    with pytest.raises(errors.TimeSeriesError, match="AcquisitionNumber"):
        io.load(folder, allow=["gaps"])
    assert [_level(folder, number) for number in "12"] == [1, 2]


@pytest.mark.parametrize("name", ["AcquisitionTime", "ContentTime", "TriggerTime"])
def test_4d_that_only_times_tell_apart(tmp_path: Path, make_series: Make, name: str) -> None:
    def heartbeat(index: int) -> Edit:
        def edit(dataset: Dataset, k: int) -> None:
            dataset.TriggerTime = 300.0 * index + 40 * k  # phases of different slices overlap

        return edit

    edits = [heartbeat(i) if name == "TriggerTime" else _clock(name, i) for i in range(3)]
    folder = _series(make_series, tmp_path / "s", edits)
    with pytest.raises(errors.TimeSeriesError, match=r"3 volumes.*time 2 of 3"):
        io.load(folder)
    assert [_level(folder, number) for number in "123"] == [1, 2, 3]


def test_echoes_of_several_times(tmp_path: Path, make_series: Make) -> None:
    edits = [
        _and(_clock("AcquisitionTime", index), _set(EchoTime=echo))
        for echo in (10, 20)
        for index in range(2)
    ]
    folder = _series(make_series, tmp_path / "s", edits)
    assert [volume.mark for volume in io.list_volumes(folder)] == [
        f"EchoTime {echo}, time {k} of 2" for echo in (10, 20) for k in (1, 2)
    ]
    assert [_level(folder, number) for number in "1234"] == [1, 2, 3, 4]


def test_4d_that_no_clock_sorts_is_called_4d(tmp_path: Path, make_series: Make) -> None:
    edits = [_clock("ContentTime", 0, lambda k, i=i: 7.0 * k + i) for i in (0, 1)]
    folder = _series(make_series, tmp_path / "s", edits)
    with pytest.raises(errors.TimeSeriesError, match="4D"):
        io.load(folder)
    edits = [_clock("ContentTime", index) for index in range(3)]
    folder = _series(make_series, tmp_path / "t", edits)
    (folder / "a2203.dcm").unlink()
    with pytest.raises(errors.TimeSeriesError, match=r"2 to 3 images at each .*4D"):
        io.load(folder)
    assert np.unique(io.load(folder, allow=["duplicates"]).data // 100).tolist() == [1]


def test_copies_with_another_clock_are_dropped(tmp_path: Path, make_series: Make) -> None:
    data = np.random.default_rng(1).integers(0, 900, (6, 5, 8)).astype(np.int16)
    folder = make_series(tmp_path / "s", data, edit=_set(ContentTime="101112"))
    make_series(folder, data, prefix="copy", edit=_set(ContentTime="131415"))
    volume = io.load(folder)
    assert volume.shape == (6, 5, 8)
    assert "dropped 8 slice(s) that are identical copies of others" in volume.source.notes


def test_frames_and_files_of_an_enhanced_series(
    tmp_path: Path, make_enhanced: Callable[..., Path]
) -> None:
    def echo(frame: Dataset, k: int) -> None:
        frame.MREchoSequence[0].EffectiveEchoTime = 20.0 + 60.0 * (k % 2)

    data = np.arange(4 * 4 * 12, dtype=np.uint16).reshape(4, 4, 12)
    folder = make_enhanced(tmp_path / "s", data, edit=echo)
    with pytest.raises(errors.TimeSeriesError, match="EffectiveEchoTime 80"):
        io.load(folder)
    one = io.load(folder, series="2")
    assert one.shape == (4, 4, 6)
    slope = 2.0 + np.arange(1, 12, 2)  # of each frame its own
    np.testing.assert_allclose(one.data, data[:, :, 1::2] * slope + 5.0)

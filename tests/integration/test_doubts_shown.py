"""What a reader had to decide about a file is logged by ``upscale`` and reported, once each."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from medsr.cli.main import main
from medsr.infer.upscale import upscale

SHAPE = (12, 10, 8)
AFFINE = np.diag([-1.0, -1.0, 4.0, 1.0])
UNPLACED = "orientation and position are unknown"
NRRD = "NRRD0004\ntype: short\ndimension: 3\nsizes: 12 10 8\nencoding: raw\nendian: little\n"


def counting() -> np.ndarray:
    return np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)


def nifti(path: Path, **header: Any) -> None:
    image = nib.Nifti1Image(counting(), AFFINE)
    image.set_qform(AFFINE, 1)
    raw = image.to_bytes()
    fields = nib.Nifti1Header.from_fileobj(BytesIO(raw), check=False)
    for name, value in header.items():
        fields[name] = value
    path.write_bytes(fields.binaryblock + raw[len(fields.binaryblock) :])


def text(path: Path, header: str) -> None:
    path.write_bytes(header.encode() + b"\n" + counting().tobytes(order="F"))


def mgz(path: Path) -> None:
    image = nib.MGHImage(counting(), AFFINE)
    raw = bytearray(image.to_bytes())
    place = type(image.header).template_dtype.fields["goodRASFlag"][1]
    raw[place : place + 2] = bytes(2)
    path.write_bytes(bytes(raw))


DOUBTFUL: dict[str, tuple[Callable[[Path], None], str]] = {
    "codes.nii": (lambda p: nifti(p, sform_code=0, qform_code=0), UNPLACED),
    "metres.nii": (lambda p: nifti(p, xyzt_units=1), "in metres"),
    "microns.nii": (lambda p: nifti(p, xyzt_units=3), "in micrometres"),
    "pixdim.nii": (
        lambda p: nifti(p, qform_code=0, pixdim=[1, 1, 1, 5, 0, 0, 0, 0]),
        "pixdim says 1 x 1 x 5 mm",
    ),
    "slope.nii": (lambda p: nifti(p, scl_slope=0, scl_inter=7), "scl_inter (7) does not count"),
    "flag.mgh": (mgz, UNPLACED),
    "nowhere.nrrd": (lambda p: text(p, NRRD + "spacings: 1 1 4\n"), UNPLACED),
    "scanner.nrrd": (
        lambda p: text(p, NRRD + "space: scanner-xyz\nspace directions: (1,0,0) (0,1,0) (0,0,4)\n"),
        "the space is no patient's",
    ),
}


@pytest.mark.parametrize("by_slabs", [False, True])
@pytest.mark.parametrize("name", DOUBTFUL)
def test_a_doubt_is_logged_and_reported_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
    by_slabs: bool,
) -> None:
    make, words = DOUBTFUL[name]
    make(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("medsr.infer.upscaler.is_large", lambda path, limit: by_slabs)
    with caplog.at_level(logging.INFO, logger="medsr"):
        result = upscale(name, "out.nrrd", model="mr-z4", modality="mr", spacing=None)
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    (logged,) = [text for text in warnings if words in text]
    assert logged.startswith(f"{name}: ")
    assert [words in text for text in result.report["warnings"]].count(True) == 1
    assert (result.volume is None) == by_slabs


@pytest.mark.parametrize("quiet", [[], ["--quiet"]])
def test_the_command_shows_it_even_when_quiet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], quiet: list[str]
) -> None:
    nifti(tmp_path / "codes.nii", sform_code=0, qform_code=0)
    scan = os.path.relpath(tmp_path / "codes.nii")
    words = ["upscale", scan, str(tmp_path / "o.nii"), "--model", "mr-z4", "--modality", "mr"]
    assert main([*words, *quiet]) == 0
    captured = capsys.readouterr()
    assert captured.err.count(f"warning: {scan}: neither sform nor qform is set; {UNPLACED}") == 1
    assert bool(captured.out) == (not quiet)

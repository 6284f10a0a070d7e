"""Requests that do not end well: what is said, what is left, and what a second try does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pydicom
import pytest

from medsr.cli.main import main
from medsr.pacs import exchange
from medsr.pacs.archive import NotOfferedError, SeriesEntry, StoredFile, Transfer
from medsr.pacs.settings import WebAddress

STUDY, SERIES = "1.2.1", "1.2.2"


class Memory:
    """An archive in memory, with switches for what goes wrong."""

    address = WebAddress("https://memory.example/dicom-web")

    def __init__(self, images: list[Any]) -> None:
        self.held = {str(image.SOPInstanceUID): image for image in images}
        self.lost: set[str] = set()
        self.takes: int | None = None
        self.mute = False
        self.sent = 0

    def series(self, study: str) -> list[SeriesEntry]:
        return [SeriesEntry(SERIES, "MR", len(self.held))]

    def instances(self, study: str, series: str) -> set[str]:
        if self.mute and series != SERIES:
            raise NotOfferedError("not offered")
        return {uid for uid, image in self.held.items() if image.SeriesInstanceUID == series}

    def fetch(
        self, study: str, series: str, folder: Path, transfer: Transfer, *, only: str | None = None
    ) -> None:
        for number, uid in enumerate(sorted(self.instances(study, series))):
            if uid in self.lost:
                transfer.failed(uid, "B000")
                continue
            self.held[uid].save_as(folder / f"{number}.dcm", enforce_file_format=True)
            transfer.arrived(uid)

    def store(self, files: Any, transfer: Transfer) -> None:
        for file in files:
            assert isinstance(file, StoredFile)
            if self.takes is not None and len(transfer.done) >= self.takes:
                transfer.failed(file.uid, "C000")
                continue
            self.held[file.uid] = pydicom.dcmread(file.path)
            self.sent += 1
            transfer.arrived(file.uid)


def left_in(scratch: Path) -> list[str]:
    """What is left of a run; torch keeps a cache folder of its own, which holds nothing of it."""
    return [entry.name for entry in scratch.iterdir() if "torchinductor" not in entry.name]


@pytest.fixture
def memory(make_slices: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Memory:
    archive = Memory(make_slices(STUDY, SERIES))
    monkeypatch.setattr(exchange, "connect", lambda *_: archive)
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    return archive


def call(model: Path, report: Path, *more: str) -> tuple[int, dict[str, Any]]:
    address = str(Memory.address)
    words = ["pacs", "upscale", "--from", address, "--to", address, "--study", STUDY]
    words += ["--model", str(model), "--scale", "1,1,2", "--report", str(report), "--overwrite"]
    code = main([*words, "--series", SERIES, "--quiet", *more])
    assert left_in(Path(tempfile.gettempdir())) == []
    return code, json.loads(report.read_text())


def test_a_series_that_cannot_be_fetched_whole_is_not_computed(
    memory: Memory, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    memory.lost = {max(memory.held)}
    code, told = call(model, tmp_path / "report.json")
    assert code == 65
    assert "5 of 6 instances could be fetched" in capsys.readouterr().err
    assert told["status"] == "failed"
    assert told["error"] == {"kind": "PartialTransferError", "exit_code": 65}
    assert told["fetched"]["failures"] == {max(memory.lost): "B000"}
    assert told["upscale"] is None


def test_a_part_that_was_stored_is_completed_by_the_same_request(
    memory: Memory, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    memory.takes = 4
    code, told = call(model, tmp_path / "report.json")
    assert code == 65
    assert told["sent"]["instances"] == 4
    assert told["sent"]["statuses"] == {"0000": 4, "C000": 8}
    assert "8 of 12 instances could not be stored" in capsys.readouterr().err
    memory.takes = None
    code, told = call(model, tmp_path / "report.json")
    assert (code, told["status"], told["already_there"]) == (0, "completed", 4)
    assert (memory.sent, told["confirmed"]) == (12, 12)
    code, told = call(model, tmp_path / "report.json")
    assert (code, told["status"], memory.sent) == (0, "present", 12)


def test_a_target_that_stores_nothing_refuses(memory: Memory, model: Path, tmp_path: Path) -> None:
    memory.takes = 0
    code, told = call(model, tmp_path / "report.json")
    assert code == 63
    assert told["error"]["kind"] == "PacsRefusedError"


def test_a_target_that_cannot_be_asked_gets_the_same_instances(
    memory: Memory, model: Path, tmp_path: Path
) -> None:
    memory.mute = True
    for _ in range(2):
        code, told = call(model, tmp_path / "report.json")
        assert (code, told["status"]) == (0, "stored")
        assert (told["already_there"], told["confirmed"]) == (None, None)
    assert memory.sent == 24
    assert len(memory.held) == 6 + 12


def test_a_missing_extra_is_named(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in list(sys.modules):
        if name.startswith(("medsr.pacs.dimse", "medsr.pacs.association", "medsr.pacs.receiver")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pynetdicom", None)
    assert main(["pacs", "list", "--from", "dicom://A@127.0.0.1:9", "--study", "1.2"]) == 60
    error = capsys.readouterr().err
    assert "pynetdicom" in error
    assert "pip install 'medsr[pacs]'" in error


AT_WORK = """
import sys, time
from pathlib import Path
from medsr.cli.main import main
from medsr.infer.upscaler import Upscaler

def compute(*args, **names):
    Path(sys.argv[1]).touch()
    time.sleep(120)

Upscaler.compute = compute
sys.exit(main(sys.argv[2:]))
"""
"""The program, at its work until it is interrupted."""


def test_ctrl_c_leaves_nothing(orthanc: Any, study: Any, model: Path, tmp_path: Path) -> None:
    scratch, report = tmp_path / "scratch", tmp_path / "report.json"
    scratch.mkdir()
    words = ["pacs", "upscale", "--from", orthanc.node, "--to", orthanc.node]
    words += ["--study", study.uid, "--model", str(model), "--scale", "1,1,2"]
    working = tmp_path / "working"
    process = subprocess.Popen(
        [sys.executable, "-c", AT_WORK, str(working), *words, "--report", str(report)],
        env={**os.environ, "TMPDIR": str(scratch)},
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    end = time.monotonic() + 120
    while not working.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    assert any(scratch.iterdir())
    assert next(scratch.iterdir()).stat().st_mode & 0o077 == 0
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130
    assert error.strip() == "medsr: stopped"
    assert left_in(scratch) == []
    assert json.loads(report.read_text())["error"]["kind"] == "KeyboardInterrupt"
    assert orthanc.series_of(study.uid) == [study.series]

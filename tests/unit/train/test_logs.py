"""Logs: the CSV across resumes, and a progress bar for terminals alone."""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path

import pytest

from medsr.train.logs import LOG_FILE, RunLog


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def rows(folder: Path) -> list[list[str]]:
    with (folder / LOG_FILE).open(newline="") as file:
        return list(csv.reader(file))


def test_values_are_logged_by_step(tmp_path: Path) -> None:
    with RunLog(tmp_path, 0, 10, quiet=True) as log:
        log.write(5, {"train/l1": 0.125, "train/ssim": 2.0})
        assert len(rows(tmp_path)) == 3  # at once, not at the end
    assert rows(tmp_path) == [
        ["step", "name", "value"],
        ["5", "train/l1", "0.125"],
        ["5", "train/ssim", "2"],
    ]


def test_a_resumed_log_drops_what_will_be_written_again(tmp_path: Path) -> None:
    with RunLog(tmp_path, 0, 10, quiet=True) as log:
        for step in (2, 4, 6):
            log.write(step, {"train/l1": float(step)})
        log.write(4, {"validation/psnr": 30.0})
    with RunLog(tmp_path, 4, 10, quiet=True) as log:
        assert log.knows(4, "validation/")
        assert not log.knows(2, "validation/")
        assert not log.knows(6, "train/")
        log.write(6, {"train/l1": 60.0})
    assert [row[2] for row in rows(tmp_path)[1:]] == ["2", "4", "30", "60"]
    with RunLog(tmp_path, 0, 10, quiet=True) as log:
        assert not log.knows(4, "train/")
    assert len(rows(tmp_path)) == 1


def test_a_torn_log_is_mended(tmp_path: Path) -> None:
    (tmp_path / LOG_FILE).write_bytes(
        b"step,name,value\r\n2,train/l1,0.5\r\nx,train/l1,1\r\n3,tra\0\0\0\xff"
    )
    with RunLog(tmp_path, 4, 10, quiet=True):
        assert rows(tmp_path)[1:] == [["2", "train/l1", "0.5"]]


def test_an_interrupt_keeps_the_log_of_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RunLog(tmp_path, 0, 10, quiet=True) as log:
        log.write(2, {"train/l1": 0.5})
    before = rows(tmp_path)

    def interrupted(file: io.TextIOBase) -> None:
        file.write("step,na")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(csv, "writer", interrupted)
        with pytest.raises(KeyboardInterrupt):
            RunLog(tmp_path, 2, 10, quiet=True)
    assert rows(tmp_path) == before
    assert {path.name for path in tmp_path.iterdir()} <= {LOG_FILE, "tensorboard"}


def test_only_the_main_process_writes(tmp_path: Path) -> None:
    with RunLog(tmp_path, 0, 10, main=False) as log:
        log.write(1, {"train/l1": 1.0})
        log.advance(1, {"train/l1": 1.0})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("stream", "quiet", "shown"),
    [(Terminal(), False, True), (Terminal(), True, False), (io.StringIO(), False, False)],
    ids=["terminal", "quiet", "file"],
)
def test_a_terminal_alone_gets_a_progress_bar(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stream: io.StringIO,
    quiet: bool,
    shown: bool,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(sys, "stderr", stream)
    with RunLog(tmp_path, 0, 10, quiet=quiet) as log:
        log.advance(3, {"train/l1": 0.5})
    assert ("training" in stream.getvalue()) == shown
    assert ("3/10" in stream.getvalue()) == shown
    assert bool(stream.getvalue()) == shown

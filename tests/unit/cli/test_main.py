"""The entry point: one line and one exit code, whatever happens; and nothing heavy for help."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from medsr import __version__
from medsr.cli.main import main
from medsr.cli.options import set_up_logging, suppress_info
from medsr.errors import MedsrError, SliceSpacingError

COMMANDS = ("upscale", "inspect", "models", "degrade", "evaluate", "train", "distill")


@pytest.fixture(autouse=True)
def _no_debug(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Debugging of the person who runs the tests must not reach them; put logging back after."""
    monkeypatch.delenv("MEDSR_DEBUG", raising=False)
    logger = logging.getLogger("medsr")
    handlers, level = list(logger.handlers), logger.level
    yield
    logger.handlers[:], logger.level = handlers, level


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Make ``medsr models`` fail with a given exception."""

    def plant(error: BaseException) -> None:
        def specs() -> None:
            raise error

        monkeypatch.setattr("medsr.zoo.specs", specs)

    return plant


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(command in text for command in COMMANDS)
    assert main([]) == 0
    assert "upscale" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert "Usage" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"medsr {__version__}\n"


def test_known_errors_are_one_line_with_their_code(
    failing: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]
) -> None:
    failing(SliceSpacingError("slices are 5.0 mm apart\nat z = 112 mm"))
    assert main(["models"]) == SliceSpacingError.exit_code == 19
    captured = capsys.readouterr()
    assert captured.err == "medsr: slices are 5.0 mm apart at z = 112 mm\n"
    assert captured.out == ""


def test_unexpected_errors_are_one_line_and_70(
    failing: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]
) -> None:
    failing(ZeroDivisionError("division by zero"))
    assert main(["models"]) == 70
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "unexpected ZeroDivisionError: division by zero" in error
    assert "--debug" in error
    assert "Traceback" not in error


@pytest.mark.parametrize("error", [MedsrError("known"), ZeroDivisionError("unknown")])
@pytest.mark.parametrize("how", ["option", "variable"])
def test_debug_shows_the_traceback(
    error: Exception,
    how: str,
    failing: Callable[[BaseException], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    failing(error)
    if how == "variable":
        monkeypatch.setenv("MEDSR_DEBUG", "1")
    code = main(["models"] if how == "variable" else ["--debug", "models"])
    assert code == getattr(error, "exit_code", 70)
    assert "Traceback" in capsys.readouterr().err


def test_debug_variable_may_be_off(
    failing: Callable[[BaseException], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MEDSR_DEBUG", "0")
    failing(ZeroDivisionError())
    assert main(["models"]) == 70
    assert "Traceback" not in capsys.readouterr().err


def test_interruption_is_130_and_one_line(
    failing: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]
) -> None:
    failing(KeyboardInterrupt())
    assert main(["models"]) == 130
    assert capsys.readouterr().err == "medsr: stopped\n"


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX pipes")
def test_reader_of_a_pipe_that_goes_is_no_fault() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "medsr", "--help"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nope"], "nope"),
        (["upscale", "only-one"], "OUTPUT"),
        (["models", "--nope"], "--nope"),
        (["upscale", "a", "b", "--modality", "pet"], "pet"),
        (["upscale", "a", "b", "--scale", "1,1"], "--scale 1,1"),
        (["upscale", "a", "b", "--scale", "1,1,x"], "--scale 1,1,x"),
        (["upscale", "a", "b", "--scale", "1,1,0.5"], "--scale"),
        (["upscale", "a", "b", "--spacing", "1,1,nan"], "--spacing"),
        (["upscale", "a", "b", "--spacing", "1,1,1", "--scale", "1,1,4"], "both given"),
        (["degrade", "a", "b", "--kind", "kspace", "--scale", "1,1,1.5"], "whole factors"),
        (["degrade", "a", "b", "--kind", "kspace", "--scale", "1,1,1"], "above 1"),
        (["train", "r.yaml", "steps"], "key=value"),
    ],
)
def test_wrong_command_lines_are_one_line_and_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_quiet_keeps_information_back_and_warnings_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logger = logging.getLogger("medsr.io")
    for quiet in (False, True):
        set_up_logging(debug=False)
        suppress_info(quiet)
        logger.info("stored as int16")
        logger.warning("2 voxels saturated")
    lines = capsys.readouterr().err.splitlines()
    warning = "medsr: warning: 2 voxels saturated"
    assert lines == ["medsr: stored as int16", warning, warning]


def test_warnings_reach_standard_error_once(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging(debug=False)
    for _ in range(3):
        logging.getLogger("medsr.infer").warning("the [rest] is interpolated")
    logging.getLogger("medsr.infer").debug("hidden")
    captured = capsys.readouterr()
    assert captured.err == "medsr: warning: the [rest] is interpolated\n"
    assert captured.out == ""


def test_help_and_version_load_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from medsr.cli.main import main\n"
        "for words in (['--help'], ['--version'], ['upscale', '--help']):\n"
        "    assert main(words) == 0\n"
        "heavy = {'torch', 'monai', 'nibabel', 'pydicom', 'SimpleITK'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_module_and_codes_of_the_process(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "medsr"]
    good = subprocess.run(
        [*command, "--version"], capture_output=True, encoding="utf-8", check=False
    )
    assert (good.returncode, good.stdout) == (0, f"medsr {__version__}\n")
    missing = [*command, "inspect", str(tmp_path / "absent.nii")]
    bad = subprocess.run(missing, capture_output=True, encoding="utf-8", check=False)
    assert bad.returncode == 11
    assert bad.stderr.count("\n") == 1

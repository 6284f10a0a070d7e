"""Continuous integration proves what it says: judges are there, and their tests are not skipped."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

STUBS = {
    "id": "echo 0",
    "sleep": 'echo "sleep $1" >>"$STATE/log"',
    "make": 'echo "make $* for: ${MEDSR_TESTS_REQUIRE:-nothing}"',
    # Installed once as many calls as $STATE/good says were made.
    "apt-get": """
        case "$1" in update) exit 0;; esac
        echo "install" >>"$STATE/log"
        [ -e "$POLICY_SEEN" ] || cp "$MEDSR_CI_POLICY" "$POLICY_SEEN"
        [ "$(grep -c install "$STATE/log")" -ge "$(cat "$STATE/good")" ] && touch "$STATE/there" ||
            { echo "E: Unable to locate package"; exit 100; }
    """,
    "dpkg": """
        [ -e "$STATE/there" ] || exit 1
        [ "$1" = -s ] || printf '%s\\n' /usr/bin/judge-one /usr/share/doc/x /usr/sbin/judge-two
    """,
}


@pytest.fixture
def ci(repository: Path, tmp_path: Path) -> Path:
    """A copy of the script in a folder of its own, where no command of the system is touched."""
    (tmp_path / ".ci").mkdir()
    (tmp_path / "stubs").mkdir()
    shutil.copy(repository / ".ci" / "run", tmp_path / ".ci" / "run")
    for name, body in STUBS.items():
        stub = tmp_path / "stubs" / name
        stub.write_text(f"#!/bin/sh\n{body}\n")
        stub.chmod(0o755)
    return tmp_path


def run(place: Path, *, good: int, **more: str) -> subprocess.CompletedProcess[str]:
    (place / "good").write_text(str(good))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("MEDSR_")},
        "PATH": f"{place / 'stubs'}{os.pathsep}{os.environ['PATH']}",
        "STATE": str(place),
        "MEDSR_CI_POLICY": str(place / "policy"),
        "POLICY_SEEN": str(place / "seen"),
        **more,
    }
    return subprocess.run(
        ["bash", str(place / ".ci" / "run")], env=environment, capture_output=True, encoding="utf-8"
    )


def test_judges_are_installed_and_required(ci: Path) -> None:
    done = run(ci, good=2)
    assert done.returncode == 0, done.stderr
    assert (ci / "log").read_text().split("\n")[:3] == ["install", "sleep 20", "install"]
    required = done.stdout.partition("make test for: ")[2].split()
    assert {"orthanc", "dcm2niix", "judge-one", "judge-two"} <= set(required)
    # No service is started by what is installed, and the policy is gone afterwards.
    assert "exit 101" in (ci / "seen").read_text()
    assert not (ci / "policy").exists()
    again = run(ci, good=9)
    assert again.returncode == 0
    assert "judge-one" in again.stdout
    assert (ci / "log").read_text().count("install") == 2


def test_without_judges_it_fails_in_one_line_unless_told_otherwise(ci: Path) -> None:
    done = run(ci, good=9)
    assert done.returncode == 1
    assert "make" not in done.stdout
    (line,) = done.stderr.splitlines()
    assert "orthanc" in line
    assert "3 tries" in line
    assert "E: Unable to locate package" in line
    assert "MEDSR_CI_WITHOUT_JUDGES=1" in line
    without = run(ci, good=99, MEDSR_CI_WITHOUT_JUDGES="1")
    assert without.returncode == 0
    assert "make test for: nothing" in without.stdout


SKIPS = """
import pytest

def test_of_a_judge():
    pytest.skip("needs Orthanc and its plugin (Debian: orthanc)")

@pytest.mark.skipif(True, reason="needs dcm2niix")
def test_of_another():
    pass

def test_of_something_else():
    pytest.skip("needs the real scans, which are not here")
"""


@pytest.mark.parametrize(
    ("required", "words"),
    [("orthanc dcm2niix", "1 failed, 1 skipped, 1 error"), ("", "3 skipped")],
)
def test_a_judge_that_is_there_is_not_skipped(
    repository: Path, tmp_path: Path, required: str, words: str
) -> None:
    (tmp_path / "test_skips.py").write_text(SKIPS)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "conftest", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(repository / "tests"),
            "MEDSR_TESTS_REQUIRE": required,
        },
        capture_output=True,
        encoding="utf-8",
    )
    assert words in done.stdout, done.stdout
    assert ("says that orthanc is there" in done.stdout) == bool(required)

"""The fuzz harness: seeded cases, each a short list of edits to a good file, within bounds.

A target proposes edits from a random generator, builds a file from edits, and uses it. Every case
must end in a result or a ``MedsrError`` of one line, within seconds and a gigabyte. Edits are
plain JSON, so that a case that fails is kept in ``corpus.json`` as it is printed.

``MEDSR_FUZZ_CASES`` says how many cases each target runs, ``MEDSR_FUZZ_SEED`` where they start
(``make fuzz`` takes many, and another seed each day). Targets whose libraries may take the process
with them run apart, in a child process (``apart.py``): one that dies or never ends is a case that
failed. Of the others ``MEDSR_FUZZ_TRACE`` names a file that each case is written to before it runs.
"""

from __future__ import annotations

import json
import os
import resource
import select
import shutil
import subprocess
import sys
import time
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medsr.errors import MedsrError

Edits = list[list[Any]]
Propose = Callable[[np.random.Generator], Edits]
Build = Callable[[Edits, Path], Path]
Use = Callable[[Path], object]
Verdict = tuple[str | None, str, str]
Judge = Callable[[Edits], Verdict]

CASES = int(os.environ.get("MEDSR_FUZZ_CASES", "300"))
SEED = int(os.environ.get("MEDSR_FUZZ_SEED", "20240917"))
TRACE = os.environ.get("MEDSR_FUZZ_TRACE")
LIMIT_SECONDS = 10.0
LIMIT_BYTES = 1 << 30
HANGS_SECONDS = 60.0  # of the clock; the machine may have other work
CORPUS = Path(__file__).with_name("corpus.json")


@dataclass(frozen=True)
class Fuzz:
    """Runs cases in a folder that is emptied before each."""

    folder: Path

    def run(
        self,
        name: str,
        propose: Propose,
        build: Build,
        use: Use,
        *,
        share: float = 1.0,
        apart: bool = False,
    ) -> None:
        """Run so many random cases; fail with all that misbehaved, as edits for the corpus.

        ``build`` and ``use`` of a target that runs apart are functions of its module.
        """
        wrong: list[str] = []
        refused = 0
        cases = max(1, round(CASES * share))
        with self._judge(build, use, apart) as judge:
            for case in range(cases):
                edits = propose(np.random.default_rng([SEED, zlib.crc32(name.encode()), case]))
                if TRACE is not None:  # what a crash of the whole process leaves behind
                    Path(TRACE).write_text(json.dumps({"target": name, "edits": edits}))
                fault, ended, _ = judge(edits)
                refused += ended != "result"
                if fault is not None:
                    wrong.append(f"{json.dumps({'target': name, 'edits': edits})}\n{fault}")
        assert not wrong, f"{len(wrong)} of {cases} cases:\n" + "\n".join(wrong[:3])
        # Mutations that never hurt, or that always do, test nothing.
        assert 0 < refused < cases or cases < 100

    def replay(self, name: str, build: Build, use: Use, *, apart: bool = False) -> None:
        """Run what once failed, each kept with what it must end in."""
        kept = [entry for entry in json.loads(CORPUS.read_text()) if entry["target"] == name]
        assert kept, f"the corpus has nothing for {name}"
        with self._judge(build, use, apart) as judge:
            for entry in kept:
                fault, ended, message = judge(entry["edits"])
                assert fault is None, f"{entry['why']}: {fault}"
                assert ended == entry["ends"], f"{entry['why']}: {message}"

    def _judge(self, build: Build, use: Use, apart: bool) -> AbstractContextManager[Judge]:
        """What runs a case and says its fault, how it ended ("result" or a class), and why."""
        if apart:
            return _child(self.folder, build, use)
        return nullcontext(lambda edits: told(*self.one(edits, build, use)))

    def one(self, edits: Edits, build: Build, use: Use) -> tuple[str | None, MedsrError | None]:
        """Run one case; say what was wrong with it, and how it was refused."""
        place = self.folder / "case"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        path = build(edits, place)
        start = time.process_time()
        error: MedsrError | None = None
        try:
            with bounded_memory(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                use(path)
        except MedsrError as refusal:
            error = refusal
            if "\n" in str(refusal).strip() or not str(refusal).strip():
                return f"the message is no line: {refusal!r}", error
        except Exception:
            return traceback.format_exc(limit=-4), None
        seconds = time.process_time() - start
        return (f"it took {seconds:.1f} s" if seconds > LIMIT_SECONDS else None), error


def told(fault: str | None, error: MedsrError | None) -> Verdict:
    """What :meth:`Fuzz.one` found, in words."""
    return fault, "result" if error is None else type(error).__name__, str(error or "")


@contextmanager
def _child(folder: Path, build: Build, use: Use) -> Iterator[Judge]:
    """Run cases in a child process, and in a new one when a case ended or stopped it."""
    command = [sys.executable, str(CORPUS.with_name("apart.py")), str(folder)]
    command += [build.__code__.co_filename, build.__name__, use.__name__]  # type: ignore[attr-defined]
    children: list[subprocess.Popen[str]] = []

    def judge(edits: Edits) -> Verdict:
        if not children or children[-1].poll() is not None:
            children.append(
                subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
                )
            )
        child = children[-1]
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(json.dumps(edits) + "\n")
        child.stdin.flush()
        ready, _, _ = select.select([child.stdout], [], [], HANGS_SECONDS)
        line = child.stdout.readline() if ready else ""
        if line:
            fault, ended, message = json.loads(line)
            return fault, ended, message
        if not ready:
            child.kill()
            child.wait()
            return f"it did not end within {HANGS_SECONDS:.0f} s", "a hang", ""
        return f"it ended the process with {child.wait()}", "a crash", ""

    try:
        yield judge
    finally:
        for child in children:
            child.kill()
            child.communicate()


@contextmanager
def bounded_memory() -> Iterator[None]:
    """Let the process have a gigabyte more than it has; what asks for more gets MemoryError."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + LIMIT_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.fixture
def fuzz(tmp_path: Path) -> Fuzz:
    """The harness, with a folder of its own."""
    return Fuzz(tmp_path)


def spoil_bytes(raw: bytes, edits: Edits) -> bytes:
    """Apply the edits that every kind of file can have.

    ``["byte", place, value]`` (place as a share of the length), ``["cut", share]``,
    ``["append", hex]``.
    """
    for kind, *what in edits:
        if kind == "byte" and raw:
            place = min(int(what[0] * len(raw)), len(raw) - 1)
            raw = raw[:place] + bytes([what[1]]) + raw[place + 1 :]
        elif kind == "cut":
            raw = raw[: int(what[0] * len(raw))]
        elif kind == "append":
            raw += bytes.fromhex(what[0])
    return raw


def propose_bytes(rng: np.random.Generator, *, within: float = 1.0) -> Edits:
    """One or a few edits of :func:`spoil_bytes`, places below a share of the length."""
    kind = rng.choice(["byte", "byte", "byte", "cut", "append"])
    if kind == "byte":
        count = int(rng.integers(1, 6))
        return [
            ["byte", round(float(rng.uniform(0.0, within)), 6), int(rng.choice(_BYTES))]
            for _ in range(count)
        ]
    if kind == "cut":
        return [["cut", round(float(rng.uniform(0.0, 1.0)), 4)]]
    return [["append", rng.bytes(int(rng.integers(1, 60))).hex()]]


_BYTES = [0, 1, 2, 7, 8, 16, 32, 64, 127, 128, 200, 254, 255]


@pytest.fixture
def spoil() -> Callable[[bytes, Edits], bytes]:
    """See :func:`spoil_bytes`."""
    return spoil_bytes


@pytest.fixture
def propose_spoil() -> Callable[..., Edits]:
    """See :func:`propose_bytes`."""
    return propose_bytes

"""The fuzz harness: seeded cases, each a short list of edits to a good file, within bounds.

A target proposes edits from a random generator, builds a file from edits, and uses it. Every case
must end in a result or a ``MedsrError`` of one line, within seconds and a gigabyte. Edits are
plain JSON, so that a case that fails is kept in ``corpus.json`` as it is printed.

``MEDSR_FUZZ_CASES`` says how many cases each target runs, ``MEDSR_FUZZ_SEED`` where they start
(``make fuzz`` takes many, and another seed each day). ``MEDSR_FUZZ_TRACE`` names a file that each
case is written to before it runs, for those that take the process with them.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import time
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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

CASES = int(os.environ.get("MEDSR_FUZZ_CASES", "300"))
SEED = int(os.environ.get("MEDSR_FUZZ_SEED", "20240917"))
TRACE = os.environ.get("MEDSR_FUZZ_TRACE")
LIMIT_SECONDS = 10.0
LIMIT_BYTES = 1 << 30
CORPUS = Path(__file__).with_name("corpus.json")


@dataclass(frozen=True)
class Fuzz:
    """Runs cases in a folder that is emptied before each."""

    folder: Path

    def run(
        self, name: str, propose: Propose, build: Build, use: Use, *, share: float = 1.0
    ) -> None:
        """Run so many random cases; fail with all that misbehaved, as edits for the corpus."""
        wrong: list[str] = []
        refused = 0
        cases = max(1, round(CASES * share))
        for case in range(cases):
            edits = propose(np.random.default_rng([SEED, zlib.crc32(name.encode()), case]))
            if TRACE is not None:  # what a crash of the whole process leaves behind
                Path(TRACE).write_text(json.dumps({"target": name, "edits": edits}))
            fault, error = self.one(edits, build, use)
            refused += error is not None
            if fault is not None:
                wrong.append(f"{json.dumps({'target': name, 'edits': edits})}\n{fault}")
        assert not wrong, f"{len(wrong)} of {cases} cases:\n" + "\n".join(wrong[:3])
        # Mutations that never hurt, or that always do, test nothing.
        assert 0 < refused < cases or cases < 100

    def replay(self, name: str, build: Build, use: Use) -> None:
        """Run what once failed, each kept with what it must end in."""
        kept = [entry for entry in json.loads(CORPUS.read_text()) if entry["target"] == name]
        assert kept, f"the corpus has nothing for {name}"
        for entry in kept:
            fault, error = self.one(entry["edits"], build, use)
            assert fault is None, f"{entry['why']}: {fault}"
            ended = "result" if error is None else type(error).__name__
            assert ended == entry["ends"], f"{entry['why']}: {error}"

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

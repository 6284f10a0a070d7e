"""A child process of the fuzz harness: cases come in by lines, verdicts go out by lines.

``python apart.py FOLDER MODULE BUILD USE``, started by ``conftest.py``. It loads the module of a
target by its path and runs each case as the harness would; nothing else lives here.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType


def load(path: Path) -> ModuleType:
    """A module by its path, as pytest's import mode loads them."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def main(folder: str, target: str, build: str, use: str) -> None:
    """Answer every line of edits with what became of the case."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    harness = load(Path(__file__).with_name("conftest.py"))
    module = load(Path(target))
    module._SPOIL[:] = [harness.spoil_bytes]
    fuzz = harness.Fuzz(Path(folder))
    for line in sys.stdin:
        found = fuzz.one(json.loads(line), getattr(module, build), getattr(module, use))
        answers.write(json.dumps(harness.told(*found)) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])

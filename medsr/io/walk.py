"""Walking through folders, links to folders among them, without going round in circles."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path


def walk(
    root: Path, *, onerror: Callable[[OSError], object] | None = None
) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Go through a folder as :func:`os.walk` does, and then through what its links lead to.

    Every folder is visited once, under its own name where it lies below ``root``. So a link to a
    folder that was visited, or to one that holds ``root``, leads nowhere.

    Args:
        root: where to begin.
        onerror: called for a folder that cannot be read.

    Yields:
        (folder, names of folders, names of files), both sorted; what is taken out of the first
        list is not visited. Links to nothing are among the files.
    """
    here = root.resolve()
    seen: set[Path] = set()
    waiting = [root]
    while waiting:
        start = waiting.pop(0)
        if start is not root and here.is_relative_to(start.resolve()):
            continue
        for name, folders, files in os.walk(start, onerror=onerror):
            place = Path(name)
            real = place.resolve()
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            folders.sort()
            yield place, folders, sorted(files)
            waiting.extend(place / each for each in folders if (place / each).is_symlink())

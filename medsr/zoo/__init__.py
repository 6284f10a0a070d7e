"""The shipped models: one folder each with weights, spec and card.

Here live the names, folders and specs of what ships beside this file. Nothing here loads weights
or imports torch; ``medsr.model.SRModel.load`` does that. Every function takes the folder of the
zoo as ``root``, so that another collection of models can be used in its place.
"""

from __future__ import annotations

from pathlib import Path

from medsr.errors import UnknownModelError
from medsr.model import SPEC_FILE, ModelSpec

ROOT = Path(__file__).parent
"""Folder of the models that ship with the package."""

__all__ = ["ROOT", "names", "path", "resolve", "specs"]


def names(root: Path | None = None) -> list[str]:
    """Return the names of the models under ``root`` (default: those shipped), sorted."""
    folder = ROOT if root is None else root
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in folder.iterdir() if (entry / SPEC_FILE).is_file())


def path(name: str, root: Path | None = None) -> Path:
    """Return the folder of the model ``name``.

    Raises:
        UnknownModelError: No model of that name; the message lists those there are.
    """
    known = names(root)
    if name not in known:
        shipped = ", ".join(known) if known else "none"
        raise UnknownModelError(
            f"model {name!r} is unknown; shipped models: {shipped}; "
            f"or pass a folder that holds {SPEC_FILE}"
        )
    return (ROOT if root is None else root) / name


def resolve(name_or_folder: str | Path, root: Path | None = None) -> Path:
    """Return the folder of a shipped name or of a model folder; shipped names come first.

    Raises:
        UnknownModelError: Neither a shipped name nor a folder.
    """
    if isinstance(name_or_folder, str) and name_or_folder in names(root):
        return path(name_or_folder, root)
    folder = Path(name_or_folder)
    if folder.is_dir():
        return folder
    return path(str(name_or_folder), root)


def specs(root: Path | None = None) -> list[ModelSpec]:
    """Return the specs of the models under ``root``, sorted by name.

    Raises:
        ModelFileError: A spec is damaged.
    """
    return [ModelSpec.read(path(name, root)) for name in names(root)]

"""The shipped models: one folder each with weights, spec and card.

Names, folders and specs of the models beside this file. Nothing here loads weights or imports
torch; ``medsr.model.SRModel.load`` does that. Every function takes the folder of the
zoo as ``root``, so that another collection of models can be used in its place.
"""

from __future__ import annotations

from pathlib import Path

from medsr.errors import UnknownModelError
from medsr.spec import SPEC_FILE, ModelSpec

ROOT = Path(__file__).parent
"""Folder of the models that ship with the package."""

__all__ = ["ROOT", "names", "path", "resolve", "specs"]


def names(root: Path | None = None) -> list[str]:
    """Return the names of the models under ``root`` (default: those shipped), sorted.

    Examples:
        >>> from medsr import zoo
        >>> [name for name in zoo.names() if not name.endswith("teacher")]
        ['ct-z4', 'mr-iso2', 'mr-z4']
    """
    folder = ROOT if root is None else root
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in folder.iterdir() if (entry / SPEC_FILE).is_file())


def path(name: str, root: Path | None = None) -> Path:
    """Return the folder of the model ``name``.

    Raises:
        UnknownModelError: No model of that name; the message lists those there are.

    Examples:
        >>> from medsr import zoo
        >>> sorted(file.name for file in zoo.path("ct-z4").iterdir())
        ['card.md', 'spec.json', 'weights.safetensors']
    """
    available = names(root)
    if name not in available:
        shipped = ", ".join(available) if available else "none"
        raise UnknownModelError(
            f"model {name!r} is unknown; shipped models: {shipped}; "
            f"or pass a folder that holds {SPEC_FILE}"
        )
    return (ROOT if root is None else root) / name


def resolve(name_or_folder: str | Path, root: Path | None = None) -> Path:
    """Return the folder of a shipped name or of a model folder; shipped names come first.

    Raises:
        UnknownModelError: Neither a shipped name nor a folder.

    Examples:
        >>> import tempfile
        >>> from medsr import zoo
        >>> zoo.resolve("mr-z4").name
        'mr-z4'
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     str(zoo.resolve(folder)) == folder  # a model of your own
        True
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

    Examples:
        >>> from medsr import zoo
        >>> fast = [spec for spec in zoo.specs() if spec.role == "student"]
        >>> [(spec.name, spec.scale) for spec in fast if spec.modality == "MR"]
        [('mr-iso2', (2, 2, 2)), ('mr-z4', (1, 1, 4))]
    """
    return [ModelSpec.read(path(name, root)) for name in names(root)]

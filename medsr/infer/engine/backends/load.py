"""Loads a model folder of either kind: weights for torch, or int8 for the backend that made it."""

from __future__ import annotations

from pathlib import Path

import torch

from medsr import zoo
from medsr.compress.quantise import DETAILS_FILE, QuantisedModel
from medsr.model import SRModel


def load_model(
    name_or_folder: str | Path, *, device: str | torch.device = "cpu", root: Path | None = None
) -> SRModel:
    """Load a shipped model by name, or a float or int8 model from its folder.

    Args:
        name_or_folder: A name of ``medsr.zoo.names()``, or a folder that ``SRModel.save`` or
            ``medsr quantise`` wrote.
        device: Where the parameters go; int8 is computed on the processor whatever this is.
        root: Folder of the shipped models, if it is not the package's own.

    Returns:
        The model; a :class:`~medsr.compress.QuantisedModel` where the folder holds int8.

    Raises:
        MissingExtraError: The library that computes int8 is not installed.
        ModelFileError: The folder is incomplete or damaged.
        UnknownModelError: Neither a shipped name nor a folder.

    Examples:
        >>> from medsr.infer.engine.backends.load import load_model
        >>> load_model("ct-z4").spec.role  # or a folder, of floats or of int8
        'student'
    """
    folder = zoo.resolve(name_or_folder, root)
    if (folder / DETAILS_FILE).is_file():
        return QuantisedModel.load(folder, device=device)
    return SRModel.load(folder, device=device)

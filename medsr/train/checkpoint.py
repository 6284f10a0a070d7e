"""Checkpoints: one dictionary in one file, which is there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from medsr.errors import CheckpointError, OutputError, OutputNotWritableError
from medsr.io.atomic import atomic_file, reason_of

CHECKPOINT_FILE = "checkpoint.pt"


def save_checkpoint(state: dict[str, Any], folder: Path) -> None:
    """Write a checkpoint beside the old one, flush it to disk, then rename it over the old one.

    Args:
        state: Tensors and plain values.
        folder: Run folder.

    Raises:
        OutputNotWritableError: The disk is full or the folder not writable; the old one is kept.
    """
    try:
        target = folder / CHECKPOINT_FILE
        with atomic_file(target, overwrite=True) as temporary, temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
    except OutputError as error:
        raise OutputNotWritableError(
            f"checkpoint in {folder.name}: cannot be written ({reason_of(error)}); "
            "free some space or choose another --out"
        ) from error


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """Read a run folder's checkpoint; None when there is none.

    Raises:
        CheckpointError: If the file is damaged.
    """
    path = folder / CHECKPOINT_FILE
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(
            f"checkpoint {path.name} in {folder.name}: damaged; start again with --restart"
        ) from error
    return state


def remove_checkpoint(folder: Path) -> None:
    """Take a run folder's checkpoint away, so that nothing can go on from it."""
    (folder / CHECKPOINT_FILE).unlink(missing_ok=True)

"""``medsr train``: trains a network by a recipe without distillation terms.

``run_recipe`` serves ``medsr distill`` too; what a recipe may hold is in ``medsr.recipe``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from medsr.cli.options import write
from medsr.errors import RecipeError, UsageError

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="Recipe, a YAML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Changes, such as loop.steps=2000."),
]
Resume = Annotated[
    bool,
    typer.Option("--resume/--restart", help="Continue from the last checkpoint, or start anew."),
]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Folder of logs and checkpoints.")
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
Devices = Annotated[
    int, typer.Option("--devices", min=1, help="Processes (CPU) or GPUs to share the work.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bar and no summary.")]


def train_command(
    recipe: RecipePath,
    overrides: Overrides = None,
    resume: Resume = True,
    out: Out = None,
    device: Device = "auto",
    devices: Devices = 1,
    quiet: Quiet = False,
) -> None:
    """Train a network by a recipe without distillation terms."""
    run_recipe(
        recipe,
        overrides or [],
        distils=False,
        out=out,
        resume=resume,
        device=device,
        devices=devices,
        quiet=quiet,
    )


def run_recipe(
    recipe: Path,
    overrides: list[str],
    *,
    distils: bool,
    out: Path | None,
    resume: bool,
    device: str,
    devices: int,
    quiet: bool,
) -> None:
    """Check that a recipe is of the command's kind, and run it.

    Args:
        recipe: A YAML file.
        overrides: ``key=value`` texts.
        distils: Whether the command takes recipes with distillation terms, and no others.
        out: Folder of the run, or None for the recipe's own.
        resume: Whether to continue from the folder's checkpoint.
        device: ``auto``, ``cpu`` or ``cuda``.
        devices: Number of processes or GPUs.
        quiet: Neither progress nor summary.

    Raises:
        RecipeError: The recipe is wrong, or has terms where the command wants none, or none
            where it wants some.
        UsageError: An override is no ``key=value``.
    """
    from medsr.recipe import read_recipe

    for text in overrides:
        if not text.partition("=")[1] or text.startswith("="):
            raise UsageError(f"{text!r} is no override; write key=value, such as loop.steps=2000")
    has_terms = bool(read_recipe(recipe, overrides).terms)
    if distils and not has_terms:
        raise RecipeError(f"{recipe}: the recipe has no distillation terms; use medsr train")
    if has_terms and not distils:
        raise RecipeError(f"{recipe}: the recipe has distillation terms; use medsr distill")

    from medsr.train import run

    folder = run(
        recipe, overrides, out=out, resume=resume, device=device, devices=devices, quiet=quiet
    )
    # Each process of several comes by here; the launcher numbers them.
    if not quiet and os.environ.get("LOCAL_RANK", "0") == "0":
        write(f"model folder: {folder}")

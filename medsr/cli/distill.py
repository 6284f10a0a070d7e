"""``medsr distill``: trains a student under a teacher, both named in a recipe."""

from __future__ import annotations

from medsr.cli.train import Device, Devices, Out, Overrides, Quiet, RecipePath, Resume, run_recipe


def distill_command(
    recipe: RecipePath,
    overrides: Overrides = None,
    resume: Resume = True,
    out: Out = None,
    device: Device = "auto",
    devices: Devices = 1,
    quiet: Quiet = False,
) -> None:
    """Distil a student from a teacher by a recipe that names both."""
    run_recipe(
        recipe,
        overrides or [],
        teacher=True,
        out=out,
        resume=resume,
        device=device,
        devices=devices,
        quiet=quiet,
    )

"""``medsr distill``: trains a network by a recipe with distillation terms.

Most terms need the recipe's teacher; some need none, such as ``mutual`` and ``student_branches``.
"""

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
    """Train a student, mostly under a teacher, by a recipe with distillation terms."""
    run_recipe(
        recipe,
        overrides or [],
        distils=True,
        out=out,
        resume=resume,
        device=device,
        devices=devices,
        quiet=quiet,
    )

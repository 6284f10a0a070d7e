"""``medsr quantise``: makes an int8 model of a float one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medsr.cli.options import suppress_info, write
from medsr.cli.prune import refuse_existing


def quantise_command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Shipped name or model folder.")],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="Folder of the result.")],
    cohort: Annotated[
        Path, typer.Option("--cohort", metavar="CSV", help="Manifest of scans to calibrate on.")
    ],
    split: Annotated[str, typer.Option("--split", help="Which split of the manifest.")] = "train",
    patches: Annotated[int, typer.Option("--patches", min=1, help="Patches to look at.")] = 16,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the result.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No summary.")] = False,
) -> None:
    """Quantise a model to int8 for processors, with ranges seen on a cohort's training scans."""
    suppress_info(quiet)
    refuse_existing(output, overwrite=overwrite)

    from medsr.compress import calibration_patches, quantise
    from medsr.model import SRModel

    source = SRModel.load(model)
    calibration = calibration_patches(cohort, source.spec, split=split, count=patches)
    quantised = quantise(source, calibration)
    quantised.save(output)
    if not quiet:
        write(
            f"{quantised.spec.name}: calibrated on {len(calibration)} patches; "
            f"model folder: {output}"
        )

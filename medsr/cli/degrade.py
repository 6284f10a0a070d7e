"""``medsr degrade``: makes a low-resolution scan from a sharp one, as a scanner would."""

from __future__ import annotations

import logging
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from medsr.cli.options import (
    MODALITY_NAMES,
    ModalityName,
    ModalityOption,
    parse_whole_scale,
    suppress_info,
    write,
)
from medsr.errors import UsageError

logger = logging.getLogger(__name__)


class AxisOption(StrEnum):
    """Values of ``--axis``: which array axis becomes the slice axis."""

    auto = "auto"
    x = "x"
    y = "y"
    z = "z"


def degrade_command(
    scan: Annotated[Path, typer.Argument(metavar="INPUT", help="A sharp scan.")],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="Low-resolution scan to write.")],
    scale: Annotated[
        str, typer.Option("--scale", help="Whole factors in-plane, in-plane, through-plane.")
    ],
    kind: Annotated[
        str,
        typer.Option(
            "--kind",
            metavar="KIND",
            help="Physics, such as slice_profile; medsr methods lists all.",
        ),
    ],
    axis: Annotated[
        AxisOption,
        typer.Option(
            "--axis",
            case_sensitive=False,
            help="Array axis of the slices; auto takes the thickest, else the last.",
        ),
    ] = AxisOption.auto,
    noise: Annotated[
        float,
        typer.Option(
            "--noise", min=0.0, help="Standard deviation of added noise, in the scan's units."
        ),
    ] = 0.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the noise.")] = 0,
    modality: ModalityName = ModalityOption.auto,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing output.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No summary.")] = False,
) -> None:
    """Simulate a low-resolution scan; its grid covers the same space."""
    suppress_info(quiet)
    factor = parse_whole_scale(scale)

    from medsr.io import check_output, check_writable, load, output_format, save

    output_format(output)
    check_output(output, overwrite=overwrite)

    from medsr.degrade import build_degradation, degrade_volume

    # Degradations from elsewhere may know no noise.
    degradation = build_degradation(kind, factor, **({"noise": noise} if noise > 0 else {}))
    volume = load(scan, modality=MODALITY_NAMES[modality])
    check_writable(volume, output)
    slices = _slice_axis(axis, volume.geometry.slice_axis())
    order = [i for i in range(3) if i != slices] + [slices]
    for size, step, i in zip((volume.shape[i] for i in order), factor, order, strict=True):
        if size < step:
            raise UsageError(
                f"--scale {scale}: axis {'xyz'[i]} of the scan has {size} voxels, fewer than {step}"
            )
        if size % step:
            logger.warning("axis %s: %d voxels at the far end dropped", "xyz"[i], size % step)
    result = degrade_volume(volume.permute(order), degradation, seed=seed if noise > 0 else None)
    # Where each axis of the file went, to bring it back.
    result = result.permute([order.index(i) for i in range(3)])
    save(result, output, overwrite=overwrite)
    if not quiet:
        before = " x ".join(f"{value:.3g}" for value in volume.spacing)
        after = " x ".join(f"{value:.3g}" for value in result.spacing)
        write(f"spacing {before} -> {after} mm by {kind}, slices along {'xyz'[slices]}")


def _slice_axis(option: AxisOption, found: int | None) -> int:
    if option is not AxisOption.auto:
        return "xyz".index(option.value)
    return 2 if found is None else found

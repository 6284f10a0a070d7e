"""``medsr adapt``: fits a model to a scanner by low-rank adapters, and checks whether it helped."""

from __future__ import annotations

import logging
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated

import typer

from medsr.cli.options import suppress_info, write
from medsr.cli.train import Device, Out, Overrides, Quiet, Resume

if TYPE_CHECKING:
    from medsr.train.adapt import Adapted

logger = logging.getLogger(__name__)


def adapt_command(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Shipped name or model folder to start from.")
    ],
    cohort: Annotated[
        Path, typer.Option("--cohort", metavar="CSV", help="Manifest of the scanner's scans.")
    ],
    overrides: Overrides = None,
    split: Annotated[str, typer.Option("--split", help="Split to learn from.")] = "train",
    held_out: Annotated[
        str | None,
        typer.Option(
            "--held-out",
            metavar="SPLIT",
            help="Split to check on. Default: dev or another one, else a patient is kept back.",
        ),
    ] = None,
    rank: Annotated[int, typer.Option("--rank", min=1, help="Rank of the adapters.")] = 4,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Optimiser steps.")] = 300,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of everything random.")] = 0,
    resume: Resume = True,
    out: Out = None,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Adapt a model to a scanner from a handful of its scans.

    Only low-rank adapters of the convolutions are trained; they are merged at the end, so that the
    result is an ordinary model. It is compared with the model it came from on scans of patients
    that were not learnt from.
    """
    suppress_info(quiet)
    from medsr.train.adapt import adapt

    adapted = adapt(
        model,
        cohort,
        overrides or [],
        split=split,
        held_out=held_out,
        out=out,
        rank=rank,
        steps=steps,
        seed=seed,
        resume=resume,
        device=device,
        quiet=quiet,
    )
    base = adapted.spec.training["adapted_from"]["name"]
    if adapted.held_out is not None and adapted.held_out.gain <= 0:
        logger.warning(
            "the adapted model is not better than %s on held-out scans (%+.2f dB); keep %s",
            base,
            adapted.held_out.gain,
            base,
        )
    if not quiet:
        _print_summary(adapted, base)


def _print_summary(adapted: Adapted, base: str) -> None:
    training = adapted.spec.training
    write(f"learnt from {len(training['scans'])} scans of {training['patients']} patients")
    scores = adapted.held_out
    if scores is None:
        write("held-out scans: none, so nothing is known of any gain")
    else:
        write(
            f"held-out scans: {len(scores.before)}, PSNR {fmean(scores.before):.2f} dB with {base}"
            f", {fmean(scores.after):.2f} dB adapted, {scores.gain:+.2f} dB "
            f"(better on {scores.better} of {len(scores.before)})"
        )
    write(f"model folder: {adapted.folder}")

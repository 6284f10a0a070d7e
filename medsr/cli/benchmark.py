"""``medsr benchmark``: the programs that compare side by side, one file each."""

from __future__ import annotations

import typer

from medsr.cli.benchmark_compression import compression_command
from medsr.cli.benchmark_distillation import distillation_command
from medsr.cli.benchmark_inference import inference_command
from medsr.cli.benchmark_networks import networks_command

benchmark_app = typer.Typer(
    no_args_is_help=True,
    help="Compare side by side and save what was measured as JSON.",
)
benchmark_app.command("compression")(compression_command)
benchmark_app.command("distillation")(distillation_command)
benchmark_app.command("inference")(inference_command)
benchmark_app.command("networks")(networks_command)

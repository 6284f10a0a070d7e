"""The ``medsr`` command: one file per subcommand, put together here.

Importing this package imports no torch, no MONAI and no reader of images: each command imports what
it needs when it runs, so that ``medsr --help`` answers at once. How errors become exit codes is in
``main``.
"""

from __future__ import annotations

from typing import Annotated

import typer

from medsr import __version__
from medsr.cli.adapt import adapt_command
from medsr.cli.benchmark import benchmark_app
from medsr.cli.card import card_command
from medsr.cli.degrade import degrade_command
from medsr.cli.distill import distill_command
from medsr.cli.evaluate import evaluate_command
from medsr.cli.inspect import inspect_command
from medsr.cli.methods import methods_command
from medsr.cli.models import models_command
from medsr.cli.options import set_up_logging, write
from medsr.cli.prune import prune_command
from medsr.cli.quantise import quantise_command
from medsr.cli.train import train_command
from medsr.cli.upscale import upscale_command

app = typer.Typer(
    name="medsr",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        write(f"medsr {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _start(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option(
            "--debug", envvar="MEDSR_DEBUG", help="Show tracebacks and every log message."
        ),
    ] = False,
) -> None:
    """Sharper CT and MR volumes: same format, same place in space, same units."""
    set_up_logging(debug=debug)
    if context.invoked_subcommand is None:
        write(context.get_help())


app.command("upscale")(upscale_command)
app.command("inspect")(inspect_command)
app.command("models")(models_command)
app.command("methods")(methods_command)
app.command("degrade")(degrade_command)
app.command("evaluate")(evaluate_command)
app.command("card")(card_command)
app.command("train")(train_command)
app.command("distill")(distill_command)
app.command("adapt")(adapt_command)
app.command("prune")(prune_command)
app.command("quantise")(quantise_command)
app.add_typer(benchmark_app, name="benchmark")

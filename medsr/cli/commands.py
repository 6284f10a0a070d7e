"""Which commands there are, and the program put together of them: of all, or of the one called.

typer looks into the signature of every command it is given, so a call that names one is given that
one alone and answers sooner. No command imports torch, MONAI or a reader of images before it runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Annotated

import typer

from medsr._version import __version__
from medsr.cli.options import set_up_logging, write

# In the order of the help: name, module, and what is in it.
COMMANDS: dict[str, tuple[str, str]] = {
    "upscale": ("medsr.cli.upscale", "upscale_command"),
    "pacs": ("medsr.cli.pacs", "pacs_app"),
    "inspect": ("medsr.cli.inspect", "inspect_command"),
    "models": ("medsr.cli.models", "models_command"),
    "methods": ("medsr.cli.methods", "methods_command"),
    "degrade": ("medsr.cli.degrade", "degrade_command"),
    "cohort": ("medsr.cli.cohort", "cohort_app"),
    "evaluate": ("medsr.cli.evaluate", "evaluate_command"),
    "card": ("medsr.cli.card", "card_command"),
    "train": ("medsr.cli.train", "train_command"),
    "distill": ("medsr.cli.distill", "distill_command"),
    "adapt": ("medsr.cli.adapt", "adapt_command"),
    "prune": ("medsr.cli.prune", "prune_command"),
    "quantise": ("medsr.cli.quantise", "quantise_command"),
    "benchmark": ("medsr.cli.benchmark", "benchmark_app"),
}


def build_app(words: Sequence[str] | None = None) -> typer.Typer:
    """Put the program together.

    Args:
        words: The arguments of a call. The program then has only the command that they name; it
            has all of them where they name none, and where they are None.
    """
    app = typer.Typer(
        name="medsr",
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_start)
    # The options before a command are flags, so the first other word is its name.
    called = next((word for word in words or () if not word.startswith("-")), None)
    for name in [called] if called in COMMANDS else COMMANDS:
        module, attribute = COMMANDS[name]
        command = getattr(import_module(module), attribute)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(command)
    return app


def _version(wanted: bool) -> None:
    if wanted:
        write(f"medsr {__version__}")
        raise typer.Exit


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

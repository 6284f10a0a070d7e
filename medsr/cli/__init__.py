"""The ``medsr`` command: one file per subcommand, put together in ``commands``.

Importing this package imports nothing else. How errors become exit codes is in ``main``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import typer

    app: typer.Typer


def __getattr__(name: str) -> Any:
    """Put the whole command together when ``app`` is first asked for."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from medsr.cli.commands import build_app

    globals()["app"] = build_app()
    return globals()["app"]

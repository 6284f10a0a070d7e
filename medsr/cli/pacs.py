"""``medsr pacs``: scans from and to archives on the network."""

from __future__ import annotations

import json
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medsr.cli.options import progress_bar, suppress_info, takes_upscale_options, write, write_json
from medsr.errors import MedsrError

if TYPE_CHECKING:
    from medsr.infer.options import UpscaleOptions
    from medsr.pacs import Exchange, Settings

pacs_app = typer.Typer(
    no_args_is_help=True,
    help="Take scans from, and bring results to, DICOM nodes and DICOMweb servers.",
)


class RetrieveOption(StrEnum):
    """Values of ``--retrieve``."""

    auto = "auto"
    get = "get"
    move = "move"


_ADDRESS = "dicom://AET@host:port, dicoms://… (TLS) or https://host/dicom-web."
Source = Annotated[str, typer.Option("--from", metavar="ADDRESS", help=_ADDRESS)]
Target = Annotated[
    str, typer.Option("--to", metavar="ADDRESS", help="Where the result goes; as --from.")
]
Study = Annotated[str, typer.Option("--study", metavar="UID", help="StudyInstanceUID.")]
Title = Annotated[str, typer.Option("--aet", metavar="TITLE", help="Our own AE title.")]
Timeout = Annotated[
    float,
    typer.Option("--timeout", metavar="SECONDS", help="Wait so long for every answer."),
]
Retries = Annotated[
    int, typer.Option("--retries", metavar="N", help="Try again so often after passing faults.")
]
Authorities = Annotated[
    Path | None,
    typer.Option("--ca", metavar="FILE.pem", help="Authorities to trust, not the system's."),
]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Do not check TLS certificates. Never for patients.")
]


@pacs_app.command("list")
def list_command(
    source: Source,
    study: Study,
    aet: Title = "MEDSR",
    timeout: Timeout = 30.0,
    retries: Retries = 3,
    ca: Authorities = None,
    insecure: Insecure = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the series of a study: UID, modality, number of instances."""
    from medsr.pacs import Settings, list_series

    settings = Settings(
        title=aet, timeout_seconds=timeout, retries=retries, ca_file=ca, verify=not insecure
    )
    entries = list_series(source, study, settings=settings)
    if as_json:
        write_json(
            [{"series": e.uid, "modality": e.modality, "instances": e.instances} for e in entries]
        )
        return
    for entry in entries:
        count = "?" if entry.instances is None else entry.instances
        write(f"{entry.uid}  {entry.modality or '?'}  {count}")


@pacs_app.command("upscale")
@takes_upscale_options
def upscale_command(
    source: Source,
    target: Target,
    study: Study,
    options: UpscaleOptions,
    series: Annotated[
        str | None,
        typer.Option(
            "--series", metavar="UID", help="SeriesInstanceUID; default: the only one that suits."
        ),
    ] = None,
    aet: Title = "MEDSR",
    retrieve: Annotated[
        RetrieveOption,
        typer.Option("--retrieve", case_sensitive=False, help="How a DICOM node is to send."),
    ] = RetrieveOption.auto,
    port: Annotated[
        int | None,
        typer.Option("--port", metavar="N", help="Receive here what C-MOVE sends."),
    ] = None,
    timeout: Timeout = 30.0,
    retries: Retries = 3,
    ca: Authorities = None,
    insecure: Insecure = False,
    report: Annotated[
        Path | None,
        typer.Option("--report", metavar="FILE.json", help="Write what was done as JSON."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the report.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress and no summary.")] = False,
) -> None:
    """Fetch a series from an archive, upscale it, and bring the result to an archive."""
    suppress_info(quiet)
    from medsr.pacs import Settings

    settings = Settings(
        title=aet,
        port=port,
        retrieve=retrieve.value,
        timeout_seconds=timeout,
        retries=retries,
        ca_file=ca,
        verify=not insecure,
    )
    exchange = _run(source, target, study, series, settings, options, report, overwrite, quiet)
    if not quiet:
        _print_summary(exchange, report)


def _run(
    source: str,
    target: str,
    study: str,
    series: str | None,
    settings: Settings,
    options: UpscaleOptions,
    report: Path | None,
    overwrite: bool,
    quiet: bool,
) -> Exchange:
    """Run the request; the report is written however it ends."""
    from medsr.io.atomic import check_output
    from medsr.pacs import upscale

    if report is not None:
        check_output(report, overwrite=overwrite)
    accounts: list[Exchange] = []
    error: BaseException | None = None
    with ExitStack() as after:
        bar = after.enter_context(progress_bar(quiet=quiet))
        task = bar.add_task("connecting", total=None)
        try:
            return upscale(
                source,
                target,
                options,
                study=study,
                series=series,
                settings=settings,
                progress=lambda stage, done, total: bar.update(
                    task, description=stage, completed=done, total=total
                ),
                account=accounts.append,
            )
        except BaseException as raised:
            error = raised
            raise
        finally:
            if report is not None and accounts:
                _write_report(report, accounts[0], error, overwrite=overwrite)


def _write_report(
    path: Path, exchange: Exchange, error: BaseException | None, *, overwrite: bool
) -> None:
    """Write the account. Of an error only its kind is told, as in the table of exit codes."""
    from medsr.io.atomic import atomic_file

    told = exchange.as_dict()
    if error is not None:
        code = error.exit_code if isinstance(error, MedsrError) else None
        told["error"] = {"kind": type(error).__name__, "exit_code": code}
    with atomic_file(path, overwrite=overwrite) as file:
        file.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def _print_summary(exchange: Exchange, report: Path | None) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("source", f"{exchange.series}, {len(exchange.fetched.done)} instances fetched")
    table.add_row("result", str(exchange.result))
    if exchange.result_study != exchange.study:
        table.add_row("in study", str(exchange.result_study))
    there = f"{exchange.images} instances, at {exchange.target}"
    if exchange.status == "present":
        table.add_row("nothing to do", f"this request was answered before: {there}")
    else:
        sent = exchange.sent.as_dict()
        before = f", {exchange.already} were there before" if exchange.already else ""
        table.add_row("stored", f"{sent['instances']} of {there}{before}")
        codes = ", ".join(f"{code} x {count}" for code, count in sent["statuses"].items())
        table.add_row("status codes", f"{codes} ({sent['warnings']} warnings)")
    if exchange.upscaled is not None:
        model = exchange.upscaled["model"]
        seconds = exchange.upscaled["seconds"]["total"]
        table.add_row("model", f"{model['name']} {model['version']}, {seconds:.1f} seconds")
    if report is not None:
        table.add_row("written", str(report))
    Console().print(table, markup=False, highlight=False)

"""What the commands share: reading of option values, the consoles, and logging.

Standard output carries results, standard error carries messages and progress. Nothing here imports
torch or MONAI.
"""

from __future__ import annotations

import json
import logging
import math
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from functools import cache, wraps
from inspect import Parameter, Signature, signature
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from medsr.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from medsr.infer.options import UpscaleOptions


class ModalityOption(StrEnum):
    """Values of ``--modality``."""

    auto = "auto"
    mr = "mr"
    ct = "ct"


class PrecisionOption(StrEnum):
    """Values of ``--precision``."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


MODALITY_NAMES: dict[ModalityOption, Any] = {
    ModalityOption.auto: "auto",
    ModalityOption.mr: "MR",
    ModalityOption.ct: "CT",
}
"""``--modality`` as the library spells it."""


ModelName = Annotated[
    str, typer.Option("--model", metavar="NAME|DIR", help="auto, a shipped name or a folder.")
]
ModalityName = Annotated[ModalityOption, typer.Option("--modality", case_sensitive=False)]
Spacing = Annotated[
    str | None,
    typer.Option(
        "--spacing",
        metavar="iso|X,Y,Z",
        help="Wanted spacing in mm along the file's axes. Default: iso, slices as fine as the "
        "plane.",
    ),
]
Scale = Annotated[
    str | None,
    typer.Option(
        "--scale", metavar="X,Y,Z", help="Factors in-plane, in-plane, through-plane instead."
    ),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda[:N].")]
Precision = Annotated[PrecisionOption, typer.Option("--precision", case_sensitive=False)]
BackendName = Annotated[
    str, typer.Option("--backend", metavar="NAME", help="auto, torch, openvino or onnxruntime.")
]
MaxMemory = Annotated[str | None, typer.Option("--max-memory", metavar="SIZE", help="Such as 4GB.")]
Consistency = Annotated[
    bool,
    typer.Option(
        "--consistency",
        help="Change the result as little as possible so that degrading it gives the scan.",
    ),
]
Tolerance = Annotated[
    float | None,
    typer.Option(
        "--tolerance",
        metavar="T",
        help="Of --consistency, in the scan's units. Default: 1 HU; 0.1 % of an MR's range.",
    ),
]
Limits = Annotated[
    bool,
    typer.Option(
        " /--no-limits",
        help="Do not hold the result to what the scan supports: constant background, least "
        "value, overshoot.",
    ),
]
AllowGaps = Annotated[
    bool,
    typer.Option("--allow-gaps", help="Resample uneven DICOM slices onto a regular grid."),
]
AllowTilt = Annotated[
    bool, typer.Option("--allow-tilt", help="Undo a gantry tilt in DICOM by resampling.")
]
AllowDuplicates = Annotated[
    bool,
    typer.Option("--allow-duplicates", help="Of different DICOM slices at one place take one."),
]
AllowFewSlices = Annotated[
    bool, typer.Option("--allow-few-slices", help="Accept scans of two or three slices.")
]
AllowLabels = Annotated[
    bool,
    typer.Option("--allow-labels", help="Upscale what looks like a label image or mask."),
]
DicomLayout = Annotated[
    str,
    typer.Option(
        "--dicom-layout",
        metavar="NAME",
        help="classic (a file per slice), enhanced (one multi-frame file) or source.",
    ),
]
SeriesDescription = Annotated[
    str | None,
    typer.Option(
        "--series-description",
        metavar="TEXT",
        help="Of DICOM output. Default: the source's and 'medsr'.",
    ),
]
SeriesNumber = Annotated[
    int | None,
    typer.Option(
        "--series-number",
        metavar="N",
        help="Of DICOM output. Default: the source's plus 1000.",
    ),
]
Deidentify = Annotated[
    bool,
    typer.Option(
        "--deidentify",
        help="Remove from DICOM output what names the patient (basic profile; pixels stay).",
    ),
]


def upscale_options(
    model: ModelName = "auto",
    modality: ModalityName = ModalityOption.auto,
    spacing: Spacing = None,
    scale: Scale = None,
    device: Device = "auto",
    precision: Precision = PrecisionOption.auto,
    backend: BackendName = "torch",
    max_memory: MaxMemory = None,
    consistency: Consistency = False,
    tolerance: Tolerance = None,
    limits: Limits = True,
    allow_gaps: AllowGaps = False,
    allow_tilt: AllowTilt = False,
    allow_duplicates: AllowDuplicates = False,
    allow_few_slices: AllowFewSlices = False,
    allow_labels: AllowLabels = False,
    layout: DicomLayout = "source",
    series_description: SeriesDescription = None,
    series_number: SeriesNumber = None,
    deidentify: Deidentify = False,
) -> UpscaleOptions:
    """The options of a command line that :func:`takes_upscale_options` adds to a command.

    Raises:
        UsageError: One is outside its range, or two contradict each other.
    """
    if spacing is not None and scale is not None:
        raise UsageError("--spacing and --scale are both given; give one of them")
    if tolerance is not None and not consistency:
        raise UsageError("--tolerance is for --consistency, which is not given")
    factors = None if scale is None else parse_scale(scale)
    wanted = "iso" if spacing is None else parse_spacing(spacing)
    from medsr.infer.options import UpscaleOptions
    from medsr.io.dicom.options import DicomOptions

    dicom = DicomOptions.of(layout, series_description, series_number, deidentify)
    return UpscaleOptions(
        model=model,
        modality=modality.value,
        spacing=wanted,
        scale=factors,
        device=device,
        precision=precision.value,
        backend=backend,
        max_memory=max_memory,
        consistency=consistency if tolerance is None else tolerance,
        limits=limits,
        allow=allowed(
            gaps=allow_gaps,
            tilt=allow_tilt,
            duplicates=allow_duplicates,
            few_slices=allow_few_slices,
            labels=allow_labels,
        ),
        dicom=dicom,
    )


def takes_upscale_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of :func:`upscale_options`, in the place of its ``options``."""
    shared = {parameter.name: parameter for parameter in _parameters(upscale_options)}
    parameters: list[Parameter] = []
    for parameter in _parameters(command):
        parameters += shared.values() if parameter.name == "options" else [parameter]

    @wraps(command)
    def run(**given: Any) -> None:
        own = {name: value for name, value in given.items() if name not in shared}
        options = {name: value for name, value in given.items() if name in shared}
        command(**own, options=upscale_options(**options))

    run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _parameters(function: Callable[..., Any]) -> Iterator[Parameter]:
    """Parameters with their annotations read; the class of options is not loaded for that."""
    hints = get_type_hints(function, localns={"UpscaleOptions": Any}, include_extras=True)
    for parameter in signature(function).parameters.values():
        yield parameter.replace(annotation=hints[parameter.name])


def allowed(
    *, gaps: bool, tilt: bool, duplicates: bool, few_slices: bool, labels: bool = False
) -> tuple[str, ...]:
    """The options ``--allow-...`` as :func:`medsr.io.load` and :func:`medsr.upscale` take them."""
    given = {
        "gaps": gaps,
        "tilt": tilt,
        "duplicates": duplicates,
        "few-slices": few_slices,
        "labels": labels,
    }
    return tuple(name for name, wanted in given.items() if wanted)


@cache
def messages() -> Console:
    """The console of messages and progress: standard error."""
    from rich.console import Console

    return Console(stderr=True)


def write(text: str) -> None:
    """Write a result to standard output as it is."""
    typer.echo(text)


def write_json(value: object) -> None:
    """Write a result to standard output as indented JSON."""
    write(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def write_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write columns to standard output, a line for each row and nothing folded or cut.

    UIDs can be copied from it, and other programs can read it, however narrow the terminal is.
    """
    lines = [headings, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        write("  ".join(cells).rstrip())


def parse_scale(text: str) -> tuple[float, float, float]:
    """Read ``1,1,4``: in-plane, in-plane, through-plane factors, each at least 1.

    Raises:
        UsageError: The text is anything else.
    """
    scale = _three(text)
    if scale is None or min(scale) < 1:
        raise UsageError(f"--scale {text}: give three factors of at least 1, such as 1,1,4")
    return scale


def parse_whole_scale(text: str) -> tuple[int, int, int]:
    """Read ``1,1,4`` as whole factors of which at least one exceeds 1.

    Raises:
        UsageError: The text is anything else.
    """
    x, y, z = parse_scale(text)
    if not (x.is_integer() and y.is_integer() and z.is_integer() and max(x, y, z) > 1):
        raise UsageError(
            f"--scale {text}: give whole factors, at least one above 1, such as 1,1,4 or 2,2,2"
        )
    return int(x), int(y), int(z)


def parse_shape(text: str) -> tuple[int, int, int]:
    """Read ``128,128,32`` as voxels along three axes, each at least 1.

    Raises:
        UsageError: The text is anything else.
    """
    shape = _three(text)
    if shape is None or min(shape) < 1 or not all(n.is_integer() for n in shape):
        raise UsageError(f"--shape {text}: give three whole numbers, such as 128,128,32")
    x, y, z = shape
    return int(x), int(y), int(z)


def parse_spacing(text: str) -> str | tuple[float, float, float]:
    """Read ``iso`` or ``X,Y,Z`` in mm.

    Raises:
        UsageError: The text is anything else.
    """
    if text.strip().lower() == "iso":
        return "iso"
    spacing = _three(text)
    if spacing is None or min(spacing) <= 0:
        raise UsageError(f"--spacing {text}: give iso, or three spacings in mm such as 0.9,0.9,1")
    return spacing


def _three(text: str) -> tuple[float, float, float] | None:
    try:
        x, y, z = (float(part) for part in text.split(","))
    except ValueError:
        return None
    return (x, y, z) if all(math.isfinite(value) for value in (x, y, z)) else None


@contextmanager
def progress_bar(*, quiet: bool) -> Iterator[Progress]:
    """A progress bar on standard error; silent with ``quiet`` or where no person watches."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    console = messages()
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=quiet or not console.is_terminal,
    ) as progress:
        yield progress


class _ConsoleHandler(logging.Handler):
    """Writes records above a progress bar that may be running, the same text only once."""

    def __init__(self) -> None:
        super().__init__()
        self._written: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        # A cohort warns of the same thing scan after scan; a traceback is always shown.
        text = record.getMessage()
        new = bool(record.exc_info) or text not in self._written
        self._written.add(text)
        return new and bool(super().filter(record))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            messages().print(self.format(record), markup=False, highlight=False, soft_wrap=True)
        except Exception:
            self.handleError(record)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        level = record.levelname.lower()
        return f"medsr: {text}" if level == "info" else f"medsr: {level}: {text}"


def set_up_logging(*, debug: bool) -> None:
    """Send medsr's warnings (everything with ``debug``) to standard error.

    Warnings that libraries raise about their own use are of no help to a user and stay hidden
    unless ``debug``.
    """
    root = logging.getLogger("medsr")
    for handler in list(root.handlers):
        if isinstance(handler, _ConsoleHandler):
            root.removeHandler(handler)
    handler = _ConsoleHandler()
    handler.setFormatter(_Formatter("%(name)s: %(message)s" if debug else "%(message)s"))
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if debug else logging.INFO)
    if debug or sys.warnoptions:
        return
    warnings.simplefilter("ignore")
    for name in ("pydicom", "nibabel", "monai", "lightning_fabric.utilities", "py.warnings"):
        logging.getLogger(name).setLevel(logging.ERROR)


def suppress_info(quiet: bool) -> None:
    """Keep back what is merely informative, where ``--quiet`` asks for it; warnings stay."""
    root = logging.getLogger("medsr")
    if quiet and root.level == logging.INFO:
        root.setLevel(logging.WARNING)

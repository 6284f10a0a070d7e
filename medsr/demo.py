"""``make demo``: upscales a scan and shows what came of it.

Without an argument it takes the MNI152 template that nilearn's wheel carries, simulates thick
slices from it, upscales these, and scores the result beside interpolation, since here the truth is
known. With a scan of your own it upscales that. Everything it does goes through the public
functions; nothing here is needed by the library.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from medsr.errors import MedsrError, MissingExtraError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medsr.geometry import Geometry
    from medsr.infer.upscale import UpscaleResult
    from medsr.volume import Volume

SLICE_FACTOR = 4
TEMPLATE_SCALE = 1000.0
"""The template's brightest voxel; it comes as 0 to 1 and is stored in whole numbers."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; return its exit code (those of ``medsr.errors``)."""
    parser = argparse.ArgumentParser(prog="python -m medsr.demo", description="Upscale a scan.")
    parser.add_argument("scan", nargs="?", type=Path, help="file or DICOM folder of your own")
    parser.add_argument("--model", default="auto", help="name or folder of a model")
    parser.add_argument("--out", default=Path("demo"), type=Path, help="folder of the results")
    options = parser.parse_args(arguments)
    console = Console()
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        if options.scan is None:
            _template(console, options.out, options.model)
        else:
            _own_scan(console, options.scan, options.out, options.model)
    except MedsrError as error:
        Console(stderr=True).print(f"medsr: {error}", markup=False, highlight=False)
        return error.exit_code
    return 0


def _own_scan(console: Console, scan: Path, out: Path, model: str) -> None:
    import medsr

    before = medsr.load(scan)
    result = _upscale(scan, out, model)
    console.print(_facts(before.geometry, result))
    _farewell(console, out)


def _template(console: Console, out: Path, model: str) -> None:
    import medsr
    from medsr.evaluate.baselines import Interpolation, resample
    from medsr.evaluate.metrics import reference_for, score

    truth, thick = _simulated()
    path = medsr.save(thick, out / "thick.nii.gz", overwrite=True)
    console.print(
        f"Input: the MNI152 T1 template (1 mm), from which [bold]thick slices of {SLICE_FACTOR} mm "
        "were simulated[/bold] with a Gaussian slice profile. No scanner made these slices.\n"
    )
    result = _upscale(path, out, model)
    console.print(_facts(thick.geometry, result))
    if not result.whole().geometry.same_grid(truth.geometry):
        console.print("The result lies on another grid than the template: no scores.")
        return
    interpolations: tuple[Interpolation, ...] = ("linear", "bspline")
    restored: dict[str, NDArray[Any]] = {
        method: resample(thick, truth.geometry, method).data for method in interpolations
    }
    restored["medsr"] = result.whole().data
    reference = reference_for(truth.data, "MR")
    labels = {"linear": "linear", "bspline": "cubic B-spline", "medsr": _model_name(result)}
    console.print("Compared with the template itself, where there is tissue:")
    table = Table()
    table.add_column("method")
    table.add_column("PSNR, dB", justify="right")
    table.add_column("SSIM", justify="right")
    for method, data in restored.items():
        metrics = score(data, truth.data, reference)
        style = "bold green" if method == "medsr" else None
        table.add_row(labels[method], f"{metrics.psnr:.2f}", f"{metrics.ssim:.4f}", style=style)
    console.print(table)
    _farewell(console, out)


def _simulated() -> tuple[Volume, Volume]:
    """The template, and thick slices made from it; both in whole numbers."""
    try:
        from nilearn.datasets import load_mni152_template
    except ImportError as error:
        raise MissingExtraError(
            "the demo's template brain comes with nilearn; pip install 'medsr[demo]'"
        ) from error
    import medsr
    from medsr.degrade import build_degradation, degrade_volume

    image = load_mni152_template(resolution=1)
    data: NDArray[np.float32] = np.asarray(image.dataobj, dtype=np.float32)
    geometry = medsr.Geometry(data.shape[:3], image.affine)
    # The last few slices that do not fill a thick one are left out.
    whole = (*data.shape[:2], data.shape[2] // SLICE_FACTOR * SLICE_FACTOR)
    data = np.maximum(data, 0) * np.float32(TEMPLATE_SCALE / float(data.max()))
    truth = medsr.Volume(data, geometry, modality="MR").crop((0, 0, 0), whole)
    profile = build_degradation("slice_profile", (1, 1, SLICE_FACTOR))
    thick = degrade_volume(truth, profile)
    return truth, thick.replace(data=np.round(thick.data).astype(np.int16))


def _upscale(scan: Path, out: Path, model: str) -> UpscaleResult:
    import medsr

    return medsr.upscale(
        scan,
        out / "upscaled.nii.gz",
        model=model,
        report=out / "report.json",
        preview=out / "before_after.png",
        overwrite=True,
    )


def _model_name(result: UpscaleResult) -> str:
    return f"medsr ({result.report['model']['name']})"


def _facts(before: Geometry, result: UpscaleResult) -> Table:
    """Spacing before and after, time and memory."""
    after = result.whole().geometry
    report = result.report
    seconds = report["seconds"]
    memory = report["peak_memory_bytes"]
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("model", report["model"]["name"])
    table.add_row("spacing before", f"{_mm(before.spacing)} mm, {_count(before.shape)} voxels")
    table.add_row("spacing after", f"{_mm(after.spacing)} mm, {_count(after.shape)} voxels")
    table.add_row(
        "seconds", f"{seconds['total']:.1f} in all, {seconds['network']:.1f} in the network"
    )
    table.add_row("peak memory", "unknown" if memory is None else f"{memory / 2**30:.2f} GiB")
    for warning in report["warnings"]:
        table.add_row("note", warning)
    table.add_row("")
    return table


def _mm(spacing: Sequence[float]) -> str:
    return " x ".join(f"{value:.3g}" for value in spacing)


def _count(shape: Sequence[int]) -> str:
    return " x ".join(str(size) for size in shape)


def _farewell(console: Console, out: Path) -> None:
    console.print(f"\nThe upscaled scan: {out / 'upscaled.nii.gz'}", highlight=False)
    console.print(f"Before and after:  {out / 'before_after.png'}", highlight=False)
    console.print("For research; not for diagnosis.")


if __name__ == "__main__":
    sys.exit(main())

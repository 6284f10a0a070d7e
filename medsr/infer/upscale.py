"""A scan from end to end: load, prepare, run the network, restore, save.

:func:`upscale` is what the command line, the evaluation and ``medsr.upscale`` call. Each step lives
in its own module; here is only their order.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import ArrayLike, NDArray

from medsr import __version__, io, zoo
from medsr.errors import (
    MemoryLimitError,
    NoUncertaintyError,
    OutputExistsError,
    OutputFormatError,
    UsageError,
)
from medsr.geometry import Geometry
from medsr.infer import choose, prepare
from medsr.infer.engine import TiledInferer, resolve_device, resolve_precision
from medsr.infer.preview import draw_preview
from medsr.infer.report import Stopwatch, build_report, finish_report
from medsr.infer.resample import resample
from medsr.io.atomic import atomic_file
from medsr.model import ModelSpec, Normaliser, SRModel
from medsr.networks.heads import MeanAndSigma
from medsr.volume import Derivation, Volume

logger = logging.getLogger(__name__)

FloatArray = NDArray[np.float32]
Progress = Callable[[str, int, int], None]

RESERVE_BYTES = 96 * 2**20
"""Kept free under a memory limit for kernels and libraries that load while the network runs."""

__all__ = ["UpscaleResult", "upscale"]


@dataclass(frozen=True)
class UpscaleResult:
    """What :func:`upscale` gives back.

    Args:
        volume: The result, float32 in native units, axes ordered as in the input.
        report: What was done; the same that the JSON report holds.
        uncertainty: Where it was asked for, the standard deviation that the network expects of its
            error: float32 in native units on the grid of ``volume``.
    """

    volume: Volume
    report: dict[str, Any]
    uncertainty: Volume | None = None


@dataclass(frozen=True)
class _Outputs:
    """Where the result goes; None for what is not wanted."""

    scan: Path | None
    report: Path | None
    preview: Path | None
    uncertainty: Path | None
    overwrite: bool

    def check(self) -> None:
        """Refuse names that cannot be written, or that would overwrite each other."""
        named = (self.report, self.preview, self.uncertainty)
        files = [path for path in named if path is not None]
        paths = [*files, *([] if self.scan is None else [self.scan])]
        if self.scan is not None and io.output_format(self.scan) != "dicom":
            files.append(self.scan)
        if self.uncertainty is not None and io.output_format(self.uncertainty) == "dicom":
            raise OutputFormatError(
                f"{self.uncertainty}: an uncertainty map is no image that DICOM has a place for; "
                "let its name end in .nii.gz, .nrrd or .mha"
            )
        for path in paths:
            io.check_output(path, overwrite=self.overwrite)
        for path in files:
            if path.is_dir():
                raise OutputExistsError(f"{path} is a folder; choose a file name")
            around = (path.absolute(), *path.absolute().parents)
            if sum(other.absolute() in around for other in paths) > 1:
                raise UsageError(f"{path} collides with another output; give each its own place")


@dataclass(frozen=True)
class _Plan:
    """What was decided before any network runs; grids in canonical order."""

    model: SRModel
    target: Geometry
    warnings: list[str]
    uncertain: bool

    @property
    def network(self) -> torch.nn.Module:
        """What the engine runs: the model's network, asked for sigma too where it is wanted."""
        return MeanAndSigma(self.model.module) if self.uncertain else self.model.module


def upscale(
    scan: str | Path | Volume | NDArray[Any] | torch.Tensor,
    output: str | Path | None = None,
    *,
    model: str | Path | SRModel = "auto",
    modality: str = "auto",
    spacing: str | Sequence[float] | None = "iso",
    scale: Sequence[float] | None = None,
    device: str = "auto",
    precision: str = "auto",
    max_memory: int | str | None = None,
    report: str | Path | None = None,
    preview: str | Path | None = None,
    uncertainty: bool | str | Path = False,
    overwrite: bool = False,
    affine: ArrayLike | None = None,
    array_spacing: Sequence[float] | None = None,
    series: str | None = None,
    progress: Progress | None = None,
    zoo_root: Path | None = None,
) -> UpscaleResult:
    """Bring a scan to a finer grid over the same physical extent.

    Args:
        scan: A file, a DICOM folder, a :class:`~medsr.volume.Volume`, or an array or tensor
            ``(X, Y, Z)`` with ``affine`` or ``array_spacing`` (a MONAI ``MetaTensor`` has its own).
        output: File or DICOM folder to write; nothing is written when not given.
        model: ``"auto"``, a shipped name, a model folder, or a loaded model.
        modality: ``"auto"``, ``"mr"`` or ``"ct"``.
        spacing: ``"iso"`` brings the slice spacing to the mean in-plane spacing; three numbers are
            mm along the array's own axes; None takes the model's own factor.
        scale: Factors along (in-plane, in-plane, slice), whichever array axis the slices lie
            along (the last, where no axis has clearly thicker voxels); instead of ``spacing``.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        precision: ``"auto"``, ``"fp32"`` or ``"bf16"``.
        max_memory: Bytes, or text such as ``"4GB"``, that the process should stay below.
        report: JSON file to write.
        preview: PNG file to write, before and after side by side.
        uncertainty: True, or a file to write: the map of the standard deviation that the network
            expects of its error. It asks for a model that says one; ``"auto"`` prefers those.
        overwrite: Replace files that exist.
        affine: (4, 4) voxel index to RAS+ mm, for arrays.
        array_spacing: mm along X, Y, Z, for arrays without an affine.
        series: Which series of a DICOM folder, where it holds several.
        progress: Called with (stage, done, total).
        zoo_root: Folder of the models to choose from; those shipped when not given.

    Returns:
        The result and its report. Its grid is ``Geometry.refine`` of the scan's. The model's
        output is brought to the exact grid by a cubic B-spline, after a Gaussian where that grid
        is coarser than the model's; the map of uncertainty linearly, so that it stays above zero.

    Raises:
        MedsrError: The scan, the options, the model or the output cannot be used; see the
            classes in ``medsr.errors``. Nothing is written then.
    """
    watch = Stopwatch()
    limit = prepare.parse_bytes(max_memory)
    where = resolve_device(device)
    computed = resolve_precision(precision, where)
    sigma_file = None if isinstance(uncertainty, bool) else Path(uncertainty)
    outputs = _Outputs(_path(output), _path(report), _path(preview), sigma_file, overwrite)
    outputs.check()

    with watch.stage("load"):
        volume = _load(scan, modality, affine, array_spacing, series)
        prepare.check(volume)
        if outputs.scan is not None:
            io.check_writable(volume, outputs.scan)

    with watch.stage("prepare"):
        frame = prepare.Frame.of(volume.geometry)
        grid = frame.canonical_geometry(volume.geometry)
        plan = _decide(volume, frame, model, spacing, scale, zoo_root, uncertainty is not False)
        for warning in plan.warnings:
            logger.warning(warning)
        intensity = plan.model.spec.intensity_for(prepare.modality_of(volume))
        normaliser = intensity.fit(volume.data)
        lr = np.array(frame.canonical_data(volume.data), dtype=np.float32, order="C")
        inputs = torch.from_numpy(normaliser.forward(lr))[None, None]
        del lr
        network = plan.network.to(where)
        inferer = TiledInferer(
            precision=computed,
            max_memory_bytes=_left_for_engine(limit, grid, plan),
            progress=None if progress is None else lambda *count: progress("network", *count),
        )
        tiles = inferer.plan(grid.shape, network, where)

    with watch.stage("network"):
        answers: list[FloatArray] = list(inferer(inputs, network)[0].numpy())
        del inputs

    with watch.stage("restore"):
        geometry = volume.geometry.resize(frame.array_shape(plan.target.shape))
        # Popped, so that what was resampled does not stay in memory.
        sr = normaliser.restore(_fitted(answers.pop(0), plan.target, order=3))
        result = volume.replace(data=frame.array_data(sr), geometry=geometry)
        sigma = None
        if plan.uncertain:
            sigma = _sigma(_fitted(answers.pop(0), plan.target, order=1), normaliser, result, frame)

    spec, weight_hash = plan.model.spec, plan.model.weight_hash
    summary = build_report(
        before=volume,
        after=geometry,
        spec=spec,
        weight_hash=weight_hash,
        device=_device_name(where),
        precision=computed,
        tiles=len(tiles),
        tile_shape=max((tile.shape for tile in tiles), key=lambda shape: np.prod(shape)),
        warnings=plan.warnings,
    )
    if sigma is not None:
        summary["uncertainty"] = {"units": sigma.units, "median": float(np.median(sigma.data))}
    derivation = _derivation(volume, geometry, spec, weight_hash)
    # All outputs lie under temporary names until the last of them is written.
    with ExitStack() as appearing:
        with watch.stage("save"):
            if outputs.scan is not None:
                appearing.enter_context(
                    io.saving(result, outputs.scan, overwrite=overwrite, derivation=derivation)
                )
            if outputs.uncertainty is not None and sigma is not None:
                words = f"Standard deviation of the error expected by {derivation.model}"
                why = dataclasses.replace(derivation, description=words)
                appearing.enter_context(
                    io.saving(sigma, outputs.uncertainty, overwrite=overwrite, derivation=why)
                )
            if outputs.preview is not None:
                picture = draw_preview(volume, result, method=f"medsr {spec.name}")
                file = appearing.enter_context(atomic_file(outputs.preview, overwrite=overwrite))
                picture.save(file, format="PNG")
        summary = finish_report(summary, watch)
        if outputs.report is not None:
            file = appearing.enter_context(atomic_file(outputs.report, overwrite=overwrite))
            file.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return UpscaleResult(result, summary, sigma)


def _fitted(data: FloatArray, target: Geometry, *, order: int) -> FloatArray:
    """Bring what the network gave to the exact grid, by splines of an order."""
    return data if data.shape == target.shape else resample(data, target.shape, order)


def _sigma(
    values: FloatArray, normaliser: Normaliser, result: Volume, frame: prepare.Frame
) -> Volume:
    """Make a volume of the map: native units, the result's grid, and no stored type to round to."""
    values *= normaliser.divisor
    return result.replace(data=frame.array_data(values), source=None)


def _load(
    scan: Any,
    modality: str,
    affine: ArrayLike | None,
    array_spacing: Sequence[float] | None,
    series: str | None,
) -> Volume:
    """Make a volume with a modality of whatever the user holds."""
    if isinstance(scan, Volume):
        return prepare.with_modality(scan, modality)
    if isinstance(scan, (str, Path)):
        kind = prepare.parse_modality(modality)
        volume = io.load(Path(scan), modality=kind or "auto", series=series)
        return prepare.with_modality(volume, modality)
    return prepare.volume_from_array(
        scan, modality=modality, affine=affine, array_spacing=array_spacing
    )


def _decide(
    volume: Volume,
    frame: prepare.Frame,
    model: str | Path | SRModel,
    spacing: str | Sequence[float] | None,
    scale: Sequence[float] | None,
    zoo_root: Path | None,
    uncertain: bool,
) -> _Plan:
    """Settle the model and the target grid; refuse or warn where they do not suit the scan."""
    modality = prepare.modality_of(volume)
    grid = frame.canonical_geometry(volume.geometry)
    if spacing is not None and not isinstance(spacing, str):
        spacing = frame.canonical_values(choose.positive_triple(spacing, "spacing"))
    if scale is not None:
        scale = frame.canonical_scale(choose.positive_triple(scale, "scale"))
    target = choose.find_target(grid, spacing=spacing, scale=scale)
    if isinstance(model, str) and model == "auto":
        specs = zoo.specs(zoo_root)
        if uncertain:
            specs = [s for s in specs if s.options.get("head", "value") != "value"] or specs
        spec = choose.choose(specs, grid, modality, target)
        loaded = SRModel.load(zoo.path(spec.name, zoo_root))
        warnings: list[str] = []
    else:
        loaded = model if isinstance(model, SRModel) else SRModel.load(zoo.resolve(model, zoo_root))
        spec = loaded.spec
        default = scale is None and spacing == "iso"
        target = choose.named_target(target, spec, default=default)
        reasons = choose.misfits(spec, grid, modality)
        joined = "; ".join(reasons)
        warnings = [f"{spec.name} was not trained for this scan: {joined}"] if reasons else []
    if uncertain and getattr(loaded.module, "readout", None) is None:
        raise NoUncertaintyError(
            f"model {spec.name} gives values and no uncertainty; name a model whose network has "
            "the option head (gaussian or bins), or do without the map"
        )
    geometry, beyond = choose.settle(target, spec, grid)
    return _Plan(loaded, geometry, warnings + choose.hazards(spec) + beyond, uncertain)


def _left_for_engine(limit: int | None, grid: Geometry, plan: _Plan) -> int | None:
    """Bytes that the engine may take for its output and one tile, the process itself deducted.

    Raises:
        MemoryLimitError: The result and what saving it takes do not fit.
    """
    if limit is None:
        return None
    used = int(psutil.Process().memory_info().rss) + RESERVE_BYTES
    scale = plan.model.spec.scale
    enlarged = 4 * int(np.prod([n * s for n, s in zip(grid.shape, scale, strict=True)]))
    wanted = 4 * int(np.prod(plan.target.shape))
    maps = 2 if plan.uncertain else 1
    # Resampling holds both grids and one in between; writing holds the numbers as stored as well.
    needed = used + (maps + 1) * wanted + (maps * enlarged if enlarged != wanted else 0)
    if needed > limit:
        raise MemoryLimitError(
            f"the result needs about {needed / 2**20:.0f} MiB of memory, program included, and "
            f"the limit is {limit / 2**20:.0f} MiB; raise the limit or ask for a coarser grid"
        )
    return limit - used


def _derivation(
    volume: Volume, geometry: Geometry, spec: ModelSpec, weight_hash: str
) -> Derivation:
    x, y, z = (n / o for n, o in zip(geometry.shape, volume.shape, strict=True))
    return Derivation(
        model=f"{spec.name} {spec.version}",
        version=__version__,
        weight_hash=weight_hash,
        description=f"Super-resolution by medsr {__version__}, model {spec.name} {spec.version}",
        scale=(x, y, z),
    )


def _path(name: str | Path | None) -> Path | None:
    return None if name is None else Path(name)


def _device_name(device: torch.device) -> str:
    if device.type != "cuda":
        return str(device)
    return f"{device} ({torch.cuda.get_device_name(device)})"

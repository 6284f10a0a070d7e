"""Where the results of one run go, and how they appear: together, or none of them.

Here are the checks that names of outputs must pass before any work is spent on them, and the
writing, with the words on how a result came to be. What a result holds is made in
``medsr.infer.upscaler``; formats are ``medsr.io``'s work.
"""

from __future__ import annotations

import dataclasses
import json
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medsr import __version__, io
from medsr.errors import OutputExistsError, OutputFormatError, UsageError
from medsr.geometry import Geometry
from medsr.infer.report import Stopwatch, finish_report
from medsr.io import bids
from medsr.io.atomic import atomic_file
from medsr.io.dicom.options import DEFAULTS, DicomOptions
from medsr.io.source_files import check_apart
from medsr.model import ModelSpec
from medsr.volume import Derivation, SourceFormat, Volume

if TYPE_CHECKING:
    from PIL.Image import Image

    from medsr.infer.consistency.project import ConsistencyReport
    from medsr.infer.upscaler import Computed


@dataclass(frozen=True)
class Outputs:
    """Files and folders to write; None for what is not wanted.

    Args:
        scan: The result; its ending chooses the format, a name without one is a DICOM folder.
        report: What was done, as JSON.
        preview: PNG, before and after side by side.
        uncertainty: The map of the error that the network expects.
        overwrite: Whether what exists may be replaced.
        format: Format of ``scan``, where its name shall not decide.
        request: See :class:`~medsr.volume.Derivation`.
        dicom: How a DICOM series is written.
    """

    scan: Path | None = None
    report: Path | None = None
    preview: Path | None = None
    uncertainty: Path | None = None
    overwrite: bool = False
    format: SourceFormat | None = None
    request: str | None = None
    dicom: DicomOptions = DEFAULTS

    def check_apart(self, scan: Path | None) -> None:
        """Refuse to write over a scan, over what belongs to it, or into its DICOM folder.

        Raises:
            SourceOverwriteError: An output would.
        """
        files = [self.report, self.preview, self.uncertainty]
        folder = self.scan if self.scan_format == "dicom" else None
        if self.scan is not None and folder is None:
            files.append(self.scan)
            if self.scan_format == "nifti":
                files.append(bids.sidecar_path(self.scan))
        if scan is not None:
            check_apart(scan, [file for file in files if file is not None], folder)

    def check(self) -> None:
        """Refuse names that cannot be written, or that would overwrite each other.

        Raises:
            OutputError: One of its family.
            UsageError: Two outputs have the same place, or options for DICOM are given and the
                scan will be written in another format.
        """
        if self.dicom != DEFAULTS and self.scan_format != "dicom":
            raise UsageError(
                "series description, series number, layout and de-identification are for DICOM "
                "output, and this output is none"
            )
        named = (self.report, self.preview, self.uncertainty)
        files = [path for path in named if path is not None]
        paths = [*files, *([] if self.scan is None else [self.scan])]
        if self.scan is not None and self.scan_format != "dicom":
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

    @property
    def scan_format(self) -> SourceFormat | None:
        """Format that the result is written in; None where it is not written.

        Raises:
            OutputFormatError: The name asks for a format that medsr does not write.
        """
        return None if self.scan is None else io.output_format(self.scan, format=self.format)

    def check_source(self, volume: Volume) -> None:
        """Refuse a scan that the output's format has no place for, before any network runs.

        Raises:
            OutputError: One of its family.
        """
        if self.scan is not None:
            io.check_writable(volume, self.scan, format=self.format, dicom=self.dicom)
        sidecar = self._sidecar(volume)
        if sidecar is None:
            return
        if sidecar.parent.is_dir():  # a run over a folder makes it later
            io.check_output(sidecar, overwrite=self.overwrite)
        if self.report is not None and self.report.absolute() == sidecar.absolute():
            raise UsageError(
                f"{self.report}: the result gets a sidecar of this name, as its scan has one; give "
                "the report another"
            )

    def write(self, computed: Computed) -> dict[str, Any]:
        """Write all that is wanted; every file lies under a temporary name until the last is done.

        Returns:
            The finished report, which the report file holds as well.

        Raises:
            OutputError: One of its family; nothing new is left then.
        """
        if computed.after is None:
            return computed.report  # it was written while it was computed
        with ExitStack() as appearing:
            with computed.watch.stage("save"):
                self._write_images(computed, computed.after, appearing)
            return self.write_report(computed.report, computed.watch, appearing)

    def write_report(
        self, report: dict[str, Any], watch: Stopwatch, appearing: ExitStack
    ) -> dict[str, Any]:
        """Finish the report and write it, where it is wanted; it appears with ``appearing``."""
        summary = finish_report(report, watch)
        if self.report is not None:
            file = appearing.enter_context(atomic_file(self.report, overwrite=self.overwrite))
            file.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        return summary

    def write_sidecar(
        self, before: Volume, after: Geometry, derivation: Derivation, appearing: ExitStack
    ) -> None:
        """Write what the scan's JSON sidecar says of the result too, where there is one."""
        sidecar = self._sidecar(before)
        if sidecar is None or self.scan is None:
            return
        source = _path_of(before)
        fields = bids.read_sidecar(source) or {}
        grids = (before.geometry, after)
        text = bids.as_text(bids.derived_sidecar(fields, source, self.scan, grids, derivation))
        file = appearing.enter_context(atomic_file(sidecar, overwrite=self.overwrite))
        file.write_text(text, encoding="utf-8")

    def _sidecar(self, before: Volume) -> Path | None:
        """Where the result's sidecar goes; None where the scan has none, or is no NIfTI file."""
        source = before.source
        if self.scan is None or source is None or source.path is None:
            return None
        if self.scan_format != "nifti" or source.format != "nifti":
            return None
        return None if bids.read_sidecar(source.path) is None else bids.sidecar_path(self.scan)

    def write_picture(self, picture: Image, appearing: ExitStack) -> None:
        """Write the preview, where it is wanted; it appears with ``appearing``."""
        if self.preview is not None:
            file = appearing.enter_context(atomic_file(self.preview, overwrite=self.overwrite))
            picture.save(file, format="PNG")

    def _write_images(self, computed: Computed, after: Volume, appearing: ExitStack) -> None:
        derivation, overwrite = computed.derivation, self.overwrite
        if self.scan is not None:
            appearing.enter_context(
                io.saving(
                    after,
                    self.scan,
                    overwrite=overwrite,
                    format=self.format,
                    derivation=derivation,
                    dicom=self.dicom,
                )
            )
        self.write_sidecar(computed.before, after.geometry, derivation, appearing)
        if self.uncertainty is not None and computed.sigma is not None:
            why = describe_error(derivation)
            appearing.enter_context(
                io.saving(computed.sigma, self.uncertainty, overwrite=overwrite, derivation=why)
            )
        if self.preview is not None:
            from medsr.infer.preview import draw_preview

            method = f"medsr {computed.report['model']['name']}"
            self.write_picture(draw_preview(computed.before, after, method=method), appearing)


def _path_of(volume: Volume) -> Path:
    source = volume.source
    return Path() if source is None or source.path is None else source.path


def describe_error(derivation: Derivation) -> Derivation:
    """Say of a map of uncertainty how it was computed."""
    words = f"Standard deviation of the error expected by {derivation.model}"
    return dataclasses.replace(derivation, description=words, further="")


def derive(
    before: Geometry,
    after: Geometry,
    spec: ModelSpec,
    weight_hash: str,
    request: str | None = None,
    consistency: ConsistencyReport | None = None,
) -> Derivation:
    """Say how a result was computed, for formats that record it."""
    x, y, z = (n / o for n, o in zip(after.shape, before.shape, strict=True))
    sentence = f"Super-resolution by medsr {__version__}, model {spec.name} {spec.version}"
    further = "" if consistency is None else consistency.words()
    return Derivation(
        model=f"{spec.name} {spec.version}",
        version=__version__,
        weight_hash=weight_hash,
        description=f"{sentence}, {further}" if further else sentence,
        scale=(x, y, z),
        request=request,
        further=further,
    )

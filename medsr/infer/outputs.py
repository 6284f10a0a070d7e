"""Where the results of one run go, and how they appear: together, or none of them.

The checks that names of outputs must pass before any work is spent on them, and the
writing, with the words on how a result came to be. What a result holds is made in
``medsr.infer.upscaler``; formats are ``medsr.io``'s work.
"""

from __future__ import annotations

import dataclasses
import json
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medsr import io
from medsr.errors import OutputExistsError, OutputFormatError, UsageError
from medsr.infer.report import finish_report
from medsr.infer.result import OutputChunk, UpscaleOutput
from medsr.infer.stopwatch import Stopwatch
from medsr.io import bids
from medsr.io.atomic import atomic_file
from medsr.io.dicom.options import DEFAULTS, DicomOptions
from medsr.io.formats import find
from medsr.io.planes import header_of
from medsr.io.source_files import check_apart
from medsr.io.writing import creating
from medsr.volume import Derivation, SourceFormat, Volume


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
        folder = self.scan if self._in_folder else None
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
        if self.scan is not None and not self._in_folder:
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
    def _in_folder(self) -> bool:
        """Whether the result is written as a folder."""
        return self.scan_format is not None and find(self.scan_format).is_folder

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

    def write(self, output: UpscaleOutput) -> dict[str, Any]:
        """Write all that is wanted; every file lies under a temporary name until the last is done.

        Returns:
            The finished report, which the report file holds as well.

        Raises:
            OutputError: One of its family; nothing new is left then.
            MedsrError: As for :meth:`UpscaleOutput.chunks`.
        """
        watch = output.scan.watch
        with ExitStack() as pending:
            with watch.stage("save"):
                sinks = _Sinks(self, output, pending)
            for chunk in output.chunks():
                with watch.stage("save"):
                    sinks.append(chunk)
            with watch.stage("save"):
                sinks.finish(output.report)
                self._write_sidecar(output, pending)
            return self._write_report(output.report, watch, pending)

    def _write_report(
        self, report: dict[str, Any], watch: Stopwatch, pending: ExitStack
    ) -> dict[str, Any]:
        """Finish the report and write it, where it is wanted; it appears with ``pending``."""
        summary = finish_report(report, watch)
        if self.report is not None:
            file = pending.enter_context(atomic_file(self.report, overwrite=self.overwrite))
            file.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        return summary

    def _write_sidecar(self, output: UpscaleOutput, pending: ExitStack) -> None:
        """Write what the scan's JSON sidecar says of the result too, where there is one."""
        before = output.scan.volume
        sidecar = self._sidecar(before)
        if sidecar is None or self.scan is None:
            return
        source = _path_of(before)
        fields = bids.read_sidecar(source) or {}
        grids = (before.geometry, output.decision.result)
        derivation = output.derivation(self.request)
        text = bids.as_text(bids.derived_sidecar(fields, source, self.scan, grids, derivation))
        file = pending.enter_context(atomic_file(sidecar, overwrite=self.overwrite))
        file.write_text(text, encoding="utf-8")

    def _sidecar(self, before: Volume) -> Path | None:
        """Where the result's sidecar goes; None where the scan has none, or is no NIfTI file."""
        source = before.source
        if self.scan is None or source is None or source.path is None:
            return None
        if self.scan_format != "nifti" or source.format != "nifti":
            return None
        return None if bids.read_sidecar(source.path) is None else bids.sidecar_path(self.scan)


class _Sinks:
    """What takes the planes of a result: files under temporary names, and the picture.

    Args:
        outputs: What is wanted.
        output: The result.
        pending: The files appear under their names when this is closed.
    """

    def __init__(self, outputs: Outputs, output: UpscaleOutput, pending: ExitStack) -> None:
        self._outputs, self._pending = outputs, pending
        before, after = output.scan.volume, output.decision.result
        derivation = output.derivation(outputs.request)
        header = header_of(after, np.float32, modality=before.modality, source=before.source)
        self._scan = self._sigma = self._preview = None
        if outputs.scan is not None:
            self._scan = pending.enter_context(
                creating(
                    header,
                    outputs.scan,
                    overwrite=outputs.overwrite,
                    format=outputs.format,
                    derivation=derivation,
                    dicom=outputs.dicom,
                )
            )
        if outputs.uncertainty is not None and output.decision.uncertain:
            self._sigma = pending.enter_context(
                creating(
                    # Without the source there is no stored type to round to.
                    header.replace(source=None),
                    outputs.uncertainty,
                    overwrite=outputs.overwrite,
                    derivation=describe_error(derivation),
                )
            )
        if outputs.preview is not None:
            from medsr.infer.preview import Preview, choose_view

            view = choose_view(output.scan.survey.sample, before.modality)
            self._preview = Preview(before.geometry, after, view)

    def append(self, chunk: OutputChunk) -> None:
        """Take the planes of one chunk."""
        if self._scan is not None and chunk.result is not None:
            self._scan.append(chunk.result.data)
        if self._sigma is not None and chunk.sigma is not None:
            self._sigma.append(chunk.sigma.data)
        if self._preview is not None:
            if chunk.scan is not None:
                self._preview.add_before(chunk.scan.start, chunk.scan.data)
            if chunk.result is not None:
                self._preview.add_after(chunk.result.start, chunk.result.data)

    def finish(self, report: dict[str, Any]) -> None:
        """Close the files, which stay under their temporary names, and draw the picture."""
        for sink in (self._scan, self._sigma):
            if sink is not None:
                sink.finish()
        if self._preview is not None and self._outputs.preview is not None:
            picture = self._preview.draw(method=f"medsr {report['model']['name']}")
            file = self._pending.enter_context(
                atomic_file(self._outputs.preview, overwrite=self._outputs.overwrite)
            )
            picture.save(file, format="PNG")


def _path_of(volume: Volume) -> Path:
    source = volume.source
    return Path() if source is None or source.path is None else source.path


def describe_error(derivation: Derivation) -> Derivation:
    """Say of a map of uncertainty how it was computed."""
    caption = f"Standard deviation of the error expected by {derivation.model}"
    return dataclasses.replace(derivation, description=caption, further="")

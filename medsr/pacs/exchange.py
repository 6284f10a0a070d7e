"""A request from end to end: fetch a series, upscale it, bring the result to an archive.

The result's UIDs follow from what was asked for, so that a request that is made again finds its
answer in the archive, and completes it where it is incomplete.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Unpack

from pydicom.filereader import read_file_meta_info

from medsr._version import __version__
from medsr.errors import (
    NotInPacsError,
    PacsRefusedError,
    PartialTransferError,
    UsageError,
)
from medsr.geometry import Geometry
from medsr.infer.options import UpscaleKeywords, UpscaleOptions
from medsr.infer.outputs import Outputs
from medsr.infer.upscaler import Upscaler
from medsr.io.dicom.logs import suppress_logging
from medsr.io.dicom.options import DEFAULTS
from medsr.io.dicom.write.deidentify import KEY_VARIABLE, Deidentifier, has_key, result_uids
from medsr.io.dicom.write.layout import count_files
from medsr.pacs.archive import Archive, NotOfferedError, SeriesEntry, StoredFile, Transfer
from medsr.pacs.choice import choose_series
from medsr.pacs.connect import connect
from medsr.pacs.logs import suppress_network_logging
from medsr.pacs.settings import Settings, check_uid, parse_address
from medsr.types import StageProgress, no_progress
from medsr.volume import Derivation

logger = logging.getLogger(__name__)

Status = Literal["failed", "present", "completed", "stored"]


@dataclass
class Exchange:
    """What became of a request; filled step by step, so that a failure leaves what was reached.

    Args:
        study: StudyInstanceUID.
        series: SeriesInstanceUID of the source, once it is known.
        source: Address of the archive it came from.
        target: Address of the archive it goes to.
        status: ``"stored"``; ``"completed"`` where a part was there already; ``"present"`` where
            all was, so that nothing was computed; ``"failed"``.
        result_study: StudyInstanceUID of the result: the source's, unless it is de-identified.
        result: SeriesInstanceUID of the result.
        images: How many instances the result has.
        already: How many of them were there before; None where the target cannot be asked.
        confirmed: How many the target has in the end; None where it cannot be asked.
        fetched: The account of what was fetched.
        sent: The account of what was sent.
        upscaled: The report of the computation, where there was one.

    Examples:
        >>> from medsr.pacs import Exchange
        >>> source, target = "dicom://ARCHIVE@pacs:104", "https://pacs/dicom-web"
        >>> request = Exchange("1.2.840.99.1", "1.2.840.99.7", source, target)
        >>> report = request.as_dict()  # UIDs, and nothing else of a patient
        >>> report["status"], report["source"]["series"]
        ('failed', '1.2.840.99.7')
    """

    study: str
    series: str | None
    source: str
    target: str
    status: Status = "failed"
    result_study: str | None = None
    result: str | None = None
    images: int | None = None
    already: int | None = None
    confirmed: int | None = None
    fetched: Transfer = field(default_factory=Transfer)
    sent: Transfer = field(default_factory=Transfer)
    upscaled: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """The report: plain values, nothing of a patient but UIDs."""
        return {
            "medsr": __version__,
            "status": self.status,
            "source": {"address": self.source, "study": self.study, "series": self.series},
            "target": {
                "address": self.target,
                "study": self.result_study,
                "series": self.result,
                "instances": self.images,
            },
            "fetched": self.fetched.as_dict(),
            "already_there": self.already,
            "sent": self.sent.as_dict(),
            "confirmed": self.confirmed,
            "upscale": self.upscaled,
        }


def list_series(source: str, study: str, *, settings: Settings | None = None) -> list[SeriesEntry]:
    """List the series of a study.

    Args:
        source: Address of an archive.
        study: StudyInstanceUID.
        settings: How it is spoken to.

    Raises:
        NotInPacsError: There is no such study.
        PacsError: The archive cannot be asked.

    Examples:
        >>> from medsr.errors import PacsUnreachableError
        >>> from medsr.pacs import Settings, list_series
        >>> once = Settings(retries=0, timeout_seconds=2.0)
        >>> try:
        ...     series = list_series("dicom://ARCHIVE@localhost:1", "1.2.840.99.1", settings=once)
        ... except PacsUnreachableError as error:
        ...     print("no answer; exit code", error.exit_code)
        no answer; exit code 62
    """
    check_uid(study, "--study")
    archive = connect(parse_address(source), "from", settings or Settings())
    with suppress_network_logging, suppress_logging:
        entries = archive.series(study)
    if not entries:
        raise NotInPacsError(f"{archive.address} has no study {study}")
    return entries


@suppress_logging
def upscale(
    source: str,
    target: str,
    options: UpscaleOptions | None = None,
    *,
    study: str,
    series: str | None = None,
    settings: Settings | None = None,
    progress: StageProgress | None = None,
    account: Callable[[Exchange], None] | None = None,
    **changes: Unpack[UpscaleKeywords],
) -> Exchange:
    """Fetch a series, upscale it, and bring the result to an archive.

    Everything lies in a private temporary folder, which is gone when this returns or raises.

    Args:
        source: Address of the archive that has the series: ``dicom://AET@host:port``,
            ``dicoms://…`` or ``https://host/dicom-web``.
        target: Address of the archive that the result goes to; it may be the same.
        options: How the series is upscaled; the defaults when not given. To de-identify the
            result takes the secret in the environment variable ``MEDSR_DEIDENTIFY_KEY``, without
            which a request that is made again could not find its result. Only a
            series is sent, always as DICOM: ``format`` and ``overwrite`` change nothing, and no
            map of ``uncertainty`` is written.
        study: StudyInstanceUID.
        series: SeriesInstanceUID; where it holds several volumes, with ``:1``, ``:2`` … as
            :func:`medsr.load` takes it. Not needed where one series alone suits.
        settings: How archives are spoken to.
        progress: Called with (stage, done, total).
        account: Called with the account of the request, however it ends.
        **changes: Fields of :class:`~medsr.infer.options.UpscaleOptions` that differ from
            ``options``.

    Raises:
        PacsError: An archive cannot be worked with; ``PartialTransferError`` where a part of the
            instances did not arrive.
        UsageError: De-identification is asked for without a secret, or another option is wrong.
        MedsrError: As for :func:`medsr.upscale`.

    Examples:
        >>> from medsr.errors import PacsError
        >>> from medsr.pacs import Settings, upscale
        >>> accounts = []
        >>> try:
        ...     upscale(
        ...         "dicom://ARCHIVE@localhost:1",
        ...         "https://localhost:1/dicom-web",
        ...         study="1.2.840.99.1",
        ...         series="1.2.840.99.7",
        ...         settings=Settings(retries=0, timeout_seconds=2.0),
        ...         account=accounts.append,
        ...         model="ct-z4",
        ...     )
        ... except PacsError as error:
        ...     print("exit code", error.exit_code)
        exit code 62
        >>> accounts[0].status
        'failed'
    """
    settings = settings or Settings()
    options = UpscaleOptions.of(options, **changes)
    check_uid(study, "--study")
    if series is not None:
        check_uid(series.partition(":")[0], "--series")
    if options.dicom.deidentify and not has_key():
        raise UsageError(
            f"a result that is de-identified needs a secret in {KEY_VARIABLE}, from which its "
            "identifiers follow; else the same request would give a second result"
        )
    upscaler = Upscaler(options)
    addresses = parse_address(source), parse_address(target)
    exchange = Exchange(study, series, str(addresses[0]), str(addresses[1]))
    archives = connect(addresses[0], "from", settings), connect(addresses[1], "to", settings)
    try:
        with suppress_network_logging, tempfile.TemporaryDirectory(prefix="medsr-") as scratch:
            upscaler.warm_up()
            _run(exchange, *archives, upscaler, Path(scratch), progress or no_progress)
    finally:
        if account is not None:
            account(exchange)
    return exchange


def _run(
    exchange: Exchange,
    origin: Archive,
    target: Archive,
    upscaler: Upscaler,
    scratch: Path,
    progress: StageProgress,
) -> None:
    dicom = upscaler.options.dicom
    inbox, outbox, looked_at = (scratch / name for name in ("series", "result", "looked-at"))
    looked_at.mkdir()
    inbox.mkdir()
    if exchange.series is None:
        exchange.series = choose_series(origin, exchange.study, looked_at).uid
    _fetch(exchange, origin, inbox, progress)

    outputs = Outputs(scan=outbox, dicom=dicom)
    scan = upscaler.read(inbox, outputs, series=exchange.series)
    plan = upscaler.plan(scan.volume)
    request = name_request(exchange.series, plan.result, plan.derivation(), upscaler.options)
    outputs = dataclasses.replace(outputs, request=request)
    uids = result_uids(request, dicom)
    count = count_files(scan.volume, plan.result.shape[2], dicom)
    study = str(Deidentifier().uid(exchange.study)) if dicom.deidentify else exchange.study
    exchange.result_study, exchange.result, exchange.images = study, uids.series, count
    wanted = {str(uids.instance(number)) for number in range(1, count + 1)}
    there = _ask(target, study, uids.series)
    exchange.already = None if there is None else len(wanted & there)
    if there is not None and wanted <= there:
        exchange.status, exchange.confirmed = "present", exchange.already
        return

    computed = upscaler.compute(scan, outputs, progress=progress)
    exchange.upscaled = upscaler.write(computed, outputs)
    files = [file for file in _files(outbox) if there is None or file.uid not in there]
    exchange.sent = Transfer(
        expected=len(files), progress=lambda done, total: progress("sending", done, total)
    )
    target.store(files, exchange.sent)
    _judge(exchange, files)
    present = _ask(target, study, uids.series)
    exchange.confirmed = None if present is None else len(wanted & present)
    if present is not None and not wanted <= present:
        logger.warning(
            "%s took every instance and lists %d of %d so far",
            target.address,
            exchange.confirmed,
            len(wanted),
        )
    exchange.status = "completed" if exchange.already else "stored"


def _fetch(exchange: Exchange, origin: Archive, inbox: Path, progress: StageProgress) -> None:
    """Fetch the series, all of it or nothing.

    Raises:
        NotInPacsError: There is none.
        PartialTransferError: A part is missing.
    """
    series = (exchange.series or "").partition(":")[0]
    expected = origin.instances(exchange.study, series)
    if not expected:
        raise NotInPacsError(f"{origin.address} has no series {series} in study {exchange.study}")
    exchange.fetched = transfer = Transfer(
        expected=len(expected), progress=lambda done, total: progress("fetching", done, total)
    )
    origin.fetch(exchange.study, series, inbox, transfer)
    missing = expected - transfer.done
    if missing:
        raise PartialTransferError(
            f"{len(transfer.done & expected)} of {len(expected)} instances could be fetched from "
            f"{origin.address}{_why(transfer)}; nothing was computed"
        )


def _judge(exchange: Exchange, files: list[StoredFile]) -> None:
    """Refuse what was not stored as a whole.

    Raises:
        PacsRefusedError: Nothing was.
        PartialTransferError: A part was not.
    """
    sent = exchange.sent
    if not sent.failures:
        return
    if not sent.done:
        raise PacsRefusedError(f"{exchange.target} stored no instance{_why(sent)}")
    raise PartialTransferError(
        f"{len(sent.failures)} of {len(files)} instances could not be stored at "
        f"{exchange.target}{_why(sent)}; make the same request again to complete the series"
    )


def _why(transfer: Transfer) -> str:
    statuses = sorted(set(transfer.failures.values()))
    return f" (status {', '.join(statuses)})" if statuses else ""


def _ask(target: Archive, study: str, series: str) -> set[str] | None:
    """Instances of a series that the target has; None where it cannot be asked."""
    try:
        return target.instances(study, series)
    except NotOfferedError:
        logger.info("%s takes images and cannot be asked what it has", target.address)
        return None


def name_request(
    series: str,
    grid: Geometry,
    derivation: Derivation,
    options: UpscaleOptions,
) -> str:
    """Name what is asked for: this series, by this model, on this grid, by this version.

    Precision, device and backend are no part of it, as they change roundings only.

    Args:
        series: SeriesInstanceUID of the source, with the number of the volume where it has one.
        grid: Grid of the result.
        derivation: Model, weights and version.
        options: What was allowed in reading the source, what is done to the result, and how it is
            written; of the last two an option at its default is no part of the name.
    """
    parts = [
        series,
        derivation.model,
        derivation.weight_hash,
        derivation.version,
        list(grid.shape),
        sorted(options.allowances),
        [[f"{value:.4f}" for value in row] for row in grid.affine.round(4) + 0.0],
    ]
    settled = {
        name: value
        for name, value in dataclasses.asdict(options.dicom).items()
        if value != getattr(DEFAULTS, name)
    }
    if options.consistency is not False:
        settled["consistency"] = options.consistency
    if not options.limits:
        settled["limits"] = options.limits
    text = json.dumps([*parts, settled] if settled else parts, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _files(folder: Path) -> list[StoredFile]:
    """The files of a written series, in the order of their names."""
    files = []
    for path in sorted(folder.iterdir()):
        meta = read_file_meta_info(path)
        files.append(
            StoredFile(
                path, str(meta.MediaStorageSOPClassUID), str(meta.MediaStorageSOPInstanceUID)
            )
        )
    return files

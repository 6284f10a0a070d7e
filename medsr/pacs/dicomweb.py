"""A DICOMweb server: QIDO-RS to list, WADO-RS to fetch, STOW-RS to send."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from dicomweb_client.api import DICOMwebClient
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from requests.auth import AuthBase, HTTPBasicAuth

from medsr.errors import NotInPacsError, PacsError, PacsRefusedError, PacsUnreachableError
from medsr.pacs.archive import (
    SUCCESS,
    Inbox,
    NotOfferedError,
    SeriesEntry,
    StoredFile,
    Transfer,
    is_stored,
    raise_if_passing,
)
from medsr.pacs.settings import Credentials, Role, Settings, WebAddress

logger = logging.getLogger(__name__)

_AS_STORED = (("application/dicom", "*"),)
_FILES_AT_ONCE = 20
_PAGE = 100
"""Answers asked for at once. Source: the conformance statements of DICOMweb servers: Azure refuses
more than 200; Google, dcm4chee and Orthanc give what is asked up to limits of 1000 and more."""
_MOST = 1_000_000
"""Answers after which a server is not believed to come to an end."""
_LOCAL = ("localhost", "127.0.0.1", "::1")
_NONSENSE = (
    requests.RequestException,
    InvalidDicomError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
)
_FAILED_WITHOUT_REASON = "0110"  # DICOM PS3.7 C, processing failure


class WebServer:
    """An archive behind DICOMweb; see :class:`medsr.pacs.archive.Archive`.

    Args:
        address: Where it is.
        role: Which end it is of, to name its environment variables.
        settings: How it is spoken to.
        credentials: What it is shown.
    """

    def __init__(
        self, address: WebAddress, role: Role, settings: Settings, credentials: Credentials
    ) -> None:
        self.address = address
        self._role = role.upper()
        session = _Session()
        session.auth = _authentication(credentials)
        ca_file = None if settings.ca_file is None else str(settings.ca_file)
        session.verify = ca_file or settings.verify if settings.verify else False
        where = urlsplit(address.url)
        if credentials and where.scheme == "http" and where.hostname not in _LOCAL:
            logger.warning("%s is not encrypted, and credentials are sent to it", address)
        self._session = session
        self._client = DICOMwebClient(
            address.url,
            session=session,
            permissive_uid=True,
            timeout=(settings.timeout_seconds, settings.timeout_seconds),
        )
        self._client.set_http_retry_params(retry=False)

    def series(self, study: str) -> list[SeriesEntry]:
        """See :class:`medsr.pacs.archive.Archive`."""
        fields = ["SeriesInstanceUID", "Modality", "NumberOfSeriesRelatedInstances"]
        matches = self._search(
            "SeriesInstanceUID",
            lambda **page: self._client.search_for_series(study, fields=fields, **page),
        )
        return [
            SeriesEntry(
                uid, str(answer.get("Modality") or ""), answer.get("NumberOfSeriesRelatedInstances")
            )
            for uid, answer in matches.items()
        ]

    def instances(self, study: str, series: str) -> set[str]:
        """See :class:`medsr.pacs.archive.Archive`."""
        fields = ["SOPInstanceUID"]
        return set(
            self._search(
                "SOPInstanceUID",
                lambda **page: self._client.search_for_instances(
                    study, series, fields=fields, **page
                ),
            )
        )

    def fetch(
        self, study: str, series: str, folder: Path, transfer: Transfer, *, only: str | None = None
    ) -> None:
        """See :class:`medsr.pacs.archive.Archive`. In the transfer syntax of the archive."""
        inbox = Inbox(folder, transfer)
        transfer.attempts += 1
        with self._faults("WADO-RS"):
            if only is not None:
                images: Iterator[Dataset] = iter(
                    [self._client.retrieve_instance(study, series, only, media_types=_AS_STORED)]
                )
            else:
                images = self._client.iter_series(study, series, media_types=_AS_STORED)
            for image in images:
                content = BytesIO()
                dcmwrite(content, image, enforce_file_format=True)
                inbox.put(str(image.SOPInstanceUID), content.getvalue())

    def store(self, files: Sequence[StoredFile], transfer: Transfer) -> None:
        """See :class:`medsr.pacs.archive.Archive`. A few files in each request."""
        waiting = iter([file for file in files if file.uid not in transfer.done])
        while batch := list(islice(waiting, _FILES_AT_ONCE)):
            transfer.attempts += 1
            with self._faults("STOW-RS"):
                answer = self._stow(batch)
            self._note(batch, answer, transfer)
            raise_if_passing(transfer, (file.uid for file in batch), self.address)

    def _stow(self, batch: list[StoredFile]) -> Dataset:
        try:
            return self._client.store_instances([dcmread(file.path) for file in batch])
        except requests.HTTPError as error:
            if error.response is not None and error.response.status_code == 409:
                # None was stored, and the answer says why. Source: DICOM PS3.18 10.5.3.
                return _failures_of(error.response, batch)
            raise

    def _note(self, batch: list[StoredFile], answer: Dataset, transfer: Transfer) -> None:
        """Read the answer to a STOW request. Source: DICOM PS3.18 I.2.2 (Store Instances)."""
        stored = {
            str(item.get("ReferencedSOPInstanceUID")): _hex(item.get("WarningReason"), SUCCESS)
            for item in answer.get("ReferencedSOPSequence") or []
        }
        failed = {
            str(item.get("ReferencedSOPInstanceUID")): _hex(
                item.get("FailureReason"), _FAILED_WITHOUT_REASON
            )
            for item in answer.get("FailedSOPSequence") or []
        }
        for file in batch:
            # An answer that says nothing of an instance came with the code of success.
            status = failed.get(file.uid) or stored.get(file.uid, SUCCESS)
            if file.uid not in failed or is_stored(status):
                transfer.arrived(file.uid, status)
            else:
                transfer.failed(file.uid, status)

    def _search(self, key: str, ask: Callable[..., list[dict[str, Any]]]) -> dict[str, Dataset]:
        """Ask for page after page, as servers limit their answers; by UID.

        Servers may give fewer than asked for, so only a page without anything new is the last. A
        full one without anything new comes from a server that knows no offset; it is asked for
        more at once. Source: DICOM PS3.18 8.3.4.4 (paging, and its warning 299).
        """
        instances: dict[str, Dataset] = {}
        limit = _PAGE
        while len(instances) < _MOST:
            try:
                with self._faults("QIDO-RS"):
                    page = [
                        Dataset.from_json(answer)
                        for answer in ask(limit=limit, offset=len(instances))
                    ]
            except NotInPacsError:
                return instances
            except PacsRefusedError:
                if limit == _PAGE:
                    raise
                return self._warned(instances)
            new = {str(answer[key].value): answer for answer in page if key in answer}
            if not new.keys() <= instances.keys():
                instances |= new
            elif len(page) >= limit:
                limit *= 2
            else:
                # The end; or as many again as before, however many were asked for.
                cut = page and (self._session.more or 2 * len(page) == limit > _PAGE)
                return self._warned(instances) if cut else instances
        raise PacsError(f"{self.address} (QIDO-RS): its list comes to no end")

    def _warned(self, found: dict[str, Dataset]) -> dict[str, Dataset]:
        logger.warning(
            "%s lists %d entries and knows no way to further ones; there may be more",
            self.address,
            len(found),
        )
        return found

    @contextmanager
    def _faults(self, service: str) -> Iterator[None]:
        """Turn what the libraries raise into errors of medsr, without the URL, which holds UIDs."""
        where = f"{self.address} ({service})"
        try:
            yield
        except requests.exceptions.SSLError:
            raise PacsRefusedError(
                f"{where}: its certificate is not trusted; give the authority that issued it with "
                "--ca"
            ) from None
        except requests.HTTPError as error:
            raise self._refusal(where, service, error.response) from None
        except requests.Timeout:
            raise PacsUnreachableError(f"{where}: no answer in time") from None
        except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
            raise PacsUnreachableError(f"{where}: no connection, or it broke off") from None
        except _NONSENSE:
            raise PacsError(f"{where}: the answer is not what DICOMweb has for it") from None

    def _refusal(self, where: str, service: str, response: requests.Response | None) -> PacsError:
        code = 0 if response is None else response.status_code
        if response is not None and (code == 429 or code >= 500) and code not in (501, 505):
            return PacsUnreachableError(
                f"{where} answers with HTTP {code}", wait_seconds=_wait_of(response)
            )
        if code in (401, 403):
            return PacsRefusedError(
                f"{where} answers with HTTP {code}: set MEDSR_{self._role}_TOKEN, or "
                f"MEDSR_{self._role}_USER and MEDSR_{self._role}_PASSWORD, to what it accepts"
            )
        if code == 404:
            return NotInPacsError(f"{where} has no such study, series or path (HTTP 404)")
        if code in (405, 501):
            return NotOfferedError(f"{where} does not offer {service} (HTTP {code})")
        return PacsRefusedError(f"{where} answers with HTTP {code}")


class _Session(requests.Session):
    """A session whose word on certificates goes before that of the environment.

    Attributes:
        more: Whether the last answer said that there are more results than it has.
    """

    more = False

    def request(self, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request, and note what its answer says of itself."""
        response = super().request(*args, **kwargs)
        self.more = response.headers.get("Warning", "").lstrip().startswith("299")
        return response

    def merge_environment_settings(
        self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any
    ) -> Any:
        if verify is None and self.verify is not True:
            verify = self.verify
        return super().merge_environment_settings(url, proxies, stream, verify, cert)


class _Bearer(AuthBase):
    """A token; as an authentication object it is not replaced by an entry of ``.netrc``."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class _Nothing(AuthBase):
    """No credentials, those of ``.netrc`` included: what is shown is what was asked for."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


def _authentication(credentials: Credentials) -> AuthBase:
    if credentials.token is not None:
        return _Bearer(credentials.token)
    if credentials.user is not None and credentials.password is not None:
        return HTTPBasicAuth(credentials.user, credentials.password)
    return _Nothing()


def _failures_of(response: requests.Response, batch: list[StoredFile]) -> Dataset:
    """What a refused STOW request says; each instance with its reason, where it gives one."""
    try:
        return Dataset.from_json(response.json())
    except (ValueError, KeyError, AttributeError, TypeError):
        answer = Dataset()
        answer.FailedSOPSequence = [Dataset() for _ in batch]
        for item, file in zip(answer.FailedSOPSequence, batch, strict=True):
            item.ReferencedSOPInstanceUID = file.uid
        return answer


def _wait_of(response: requests.Response) -> float | None:
    """Seconds of ``Retry-After``; None for a date, or where there is none."""
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isdigit() else None


def _hex(reason: Any, default: str) -> str:
    return default if reason in (None, "") else f"{int(reason):04X}"

"""Taking in what a DICOM node sends: over its own association (C-GET), or to our port (C-MOVE)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    LegacyConvertedEnhancedCTImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
    RLELossless,
)
from pynetdicom import AE, evt

from medsr.errors import PacsError
from medsr.pacs.archive import Inbox

STORAGE_CLASSES = (
    CTImageStorage,
    MRImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
)
"""What medsr can read."""

TRANSFER_SYNTAXES = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    JPEGLosslessSV1,
    JPEGLossless,
    JPEGLSLossless,
    JPEGLSNearLossless,
    JPEG2000Lossless,
    JPEG2000,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    HTJ2K,
    RLELossless,
)
"""Encodings in which a node may send what it holds without converting it."""

_OUT_OF_RESOURCES = 0xA700
_NOT_AUTHORISED = 0x0124
_CANNOT_UNDERSTAND = 0xC000
_lock = Lock()


def file_away(event: evt.Event, inbox: Inbox, expected: set[str] | None) -> int:
    """Put one instance into the inbox, undecoded; answer with a DICOM status.

    Args:
        event: The C-STORE request.
        inbox: Where to.
        expected: SOPInstanceUIDs to take; None takes all, on an association that we asked for.
    """
    uid = str(getattr(event.request, "AffectedSOPInstanceUID", None) or "")
    if not uid:
        return _CANNOT_UNDERSTAND
    if expected is not None and uid not in expected:
        return _NOT_AUTHORISED
    try:
        with _lock:  # a node may send over several associations at once
            inbox.put(uid, event.encoded_dataset())
    except OSError:
        return _OUT_OF_RESOURCES
    return 0x0000


@contextmanager
def receiving(
    title: str, port: int, inbox: Inbox, expected: set[str], timeout_seconds: float
) -> Iterator[None]:
    """Listen on a port while the block runs, and take the expected instances only.

    Args:
        title: Our application entity title; calls to another one are rejected.
        port: TCP port.
        inbox: Where what arrives goes.
        expected: SOPInstanceUIDs to take.
        timeout_seconds: How long to wait for the next message of an association.

    Raises:
        PacsError: The port cannot be listened on.
    """
    entity = AE(ae_title=title)
    entity.require_called_aet = True
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = timeout_seconds
    for uid in STORAGE_CLASSES:
        entity.add_supported_context(uid, list(TRANSFER_SYNTAXES))
    handlers: list[Any] = [(evt.EVT_C_STORE, file_away, [inbox, expected])]
    try:
        entity.start_server(("", port), block=False, evt_handlers=handlers)
    except OSError as error:
        reason = (error.strerror or "not available").lower()
        raise PacsError(f"port {port} cannot be listened on ({reason}); choose another") from None
    try:
        yield
    finally:
        entity.shutdown()

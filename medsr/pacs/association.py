"""Associations with a DICOM node: made, ended, and explained where they do not come about."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext
from pynetdicom.status import code_to_category

from medsr.errors import PacsRefusedError, PacsUnreachableError
from medsr.pacs.archive import NotOfferedError
from medsr.pacs.settings import NodeAddress, Settings

_REJECTED_TRANSIENTLY = 2  # DICOM PS3.8 9.3.4, field Result


class Caller:
    """Calls one node.

    Args:
        address: The node.
        settings: Our title, timeouts, trust.
    """

    def __init__(self, address: NodeAddress, settings: Settings) -> None:
        self._address, self._settings = address, settings

    @contextmanager
    def association(
        self,
        contexts: Sequence[PresentationContext],
        operation: str,
        *,
        roles: Sequence[Any] = (),
        handlers: Sequence[Any] = (),
    ) -> Iterator[Association]:
        """Hold an association while the block runs; an error in the block aborts it.

        Args:
            contexts: What is proposed; without the first of them nothing can be done.
            operation: What it is for, to say in errors.
            roles: Roles to negotiate.
            handlers: Handlers of events.

        Raises:
            PacsUnreachableError: There is no connection, or the node is busy.
            PacsRefusedError: The node rejects us.
            NotOfferedError: The node does not accept the first context.
        """
        settings, address = self._settings, self._address
        entity = AE(ae_title=settings.title)
        entity.acse_timeout = entity.dimse_timeout = settings.timeout_seconds
        entity.network_timeout = entity.connection_timeout = settings.timeout_seconds
        try:
            association = entity.associate(
                address.host,
                address.port,
                contexts=list(contexts),
                ae_title=address.title,
                ext_neg=list(roles),
                evt_handlers=list(handlers),
                tls_args=(_trust(settings), address.host) if address.tls else None,
            )
        except OSError as error:  # no such host
            raise self._no_connection(error) from None
        try:
            if not association.is_established:
                raise self._why_not(association, operation)
            accepted = {context.abstract_syntax for context in association.accepted_contexts}
            if contexts[0].abstract_syntax not in accepted:
                raise self._not_offered(operation)
            yield association
        except BaseException:
            if association.is_established:
                association.abort()
            raise
        if association.is_established:
            association.release()

    def _why_not(self, association: Association, operation: str) -> Exception:
        answer = association.acceptor.primitive
        if association.is_rejected and answer is not None:
            message = (
                f"{self._address} rejects the association of AE title {self._settings.title}: "
                f"{answer.reason_str.lower()}"
            )
            if answer.result == _REJECTED_TRANSIENTLY:
                return PacsUnreachableError(message)
            return PacsRefusedError(message)
        if association.rejected_contexts:
            return self._not_offered(operation)
        return self._look()

    def _not_offered(self, operation: str) -> NotOfferedError:
        return NotOfferedError(f"{self._address} does not offer {operation} for what is asked")

    def _look(self) -> Exception:
        """Find out why there was no answer, which pynetdicom tells its log only."""
        address, settings = self._address, self._settings
        try:
            with socket.create_connection(
                (address.host, address.port), settings.timeout_seconds
            ) as plain:
                if address.tls:
                    context = _trust(settings)
                    with context.wrap_socket(plain, server_hostname=address.host):
                        pass
        except ssl.SSLCertVerificationError as error:
            return PacsRefusedError(
                f"{address}: its certificate is not trusted ({error.verify_message}); give the "
                "authority that issued it with --ca"
            )
        except OSError as error:
            return self._no_connection(error)
        return PacsUnreachableError(
            f"{address} takes the connection and gives no answer to an association; is it a DICOM "
            "port, and is the AE title right?"
        )

    def _no_connection(self, error: OSError) -> PacsUnreachableError:
        reason = error.strerror or str(error) or type(error).__name__
        return PacsUnreachableError(f"{self._address}: no connection ({reason.lower()})")


def describe_status(status: str, operation: str) -> str:
    """Name a DICOM status of four hexadecimal digits."""
    category = code_to_category(int(status, 16))
    return f"status {status} ({operation} {category.lower()})"


def _trust(settings: Settings) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=settings.ca_file)
    if not settings.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context

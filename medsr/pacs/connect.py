"""The client of an archive, by its address."""

from __future__ import annotations

from medsr.errors import MissingExtraError
from medsr.pacs.archive import Archive
from medsr.pacs.settings import Address, Credentials, NodeAddress, Role, Settings

_EXTRA = ("pynetdicom", "dicomweb_client", "requests", "tenacity")


def connect(address: Address, role: Role, settings: Settings) -> Archive:
    """Give the client of an archive, which tries again where that helps. Nothing is sent yet.

    Raises:
        MissingExtraError: The extra ``pacs`` is not installed.
        UsageError: The credentials in the environment are incomplete.
    """
    try:
        from medsr.pacs.persistent import Persistent

        if isinstance(address, NodeAddress):
            from medsr.pacs.dimse import DicomNode

            return Persistent(DicomNode(address, settings), settings.retries)
        from medsr.pacs.dicomweb import WebServer

        credentials = Credentials.of(role)
        return Persistent(WebServer(address, role, settings, credentials), settings.retries)
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        raise MissingExtraError(
            f"archives on the network need the package {error.name}; install the extra: "
            "pip install 'medsr[pacs]'"
        ) from error

"""Scans from and to archives on the network: DICOM nodes (DIMSE) and DICOMweb servers.

``exchange`` takes a series from one, upscales it and brings the result to another; ``archive`` says
what either kind can be asked, ``dimse`` and ``dicomweb`` speak the protocols, each by a library of
the extra ``pacs`` that is imported when needed. Scans are read, upscaled and written elsewhere.
Of a patient, messages and reports hold UIDs only.
"""

from __future__ import annotations

from medsr.pacs.archive import SeriesEntry
from medsr.pacs.exchange import Exchange, list_series, upscale
from medsr.pacs.settings import Settings

__all__ = ["Exchange", "SeriesEntry", "Settings", "list_series", "upscale"]

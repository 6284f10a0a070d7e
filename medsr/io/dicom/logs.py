"""Keeps pydicom from logging: it quotes the offending value of every malformed attribute."""

from __future__ import annotations

from medsr.logs import LogSuppressor

suppress_logging = LogSuppressor("pydicom", with_warnings=True)
"""Decorates what reads or writes DICOM; ``with suppress_logging:`` does the same for a block."""

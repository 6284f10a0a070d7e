"""Keeps the network libraries from telling what passes through them, patients included, to logs."""

from __future__ import annotations

from medsr.logs import LogSuppressor

suppress_network_logging = LogSuppressor("pynetdicom", "dicomweb_client", "urllib3", "requests")
"""Lets those libraries log nothing while a block runs, whatever the program has set up.

pynetdicom writes identifiers at the level INFO and whole queries at DEBUG.
"""

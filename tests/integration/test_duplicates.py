"""Copies among real scans are found, and people of one study are told apart."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from medsr.data.fingerprint import Fingerprint, fine_likeness, fingerprint
from medsr.data.leaks import SAME, same_content
from medsr.data.manifest import ScanRecord, read_manifest
from medsr.io import load
from medsr.volume import Volume

MARGIN = 0.1
CHOSEN = (
    "ds002748_sub-01_T1w",
    "ds002748_sub-12_T1w",
    "ds002748_sub-43_T1w",
    "openms_p07_FLAIR",
    "openms_p26_FLAIR",
    "soop1_FLAIR_6mm",
    "lidc0001_CT",
    "acrin001_CT_4p25mm",
)


def _copy(scan: Volume) -> Volume:
    """Cropped, of half the resolution, stored in another order, rescaled to eight bits, noisy."""
    scan = scan.crop([n // 10 for n in scan.shape], [n - n // 10 for n in scan.shape])
    scan = scan.crop((0, 0, 0), [n // 2 * 2 for n in scan.shape])
    x, y, z = (n // 2 for n in scan.shape)
    half = scan.data.astype(np.float32).reshape(x, 2, y, 2, z, 2).mean(axis=(1, 3, 5))
    scan = scan.replace(data=half, geometry=scan.geometry.coarsen(2))
    low, high = float(half.min()), float(np.percentile(half, 99.5))
    noise = np.random.default_rng(1).normal(0, 5, half.shape)
    eight = np.rint(np.clip((half - low) / (high - low), 0, 1) * 255 + noise)
    return scan.replace(data=eight.astype(np.float32)).permute((1, 2, 0)).flip((0, 1))


@pytest.fixture(scope="module")
def scans(shared_data: Path) -> list[tuple[ScanRecord, Fingerprint, Fingerprint]]:
    """Scans, the hardest that there are, with fingerprints of themselves and of a copy."""
    found = []
    for record in read_manifest(shared_data / "manifest.csv"):
        if record.scan_id in CHOSEN:
            scan = load(record.path, modality=record.modality)
            found.append((record, fingerprint(scan), fingerprint(_copy(scan))))
    assert len(found) == len(CHOSEN)
    return found


def test_copies_are_like_their_scans(
    scans: list[tuple[ScanRecord, Fingerprint, Fingerprint]],
) -> None:
    assert min(fine_likeness(own, copy) for _, own, copy in scans) > SAME + MARGIN


def test_people_of_one_study_are_unlike(
    scans: list[tuple[ScanRecord, Fingerprint, Fingerprint]],
) -> None:
    pairs = combinations([own for _, own, _ in scans], 2)
    assert max(fine_likeness(one, other) for one, other in pairs) < SAME - MARGIN


def test_every_copy_is_found_and_nothing_else(
    scans: list[tuple[ScanRecord, Fingerprint, Fingerprint]],
) -> None:
    copies = [
        (replace(record, patient_id=f"copy of {record.patient_id}", split="test"), copy)
        for record, _, copy in scans
    ]
    found, _ = same_content([*((record, own) for record, own, _ in scans), *copies], workers=1)
    assert {(t.first.scan_id, t.second.scan_id) for t in found} == {(n, n) for n in CHOSEN}

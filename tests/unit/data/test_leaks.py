"""One person in two splits: found by the spelling of identifiers and by what scans show."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
from scipy.ndimage import gaussian_filter

from medsr.data.fingerprint import (
    TORUS,
    Fingerprint,
    coarse_likeness,
    fine_likeness,
    fingerprint,
)
from medsr.data.leaks import CANDIDATES, SAME, check_leaks, near_spellings, same_content
from medsr.data.manifest import ScanRecord
from medsr.errors import LeakError
from medsr.geometry import Geometry
from medsr.volume import Volume

SHAPE = (64, 76, 60)
AFFINE = np.array([[-2.0, 0, 0, 60], [0, 2, 0, -75], [0, 0, 2, -50], [0, 0, 0, 1.0]])


def person(seed: int) -> Volume:
    """A head of the shape that all have, with folds of its own."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    inside = x**2 + y**2 + z**2 < 0.85
    ventricles = (np.abs(x) - 0.2) ** 2 / 0.02 + y**2 / 0.2 + z**2 / 0.1 < 1
    noise = np.random.default_rng(seed).normal(size=SHAPE)
    folds = gaussian_filter(noise, 1.5) - gaussian_filter(noise, 4)
    data = np.where(inside, 600 + 120 * folds / folds.std() - 350 * ventricles, 0)
    return Volume(np.maximum(data, 0).astype(np.float32), Geometry(SHAPE, AFFINE), "MR")


def _halved(volume: Volume) -> Volume:
    d = volume.data.reshape(32, 2, 38, 2, 30, 2).mean(axis=(1, 3, 5))
    return volume.replace(data=d.astype(np.float32), geometry=volume.geometry.coarsen(2))


def _origin_lost(volume: Volume) -> Volume:
    affine = volume.geometry.affine.copy()
    affine[:3, 3] = (3.3, -71.7, 10.9)
    return volume.replace(geometry=Geometry(volume.shape, affine))


def _eight_bits(volume: Volume) -> Volume:
    data = volume.data
    return volume.replace(data=np.rint(data / data.max() * 255).astype(np.uint8))


def _noisy(volume: Volume) -> Volume:
    noise = np.random.default_rng(9).normal(0, 30, volume.shape)
    return volume.replace(data=(volume.data + noise).astype(np.float32))


CHANGES = {
    "as it was": lambda v: v,
    "rescaled": lambda v: v.replace(data=(v.data * 0.37 + 121).astype(np.float32)),
    "stored otherwise": lambda v: v.permute((2, 0, 1)).flip((0, 2)),
    "cropped": lambda v: v.crop((6, 8, 6), (58, 70, 54)),
    "half": lambda v: v.crop((0, 0, 0), (64, 76, 34)),
    "halved grid": _halved,
    "doubled grid": lambda v: v.replace(
        data=np.repeat(np.repeat(v.data, 2, 0), 2, 1), geometry=v.geometry.refine((2, 2, 1))
    ),
    "origin lost": _origin_lost,
    "eight bits": _eight_bits,
    "noisy": _noisy,
    "cropped, origin lost, noisy": lambda v: _noisy(_origin_lost(v.crop((5, 5, 5), (60, 70, 55)))),
}


@pytest.mark.parametrize("how", CHANGES)
def test_the_same_acquisition_is_recognised(how: str) -> None:
    scan = person(1)
    changed = fingerprint(CHANGES[how](scan))
    whole = fingerprint(scan)
    assert fine_likeness(whole, changed) > SAME
    assert fine_likeness(changed, whole) > SAME
    others = np.stack([fingerprint(person(seed)).coarse for seed in (2, 3, 4, 5)])
    coarse = coarse_likeness(whole.coarse, np.stack([changed.coarse, *others]))
    assert coarse.argmax() == 0


def test_different_people_are_not() -> None:
    prints = [fingerprint(person(seed)) for seed in range(1, 6)]
    likeness = [fine_likeness(a, b) for i, a in enumerate(prints) for b in prints[:i]]
    assert max(likeness) < SAME - 0.1


def test_the_coarse_likeness_is_a_correlation_at_all_shifts(rng: np.random.Generator) -> None:
    one = fingerprint(person(1))
    other = fingerprint(person(2))
    # scipy's spectra against sums over voxels
    a, b = (np.fft.irfftn(p.coarse, (TORUS,) * 3, axes=(0, 1, 2)) for p in (one, other))
    assert (a**2).sum() == pytest.approx(1, abs=1e-3)
    shift = tuple(int(s) for s in rng.integers(0, TORUS, 3))
    at_shift = float((a * np.roll(b, shift, (0, 1, 2))).sum())
    found = coarse_likeness(one.coarse, np.stack([one.coarse, other.coarse]))
    assert found[0] == pytest.approx(1, abs=1e-3)
    assert found[1] >= at_shift - 1e-4


def test_a_scan_without_detail_is_like_no_other() -> None:
    empty = Volume(np.full(SHAPE, 5, np.float32), Geometry(SHAPE, AFFINE), "MR")
    blank, scan = fingerprint(empty), fingerprint(person(1))
    assert np.isfinite(blank.coarse).all()
    assert fine_likeness(blank, scan) == 0
    assert coarse_likeness(blank.coarse, scan.coarse[None])[0] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("shape", [(5, 70, 64), (200, 180, 90)])
def test_thin_and_wide_scans_have_fingerprints(
    shape: tuple[int, int, int], rng: np.random.Generator
) -> None:
    data: npt.NDArray[np.float32] = gaussian_filter(rng.normal(size=shape), 2).astype(np.float32)
    scan = Volume(data, Geometry(shape, np.diag([2.0, 2.0, 2.0, 1.0])), "CT", "HU")
    found = fingerprint(scan)
    assert found.coarse.shape == (TORUS, TORUS, TORUS // 2 + 1)
    assert fine_likeness(found, fingerprint(scan.flip(0))) > 0.99


def record(name: str, patient: str, split: str) -> ScanRecord:
    return ScanRecord(Path(f"{name}.nii.gz"), split, patient, "MR")


def test_near_spellings_are_named_those_across_splits_first() -> None:
    cohort = [
        record("a", "P1", "train"),
        record("b", "p-1", "train"),
        record("c", "sub-02", "train"),
        record("d", "02", "test"),
        record("e", "sub-02", "train"),
        record("f", "3", "test"),
    ]
    found = near_spellings(cohort)
    assert [(t.first.scan_id, t.second.scan_id, t.leaks) for t in found] == [
        ("c", "d", True),
        ("a", "b", False),
    ]


@pytest.fixture
def prints() -> list[tuple[ScanRecord, Fingerprint]]:
    """Two people, one of whom is there three times, twice under his own name."""
    one, other = person(1), person(2)
    return [
        (record("one", "p1", "train"), fingerprint(one)),
        (record("again", "p1", "train"), fingerprint(_noisy(one))),
        (record("other", "p2", "test"), fingerprint(other)),
        (record("copy", "p3", "test"), fingerprint(CHANGES["stored otherwise"](one))),
    ]


def test_scans_of_one_patient_are_not_compared(
    prints: list[tuple[ScanRecord, Fingerprint]],
) -> None:
    found, compared = same_content(prints, workers=1)
    assert [{t.first.scan_id, t.second.scan_id} for t in found] == [
        {"one", "copy"},
        {"again", "copy"},
    ]
    assert compared == 5
    assert all(t.leaks for t in found)


def test_many_copies_crowd_nobody_out(prints: list[tuple[ScanRecord, Fingerprint]]) -> None:
    count = 2 * CANDIDATES
    crowd = [(record(f"c{n}", f"c{n}", "train"), prints[0][1]) for n in range(count)]
    pair = [(record("x", "x", "train"), prints[2][1]), (record("y", "y", "test"), prints[2][1])]
    found, _ = same_content([*crowd, *pair], workers=1)
    assert {"x", "y"} in [{t.first.scan_id, t.second.scan_id} for t in found]
    named = {t.first.scan_id for t in found} | {t.second.scan_id for t in found}
    assert {f"c{n}" for n in range(count)} <= named


def write(folder: Path, name: str, volume: Volume, patient: str, split: str) -> ScanRecord:
    path = folder / f"{name}.nii.gz"
    nib.save(nib.Nifti1Image(volume.data.astype(np.int16), volume.geometry.affine), path)
    return replace(record(name, patient, split), path=path)


def test_a_cohort_with_a_copy_across_splits_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = _halved(person(1)).permute((1, 0, 2))
    cohort = [
        write(tmp_path, "one", person(1), "ALICE", "train"),
        write(tmp_path, "two", person(2), "BOB", "train"),
        write(tmp_path, "three", copy, "CAROL", "test"),
        write(tmp_path, "broken", person(3), "DAVE", "test"),
    ]
    cohort[3].path.write_bytes(b"broken")
    steps: list[str] = []
    leaks = check_leaks(cohort, progress=lambda done, total, what: steps.append(what))
    assert {"reading", "comparing", "comparing closely"} == set(steps)
    assert [name for name, _ in leaks.unread] == ["broken"]
    assert leaks.compared == 3
    with pytest.raises(LeakError, match=r"one \(train\) and three \(test\)") as caught:
        leaks.refuse()
    for text in (str(caught.value), caplog.text):
        assert not any(name in text for name in ("ALICE", "BOB", "CAROL", "DAVE"))


def test_a_copy_within_a_split_is_told_and_not_refused(tmp_path: Path) -> None:
    cohort = [write(tmp_path, n, person(1), n, "train") for n in ("a", "b")]
    leaks = check_leaks(cohort)
    assert len(leaks.contents) == 1
    assert not leaks.across
    leaks.refuse()


def test_identifiers_alone_need_no_scans() -> None:
    leaks = check_leaks([record("a", "p1", "x"), record("b", "P-1", "y")], content=False)
    assert (len(leaks.spellings), leaks.compared) == (1, 0)

"""Cohorts of any kind: BIDS folders, lock files, and what is frozen."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medsr.data.cohort import cohort_digest, freeze, read_cohort
from medsr.data.lock import Lock, read_lock, verify, write_lock
from medsr.errors import CohortChangedError, CohortError, OutputExistsError


def write_scan(path: Path, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.arange(6 * 5 * 4, dtype=np.int16).reshape(6, 5, 4) + len(str(path)) % 7
    nib.save(nib.Nifti1Image(data, np.diag([*spacing, 1.0])), path)


@pytest.fixture
def bids(tmp_path: Path) -> Path:
    """A dataset of three subjects, with all that must not be taken."""
    root = tmp_path / "bids"
    write_scan(root / "sub-01/anat/sub-01_T1w.nii.gz")
    write_scan(root / "sub-01/anat/sub-01_FLAIR.nii.gz", (0.8, 0.8, 5.0))
    write_scan(root / "sub-02/ses-a/anat/sub-02_ses-a_T1w.nii.gz")
    write_scan(root / "sub-02/ses-b/anat/sub-02_ses-b_run-1_T2w.nii")
    write_scan(root / "sub-03/ct/sub-03_ct.nii.gz", (0.7, 0.7, 1.0))
    for name in (
        "sub-01/anat/sub-01_desc-sr_T1w.nii.gz",
        "sub-01/anat/sub-01_space-MNI_T1w.nii.gz",
        "sub-01/anat/sub-01_part-phase_T2starw.nii.gz",
        "sub-01/func/sub-01_task-rest_bold.nii.gz",
        "sub-01/anat/sub-02_T1w.nii.gz",
        "sub-01/anat/notes.nii.gz",
        "derivatives/x/sub-01/anat/sub-01_T1w.nii.gz",
    ):
        write_scan(root / name)
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.8.0"}')
    (root / "participants.tsv").write_text(
        "participant_id\tage\tsite\nsub-01\t40\tA\nsub-02\t1\tn/a\n"
    )
    (root / "sub-03/ct/sub-03_ct.json").write_text('{"InstitutionName": "St. Elsewhere"}')
    return root


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """A CSV cohort of eight patients without splits, one of them a folder of files."""
    rows = ["path,patient_id,modality,contrast,site,sharp_axes,spacing_mm,shape"]
    for number in range(7):
        write_scan(tmp_path / f"scans/s{number}.nii.gz")
        rows.append(f"scans/s{number}.nii.gz,p{number},MR,T1w,A,xy,1x1x2.5,6x5x4")
    for number in range(3):
        (tmp_path / "series").mkdir(exist_ok=True)
        (tmp_path / f"series/{number}.dcm").write_bytes(bytes([number]) * 9)
    rows.append("series,p7,CT,,B,,,")
    path = tmp_path / "cohort.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def locked(manifest: Path) -> Path:
    path = manifest.parent / "cohort.lock.json"
    return write_lock(freeze(manifest, manifest.parent), path)


def test_a_bids_folder_is_a_cohort_of_its_raw_scans(bids: Path) -> None:
    records = read_cohort(bids)
    assert [(r.path.name, r.patient_id, r.modality, r.contrast) for r in records] == [
        ("sub-01_FLAIR.nii.gz", "sub-01", "MR", "FLAIR"),
        ("sub-01_T1w.nii.gz", "sub-01", "MR", "T1w"),
        ("sub-02_ses-a_T1w.nii.gz", "sub-02", "MR", "T1w"),
        ("sub-02_ses-b_run-1_T2w.nii", "sub-02", "MR", "T2w"),
        ("sub-03_ct.nii.gz", "sub-03", "CT", ""),
    ]
    assert {r.split for r in records} == {"all"}
    assert [r.sharp_axes for r in records] == ["xy", "xyz", "xyz", "xyz", "xyz"]
    assert records[0].shape == (6, 5, 4)
    assert records[0].spacing_mm == (0.8, 0.8, 5.0)


def test_sites_are_told_without_names_of_places(bids: Path) -> None:
    sites = {r.patient_id: r.site for r in read_cohort(bids)}
    assert sites["sub-01"] == "A"
    assert sites["sub-02"] == ""
    assert sites["sub-03"].startswith("site-")
    assert "lsewhere" not in sites["sub-03"]


def test_a_table_with_a_byte_order_mark_is_read(bids: Path) -> None:
    table = bids / "participants.tsv"
    table.write_text(table.read_text(), encoding="utf-8-sig")
    assert {r.patient_id: r.site for r in read_cohort(bids)}["sub-01"] == "A"


def test_links_to_files_that_were_not_fetched_are_told(bids: Path) -> None:
    (bids / "sub-02/ses-a/anat/sub-02_ses-a_PDw.nii.gz").symlink_to("../annex/nothing")
    with pytest.raises(CohortError, match=r"1 scans are links.*datalad get"):
        read_cohort(bids)


@pytest.mark.parametrize("place", ["sub-77", "sub-02/ses-z", "sub-02/ct", "sub-02/ses-z/anat"])
def test_links_to_folders_that_were_not_fetched_are_told(bids: Path, place: str) -> None:
    (bids / "sub-02" / "notes").symlink_to("nothing")  # no place of scans
    read_cohort(bids)
    (bids / place).parent.mkdir(exist_ok=True)
    (bids / place).symlink_to(bids.parent / "annex" / "nothing")
    with pytest.raises(CohortError, match=r"1 scans are links.*datalad get"):
        read_cohort(bids)


def test_linked_subjects_are_read(bids: Path) -> None:
    subjects = {record.patient_id for record in read_cohort(bids)}
    before = [record.path.relative_to(bids) for record in read_cohort(bids)]
    for subject in subjects:
        (bids.parent / f"store-{subject}").mkdir()
        (bids / subject).rename(bids.parent / f"store-{subject}" / "x")
        (bids / subject).symlink_to(Path("..") / f"store-{subject}" / "x")
    assert [record.path.relative_to(bids) for record in read_cohort(bids)] == before


def test_a_damaged_header_is_named_by_its_place(bids: Path) -> None:
    (bids / "sub-02/ses-a/anat/sub-02_ses-a_T1w.nii.gz").write_bytes(b"no scan")
    with pytest.raises(CohortError, match="scan 3 of the dataset") as caught:
        read_cohort(bids)
    assert "sub-02" not in str(caught.value)


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="no BIDS dataset"):
        read_cohort(tmp_path)
    (tmp_path / "sub-1").mkdir()
    with pytest.raises(CohortError, match="no raw structural scan"):
        read_cohort(tmp_path)


def test_a_lock_gives_the_cohort_back(manifest: Path) -> None:
    lock = locked(manifest)
    before = {r.path: r for r in read_cohort(manifest, needs_split=False)}
    after = read_cohort(lock, split="train")
    assert len(after) == 8
    for record in after:
        known = before[record.path]
        assert record.split in ("train", "dev", "test")
        assert (record.patient_id, record.modality, record.contrast, record.site) == (
            known.patient_id,
            known.modality,
            known.contrast,
            known.site,
        )
        assert (record.sharp_axes, record.spacing_mm, record.shape) == (
            known.sharp_axes,
            known.spacing_mm,
            known.shape,
        )


def test_a_lock_is_the_same_every_time_and_moves_with_its_scans(
    manifest: Path, tmp_path: Path
) -> None:
    lock = locked(manifest)
    again = write_lock(freeze(manifest, manifest.parent), tmp_path / "again.lock.json")
    assert lock.read_bytes() == again.read_bytes()
    assert str(tmp_path) not in lock.read_text()
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("scans", "series", "cohort.lock.json"):
        (tmp_path / name).rename(moved / name)
    assert read_cohort(moved / "cohort.lock.json", split="train")[0].path.is_relative_to(moved)


def test_a_bids_folder_can_be_split(bids: Path, tmp_path: Path) -> None:
    lock = write_lock(
        freeze(bids, tmp_path, fractions={"train": 0.5, "test": 0.5}), tmp_path / "b.json"
    )
    splits = {r.patient_id: r.split for r in read_cohort(lock)}
    assert sorted(splits) == ["sub-01", "sub-02", "sub-03"]
    assert set(splits.values()) == {"train", "test"}


@pytest.mark.parametrize("place", ["scans/s0.nii.gz", "series/1.dcm"])
@pytest.mark.parametrize("how", ["size", "bytes", "gone"])
def test_changed_scans_are_refused(manifest: Path, place: str, how: str) -> None:
    lock = locked(manifest)
    scan = manifest.parent / place
    content = scan.read_bytes()
    if how == "gone":
        scan.unlink()
    else:
        scan.write_bytes(content + b"x" if how == "size" else bytes([content[0] ^ 1]) + content[1:])
    patient = "p7" if "series" in place else "p0"
    split = read_lock(lock).splits()[patient]
    with pytest.raises(CohortChangedError, match=r"1 (missing|changed)"):
        read_cohort(lock, split=split)
    others = {"train", "dev", "test"} - {split}
    for other in others:
        read_cohort(lock, split=other)
    read_cohort(lock)


def test_what_a_link_leads_to_is_locked_too(manifest: Path) -> None:
    (manifest.parent / "store").mkdir()
    (manifest.parent / "store" / "4.dcm").write_bytes(b"before")
    (manifest.parent / "series" / "linked").symlink_to(manifest.parent / "store")
    lock = locked(manifest)
    split = read_lock(lock).splits()["p7"]
    read_cohort(lock, split=split)
    (manifest.parent / "store" / "4.dcm").write_bytes(b"beyond")
    with pytest.raises(CohortChangedError, match="1 changed"):
        read_cohort(lock, split=split)


def test_everything_is_verified_where_no_split_is_named(manifest: Path) -> None:
    lock = locked(manifest)
    steps: list[tuple[int, int, str]] = []
    assert verify(read_lock(lock), lock, progress=lambda *step: steps.append(step)) == 8
    assert [step[0] for step in steps] == list(range(8))


def test_a_lock_is_extended_and_known_patients_stay(
    manifest: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = freeze(manifest, manifest.parent, seed=5, fractions={"train": 0.5, "test": 0.5})
    lines = manifest.read_text().splitlines()
    for number in range(20, 26):
        write_scan(manifest.parent / f"scans/s{number}.nii.gz")
        lines.append(f"scans/s{number}.nii.gz,p{number},MR,T1w,A,,,")
    del lines[1]
    manifest.write_text("\n".join(lines) + "\n")
    with caplog.at_level(logging.WARNING):
        new = freeze(manifest, manifest.parent, extend=old)
    kept = {p: s for p, s in old.splits().items() if p != "p0"}
    assert {p: new.splits()[p] for p in kept} == kept
    assert (new.seed, new.fractions, len(new.scans)) == (5, {"train": 0.5, "test": 0.5}, 13)
    assert "1 patients of the extended lock" in caplog.text
    assert "p0" not in caplog.text


def test_splits_of_a_cohort_can_be_kept(manifest: Path) -> None:
    with pytest.raises(CohortError, match="no column split"):
        freeze(manifest, manifest.parent, keep_splits=True)
    lines = manifest.read_text().splitlines()
    named = [f"{lines[0]},split", *(f"{line},mine" for line in lines[1:])]
    manifest.write_text("\n".join(named) + "\n")
    lock = freeze(manifest, manifest.parent, keep_splits=True)
    assert set(lock.splits().values()) == {"mine"}
    assert lock.seed is None


def test_the_table_counts_patients_and_scans(manifest: Path) -> None:
    lock = freeze(manifest, manifest.parent)
    assert [row.stratum for row in lock.strata] == ["CT/B", "MR/T1w/A"]
    assert sum(sum(row.patients.values()) for row in lock.strata) == 8
    assert sum(sum(row.scans.values()) for row in lock.strata) == 8


def test_thick_partners_are_locked_too(tmp_path: Path) -> None:
    for name in ("thin", "thick"):
        write_scan(tmp_path / f"{name}.nii.gz")
    (tmp_path / "c.csv").write_text(
        "path,patient_id,modality,lr_path\nthin.nii.gz,p,MR,thick.nii.gz\n"
    )
    path = write_lock(freeze(tmp_path / "c.csv", tmp_path), tmp_path / "c.json")
    (record,) = read_cohort(path, split="train")
    assert record.lr_path == tmp_path / "thick.nii.gz"
    (tmp_path / "thick.nii.gz").write_bytes(b"other")
    with pytest.raises(CohortChangedError, match="1 changed"):
        read_cohort(path, split="train")


def _without(lock: dict[str, object], key: str) -> dict[str, object]:
    return {name: value for name, value in lock.items() if name != key}


def test_damaged_locks_are_refused(manifest: Path) -> None:
    path = locked(manifest)
    good = json.loads(path.read_text())
    moved = json.loads(path.read_text())
    moved["scans"].append({**moved["scans"][0], "split": "elsewhere"})
    for wrong, reason in (
        ({**good, "schema": 9}, "schema"),
        ({**good, "more": 1}, "more"),
        (_without(good, "scans"), "scans"),
        ({**good, "scans": []}, "no scan"),
        (moved, "stands also in split"),
    ):
        path.write_text(json.dumps(wrong))
        with pytest.raises(CohortError, match=reason):
            read_cohort(path)
    path.write_text("[")
    with pytest.raises(CohortError, match="no lock file"):
        read_cohort(path)
    with pytest.raises(CohortError, match="cannot be read"):
        read_cohort(path.with_name("absent.json"))


def test_a_lock_is_not_replaced_unasked(manifest: Path) -> None:
    path = locked(manifest)
    lock: Lock = read_lock(path)
    with pytest.raises(OutputExistsError):
        write_lock(lock, path)
    write_lock(lock, path, overwrite=True)


def test_the_digest_names_the_cohort(bids: Path, manifest: Path) -> None:
    before = cohort_digest(bids), cohort_digest(manifest)
    assert before == (cohort_digest(bids), cohort_digest(manifest))
    write_scan(bids / "sub-03/anat/sub-03_T1w.nii.gz")
    manifest.write_text(manifest.read_text() + "\n")
    assert cohort_digest(bids) != before[0]
    assert cohort_digest(manifest) != before[1]


def test_participants_without_a_folder_are_counted(
    bids: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = bids / "participants.tsv"
    table.write_text(table.read_text() + "03\t7\tB\n")  # the prefix is often left out
    read_cohort(bids)
    assert not caplog.records
    table.write_text(table.read_text() + "sub-SECRET\t7\tB\n")
    assert len(read_cohort(bids)) == 5
    assert "1 of 4 participants of participants.tsv have no folder" in caplog.text
    assert "SECRET" not in caplog.text


def test_a_dataset_of_lost_links_alone_is_told(tmp_path: Path) -> None:
    (tmp_path / "sub-01").symlink_to(tmp_path / "annex" / "nothing")
    with pytest.raises(CohortError, match=r"links to files or folders that are not there"):
        read_cohort(tmp_path)

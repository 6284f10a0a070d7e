"""The manifest: what it reads, and every way it refuses."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from medsr.data.manifest import ScanRecord, read_manifest, require_files, select
from medsr.errors import CohortError

HEADER = "path,split,patient_id,modality,contrast,spacing_mm,shape,sharp_axes,licence"


def write(folder: Path, *rows: str, header: str = HEADER, files: tuple[str, ...] = ()) -> Path:
    for name in files:
        scan = folder / name
        scan.parent.mkdir(parents=True, exist_ok=True)
        scan.write_bytes(b"scan")
    manifest = folder / "manifest.csv"
    manifest.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return manifest


def test_reads_every_column_and_resolves_paths(tmp_path: Path) -> None:
    manifest = write(
        tmp_path,
        "a/one.nii.gz,train,p1,MR,T1w,0.868x0.868x2.000,170x204x72,xyz,CC0",
        "a/two.nrrd,dev,p2,ct,,,,yx,",
        files=("a/one.nii.gz", "a/two.nrrd"),
    )
    one, two = read_manifest(manifest)
    assert one == ScanRecord(
        path=tmp_path / "a/one.nii.gz",
        split="train",
        patient_id="p1",
        modality="MR",
        contrast="T1w",
        spacing_mm=(0.868, 0.868, 2.0),
        shape=(170, 204, 72),
        sharp_axes="xyz",
    )
    assert (one.scan_id, two.scan_id) == ("one", "two")
    assert (two.modality, two.spacing_mm, two.shape) == ("CT", None, None)
    assert two.sharp_axis_indices == (0, 1)


def test_only_four_columns_are_required(tmp_path: Path) -> None:
    (record,) = read_manifest(
        write(tmp_path, "s.nii,dev,p,MR", header="path,split,patient_id,modality", files=("s.nii",))
    )
    assert record.sharp_axes == "xyz"
    assert record.contrast == ""


def test_byte_order_mark_blank_lines_and_spaces_are_taken(tmp_path: Path) -> None:
    (tmp_path / "s.nii").write_bytes(b"scan")
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(
        "path, split, patient_id, modality\n\ns.nii, dev, p, mr\n,,,\n", encoding="utf-8-sig"
    )
    (record,) = read_manifest(manifest)
    assert (record.split, record.modality) == ("dev", "MR")


def test_absolute_paths_stay(tmp_path: Path) -> None:
    scan = tmp_path / "elsewhere" / "s.nii"
    scan.parent.mkdir()
    scan.write_bytes(b"scan")
    folder = tmp_path / "lists"
    folder.mkdir()
    (record,) = read_manifest(write(folder, f"{scan},dev,p,MR,,,,,"))
    assert record.path == scan


def test_patient_in_two_splits_is_refused_without_naming_the_patient(tmp_path: Path) -> None:
    manifest = write(
        tmp_path,
        "a.nii,train,SECRET-7,MR,,,,,",
        "b.nii,dev,other,MR,,,,,",
        "c.nii,dev,SECRET-7,MR,,,,,",
        files=("a.nii", "b.nii", "c.nii"),
    )
    with pytest.raises(
        CohortError, match=r"line 4 \(split dev\).*line 2 \(split train\)"
    ) as caught:
        read_manifest(manifest)
    assert "SECRET-7" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_patient_with_two_scans_in_one_split_is_no_leak(tmp_path: Path) -> None:
    manifest = write(
        tmp_path, "a.nii,dev,p,MR,,,,,", "b.nii,dev,p,MR,,,,,", files=("a.nii", "b.nii")
    )
    assert len(read_manifest(manifest)) == 2


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("s.nii,,p,MR,,,,,", "line 2: split is empty"),
        ("s.nii,dev,p,PET,,,,,", "modality 'PET'"),
        ("s.nii,dev,p,MR,,1x1,,,", "spacing_mm '1x1'"),
        ("s.nii,dev,p,MR,,1x-1x1,,,", "spacing_mm"),
        ("s.nii,dev,p,MR,,1xnanx1,,,", "spacing_mm"),
        ("s.nii,dev,p,MR,,,10x10x2.5,,", "fraction"),
        ("s.nii,dev,p,MR,,,,xw,", "sharp_axes 'xw'"),
        ("s.nii,dev,p,MR,,,,xx,", "sharp_axes 'xx'"),
        ("gone.nii,dev,p,MR,,,,,", "gone.nii is not there"),
    ],
)
def test_bad_rows_are_refused(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(CohortError, match=message):
        read_manifest(write(tmp_path, row, files=("s.nii",)))


def test_missing_files_may_be_left_unchecked(tmp_path: Path) -> None:
    assert len(read_manifest(write(tmp_path, "gone.nii,dev,p,MR,,,,,"), check_files=False)) == 1


def test_missing_column_empty_and_absent_manifests_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="no column patient_id"):
        read_manifest(write(tmp_path, "s.nii,dev,MR", header="path,split,modality"))
    with pytest.raises(CohortError, match="lists no scan"):
        read_manifest(write(tmp_path))
    with pytest.raises(CohortError, match="cannot read the manifest"):
        read_manifest(tmp_path / "absent.csv")
    with pytest.raises(CohortError, match="cannot read the manifest"):
        read_manifest(tmp_path)


def test_scan_listed_twice_is_refused(tmp_path: Path) -> None:
    row = "s.nii,dev,p,MR,,,,,"
    with pytest.raises(CohortError, match="lines 2 and 3 list the same scan"):
        read_manifest(write(tmp_path, row, row, files=("s.nii",)))


def test_select_picks_and_refuses_an_empty_pick(tmp_path: Path) -> None:
    records = read_manifest(
        write(
            tmp_path,
            "a.nii,train,p1,MR,,,,,",
            "b.nii,dev,p2,CT,,,,,",
            "c.nii,dev,p3,MR,,,,,",
            files=("a.nii", "b.nii", "c.nii"),
        )
    )
    assert [r.scan_id for r in select(records, split="dev", modality="MR")] == ["c"]
    assert [r.scan_id for r in select(records, split="dev")] == ["b", "c"]
    with pytest.raises(CohortError, match="no scan of train/CT"):
        select(records, split="train", modality="CT")


def test_reading_a_manifest_imports_neither_torch_nor_monai() -> None:
    code = (
        "import sys, medsr.data.manifest\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'monai')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_sites_and_thick_partners_are_read(tmp_path: Path) -> None:
    files = ("thin.nii", "thick.nii", "alone.nii")
    one, two = read_manifest(
        write(
            tmp_path,
            "thin.nii,dev,p,MR,B,thick.nii",
            "alone.nii,dev,q,MR,,",
            header="path,split,patient_id,modality,site,lr_path",
            files=files,
        )
    )
    assert (one.site, one.lr_path) == ("B", tmp_path / "thick.nii")
    assert (two.site, two.lr_path) == ("", None)


@pytest.mark.parametrize(
    ("partner", "reason"), [("absent.nii", "is not there"), ("thin.nii", "is the scan itself")]
)
def test_a_wrong_thick_partner_is_refused(tmp_path: Path, partner: str, reason: str) -> None:
    row = f"thin.nii,dev,p,MR,{partner}"
    header = "path,split,patient_id,modality,lr_path"
    with pytest.raises(CohortError, match=reason):
        read_manifest(write(tmp_path, row, header=header, files=("thin.nii",)))


def test_a_cohort_that_will_be_split_needs_no_splits(tmp_path: Path) -> None:
    manifest = write(tmp_path, "a.nii,p,MR", header="path,patient_id,modality", files=("a.nii",))
    assert read_manifest(manifest, needs_split=False)[0].split == "all"
    with pytest.raises(CohortError, match="no column split"):
        read_manifest(manifest)


ROWS = (
    ("path", "split", "patient_id", "modality", "spacing_mm", "note"),
    ("a b.nii", "dev", "Müller-1", "MR", "0.9x0.9x2.5", "one; two, three"),
    ("c.nii", "dev", "p2", "CT", "", ""),
)


def spreadsheet(
    folder: Path, separator: str = ",", *, encoding: str = "utf-8", **style: object
) -> Path:
    """The rows above as Python's csv module writes them."""
    for row in ROWS[1:]:
        (folder / row[0]).write_bytes(b"scan")
    manifest = folder / "table.csv"
    with manifest.open("w", newline="", encoding=encoding) as file:
        csv.writer(file, delimiter=separator, **style).writerows(ROWS)  # type: ignore[arg-type]
    return manifest


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_tables_of_any_spreadsheet_are_read_alike(
    separator: str, encoding: str, ending: str, quoting: int, tmp_path: Path
) -> None:
    manifest = spreadsheet(
        tmp_path, separator, encoding=encoding, lineterminator=ending, quoting=quoting
    )
    one, two = read_manifest(manifest)
    assert (one.path, one.patient_id) == (tmp_path / "a b.nii", "Müller-1")
    assert (one.split, one.modality, one.spacing_mm) == ("dev", "MR", (0.9, 0.9, 2.5))
    assert (two.path, two.modality, two.spacing_mm) == (tmp_path / "c.nii", "CT", None)


@pytest.mark.parametrize(
    "text",
    [
        "sep=;\npath;split;patient_id;modality\ns.nii;dev;p;MR\n",
        "\n\npath;split;patient_id;modality;;\r\ns.nii;dev;p;MR;;\r\n;;;;;\r\n\r\n",
        "sep=\t\npath\tsplit\tpatient_id\tmodality\ns.nii\tdev\tp\tMR\n",
        '"path";"split";"patient_id";"modality"\n"s.nii";"dev";"p";"MR"',
        "path;split;patient_id;modality;note, with a comma\ns.nii;dev;p;MR;a, b, c, d, e\n",
        "path,split,patient_id,modality,note; with; semicolons\ns.nii,dev,p,MR,a; b\n",
        'path,split,patient_id,modality,note\ns.nii,dev,p,MR,"a note\nof two lines"\n',
    ],
)
def test_what_spreadsheets_add_is_taken(text: str, tmp_path: Path) -> None:
    (tmp_path / "s.nii").write_bytes(b"scan")
    (tmp_path / "manifest.csv").write_bytes(text.encode())
    (record,) = read_manifest(tmp_path / "manifest.csv")
    assert (record.scan_id, record.split, record.patient_id) == ("s", "dev", "p")
    assert record.modality == "MR"


def test_decimal_commas_are_numbers(tmp_path: Path) -> None:
    header = "path;split;patient_id;modality;spacing_mm"
    manifest = write(tmp_path, "s.nii;dev;p;MR;0,9x0,9x2,0", header=header, files=("s.nii",))
    assert read_manifest(manifest)[0].spacing_mm == (0.9, 0.9, 2.0)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            b"path,split,patient_id,modality\ns.nii,dev,M\xfc,MR\n",
            "line 2 is not UTF",
        ),
        (b"PK\x03\x04\x14\x00\x06\x00\xff\x00", "it is no text"),
        (b"path split patient_id modality\ns.nii dev p MR\n", "commas, semicolons or tabs"),
        (b"path,split,patient_id,modality,path\ns.nii,dev,p,MR,t.nii\n", "path is there twice"),
        (b"path,split,patient_id,modality\ns.nii,dev,p,q,MR\n", "line 2 has more cells"),
        (b'path,split,patient_id,modality\ns.nii,dev,"p,MR\nt.nii,dev,q,MR\n', "never closed"),
        (b"", "no column path"),
        (b"\xff\xfe", "no column path"),
    ],
)
def test_no_table_is_refused_in_one_line(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_bytes(content)
    with pytest.raises(CohortError, match=words) as caught:
        read_manifest(tmp_path / "manifest.csv")
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "manifest.csv") in str(caught.value)


def test_only_the_scans_of_the_split_that_is_used_need_be_there(tmp_path: Path) -> None:
    rows = ("gone.nii,train,p,MR,,,,,", "s.nii,dev,q,MR,,,,,")
    manifest = write(tmp_path, *rows, files=("s.nii",))
    assert len(read_manifest(manifest, split="dev")) == 2
    for asked in ("train", None):
        with pytest.raises(CohortError, match=r"line 2: scan .*gone.nii is not there"):
            read_manifest(manifest, split=asked)
    both = read_manifest(manifest, check_files=False)
    require_files(manifest, both[1:])
    with pytest.raises(CohortError, match="line 2"):
        require_files(manifest, both)


def test_regions_are_read_where_there_are_any(tmp_path: Path) -> None:
    header = "path,split,patient_id,modality,region"
    rows = ("s.nii,dev,p,MR,Brain", "t.nii,dev,p,MR,")
    records = read_manifest(write(tmp_path, *rows, header=header, files=("s.nii", "t.nii")))
    assert [record.region for record in records] == ["brain", ""]

"""The documentation is true: its commands and its Python run, and its links lead somewhere.

Blocks marked ``python``, ``bash`` or ``console`` (lines that begin with ``$``) run in order, page
by page, in a folder with the synthetic files that the pages speak of. A block below a comment
``<!-- not run: reason -->`` is passed over; the reason is required.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from medsr.cli.main import main
from medsr.degrade import DEGRADATIONS
from medsr.distill.terms import TERMS
from medsr.io import formats
from medsr.networks import NETWORKS

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(
    r"(?:<!-- not run: (?P<reason>[^\n]*?) -->\n+)?^```(?P<kind>\w+)[^\n]*\n(?P<code>.*?)^```",
    re.DOTALL | re.MULTILINE,
)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
SHELL = re.compile(r"[|;&<>$`*~]")
RUNNABLE = {"python", "bash", "console"}
SERIES_UID_ROOT = "1.2.826.0.1.3680043.8.498."


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    kind: str
    code: str
    line: int
    reason: str | None


def blocks(page: Path) -> list[Block]:
    """The runnable blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            kind=match["kind"],
            code=match["code"],
            line=text.count("\n", 0, match.start("code")) + 1,
            reason=match["reason"],
        )
        for match in FENCE.finditer(text)
        if match["kind"] in RUNNABLE
    ]


def _id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


WITH_CODE = [page for page in PAGES if any(block.reason is None for block in blocks(page))]


def head(shape: tuple[int, int, int], seed: int) -> np.ndarray:
    """A head-like volume: an ellipsoid with waves inside, air outside, a little noise."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    waves = np.sin(9 * x + seed) * np.cos(8 * y) * np.sin(7 * z + 1)
    inside = (x / 0.85) ** 2 + (y / 0.9) ** 2 + (z / 0.9) ** 2 < 1
    noise = np.random.default_rng(seed).normal(0, 6, shape)
    return np.clip(np.where(inside, 500 + 250 * waves, 20) + noise, 0, None)


def write_nifti(path: Path, data: np.ndarray, spacing: tuple[float, float, float]) -> None:
    image = nib.Nifti1Image(np.round(data).astype(np.int16), np.diag([*spacing, 1.0]))
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def write_series(folder: Path, data: np.ndarray) -> None:
    """A CT series of (X, Y, Z) HU values, 0.8 mm in plane and 5 mm between slices."""
    folder.mkdir()
    study, series, frame = (generate_uid(SERIES_UID_ROOT, entropy_srcs=[n]) for n in "abc")
    for index in range(data.shape[2]):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid(SERIES_UID_ROOT, entropy_srcs=[str(index)])
        slice_ = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        slice_.SOPClassUID = meta.MediaStorageSOPClassUID
        slice_.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
        slice_.StudyInstanceUID, slice_.SeriesInstanceUID = study, series
        slice_.FrameOfReferenceUID, slice_.Modality = frame, "CT"
        slice_.PatientName, slice_.PatientID = "Phantom", "PHANTOM"
        slice_.PatientBirthDate = slice_.PatientSex = slice_.StudyDate = slice_.StudyTime = ""
        slice_.StudyID = slice_.AccessionNumber = slice_.ReferringPhysicianName = ""
        slice_.SeriesNumber, slice_.InstanceNumber = 1, index + 1
        slice_.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        slice_.ImagePositionPatient = [0.0, 0.0, 5.0 * index]
        slice_.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        slice_.PixelSpacing, slice_.SliceThickness = [0.8, 0.8], 5.0
        slice_.Columns, slice_.Rows = data.shape[0], data.shape[1]
        slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
        slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit = 16, 16, 15
        slice_.PixelRepresentation, slice_.RescaleSlope = 1, 1
        slice_.RescaleIntercept, slice_.RescaleType = -1024, "HU"
        stored = np.round(data[:, :, index].T + 1024).astype("<i2")
        slice_.PixelData = stored.tobytes()
        slice_.save_as(folder / f"{index:03d}.dcm", enforce_file_format=True)


@pytest.fixture
def samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the files that the pages speak of."""
    write_nifti(tmp_path / "brain.nii.gz", head((28, 32, 8), 1), (1.0, 1.0, 4.0))
    chest = 1.6 * head((28, 30, 8), 2) - 1000
    write_nifti(tmp_path / "chest.nii.gz", chest, (0.8, 0.8, 5.0))
    write_series(tmp_path / "series", chest)
    (tmp_path / "cohort").mkdir()
    rows = ["path,split,patient_id,modality,sharp_axes"]
    for number, split in enumerate(["train", "train", "dev"], start=1):
        write_nifti(tmp_path / f"cohort/p{number}.nii.gz", head((32, 28, 24), number), (1, 1, 1))
        rows.append(f"cohort/p{number}.nii.gz,{split},p{number},MR,xyz")
    (tmp_path / "cohort.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_shell(code: str, folder: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        cwd=folder,
        env={**os.environ, "PATH": path, "NO_COLOR": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert result.returncode == 0, f"{code}\n{result.stdout}\n{result.stderr}"


def run_commands(code: str, folder: Path) -> None:
    """Run shell lines; a block of plain ``medsr`` calls runs in this process, which is faster."""
    calls = code.replace("\\\n", " ").splitlines()
    if not all(call.startswith("medsr ") and not SHELL.search(call) for call in calls):
        run_shell(code, folder)
        return
    for call in calls:
        assert main(shlex.split(call)[1:]) == 0, call


@pytest.fixture
def registries() -> Iterator[None]:
    """Takes what a page registers out again."""
    tables = (DEGRADATIONS, NETWORKS, TERMS, formats.table())
    known = [(registry, set(registry)) for registry in tables]
    yield
    for registry, names in known:
        for name in set(registry) - names:
            registry.pop(name)


@pytest.mark.usefixtures("registries")
@pytest.mark.parametrize("page", WITH_CODE, ids=_id)
def test_the_code_of_a_page_runs(page: Path, samples: Path) -> None:
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(page):
        if block.reason is not None:
            continue
        if block.kind == "python":
            # Blank lines put the block where it stands, so that a traceback names the page's line.
            source = "\n" * (block.line - 1) + block.code
            exec(compile(source, str(page), "exec"), namespace)
        else:
            lines = block.code.splitlines()
            if block.kind == "console":
                lines = [line[2:] for line in lines if line.startswith("$ ")]
            run_commands("\n".join(lines), samples)


@pytest.mark.parametrize(
    ("example", "arguments"),
    [
        ("upscale_file.py", "brain.nii.gz sharp.nii.gz"),
        ("upscale_array.py", "brain.nii.gz"),
        ("monai_pipeline.py", "brain.nii.gz"),
        ("train_tiny.py", "cohort.csv run"),
    ],
)
def test_an_example_runs(example: str, arguments: str, samples: Path) -> None:
    run_shell(f"python '{ROOT / 'examples' / example}' {arguments}", samples)


def test_every_example_is_run() -> None:
    cases = test_an_example_runs.pytestmark[0].args[1]
    assert {name for name, _ in cases} == {path.name for path in (ROOT / "examples").glob("*.py")}


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_blocks_that_do_not_run_say_why(page: Path) -> None:
    for block in blocks(page):
        assert block.reason is None or len(block.reason.split()) >= 3, f"line {block.line}"


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), target


def test_every_page_is_in_the_menu() -> None:
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    missing = [
        page.relative_to(ROOT / "docs").as_posix()
        for page in PAGES
        if page.is_relative_to(ROOT / "docs")
        and page.relative_to(ROOT / "docs").as_posix() not in menu
    ]
    assert not missing

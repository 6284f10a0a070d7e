"""What limits cost: measured on a made-up scan, and the page that shows the measurement."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest

from medsr.benchmark.limits import main, table

ROOT = Path(__file__).resolve().parents[3]


def test_a_cohort_is_measured(
    tmp_path: Path,
    phantom: npt.NDArray[np.float32],
    tiny_model: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = np.where(phantom < 60, 0, phantom)
    nib.Nifti1Image(data, np.eye(4)).to_filename(tmp_path / "one.nii.gz")
    rows = ["path,split,patient_id,modality,sharp_axes", "one.nii.gz,dev,p1,MR,xyz"]
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
    out = tmp_path / "limits.json"
    places = ["--cohort", str(tmp_path / "manifest.csv"), "--json", str(out)]
    assert main([*places, "--models", str(tiny_model())]) == 0
    (row,) = json.loads(out.read_text())["rows"]
    assert (row["scan"], row["axis"], row["background"]) == ("one", "x", 0)
    limited = [done["limited_share"] for done in row["with"]]
    assert limited == sorted(limited, reverse=True)
    (background,) = {done["background_share"] for done in row["with"]}
    assert 0.05 < background < 0.9
    assert all(abs(done["psnr"] - row["without"]["psnr"]) < 1 for done in row["with"])
    assert max(done["largest"] for done in row["with"]) <= row["without"]["largest"]
    assert capsys.readouterr().out.count("\n") == 3


def test_the_page_shows_what_was_measured() -> None:
    found = json.loads((ROOT / "docs/benchmarks/limits.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs/explanation/limits.md").read_text(encoding="utf-8")
    assert table(found) in page
    chosen = found["reaches"].index(found["reach"])
    for row in found["rows"]:
        assert row["with"][chosen]["psnr"] >= row["without"]["psnr"] - 0.01

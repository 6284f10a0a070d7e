"""Every real volume, read against nibabel and written back; skips where they are not at hand."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK

from medsr import io
from medsr.geometry import Geometry
from medsr.intensity import Intensity, Normaliser


def rows(shared_data: Path) -> list[dict[str, str]]:
    with (shared_data / "manifest.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def numbers(text: str) -> list[float]:
    return [float(part) for part in text.replace("x", " ").replace(",", " ").split()]


def test_every_header_agrees_with_the_manifest_and_nibabel(shared_data: Path) -> None:
    listed = rows(shared_data)
    assert listed
    for row in listed:
        path = shared_data / row["path"]
        found = io.inspect(path)
        image = nib.load(path)
        assert found.shape == image.shape, row["path"]
        assert found.axcodes == nib.aff2axcodes(image.affine), row["path"]
        np.testing.assert_allclose(found.spacing_mm, numbers(row["spacing_mm"]), atol=6e-3)
        assert list(found.shape) == numbers(row["shape"]), row["path"]
        assert found.warnings == (), row["path"]


def test_the_modality_of_every_volume_is_recognised(shared_data: Path) -> None:
    judged = {row["path"]: io.load(shared_data / row["path"]).modality for row in rows(shared_data)}
    assert judged == {row["path"]: row["modality"] for row in rows(shared_data)}


def test_magnitudes_keep_the_map_that_models_were_trained_with(shared_data: Path) -> None:
    fit = Intensity.for_modality("MR").fit
    for row in rows(shared_data):
        if row["modality"] != "MR":
            continue
        data = np.asanyarray(nib.load(shared_data / row["path"]).dataobj)
        foreground = data[data > 0.02 * float(data.max())]
        width = float(np.percentile(foreground, 99.5))
        assert fit(data) == Normaliser(0.0, width), row["path"]
        mean, deviation = float(data.mean()), float(data.std())
        scored = fit(((data - mean) / deviation).astype(np.float32))
        # 0.14 where a scan holds no air; a hundredth or two where air is noise.
        apart = abs(scored.offset * deviation + mean) / width
        assert apart < (0.15 if "3D_1p5T" in row["path"] else 0.035), row["path"]


def test_thick_scans_survive_every_format(shared_data: Path, tmp_path: Path) -> None:
    thick = [row for row in rows(shared_data) if row["split"] == "thick"]
    for row in thick:
        volume = io.load(shared_data / row["path"])
        assert volume.geometry.slice_axis() is not None, row["path"]
        small = volume.crop((0, 0, 0), tuple(min(n, 48) for n in volume.shape))
        for ending in ("nii.gz", "nrrd", "mha", "mgz"):
            path = io.save(small, tmp_path / f"scan.{ending}", overwrite=True)
            back = io.load(path)
            assert back.geometry.same_grid(small.geometry), (row["path"], ending)
            assert back.data.dtype == volume.data.dtype
            np.testing.assert_array_equal(back.data, small.data)
        image = SimpleITK.ReadImage(str(tmp_path / "scan.nii.gz"))
        seen = Geometry.from_lps(
            image.GetSize(), image.GetOrigin(), image.GetSpacing(), image.GetDirection()
        )
        assert seen.same_grid(small.geometry, tol_mm=0.1), row["path"]

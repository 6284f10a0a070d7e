"""The benchmark of inference compares what it says, where MONAI can be trusted, and adds up."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from medsr.benchmark import inference, inference_arms, inference_linear, inference_report
from medsr.benchmark.inference import Measured, summary
from medsr.benchmark.inference_arms import Arm, MatrixProduct
from medsr.benchmark.inference_compare import Reference
from medsr.benchmark.inference_memory import PeakMemory
from medsr.benchmark.inference_peer import SlidingWindow
from medsr.benchmark.inference_precision import differences
from medsr.benchmark.measure import Gain
from medsr.cli.main import main
from medsr.errors import BackendError, CohortError, OutputExistsError, UsageError
from medsr.infer.engine.backends import BACKENDS
from medsr.model import Intensity, ModelSpec, SpacingRange, SRModel
from medsr.networks import SRNetwork, build_network

CPU = torch.device("cpu")
RATIOS = {"fp32_vs_monai_0.25", "fp32_vs_monai_0.5", "auto_vs_monai_0.25", "auto_vs_monai_0.5"}


class Fails:
    """A backend that starts and then does not compute."""

    name, packages, extra, precisions = "fails", (), "", ("fp32",)

    def lacks(self, precision: str, device: torch.device) -> str | None:
        return None if precision == "fp32" else "it has no bf16"

    def prepare(self, *_: object, **__: object) -> Any:
        raise BackendError("backend fails: it never works")


def tiny(depth: int = 1) -> SRNetwork:
    torch.manual_seed(3)
    network = build_network("RepPlain3D", (1, 1, 2), width=16, depth=depth, branches=False)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    network = tiny()
    spec = ModelSpec(
        name="tiny",
        version="1",
        network="RepPlain3D",
        options={"width": 16, "depth": 1, "branches": False},
        scale=(1, 1, 2),
        modality="MR",
        role="student",
        intensity=Intensity.for_modality("MR"),
        halo=network.halo,
        multiple_of=network.multiple_of,
        trained_spacing_mm=SpacingRange((0.5, 1.5), (1.0, 4.0)),
        trained_degradation={"kind": "slice_profile", "factor": [1, 1, 2], "thickness": 1.0},
        parameters=sum(p.numel() for p in network.parameters()),
        training={},
        description="random weights",
    )
    return SRModel(network, spec).save(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def backends() -> Iterator[None]:
    """Torch and one that fails: the real ones take seconds to compile and have their own tests."""
    with pytest.MonkeyPatch.context() as patch:
        table = {"fails": Fails(), "torch": BACKENDS["torch"]}
        patch.setattr(inference_arms, "BACKENDS", table)
        patch.setattr("medsr.infer.engine.backends.BACKENDS", table)
        yield


@pytest.fixture(scope="module")
def results(folder: Path, backends: None) -> dict[str, Any]:
    return inference.run(folder, shape=(20, 12, 6), runs=3, device="cpu", window=12, matrix=32)


def test_the_keys_that_others_read_are_there(results: dict[str, Any]) -> None:
    assert results["ratios"].keys() == results["ratio_ranges"].keys() == RATIOS
    assert results["share_of_limit"].keys() == {"fp32", "auto"}
    assert results["max_relative_difference"].keys() == {"fp32", "auto"}
    assert results.keys() == {
        "schema",
        "benchmark",
        "command",
        "ratios",
        "ratio_ranges",
        "share_of_limit",
        "max_relative_difference",
        "limits",
        "arms",
        "missing",
        "comparison",
        "memory",
        "model",
        "machine",
        "shape",
        "scale",
        "runs",
        "matrix",
        "peer",
    }
    assert results["command"] == (
        "medsr benchmark inference --model tiny --shape 20,12,6 --runs 3 --device cpu"
    )


def test_ratios_and_shares_come_from_the_arms(results: dict[str, Any]) -> None:
    arms, limits = results["arms"], results["limits"]
    assert list(arms) == ["monai_0.25", "monai_0.5", "fp32", "auto"]
    voxels = 20 * 12 * 6
    for arm in arms.values():
        assert len(arm["seconds"]) == 3
        assert arm["median_seconds"] == median(arm["seconds"])
        assert arm["seconds_range"] == [min(arm["seconds"]), max(arm["seconds"])]
        macs = results["model"]["macs_per_voxel"]
        assert arm["gflops"] == pytest.approx(2e-9 * macs * voxels / arm["median_seconds"])
    for key, ratio in results["ratios"].items():
        ours, theirs = key.split("_vs_")
        assert ratio == arms[theirs]["median_seconds"] / arms[ours]["median_seconds"]
    for name, share in results["share_of_limit"].items():
        limit = limits[arms[name]["precision"]]
        assert limit["median_gflops"] == median(limit["gflops"])
        assert share == arms[name]["gflops"] / limit["median_gflops"]


def test_the_network_is_counted_without_halo(results: dict[str, Any]) -> None:
    assert results["model"]["macs_per_voxel"] == 27 * (16 + 16 * 16 + 16 * 2)


def test_the_engine_agrees_with_monai_inside_its_windows(results: dict[str, Any]) -> None:
    arms = results["arms"]
    assert results["max_relative_difference"]["fp32"] < 1e-5
    assert results["max_relative_difference"]["auto"] < 2e-2
    assert 0 < results["comparison"]["share_of_voxels"] < 1
    # MONAI's seams, where its windows end and the volume does not.
    assert arms["fp32"]["max_relative_difference_everywhere"] > 1e-3
    assert arms["monai_0.5"]["max_relative_difference"] == 0
    assert arms["monai_0.25"]["max_relative_difference_everywhere"] > 0


def test_a_backend_that_cannot_is_named_with_its_reason(results: dict[str, Any]) -> None:
    assert results["missing"] == {
        "fails_bf16": "it has no bf16",
        "fails_fp32": "backend fails: it never works",
    }


def test_nothing_tells_whose_machine_it_was(results: dict[str, Any], folder: Path) -> None:
    import platform

    text = json.dumps(results)
    assert str(folder.parent) not in text
    assert platform.node() not in text.split('"')
    assert results["machine"]["threads"] == torch.get_num_threads()
    assert {"torch", "openvino", "onnxruntime", "medsr"} <= results["machine"]["versions"].keys()


def test_ratios_are_of_medians_and_ranges_of_rounds() -> None:
    seconds = {
        "monai_0.25": [10.0, 30.0, 20.0],
        "monai_0.5": [40.0, 60.0, 50.0],
        "fp32": [5.0, 2.0, 4.0],
        "auto": [1.0, 1.0, 2.0],
    }
    precisions = {"auto": "bf16"}
    arms = {n: Arm(n, precisions.get(n, "fp32"), lambda lr: lr) for n in seconds}  # type: ignore[arg-type]
    measured = {n: Measured(list(times), difference=0.5) for n, times in seconds.items()}
    measured["auto"].difference = math.nan
    found = summary(arms, measured, {"fp32": [1.0, 4.0, 2.0]}, macs=4e9)
    assert found["ratios"] == {
        "fp32_vs_monai_0.25": 5.0,
        "fp32_vs_monai_0.5": 12.5,
        "auto_vs_monai_0.25": 20.0,
        "auto_vs_monai_0.5": 50.0,
    }
    assert found["ratio_ranges"]["fp32_vs_monai_0.25"] == [2.0, 15.0]
    assert found["arms"]["fp32"]["gflops"] == pytest.approx(2.0)
    assert found["share_of_limit"] == {"fp32": pytest.approx(1.0), "auto": None}
    assert found["max_relative_difference"] == {"fp32": 0.5, "auto": None}


def test_trust_ends_a_halo_before_the_edges_of_windows() -> None:
    network = tiny()  # sees 3 voxels far
    peer = SlidingWindow(network, 0.5, window=16)
    lr = torch.rand(40, 16, 5)
    trusted = peer.trusted((40, 16, 5))
    # Windows reach from 0, 8, 16 and 24 to 16, 24, 32 and 40.
    touched = {edge + n for edge in (8, 16, 24) for n in (0, 1, 2)}
    touched |= {edge - n for edge in (16, 24, 32) for n in (1, 2, 3)}
    expected = [x not in touched for x in range(40)]
    assert trusted.all((1, 2)).tolist() == expected
    assert trusted.any((1, 2)).tolist() == expected
    with torch.no_grad():
        whole = network(lr[None, None])[0]
    far = (peer(lr) - whole).abs()[0].reshape(40, 16, 5, 2).amax(3)
    assert far[trusted].max() < 1e-5
    assert far[~trusted].max() > 1e-3


def test_windows_out_of_step_with_the_folding_are_not_trusted() -> None:
    network = build_network("RepPlain3D", (1, 1, 2), width=16, depth=1, fold=(2, 2, 1)).eval()
    trusted = SlidingWindow(network, 0.25, window=32).trusted((45, 8, 4))
    assert trusted[:5].all()  # covered by the first window alone
    assert not trusted[13:].any()  # the last begins at 13, which is odd


def test_a_network_that_sees_too_far_is_compared_on_one_window() -> None:
    network = tiny(depth=6)  # as far as a window is wide
    peer = SlidingWindow(network, 0.5, window=8)
    lr = torch.rand(20, 8, 8)
    reference = Reference(peer, lr, peer(lr))
    assert reference.as_dict()["share_of_voxels"] is None

    def run(block: Tensor) -> Tensor:
        with torch.no_grad():
            sr: Tensor = network(block[None, None])[0]
        return sr

    difference, everywhere = reference.differences(run, run(lr))
    assert difference < 1e-5 < 1e-3 < everywhere
    wrong, _ = reference.differences(lambda block: run(block) + 0.1, run(lr))
    assert wrong > 1e-2


def test_peak_memory_is_what_was_taken_and_given_back() -> None:
    with PeakMemory(CPU) as memory:
        taken = torch.ones(16 * 2**20)
        del taken
        kept = torch.ones(2**20)
    assert 40 * 2**20 < memory.extra_bytes < 200 * 2**20
    assert kept.sum() == 2**20


def test_the_matrix_product_counts_two_operations_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 2.0, 10.0, 11.0, 20.0, 24.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    rate = MatrixProduct("fp32", CPU, 50).gflops()
    assert rate == pytest.approx(2 * 50**3 / 2.0 / 1e9)


def test_cost_per_voxel_is_held_to_the_median() -> None:
    found = inference_linear.deviation(
        {(10, 10, 1): [1.0, 3.0, 2.0], (10, 10, 2): [4.0], (10, 10, 5): [13.0]}
    )
    assert [size["seconds_per_voxel"] for size in found["sizes"]] == [0.02, 0.02, 0.026]
    assert found["median_seconds_per_voxel"] == 0.02
    assert found["largest_deviation"] == pytest.approx(0.3)


def test_sizes_beyond_the_memory_are_left_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = ((8, 8, 8), (16, 8, 8), (20000, 20000, 20000))
    told: list[tuple[int, int]] = []
    found = inference_linear.linearity(
        folder,
        shapes=shapes,
        runs=2,
        device="cpu",
        progress=lambda done, total, what: told.append((done, total)),
    )
    assert [size["shape"] for size in found["sizes"]] == [[8, 8, 8], [16, 8, 8]]
    assert [len(size["seconds"]) for size in found["sizes"]] == [2, 2]
    assert found["left_out"] == [[20000, 20000, 20000]]
    assert told == [(n, 6) for n in range(7)]
    with pytest.raises(UsageError, match="no size fits"):
        inference_linear.linearity(folder, shapes=shapes[2:], device="cpu")


def test_bf16_is_subtracted_scan_by_scan() -> None:
    def gains(*values: float) -> list[Gain]:
        return [Gain("p", f"s{n}", "z", value, 0.0) for n, value in enumerate(values)]

    found = differences({"fp32": gains(20.0, 30.0), "bf16": gains(20.01, 29.97)})
    assert found["mean"] == pytest.approx(-0.01)
    assert found["worst"] == pytest.approx(-0.03)
    assert [row["scan_id"] for row in found["scans"]] == ["s0", "s1"]
    with pytest.raises(CohortError, match="too small"):
        differences({"fp32": [], "bf16": []})


def test_what_cannot_be_measured_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="start at 1"):
        inference.run(folder, runs=0)
    assert main(["benchmark", "inference", "--difference"]) == UsageError.exit_code


def test_the_page_is_made_of_the_result_and_keeps_what_was_added(
    results: dict[str, Any], tmp_path: Path
) -> None:
    linear = inference_linear.deviation({(64, 64, 64): [0.5], (128, 128, 128): [4.4]})
    cost = {"m": {"mean": -0.001, "worst": -0.004, "scans": [{}, {}]}}
    full = results | {
        "linearity": linear | {"precision": "bf16"},
        "precision_psnr_db": cost,
    }
    path = tmp_path / "inference.md"
    path.write_text(f"old\n{inference_report.HAND}\n\nMy own words.\n", encoding="utf-8")
    inference_report.write_page(full, path, data="inference.json")
    text = path.read_text(encoding="utf-8")
    assert text.endswith(f"{inference_report.HAND}\n\nMy own words.\n")
    assert "old" not in text
    assert "| m | -0.0010 | -0.0040 | 2 |" in text
    assert "- fails, fp32: backend fails: it never works" in text
    assert "[JSON](inference.json)" in text
    assert results["command"] in text
    for arm in results["arms"].values():
        assert f"| {arm['label']} | {arm['median_seconds']:#.3g} (" in text
    for table in inference_report.tables(full):
        assert {len(row) for row in table.rows} == {len(table.header)}


def test_the_command_measures_saves_and_draws(
    folder: Path,
    backends: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inference, "MATRIX", 32)
    out = tmp_path / "inference.json"
    words = ["benchmark", "inference", "--model", str(folder), "--shape", "6,6,4", "--runs", "1"]
    words += ["--device", "cpu", "--json", str(out), "--page", str(tmp_path / "inference.md")]
    assert main(words) == 0
    saved = json.loads(out.read_text(encoding="utf-8"))
    assert saved["ratios"].keys() == RATIOS
    drawn = capsys.readouterr().out
    for arm in saved["arms"].values():
        assert arm["label"] in drawn
    assert "not measured: fails_fp32: backend fails: it never works" in drawn
    assert main(words) == OutputExistsError.exit_code
    assert (tmp_path / "inference.md").read_text(encoding="utf-8").startswith("# Inference\n")


def test_scoring_bf16_keeps_the_times_that_were_measured(
    folder: Path,
    tmp_path: Path,
    phantom: npt.NDArray[np.float32],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("medsr.zoo.names", lambda root=None: [])
    image = nib.Nifti1Image(phantom[:24, :22, :20].astype(np.int16), np.eye(4))
    nib.save(image, tmp_path / "b.nii.gz")
    cohort = tmp_path / "manifest.csv"
    cohort.write_text(
        "path,split,patient_id,modality,sharp_axes\nb.nii.gz,dev,b,MR,z\n", encoding="utf-8"
    )
    out = tmp_path / "inference.json"
    measured = {"schema": 1, "benchmark": "inference", "ratios": {"kept": 1.0}}
    out.write_text(json.dumps(measured), encoding="utf-8")
    words = ["benchmark", "inference", "--difference", "--model", str(folder), "--device", "cpu"]
    words += ["--cohort", str(cohort), "--json", str(out)]
    assert main(words) == 0
    saved = json.loads(out.read_text(encoding="utf-8"))
    cost = saved.pop("precision_psnr_db")
    assert saved == measured
    (scan,) = cost["tiny"]["scans"]
    assert scan["difference_db"] == scan["bf16_psnr_db"] - scan["fp32_psnr_db"]
    assert 0 < abs(scan["difference_db"]) < 0.5  # rounded, and no more than that
    assert cost["tiny"]["mean"] == cost["tiny"]["worst"] == scan["difference_db"]
    assert cost["tiny"]["weights_sha256"] == SRModel.load(folder).weight_hash
    assert "What bf16 costs in PSNR" in capsys.readouterr().out
    out.write_text("[]", encoding="utf-8")
    assert main(words) == UsageError.exit_code

"""A derivation says every fact once; references name each source once, in order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from pydicom.dataset import Dataset

import medsr
from medsr import io
from medsr.geometry import Geometry
from medsr.infer.decide import Decision
from medsr.io.dicom.options import DicomOptions
from medsr.io.dicom.write.derived import set_derivation
from medsr.model import SRModel
from medsr.volume import Derivation

Make = Callable[..., Path]
HASH = "ab" * 32


def described(sentence: str, version: str = "0.1.0", model: str = "mr-z4 1.0") -> str:
    dataset = Dataset()
    set_derivation(dataset, Derivation(model, version, HASH, sentence, (1.0, 1.0, 4.0)))
    words = str(dataset.DerivationDescription)
    assert len(words) <= 1024
    assert HASH in words
    assert words.endswith("scale 1 x 1 x 4)")
    return words


def test_every_fact_is_said_once() -> None:
    assert described("Super-resolution by medsr 0.1.0, model mr-z4 1.0") == (
        f"Super-resolution by medsr 0.1.0, model mr-z4 1.0 (weights sha256 {HASH}, scale 1 x 1 x 4)"
    )
    assert described("Denoised") == (
        f"Denoised (medsr 0.1.0, model mr-z4 1.0, weights sha256 {HASH}, scale 1 x 1 x 4)"
    )


@pytest.mark.parametrize("sentence", ["By medsr 0.1.0.1, model mr-z4 1.0.2", "By xmedsr 0.1.0"])
def test_what_only_begins_alike_is_another_fact(sentence: str) -> None:
    assert "(medsr 0.1.0, model mr-z4 1.0, " in described(sentence)


@pytest.mark.parametrize("sentence", ["word " * 400, "word " * 199 + "medsr 0.1.0"])
def test_a_long_sentence_is_cut_and_no_fact(sentence: str) -> None:
    words = described(sentence)
    assert 1000 < len(words) <= 1024
    assert "(medsr 0.1.0, model mr-z4 1.0, weights" in words


def test_a_result_names_its_model_and_version_once() -> None:
    before = Geometry((4, 4, 4), np.diag([1.0, 1.0, 4.0, 1.0]))
    spec = SimpleNamespace(name="mr-z4", version="1.0")
    model = cast(SRModel, SimpleNamespace(spec=spec, weight_hash=HASH))
    decision = Decision(model, before, before, before.refine((1, 1, 4)), [], False)
    dataset = Dataset()
    set_derivation(dataset, decision.derivation())
    words = dataset.DerivationDescription
    for fact in (f"medsr {medsr.__version__}", "mr-z4 1.0", HASH, "scale 1 x 1 x 4"):
        assert words.count(fact) == 1


@pytest.mark.parametrize("layout", ["classic", "enhanced"])
def test_references_name_each_frame_once_in_order(
    tmp_path: Path, make_enhanced: Make, oblique_axes: npt.NDArray[np.float64], layout: str
) -> None:
    def edit(frame: Dataset, k: int) -> None:
        if k > 4:  # two frames are missing, so that planes share their nearest one
            place = frame.PlanePositionSequence[0]
            moved = np.array(place.ImagePositionPatient, dtype=float) + 6.0 * oblique_axes[:, 2]
            place.ImagePositionPatient = [f"{value:.9f}"[:16] for value in moved]

    stored = np.random.default_rng(2).integers(0, 4000, (6, 5, 9)).astype(np.uint16)
    volume = io.load(make_enhanced(tmp_path / "e", stored, edit=edit), allow=["gaps"])
    assert volume.shape[2] == 11
    fine = volume.replace(
        data=np.repeat(volume.data, 2, axis=2), geometry=volume.geometry.refine((1, 1, 2))
    )
    io.save(fine, tmp_path / "out", dicom=DicomOptions.of(layout))
    items = []
    for file in sorted((tmp_path / "out").iterdir()):
        one = pydicom.dcmread(file)
        if layout == "classic":
            items.append(one.SourceImageSequence)
        else:
            items += [
                frame.DerivationImageSequence[0].SourceImageSequence
                for frame in one.PerFrameFunctionalGroupsSequence
            ]
    assert len(items) == fine.shape[2]
    seen = set()
    for sources in items:
        (item,) = sources  # one file
        frames = item.ReferencedFrameNumber
        frames = [frames] if isinstance(frames, int) else list(frames)
        assert frames == sorted(set(frames))
        seen.update(frames)
    assert seen == set(range(1, 10))

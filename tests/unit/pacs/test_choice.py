"""The series that a study alone means: the only one that could be upscaled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from medsr import errors
from medsr.pacs.archive import SeriesEntry, Transfer
from medsr.pacs.choice import choose_series
from medsr.pacs.settings import WebAddress


class Shelf:
    """An archive in memory: modality, instances, and what one image of each series says."""

    address = WebAddress("https://shelf.example")

    def __init__(self, make: Callable[..., Dataset]) -> None:
        self._make = make
        self.held: dict[str, tuple[str, int, dict[str, Any]]] = {}
        self.looked_at: list[str] = []

    def series(self, study: str) -> list[SeriesEntry]:
        return [SeriesEntry(uid, held[0], held[1]) for uid, held in self.held.items()]

    def instances(self, study: str, series: str) -> set[str]:
        return {f"1.2.3.{number}" for number in range(self.held[series][1])}

    def fetch(
        self, study: str, series: str, folder: Path, transfer: Transfer, *, only: str | None = None
    ) -> None:
        assert only in self.instances(study, series)
        self.looked_at.append(series)
        image = self._make(1, series=series)
        for name, value in self.held[series][2].items():
            setattr(image, name, value)
        image.save_as(folder / "1.dcm", enforce_file_format=True)
        transfer.arrived(only)


@pytest.fixture
def shelf(make_instance: Callable[..., Dataset]) -> Shelf:
    return Shelf(make_instance)


def ours() -> list[Dataset]:
    item = Dataset()
    item.Manufacturer = "medsr"
    return [item]


def test_the_only_series_is_taken_without_a_look(shelf: Shelf, tmp_path: Path) -> None:
    shelf.held = {"1.1": ("CT", 40, {}), "1.2": ("SR", 1, {})}
    assert choose_series(shelf, "1", tmp_path).uid == "1.1"
    assert shelf.looked_at == []


def test_localizers_and_results_do_not_count(shelf: Shelf, tmp_path: Path) -> None:
    shelf.held = {
        "1.1": ("MR", 3, {}),
        "1.2": ("MR", 9, {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}),
        "1.3": ("MR", 40, {"ContributingEquipmentSequence": ours()}),
        "1.4": ("MR", 1, {}),
        "1.5": ("MR", 1, {"NumberOfFrames": 40}),
    }
    assert choose_series(shelf, "1", tmp_path).uid == "1.5"
    assert shelf.looked_at == ["1.2", "1.3", "1.4", "1.5"]


def test_several_are_listed(shelf: Shelf, tmp_path: Path) -> None:
    shelf.held = {"1.1": ("MR", 30, {}), "1.2": ("CT", 40, {}), "1.3": ("MR", 2, {})}
    with pytest.raises(errors.SeveralSeriesError) as caught:
        choose_series(shelf, "1", tmp_path)
    message = str(caught.value)
    assert "1.1: MR, 30 instances" in message
    assert "1.2: CT, 40 instances" in message
    assert "1.3" not in message
    assert "Doe" not in message


def test_no_study_and_no_image_are_said(shelf: Shelf, tmp_path: Path) -> None:
    with pytest.raises(errors.NotInPacsError, match="has no study 1"):
        choose_series(shelf, "1", tmp_path)
    shelf.held = {"1.1": ("SR", 1, {})}
    with pytest.raises(errors.NotInPacsError, match="no series of CT or MR"):
        choose_series(shelf, "1", tmp_path)

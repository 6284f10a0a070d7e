"""What is one request and what is another: its name decides, and nothing else."""

from __future__ import annotations

import dataclasses

from medsr.geometry import Geometry
from medsr.io.dicom.options import DicomOptions
from medsr.pacs.exchange import name_request
from medsr.volume import Derivation

GRID = Geometry.from_lps((8, 9, 10), (0.0, -3.0, 4.0), (1.0, 1.0, 2.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
HOW = Derivation("mr-z4 0.1.0", "1.2.3", "ab" * 32, "Super-resolution", (1.0, 1.0, 2.0))
PINNED = "53ef843785eb696aca7714795ef50d8fe7f4ed0bce86250783cd2fb16d4e22b6"
NAME = name_request("1.2.3", GRID, HOW)


def test_the_same_request_has_the_same_name_however_it_came_about() -> None:
    rounded = Geometry(GRID.shape, GRID.affine * (1.0 + 1e-9))
    described = dataclasses.replace(HOW, description="in other words", scale=(1.0, 1.0, 2.0001))
    assert name_request("1.2.3", rounded, described) == NAME
    # Pinned: another name would give the results that archives hold a second time.
    assert NAME == PINNED


def test_every_part_of_a_request_counts() -> None:
    names = {
        NAME,
        name_request("1.2.4", GRID, HOW),
        name_request("1.2.3:2", GRID, HOW),
        name_request("1.2.3", GRID.refine((1, 1, 2)), HOW),
        name_request("1.2.3", GRID.flip(2), HOW),
        name_request("1.2.3", GRID, dataclasses.replace(HOW, model="mr-z4 0.2.0")),
        name_request("1.2.3", GRID, dataclasses.replace(HOW, weight_hash="cd" * 32)),
        name_request("1.2.3", GRID, dataclasses.replace(HOW, version="1.2.4")),
        name_request("1.2.3", GRID, HOW, limits=False),
        name_request("1.2.3", GRID, HOW, ["gaps"]),
        name_request("1.2.3", GRID, HOW, ["gaps", "tilt"]),
        name_request("1.2.3", GRID, HOW, dicom=DicomOptions("enhanced")),
        name_request("1.2.3", GRID, HOW, dicom=DicomOptions("classic")),
        name_request("1.2.3", GRID, HOW, dicom=DicomOptions(series_number=12)),
        name_request("1.2.3", GRID, HOW, dicom=DicomOptions(series_description="fine")),
        name_request("1.2.3", GRID, HOW, dicom=DicomOptions(deidentify=True)),
        name_request("1.2.3", GRID, HOW, dicom=DicomOptions(series_number=12, deidentify=True)),
        name_request("1.2.3", GRID, HOW, consistency=True),
        name_request("1.2.3", GRID, HOW, consistency=0.5),
    }
    assert len(names) == 19
    assert name_request("1.2.3", GRID, HOW, dicom=DicomOptions()) == NAME
    assert name_request("1.2.3", GRID, HOW, ["tilt", "gaps"]) in names

"""What is one request and what is another: its name decides, and nothing else."""

from __future__ import annotations

import dataclasses
from typing import Any

from medsr.geometry import Geometry
from medsr.infer.options import UpscaleOptions
from medsr.io.dicom.options import DicomOptions
from medsr.pacs.exchange import name_request
from medsr.volume import Derivation

GRID = Geometry.from_lps((8, 9, 10), (0.0, -3.0, 4.0), (1.0, 1.0, 2.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
HOW = Derivation("mr-z4 0.1.0", "1.2.3", "ab" * 32, "Super-resolution", (1.0, 1.0, 2.0))
PINNED = "53ef843785eb696aca7714795ef50d8fe7f4ed0bce86250783cd2fb16d4e22b6"
PLAIN = UpscaleOptions()
NAME = name_request("1.2.3", GRID, HOW, PLAIN)


def _written(**how: Any) -> UpscaleOptions:
    return UpscaleOptions(dicom=DicomOptions(**how))


def test_the_same_request_has_the_same_name_however_it_came_about() -> None:
    rounded = Geometry(GRID.shape, GRID.affine * (1.0 + 1e-9))
    described = dataclasses.replace(HOW, description="in other words", scale=(1.0, 1.0, 2.0001))
    assert name_request("1.2.3", rounded, described, PLAIN) == NAME
    # Pinned: another name would give the results that archives hold a second time.
    assert NAME == PINNED


def test_every_part_of_a_request_counts() -> None:
    names = {
        NAME,
        name_request("1.2.4", GRID, HOW, PLAIN),
        name_request("1.2.3:2", GRID, HOW, PLAIN),
        name_request("1.2.3", GRID.refine((1, 1, 2)), HOW, PLAIN),
        name_request("1.2.3", GRID.flip(2), HOW, PLAIN),
        name_request("1.2.3", GRID, dataclasses.replace(HOW, model="mr-z4 0.2.0"), PLAIN),
        name_request("1.2.3", GRID, dataclasses.replace(HOW, weight_hash="cd" * 32), PLAIN),
        name_request("1.2.3", GRID, dataclasses.replace(HOW, version="1.2.4"), PLAIN),
        name_request("1.2.3", GRID, HOW, UpscaleOptions(limits=False)),
        name_request("1.2.3", GRID, HOW, UpscaleOptions(allow=["gaps"])),
        name_request("1.2.3", GRID, HOW, UpscaleOptions(allow=["gaps", "tilt"])),
        name_request("1.2.3", GRID, HOW, _written(layout="enhanced")),
        name_request("1.2.3", GRID, HOW, _written(layout="classic")),
        name_request("1.2.3", GRID, HOW, _written(series_number=12)),
        name_request("1.2.3", GRID, HOW, _written(series_description="fine")),
        name_request("1.2.3", GRID, HOW, _written(deidentify=True)),
        name_request(
            "1.2.3",
            GRID,
            HOW,
            _written(series_number=12, deidentify=True),
        ),
        name_request("1.2.3", GRID, HOW, UpscaleOptions(consistency=True)),
        name_request("1.2.3", GRID, HOW, UpscaleOptions(consistency=0.5)),
    }
    assert len(names) == 19
    assert name_request("1.2.3", GRID, HOW, _written()) == NAME
    assert name_request("1.2.3", GRID, HOW, UpscaleOptions(allow=["tilt", "gaps"])) in names

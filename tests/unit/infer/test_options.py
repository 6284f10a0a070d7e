"""One object carries every option, checked when it is made, into every way of upscaling."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from medsr import UpscaleOptions, upscale, upscale_folder
from medsr.cli import options as command_line
from medsr.errors import MedsrError
from medsr.infer.options import UpscaleKeywords
from medsr.infer.upscaler import Upscaler
from medsr.model import SRModel
from medsr.pacs import upscale as pacs_upscale
from medsr.volume import SourceFormat

FIELDS = {field.name: field for field in dataclasses.fields(UpscaleOptions)}


def test_keywords_are_the_fields() -> None:
    assert list(UpscaleKeywords.__annotations__) == list(FIELDS)
    names = {"SRModel": SRModel, "SourceFormat": SourceFormat}
    hints = get_type_hints(UpscaleOptions, localns=names)
    assert get_type_hints(UpscaleKeywords, localns=names) == hints


@pytest.mark.parametrize("call", [upscale, upscale_folder, pacs_upscale, Upscaler.__init__])
def test_every_call_takes_the_object_and_repeats_no_field(call: Any) -> None:
    parameters = inspect.signature(call).parameters
    assert "options" in parameters
    assert not parameters.keys() & FIELDS.keys()


def test_the_command_line_names_every_option_of_the_object() -> None:
    flags = set(inspect.signature(command_line.upscale_options).parameters)
    own = {"format", "overwrite", "uncertainty", "zoo_root", "allow", "dicom"}  # or in parts
    assert FIELDS.keys() - flags == own
    assert command_line.upscale_options() == UpscaleOptions()


def test_options_cannot_be_changed_but_copied_with_changes() -> None:
    options = UpscaleOptions(modality="mr")
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.modality = "ct"  # type: ignore[misc]
    assert UpscaleOptions.of(options) is options
    assert UpscaleOptions.of(options, backend="auto") == UpscaleOptions(
        modality="mr", backend="auto"
    )
    assert UpscaleOptions.of() == UpscaleOptions()
    with pytest.raises(MedsrError, match=r"options is 'mr-z4'; give medsr\.UpscaleOptions"):
        Upscaler("mr-z4")  # type: ignore[arg-type]
    assert options.replace(uncertainty="map.nii").uncertain


@pytest.mark.parametrize(
    ("uncertainty", "computed", "written"),
    [(None, False, None), (False, False, None), (True, True, None), ("map.nii", True, "map.nii")],
)
def test_the_map_of_the_error_is_computed_where_it_is_asked_for_and_written_where_named(
    uncertainty: Any, computed: bool, written: str | None
) -> None:
    options = UpscaleOptions(uncertainty=uncertainty)
    assert options.uncertain is computed
    assert options.uncertainty_path == (None if written is None else Path(written))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"spacing": (1, 1, 1), "scale": (1, 1, 2)}, "both spacing and scale"),
        ({"spacing": (1, 1)}, "spacing"),
        ({"scale": (1, 1, 0)}, "scale"),
        ({"consistency": -1.0}, "tolerance"),
        ({"allow": ["anything"]}, "anything"),
        ({"max_memory": "much"}, "much"),
        ({"backend": "abacus"}, "abacus"),
        ({"modality": "pet"}, "pet"),
        ({"format": "jpeg"}, "jpeg"),
    ],
)
def test_wrong_options_are_refused_at_once(changes: Any, words: str) -> None:
    with pytest.raises(MedsrError, match=words):
        UpscaleOptions(**changes)
    with pytest.raises(MedsrError, match=words):
        Upscaler(**changes)

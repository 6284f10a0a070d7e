"""Recipes: what is refused and by which path, overrides, and the round trip through YAML."""

from __future__ import annotations

import copy
import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from medsr.errors import MedsrError, RecipeError, UsageError
from medsr.recipe import (
    Learned,
    Ramp,
    Recipe,
    WeightedTerm,
    at_key,
    read_recipe,
    recipe_from_dict,
)

CONFIGS = sorted(
    path
    for path in (Path(__file__).resolve().parents[2] / "configs").rglob("[!_]*.yaml")
    if path.parent.name != "benchmarks"  # files of arms, which hold many recipes each
)
PLAIN: dict[str, Any] = {
    "name": "tiny",
    "data": {"manifest": "manifest.csv", "modality": "MR"},
    "degradation": {"kind": "slice_profile", "factor": [1, 1, 4]},
    "network": {"name": "RepPlain3D", "options": {"width": 16}},
    "losses": [{"name": "l1"}, {"name": "ssim", "weight": 0.1}],
}


def with_value(path: str, value: Any) -> dict[str, Any]:
    plain = copy.deepcopy(PLAIN)
    node: Any = plain
    *parents, last = path.split(".")
    for parent in parents:
        node = node[int(parent)] if isinstance(node, list) else node.setdefault(parent, {})
    node[last] = value
    return plain


def write(folder: Path, text: str) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("bogus", 1, "unknown key"),
        ("loop.stepps", 3, "unknown key"),
        ("losses.1.wieght", 3, "unknown key"),
        ("loop.steps", "many", 'valid integer.*found "many"'),
        ("loop.steps", 1.5, "fractional"),
        ("loop.steps", 0, "greater than or equal to 1, found 0"),
        ("loop.precision", "fp64", "'auto', 'fp32' or 'bf16'"),
        ("patches.foreground", 1.5, "less than or equal to 1"),
        ("patches.size", [8, 8, 0], "greater than or equal to 1"),
        ("optimiser.learning_rate", -1, "greater than 0"),
        ("optimiser.learning_rate", float("nan"), "greater than 0"),
        ("optimiser.betas", [0.9, 1.0], "less than 1"),
        ("optimiser.ema_decay", 1, "less than 1"),
        ("losses.0.weight", 0, "greater than 0"),
        ("data", None, "found null"),
        ("data.modality", "PET", "'MR' or 'CT', found \"PET\""),
        ("network.options", [1], "dictionary"),
        ("seed", -1, "greater than or equal to 0"),
        ("name", {datetime.date(2020, 1, 1): 3}, "valid string"),
    ],
)
def test_a_wrong_value_is_refused_by_its_path(path: str, value: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        recipe_from_dict(with_value(path, value), source="tiny.yaml")
    found = str(caught.value)
    # Of a wrong pair or triple the message names the very entry.
    assert found.startswith((f"tiny.yaml: {path}: ", f"tiny.yaml: {path}."))
    assert "\n" not in found


@pytest.mark.parametrize("path", ["name", "data", "degradation", "network"])
def test_a_missing_key_is_named(path: str) -> None:
    plain = copy.deepcopy(PLAIN)
    del plain[path]
    with pytest.raises(RecipeError, match=f"recipe: {path}: missing"):
        recipe_from_dict(plain)


def test_the_number_of_further_problems_is_told() -> None:
    plain = with_value("loop.steps", 0) | {"seed": -1, "bogus": 1}
    with pytest.raises(RecipeError, match=r"\(2 more problems\)"):
        recipe_from_dict(plain)


def test_a_teacher_without_terms_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"\(whole recipe\): a teacher without terms"):
        recipe_from_dict(PLAIN | {"teacher": "somewhere"})


def test_a_weight_is_a_number_a_ramp_or_learned() -> None:
    def weight(value: object) -> object:
        # A learned weight needs another beside it.
        more = [{"name": name, "weight": {"learned": 2.0}} for name in ("l2", "ssim")]
        losses = [{"name": "l1", "weight": value}, *more]
        return recipe_from_dict(PLAIN | {"losses": losses}).losses[0]

    assert weight(0.3) == WeightedTerm("l1", 0.3)
    ramp = {"start": 1, "end": 0, "begin": 0.8, "until": 0.9}
    assert weight(ramp) == WeightedTerm("l1", Ramp(1.0, 0.0, 0.8, 0.9))
    assert weight({"learned": 0.5}) == WeightedTerm("l1", Learned(0.5))
    for value, message in [
        (0, r"losses\.0\.weight: .*greater than 0, found 0"),
        ("much", r"losses\.0\.weight: .*number.*much"),
        ({"start": 1}, r"losses\.0\.weight\.end: missing"),
        ({"start": -1, "end": 0}, r"losses\.0\.weight\.start: .*found -1"),
        (ramp | {"until": 0.5}, r"losses\.0\.weight: .*until is below begin"),
        (ramp | {"fog": 1}, r"losses\.0\.weight\.fog: unknown key"),
        ({"learned": 0}, r"losses\.0\.weight\.learned: .*found 0"),
    ]:
        with pytest.raises(RecipeError, match=message):
            weight(value)


def test_one_learned_weight_alone_is_refused() -> None:
    losses = [{"name": "l1", "weight": {"learned": 1.0}}, {"name": "ssim", "weight": 0.1}]
    with pytest.raises(
        RecipeError, match=r"\(whole recipe\): the weight of l1 is the only learned"
    ):
        recipe_from_dict(PLAIN | {"losses": losses})


def test_every_kind_of_weight_survives_yaml(tmp_path: Path) -> None:
    losses = [
        {"name": "l1", "weight": {"learned": 1.0}},
        {"name": "l2", "weight": {"learned": 2.0}},
        {"name": "ssim", "weight": {"start": 0.0, "end": 0.1, "begin": 0.2, "until": 0.4}},
    ]
    recipe = recipe_from_dict(PLAIN | {"losses": losses})
    assert read_recipe(write(tmp_path, recipe.to_yaml())) == recipe
    assert read_recipe(write(tmp_path, recipe.to_yaml()), ["losses.2.weight=2"]).losses[2] == (
        WeightedTerm("ssim", 2.0)
    )


def test_a_recipe_needs_something_to_learn_from() -> None:
    with pytest.raises(RecipeError, match=r"\(whole recipe\): losses and terms are both empty"):
        recipe_from_dict(PLAIN | {"losses": []})
    distilled = PLAIN | {"losses": [], "teacher": "t", "terms": [{"name": "output"}]}
    assert recipe_from_dict(distilled).terms[0].name == "output"


def test_the_round_trip_through_yaml_keeps_everything(tmp_path: Path) -> None:
    recipe = recipe_from_dict(
        with_value("optimiser.learning_rate", 3e-4)
        | {"teacher": "t", "terms": [{"name": "feature", "options": {"student": "body.0"}}]}
    )
    assert read_recipe(write(tmp_path, recipe.to_yaml())) == recipe


def test_yaml_takes_numbers_in_either_way_of_writing(tmp_path: Path) -> None:
    text = yaml.safe_dump(PLAIN) + "optimiser: {learning_rate: 1e-4}\n"
    assert yaml.safe_load(text)["optimiser"]["learning_rate"] == "1e-4"  # no dot: YAML 1.1 text
    assert read_recipe(write(tmp_path, text)).optimiser.learning_rate == 1e-4


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_recipes_of_the_house_are_right(path: Path) -> None:
    recipe = read_recipe(path)
    # Recipes of methods are named after the model and the method, their files after the method.
    assert recipe.name == path.stem or recipe.name.endswith(f"-{path.stem}")
    assert bool(recipe.terms) == (path.parent.name == "distill") or recipe.role == "teacher"
    assert (recipe.role == "teacher") == (path.parent.name == "teachers")
    assert recipe_from_dict(recipe.to_dict()) == recipe


def test_there_are_recipes_to_check() -> None:
    assert len(CONFIGS) >= 9


class TestBase:
    """A file says on which other it rests, and what differs."""

    @pytest.fixture
    def long(self, tmp_path: Path) -> Path:
        """A file that rests on one in the folder above, which rests on one beside it."""
        (tmp_path / "whole.yaml").write_text(yaml.safe_dump(PLAIN), encoding="utf-8")
        (tmp_path / "wide.yaml").write_text(
            "base: whole.yaml\nnetwork: {options: {width: 32, depth: 3}}\n", encoding="utf-8"
        )
        (tmp_path / "sub").mkdir()
        path = tmp_path / "sub" / "long.yaml"
        path.write_text(
            "base: ../wide.yaml\nname: long\n"
            "losses: [{name: l2}]\nnetwork: {options: {depth: 9}}\n",
            encoding="utf-8",
        )
        return path

    def test_mappings_are_merged_and_everything_else_is_replaced(self, long: Path) -> None:
        recipe = read_recipe(long, ["network.options.fold=[2, 2, 1]"])
        assert recipe.name == "long"
        assert recipe.losses == (WeightedTerm("l2"),)
        assert recipe.network.options == {"width": 32, "depth": 9, "fold": [2, 2, 1]}
        assert recipe.data.manifest == PLAIN["data"]["manifest"]

    def test_options_go_with_the_name_that_they_belong_to(self, long: Path) -> None:
        other = long.with_name("other.yaml")
        other.write_text("base: long.yaml\nnetwork: {name: Span3D, options: {blocks: 2}}\n")
        assert read_recipe(other).network.options == {"blocks": 2}
        other.write_text("base: long.yaml\ndegradation: {kind: kspace}\n")
        assert read_recipe(other).degradation.options == {}
        assert read_recipe(other).network.options == {"width": 32, "depth": 9}

    def test_what_a_run_keeps_is_whole(self, long: Path, tmp_path: Path) -> None:
        recipe = read_recipe(long)
        assert "base" not in recipe.to_dict()
        assert read_recipe(write(tmp_path, recipe.to_yaml())) == recipe

    def test_unknown_keys_of_a_base_are_refused_by_their_path(self, long: Path) -> None:
        wide = long.parents[1] / "wide.yaml"
        wide.write_text(wide.read_text(encoding="utf-8") + "loop: {stepps: 3}\n", encoding="utf-8")
        with pytest.raises(RecipeError, match=r"long\.yaml: loop\.stepps: unknown key"):
            read_recipe(long)

    def test_a_circle_is_refused(self, long: Path) -> None:
        whole = long.parents[1] / "whole.yaml"
        whole.write_text("base: sub/long.yaml\n", encoding="utf-8")
        circle = r"base: goes round in a circle \(long.yaml -> wide.yaml -> whole.yaml -> long.yaml"
        with pytest.raises(RecipeError, match=circle):
            read_recipe(long)
        whole.write_text("base: whole.yaml\n", encoding="utf-8")
        with pytest.raises(RecipeError, match=r"circle \(whole.yaml -> whole.yaml\)"):
            read_recipe(long)

    @pytest.mark.parametrize(
        ("base", "message"),
        [
            ("absent.yaml", r"absent\.yaml: cannot be read \(No such file"),
            ("[whole.yaml]", r"base: give the path of a recipe, found \["),
            ("null", "base: give the path of a recipe, found null"),
            (r'"a\0b"', "base: give the path of a recipe"),
        ],
    )
    def test_a_base_that_is_none_is_refused(self, tmp_path: Path, base: str, message: str) -> None:
        with pytest.raises(RecipeError, match=message):
            read_recipe(write(tmp_path, f"base: {base}\nname: tiny\n"))

    def test_python_data_have_no_base(self) -> None:
        with pytest.raises(RecipeError, match="base: unknown key"):
            recipe_from_dict(PLAIN | {"base": "whole.yaml"})


class TestOverrides:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return write(tmp_path, yaml.safe_dump(PLAIN))

    def test_values_are_read_as_yaml_and_put_at_their_path(self, path: Path) -> None:
        recipe = read_recipe(
            path,
            [
                "loop.steps=7",
                "network.options.width=32",
                "losses.1.weight=0.5",
                "patches.size=[8, 8, 4]",
                "patches.flips=false",
                "data.validation_split=null",
                "description=a = b",
            ],
        )
        assert recipe.loop.steps == 7
        assert recipe.network.options == {"width": 32}
        assert [loss.weight for loss in recipe.losses] == [1.0, 0.5]
        assert recipe.patches.size == (8, 8, 4)
        assert recipe.patches.flips is False
        assert recipe.data.validation_split is None
        assert recipe.description == "a = b"

    def test_the_file_is_left_as_it_is(self, path: Path) -> None:
        before = path.read_bytes()
        read_recipe(path, ["seed=5"])
        assert path.read_bytes() == before
        assert read_recipe(path).seed == 0

    @pytest.mark.parametrize(
        ("override", "message"),
        [
            ("loop.steps", "key=value"),
            ("=3", "key=value"),
            ("loop.steps=0", r"loop\.steps: .*greater than or equal to 1"),
            ("loop.stepps=5", r"loop\.stepps: unknown key"),
            ("loop.steps=[1", r"loop\.steps: '\[1' is no valid YAML"),
            ("description=2020-13-45", "description: '2020-13-45' is no valid YAML"),
            ("losses.7.weight=1", r"losses\.7 is absent"),
            ("losses.-1.weight=1", r"losses\.-1 is absent"),
            ("losses.²=1", "losses holds no keys"),
            ("name.first=1", "name holds no keys"),
            ("name.first.second=1", r"name\.first is absent"),
        ],
    )
    def test_bad_overrides_are_refused(self, path: Path, override: str, message: str) -> None:
        with pytest.raises(RecipeError, match=message) as caught:
            read_recipe(path, [override])
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [a\nseed: 3\n", "no valid YAML at line"),
        ("description: 2020-13-45\n", "no valid YAML"),
        ("name: \0\n", "no valid YAML"),
        ("- a\n- b\n", "no mapping"),
        ("", "no mapping"),
    ],
)
def test_files_that_are_no_recipe_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        read_recipe(write(tmp_path, text))


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be read"):
        read_recipe(tmp_path / "absent.yaml")
    with pytest.raises(RecipeError, match="cannot be read"):
        read_recipe(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe9\n")
    with pytest.raises(RecipeError, match="no valid YAML"):
        read_recipe(tmp_path / "latin.yaml")


def test_a_recipe_cannot_be_changed() -> None:
    recipe = recipe_from_dict(PLAIN)
    with pytest.raises(AttributeError):
        recipe.seed = 3  # type: ignore[misc]
    assert isinstance(recipe, Recipe)


@pytest.mark.parametrize("error", [UsageError("no"), TypeError("no"), ValueError("no")])
def test_what_a_key_builds_is_refused_by_its_path(error: Exception) -> None:
    with pytest.raises(MedsrError, match=r"recipe: losses\.0: no") as caught, at_key("losses.0"):
        raise error
    assert caught.value.__cause__ is error

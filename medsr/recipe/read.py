"""Recipes from YAML and plain data, overrides, and errors that name the key's path."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import ValidationError

from medsr.errors import MedsrError, RecipeError
from medsr.recipe.recipe import RECIPE, Recipe


def recipe_from_dict(plain: Mapping[str, Any], source: str = "recipe") -> Recipe:
    """Build a recipe from plain data.

    Args:
        plain: Nested mapping as YAML gives it.
        source: What messages call it.

    Raises:
        RecipeError: The first wrong key, by its dotted path.

    Examples:
        >>> from medsr.recipe import recipe_from_dict
        >>> recipe = recipe_from_dict(
        ...     {
        ...         "name": "my-ct-z4",
        ...         "data": {"manifest": "cohort.csv", "modality": "CT"},
        ...         "degradation": {"kind": "ct_slab", "factor": [1, 1, 4]},
        ...         "network": {"name": "RepPlain3D", "options": {"width": 32}},
        ...     }
        ... )
        >>> recipe.degradation.factor
        (1, 1, 4)
        >>> recipe_from_dict(recipe.to_dict()) == recipe
        True
    """
    try:
        return RECIPE.validate_python(dict(plain))
    except ValidationError as error:
        problems = error.errors(include_url=False)
        first = problems[0]
        # Parts in angle brackets are the kinds of a union, which is no key of the recipe.
        keys = [str(part) for part in first["loc"] if not str(part).startswith("<")]
        path = ".".join(keys) or "(whole recipe)"
        more = f" ({len(problems) - 1} more problems)" if len(problems) > 1 else ""
        if first["type"] == "unexpected_keyword_argument":
            message = "unknown key; remove it or correct its spelling"
        elif first["type"] in ("missing", "missing_argument"):
            message = "missing; give it a value"
        elif first["type"] == "value_error" or not first["loc"]:
            message = first["msg"].removeprefix("Value error, ")
        else:
            message = f"{first['msg']}, found {_short(first['input'])}"
        raise RecipeError(f"{source}: {path}: {message}{more}") from error


def read_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a YAML recipe and apply ``key=value`` overrides.

    A file may say ``base: other.yaml``, by a path from its own folder, and give what differs alone:
    mappings are merged key by key, everything else is replaced. A base may have a base itself, and
    need not be a whole recipe.

    Args:
        path: YAML file.
        overrides: Strings such as ``loop.steps=100`` or ``network.options.width=48``; values are
            read as YAML.

    Raises:
        RecipeError: If the file or a base of it cannot be read or parsed, files are each other's
            base, or a key is wrong.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from medsr import read_recipe
        >>> text = (
        ...     "{name: my-ct-z4, data: {manifest: cohort.csv, modality: CT},"
        ...     " degradation: {kind: ct_slab, factor: [1, 1, 4]}, network: {name: Span3D}}"
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "recipe.yaml")
        ...     _ = file.write_text(text)
        ...     recipe = read_recipe(file, ["loop.steps=100", "network.options.width=48"])
        >>> recipe.loop.steps, recipe.network.options
        (100, {'width': 48})
    """
    path = Path(path)
    plain = read_plain(path)
    for override in overrides:
        apply_override(plain, override)
    return recipe_from_dict(plain, source=path.name)


def with_overrides(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """Return a recipe with ``key=value`` overrides applied, as :func:`read_recipe` does.

    Raises:
        RecipeError: A key or value is wrong.

    Examples:
        >>> from medsr.recipe import recipe_from_dict, with_overrides
        >>> recipe = recipe_from_dict(
        ...     {
        ...         "name": "my-ct-z4",
        ...         "data": {"manifest": "cohort.csv", "modality": "CT"},
        ...         "degradation": {"kind": "ct_slab", "factor": [1, 1, 4]},
        ...         "network": {"name": "RepPlain3D"},
        ...     }
        ... )
        >>> with_overrides(recipe, ["losses.0.weight=0.5", "loop.steps=9"]).losses[0].weight
        0.5
        >>> with_overrides(recipe, ["loop.step=10"])
        Traceback (most recent call last):
            ...
        medsr.errors.RecipeError: recipe: loop.step: unknown key; remove it or correct its spelling
    """
    plain = recipe.to_dict()
    for override in overrides:
        apply_override(plain, override)
    return recipe_from_dict(plain)


@contextmanager
def at_key(path: str) -> Iterator[None]:
    """Name a recipe's key in whatever is refused while its value is put to use.

    Args:
        path: Dotted path such as ``losses.0``.

    Raises:
        RecipeError: What was built within the ``with`` block did not take its name or options.

    Examples:
        >>> from medsr.recipe import at_key
        >>> with at_key("losses.0"):
        ...     raise ValueError("epsilon is -1; give a number above zero")
        Traceback (most recent call last):
            ...
        medsr.errors.RecipeError: recipe: losses.0: epsilon is -1; give a number above zero
    """
    try:
        yield
    except (MedsrError, TypeError, ValueError) as error:
        raise RecipeError(f"recipe: {path}: {error}") from error


def apply_override(plain: dict[str, Any], override: str) -> None:
    """Set one dotted key of plain data in place.

    Args:
        plain: Nested mapping as YAML gives it; changed.
        override: ``key=value``; the value is read as YAML.

    Raises:
        RecipeError: It is no ``key=value``, or the key leads nowhere.

    Examples:
        >>> from medsr.recipe import apply_override
        >>> plain = {"loop": {"steps": 4000}}
        >>> apply_override(plain, "loop.steps=100")
        >>> apply_override(plain, "network.options.width=48")
        >>> plain
        {'loop': {'steps': 100}, 'network': {'options': {'width': 48}}}
    """
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise RecipeError(f"override {override!r}: write it as key=value, such as loop.steps=100")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise RecipeError(f"override {key}: {text!r} is no valid YAML value") from error
    *parents, last = key.split(".")
    node: Any = plain
    for depth, parent in enumerate(parents):
        index: Any = int(parent) if isinstance(node, list) and parent.isdecimal() else parent
        try:
            node = node.setdefault(index, {}) if isinstance(node, dict) else node[index]
        except (IndexError, TypeError, KeyError) as error:
            raise RecipeError(
                f"override {key}: {'.'.join(parents[: depth + 1])} is absent"
            ) from error
    if isinstance(node, list) and last.isdecimal() and int(last) < len(node):
        node[int(last)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise RecipeError(f"override {key}: {'.'.join(parents)} holds no keys")


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Lay changes over plain data: mappings are merged key by key, everything else is replaced.

    Options belong to the ``name`` or ``kind`` beside them: where that changes, none are kept.

    Examples:
        >>> from medsr.recipe import merge
        >>> merge({"loop": {"steps": 1000, "log_every": 50}}, {"loop": {"steps": 20}})
        {'loop': {'steps': 20, 'log_every': 50}}
    """
    merged = deepcopy(dict(base))
    if any(label in changes and changes[label] != base.get(label) for label in ("name", "kind")):
        merged.pop("options", None)
    for key, value in changes.items():
        own = merged.get(key)
        both = isinstance(own, dict) and isinstance(value, Mapping)
        merged[key] = merge(cast("dict[str, Any]", own), value) if both else deepcopy(value)
    return merged


def read_plain(path: str | Path) -> dict[str, Any]:
    """Return a file laid over its base and that one's base, unchecked.

    Args:
        path: YAML file.

    Raises:
        RecipeError: If a file cannot be read or parsed, or files are each other's base.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from medsr.recipe import read_plain
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "short.yaml").write_text("loop: {steps: 100, log_every: 10}")
        ...     _ = Path(folder, "long.yaml").write_text("{base: short.yaml, loop: {steps: 9000}}")
        ...     read_plain(Path(folder, "long.yaml"))
        {'loop': {'steps': 9000, 'log_every': 10}}
    """
    return _laid_over(Path(path), ())


def _laid_over(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """A file laid over its base; ``above`` are the files that rest on it."""
    resolved = path.resolve()
    if resolved in above:
        chain = " -> ".join(each.name for each in (*above[above.index(resolved) :], resolved))
        raise RecipeError(f"recipe {path}: base: goes round in a circle ({chain}); take one out")
    plain = _plain(path)
    if "base" not in plain:
        return plain
    base = plain.pop("base")
    if not isinstance(base, str) or "\0" in base:
        raise RecipeError(f"recipe {path}: base: give the path of a recipe, found {_short(base)}")
    return merge(_laid_over(path.parent / base, (*above, resolved)), plain)


def _plain(path: Path) -> dict[str, Any]:
    """Plain data of one file.

    Raises:
        RecipeError: The file cannot be read, is no YAML, or holds no mapping.
    """
    try:
        plain = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(
            f"recipe {path}: cannot be read ({error.strerror}); check the path"
        ) from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date of month 13, or no UTF-8
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise RecipeError(f"recipe {path}: is no valid YAML{where}; correct the file") from error
    if not isinstance(plain, dict):
        raise RecipeError(f"recipe {path}: holds no mapping of keys; see docs/reference/recipes.md")
    return plain


def _short(value: Any) -> str:
    text = json.dumps(value, default=str, skipkeys=True)
    return text if len(text) <= 60 else text[:57] + "..."

"""The documented exit codes are those of ``medsr.errors``, no more and no fewer."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from medsr import errors

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "exit-codes.md"
ROW = re.compile(r"^\| (\d+) \| `(\w+)` \| (.+?) \|$", re.MULTILINE)


def _classes() -> dict[str, type[errors.MedsrError]]:
    found = inspect.getmembers(errors, inspect.isclass)
    return {name: cls for name, cls in found if issubclass(cls, errors.MedsrError)}


def _documented() -> dict[str, tuple[int, str]]:
    rows = ROW.findall(PAGE.read_text(encoding="utf-8"))
    return {name: (int(code), meaning) for code, name, meaning in rows}


def test_the_table_lists_every_error_with_its_code() -> None:
    assert {name: code for name, (code, _) in _documented().items()} == {
        name: cls.exit_code for name, cls in _classes().items()
    }


def test_the_table_says_what_the_docstring_says() -> None:
    for name, (_, meaning) in _documented().items():
        summary = inspect.cleandoc(_classes()[name].__doc__ or "").split("\n")[0]
        assert meaning == summary.rstrip("."), name


def test_no_two_errors_share_a_code() -> None:
    codes = [cls.exit_code for cls in _classes().values()]
    assert len(codes) == len(set(codes))


def test_success_is_no_error() -> None:
    assert 0 not in {cls.exit_code for cls in _classes().values()}

"""Libraries log nothing, or errors alone, while they are told so; then as before."""

from __future__ import annotations

import logging
import warnings

import pytest

from medsr.logs import LogSuppressor

LIBRARY = logging.getLogger("a_library")


def heard(caplog: pytest.LogCaptureFixture) -> list[str]:
    caplog.clear()
    for level in (logging.WARNING, logging.ERROR, logging.CRITICAL):
        LIBRARY.log(level, logging.getLevelName(level))
        LIBRARY.getChild("part").log(level, logging.getLevelName(level))
    return [record.getMessage() for record in caplog.records]


def test_nothing_is_logged_until_the_last_block_ends(caplog: pytest.LogCaptureFixture) -> None:
    LIBRARY.setLevel(logging.INFO)
    suppressor = LogSuppressor("a_library", with_warnings=True)
    with suppressor:
        with suppressor, warnings.catch_warnings(record=True) as caught:
            warnings.warn("of its use", stacklevel=1)
        assert heard(caplog) == []
        assert not caught
    assert len(heard(caplog)) == 6
    assert LIBRARY.level == logging.INFO
    assert not LIBRARY.disabled


def test_errors_may_be_logged(caplog: pytest.LogCaptureFixture) -> None:
    with LogSuppressor("a_library", level=logging.ERROR):
        assert heard(caplog) == ["ERROR", "ERROR", "CRITICAL", "CRITICAL"]
    assert len(heard(caplog)) == 6


def test_it_ends_with_an_error(caplog: pytest.LogCaptureFixture) -> None:
    @LogSuppressor("a_library")
    def fail() -> None:
        LIBRARY.error("unheard")
        raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        fail()
    assert not caplog.records
    assert len(heard(caplog)) == 6

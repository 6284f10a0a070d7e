"""The cache keeps what it is given, and never stands in the way."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from medsr.infer.engine import cache


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "deep" / "cache"))
    return tmp_path / "deep" / "cache"


def test_what_is_written_is_read(folder: Path) -> None:
    key = cache.machine_key("test", shape=[1, 2, 3])
    assert cache.read(key) is None
    cache.write(key, {"seconds": 0.25})
    cache.write(key, {"seconds": 0.5})
    assert cache.read(key) == {"seconds": 0.5}
    assert [path.name for path in folder.iterdir()] == [f"{key}.json"]


def test_other_parts_other_machines_and_other_versions_have_other_keys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = cache.machine_key("test", shape=[1, 2, 3])
    assert cache.machine_key("test", shape=[1, 2, 3]) == key
    assert cache.machine_key("test", shape=[3, 2, 1]) != key
    assert cache.machine_key("other", shape=[1, 2, 3]) != key
    with monkeypatch.context() as patch:
        patch.setattr(cache, "version", lambda name: "0.0.1")
        assert cache.machine_key("test", shape=[1, 2, 3]) != key
    with monkeypatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: 1234)
        assert cache.machine_key("test", shape=[1, 2, 3]) != key
    with monkeypatch.context() as patch:
        patch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": "abacus"}, raising=False)
        assert cache.machine()["processor"] == "abacus"
        assert cache.machine_key("test", shape=[1, 2, 3]) != key


def test_the_key_is_the_same_in_another_process() -> None:
    code = (
        "import torch; torch.set_num_threads(1)\n"
        "from medsr.infer.engine import cache; print(cache.machine_key('test', a=1, b=[2]))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True
    )
    assert found.stdout.strip() == cache.machine_key("test", b=[2], a=1)


def test_the_description_is_plain_data() -> None:
    found = cache.machine()
    assert json.loads(json.dumps(found)) == found
    assert found["versions"]["torch"] is not None
    assert found["threads"] == torch.get_num_threads()


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '{"a": '])
def test_a_damaged_file_counts_as_nothing(folder: Path, text: str) -> None:
    folder.mkdir(parents=True)
    (folder / "key.json").write_text(text)
    assert cache.read("key") is None
    cache.write("key", {"a": 1})
    assert cache.read("key") == {"a": 1}


def test_a_file_of_other_bytes_counts_as_nothing(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "key.json").write_bytes(b"\xff\xfe\x00")
    assert cache.read("key") is None


def test_a_folder_that_cannot_be_made_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "file" / "cache"))
    cache.write("key", {"a": 1})
    assert cache.read("key") is None


def test_a_home_that_is_not_there_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(*args: object, **kwargs: object) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv(cache.VARIABLE, raising=False)
    monkeypatch.setattr(cache.platformdirs, "user_cache_path", homeless)
    cache.write("key", {"a": 1})
    assert cache.read("key") is None


@pytest.mark.parametrize("value", ["off", "OFF", "0", " none "])
def test_it_can_be_switched_off(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(cache.VARIABLE, value)
    assert cache.cache_folder() is None
    cache.write("key", {"a": 1})
    assert cache.read("key") is None
    assert not any(tmp_path.iterdir())


def test_the_users_folder_is_the_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(cache.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = cache.cache_folder()
    assert folder is not None
    assert folder.name == "medsr" or "medsr" in folder.parts
    if sys.platform == "linux":
        assert folder == tmp_path / "medsr"

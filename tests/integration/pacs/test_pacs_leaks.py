"""Nothing leaks on the way through an archive: messages, reports and names of temporary files.

What lies in the temporary folder meanwhile is the patient's scan, of course; the folder is private
and gone at the end. Messages and reports name the study and the series, and say no more of either.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import generate_uid


@pytest.fixture
def marked(orthanc: Any, make_slices: Any, markers: Any, tmp_path: Path) -> Any:
    """A study of Orthanc's with markers everywhere; its series with a gap comes second."""
    study = str(generate_uid(prefix=None))
    series = {}
    for name, numbers in (("whole", range(6)), ("gap", (0, 1, 2, 4, 5, 6))):
        series[name] = str(generate_uid(prefix=None))
        folder = tmp_path / name
        folder.mkdir()
        images = make_slices(study, series[name], count=7)
        for k in numbers:
            image = images[k]
            markers.plant(image, kept={"BodyPartExamined": "HEAD"})
            image.FrameOfReferenceUID = markers.uids["frame"]
            image.SOPInstanceUID = generate_uid(prefix=f"{markers.uids['instance']}.")
            image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
            image.save_as(folder / f"{k}.dcm", enforce_file_format=True)
        orthanc.push(folder)
    return {"study": study, **series}


def run(place: Path, *words: str, **environment: str) -> tuple[int, str]:
    """Run ``medsr --debug pacs`` and give its streams, with the names of temporary files."""
    scratch = place / "scratch"
    scratch.mkdir(exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "medsr", "--debug", "pacs", *words],
        cwd=place,
        env={**os.environ, "TMPDIR": str(scratch), "COLUMNS": "500", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    names: set[str] = set()

    def watch() -> None:
        while process.poll() is None:
            names.update(path.name for path in scratch.rglob("*"))
            time.sleep(0.02)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    streams = process.communicate(timeout=300)[0].decode("utf-8", "replace")
    watcher.join()
    return process.returncode, streams + "\n".join(sorted(names))


CASES = {
    # series, from, to, more options, exit code
    "stored": ("whole", "node", "web", (), 0),
    "back": ("whole", "web", "node", ("--dicom-layout", "enhanced"), 0),
    "anonymous": ("whole", "node", "node", ("--deidentify",), 0),
    "gap": ("gap", "node", "node", (), 82),
    "not there": ("none", "web", "web", (), 64),
    "no target": ("whole", "node", "nobody", ("--retries", "1"), 62),
    "not chosen": (None, "node", "node", (), 23),
}


@pytest.mark.parametrize("name", CASES)
def test_an_exchange_tells_nothing(
    name: str,
    orthanc: Any,
    marked: Any,
    markers: Any,
    model: Path,
    free_address: str,
    tmp_path: Path,
) -> None:
    series, source, target, more, code = CASES[name]
    addresses = {
        "node": orthanc.node,
        "web": orthanc.web,
        "nobody": f"dicom://NOBODY@{free_address}",
    }
    words = ["upscale", "--from", addresses[source], "--to", addresses[target]]
    words += ["--study", marked["study"], "--aet", "CALLING", "--model", str(model), *more]
    words += ["--scale", "1,1,2", "--report", "report.json", "--timeout", "20"]
    if series is not None:
        words += ["--series", marked.get(series, "1.2.3.4")]
    secret = "a long and random secret of the site"
    left, told = run(tmp_path, *words, MEDSR_DEIDENTIFY_KEY=secret)
    assert left == code, told
    report = (tmp_path / "report.json").read_text()
    assert json.loads(report)["source"]["study"] == marked["study"]
    hidden = [*(each.decode() for each in markers.secrets), *markers.uids.values(), secret]
    hidden += [os.environ["MEDSR_FROM_PASSWORD"]]
    assert not [each for each in hidden if each in told.replace("\n", "")], told
    assert not [each for each in hidden if each in report], report
    assert not any((tmp_path / "scratch").iterdir())


def test_a_list_tells_nothing(orthanc: Any, marked: Any, markers: Any, tmp_path: Path) -> None:
    for address in (orthanc.node, orthanc.web):
        words = ("list", "--from", address, "--study", marked["study"])
        left, told = run(tmp_path, *words)
        assert left == 0
        assert marked["gap"] in told
        hidden = [*(each.decode() for each in markers.secrets), *markers.uids.values()]
        assert not [each for each in hidden if each in told]

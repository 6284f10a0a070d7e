"""A package that is put off behaves like itself once it is used; each case in a fresh process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

NIBABEL = """
import sys
import medsr.geometry
assert "nibabel" not in sys.modules
import medsr.io.nifti
assert "nibabel" in sys.modules and "pydicom" not in sys.modules
"""


def run(code: str, folder: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, encoding="utf-8", check=False
    )
    assert result.returncode == 0, result.stderr


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder with the package ``heavy`` and the module ``eager``, which imports it."""
    (tmp_path / "heavy").mkdir()
    (tmp_path / "heavy" / "__init__.py").write_text("class Thing: ...\nvalue = 3\n")
    (tmp_path / "heavy" / "inner.py").write_text("from heavy import Thing\ndepth = 2\n")
    (tmp_path / "eager.py").write_text("import heavy\nannotation = heavy.Thing\n")
    return tmp_path


def test_it_is_loaded_at_its_first_use(package: Path) -> None:
    code = """
import sys
from medsr.io.deferred import deferred
with deferred("heavy", Thing=object):
    import eager
assert eager.annotation is object
assert "heavy" not in sys.modules
assert eager.heavy.value == 3
assert "heavy" in sys.modules
import heavy
assert eager.heavy.Thing is heavy.Thing is not object
"""
    run(code, package)


def test_an_attribute_that_was_not_foreseen_loads_it_at_once(package: Path) -> None:
    code = """
import sys
from medsr.io.deferred import deferred
with deferred("heavy"):
    import eager
import heavy
assert eager.annotation is heavy.Thing
assert sys.modules["heavy"] is heavy and heavy.__file__
"""
    run(code, package)


def test_modules_inside_it_can_be_imported_meanwhile(package: Path) -> None:
    code = """
from medsr.io.deferred import deferred
with deferred("heavy", Thing=object):
    from heavy.inner import Thing, depth
import heavy
assert depth == 2 and Thing is heavy.Thing
"""
    run(code, package)


def test_what_is_loaded_or_missing_is_left_alone(package: Path) -> None:
    code = """
import sys
import heavy
from medsr.io.deferred import deferred
with deferred("heavy", Thing=object):
    import eager
assert eager.heavy is heavy and eager.annotation is heavy.Thing
with deferred("not_there"):
    try:
        import not_there
    except ModuleNotFoundError:
        sys.exit(0)
sys.exit("imported what is not there")
"""
    run(code, package)


def test_nibabel_reads_dicom_extensions_all_the_same(tmp_path: Path) -> None:
    code = (
        NIBABEL
        + """
import nibabel as nib
import numpy as np
import pydicom
dataset = pydicom.Dataset()
dataset.SeriesNumber = 12
image = nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4))
image.header.extensions.append(nib.nifti1.Nifti1DicomExtension(2, dataset))
nib.save(image, "with.nii")
found = nib.load("with.nii").header.extensions[0].get_content()
assert isinstance(found, pydicom.Dataset) and found.SeriesNumber == 12
"""
    )
    run(code, tmp_path)

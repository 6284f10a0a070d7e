"""A network, a term and a degradation of another package do all that the built-in ones do."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medsr import io
from medsr.cli.main import main
from medsr.degrade import DEGRADATIONS, build_degradation
from medsr.distill.catalogue import catalogue
from medsr.distill.terms import TERMS
from medsr.errors import OutputExistsError
from medsr.infer.folder_jobs import output_names
from medsr.io import formats
from medsr.io.scans import count_scans, find_scans
from medsr.model import SRModel
from medsr.networks import NETWORKS, build_network
from medsr.plugins import Registry

CODE = '''
"""A package that knows medsr."""

import torch

from medsr.degrade import DEGRADATIONS
from medsr.degrade.slice_profile import SliceProfile
from medsr.distill import Term
from medsr.networks.blocks import SRNetwork, conv3, zero_conv3


class ToyNet(SRNetwork):
    """Two convolutions, and no more.

    Source: Nobody 2026, "A toy".
    """

    radius = 2
    taps = ("head",)

    def __init__(self, scale, width: int = 16, **options):
        super().__init__(scale, **options)
        self.head = conv3(self.in_channels, width)
        self.tail = zero_conv3(width, self.out_channels)

    def residual(self, folded):
        return self.tail(torch.relu(self.head(folded)))


class ToyTerm(Term):
    """Difference of the means.

    Source: Nobody 2026, "A toy".
    """

    name = "toy_means"

    def __init__(self, power: float = 1.0):
        super().__init__()
        self.power = power

    def forward(self, student, teacher, batch):
        return (student.output.mean() - teacher.output.mean()).abs() ** self.power


@DEGRADATIONS.register("toy_slices", draws=("noise",))
class ToySlices(SliceProfile):
    """Slices that are a toy."""
'''
FORMAT = '''
"""Folders (.pile) of a header, and voxels in a file of their own; told by the header."""

import json
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from medsr.geometry import Geometry
from medsr.io.formats import Format
from medsr.io.planes import PlaneSource, header_of
from medsr.io.scaling import dequantise, find_scaling, type_without_slope
from medsr.volume import Source


class Pile(PlaneSource):
    def __init__(self, path):
        self.path, fields = path, json.loads((path / "pile.json").read_text())
        self.dtype = np.dtype(fields["dtype"])
        grid = Geometry(tuple(fields["shape"]), np.array(fields["affine"], float))
        native = dequantise(np.zeros((1, 1, 1), self.dtype), 1.0, 0.0).dtype
        self.header = header_of(grid, native, source=Source("pile", path, self.dtype))

    def read(self, start, stop):
        voxels = np.fromfile(self.path / "voxels", self.dtype)
        raw = voxels.reshape(self.header.shape, order="F")
        return dequantise(raw[:, :, start:stop], 1.0, 0.0)


class PileFile:
    def __init__(self, stream):
        self.stream = stream

    def append(self, stored):
        self.stream.write(stored.tobytes(order="F"))


class PileCodec:
    def open(self, path, *, series, allow, whole):
        return Pile(path)

    def companions(self, path):
        return [path / "pile.json", path / "voxels"]

    def scaling(self, source, value_range):
        return find_scaling(value_range, type_without_slope(source, value_range))

    def check_writable(self, volume, dicom):
        pass

    @contextmanager
    def create(self, like, path, scaling, derivation, dicom):
        path.mkdir(exist_ok=True)
        affine = like.geometry.affine.tolist()
        header = {"shape": like.shape, "affine": affine, "dtype": scaling.dtype.str}
        (path / "pile.json").write_text(json.dumps(header))
        with (path / "voxels").open("wb") as stream:
            yield PileFile(stream)


def is_pile(path):
    return (path / "pile.json").is_file()


PILE = Format("pile", (".pile",), (), "toy_pile:CODEC", recognise="toy_pile:is_pile")
CODEC = PileCodec()
'''
ENTRY_POINTS = """
[medsr.formats]
pile = toy_pile:PILE
[medsr.networks]
ToyNet3D = toy_medsr:ToyNet
[medsr.degradations]
toy_slices = toy_medsr:ToySlices
[medsr.distill_terms]
toy_means = toy_medsr:ToyTerm
"""
TOYS: list[tuple[Registry, str]] = [  # type: ignore[type-arg]
    (NETWORKS, "ToyNet3D"),
    (DEGRADATIONS, "toy_slices"),
    (TERMS, "toy_means"),
]


def forget() -> None:
    for module in ("toy_medsr", "toy_pile"):
        sys.modules.pop(module, None)
    formats._add_entry_points.cache_clear()
    formats._import.cache_clear()
    formats._TABLE.pop("pile", None)
    for registry, name in TOYS:
        if name in registry:
            registry.pop(name)


@pytest.fixture(params=["installed", "registered"])
def toys(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """The package, found by its entry points or because it registered all it has."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "toy_medsr.py").write_text(CODE, encoding="utf-8")
    (site / "toy_pile.py").write_text(FORMAT, encoding="utf-8")
    monkeypatch.syspath_prepend(site)
    forget()
    if request.param == "installed":
        info = site / "toy_medsr-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-medsr\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(ENTRY_POINTS, encoding="utf-8")
    else:
        from toy_medsr import ToyNet, ToyTerm  # type: ignore[import-not-found]
        from toy_pile import PILE  # type: ignore[import-not-found]

        NETWORKS.register("ToyNet3D", small={"width": 16})(ToyNet)
        TERMS.register("toy_means")(ToyTerm)
        formats.register(PILE)
    yield
    forget()


@pytest.mark.usefixtures("toys")
class TestToys:
    def test_a_run_takes_all_three(
        self, train: Callable[..., Path], distilling: list[str], tmp_path: Path
    ) -> None:
        folder = train(
            tmp_path / "run",
            distilling[0],
            "terms=[{name: toy_means, weight: 0.5, options: {power: 2.0}}]",
            "network={name: ToyNet3D, options: {width: 16}}",
            "degradation={kind: toy_slices, factor: [1, 1, 2], options: {noise: 0.01}}",
            "loop.steps=2",
            "loop.log_every=1",
        )
        model = SRModel.load(folder / "model")
        assert type(model.module).__name__ == "ToyNet"
        assert model.spec.trained_degradation["kind"] == "toy_slices"
        assert "toy_means" in (folder / "log.csv").read_text()

    def test_the_catalogue_lists_them(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["methods", "--json"]) == 0
        told = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
        assert told["ToyNet3D"]["description"] == "Two convolutions, and no more."
        assert told["toy_means"]["source"] == 'Nobody 2026, "A toy".'
        assert told["toy_slices"]["command"].endswith("--kind toy_slices")
        assert len(told) == len(catalogue())
        assert main(["methods"]) == 0
        assert "Two convolutions" in capsys.readouterr().out

    def test_a_scan_is_degraded_by_it(self, world: Path, tmp_path: Path) -> None:
        outputs = [tmp_path / f"{kind}.nii.gz" for kind in ("toy_slices", "slice_profile")]
        for kind, output in zip(("toy_slices", "slice_profile"), outputs, strict=True):
            call = ["degrade", str(world / "0.nii.gz"), str(output), "--scale", "1,1,2"]
            assert main([*call, "--kind", kind, "--quiet"]) == 0
        ours, theirs = (np.asanyarray(nib.load(output).dataobj) for output in outputs)
        np.testing.assert_array_equal(ours, theirs)

    def test_an_evaluation_draws_what_it_says(self) -> None:
        from medsr.evaluate.sampling import ranges

        assert build_degradation("toy_slices", (1, 1, 2)).factor == (1, 1, 2)
        assert set(ranges("toy_slices", "MR")) == {"noise"}

    def test_its_options_are_checked(self) -> None:
        from medsr.errors import ModelError

        with pytest.raises(ModelError, match="width is 'wide'"):
            build_network("ToyNet3D", (1, 1, 2), width="wide")
        assert build_network("ToyNet3D", (1, 1, 2), width=32).halo == (2, 2, 2)

    def test_a_folder_is_of_the_format_that_knows_it(self, world: Path, tmp_path: Path) -> None:
        scan = io.load(world / "0.nii.gz", modality="MR")
        pile = io.save(scan, tmp_path / "scan.pile")
        unnamed = io.save(scan, tmp_path / "unnamed", format="pile")
        for folder in (pile, unnamed):
            assert formats.format_of(folder).name == "pile"
            np.testing.assert_array_equal(io.load(folder).data, scan.data)
            assert io.inspect(folder).format == "pile"
        (tmp_path / "dicom").mkdir()
        assert formats.format_of(tmp_path / "dicom").name == "dicom"

    def test_its_folders_are_scans_of_a_folder(self, world: Path, tmp_path: Path) -> None:
        scan = io.load(world / "0.nii.gz", modality="MR")
        for name in ("a.pile", "b"):
            io.save(scan, tmp_path / name, format="pile")
        kinds = [(found.name, found.format, found.kind) for found in find_scans(tmp_path)]
        assert kinds == [("a.pile", "pile", "folder"), ("b", "pile", "folder")]
        assert count_scans(tmp_path) == "several"
        assert count_scans(tmp_path / "b") == "one"
        assert output_names(find_scans(tmp_path), "nifti") == ["a.nii.gz", "b.nii.gz"]
        assert output_names(find_scans(tmp_path), None) == ["a.pile", "b"]

    def test_a_result_is_such_a_folder(self, world: Path, tmp_path: Path) -> None:
        scan, fine = io.load(world / "0.nii.gz", modality="MR"), tmp_path / "fine.pile"
        coarse = io.save(scan, tmp_path / "coarse.pile")
        call = ["upscale", str(coarse), str(fine), "--modality", "mr", "--model", "mr-z4"]
        assert main([*call, "--quiet"]) == 0
        assert io.load(fine).data.size > scan.data.size
        assert main([*call, "--quiet", "--overwrite"]) == 0  # what is of the format may go
        (tmp_path / "notes.pile").mkdir()
        (tmp_path / "notes.pile" / "diary.txt").write_text("kept")
        with pytest.raises(OutputExistsError):
            io.save(scan, tmp_path / "notes.pile")
        assert (tmp_path / "notes.pile" / "diary.txt").read_text() == "kept"


def test_a_package_that_does_not_load_is_left_out_of_the_catalogue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[medsr.networks]\nBroken = no_such_package:Net\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "Broken" not in {entry.name for entry in NETWORKS.entries()}


def test_a_name_is_given_once() -> None:
    with pytest.raises(ValueError, match="network 'RepPlain3D' is there already"):
        NETWORKS.register("RepPlain3D")(dict)
    assert NETWORKS["RepPlain3D"].__name__ == "RepPlain3D"

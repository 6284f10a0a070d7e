"""The catalogue: methods, networks and degradations, each with one sentence and a recipe that runs.

Terms, networks and degradations say theirs where they register. Ways to distil that are no term
(who teaches, what is trained, how weights move) are listed here. Recipes are files of the
repository and are not installed with the package.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from medsr.degrade import DEGRADATIONS
from medsr.distill.terms import TERMS
from medsr.networks import NETWORKS
from medsr.plugins import Entry

_DISTILL = "configs/distill"
_STUDENTS = "configs/students"
_TEACHERS = "configs/teachers"


Kind = Literal["term", "way", "network", "degradation"]


@dataclass(frozen=True)
class Line:
    """One line of the catalogue.

    Attributes:
        kind: ``term`` (a loss between student and teacher), ``way`` (another way to distil or to
            compress), ``network`` or ``degradation``.
        name: What recipes call it, or its name in words.
        description: One sentence.
        source: Where it comes from.
        recipe: Path in the repository of a recipe that uses it; empty for one of another package.
        command: How it is run; empty likewise.
    """

    kind: Kind
    name: str
    description: str
    source: str
    recipe: str
    command: str


def catalogue() -> list[Line]:
    """Return all terms, other ways, networks and degradations, each kind sorted by name."""
    terms = [_line("term", entry) for entry in TERMS.entries()]
    networks = [_line("network", entry) for entry in NETWORKS.entries()]
    degradations = [_line("degradation", entry) for entry in DEGRADATIONS.entries()]
    return [*terms, *sorted(WAYS, key=lambda way: way.name), *networks, *degradations]


def _line(kind: Kind, entry: Entry[Any]) -> Line:
    command = _command(entry.recipe) if entry.recipe else ""
    if kind == "degradation":
        command = f"medsr degrade INPUT OUTPUT --scale X,Y,Z --kind {entry.name}"
    return Line(kind, entry.name, entry.description, entry.source, entry.recipe, command)


def _command(recipe: str) -> str:
    # Networks of the students and teachers are trained on the truth; all else is distilled.
    trains = recipe.startswith((_STUDENTS, _TEACHERS)) and "friendly" not in recipe
    return f"medsr {'train' if trains else 'distill'} {recipe}"


def _way(name: str, description: str, source: str, recipe: str, command: str | None = None) -> Line:
    path = f"{_DISTILL}/{recipe}.yaml"
    return Line("way", name, description, source, path, command or _command(path))


WAYS: tuple[Line, ...] = (
    _way(
        "adapters",
        "Low-rank additions to the convolutions of a trained model are all that is trained, and "
        "are merged at the end.",
        'Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1.',
        "adapters",
    ),
    _way(
        "adapting to a scanner",
        "Adapters on a shipped model learn from a handful of a hospital's own scans, with a check "
        "on scans kept back.",
        'Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models".',
        "adapters",
        "medsr adapt MODEL --cohort CSV",
    ),
    _way(
        "assistants",
        "Networks of sizes between teacher and student are trained one after the other, and each "
        "teaches the next.",
        'Mirzadeh et al., "Improved knowledge distillation via teacher assistant", AAAI 2020.',
        "assistants",
    ),
    _way(
        "data-free",
        "The teacher's answers about synthetic volumes are all that is learnt from; no scan is "
        "needed.",
        'Billot et al., "SynthSeg", Medical Image Analysis 2023, for learning from volumes that '
        "are random by design.",
        "data-free",
    ),
    _way(
        "fusion",
        "Several terms at once, with weights that are fixed or move while the run goes on, down to "
        "a teacher that falls silent.",
        "Each term's own; a teacher whose part shrinks: Jafari et al., \"Annealing knowledge "
        'distillation", EACL 2021.',
        "fusion",
    ),
    _way(
        "int8",
        "Weights and activations of a trained student or teacher become 8-bit integers, calibrated "
        "on a few scans.",
        'Jacob et al., "Quantization and training of neural networks for efficient '
        'integer-arithmetic-only inference", CVPR 2018, as NNCF and OpenVINO have it.',
        "mr-z4",
        "medsr quantise MODEL OUTPUT --cohort CSV",
    ),
    _way(
        "learned weights",
        "The weights of losses and terms are learned with the network, each by its own "
        "uncertainty.",
        'Kendall, Gal, Cipolla, "Multi-task learning using uncertainty to weigh losses for scene '
        'geometry and semantics", CVPR 2018.',
        "learned-weights",
    ),
    _way(
        "multi-contrast",
        "Teachers of different contrasts are weighted by what each can do on the sample's own.",
        'You et al., "Learning from multiple teacher networks", KDD 2017; weights by domain are '
        "this implementation's choice.",
        "multi-contrast",
    ),
    _way(
        "multi-teacher",
        "Teachers of several modalities speak as one, weighted by their validation errors in the "
        "sample's domain, and one student learns for all.",
        'You et al., "Learning from multiple teacher networks", KDD 2017; weights by domain are '
        "this implementation's choice.",
        "multi-teacher",
    ),
    _way(
        "pruning",
        "The least important channels of a model are taken out, and what is left learns to give "
        "what the whole gave.",
        'Fang et al. 2023, "DepGraph: Towards Any Structural Pruning"; weight norms: Li et al. '
        '2017, "Pruning Filters for Efficient ConvNets".',
        "pruned",
    ),
    _way(
        "self-ensemble",
        "The teacher is asked about flipped and transposed copies, and the mean of its answers is "
        "learnt.",
        'Timofte, Rothe, Van Gool, "Seven ways to improve example-based single image super '
        'resolution", CVPR 2016, section 3.',
        "views",
    ),
    _way(
        "spectral normalisation",
        "The student's kernels are held at a largest spectral norm, which bounds how much a layer "
        "amplifies.",
        'Miyato et al., "Spectral Normalization for Generative Adversarial Networks", ICLR 2018.',
        "spectral-norm",
    ),
    _way(
        "student-friendly teacher",
        "The teacher is trained with branches of the student's shape first, so that a student can "
        "go on from its features.",
        'Park et al., "Learning student-friendly teacher networks for knowledge distillation", '
        "NeurIPS 2021.",
        "friendly",
    ),
)
"""Ways to distil and to compress that are no term of their own."""

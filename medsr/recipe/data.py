"""The parts of a recipe that say what is learnt from: scans or synthetic volumes, degraded how."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic.dataclasses import dataclass

from medsr.recipe.parts import Count, Fraction, NotNegative, PositiveTriple

Modality = Literal["MR", "CT"]
Modalities = Annotated[
    Annotated[Modality, Tag("<one>")]
    | Annotated[tuple[Modality, ...], Field(min_length=1), Tag("<several>")],
    Discriminator(lambda value: "<several>" if isinstance(value, list | tuple) else "<one>"),
]
"""One modality, or several; of several the first is the model's own."""

Range = tuple[NotNegative, NotNegative]

_CONFIG = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=_CONFIG)
class SyntheticRecipe:
    """Volumes made up of shapes, textures and noise; see :mod:`medsr.data.synthetic`.

    Ranges are drawn from for every volume. Intensities are those of the network's range.

    Attributes:
        shapes: Fewest and most shapes in a volume.
        softness: Widths of the shapes' borders in voxels.
        texture: Standard deviations of the texture within shapes.
        slope: Exponents of the texture's power spectrum: power falls as frequency to minus this.
        noise: Standard deviations of white noise.
        air: Share of volumes with air, at 0, between the shapes.

    Examples:
        >>> from medsr.recipe import DataRecipe, SyntheticRecipe
        >>> noisy = SyntheticRecipe(noise=(0.0, 0.05))
        >>> data = DataRecipe(manifest=None, modality="MR", synthetic=noisy)
        >>> data.synthetic.shapes  # fewest and most in a volume
        (4, 16)
    """

    shapes: tuple[Count, Count] = (4, 16)
    softness: Range = (0.3, 2.0)
    texture: Range = (0.0, 0.12)
    slope: Range = (1.5, 4.0)
    noise: Range = (0.0, 0.03)
    air: Fraction = 0.5

    def __post_init__(self) -> None:
        """Check what no single key can show."""
        for name in ("shapes", "softness", "texture", "slope", "noise"):
            low, high = getattr(self, name)
            if high < low:
                raise ValueError(f"{name} is [{low}, {high}]; write the smaller number first")


@dataclass(frozen=True, config=_CONFIG)
class DataRecipe:
    """Which scans are learnt from.

    Attributes:
        manifest: CSV manifest or lock file; a relative path is relative to the working folder. None
            with synthetic volumes, unless there are scans to validate on.
        modality: Scans of this modality are used, or of several. The network's range is that of
            each scan's own modality.
        train_split: Split to learn from.
        validation_split: Split for validation during training; None for none.
        validation_scans: At most so many scans are validated on.
        validation_size: Central crop in high-resolution voxels that is validated on.
        contrasts: Only scans of these contrasts are used, as the manifest spells them; all of the
            modality where empty.
        synthetic: Learn from synthetic volumes and no scan; None to learn from scans.

    Examples:
        >>> from medsr.recipe import DataRecipe
        >>> data = DataRecipe(manifest="cohort.csv", modality=("MR", "CT"), contrasts=("T1w", ""))
        >>> data.modalities[0]  # the model's own
        'MR'
        >>> data.takes("MR", "T1w"), data.takes("MR", "T2w"), data.takes("CT", "")
        (True, False, True)
    """

    manifest: str | None
    modality: Modalities
    train_split: str = "train"
    validation_split: str | None = "dev"
    validation_scans: Count = 4
    validation_size: PositiveTriple = (128, 128, 128)
    contrasts: tuple[str, ...] = ()
    synthetic: SyntheticRecipe | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_scans(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("synthetic") is not None:
            return {"manifest": None} | value
        return value

    def __post_init__(self) -> None:
        """Check what no single key can show."""
        if self.manifest is None and self.synthetic is None:
            raise ValueError("manifest is null; name one, or give synthetic to learn without scans")
        if len(set(self.modalities)) < len(self.modalities):
            raise ValueError("modality names one twice")

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """All modalities that are learnt from; the first is the model's own."""
        return self.modality if isinstance(self.modality, tuple) else (self.modality,)

    def takes(self, modality: str, contrast: str) -> bool:
        """Whether a scan of this modality and contrast is used."""
        return modality in self.modalities and (not self.contrasts or contrast in self.contrasts)


@dataclass(frozen=True, config=_CONFIG)
class SimulationRecipe:
    """A degradation without its factor.

    Attributes:
        kind: Name of the degradation.
        options: The degradation's own arguments.

    Examples:
        >>> from medsr.recipe import DegradationRecipe, SimulationRecipe
        >>> thick = DegradationRecipe(
        ...     "slice_profile", (1, 1, 4), by_modality={"CT": SimulationRecipe("ct_slab")}
        ... )
        >>> thick.by_modality["CT"].kind  # the same factor, another profile
        'ct_slab'
    """

    kind: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, config=_CONFIG)
class DegradationRecipe:
    """How low resolution is simulated; see :mod:`medsr.degrade`.

    Attributes:
        kind: Name of the degradation.
        factor: Factors along (in-plane, in-plane, slice) axis.
        options: The degradation's own arguments.
        by_modality: Other degradations, of the same factor, for scans of some modalities.

    Examples:
        >>> from medsr.degrade import build_degradation
        >>> from medsr.recipe import DegradationRecipe
        >>> thick = DegradationRecipe("slice_profile", (1, 1, 4), {"thickness": [0.8, 1.0]})
        >>> build_degradation(thick.kind, thick.factor, **thick.options).thickness
        (0.8, 1.0)
    """

    kind: str
    factor: PositiveTriple
    options: dict[str, Any] = field(default_factory=dict)
    by_modality: dict[Modality, SimulationRecipe] = field(default_factory=dict)

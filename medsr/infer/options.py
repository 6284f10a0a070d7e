"""``UpscaleOptions``: how scans are upscaled, each option once, for every way into the program.

The Python calls, folders, the exchange with archives, the evaluation and the command line all pass
one object on. It is checked when it is made; devices and models are looked for when they are used.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

from medsr.errors import UsageError
from medsr.infer import choose, prepare
from medsr.io.allow import Allowance, parse_allowances
from medsr.io.dicom.options import DEFAULTS, DicomOptions
from medsr.io.writing import parse_format

if TYPE_CHECKING:
    from medsr.model import SRModel
    from medsr.volume import SourceFormat

__all__ = ["UpscaleOptions"]


class UpscaleKeywords(TypedDict, total=False):
    """The fields of :class:`UpscaleOptions` as keywords of a call."""

    model: str | Path | SRModel
    modality: str
    spacing: str | Sequence[float] | None
    scale: Sequence[float] | None
    device: str
    precision: str
    backend: str
    max_memory: int | str | None
    uncertainty: bool | str | Path | None
    consistency: bool | float
    limits: bool
    allow: Collection[str]
    format: str | None
    dicom: DicomOptions
    overwrite: bool
    zoo_root: Path | None


@dataclass(frozen=True, kw_only=True)
class UpscaleOptions:
    """How scans are upscaled, and how results are written.

    Args:
        model: ``"auto"``, a shipped name, a model folder, or a loaded model.
        modality: ``"auto"``, ``"mr"`` or ``"ct"``.
        spacing: ``"iso"`` brings the slice spacing to the mean in-plane spacing; three numbers are
            mm along the array's own axes; None takes the model's own factor.
        scale: Factors along (in-plane, in-plane, slice), whichever array axis the slices lie
            along (the last, where no axis has clearly thicker voxels); instead of ``spacing``.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        precision: ``"auto"``, ``"fp32"`` or ``"bf16"``.
        backend: What runs the network: ``"torch"``, ``"openvino"``, ``"onnxruntime"``, or
            ``"auto"`` for the fastest that is installed.
        max_memory: Bytes, or text such as ``"4GB"``, that the process should stay below.
        uncertainty: True, or a file to write (of a folder of scans, a folder): the map of the
            standard deviation that the network expects of its error. It asks for a model that says
            one; ``"auto"`` prefers those. None is False.
        consistency: True, or a tolerance in native units (HU for CT): change the result as
            little as possible so that degrading it as in the model's training gives the scan; see
            :mod:`medsr.infer.consistency.project`. True takes 1 HU, or 0.1 % of an MR scan's range.
        limits: Whether the result is held to what the scan supports: an exactly constant
            background stays, nothing lies below the scan's least value or (CT) beyond what
            scanners store, and overshoot is bounded; see :mod:`medsr.infer.limits`. False gives
            the network's answer as it is.
        allow: What may be done to a scan that is refused otherwise, as for :func:`medsr.io.load`;
            and "labels": that it looks like a label image or mask, or is constant.
        format: ``"dicom"``, ``"nifti"``, ``"nrrd"``, ``"mha"`` or ``"mgz"``, whose ending is added
            to an output that has none; its name decides when not given.
        dicom: Series description and number, layout and de-identification of DICOM output.
        overwrite: Replace files that exist.
        zoo_root: Folder of the models to choose from; those shipped when not given.

    Raises:
        UsageError: An option is outside its range, or two contradict each other.
        OutputFormatError: The format is not known.

    Examples:
        >>> import medsr
        >>> quick = medsr.UpscaleOptions(modality="mr", precision="fp32", max_memory="4GB")
        >>> quick.max_memory_bytes == 4 * 2**30
        True
        >>> finer = quick.replace(scale=(1, 1, 2))
        >>> finer.scale, finer.modality
        ((1, 1, 2), 'mr')
        >>> try:
        ...     quick.replace(backend="abacus")
        ... except medsr.MedsrError as error:
        ...     print(error)
        backend 'abacus' is unknown; use auto, torch, openvino, onnxruntime
    """

    model: str | Path | SRModel = "auto"
    modality: str = "auto"
    spacing: str | Sequence[float] | None = "iso"
    scale: Sequence[float] | None = None
    device: str = "auto"
    precision: str = "auto"
    backend: str = "torch"
    max_memory: int | str | None = None
    uncertainty: bool | str | Path | None = False
    consistency: bool | float = False
    limits: bool = True
    allow: Collection[str] = ()
    format: str | None = None
    dicom: DicomOptions = DEFAULTS
    overwrite: bool = False
    zoo_root: Path | None = None

    def __post_init__(self) -> None:
        """Refuse what can be told without a scan."""
        if self.spacing is not None and not isinstance(self.spacing, str):
            if self.scale is not None:
                raise UsageError("both spacing and scale are given; give one of them")
            choose.positive_triple(self.spacing, "spacing")
        if self.scale is not None:
            choose.positive_triple(self.scale, "scale")
        if self.consistency is not False:
            prepare.parse_tolerance(self.consistency)
        parse_allowances(self.allow)
        prepare.parse_bytes(self.max_memory)
        prepare.parse_backend(self.backend)
        prepare.parse_modality(self.modality)
        parse_format(self.format)

    @classmethod
    def of(
        cls, options: UpscaleOptions | None = None, **changes: Unpack[UpscaleKeywords]
    ) -> UpscaleOptions:
        """Return options with some of them changed; the defaults where none are given.

        Raises:
            UsageError: ``options`` are none, or one is outside its range.
        """
        if options is None:
            options = cls()
        elif not isinstance(options, cls):
            raise UsageError(
                f"options is {options!r}; give medsr.UpscaleOptions(…), or keywords such as model="
            )
        return dataclasses.replace(options, **changes) if changes else options

    def replace(self, **changes: Unpack[UpscaleKeywords]) -> UpscaleOptions:
        """Return the same options but for some of them.

        Raises:
            UsageError: One is outside its range, or two contradict each other.
        """
        return dataclasses.replace(self, **changes)

    @property
    def max_memory_bytes(self) -> int | None:
        """Bytes that the process should stay below; None for no limit."""
        return prepare.parse_bytes(self.max_memory)

    @property
    def allowances(self) -> frozenset[Allowance]:
        """The names in ``allow``."""
        return parse_allowances(self.allow)

    @property
    def output_format(self) -> SourceFormat | None:
        """The format of results; None where names decide."""
        return parse_format(self.format)

    @property
    def uncertain(self) -> bool:
        """Whether the map of the expected error is computed."""
        return self.uncertainty is not None and self.uncertainty is not False

    @property
    def uncertainty_path(self) -> Path | None:
        """Where the map of the expected error is written, if anywhere."""
        named = self.uncertainty
        return None if named is None or isinstance(named, bool) else Path(named)

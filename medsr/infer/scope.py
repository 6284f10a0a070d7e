"""Whether a scan shows what a model has seen: the part of the body that either tells of.

Pure rules over what headers and sidecars say; no voxel is looked at. The words are understood in
``medsr.regions``.
"""

from __future__ import annotations

from medsr.io.bids import read_sidecar
from medsr.model import ModelSpec
from medsr.regions import is_elsewhere, region_of
from medsr.volume import Source

_SIDECAR = ("BodyPart", "BodyPartExamined")


def body_part(source: Source | None) -> str:
    """Return what a scan's header or sidecar says that it shows, in its own words; may be empty.

    It is for the rules of ``medsr.regions`` only: what somebody wrote there is never repeated.

    Args:
        source: Where the scan came from.
    """
    if source is None:
        return ""
    if source.format == "dicom":
        return str(getattr(source.header, "body_part", ""))
    told = (read_sidecar(source.path) if source.path is not None else None) or {}
    return next((text for key in _SIDECAR if isinstance(text := told.get(key), str)), "")


def beyond(spec: ModelSpec, source: Source | None) -> list[str]:
    """Say where a scan shows another part of the body than the model's training scans.

    Args:
        spec: The model.
        source: Where the scan came from.

    Returns:
        A sentence without a full stop; empty where the scan shows what was seen, or either does
        not tell.
    """
    part = body_part(source)
    if not is_elsewhere(part, spec.trained_regions):
        return []
    return [
        f"the scan says that it shows the {region_of(part)}, which was not among the training "
        f"scans of {spec.name} ({spec.seen}); look at the result with care"
    ]

"""Parts of the body: what a scan says that it shows, in words that models and cohorts have too.

DICOM has BodyPartExamined, BIDS a field BodyPart, cohorts a column ``region``; all are free or half
free text. Only words of the table below are understood, and only those are ever repeated, so that
nothing that somebody wrote into a header gets into a report. What is not understood is unknown.

Source: DICOM PS3.16 Annex L (body part terms); BIDS 1.10, "Anatomical and hardware information".
"""

from __future__ import annotations

from collections.abc import Iterable

UNKNOWN = "unknown"

# A word -> the regions that a scan of it shows, the one that it is called by first.
_TERMS: dict[str, tuple[str, ...]] = {
    "brain": ("brain", "head"),
    "head": ("head", "brain"),
    "skull": ("head", "brain"),
    "headneck": ("head", "brain", "neck"),
    "neck": ("neck",),
    "spine": ("spine",),
    "cspine": ("spine", "neck"),
    "cervicalspine": ("spine", "neck"),
    "tspine": ("spine",),
    "thoracicspine": ("spine",),
    "lspine": ("spine",),
    "lumbarspine": ("spine",),
    "chest": ("chest",),
    "thorax": ("chest",),
    "lung": ("chest",),
    "lungs": ("chest",),
    "heart": ("heart", "chest"),
    "cardiac": ("heart", "chest"),
    "breast": ("breast",),
    "abdomen": ("abdomen",),
    "liver": ("abdomen",),
    "kidney": ("abdomen",),
    "pancreas": ("abdomen",),
    "pelvis": ("pelvis",),
    "abdomenpelvis": ("abdomen", "pelvis"),
    "chestabdomen": ("chest", "abdomen"),
    "chestabdpelvis": ("chest", "abdomen", "pelvis"),
    "chestabdomenpelvis": ("chest", "abdomen", "pelvis"),
    "prostate": ("prostate", "pelvis"),
    "uterus": ("pelvis",),
    "bladder": ("pelvis",),
    "hip": ("hip",),
    "knee": ("knee",),
    "ankle": ("ankle",),
    "foot": ("foot",),
    "leg": ("leg",),
    "shoulder": ("shoulder",),
    "elbow": ("elbow",),
    "wrist": ("wrist",),
    "hand": ("hand",),
    "arm": ("arm",),
}


def region_of(text: object) -> str:
    """Return the region that a word means, or ``unknown``.

    >>> region_of("C-SPINE"), region_of("Brain "), region_of("Jane Doe")
    ('spine', 'brain', 'unknown')
    """
    shown = _shown(text)
    return shown[0] if shown else UNKNOWN


def is_elsewhere(text: object, regions: Iterable[str]) -> bool:
    """Whether what a word means is certainly none of the regions.

    Args:
        text: What a scan says of itself.
        regions: Those that a model has seen; words that are not understood may mean anything.
    """
    shown, seen = _shown(text), [_shown(region) for region in regions]
    return bool(shown and seen and all(seen)) and not set(shown) & {r for s in seen for r in s}


def _shown(text: object) -> tuple[str, ...]:
    word = "".join(letter for letter in str(text or "").lower() if letter.isalpha())
    return _TERMS.get(word, ())

"""UIDs of a derived series and its instances: random ones, or those that follow from a request.

Only identifiers are made here; which objects carry them is decided in ``dicom.write.series``.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from pydicom.uid import UID

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_OID, "medsr derived series")


@dataclass(frozen=True)
class DerivedUids:
    """The identifiers of one derived series.

    Args:
        root: all of them follow from it: equal roots, equal identifiers.

    Source: DICOM PS3.5 B.2 (UIDs derived from a UUID), RFC 9562 5.5 (UUIDs derived from a name).
    """

    root: uuid.UUID

    @classmethod
    def of(cls, request: str | None) -> DerivedUids:
        """The identifiers of the answer to a request; new ones at every call where it is None.

        Example:
            >>> DerivedUids.of("a").series == DerivedUids.of("a").series
            True
            >>> DerivedUids.of(None).series == DerivedUids.of(None).series
            False
        """
        return cls(uuid.uuid4() if request is None else uuid.uuid5(_NAMESPACE, request))

    @property
    def series(self) -> UID:
        """SeriesInstanceUID."""
        return self._uid("series")

    def instance(self, number: int) -> UID:
        """SOPInstanceUID of the image with this InstanceNumber."""
        return self._uid(f"instance {number}")

    def _uid(self, name: str) -> UID:
        return UID(f"2.25.{uuid.uuid5(self.root, name).int}")

"""medsr's own reading inside MONAI's ``LoadImage``: same code, same grid, same refusals.

The only module of ``medsr.io`` that imports MONAI; nothing else in the package's reading needs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from monai.config.type_definitions import PathLike
from monai.data.image_reader import ImageReader
from monai.utils.enums import MetaKeys, SpaceKeys

from medsr.errors import GeometryError, InputError
from medsr.io.formats import format_of
from medsr.io.reading import load


class MedsrReader(ImageReader):
    """A MONAI image reader that loads through :func:`medsr.io.load`.

    Use it as ``LoadImaged(keys, reader=MedsrReader())``. Arrays are (X, Y, Z) as stored, in native
    units; ``meta["affine"]`` maps voxel centres to RAS+ mm. Several files are stacked as channels.

    Args:
        modality: as for :func:`medsr.io.load`.
        series: as for :func:`medsr.io.load`.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from monai.transforms import LoadImage
        >>> import medsr
        >>> from medsr.io.monai_reader import MedsrReader
        >>> data = np.ones((16, 16, 6), dtype=np.float32)
        >>> grid = medsr.Geometry(data.shape, np.diag([0.9, 0.9, 5.0, 1.0]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = medsr.save(medsr.Volume(data, grid, "MR"), Path(folder, "brain.nii.gz"))
        ...     image = LoadImage(reader=MedsrReader(modality="MR"))(file)
        >>> tuple(image.shape), [round(step, 3) for step in image.pixdim.tolist()]
        ((16, 16, 6), [0.9, 0.9, 5.0])
    """

    def __init__(
        self, modality: Literal["auto", "MR", "CT"] = "auto", series: str | None = None
    ) -> None:
        super().__init__()
        self.modality: Literal["auto", "MR", "CT"] = modality
        self.series = series

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Whether medsr reads the format of every file named."""
        try:
            for path in _paths(filename):
                format_of(path)
        except InputError:
            return False
        return True

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> tuple[Path, ...]:
        """Take the names of one file or several; :meth:`get_data` reads them.

        ``LoadImage`` answers any exception of this method by trying MONAI's other readers, which
        would load what medsr has refused. What ``get_data`` raises reaches the caller.
        """
        return _paths(data)

    def get_data(self, img: Sequence[Path]) -> tuple[npt.NDArray[Any], dict[str, Any]]:
        """Load the files and hand over the array and MONAI's metadata.

        Returns:
            One (X, Y, Z) array with ``original_channel_dim`` "no_channel", or (C, X, Y, Z) with 0
            for several files.

        Raises:
            InputError: as :func:`medsr.io.load` does.
            GeometryError: if several files do not share one grid.
        """
        volumes = [load(path, modality=self.modality, series=self.series) for path in img]
        first = volumes[0]
        if not all(first.geometry.same_grid(other.geometry) for other in volumes[1:]):
            raise GeometryError(
                f"{len(volumes)} files to be stacked as channels do not share one grid"
            )
        affine = first.geometry.affine.copy()
        several = len(volumes) > 1
        meta: dict[str, Any] = {
            MetaKeys.AFFINE: affine,
            MetaKeys.ORIGINAL_AFFINE: affine.copy(),
            MetaKeys.SPATIAL_SHAPE: np.asarray(first.shape),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.ORIGINAL_CHANNEL_DIM: 0 if several else "no_channel",
            "spacing": np.asarray(first.spacing),
            "modality": first.modality,
            "units": first.units,
        }
        data = np.stack([volume.data for volume in volumes]) if several else first.data
        return data, meta


def _paths(names: Sequence[PathLike] | PathLike) -> tuple[Path, ...]:
    """One path or several, as a tuple."""
    if isinstance(names, (str, Path)):
        return (Path(names),)
    if isinstance(names, Sequence):
        return tuple(Path(str(name)) for name in names)
    return (Path(str(names)),)

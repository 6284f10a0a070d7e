"""Upscale a NumPy array: for pipelines that hold voxels and an affine, and no file.

python examples/upscale_array.py brain.nii.gz
"""

from __future__ import annotations

import sys

import nibabel as nib
import numpy as np

import medsr


def sharpen(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the upscaled array and its affine; the slice axis may be any of the three."""
    result = medsr.upscale(array, modality="mr", affine=affine)
    return result.volume.data, result.volume.geometry.affine


def main(scan: str) -> None:
    """Load with nibabel, upscale in memory, and compare the grids."""
    image = nib.load(scan)
    array, affine = sharpen(image.get_fdata(dtype=np.float32), image.affine)
    before, after = nib.affines.voxel_sizes(image.affine), nib.affines.voxel_sizes(affine)
    print(image.shape, before.round(3), "mm ->", array.shape, after.round(3), "mm")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])

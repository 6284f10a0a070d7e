"""medsr inside a MONAI pipeline: its reader under LoadImaged, its inferer around a network.

python examples/monai_pipeline.py brain.nii.gz
"""

from __future__ import annotations

import sys

import torch
from monai.data import Dataset, MetaTensor
from monai.data.dataloader import DataLoader
from monai.transforms import Compose, EnsureChannelFirstd, EnsureTyped, LoadImaged

import medsr
from medsr.io.monai_reader import MedsrReader


def main(scan: str) -> None:
    """Load with MONAI through medsr's reader, run a shipped network, print both grids."""
    load = Compose(
        [
            LoadImaged(keys="image", reader=MedsrReader()),
            EnsureChannelFirstd(keys="image"),
            EnsureTyped(keys="image", dtype=torch.float32),
        ]
    )
    model = medsr.SRModel.load("mr-z4")
    infer = medsr.TiledInferer()
    for batch in DataLoader(Dataset([{"image": scan}], load), batch_size=1):
        image: MetaTensor = batch["image"]
        normaliser = model.spec.intensity.fit(image.numpy())
        sr = normaliser.inverse(infer(normaliser.forward(image), model.module))
        print(tuple(image.shape[2:]), image.pixdim, "->", tuple(sr.shape[2:]), sr.pixdim)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])

"""Train a tiny student from Python on a manifest of sharp MR scans: the same as a YAML recipe.

python examples/train_tiny.py manifest.csv runs/tiny
"""

from __future__ import annotations

import sys

import medsr
from medsr.recipe import recipe_from_dict
from medsr.train import run


def main(manifest: str, folder: str, steps: int = 20) -> None:
    """Train for a few steps and load the model that comes out."""
    recipe = recipe_from_dict(
        {
            "name": "tiny",
            "data": {"manifest": manifest, "modality": "MR", "validation_split": None},
            "degradation": {"kind": "slice_profile", "factor": [1, 1, 4]},
            "network": {"name": "RepPlain3D", "options": {"width": 16, "depth": 2}},
            "losses": [{"name": "charbonnier"}],
            "patches": {"size": [6, 6, 2], "batch": 2},
            "optimiser": {"warmup_steps": 2, "ema_decay": 0.9},
            "loop": {"steps": steps, "log_every": 5, "checkpoint_every": 10},
        }
    )
    model = medsr.SRModel.load(run(recipe, out=folder, device="cpu", quiet=True))
    print(model.spec.name, model.spec.parameters, "parameters, scale", model.spec.scale)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])

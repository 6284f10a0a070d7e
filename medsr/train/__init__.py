"""Training and distillation: one loop on Lightning Fabric, driven by a recipe.

``run`` is the whole of it; see :mod:`medsr.train.loop`.
"""

from __future__ import annotations

from medsr.train.loop import fit, run

__all__ = ["fit", "run"]

"""medsr: super-resolution of CT and MR volumes.

The public names, imported when they are first used: ``import medsr`` itself loads nothing heavy.

>>> import medsr
>>> medsr.Geometry.__name__
'Geometry'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medsr.errors import MedsrError
    from medsr.geometry import Geometry
    from medsr.infer.folder import FolderSummary, upscale_folder
    from medsr.infer.monai_inferer import TiledInferer
    from medsr.infer.options import UpscaleOptions
    from medsr.infer.upscale import UpscaleResult, upscale
    from medsr.io import Inspection, inspect, load, save
    from medsr.model import ModelSpec, SRModel
    from medsr.recipe import Recipe, read_recipe
    from medsr.volume import Volume

from medsr._aliases import install
from medsr._version import __version__

__all__ = [
    "upscale",
    "UpscaleOptions",
    "UpscaleResult",
    "upscale_folder",
    "FolderSummary",
    "load",
    "save",
    "inspect",
    "Inspection",
    "Geometry",
    "Volume",
    "SRModel",
    "ModelSpec",
    "TiledInferer",
    "Recipe",
    "read_recipe",
    "MedsrError",
    "__version__",
]

_HOMES = {
    "upscale": "medsr.infer.upscale",
    "UpscaleOptions": "medsr.infer.options",
    "UpscaleResult": "medsr.infer.upscale",
    "upscale_folder": "medsr.infer.folder",
    "FolderSummary": "medsr.infer.folder",
    "load": "medsr.io",
    "save": "medsr.io",
    "inspect": "medsr.io",
    "Inspection": "medsr.io",
    "Geometry": "medsr.geometry",
    "Volume": "medsr.volume",
    "SRModel": "medsr.model",
    "ModelSpec": "medsr.model",
    "TiledInferer": "medsr.infer.monai_inferer",
    "Recipe": "medsr.recipe",
    "read_recipe": "medsr.recipe",
    "MedsrError": "medsr.errors",
}

install()


def __getattr__(name: str) -> Any:
    """Import a public name from its home on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, whether imported yet or not."""
    return sorted({*globals(), *__all__})

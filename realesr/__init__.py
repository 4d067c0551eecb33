"""Enlarge real photos with Real-ESRGAN networks."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "ComparedNetwork",
    "Comparison",
    "FileOptions",
    "ImageOptions",
    "NetworkOptions",
    "TargetSize",
    "UpscaleResult",
    "Upscaler",
    "__version__",
    "compare",
    "errors",
    "upscale",
]

_MODULES = {
    "ComparedNetwork": "realesr.comparing",
    "Comparison": "realesr.comparing",
    "FileOptions": "realesr.options",
    "ImageOptions": "realesr.options",
    "NetworkOptions": "realesr.options",
    "TargetSize": "realesr.target_size",
    "UpscaleResult": "realesr.runtime.file_job",
    "Upscaler": "realesr.api",
    "compare": "realesr.comparing",
    "errors": "realesr.errors",
    "upscale": "realesr.api",
}

if TYPE_CHECKING:
    from realesr import errors
    from realesr.api import Upscaler, upscale
    from realesr.comparing import ComparedNetwork, Comparison, compare
    from realesr.options import FileOptions, ImageOptions, NetworkOptions
    from realesr.runtime.file_job import UpscaleResult
    from realesr.target_size import TargetSize


def __getattr__(name: str) -> Any:
    """Import the public names when they are first used, so that `realesr --help` loads nothing heavy."""
    if name not in _MODULES:
        raise AttributeError(f"module 'realesr' has no attribute {name!r}")
    from importlib import import_module

    module = import_module(_MODULES[name])
    return module if name == "errors" else getattr(module, name)

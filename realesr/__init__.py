"""Enlarge real photos with Real-ESRGAN networks."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "FileOptions",
    "ImageOptions",
    "NetworkOptions",
    "UpscaleResult",
    "Upscaler",
    "__version__",
    "errors",
    "upscale",
]

_MODULES = {
    "FileOptions": "realesr.options",
    "ImageOptions": "realesr.options",
    "NetworkOptions": "realesr.options",
    "UpscaleResult": "realesr.runtime.file_job",
    "Upscaler": "realesr.api",
    "errors": "realesr.errors",
    "upscale": "realesr.api",
}

if TYPE_CHECKING:
    from realesr import errors
    from realesr.api import Upscaler, upscale
    from realesr.options import FileOptions, ImageOptions, NetworkOptions
    from realesr.runtime.file_job import UpscaleResult


def __getattr__(name: str) -> Any:
    """Import the public names when they are first used, so that `realesr --help` loads nothing heavy."""
    if name not in _MODULES:
        raise AttributeError(f"module 'realesr' has no attribute {name!r}")
    from importlib import import_module

    module = import_module(_MODULES[name])
    return module if name == "errors" else getattr(module, name)

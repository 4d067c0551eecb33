"""Checks for `realesr doctor` which file formats can be written and read."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from realesr.errors import MissingDependency, RealesrError
from realesr.images.info import OutputFormat
from realesr.images.output_format import SUFFIXES, suffix_for

from .selftest import WORKS

READ_ONLY = {"gif": ".gif", "bmp": ".bmp", "ppm": ".ppm", "heic": ".heic"}
"""Format that is read and never written -> its suffix."""


def attempt(step: Callable[[], None]) -> str:
    """Run a step; return "works", or why it does not. A broken driver or codec may raise anything."""
    try:
        step()
    except Exception as problem:
        kind = "" if isinstance(problem, RealesrError) else f"{type(problem).__name__}: "
        return kind + " ".join(str(problem).split())
    return WORKS


def checked_formats() -> dict[str, dict[str, str]]:
    """Write and read a tiny image in each format; return "works", or why not, of both steps by format."""
    results: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in dict.fromkeys(SUFFIXES.values()):
            path = Path(folder) / f"check{suffix_for(name, Path())}"
            results[name] = {
                "write": attempt(partial(write_tiny_image, path, name)),
                "read": attempt(partial(read, path)),
            }
        for kind, suffix in READ_ONLY.items():
            path = Path(folder) / f"check{suffix}"
            written = attempt(partial(write_with_pillow, path))
            results[kind] = {"read": attempt(partial(read, path)) if written == WORKS else written}
    return results


def write_tiny_image(path: Path, name: OutputFormat) -> None:
    """Write 8 x 8 grey pixels as `realesr upscale` writes files."""
    import numpy as np

    from realesr.images.info import ImageInfo
    from realesr.images.writer import open_writer

    info = ImageInfo(width_px=8, height_px=8, bits=8, is_grey=False, has_alpha=False, format=name)
    with open_writer(path, info, name) as writer:
        writer.write_rows(np.full((8, 8, 3), 128, np.uint8))


def write_with_pillow(path: Path) -> None:
    """Write a black image in a format that realesr itself does not write.

    Raises:
        MissingDependency: the format is HEIC, and pillow-heif is not installed.
    """
    from PIL import Image

    if path.suffix == READ_ONLY["heic"]:
        try:
            import pillow_heif
        except ModuleNotFoundError:
            raise MissingDependency("needs a package: pip install pillow-heif") from None
        pillow_heif.register_heif_opener()
    Image.new("RGB", (64, 64)).save(path)


def read(path: Path) -> None:
    """Read an image's first rows."""
    from realesr.images.reader import open_image

    with open_image(path) as reader:
        reader.read_rows(8)

"""Trials for `realesr doctor`: is a file format written and read?"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from realesr.errors import MissingDependency, RealesrError
from realesr.image_info import OutputFormat
from realesr.output_format import SUFFIXES, suffix_for

from .selftest import WORKS

READ_ONLY = {"gif": ".gif", "bmp": ".bmp", "ppm": ".ppm", "heic": ".heic"}
"""Formats that are read and never written, each with its suffix."""


def attempt(step: Callable[[], None]) -> str:
    """What came of a step: "works", or why not. A broken driver or codec may raise anything."""
    try:
        step()
    except Exception as problem:
        kind = "" if isinstance(problem, RealesrError) else f"{type(problem).__name__}: "
        return kind + " ".join(str(problem).split())
    return WORKS


def checked_formats() -> dict[str, dict[str, str]]:
    """For each file format what came of writing and of reading a tiny image."""
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
            made = attempt(partial(make_with_pillow, path))
            results[kind] = {"read": attempt(partial(read, path)) if made == WORKS else made}
    return results


def write_tiny_image(path: Path, name: OutputFormat) -> None:
    """Write 8 x 8 grey pixels as `realesr upscale` writes files."""
    import numpy as np

    from realesr.image_info import ImageInfo
    from realesr.image_writer import open_writer

    info = ImageInfo(width_px=8, height_px=8, bits=8, is_grey=False, has_alpha=False, format=name)
    with open_writer(path, info, name) as writer:
        writer.write_rows(np.full((8, 8, 3), 128, np.uint8))


def make_with_pillow(path: Path) -> None:
    """Write a black image in a format that realesr itself does not write.

    Raises:
        MissingDependency: HEIC without its package.
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
    from realesr.image_reader import open_image

    with open_image(path) as reader:
        reader.read_rows(8)

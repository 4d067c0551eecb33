"""Tells whether a file holds more than one image: pages of a document, frames of an animation."""

from pathlib import Path

from realesr.errors import InputError
from realesr.images.formats.png_chunks import read_png_chunks
from realesr.images.kinds import ImageKind
from realesr.images.reader import open_image

_BRANDS_BYTES = 64
"""Of an AVIF file's beginning, in which its brands are."""


def holds_several_images(path: Path, kind: ImageKind) -> bool:
    """Return whether a file holds more than the one image that is read from it. Parts of a JPEG do not count.

    Args:
        path: path of the file.
        kind: the kind of image that it holds.

    Raises:
        InputError: the file cannot be read, or has a second image that cannot.
    """
    if kind == "jpeg":
        return False
    if kind == "png":  # source: PNG specification, 11.3.6.1 (acTL)
        return int.from_bytes(read_png_chunks(path).found.get(b"acTL", b"")[:4], "big") > 1
    if kind == "avif" and _is_sequence(path):
        return True
    return _has_second_page(path)


def _is_sequence(path: Path) -> bool:
    """Return whether a file is an AVIF image sequence. Source: AVIF specification, 6.2 (the brand avis)."""
    with path.open("rb") as file:
        head = file.read(_BRANDS_BYTES)
    return b"avis" in head[: int.from_bytes(head[:4], "big")]


def _has_second_page(path: Path) -> bool:
    """Return whether a file has a page 1; raise InputError where that cannot be told."""
    try:
        with open_image(path, page=1):
            return True
    except InputError as error:
        if "has no page 1" not in str(error):
            raise
        return False

"""Corrects an EXIF block for an image of another size in another file: what became false is set right or taken out.

Sizes, the place of the subject and the resolution of the focal plane are set to the new image's. Taken out are the
thumbnail, fields about how the old pixels were stored, places on the Earth, and descriptions that programs wrote about
the structure of their file. Everything else stays, byte for byte and at its place.

Source of the tags: CIPA DC-008 (Exif 3.0), 4.6; GeoTIFF 1.1, 7.
"""

from fractions import Fraction

from realesr.images.metadata.exif import (
    FOCAL_PLANE_X,
    FOCAL_PLANE_Y,
    PIXEL_HEIGHT,
    PIXEL_WIDTH,
    SUBJECT_AREA,
    SUBJECT_LOCATION,
)
from realesr.images.metadata.exif_block import EXIF_POINTER, FIRST, INTEROP_POINTER, ExifBlock
from realesr.images.metadata.storage_tags import (
    GEO_TAGS,
    IMAGE_DESCRIPTION,
    IMAGE_LENGTH,
    IMAGE_WIDTH,
    is_false_in_block,
)
from realesr.images.metadata.structure_text import describes_structure
from realesr.images.metadata.tiff_fields import SHORT, Entry

Size = tuple[int, int]
"""Width and height in px."""

_RELATED_WIDTH, _RELATED_HEIGHT = 0x1001, 0x1002
_SIZES = (
    (FIRST, IMAGE_WIDTH, IMAGE_LENGTH),
    (EXIF_POINTER, PIXEL_WIDTH, PIXEL_HEIGHT),
    (INTEROP_POINTER, _RELATED_WIDTH, _RELATED_HEIGHT),
)
_MOST_DESCRIPTION_BYTES = 2**24


def exif_enlarged(exif: bytes, old: Size, new: Size) -> tuple[bytes | None, tuple[str, ...]]:
    """Return the block of an image that went from one size to another, and notices of what was taken out.

    The block is None where it is damaged.
    """
    try:
        block = ExifBlock(exif.removeprefix(b"Exif\0\0"))
    except ValueError:
        return None, ("the EXIF block is damaged and was left out",)
    notices = []
    block.remove_missing()
    if _remove_description(block, old):
        notices.append("the image description says how the old file was stored and was left out")
    if _has_any(block, GEO_TAGS):
        notices.append("the GeoTIFF fields place the old pixels on the Earth and were left out")
    block.remove(FIRST, lambda entry: is_false_in_block(entry) or entry.tag in GEO_TAGS)
    block.remove_thumbnails()
    for directory, *tags in _SIZES:
        for tag, pixels in zip(tags, new, strict=True):
            if (entry := block.find(directory, tag)) is not None:
                block.set_integer(entry, pixels)
    for tag in (SUBJECT_AREA, SUBJECT_LOCATION):
        _scale_subject(block, tag, old, new)
    for axis, tag in enumerate((FOCAL_PLANE_X, FOCAL_PLANE_Y)):
        _scale_ratio(block, tag, Fraction(new[axis], old[axis]))
    return block.finished(), tuple(notices)


def _has_any(block: ExifBlock, tags: frozenset[int]) -> bool:
    return any(entry.tag in tags for entry in block.directories[FIRST].entries)


def _remove_description(block: ExifBlock, old: Size) -> bool:
    """Take the image description out where it says how a file was stored, and return whether it did."""

    def is_structure(entry: Entry) -> bool:
        return entry.tag == IMAGE_DESCRIPTION and describes_structure(block.value(entry, _MOST_DESCRIPTION_BYTES), old)

    first = block.find(FIRST, IMAGE_DESCRIPTION)
    if first is None or not is_structure(first):
        return False
    block.remove(FIRST, lambda entry: entry.tag == IMAGE_DESCRIPTION)
    return True


def _scale_subject(block: ExifBlock, tag: int, old: Size, new: Size) -> None:
    """Scale the subject's place: x and y, then nothing, a diameter, or width and height.

    It is taken out where its type, which holds 65,535 px at most, is too small.
    """
    entry = block.find(EXIF_POINTER, tag)
    if entry is None:
        return
    values = block.integers(entry)
    factors = [Fraction(new[axis % 2], old[axis % 2]) for axis in range(len(values))]
    scaled = [round(value * factor) for value, factor in zip(values, factors, strict=True)]
    most = 2**16 if entry.kind == SHORT else 2**32
    if len(values) in (2, 3, 4) and max(scaled) < most:
        block.overwrite(entry, scaled)
    else:
        block.remove(EXIF_POINTER, lambda entry: entry.tag == tag)


def _scale_ratio(block: ExifBlock, tag: int, factor: Fraction) -> None:
    """Multiply a ratio of the Exif directory: pixels on the focal plane are smaller in the new image."""
    entry = block.find(EXIF_POINTER, tag)
    values = block.ratios(entry) if entry else []
    if entry is None or len(values) != 2 or not all(values):
        return
    above, below = values[0] * factor.numerator, values[1] * factor.denominator
    if max(above, below) >= 2**32:
        ratio = Fraction(above, below)
        ratio = ratio.limit_denominator(
            max(1, (2**32 - 1) * ratio.denominator // max(ratio.numerator, ratio.denominator))
        )
        above, below = ratio.numerator, ratio.denominator
    if 0 < above < 2**32:
        block.overwrite(entry, (above, below))

"""Reads a region of a photo, with pixels around it for networks to see."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from realesr.errors import UsageError
from realesr.images.info import ImageInfo
from realesr.images.reader import open_with
from realesr.options import FileOptions

MAX_REGION_PX = 1024
"""Longest side of a region."""


class Region(NamedTuple):
    """A rectangle of an image, in pixels from its upper left corner."""

    left_px: int
    top_px: int
    width_px: int
    height_px: int

    def widened(self, margin_px: int, limits: "Region") -> "Region":
        """Return the region with a margin on each side, as far as `limits` reaches."""
        left = max(limits.left_px, self.left_px - margin_px)
        top = max(limits.top_px, self.top_px - margin_px)
        right = min(limits.left_px + limits.width_px, self.left_px + self.width_px + margin_px)
        bottom = min(limits.top_px + limits.height_px, self.top_px + self.height_px + margin_px)
        return Region(left, top, right - left, bottom - top)


@dataclass(frozen=True, kw_only=True, eq=False)
class Crop:
    """A region's pixels with those around it, as a network gets them."""

    pixels: NDArray[np.uint8] | NDArray[np.uint16]
    """(height, width, channels), full range of the type."""
    place: Region
    """Place of `pixels` in the photo."""
    region: Region
    info: ImageInfo
    """Facts about the whole photo."""
    notices: tuple[str, ...]
    """Notices of the reader, one line each."""

    @property
    def has_holes(self) -> bool:
        """Return whether anything in it is transparent."""
        return self.info.has_alpha and bool(self.pixels[:, :, -1].min() < np.iinfo(self.pixels.dtype).max)


def read_crop(source: Path, region: Region, context_px: int, file: FileOptions) -> Crop:
    """Read a region of a photo with `context_px` around it, as far as the photo reaches.

    Raises:
        InputError: the photo cannot be read.
    """
    with open_with(source, file) as reader:
        place = region.widened(context_px, Region(0, 0, reader.info.width_px, reader.info.height_px))
        pixels = reader.read_area(*place)
        return Crop(pixels=pixels, place=place, region=region, info=reader.info, notices=reader.notices)


def part_of(pixels: NDArray[Any], place: Region, part: Region, scale: int = 1) -> NDArray[Any]:
    """Return the pixels of `part` of those of `place`, both enlarged `scale` times."""
    left, top = (part.left_px - place.left_px) * scale, (part.top_px - place.top_px) * scale
    return pixels[top : top + part.height_px * scale, left : left + part.width_px * scale]


def checked_region(region: tuple[int, int, int, int], source: Path, info: ImageInfo) -> Region:
    """Return a region that lies within a photo.

    Args:
        region: left, top, width and height, in px of the upright photo.
        source: the photo, for the message.
        info: facts about it.

    Raises:
        UsageError: the region is not four whole numbers, has no pixels or too many, or reaches out of the photo.
    """
    if len(region) != 4 or not all(isinstance(number, int | np.integer) for number in region):
        raise UsageError(f"got the region {region}, expected four whole numbers: left, top, width, height")
    left, top, width, height = (int(number) for number in region)
    asked = f"got the region {left},{top},{width},{height}"
    if not (1 <= width <= MAX_REGION_PX and 1 <= height <= MAX_REGION_PX):
        raise UsageError(f"{asked}, expected a width and a height of 1 to {MAX_REGION_PX:,} px", option="region")
    if left < 0 or top < 0 or left + width > info.width_px or top + height > info.height_px:
        raise UsageError(
            f"{asked}, which is not within {source} of {info.width_px} x {info.height_px} px", option="region"
        )
    return Region(left, top, width, height)

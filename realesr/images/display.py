"""Converts pixels to what a screen shows: sRGB of 8 bit, what is transparent over a checkerboard."""

import numpy as np
from numpy.typing import NDArray

from realesr.images.colour import is_srgb
from realesr.images.colour_conversion import to_srgb
from realesr.images.decoded import image_from_array
from realesr.images.depth import rounded_to_8_bit
from realesr.images.info import ImageInfo
from realesr.images.libvips import own_messages

DARK, LIGHT = 204, 255
"""Levels of the checkerboard, as image editors mostly have it."""


def displayed(pixels: NDArray[np.uint8] | NDArray[np.uint16], info: ImageInfo, *, square_px: int) -> NDArray[np.uint8]:
    """Return pixels as a screen shows them.

    Args:
        pixels: (H, W, channels), full range of the type, as a reader or a network returns them.
        info: what the samples mean: depth, greyness, alpha and profile. Its size is not used.
        square_px: side of the squares of the checkerboard.

    Returns:
        (H, W, 3) uint8, sRGB.
    """
    channels = info.channels - info.has_alpha
    colour = pixels[:, :, :channels]
    if info.icc is not None and not is_srgb(info.icc):
        with own_messages():
            image = to_srgb(image_from_array(colour), "grey" if info.is_grey else "rgb", info.icc, info.bits)
            colour = np.asarray(image.numpy()).reshape(colour.shape)
    rgb = np.broadcast_to(rounded_to_8_bit(colour), (*colour.shape[:2], 3))
    return _over_checkerboard(rgb, rounded_to_8_bit(pixels[:, :, -1:]), square_px) if info.has_alpha else np.array(rgb)


def _over_checkerboard(rgb: NDArray[np.uint8], alpha: NDArray[np.uint8], square_px: int) -> NDArray[np.uint8]:
    """Return colour (H, W, 3) with straight alpha (H, W, 1) over a checkerboard."""
    rows, columns = np.ogrid[: rgb.shape[0], : rgb.shape[1]]
    is_light = (rows // square_px + columns // square_px) % 2 == 0
    board = np.where(is_light, LIGHT, DARK)[:, :, None]
    share = alpha / np.float32(255)
    return np.rint(rgb * share + board * (1 - share)).astype(np.uint8)

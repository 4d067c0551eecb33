"""Reduces the depth of samples."""

import numpy as np
from numpy.typing import NDArray


def rounded_to_8_bit(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Return samples of 16 bits rounded to the nearest of 8, 65535 as 255; those of 8 bits as they are.

    Args:
        pixels: of any shape, full range of the type.
    """
    if pixels.dtype == np.uint8:
        return pixels.astype(np.uint8, copy=False)
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)

"""Reads crops of images: only the rows down to the crop are decoded, and only the crop is converted."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realesr.errors import InputError
from realesr.images.colour_conversion import in_network_colours
from realesr.images.decoding import decode
from realesr.images.kinds import find_kind
from realesr.images.libvips import pyvips, vips_message
from realesr.images.reader import MAX_PIXELS

Pixels = NDArray[Any]
"""(3, H, W) RGB: uint8, or float32 in [0, 1] where the file has 16 bits."""


@dataclass(frozen=True, eq=False)
class Crop:
    """A crop, upright and in the network's colours; transparency is left out, grey is in all three channels."""

    pixels: Pixels
    padded: bool
    """Whether the image was smaller, and was mirrored at its bottom and right."""


def read_crop(path: Path, crop_px: int, *, seed: int, flip: bool = False, rotate: bool = False) -> Crop:
    """Read a square of an image at a place that the seed chooses.

    Args:
        path: of the image.
        crop_px: side of the square.
        seed: decides place and flips, and nothing else does.
        flip: mirror half of the crops.
        rotate: turn half of them upside down, and swap the axes of half.

    Raises:
        InputError: the file is missing or damaged.
    """
    dice = np.random.default_rng(seed)
    image, bits = _open(path)
    top, left = _place(dice, image, crop_px)
    pixels = _fetch(path, image, bits, top, left, crop_px, crop_px)
    padded = reflect_padded(pixels, crop_px)
    flips = _Flips(dice, flip, rotate)
    return Crop(flips(padded), padded is not pixels)


def read_crop_pair(
    hr_path: Path, lr_path: Path, crop_px: int, *, scale: int, seed: int, flip: bool = False, rotate: bool = False
) -> tuple[Crop, Crop]:
    """Read the same square of a large and a small image; `crop_px` is the large one's side. See `read_crop`.

    Raises:
        InputError: the sizes do not fit the scale, or a file is missing or damaged.
    """
    dice = np.random.default_rng(seed)
    (hr, hr_bits), (lr, lr_bits) = _open(hr_path), _open(lr_path)
    if (hr.width, hr.height) != (lr.width * scale, lr.height * scale):
        raise InputError(
            f"{hr_path} is {hr.width} x {hr.height} px and {lr_path} is {lr.width} x {lr.height} px: expected the "
            f"first to be {scale} times the second"
        )
    small_px = crop_px // scale
    top, left = _place(dice, lr, small_px)
    small = _fetch(lr_path, lr, lr_bits, top, left, small_px, small_px)
    large = _fetch(hr_path, hr, hr_bits, top * scale, left * scale, crop_px, crop_px)
    is_padded = min(lr.width, lr.height) < small_px
    flips = _Flips(dice, flip, rotate)
    # Both are mirrored about the same line: the edge between two pixels of the small image, so none is left out there.
    return Crop(flips(symmetric_padded(large, crop_px)), is_padded), Crop(
        flips(symmetric_padded(small, small_px)), is_padded
    )


def reflect_padded(pixels: Pixels, side_px: int) -> Pixels:
    """Pad an image to the side at its bottom and right by mirroring without repeating the border (reflect-101).

    Source: Real-ESRGAN, realesrgan/data/realesrgan_dataset.py, which pads small images so.
    """
    return _padded(pixels, side_px, "reflect")


def symmetric_padded(pixels: Pixels, side_px: int) -> Pixels:
    """Pad like `reflect_padded`, but repeat the border, as both images of a pair need it to stay aligned."""
    return _padded(pixels, side_px, "symmetric")


def _padded(pixels: Pixels, side_px: int, mode: str) -> Pixels:
    bottom, right = (max(0, side_px - side) for side in pixels.shape[1:])
    if not bottom and not right:
        return pixels
    return np.pad(pixels, ((0, 0), (0, bottom), (0, right)), mode=mode)  # type: ignore[call-overload,no-any-return]


class _Flips:
    """The flips that all images of one sample share."""

    def __init__(self, dice: np.random.Generator, flip: bool, rotate: bool) -> None:
        across, down, swapped = dice.random(3) < 0.5
        self._across, self._down, self._swapped = flip and across, rotate and down, rotate and swapped

    def __call__(self, pixels: Pixels) -> Pixels:
        if self._across:
            pixels = pixels[:, :, ::-1]
        if self._down:
            pixels = pixels[:, ::-1]
        if self._swapped:
            pixels = pixels.transpose(0, 2, 1)
        return np.ascontiguousarray(pixels)


def _open(path: Path) -> tuple[Any, int]:
    """Return a pyvips image, grey or RGB, of which nothing has been read yet, and its bits per value."""
    network_image = in_network_colours(path, decode(path, find_kind(path), 0, MAX_PIXELS))
    image, info = network_image.image, network_image.info
    return (image.extract_band(0, n=1 if info.is_grey else 3), info.bits)


def _place(dice: np.random.Generator, image: Any, crop_px: int) -> tuple[int, int]:
    top = int(dice.integers(max(0, image.height - crop_px) + 1))
    return top, int(dice.integers(max(0, image.width - crop_px) + 1))


def _fetch(path: Path, image: Any, bits: int, top: int, left: int, height: int, width: int) -> Pixels:
    height, width = min(height, image.height - top), min(width, image.width - left)
    try:
        data = image.crop(left, top, width, height).write_to_memory()
    except pyvips.Error as error:
        raise InputError(f"{path} is truncated or damaged ({vips_message(error)}); get a whole copy") from error
    array = np.frombuffer(data, np.uint8 if bits == 8 else np.uint16).reshape(height, width, image.bands)
    planes = np.broadcast_to(array.transpose(2, 0, 1), (3, height, width))
    return planes.copy() if bits == 8 else planes.astype(np.float32) / np.float32(65535)

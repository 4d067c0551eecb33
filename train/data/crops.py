"""Reads crops of images: only the rows down to the crop are decoded, and only the crop is converted."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realesr.errors import InputError
from realesr.images.reader import ImageReader, open_image
from realesr.train.data.failures import nothing_readable

Pixels = NDArray[Any]
"""(3, H, W) RGB: uint8, or float32 in [0, 1] where the file has 16 bits."""

FailureCallback = Callable[[str, str], None]
"""Called with the name of an image that cannot be read, or of a pair, and the reason."""


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
    with open_image(path) as image:
        top, left = _place(dice, image, crop_px)
        pixels = _read(image, top, left, crop_px, crop_px)
    padded = reflect_padded(pixels, crop_px)
    flips = _Flips(dice, flip, rotate)
    return Crop(flips(padded), padded is not pixels)


def crops_in_turn(
    images: Sequence[Path], count: int, crop_px: int, *, seed: int, on_failure: FailureCallback | None = None
) -> Iterator[tuple[Path, Crop]]:
    """Yield crops of one image after the other, and begin anew after the last; the n-th has the seed `seed` + n.

    An image that cannot be read is left out, and the next one takes its place: all other crops are what they were.

    Args:
        images: at least one.
        count: crops.
        crop_px: side of the crops.
        seed: of the first.
        on_failure: called once for each image that cannot be read; without it, that is an error.

    Raises:
        InputError: no image is left that can be read.
    """
    unreadable: dict[str, str] = {}
    for number in range(count):
        for step in range(len(images)):
            path = images[(number + step) % len(images)]
            if str(path) in unreadable:
                continue
            try:
                crop = read_crop(path, crop_px, seed=seed + number)
            except InputError as error:
                if on_failure is None:
                    raise
                unreadable[str(path)] = str(error)
                on_failure(str(path), str(error))
            else:
                yield path, crop
                break
        else:
            raise nothing_readable(unreadable)


def read_crop_pair(
    hr_path: Path, lr_path: Path, crop_px: int, *, scale: int, seed: int, flip: bool = False, rotate: bool = False
) -> tuple[Crop, Crop]:
    """Read the same square of a large and a small image; `crop_px` is the large one's side. See `read_crop`.

    Raises:
        InputError: the sizes do not fit the scale, or a file is missing or damaged.
    """
    dice = np.random.default_rng(seed)
    small_px = crop_px // scale
    with open_image(hr_path) as hr, open_image(lr_path) as lr:
        (hr_width, hr_height), (lr_width, lr_height) = _size(hr), _size(lr)
        if (hr_width, hr_height) != (lr_width * scale, lr_height * scale):
            raise InputError(
                f"{hr_path} is {hr_width} x {hr_height} px and {lr_path} is {lr_width} x {lr_height} px: expected the "
                f"first to be {scale} times the second"
            )
        top, left = _place(dice, lr, small_px)
        small = _read(lr, top, left, small_px, small_px)
        large = _read(hr, top * scale, left * scale, crop_px, crop_px)
    is_padded = min(lr_width, lr_height) < small_px
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


def _size(image: ImageReader) -> tuple[int, int]:
    """Return width and height in pixels."""
    return image.info.width_px, image.info.height_px


def _place(dice: np.random.Generator, image: ImageReader, crop_px: int) -> tuple[int, int]:
    """Draw the top and left of a crop."""
    width, height = _size(image)
    top = int(dice.integers(max(0, height - crop_px) + 1))
    return top, int(dice.integers(max(0, width - crop_px) + 1))


def _read(image: ImageReader, top: int, left: int, height: int, width: int) -> Pixels:
    """Read a rectangle, as far as the image has it."""
    info = image.info
    area = image.read_area(left, top, min(width, info.width_px - left), min(height, info.height_px - top))
    colour = area[:, :, : 1 if info.is_grey else 3].transpose(2, 0, 1)
    planes = np.broadcast_to(colour, (3, *colour.shape[1:]))
    return planes.copy() if info.bits == 8 else planes.astype(np.float32) / np.float32(65535)

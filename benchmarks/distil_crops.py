"""Cuts a small folder of varied crops out of photos, for `distil.py` and `gpu_train.py` on a machine without photos.

A photo is taken at full size and at a half: fine noise and soft edges of the first, dense detail of the second. The
windows with the most detail come first, in turns with windows at random places, which are what photos mostly consist
of, and in turns between the photos, until the folder is as large as it may be.
"""

import io
import re
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

CROP_PX = 448
"""Side of a crop: a training sample reads 400 px of it, at one of many places."""

QUALITY = 92
"""Quality of the JPEG files."""

LEAST_DETAIL = 1.5
"""Mean absolute Laplacian in levels of 255; crops with less (sky, blurred backgrounds) teach little."""

MOST_OF_A_PHOTO = 30

Window = tuple[float, int, int]
"""Detail, top, left."""

Box = tuple[int, int, int, int]
"""Left, top, right, bottom, as Pillow has them."""


def make_crops(photos: list[Path], folder: Path, *, megabytes: float, crop_px: int = CROP_PX) -> list[Path]:
    """Write crops as JPEG files and return their paths; crops of one photo have one name before the last hyphen.

    Args:
        photos: files that Pillow reads; those that are smaller than a crop are taken whole.
        folder: is made; files of other runs stay there.
        megabytes: limit of all crops together, in 10**6 bytes.
        crop_px: side of each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    left, written = megabytes * 1e6, []
    by_photo = [_files(path, crop_px) for path in photos]
    for turn, files in enumerate(zip_longest(*by_photo)):
        for number, (path, data) in enumerate(zip(photos, files, strict=True)):
            if data is None or len(data) > left:
                continue
            written.append(folder / f"{number:03d}_{_plain(path)}-{turn}.jpg")
            written[-1].write_bytes(data)
            left -= len(data)
    return written


def photo_of(crop: Path) -> str:
    """Return the name of the photo that a crop was cut from: crops of one photo resemble each other."""
    return crop.stem.rpartition("-")[0] or crop.stem


def laplacian(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the absolute Laplacian (four neighbours) of (H, W) values, without the border."""
    inner = 4 * image[1:-1, 1:-1]
    around = image[:-2, 1:-1] + image[2:, 1:-1] + image[1:-1, :-2] + image[1:-1, 2:]
    return np.abs(inner - around)


def _files(path: Path, crop_px: int) -> list[bytes]:
    """Encode the best crops of one photo, from half size and full size in turns, and some from anywhere."""
    with Image.open(path) as opened:
        photo = ImageOps.exif_transpose(opened).convert("RGB")
    if min(photo.size) < crop_px:
        return [_encoded(photo, (0, 0, *photo.size))]
    half = photo.resize((photo.width // 2, photo.height // 2), Image.Resampling.BOX)
    files: list[bytes] = []
    images = (half, photo, half)
    for some in zip_longest(_windows(half, crop_px), _windows(photo, crop_px), _anywhere(half, crop_px)):
        for image, window in zip(images, some, strict=True):
            if window is not None and len(files) < MOST_OF_A_PHOTO:
                files.append(_encoded(image, _box(window, crop_px)))
    return files


def _windows(image: Image.Image, crop_px: int) -> Iterator[Window]:
    """Return windows on a grid, those with the most detail first."""
    grey = np.asarray(image.convert("L"), np.float32)
    found = []
    for top in range(0, image.height - crop_px + 1, crop_px):
        for left in range(0, image.width - crop_px + 1, crop_px):
            detail = float(laplacian(grey[top : top + crop_px, left : left + crop_px]).mean())
            found.append((detail, top, left))
    yield from sorted((window for window in found if window[0] >= LEAST_DETAIL), reverse=True)[:MOST_OF_A_PHOTO]


def _anywhere(image: Image.Image, crop_px: int) -> Iterator[Window]:
    """Return windows at random places, however little detail they have; none of an image that is too small."""
    height, width = image.height - crop_px + 1, image.width - crop_px + 1
    dice = np.random.default_rng(0)
    for _ in range(MOST_OF_A_PHOTO // 3 if min(height, width) > 0 else 0):
        yield 0.0, int(dice.integers(height)), int(dice.integers(width))


def _box(window: Window, crop_px: int) -> Box:
    _, top, left = window
    return left, top, left + crop_px, top + crop_px


def _encoded(image: Image.Image, box: Box) -> bytes:
    file = io.BytesIO()
    image.crop(box).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def _plain(path: Path) -> str:
    """Return a photo's name without characters that file names should not have."""
    return re.sub(r"[^A-Za-z0-9]+", "_", path.stem)

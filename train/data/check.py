"""Finds images that training should not see: damaged, too small, duplicated, compressed, flat, blurred or noisy.

Every image is decoded once, by bands of rows, for a hash of its pixels, a thumbnail and the measures of `detail`. Two
images are the same where the hashes are; they look the same where their thumbnails do, whatever their size and
compression.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from realesr.errors import InputError, UsageError
from realesr.images.reader import ImageReader, open_image
from realesr.train.data.detail import Detail, LumaTiles
from realesr.train.data.jpeg_quality import quality_of_file
from realesr.train.data.threads import in_threads

Fault = Literal["unreadable", "tiny", "duplicate", "near duplicate", "compressed", "flat", "blurred", "noisy"]

Thumbnail = NDArray[np.float32]
"""(8, 9) means of areas, in levels of 255, of all colours together."""

_CELLS_DOWN, _CELLS_ACROSS = 8, 9
_ROWS_A_BAND = 256

_MOST_BITS = 3
"""Bits by which two hashes of 64 bits may differ; below, levels by which two thumbnails may on average. Measured on 13
photos of 300 px and more: copies at half the size, at JPEG quality 30 and with noise of 10 levels differ by at most 3
bits and 0.8 levels, different photos by at least 21 bits and 8 levels."""
_MOST_LEVELS = 1.5
_LEAST_CONTRAST = 4.0
"""Standard deviation of a thumbnail, in levels, below which everything looks alike: skies, walls."""


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """Limits beyond which an image is at fault."""

    crop_px: int = 400
    """Images with a shorter side are tiny: of these, training would mirror a part."""
    least_quality: int = 75
    """JPEG files below are compressed too much, on libjpeg's scale of 1 to 100; 0 takes all."""
    least_structure: float = 0.05
    """Images with structure in a smaller share of their area are flat; 0 takes all. Of 69 photos and wallpapers of
    four Debian packages, scikit-image and others, those below are one nearly black and four flat drawings."""
    least_sharpness: float = 0.45
    """Images below are blurred, or were enlarged; 0 takes all. Sharp photos have 0.8 to 1.7, after Gaussian blur of
    1.5 px 0.36 to 0.46, of 2 px 0.31 to 0.41, after bicubic enlargement by 4 0.35 to 0.47; of the 69, two soft ones
    are below. Blur along one direction only is not told."""
    most_noise: float = 6.0
    """Images with noise of a larger standard deviation, in levels of 255 of their luma, are noisy; 255 takes all. Of
    the same 69 the largest had 5.5; independent noise of 10 levels in each colour comes to 6 or 7."""

    def __post_init__(self) -> None:
        if self.crop_px < 1:
            raise UsageError(f"got a crop of {self.crop_px} px, expected 1 or more")
        if not 0 <= self.least_quality <= 100:
            raise UsageError(f"got a least quality of {self.least_quality}, expected 0 to 100")
        if not 0 <= self.least_structure <= 1:
            raise UsageError(f"got a least structure of {self.least_structure}, expected a share, 0 to 1")
        if not 0 <= self.least_sharpness <= 1:
            raise UsageError(f"got a least sharpness of {self.least_sharpness}, expected 0 to 1")
        if not 0 <= self.most_noise <= 255:
            raise UsageError(f"got a most noise of {self.most_noise}, expected 0 to 255 levels")


@dataclass(frozen=True, kw_only=True)
class Checked:
    """The result of checking one image; all numbers of an image that cannot be read are 0."""

    path: Path
    fault: Fault | None = None
    detail: str = ""
    """One line about the fault."""
    width_px: int = 0
    height_px: int = 0
    bits: int = 0
    channels: int = 0
    jpeg_quality: int | None = None
    """None where it is no JPEG file."""
    pixel_hash: str = ""
    """Hash of size, depth and all values."""
    thumbnail: Thumbnail | None = None
    """None where the image is too small or too plain to be told from others by it."""
    measured: Detail | None = None
    """None where the image is too small for them."""

    @property
    def pixels(self) -> int:
        """Return width x height."""
        return self.width_px * self.height_px

    def crops(self, crop_px: int) -> int:
        """Return how many crops fit side by side; at least one, as training mirrors what is missing."""
        return max(1, self.width_px // crop_px) * max(1, self.height_px // crop_px)

    def to_json(self) -> dict[str, Any]:
        """Return everything but the thumbnail, as JSON has it; measures that could not be taken are null."""
        record = {name: value for name, value in vars(self).items() if name not in ("thumbnail", "measured")}
        measured = {field.name: getattr(self.measured, field.name, None) for field in fields(Detail)}
        return record | {"path": str(self.path)} | measured


def check_images(
    paths: Sequence[Path], options: CheckOptions, *, threads: int, on_image: Callable[[Path], None] | None = None
) -> list[Checked]:
    """Check images, and compare each with all others.

    Args:
        paths: of the images, each once.
        options: what counts as a fault.
        threads: images that are decoded at once.
        on_image: is called with each image that is done.

    Returns:
        One result per path, in their order. An image with several faults has the first in the order of `Fault`. Of
        duplicates, one is left without this fault: the best, by compression, then size, then order.
    """
    checked = []
    for path, found in in_threads(lambda path: check_image(path, options), paths, threads):
        checked.append(found)
        if on_image is not None:
            on_image(path)
    return _with_duplicates(checked)


def check_image(path: Path, options: CheckOptions) -> Checked:
    """Check one image on its own; that it cannot be read is a result, not an error."""
    try:
        with open_image(path) as reader:
            pixel_hash, thumbnail, measured = _read_whole(reader)
        quality = quality_of_file(path) if reader.info.format == "jpeg" else None
    except InputError as error:
        return Checked(path=path, fault="unreadable", detail=str(error))
    except (OSError, SyntaxError) as error:
        return Checked(path=path, fault="unreadable", detail=f"{path} cannot be read: {error}")
    info = reader.info
    found = Checked(
        path=path,
        width_px=info.width_px,
        height_px=info.height_px,
        bits=info.bits,
        channels=info.channels,
        jpeg_quality=quality,
        pixel_hash=pixel_hash,
        thumbnail=thumbnail,
        measured=measured,
    )
    fault = _fault_of(found, options)
    return found if fault is None else replace(found, fault=fault[0], detail=fault[1])


def _fault_of(found: Checked, options: CheckOptions) -> tuple[Fault, str] | None:
    """Return the first fault of an image on its own, and one line about it."""
    quality, measured = found.jpeg_quality, found.measured
    if min(found.width_px, found.height_px) < options.crop_px:
        return "tiny", f"{found.width_px} x {found.height_px} px, smaller than the crop of {options.crop_px} px"
    if quality is not None and quality < options.least_quality:
        return "compressed", f"JPEG quality {quality}, below {options.least_quality}"
    if measured is None:
        return None
    if measured.structure < options.least_structure:
        share = f"{measured.structure:.1%}"
        return "flat", f"edges or texture in {share} of its area, below {options.least_structure:.1%}"
    if measured.structure and measured.sharpness < options.least_sharpness:
        return "blurred", f"sharpness {measured.sharpness:.2f}, below {options.least_sharpness:g}"
    if measured.noise > options.most_noise:
        return "noisy", f"noise of {measured.noise:.1f} levels, above {options.most_noise:g}"
    return None


def _read_whole(reader: ImageReader) -> tuple[str, Thumbnail | None, Detail | None]:
    """Read the whole image; return a hash of its pixels, its thumbnail and the measures of its detail."""
    info = reader.info
    digest = hashlib.blake2b(repr((info.width_px, info.height_px, info.channels, info.bits)).encode(), digest_size=16)
    colours = 1 if info.is_grey else 3
    tiles = LumaTiles(info)
    rows_of_cells = []
    for top, bottom in pairwise(info.height_px * cell // _CELLS_DOWN for cell in range(_CELLS_DOWN + 1)):
        sums = np.zeros((info.width_px, info.channels), np.float64)
        for start in range(top, bottom, _ROWS_A_BAND):
            rows = reader.read_rows(min(_ROWS_A_BAND, bottom - start))
            digest.update(rows.data)
            sums += rows.sum(axis=0, dtype=np.uint32)
            tiles.add(rows)
        rows_of_cells.append(sums[:, :colours].mean(axis=1) / max(1, bottom - top))
    if info.height_px < _CELLS_DOWN or info.width_px < _CELLS_ACROSS:
        return digest.hexdigest(), None, tiles.detail()
    starts = [info.width_px * cell // _CELLS_ACROSS for cell in range(_CELLS_ACROSS)]
    cells = np.add.reduceat(np.array(rows_of_cells), starts, axis=1) / np.diff([*starts, info.width_px])
    thumbnail = (cells / (257 if info.bits == 16 else 1)).astype(np.float32)
    return digest.hexdigest(), thumbnail if thumbnail.std() >= _LEAST_CONTRAST else None, tiles.detail()


def _with_duplicates(checked: Sequence[Checked]) -> list[Checked]:
    """Mark duplicates of better images as such."""
    found = list(checked)
    first: dict[str, Checked] = {}
    distinct = []
    for number in _best_first(checked):
        image = checked[number]
        original = first.setdefault(image.pixel_hash, image)
        if original is image:
            distinct.append(number)
        else:
            found[number] = replace(image, fault="duplicate", detail=f"the same pixels as {original.path}")
    numbers, thumbnails = [], []
    for number in distinct:
        thumbnail = checked[number].thumbnail
        if thumbnail is not None:
            numbers.append(number)
            thumbnails.append(thumbnail)
    for copy, original_place in near_duplicates(thumbnails).items():
        detail = f"looks like {checked[numbers[original_place]].path}"
        found[numbers[copy]] = replace(checked[numbers[copy]], fault="near duplicate", detail=detail)
    return found


def _best_first(checked: Sequence[Checked]) -> list[int]:
    """Return the numbers of the usable images: without a fault first, then the largest, then the least compressed."""

    def worth(number: int) -> tuple[bool, int, int, int]:
        found = checked[number]
        return found.fault is not None, -found.pixels, -(found.jpeg_quality or 101), number

    return sorted(
        (number for number, found in enumerate(checked) if found.fault not in ("unreadable", "tiny")), key=worth
    )


def near_duplicates(thumbnails: Sequence[Thumbnail]) -> dict[int, int]:
    """Map the number of each image that looks like an earlier one to that one, which looks like none before it.

    Candidates have nearly the same hash, one bit per two neighbours: is the right one brighter (N. Krawetz, "Kind of
    Like That", 2013). Their thumbnails decide.
    """
    if not thumbnails:
        return {}
    stack = np.stack(thumbnails)
    bits = (stack[:, :, 1:] > stack[:, :, :-1]).reshape(len(stack), 64)
    hashes = np.packbits(bits, axis=1).view(np.uint64)[:, 0]
    originals: dict[int, int] = {}
    for number in range(len(stack)):
        if number in originals:
            continue
        near = np.bitwise_count(hashes[number + 1 :] ^ hashes[number]) <= _MOST_BITS
        candidates = number + 1 + np.flatnonzero(near)
        alike = np.abs(stack[candidates] - stack[number]).mean(axis=(1, 2)) <= _MOST_LEVELS
        for copy in candidates[alike]:
            originals.setdefault(int(copy), number)
    return originals

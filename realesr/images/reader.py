"""Reads a file as bands of rows: upright, in colours that a network can process, in bounded memory.

kinds               recognises the kind of image in the file
decoding            opens the codec's own image: by rows with libvips, or whole (pillow_decoding)
channels            separates colour from alpha, and finds the depth of the samples
colour_conversion   converts colours for the network, as `colour` decides
ImageReader         has the facts, and yields the rows in order
"""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from realesr.errors import InputError
from realesr.images.colour_conversion import NetworkImage, in_network_colours
from realesr.images.decoding import decode
from realesr.images.info import ImageInfo
from realesr.images.kinds import IMAGE_SUFFIXES, find_kind, mislabel_notice
from realesr.images.libvips import pyvips, vips_message

__all__ = ["IMAGE_SUFFIXES", "MAX_PIXELS", "ImageReader", "open_image"]

MAX_PIXELS = 1_000_000_000
"""Largest input in pixels by default. An assumption: above cameras and scanners, below decompression bombs."""

_ROWS_AT_ONCE = 256


def open_image(path: Path, *, page: int = 0, max_pixels: int | None = None) -> "ImageReader":
    """Open an image file for reading from its first row to its last.

    Args:
        path: path of the file; its content decides what it is, not its name.
        page: page of a TIFF, GIF, WebP, AVIF or HEIC file with several, from 0.
        max_pixels: largest width x height, MAX_PIXELS by default.

    Raises:
        InputError: the file is missing, a folder, empty, damaged, of an unknown kind, too large, or has no such page.
    """
    kind = find_kind(path)
    decoded = decode(path, kind, page, MAX_PIXELS if max_pixels is None else max_pixels)
    image = in_network_colours(path, decoded)
    mislabelled = mislabel_notice(path, kind)
    return ImageReader(path, page, max_pixels, image, (mislabelled,) if mislabelled else ())


class ImageReader:
    """An open image: its facts, and its rows once, in order. Read it from one thread."""

    def __init__(
        self, path: Path, page: int, max_pixels: int | None, image: NetworkImage, notices: tuple[str, ...]
    ) -> None:
        self.info: ImageInfo = image.info
        """Facts after orientation and colour conversion; `icc` is the profile of the rows."""
        self.notices = notices + image.notices
        """Notices for the user, one line each."""
        self._path, self._page, self._max_pixels = path, page, max_pixels
        self._image: Any = image.image
        self._region: Any = None
        self._next_row = 0

    def read_rows(self, rows: int) -> NDArray[np.uint8] | NDArray[np.uint16]:
        """Read the next `rows` rows; fewer at the end, then none.

        Returns:
            (rows, width, channels), C-contiguous: uint8 where info.bits is 8, uint16 where it is 16, full range.

        Raises:
            InputError: these rows are missing from the file or damaged.
        """
        info = self.info
        count = max(0, min(rows, info.height_px - self._next_row))
        dtype: Any = np.uint8 if info.bits == 8 else np.uint16
        if count == 0:
            return np.empty((0, info.width_px, info.channels), dtype)
        if self._region is None:
            self._region = pyvips.Region.new(self._image)
        try:
            data = self._region.fetch(0, self._next_row, info.width_px, count)
        except pyvips.Error as error:
            raise InputError(
                f"{self._path} is truncated or damaged near row {self._next_row} of {info.height_px} "
                f"({vips_message(error)}); get a whole copy"
            ) from error
        self._next_row += count
        return np.frombuffer(data, dtype).reshape(count, info.width_px, info.channels)

    def constant_alpha(self) -> int | None:
        """Return the alpha value that all pixels share, or None where it varies or there is no alpha.

        Opens the file once more and reads it up to the first row where alpha varies; this reader's rows stay unread.
        """
        if not self.info.has_alpha:
            return None
        value: int | None = None
        with open_image(self._path, page=self._page, max_pixels=self._max_pixels) as other:
            while len(rows := other.read_rows(_ROWS_AT_ONCE)):
                alpha = rows[:, :, -1]
                value = int(alpha.flat[0]) if value is None else value
                if (alpha != value).any():
                    return None
        return value

    def close(self) -> None:
        """Close the file; closing twice is allowed."""
        self._region = self._image = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

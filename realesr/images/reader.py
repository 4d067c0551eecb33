"""Reads a file as bands of rows: upright, in colours that a network can process, in bounded memory.

kinds               recognises the kind of image in the file
formats             open a file of each format, and tell what its samples mean
decoding            opens the file of any kind: by rows with libvips, or whole
colour_conversion   converts colours for the network, as `colour` decides
ImageReader         has the facts, and yields the rows in order
"""

import contextlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from realesr.errors import InputError
from realesr.images.colour_conversion import NetworkImage, in_network_colours
from realesr.images.decoded import MAX_PIXELS, ReadOptions
from realesr.images.decoding import decode
from realesr.images.file_source import FileSource
from realesr.images.info import ImageInfo
from realesr.images.kinds import IMAGE_SUFFIXES, find_kind, mislabel_notice
from realesr.images.libvips import own_messages, pyvips, vips_message
from realesr.options import FileOptions

__all__ = ["IMAGE_SUFFIXES", "MAX_PIXELS", "ImageReader", "open_image", "open_with"]

_ROWS_AT_ONCE = 256
_SAMPLES_AT_ONCE = 16_000_000
"""Most samples that are fetched at once: more than 64 rows of any photo; rows of a million pixels are cut."""


def open_image(
    path: Path, *, page: int | None = None, max_pixels: int | None = None, allow_damaged: bool = False
) -> "ImageReader":
    """Open an image file for reading from its first row to its last.

    Args:
        path: path of the file; its content decides what it is, not its name.
        page: page of a TIFF, GIF, WebP, AVIF or HEIC file with several, from 0; by default the one it presents itself.
        max_pixels: largest width x height, MAX_PIXELS by default.
        allow_damaged: whether rows that the file has lost may be made up, with a notice.

    Raises:
        InputError: the file is missing, a folder, empty, damaged, of an unknown kind, too large, or has no such page.
    """
    kind = find_kind(path)
    options = ReadOptions(page=page, max_pixels=max_pixels or MAX_PIXELS, allow_damaged=allow_damaged)
    decoded = decode(path, kind, options)
    with own_messages(path):
        image = in_network_colours(decoded, kind)
    mislabelled = mislabel_notice(path, kind)
    notices = (mislabelled,) if mislabelled else ()
    return ImageReader(path, options, image, decoded.sources, notices, decoded.check_rows)


def open_with(path: Path, file: FileOptions) -> "ImageReader":
    """Open an image file with `page`, `max_pixels` and `allow_damaged` of `file`; see `open_image`."""
    return open_image(path, page=file.page, max_pixels=file.max_pixels, allow_damaged=file.allow_damaged)


class ImageReader:
    """An open image: its facts, and its rows once, in order. Read it from one thread."""

    def __init__(
        self,
        path: Path,
        options: ReadOptions,
        image: NetworkImage,
        sources: tuple[FileSource, ...],
        notices: tuple[str, ...],
        check_rows: Callable[[bool, Exception | None], str | None] | None = None,
    ) -> None:
        self.info: ImageInfo = image.info
        """Facts after orientation and colour conversion; `icc` is the profile of the rows."""
        self.notices = notices + image.notices
        """Notices for the user, one line each; reading rows may add some."""
        self._check_rows = check_rows
        self._path, self._options = path, options
        self._image: Any = image.image
        self._sources = sources
        self._region: Any = None
        self._next_row = 0

    def read_rows(self, rows: int) -> NDArray[np.uint8] | NDArray[np.uint16]:
        """Read the next `rows` rows; fewer at the end, then none.

        Returns:
            (rows, width, channels), C-contiguous: uint8 where info.bits is 8, uint16 where it is 16, full range.

        Raises:
            InputError: these rows are missing from the file or damaged.
        """
        count = max(0, min(rows, self.info.height_px - self._next_row))
        return self.read_area(0, self._next_row, self.info.width_px, count)

    def read_area(
        self, left_px: int, top_px: int, width_px: int, height_px: int
    ) -> NDArray[np.uint8] | NDArray[np.uint16]:
        """Read a rectangle of the image that begins below all rows read so far; rows in between are decoded, too.

        Returns:
            (height_px, width_px, channels), as `read_rows` returns them.

        Raises:
            InputError: these rows, or rows above them, are missing from the file or damaged.
        """
        info = self.info
        if height_px == 0:
            return np.empty((0, width_px, info.channels), self._dtype)
        at_end = top_px + height_px == info.height_px
        try:
            with own_messages(self._path):
                if self._region is None:
                    self._region = pyvips.Region.new(self._image)
                area = self._fetched(left_px, top_px, width_px, height_px)
                notice = self._check_rows(at_end, None) if self._check_rows else None
        except pyvips.Error as error:
            for source in self._sources:
                if source.error is not None:
                    raise InputError(f"{self._path} cannot be read ({source.error.strerror})") from source.error
            if self._check_rows:
                with contextlib.suppress(pyvips.Error, OSError):  # the file may be cut or gone by now
                    self._check_rows(at_end, error)
            raise InputError(
                f"{self._path} is truncated or damaged near row {top_px} of {info.height_px} "
                f"({vips_message(error)}); get a whole copy"
            ) from error
        self.notices += (notice,) if notice else ()
        self._next_row = top_px + height_px
        return area

    @property
    def _dtype(self) -> Any:
        return np.uint8 if self.info.bits == 8 else np.uint16

    def _fetched(
        self, left_px: int, top_px: int, width_px: int, height_px: int
    ) -> NDArray[np.uint8] | NDArray[np.uint16]:
        """Return a rectangle, fetched in parts side by side: each of libvips' operations holds a part at a time."""
        area = np.empty((height_px, width_px, self.info.channels), self._dtype)
        step = max(1, _SAMPLES_AT_ONCE // (height_px * self.info.channels))
        for left in range(0, width_px, step):
            width = min(step, width_px - left)
            data = self._region.fetch(left_px + left, top_px, width, height_px)
            area[:, left : left + width] = np.frombuffer(data, self._dtype).reshape(height_px, width, -1)
        return area

    def constant_alpha(self) -> int | None:
        """Return the alpha value that all pixels share, or None where it varies or there is no alpha.

        Opens the file once more and reads it up to the first row where alpha varies; this reader's rows stay unread.
        """
        if not self.info.has_alpha:
            return None
        value: int | None = None
        with open_image(self._path, **asdict(self._options)) as other:
            while len(rows := other.read_rows(_ROWS_AT_ONCE)):
                alpha = rows[:, :, -1]
                value = int(alpha.flat[0]) if value is None else value
                if (alpha != value).any():
                    return None
        return value

    def close(self) -> None:
        """Close the file; closing twice is allowed."""
        self._region = self._image = None
        for source in self._sources:
            source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

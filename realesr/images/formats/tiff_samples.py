"""Decodes the samples of a TIFF page as they are stored, whatever they mean.

libvips guesses a meaning from a directory. So it is handed a file with one directory only, made here from the page's
own: it says that the samples are plain grey channels, and libvips returns them unchanged. The same way, planes are
read one by one, and bytes that hold several samples are read as bytes and unpacked here.

Source of the layout: TIFF 6.0, sections 2 (bytes of rows), 14 (predictor), 15 (tiles).
"""

import struct
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realesr.errors import InputError
from realesr.images.decoded import check_memory, image_from_array
from realesr.images.file_source import FileSource
from realesr.images.formats.tiff_directory import (
    BITS_PER_SAMPLE,
    COMPRESSION,
    EXTRA_SAMPLES,
    FILL_ORDER,
    HEIGHT,
    JPEG_TABLES,
    PHOTOMETRIC,
    PLANAR,
    PREDICTOR,
    ROWS_PER_STRIP,
    SAMPLES_PER_PIXEL,
    STRIP_BYTES,
    STRIP_OFFSETS,
    T4_OPTIONS,
    T6_OPTIONS,
    TILE_BYTES,
    TILE_HEIGHT,
    TILE_OFFSETS,
    TILE_WIDTH,
    WIDTH,
    YCBCR_SUBSAMPLING,
    Page,
)
from realesr.images.formats.tiff_meaning import is_packed
from realesr.images.formats.tiff_sizes import Grid, check_pieces
from realesr.images.libvips import pyvips, vips_message
from realesr.images.metadata.tiff_fields import LONG, LONG8, SHORT, Field, pack_fields

_BITS_AT_ONCE = 1 << 24
_COPIED = (COMPRESSION, FILL_ORDER, T4_OPTIONS, T6_OPTIONS, PREDICTOR, JPEG_TABLES)
_GREY, _YCBCR = 1, 6
_WHOLE_COPIES = 3
"""Memory for a page that is decoded whole, in terms of its samples: 1.9 packed, 2.3 odd tiles, 2.6 subsampled YCbCr."""
_LIBVIPS_TILE_PX = 8192
"""Side from which on libvips 8.18 refuses tiles; and it takes multiples of 16 only, as section 15 demands."""
_MOST_TILE_PX = 1 << 22
"""Largest tile, unless the image itself is that large: tiles are decoded whole, so they must not be a bomb."""


def grid_of(page: Page) -> Grid:
    """Return the layout of a page; of one plane, where the page has planes.

    Raises:
        InputError: a tile has no size.
    """
    samples = 1 if page.is_planar else page.samples
    width, height = page.width_px, min(page.integer(ROWS_PER_STRIP, 2**32 - 1) or 2**32 - 1, page.height_px)
    if page.is_tiled:
        width, height = page.integer(TILE_WIDTH, 0), page.integer(TILE_HEIGHT, 0)
        most_px = max(_MOST_TILE_PX, 4 * page.width_px * page.height_px)
        if not (width > 0 and 0 < width * height <= most_px):
            raise InputError(f"{page.path} is damaged: its tiles have {width} x {height} px; get a whole copy")
    return Grid(page.width_px, page.height_px, samples, page.depths[0], width, height, page.is_tiled)


def open_samples(page: Page, wanted: tuple[int, ...], *, access: str) -> tuple[Any, tuple[FileSource, ...]]:
    """Open the samples `wanted` of a page whose samples all have one depth of 1 to 16 bit.

    Returns:
        A pyvips image with a band for each sample that is wanted, not decoded yet, unless several samples share a
        byte; uchar for up to 8 bits, ushort above. The values are the stored ones: below 8 and 16 bit they do not
        fill the type's range. And the sources that it reads from.

    Raises:
        InputError: strips or tiles are missing.
        pyvips.Error: damaged.
    """
    grid = grid_of(page)
    if not page.is_planar:
        if is_packed(page):
            check_whole(page, grid, page.samples, "packed TIFF")
            return image_from_array(_unpacked(page, grid, 0)[:, :, list(wanted)]), ()
        image, sources = open_grid(page, grid, 0, access=access)
        return pick_bands(image, wanted), sources
    if is_packed(page):
        check_whole(page, grid, len(wanted), "packed TIFF")
        return image_from_array(np.concatenate([_unpacked(page, grid, plane) for plane in wanted], axis=2)), ()
    planes = [open_grid(page, grid, plane * grid.pieces, access=access) for plane in wanted]
    image = planes[0][0].bandjoin([image for image, _ in planes[1:]]) if len(planes) > 1 else planes[0][0]
    return image, tuple(source for _, sources in planes for source in sources)


def check_whole(page: Page, grid: Grid, samples: int, what: str) -> None:
    """Raise InputError where `samples` samples of each pixel of a grid, decoded whole, do not fit into memory."""
    stored_px = grid.pieces * grid.piece_width * grid.piece_height
    needed = stored_px * samples * (1 if grid.depth <= 8 else 2) * _WHOLE_COPIES
    check_memory(page.path, page.width_px, page.height_px, needed, what, "save it as TIFF of 8 or 16 bit RGB first")


def open_jpeg_rgb(page: Page, *, access: str) -> tuple[Any, tuple[FileSource, ...]]:
    """Open a page of YCbCr that is compressed with JPEG as RGB, which the JPEG decoder makes of it."""
    return open_grid(page, grid_of(page), 0, access=access, photometric=_YCBCR)


def pick_bands(image: Any, wanted: tuple[int, ...]) -> Any:
    """Return a pyvips image with the bands `wanted`."""
    if wanted == tuple(range(image.bands)):
        return image
    bands = [image[index] for index in wanted]
    return bands[0].bandjoin(bands[1:]) if len(bands) > 1 else bands[0]


def open_grid(
    page: Page, grid: Grid, first_piece: int, *, access: str, photometric: int = _GREY
) -> tuple[Any, tuple[FileSource, ...]]:
    """Open a grid of stored samples as a pyvips image with `grid.samples` bands, and return its sources too.

    Depths of 1, 2 and 4 bit, where there is one sample, come as their stored values, in uchar.

    Raises:
        InputError: strips or tiles are missing: those of the first row, or any where the page is decoded whole.
        pyvips.Error: damaged.
    """
    sides = (grid.piece_width, grid.piece_height)
    is_unusual = grid.is_tiled and (any(side % 16 for side in sides) or max(sides) >= _LIBVIPS_TILE_PX)
    # Read from the top, a file that was cut gives its rows up to there.
    needed = grid.pieces if is_unusual or access == "random" else grid.across
    check_pieces(page, grid, *_pieces(page, grid, first_piece), needed)
    if is_unusual:
        check_whole(page, grid, grid.samples, "TIFF in tiles of unusual size")
        return image_from_array(decoded_rows(page, grid, first_piece, photometric=photometric)), ()
    source = _PageSource(page, _directory(page, grid, first_piece, photometric))
    image = source.load("tiffload", unlimited=True, access=access)
    return image.maplut(_stored_values(grid.depth)) if grid.depth < 8 else image, (source,)


def decoded_rows(page: Page, grid: Grid, first_piece: int, *, photometric: int = _GREY) -> NDArray[Any]:
    """Decode a grid of stored samples whole: (H, W, samples) uint8 or uint16.

    Tiles are decoded as if they were strips, one below the other, and put into their places here.
    """
    stack = grid
    if grid.is_tiled:
        stack = replace(grid, width=grid.piece_width, height=grid.pieces * grid.piece_height, is_tiled=False)
    check_pieces(page, stack, *_pieces(page, stack, first_piece), stack.pieces)
    image, sources = open_grid(page, stack, first_piece, access="sequential", photometric=photometric)
    try:
        data = image.write_to_memory()
    except pyvips.Error as error:
        raise InputError(f"{page.path} is truncated or damaged ({vips_message(error)}); get a whole copy") from error
    finally:
        for source in sources:
            source.close()
    rows = np.frombuffer(data, np.uint8 if grid.depth <= 8 else np.uint16)
    tiles = rows.reshape(
        -1, grid.across, stack.height // grid.pieces if grid.is_tiled else 1, stack.width, grid.samples
    )
    whole = tiles.transpose(0, 2, 1, 3, 4).reshape(-1, grid.across * stack.width, grid.samples)
    return whole[: grid.height, : grid.width]


def _stored_values(depth: int) -> Any:
    """Return a look-up table from libvips' values of 1, 2 or 4 bit, which fill the range of uchar, to the stored."""
    values = np.arange(256, dtype=np.uint32) * (2**depth - 1) // 255
    return image_from_array(values.astype(np.uint8).reshape(1, 256, 1))


def _unpacked(page: Page, grid: Grid, plane: int) -> NDArray[Any]:
    """Decode a grid whose samples share bytes: (H, W, samples), uint8 for up to 8 bits, else uint16.

    Rows begin with a byte, and each sample follows the last without a gap, its highest bit first: section 2.
    """
    row_bytes = -(-grid.piece_width * grid.samples * grid.depth // 8)
    as_bytes = Grid(row_bytes * grid.across, grid.height, 1, 8, row_bytes, grid.piece_height, grid.is_tiled)
    stored = decoded_rows(page, as_bytes, plane * grid.pieces).reshape(grid.height * grid.across, row_bytes)
    a_row = grid.piece_width * grid.samples
    values = np.empty((len(stored), a_row), np.uint8 if grid.depth <= 8 else np.uint16)
    weights = (1 << np.arange(grid.depth)[::-1]).astype(values.dtype)
    step = max(1, _BITS_AT_ONCE // (a_row * grid.depth))
    for top in range(0, len(stored), step):
        bits = np.unpackbits(stored[top : top + step], axis=1, count=a_row * grid.depth)
        values[top : top + step] = (bits.reshape(len(bits), a_row, grid.depth) * weights).sum(2, dtype=values.dtype)
    return values.reshape(grid.height, grid.across * grid.piece_width, grid.samples)[:, : grid.width]


def _directory(page: Page, grid: Grid, first_piece: int, photometric: int) -> list[Field]:
    """Return the fields by which libvips reads a grid of the page, from strip or tile `first_piece` on.

    Raises:
        InputError: the page lists fewer strips or tiles than it needs.
    """
    order, big = page.layout.order, page.layout.big

    def field(tag: int, kind: int, *values: int) -> Field:
        return Field(
            tag, kind, len(values), struct.pack(f"{order}{len(values)}{'H' if kind == SHORT else 'I'}", *values)
        )

    def places(tag: int, values: NDArray[Any]) -> Field:
        return Field(tag, LONG8 if big else LONG, len(values), values.astype(order + ("u8" if big else "u4")).tobytes())

    offsets, sizes = _pieces(page, grid, first_piece)
    fields = [
        field(WIDTH, LONG, grid.width),
        field(HEIGHT, LONG, grid.height),
        field(BITS_PER_SAMPLE, SHORT, *[grid.depth] * grid.samples),
        field(PHOTOMETRIC, SHORT, photometric),
        field(SAMPLES_PER_PIXEL, SHORT, grid.samples),
        field(PLANAR, SHORT, 1),
        places(TILE_OFFSETS if grid.is_tiled else STRIP_OFFSETS, offsets),
        places(TILE_BYTES if grid.is_tiled else STRIP_BYTES, sizes),
        *(page.fields[tag] for tag in _COPIED if tag in page.fields),
    ]
    if grid.is_tiled:
        fields += [field(TILE_WIDTH, LONG, grid.piece_width), field(TILE_HEIGHT, LONG, grid.piece_height)]
    else:
        fields.append(field(ROWS_PER_STRIP, LONG, grid.piece_height))
    extra = grid.samples - (3 if photometric == _YCBCR else 1)
    if extra:
        fields.append(field(EXTRA_SAMPLES, SHORT, *[0] * extra))
    if photometric == _YCBCR and YCBCR_SUBSAMPLING in page.fields:
        fields.append(page.fields[YCBCR_SUBSAMPLING])
    return fields


def _pieces(page: Page, grid: Grid, first_piece: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return offsets and sizes in bytes of a grid's strips or tiles; raise InputError where the page lists too few.

    The size of a single strip may be missing: then it ends with the file.
    """
    tags = (TILE_OFFSETS, TILE_BYTES) if page.is_tiled else (STRIP_OFFSETS, STRIP_BYTES)
    offsets, sizes = (page.array(tag)[first_piece : first_piece + grid.pieces] for tag in tags)
    if len(offsets) == grid.pieces == 1 and not len(sizes):
        sizes = np.array([max(0, page.path.stat().st_size - int(offsets[0]))])
    listed = min(len(offsets), len(sizes))
    if listed < grid.pieces:
        kind = "tiles" if page.is_tiled else "strips"
        raise InputError(f"{page.path} is damaged: it lists {listed} of {grid.pieces} {kind}; get a whole copy")
    return offsets, sizes


class _PageSource(FileSource):
    """A file as libvips shall see it: with another first directory, far behind its end.

    Between the end of the file and that directory nothing can be read, so that missing strips stay missing.
    """

    def __init__(self, page: Page, fields: list[Field]) -> None:
        super().__init__(page.path)
        layout = page.layout
        self._directory_at = 2**60 if layout.big else 2**32 - 2**28
        self._directory = pack_fields(fields, layout, self._directory_at)
        self._file_bytes = self._file.seek(0, 2)
        self._file.seek(0)
        header_bytes = 16 if layout.big else 8
        own = self._file.read(header_bytes)[: header_bytes - layout.offset_bytes]
        self._header = own + struct.pack(layout.offset_form, self._directory_at)
        self._position = 0

    def _on_read(self, size: int) -> bytes | None:
        """Return up to `size` bytes from the current position, or None where there are none."""
        at = self._position
        part: bytes | None = None
        if at >= self._directory_at:
            part = self._directory[at - self._directory_at :][:size]
        elif at < len(self._header):
            part = self._header[at : at + size]
        elif at < self._file_bytes:  # a system refuses to seek where no file of it can end
            self._file.seek(at)
            part = super()._on_read(size)
        self._position += len(part or b"")
        return part or None

    def _on_seek(self, offset: int, whence: int) -> int:
        """Move the position as `io.IOBase.seek` does, and return it."""
        base = (0, self._position, self._directory_at + len(self._directory))[whence]
        self._position = max(0, base + offset)
        return self._position

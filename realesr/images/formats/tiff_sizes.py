"""Compares strips and tiles of a TIFF page with what the file can hold, before anything is decoded.

libvips takes memory for whole rows before it reads them, so that a header alone could make it take gigabytes.

Sources of the largest ratios, decoded to stored bytes: zlib, "Technical Details" (Deflate, 1,032); TIFF 6.0, sections
9 (PackBits: 128 bytes from 2) and 13 (LZW: a code of 12 bits stands for fewer than 4,096 bytes); ITU-T T.4, tables 2
and 3 (2,560 pixels of a bit each from 12 bits); libtiff, tif_thunder.c (63 samples of 4 bits from a byte) and
tif_pixarlog.c (Deflate of 2 bytes a sample). Sides of images: ITU-T T.81, B.2.2 (JPEG); RFC 9649, 2.7 (WebP).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realesr.errors import InputError
from realesr.images.formats.tiff_directory import T4_OPTIONS, Page


@dataclass(frozen=True)
class Grid:
    """How the samples of a page, or of one of its planes, are laid out in strips or tiles.

    Everything counts samples of `depth` bit, `samples` of them side by side.
    """

    width: int
    height: int
    samples: int
    depth: int
    piece_width: int
    """Width of a tile; of a strip, the image's."""
    piece_height: int
    is_tiled: bool

    @property
    def across(self) -> int:
        """Return the number of tiles side by side; 1 for strips."""
        return -(-self.width // self.piece_width)

    @property
    def pieces(self) -> int:
        """Return the number of strips or tiles."""
        return self.across * -(-self.height // self.piece_height)


_UNCOMPRESSED, _T4 = 1, 3
_LARGEST_RATIOS = {
    _UNCOMPRESSED: 1,
    2: 214,
    _T4: 214,
    5: 2731,
    8: 1032,
    32771: 214,
    32773: 64,
    32809: 32,
    32909: 1032,
    32946: 1032,
}
"""By compression scheme. In the others a row of any width takes a bit (T.6), 5 bytes (NeXT), or has a largest width."""
_LARGEST_WIDTHS_PX = {7: 65535, 50001: 16384}
_SLACK = 10
"""libtiff reads at most this many times the decoded size of a strip or tile, and 4 KB, whatever its stated size."""


def check_pieces(page: Page, grid: Grid, offsets: NDArray[Any], sizes: NDArray[Any], count: int) -> None:
    """Raise InputError where the first `count` strips or tiles are not in the file, or too short for their samples.

    Args:
        page: the page, which says how they are compressed.
        grid: what they hold.
        offsets: (grid.pieces,) integers: where each begins in the file.
        sizes: (grid.pieces,) integers: the sizes stated in bytes. Those of uncompressed ones are not relied on, as
            libtiff corrects them; nor is a single 0.
        count: number of strips or tiles to look at.
    """
    kind = "tile" if grid.is_tiled else "strip"
    widest = _LARGEST_WIDTHS_PX.get(page.compression, grid.piece_width)
    if grid.piece_width > widest:
        raise InputError(
            f"{page.path} is damaged: its {kind}s are {grid.piece_width:,} px wide, "
            f"expected at most {widest:,} in this compression; get a whole copy"
        )
    starts, stated, decoded = offsets.astype(float), sizes.astype(float), _decoded_bytes(grid)
    held = np.maximum(0, page.path.stat().st_size - starts)
    needed = np.ceil(decoded / _largest_ratio(page))
    if page.compression != _UNCOMPRESSED:
        stated = held if len(stated) == 1 and not stated[0] else stated
        needed = np.maximum(needed, np.minimum(stated, _SLACK * decoded + 4096))
        held = np.minimum(held, stated)
    short = np.flatnonzero((held < needed)[:count])
    if len(short):
        first = int(short[0])
        raise InputError(
            f"{page.path} is truncated or damaged: {kind} {first + 1} of {grid.pieces} has {int(held[first]):,} bytes "
            f"in the file, expected at least {int(needed[first]):,}; get a whole copy"
        )


def _decoded_bytes(grid: Grid) -> NDArray[np.float64]:
    """Return the size in bytes of each strip or tile as decoded: (pieces,); the last strip may have fewer rows."""
    row_bytes = -(-grid.piece_width * grid.samples * grid.depth // 8)
    sizes = np.full(grid.pieces, float(row_bytes * grid.piece_height))
    if not grid.is_tiled:
        sizes[-1] = row_bytes * (grid.height - (grid.pieces - 1) * grid.piece_height)
    return sizes


def _largest_ratio(page: Page) -> float:
    """Return how many times as large as stored a strip or tile can be when decoded."""
    is_two_dimensional = page.compression == _T4 and page.integer(T4_OPTIONS, 0) & 1
    return math.inf if is_two_dimensional else _LARGEST_RATIOS.get(page.compression, math.inf)

"""Results of layers in memory: rows of pixels, the zeros around them that convolutions read, and buffers for reuse."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from realesr.engines.winograd.kernel import TILE_PX, aligned

ROWS_BELOW = TILE_PX
"""Rows of zeros below a map's own: one of padding, and what the last tile covers besides."""


@dataclass(frozen=True)
class MapRows:
    """Some rows of a result, from `first_row` to before `end_row`, and rows of zeros below them.

    Row -1 is the row of zero padding above the image. Columns begin with one of padding, and end with as many zeros as
    make whole tiles.
    """

    values: NDArray[np.float32]
    """(rows, columns, channels)."""
    width: int
    first_row: int = -1

    @property
    def end_row(self) -> int:
        """Return the number of the row below the last one."""
        return self.first_row + len(self.values) - ROWS_BELOW

    @property
    def channels(self) -> int:
        """Return the channels, with those that fill up SIMD vectors."""
        return int(self.values.shape[2])

    def between(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return the pixels of some rows, (stop - start, width, channels)."""
        return self.values[start - self.first_row : stop - self.first_row, 1 : self.width + 1]

    def address(self, row: int) -> int:
        """Return the address of a row's padding, left of its first pixel."""
        return int(self.values[row - self.first_row :].ctypes.data)


def map_rows(width: int, channels: int, count: int) -> MapRows:
    """Return so many rows of zeros, the row of padding above the image before them."""
    return MapRows(aligned(map_shape(count + 1, width, channels)), width)


def map_shape(rows: int, width: int, channels: int) -> tuple[int, int, int]:
    """Return the shape of `MapRows.values` for so many rows, kept ones and the padding above counted."""
    return rows + ROWS_BELOW, tiles_along(width) * TILE_PX + 2, channels


def tiles_along(length_px: int) -> int:
    """Return how many tiles cover a side."""
    return -(-length_px // TILE_PX)


class MapBuffers:
    """The buffers in which maps take turns: each holds one map at a time, and keeps its memory between images."""

    def __init__(self) -> None:
        self._held: dict[int, MapRows] = {}

    def reserve(self, number: int, rows: int, width: int, channels: int) -> None:
        """Make a buffer large enough for a map of so many rows, kept ones counted; what it holds is lost then."""
        shape = map_shape(rows, width, channels)
        held = self._held.get(number)
        # Of another width even the same number of columns would do harm: there were pixels where zeros belong.
        if held is None or held.width != width or held.channels != channels or len(held.values) < shape[0]:
            self._held.pop(number, None)  # its memory makes room first
            held = None
            self._held[number] = MapRows(aligned(shape), width)

    def begin(self, number: int, kept: NDArray[np.float32], first_row: int, new_rows: int) -> MapRows:
        """Return a buffer's memory for a map, whose new rows hold any values.

        Args:
            number: of the buffer, which was reserved.
            kept: rows of the strip before, (rows, width, channels).
            first_row: the first one of these.
            new_rows: how many will be written below them.
        """
        held = self._held[number]
        rows = MapRows(held.values[: len(kept) + new_rows + ROWS_BELOW], held.width, first_row)
        rows.values[: len(kept), 1 : held.width + 1] = kept
        rows.values[-ROWS_BELOW:] = 0  # what was left there would be read as pixels below the image
        return rows

    @property
    def largest_rows(self) -> int:
        """Return the rows of the highest buffer."""
        return max((len(held.values) for held in self._held.values()), default=0)

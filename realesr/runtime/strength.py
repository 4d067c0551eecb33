"""Mixes what the network made of an image with its Lanczos enlargement: a share of the detail, the photo's own colours.

network, lanczos --difference-+-> a share of it, added to lanczos -----------+-> mixed
                              +-> means over cells of a grid --interpolated--+

Networks shift broad tones: realesrgan-x4plus darkened three photos by 0.8 to 6.5 of 255 levels in the mean, and by up
to 15 over places of 32 input px; realesr-general-x4v3 by 0.8 to 4.5, and up to 12 (measured on 2026-11-27). A mix of
all frequencies would shift colours likewise. So the low ones stay those of the photo.
"""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from realesr.runtime.resize import resize_bands
from realesr.runtime.rows import ROWS_A_CHUNK, Band, RowWindow, in_chunks

CELL_PX = 16
"""Side in input px of the cells of the grid that holds the low frequencies: those of periods above about twice that."""

OWN_COLOURS_UP_TO = 0.9
"""Strength up to which all low frequencies are the photo's. From here to 1 they go over to the network's, so that the
result is continuous: at 1 it is what the network gives."""


def low_share(strength: float) -> float:
    """Return the network's share of the low frequencies, in [0, 1]; the rest is the photo's."""
    return max(0.0, (strength - OWN_COLOURS_UP_TO) / (1 - OWN_COLOURS_UP_TO))


def mixed_bands(
    network: Iterable[Band],
    lanczos: Iterable[Band],
    *,
    strength: float,
    size: tuple[int, int],
    to_size: tuple[int, int],
) -> Iterator[Band]:
    """Mix two streams of bands of one image: lanczos + strength * (network - lanczos), but for the low frequencies.

    Values are mixed as they are encoded, not in linear light: equal steps of strength are then seen as about equal.

    Args:
        network: (channels, rows, to_size[1]) float32, to_size[0] rows in all: what the network made of the image.
        lanczos: the same image enlarged by Lanczos; likewise.
        strength: share of the network's detail, in [0, 1].
        size: height and width of the image before it was enlarged, in px.
        to_size: height and width of both streams, in px.

    Yields:
        (channels, rows, to_size[1]) float32, not clamped. The values are those of the whole image, however the streams
        are divided into bands.
    """
    rows, columns = (_cell_edges(*sides) for sides in zip(size, to_size, strict=True))
    network_window, lanczos_window = RowWindow(_in_low_bands(network)), RowWindow(lanczos)
    waiting: deque[Band] = deque()
    """Mixed rows whose low frequencies are not known yet."""

    def grid() -> Iterator[Band]:
        for top, bottom in itertools.pairwise(rows):
            total: NDArray[np.float64] | float = 0.0
            for start, stop in in_chunks(bottom - top):
                own = lanczos_window.rows(top + start, top + stop)
                difference = network_window.rows(top + start, top + stop) - own
                waiting.append(own + np.float32(strength) * difference)
                total = total + np.add.reduceat(difference.sum(axis=1, dtype=np.float64), columns[:-1], axis=1)
            yield np.asarray(total / (np.diff(columns) * (bottom - top)), np.float32)[:, None]

    low = resize_bands(
        grid(),
        height_px=len(rows) - 1,
        width_px=len(columns) - 1,
        to_height_px=to_size[0],
        to_width_px=to_size[1],
        kernel="triangle",
    )
    low_window, done = RowWindow(low), 0
    share_too_much = np.float32(strength - low_share(strength))
    while done < to_size[0]:
        low_rows = low_window.rows(done, min(done + ROWS_A_CHUNK, to_size[0]))
        mixed = waiting.popleft()
        yield mixed - share_too_much * low_rows[:, : mixed.shape[1]]
        done += mixed.shape[1]


def _in_low_bands(bands: Iterable[Band]) -> Iterator[Band]:
    """Yield the same rows in bands of few: a window joins what it holds, and rows of tiles are high."""
    for band in bands:
        for start, stop in in_chunks(band.shape[1]):
            yield band[:, start:stop]


def waiting_rows(scale: float) -> int:
    """Return the rows of the result that `mixed_bands` holds at once at this enlargement, copies among them.

    Above the growth of the peak of memory at enlargements of 2 to 16: 880 to 1,240 rows (measured on 2026-11-27).
    """
    return int(4 * CELL_PX * scale) + 16 * ROWS_A_CHUNK


def whole_cells(start_px: int, stop_px: int, length_px: int) -> tuple[list[int], list[int]]:
    """Return where cells begin up to `start_px` and where they end from `stop_px` on, the nearest first.

    What is mixed between two of these places alone has the low frequencies that it has in the whole image, as its cells
    are the same to a pixel; but for nearly all of a side, which may come to one cell less.
    """
    cells = -(-length_px // CELL_PX)
    first, last = start_px * cells // length_px, -(-stop_px * cells // length_px)
    starts = [-(-cell * length_px // cells) for cell in range(first, -1, -1)]
    return starts, [cell * length_px // cells for cell in range(last, cells + 1)]


def _cell_edges(length: int, to_length: int) -> NDArray[np.intp]:
    """Return where the cells of the grid begin along one side of the enlarged image, and where the last one ends."""
    cells = -(-length // CELL_PX)
    return np.arange(cells + 1) * to_length // cells

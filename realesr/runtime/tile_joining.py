"""Joins tiles on the host, one row of tiles after another, blended where they overlap."""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from realesr.engine import EngineSpec, ProgressCallback, no_progress
from realesr.runtime.rows import Band, RowWindow
from realesr.runtime.tiles import AxisTile, TilePlan, fade_in

Batch = NDArray[np.float32]
"""(N, 3, h, w) RGB."""


class Enlarger(Protocol):
    """One engine with its fallbacks, or a pool of them: whatever enlarges batches of tiles."""

    @property
    def spec(self) -> EngineSpec:
        """Return the facts about the engine."""
        ...

    def enlarge_all(self, batches: Iterable[Batch], on_progress: ProgressCallback = no_progress) -> Generator[Batch]:
        """Enlarge each batch, in the same order; `on_progress` is called for the one under way, or not at all."""
        ...


class PixelProgress:
    """Counts finished pixels: a share of a batch while it is under way, all of it once it is done."""

    def __init__(self, on_pixels: Callable[[int], None] | None = None) -> None:
        self._on_pixels = on_pixels
        self._batch_px = self._reported_px = 0

    def begin(self, batch_px: int) -> None:
        """Begin the next batch, which contributes this many pixels."""
        self._batch_px, self._reported_px = batch_px, 0

    def share(self, share: float) -> None:
        """Report that this share of the batch is done, from 0 to 1."""
        more_px = int(self._batch_px * share) - self._reported_px
        if self._on_pixels is not None and more_px > 0:
            self._reported_px += more_px
            self._on_pixels(more_px)


def enlarge_planned(
    window: RowWindow, plan: TilePlan, enlarger: Enlarger, finished: PixelProgress, held_back: Band | None = None
) -> Iterator[Band]:
    """Enlarge one row of tiles after another; the rows that the next one fades into are held back.

    Args:
        window: the image, at the plan's size.
        plan: how it is cut.
        enlarger: what enlarges the tiles.
        finished: counts the pixels.
        held_back: what the row of tiles before the plan's first one holds back, if there is one.

    Yields:
        (3, rows, width * scale) float32 RGB.
    """
    for band, _ in joined_rows(window, plan, enlarger, finished, held_back):
        yield band


def joined_rows(
    window: RowWindow, plan: TilePlan, enlarger: Enlarger, finished: PixelProgress, held_back: Band | None = None
) -> Iterator[tuple[Band, Band | None]]:
    """Yield each finished band, and what its row of tiles holds back for the next one; see `enlarge_planned`."""
    scale, size = enlarger.spec.scale, enlarger.spec.best_batch
    fade_rows = len(fade_in(plan.rows.blend_px, scale))
    with closing(enlarger.enlarge_all(_tiles(window, plan, size), finished.share)) as enlarged:
        for row in plan.rows.tiles:
            joined = _join_row_of_tiles(enlarged, row, plan, scale, size, finished)
            if fade_rows:
                joined *= plan.rows.weights(row, scale)[:, None]
            if held_back is not None:
                joined[:, :fade_rows] += held_back
            is_last = row is plan.rows.tiles[-1]
            held_back = joined[:, -fade_rows:] if fade_rows and not is_last else None
            yield (joined if held_back is None else joined[:, :-fade_rows]), held_back


def _tiles(window: RowWindow, plan: TilePlan, size: int) -> Iterator[Batch]:
    """Yield every tile of the plan in batches of up to `size`, row by row; rows are read when they are needed."""
    width = plan.columns.tile_px
    for row in plan.rows.tiles:
        lr = window.rows(row.start, row.start + plan.rows.tile_px)
        for columns in _batches(plan.columns.tiles, size):
            yield np.stack([lr[:, :, column.start : column.start + width] for column in columns])


def _join_row_of_tiles(
    enlarged: Iterator[Batch],
    row: AxisTile,
    plan: TilePlan,
    scale: int,
    size: int,
    finished: PixelProgress,
) -> Band:
    """Join the next tiles of `enlarged`, one row of them, to (3, (row.last - row.first) * scale, width * scale)."""
    columns = plan.columns
    top, bottom = (row.first - row.start) * scale, (row.last - row.start) * scale
    joined = np.zeros((3, bottom - top, columns.length_px * scale), np.float32)
    for batch in _batches(columns.tiles, size):
        finished.begin(finished_px(row, batch, plan))
        for column, tile in zip(batch, next(enlarged), strict=True):
            left, right = (column.first - column.start) * scale, (column.last - column.start) * scale
            part, place = tile[:, top:bottom, left:right], joined[:, :, column.first * scale : column.last * scale]
            if columns.blend_px:
                place += part * columns.weights(column, scale)
            else:
                place[...] = part
        finished.share(1.0)
    return joined


def finished_px(row: AxisTile, columns: tuple[AxisTile, ...], plan: TilePlan) -> int:
    """Return the input pixels that these tiles contribute; over a plan they sum to the image's area."""

    def share(axis_tile: AxisTile, length: int, blend: int) -> int:
        fades = (axis_tile.first > 0) + (axis_tile.last < length)
        return axis_tile.last - axis_tile.first - fades * blend

    height = share(row, plan.rows.length_px, plan.rows.blend_px)
    width = sum(share(column, plan.columns.length_px, plan.columns.blend_px) for column in columns)
    return height * width


def _batches(tiles: tuple[AxisTile, ...], size: int) -> Iterator[tuple[AxisTile, ...]]:
    return (tiles[i : i + size] for i in range(0, len(tiles), size))

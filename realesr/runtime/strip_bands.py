"""Runs a network over an image of any height: in strips where its engine has them and they are faster, else in tiles.

Strips take the image's rows as they come and give the untiled result; an image that is too wide for the memory is cut
into columns that overlap. Where a strip fails, for want of memory or because its values are not finite, the rest of the
image goes by tiles, which know what to do about either.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from realesr.errors import OutOfMemory
from realesr.runtime.engine_pool import EnginePool, is_sound
from realesr.runtime.kept_rows import Checkpoint, KeptBands
from realesr.runtime.rows import Band, FinishedBand, RowWindow, crop_bands, in_chunks, pad_bands
from realesr.runtime.strips import Strips, joined_states, state_of
from realesr.runtime.tiled import enlarge_bands, plan_for
from realesr.runtime.tiles import AxisPlan, plan_tiles

OnPixels = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class StripLayout:
    """Rows and columns that one image is enlarged in as strips."""

    height_px: int
    """Height of the image, padded to a size that the network takes."""
    rows_px: int
    """Rows of every strip but the last."""
    columns: AxisPlan


def strip_layout_for(pool: EnginePool, height_px: int, width_px: int) -> StripLayout | None:
    """Return the layout for an image of this size; None where one tile holds it, or strips do not fit."""
    budget, tiles = pool.tiling.strips, plan_for(pool, height_px, width_px)
    if budget is None or pool.spec.first_rows_px is None or len(tiles) == 1:
        return None
    height, width = tiles.rows.length_px, tiles.columns.length_px
    size = budget.size_for(height, width)
    if size is None:
        return None
    overlap, multiple = budget.halo_px, pool.spec.size.multiple_of
    columns = plan_tiles(
        height, width, tile_px=size.columns_px, overlap_px=overlap, blend=False, multiple_of=multiple
    ).columns
    return StripLayout(height_px=height, rows_px=size.rows_px, columns=columns)


def enlarge_rows(
    bands: Iterable[Band],
    pool: EnginePool,
    *,
    height_px: int,
    width_px: int,
    on_pixels: OnPixels | None = None,
    kept: KeptBands | None = None,
) -> Iterator[Band | FinishedBand]:
    """Enlarge a stream of bands by the network's scale.

    Args:
        bands: (3, rows, width_px) float32 RGB in [0, 1], height_px rows in all.
        pool: what enlarges them.
        height_px: height of the image. Likewise `width_px`.
        on_pixels: called now and then with the number of input pixels that were finished since.
        kept: bands that an earlier run has finished, and where those of this run go.

    Yields:
        (3, rows, width_px * scale) float32 RGB, not clamped; height_px * scale rows in all. What is kept as levels
        comes as uint8.
    """
    plan = strip_layout_for(pool, height_px, width_px)
    if plan is None:
        return enlarge_bands(bands, pool, height_px=height_px, width_px=width_px, on_pixels=on_pixels, kept=kept)
    bottom, right = plan.height_px - height_px, plan.columns.length_px - width_px
    padded = pad_bands(bands, bottom_px=bottom, right_px=right) if bottom or right else bands
    enlarged = _StripsThenTiles(RowWindow(padded), pool, plan, on_pixels or (lambda _: None), kept).enlarged()
    scale = pool.spec.scale
    return crop_bands(enlarged, height_px=height_px * scale, width_px=width_px * scale)


class _StripsThenTiles:
    """One image that is enlarged in strips, and from a failed strip on in tiles."""

    def __init__(
        self, window: RowWindow, pool: EnginePool, plan: StripLayout, on_pixels: OnPixels, kept: KeptBands | None
    ) -> None:
        self._window = window
        self._pool = pool
        self._plan = plan
        self._on_pixels = on_pixels
        self._kept = kept
        self._taken_px = 0  # rows that strips were given
        self._given = 0  # rows of the result that were handed on

    def enlarged(self) -> Iterator[Band | FinishedBand]:
        yield from self._in_strips()
        if self._given < self._plan.height_px * self._pool.spec.scale:
            yield from self._rest_in_tiles()

    def _in_strips(self) -> Iterator[Band | FinishedBand]:
        """Yield the result of the strips until one fails; their states are freed at the end."""
        plan = self._plan
        try:
            strips = self._opened()
            yield from self._from_earlier_run(strips)
            for start, stop in in_chunks(plan.height_px, plan.rows_px):
                if stop <= self._taken_px:
                    continue
                band = self._pushed(strips, start, stop)
                if band is None:
                    return
                self._taken_px = stop
                self._on_pixels((stop - start) * plan.columns.length_px)
                if band.shape[1]:
                    self._given += band.shape[1]
                    yield self._kept.add(band, lambda: self._checkpoint(strips)) if self._kept else band
        except OutOfMemory as error:
            self._pool.notices.append(f"out of memory with strips of {plan.rows_px} rows: gone on in tiles ({error})")

    def _from_earlier_run(self, strips: list[Strips]) -> Iterator[Band | FinishedBand]:
        """Yield the bands that an earlier run has kept, and bring the strips to where it was."""
        plan, scale = self._plan, self._pool.spec.scale
        if self._kept is None:
            return
        found = self._kept.begin(plan, plan.height_px * scale, plan.columns.length_px * scale)
        if found is None:
            return
        if found.arrays:  # there are none at the end of the image
            for number, strip in enumerate(strips):
                strip.restore(state_of(number, found.arrays))
        for band in self._kept.bands():
            self._given += band.shape[1]
            yield band
        self._taken_px = found.done
        self._on_pixels(self._taken_px * plan.columns.length_px)

    def _checkpoint(self, strips: list[Strips]) -> Checkpoint:
        if self._taken_px == self._plan.height_px:
            return Checkpoint(done=self._taken_px, arrays={})
        return Checkpoint(done=self._taken_px, arrays=joined_states([strip.state() for strip in strips]))

    def _opened(self) -> list[Strips]:
        columns, plan = self._plan.columns, self._plan
        with self._pool.idle_engine() as idle:
            return [
                idle.engine.open_strips(columns.tile_px, plan.height_px, rows_px=plan.rows_px) for _ in columns.tiles
            ]

    def _pushed(self, strips: list[Strips], start: int, stop: int) -> Band | None:
        """Return the rows of the result that rows [start, stop) complete; None where the values are not sound."""
        columns, scale = self._plan.columns, self._pool.spec.scale
        first = self._first_kept()
        lr = self._window.rows(first, stop)
        parts = []
        for column, strip in zip(columns.tiles, strips, strict=True):
            rows = lr[:, start - first :, column.start : column.start + columns.tile_px]
            with self._pool.idle_engine():
                part = strip.push(np.ascontiguousarray(rows))
            parts.append(part[:, :, (column.first - column.start) * scale : (column.last - column.start) * scale])
        band = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)
        top = self._given // scale - first
        behind = lr[:, top : max(top + 1, (self._given + band.shape[1]) // scale - first)]
        if band.shape[1] and not is_sound(behind, band):
            self._pool.notices.append(
                f"values were no picture in {self._pool.spec.precision}: gone on in tiles from row {self._given}"
            )
            return None
        return band

    def _first_kept(self) -> int:
        """Return the first row of the input that tiles would need if strips failed now, at a block of the unshuffle."""
        pool = self._pool
        first = self._given // pool.spec.scale - pool.tiling.overlap_px
        return max(0, first // pool.spec.size.multiple_of * pool.spec.size.multiple_of)

    def _rest_in_tiles(self) -> Iterator[Band | FinishedBand]:
        plan, pool = self._plan, self._pool
        first, scale, width = self._first_kept(), pool.spec.scale, plan.columns.length_px
        bands = (self._window.rows(first + a, first + b) for a, b in in_chunks(plan.height_px - first))
        on_pixels = _without_first((self._taken_px - first) * width, self._on_pixels)
        rest = enlarge_bands(bands, pool, height_px=plan.height_px - first, width_px=width, on_pixels=on_pixels)
        known = self._given - first * scale
        for band in rest:
            yield band[:, min(known, band.shape[1]) :]
            known -= min(known, band.shape[1])


def _without_first(pixels: int, on_pixels: OnPixels) -> OnPixels:
    """Return a callback that reports only pixels after the first `pixels`, which were reported before."""
    left = pixels

    def tell(finished: int) -> None:
        nonlocal left
        known = min(left, finished)
        left -= known
        if finished > known:
            on_pixels(finished - known)

    return tell

"""Runs a network over an image of any height, tile by tile, in bands of rows.

Tiles are joined on the host, or by an engine that does so in its device's memory.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

from realesr.engine import EngineSpec
from realesr.errors import NotFinite, OutOfMemory
from realesr.runtime.engine_pool import EnginePool
from realesr.runtime.kept_rows import Checkpoint, KeptBands
from realesr.runtime.rows import Band, FinishedBand, RowWindow, crop_bands, in_chunks, pad_bands
from realesr.runtime.tile_joining import PixelProgress, enlarge_planned, finished_px, joined_rows
from realesr.runtime.tile_rows import PendingRow, TileRows
from realesr.runtime.tiles import TilePlan, plan_tiles
from realesr.runtime.tiling import SMALLEST_PART_PX, Tiling


def plan_for(pool: EnginePool, height_px: int, width_px: int) -> TilePlan:
    """Return the plan that `enlarge_bands` follows for an image of this size."""
    return tile_plan(pool.spec, pool.tiling, height_px, width_px)


def tile_plan(spec: EngineSpec, tiling: Tiling, height_px: int, width_px: int) -> TilePlan:
    """Return the tiles that an engine is given for an image of this size."""
    size, scale = spec.size, spec.scale
    least_height, least_width = size.fixed_px or (size.minimum_px, size.minimum_px)
    tile_width = tile_height = tiling.tile_px
    if height_px * width_px <= tiling.max_untiled_area_px:
        tile_width = tile_height = max(height_px, width_px)
    elif tiling.band_bytes is not None:
        row_bytes = 3 * 4 * width_px * scale**2
        tile_height = min(tile_height, max(SMALLEST_PART_PX, tiling.band_bytes // row_bytes))
    return plan_tiles(
        _padded(height_px, least_height, size.multiple_of),
        _padded(width_px, least_width, size.multiple_of),
        tile_px=tile_width,
        tile_height_px=tile_height,
        overlap_px=tiling.overlap_px,
        blend=tiling.blend,
        multiple_of=size.multiple_of,
        fixed_px=size.fixed_px,
    )


def enlarge_bands(
    bands: Iterable[Band],
    pool: EnginePool,
    *,
    height_px: int,
    width_px: int,
    on_pixels: Callable[[int], None] | None = None,
    kept: KeptBands | None = None,
) -> Iterator[Band | FinishedBand]:
    """Enlarge a stream of bands by the network's scale.

    Args:
        bands: (3, rows, width_px) float32 RGB in [0, 1], height_px rows in all.
        pool: what enlarges each tile.
        height_px: height of the image. Likewise `width_px`.
        on_pixels: called with the number of input pixels that were finished since: after each batch, and on the way
            where the engine tells how far it is. What it raises ends the work.
        kept: bands that an earlier run has finished, and where those of this run go; not used by an engine that joins
            tiles, which is fast.

    Yields:
        (3, rows, width_px * scale) float32 RGB, not clamped; height_px * scale rows in all. What is kept as levels
        comes as uint8.
    """
    plan = plan_for(pool, height_px, width_px)
    window, finished = RowWindow(_padded_bands(bands, plan, height_px, width_px)), PixelProgress(on_pixels)
    enlarged: Iterator[Band | FinishedBand]
    if pool.joins_tiles:
        enlarged = _enlarge_on_device(window, plan, pool, finished, eight_bit=False)
    elif kept is not None:
        enlarged = _enlarge_kept(window, plan, pool, finished, kept)
    else:
        enlarged = enlarge_planned(window, plan, pool, finished)
    scale = pool.spec.scale
    return crop_bands(enlarged, height_px=height_px * scale, width_px=width_px * scale)


def _enlarge_kept(
    window: RowWindow, plan: TilePlan, pool: EnginePool, finished: PixelProgress, kept: KeptBands
) -> Iterator[Band | FinishedBand]:
    """Go on behind the rows of tiles that an earlier run has finished, and keep those of this one."""
    scale, tiles = pool.spec.scale, plan.rows.tiles
    found = kept.begin(plan, plan.rows.length_px * scale, plan.columns.length_px * scale)
    done = found.done if found else 0
    if found:
        yield from kept.bands()
    for row in tiles[:done]:
        finished.begin(finished_px(row, plan.columns.tiles, plan))
        finished.share(1.0)
    rest = replace(plan, rows=replace(plan.rows, tiles=tiles[done:]))
    before = found.arrays.get("held_back") if found else None
    for number, (band, held_back) in enumerate(joined_rows(window, rest, pool, finished, before), done + 1):
        arrays = {} if held_back is None else {"held_back": held_back}
        yield kept.add(band, partial(Checkpoint, done=number, arrays=arrays))


def enlarge_to_levels(
    bands: Iterable[Band],
    pool: EnginePool,
    *,
    height_px: int,
    width_px: int,
    on_pixels: Callable[[int], None] | None = None,
) -> Iterator[Band | FinishedBand]:
    """Enlarge a stream of bands with an engine that joins tiles and also clamps and rounds them to 8 bits.

    That is a quarter to fetch from its device. Arguments are those of `enlarge_bands`.

    Yields:
        (3, rows, width_px * scale) uint8 levels; where the rest of an image had to be joined here, float32 RGB.
    """
    plan = plan_for(pool, height_px, width_px)
    window = RowWindow(_padded_bands(bands, plan, height_px, width_px))
    enlarged = _enlarge_on_device(window, plan, pool, PixelProgress(on_pixels), eight_bit=True)
    scale = pool.spec.scale
    return crop_bands(enlarged, height_px=height_px * scale, width_px=width_px * scale)


def _padded_bands(bands: Iterable[Band], plan: TilePlan, height_px: int, width_px: int) -> Iterable[Band]:
    bottom, right = plan.rows.length_px - height_px, plan.columns.length_px - width_px
    return pad_bands(bands, bottom_px=bottom, right_px=right) if bottom or right else bands


def _enlarge_on_device(
    window: RowWindow, plan: TilePlan, pool: EnginePool, finished: PixelProgress, *, eight_bit: bool
) -> Iterator[Any]:
    """Join one row of tiles after another in the engine; the next row is begun before this one is waited for.

    Where a row does not fit or is no picture, the rest of the image is joined here, tile by tile, which knows what to
    do about either.
    """
    engine: Any = pool.engine  # a TileJoiningEngine, as `pool.joins_tiles` says
    with closing(engine.open_tile_rows(plan, eight_bit=eight_bit)) as tile_rows:
        begun: deque[tuple[int, Band, PendingRow]] = deque()
        for number, row in enumerate(plan.rows.tiles):
            rows = window.rows(row.start, row.start + plan.rows.tile_px)
            begun.append((number, rows, tile_rows.push(number, rows)))
            is_last = number == len(plan.rows.tiles) - 1
            while len(begun) > (0 if is_last else 1):
                index, lr, pending = begun.popleft()
                finished.begin(finished_px(plan.rows.tiles[index], plan.columns.tiles, plan))
                try:
                    band = pending.result(finished.share)
                except (OutOfMemory, NotFinite) as error:
                    pool.notices.append(f"{error}: gone on with single tiles")
                    band = None
                if band is None:
                    begun.clear()
                    del pending  # what failed keeps its memory on the device as long as it is known here
                    yield from _rest_by_tiles(index, lr, window, plan, pool, finished, tile_rows)
                    return
                finished.share(1.0)
                yield band


def _rest_by_tiles(
    index: int,
    lr: Band,
    window: RowWindow,
    plan: TilePlan,
    pool: EnginePool,
    finished: PixelProgress,
    tile_rows: TileRows,
) -> Iterator[Band]:
    """Join the image on the host from row of tiles `index` on, which reads `lr`."""
    held_back = tile_rows.fade(index - 1) if index else None
    tile_rows.close()  # its memory is what single tiles may need
    first = plan.rows.tiles[index].start
    known = first + lr.shape[1]

    def lr_rows() -> Iterator[Band]:
        yield lr
        for start, stop in in_chunks(plan.rows.length_px - known):
            yield window.rows(known + start, known + stop)

    rest = replace(plan, rows=replace(plan.rows, tiles=plan.rows.tiles[index:]))
    yield from enlarge_planned(RowWindow(lr_rows(), first), rest, pool, finished, held_back)


def _padded(length: int, minimum: int, multiple: int) -> int:
    return -(-max(length, minimum) // multiple) * multiple

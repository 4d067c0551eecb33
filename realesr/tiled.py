"""Runs a network over an image of any height, tile by tile, in bands of rows.

`Lane` wraps an engine with what every tile needs: parts that fit when memory runs out, float32 again when a value is
not finite. `Network` has a lane for each device and gives every tile to one that is free. `enlarge_bands` moves down
the image one row of tiles at a time and joins them, or has them joined by an engine that does so on its device.
"""

import math
import queue
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from realesr.engine import Engine, EngineSpec, OnShare, not_told
from realesr.errors import NotFinite, OutOfMemory
from realesr.memory import StripBudget
from realesr.rows import Band, FinishedBand, RowWindow, crop_bands, in_chunks, pad_bands
from realesr.tile_rows import PendingRow, TileRows
from realesr.tiles import AxisTile, TilePlan, fade_in, plan_tiles

SMALLEST_PART_PX = 32
"""Tiles are not halved below this side: a device that cannot hold it cannot run the network."""


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """How the images of one network are cut."""

    tile_px: int
    """Side of the part of the image that one tile answers for."""
    overlap_px: int
    """What a tile reads beyond that on each side."""
    blend: bool
    """Whether neighbours fade into one another; needless where the overlap makes tiles exact."""
    band_bytes: int | None = None
    """Most memory for the result of one row of tiles, in float32: tiles are made less high for wide images."""
    one_piece_px: int = 0
    """Area up to which an image is one tile, whatever `tile_px` is, in input px."""
    strips: StripBudget | None = None
    """What strips may take; none where images go by tiles alone."""


Batch = NDArray[np.float32]
"""(N, 3, h, w) RGB."""


class Enlarger(Protocol):
    """What `_enlarge_planned` gives its tiles to: a lane, or all of them."""

    @property
    def spec(self) -> EngineSpec:
        """Facts about the engine."""
        ...

    def enlarge_all(self, batches: Iterable[Batch], on_share: OnShare = not_told) -> Generator[Batch]:
        """Each batch enlarged, in the same order; `on_share` is told of the one that is being made, or of none."""
        ...


class Network:
    """Engines that do not give up: safe to call from several threads.

    Args:
        engines: the same network, open on one device or on several; closed by `close`. Tiles go to whichever is free.
        open_fp32: opens the network in float32 on the device that it is given, for tiles whose values are not finite;
            none where the engines are float32 already.
        tiling: how its images are cut.
    """

    def __init__(self, *engines: Engine, tiling: Tiling, open_fp32: Callable[[str], Engine] | None = None) -> None:
        self.tiling = tiling
        self.notices: list[str] = []
        self._lanes = [Lane(engine, tiling, self.notices, open_fp32) for engine in engines]
        self._free: queue.SimpleQueue[Lane] = queue.SimpleQueue()
        for lane in self._lanes:
            self._free.put(lane)
        self._pool = ThreadPoolExecutor(len(engines), "realesr-device") if len(engines) > 1 else None

    @property
    def engine(self) -> Engine:
        """The first engine: they differ in their device alone."""
        return self._lanes[0].engine

    @property
    def spec(self) -> EngineSpec:
        """Facts about the first engine."""
        return self.engine.spec

    @property
    def devices(self) -> str:
        """Where it runs: "cpu", "cuda:0, cuda:1"."""
        return ", ".join(lane.spec.device for lane in self._lanes)

    @property
    def joins_tiles(self) -> bool:
        """Whether the engine joins an image's tiles itself; of several, each has only some of the tiles."""
        return self.spec.joins_tiles and len(self._lanes) == 1

    def close(self) -> None:
        """Close the engines, and the float32 ones where there was need of them."""
        if self._pool is not None:
            self._pool.shutdown()
        for lane in self._lanes:
            lane.close()

    def enlarge(self, batch: Batch, on_share: OnShare = not_told) -> Batch:
        """Enlarge a batch on the next device that is free; see `Lane.enlarge`."""
        with self.free_lane() as lane:
            return lane.enlarge(batch, on_share)

    @contextmanager
    def free_lane(self) -> Iterator["Lane"]:
        """Wait for a device that nobody uses, and have it alone."""
        lane = self._free.get()
        try:
            yield lane
        finally:
            self._free.put(lane)

    def enlarge_all(self, batches: Iterable[Batch], on_share: OnShare = not_told) -> Generator[Batch]:
        """Each batch enlarged, in the same order; as many at once as there are devices, and one that waits.

        Nothing is told of several at once.
        """
        if self._pool is None:
            yield from (self.enlarge(batch, on_share) for batch in batches)
            return
        running: deque[Future[Batch]] = deque()
        try:
            for batch in batches:
                running.append(self._pool.submit(self.enlarge, batch))
                if len(running) > len(self._lanes):
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()


class Lane:
    """One engine that does not give up, for one thread at a time."""

    def __init__(
        self, engine: Engine, tiling: Tiling, notices: list[str], open_fp32: Callable[[str], Engine] | None
    ) -> None:
        self.engine = engine
        self._tiling = tiling
        self._notices = notices
        self._open_fp32 = open_fp32
        self._fp32: Engine | None = None
        self._too_large_px = math.inf  # area of the smallest tile that did not fit

    @property
    def spec(self) -> EngineSpec:
        """Facts about the engine."""
        return self.engine.spec

    def close(self) -> None:
        """Close the engine, and the float32 one where there was need of it."""
        for engine in (self.engine, self._fp32):
            if engine is not None:
                engine.close()

    def enlarge_all(self, batches: Iterable[Batch], on_share: OnShare = not_told) -> Generator[Batch]:
        """Each batch enlarged, in the same order."""
        yield from (self.enlarge(batch, on_share) for batch in batches)

    def enlarge(self, batch: Batch, on_share: OnShare = not_told) -> Batch:
        """Enlarge a batch of tiles, whatever it takes.

        Args:
            batch: (N, 3, h, w) float32 RGB in [0, 1].
            on_share: told how far it is, as long as that is done in one piece.

        Returns:
            (N, 3, h * scale, w * scale) float32 RGB, finite.

        Raises:
            OutOfMemory: not even a tile of SMALLEST_PART_PX fits.
            NotFinite: values are not finite even in float32.
        """
        if batch.shape[2] * batch.shape[3] < self._too_large_px:
            try:
                return self._run_finite(batch, on_share)
            except OutOfMemory as error:
                self._note_out_of_memory(batch, error)
        if len(batch) > 1:
            return np.concatenate([self.enlarge(batch[i : i + 1]) for i in range(len(batch))])
        return self._enlarge_in_parts(batch[0])[None]

    def _note_out_of_memory(self, batch: Batch, error: OutOfMemory) -> None:
        height, width = batch.shape[2:]
        if len(batch) > 1:
            return
        if self.spec.size.fixed_px is not None:
            raise OutOfMemory(
                f"out of memory with a tile of {width} x {height} px, and this network takes no other size: close "
                f"other programs, or take one of a smaller shape ({error})"
            ) from error
        if max(height, width) <= SMALLEST_PART_PX:
            raise OutOfMemory(
                f"out of memory with a tile of {width} x {height} px, the smallest that is tried: "
                f"close other programs or use a smaller network ({error})"
            ) from error
        self._too_large_px = min(self._too_large_px, height * width)
        self._notices.append(f"out of memory with a tile of {width} x {height} px: gone on with smaller parts")

    def _enlarge_in_parts(self, tile: Band) -> Band:
        """The same tile from parts that read three quarters of its longer side; each may be parted again."""
        _, height, width = tile.shape
        side = max(height, width)
        overlap = min(self._tiling.overlap_px, side // 4)
        plan = plan_tiles(
            height,
            width,
            tile_px=side * 3 // 4 - 2 * overlap,
            overlap_px=overlap,
            blend=self._tiling.blend,
            multiple_of=self.spec.size.multiple_of,
        )
        return np.concatenate(list(_enlarge_planned(RowWindow([tile]), plan, self, _Finished())), axis=1)

    def _run_finite(self, batch: Batch, on_share: OnShare) -> Batch:
        output = self.engine.run_watched(batch, on_share)
        if is_sound(batch, output):
            return output
        if self._fp32 is None and self._open_fp32 is not None:
            self._fp32 = self._open_fp32(self.spec.device)
            self._notices.append(f"values were not finite in {self.spec.precision}: such tiles were done again in fp32")
        if self._fp32 is not None:
            output = self._fp32.run(batch)
        if not is_sound(batch, output):
            precision = self.spec.precision if self._fp32 is None else "fp32"
            raise NotFinite(
                f"{self.spec.name} on {self.spec.device} gave values that are no picture even in {precision}: "
                "try another --engine or --device; the weights may be damaged"
            )
        return output


def is_sound(batch: NDArray[np.float32], output: NDArray[np.float32]) -> bool:
    """Whether every value is finite, and a picture that is not black did not come out black.

    The sum is finite only if every value is: one pass, and no array of truth values.
    """
    total = float(output.sum(dtype=np.float32))
    if not math.isfinite(total) and not np.isfinite(output).all():
        return False
    return total > 0 or float(output.max()) > 1 / 255 or float(batch.mean()) < 2 / 255


def plan_for(network: Network, height_px: int, width_px: int) -> TilePlan:
    """The plan that `enlarge_bands` follows for an image of this size."""
    size, tiling, scale = network.spec.size, network.tiling, network.spec.scale
    least_height, least_width = size.fixed_px or (size.minimum_px, size.minimum_px)
    tile_width = tile_height = tiling.tile_px
    if height_px * width_px <= tiling.one_piece_px:
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
    network: Network,
    *,
    height_px: int,
    width_px: int,
    on_pixels: Callable[[int], None] | None = None,
) -> Iterator[Band]:
    """Enlarge a stream of bands by the network's scale.

    Args:
        bands: (3, rows, width_px) float32 RGB in [0, 1], height_px rows in all.
        network: what enlarges each tile.
        height_px: height of the image. Likewise `width_px`.
        on_pixels: called with the number of input pixels that were finished since: after each batch, and on the way
            where the engine tells how far it is. What it raises ends the work.

    Yields:
        (3, rows, width_px * scale) float32 RGB, not clamped; height_px * scale rows in all.
    """
    plan = plan_for(network, height_px, width_px)
    window, finished = RowWindow(_padded_bands(bands, plan, height_px, width_px)), _Finished(on_pixels)
    enlarged: Iterator[Band]
    if network.joins_tiles:
        enlarged = _enlarge_on_device(window, plan, network, finished, eight_bit=False)
    else:
        enlarged = _enlarge_planned(window, plan, network, finished)
    scale = network.spec.scale
    return crop_bands(enlarged, height_px=height_px * scale, width_px=width_px * scale)


def enlarge_to_levels(
    bands: Iterable[Band],
    network: Network,
    *,
    height_px: int,
    width_px: int,
    on_pixels: Callable[[int], None] | None = None,
) -> Iterator[Band | FinishedBand]:
    """Enlarge a stream of bands by an engine that joins tiles, and have it clamp and round them to 8 bits as well.

    That is a quarter to fetch from its device. Arguments are those of `enlarge_bands`.

    Yields:
        (3, rows, width_px * scale) uint8 levels; where the rest of an image had to be joined here, float32 RGB.
    """
    plan = plan_for(network, height_px, width_px)
    window = RowWindow(_padded_bands(bands, plan, height_px, width_px))
    enlarged = _enlarge_on_device(window, plan, network, _Finished(on_pixels), eight_bit=True)
    scale = network.spec.scale
    return crop_bands(enlarged, height_px=height_px * scale, width_px=width_px * scale)


def _padded_bands(bands: Iterable[Band], plan: TilePlan, height_px: int, width_px: int) -> Iterable[Band]:
    bottom, right = plan.rows.length_px - height_px, plan.columns.length_px - width_px
    return pad_bands(bands, bottom_px=bottom, right_px=right) if bottom or right else bands


class _Finished:
    """Tells of pixels that are finished: all of a batch when it is, and before that the share of it."""

    def __init__(self, on_pixels: Callable[[int], None] | None = None) -> None:
        self._on_pixels = on_pixels
        self._batch_px = self._told_px = 0

    def begin(self, batch_px: int) -> None:
        """The next batch is taken up; it answers for so many pixels."""
        self._batch_px, self._told_px = batch_px, 0

    def share(self, share: float) -> None:
        """So much of it is done."""
        more_px = int(self._batch_px * share) - self._told_px
        if self._on_pixels is not None and more_px > 0:
            self._told_px += more_px
            self._on_pixels(more_px)


def _enlarge_on_device(
    window: RowWindow, plan: TilePlan, network: Network, finished: _Finished, *, eight_bit: bool
) -> Iterator[Any]:
    """One row of tiles after another, joined by the engine: the next one is begun before this one is waited for.

    Where a row does not fit or is no picture, the rest of the image is joined here, tile by tile, which knows what to
    do about either.
    """
    with closing(network.engine.open_tile_rows(plan, eight_bit=eight_bit)) as tile_rows:
        begun: deque[tuple[int, Band, PendingRow]] = deque()
        for number, row in enumerate(plan.rows.tiles):
            rows = window.rows(row.start, row.start + plan.rows.tile_px)
            begun.append((number, rows, tile_rows.push(number, rows)))
            is_last = number == len(plan.rows.tiles) - 1
            while len(begun) > (0 if is_last else 1):
                index, lr, pending = begun.popleft()
                finished.begin(_finished_px(plan.rows.tiles[index], plan.columns.tiles, plan))
                try:
                    band = pending.result(finished.share)
                except (OutOfMemory, NotFinite) as error:
                    network.notices.append(f"{error}: gone on with single tiles")
                    band = None
                if band is None:
                    begun.clear()
                    del pending  # what failed keeps its memory on the device as long as it is known here
                    yield from _rest_by_tiles(index, lr, window, plan, network, finished, tile_rows)
                    return
                finished.share(1.0)
                yield band


def _rest_by_tiles(
    index: int,
    lr: Band,
    window: RowWindow,
    plan: TilePlan,
    network: Network,
    finished: _Finished,
    tile_rows: TileRows,
) -> Iterator[Band]:
    """The image from row of tiles `index` on, which reads `lr`, joined on the host."""
    held_back = tile_rows.fade(index - 1) if index else None
    tile_rows.close()  # its memory is what single tiles may need
    first = plan.rows.tiles[index].start
    known = first + lr.shape[1]

    def lr_rows() -> Iterator[Band]:
        yield lr
        for start, stop in in_chunks(plan.rows.length_px - known):
            yield window.rows(known + start, known + stop)

    rest = replace(plan, rows=replace(plan.rows, tiles=plan.rows.tiles[index:]))
    yield from _enlarge_planned(RowWindow(lr_rows(), first), rest, network, finished, held_back)


def _enlarge_planned(
    window: RowWindow, plan: TilePlan, enlarger: Enlarger, finished: _Finished, held_back: Band | None = None
) -> Iterator[Band]:
    """One row of tiles after another; the rows that the next one fades into are held back."""
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
            yield joined if held_back is None else joined[:, :-fade_rows]


def _tiles(window: RowWindow, plan: TilePlan, size: int) -> Iterator[Batch]:
    """Every tile of the plan in batches of up to `size`, row by row; a row's tiles are read when they are asked for."""
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
    finished: _Finished,
) -> Band:
    """The next tiles of `enlarged` -> (3, (row.last - row.first) * scale, width * scale): those of one row, joined."""
    columns = plan.columns
    top, bottom = (row.first - row.start) * scale, (row.last - row.start) * scale
    joined = np.zeros((3, bottom - top, columns.length_px * scale), np.float32)
    for batch in _batches(columns.tiles, size):
        finished.begin(_finished_px(row, batch, plan))
        for column, tile in zip(batch, next(enlarged), strict=True):
            left, right = (column.first - column.start) * scale, (column.last - column.start) * scale
            part, place = tile[:, top:bottom, left:right], joined[:, :, column.first * scale : column.last * scale]
            if columns.blend_px:
                place += part * columns.weights(column, scale)
            else:
                place[...] = part
        finished.share(1.0)
    return joined


def _finished_px(row: AxisTile, columns: tuple[AxisTile, ...], plan: TilePlan) -> int:
    """Input pixels that these tiles answer for; over all tiles of a plan they sum to the image's area."""

    def share(axis_tile: AxisTile, length: int, blend: int) -> int:
        fades = (axis_tile.first > 0) + (axis_tile.last < length)
        return axis_tile.last - axis_tile.first - fades * blend

    height = share(row, plan.rows.length_px, plan.rows.blend_px)
    width = sum(share(column, plan.columns.length_px, plan.columns.blend_px) for column in columns)
    return height * width


def _batches(tiles: tuple[AxisTile, ...], size: int) -> Iterator[tuple[AxisTile, ...]]:
    return (tiles[i : i + size] for i in range(0, len(tiles), size))


def _padded(length: int, minimum: int, multiple: int) -> int:
    return -(-max(length, minimum) // multiple) * multiple

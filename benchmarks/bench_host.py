"""Measures the host's share where a GPU enlarges: host time of the tiled runtime, and pixels computed twice.

    python benchmarks/bench_host.py [--runs 9]

Host time: the engine costs nothing, for it hands out what lies ready; what is left is what the tiled runtime does to
every pixel. "joined on the host" is cutting, checking, joining and rounding of float32 tiles; "joined on the device" is
what is left of that where the engine joins the tiles and gives finished bytes (its copy of the input included). The
ways take turns in one process; milliseconds for each megapixel of the result, from float32 planes to interleaved bytes.

Pixels computed: all that the tiles of a plan read, for each pixel of a photo of 12 MP. They follow from the GPU's
memory, and where the host has little of that, from it too. No GPU is needed for either.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import report
from numpy.typing import NDArray

from realesr.engine import EngineBase, EngineSpec, ProgressCallback, SizeRule, check_batch
from realesr.engines import model_facts
from realesr.engines.memory_cost import GPU_COST, GPU_PIECES
from realesr.machine.memory import free_bytes
from realesr.models.architecture import Architecture
from realesr.models.zoo import ZOO
from realesr.options import NetworkOptions
from realesr.runtime.engine_pool import EnginePool
from realesr.runtime.pipeline import rows_from_bands
from realesr.runtime.rows import Band, FinishedBand
from realesr.runtime.tiled import enlarge_bands, enlarge_to_levels, plan_for
from realesr.runtime.tiles import TilePlan, fade_in
from realesr.runtime.tiling import BAND_BYTES, BLEND_OVERLAP_PX, Tiling, tiling_for

MODEL = "realesrgan-x4plus"
SCALE = 4
PHOTO_PX = (3000, 4000)
"""Height and width of a photo of 12 MP."""
HOST_PX = (1536, 2048)
"""Height and width of the image whose host time is measured: 50 MP come out."""
CPU_TILE_PX = 288
"""Side that tiles read before GPUs had a policy of their own, at commit 7f45186: memory.LARGEST_TILE_PX."""
GPU_TILE_PX = 1024
GPU_BYTES = 16_000_000_000


def computed_per_px(plan: TilePlan, height_px: int, width_px: int) -> float:
    """Return the pixels that the tiles of a plan read, for each pixel of the image."""
    tile_height, tile_width = plan.tile_shape
    return len(plan) * tile_height * tile_width / (height_px * width_px)


class ReadyEngine(EngineBase):
    """Takes no time: hands out the same result for every tile, and for every row of tiles where it joins them."""

    def __init__(self, *, joins_tiles: bool, device_bytes: int | None = None) -> None:
        self.spec = EngineSpec(
            name="torch",
            scale=SCALE,
            precision="fp16",
            device="cuda:0",
            size=SizeRule(),
            joins_tiles=joins_tiles,
            device_bytes=device_bytes,
            pieces=GPU_PIECES,
        )
        self._tile: NDArray[np.float32] = np.empty(0, np.float32)

    def run(self, batch: NDArray[np.float32], on_progress: ProgressCallback | None = None) -> NDArray[np.float32]:
        """Hand out the result; see `Engine.run`."""
        check_batch(batch, self.spec)
        count, channels, height, width = batch.shape
        shape = (count, channels, height * SCALE, width * SCALE)
        if self._tile.shape != shape:
            self._tile = np.random.default_rng(0).random(shape, np.float32)
        return self._tile

    def bytes_for(self, architecture: Architecture, height_px: int, width_px: int, *, in_strips: bool = False) -> float:
        """Return the memory of engine torch on a GPU; see `Engine.bytes_for`."""
        return GPU_COST.bytes_for(architecture, height_px, width_px, self.spec.precision)

    def open_tile_rows(self, plan: TilePlan, *, eight_bit: bool) -> "ReadyRows":
        """Begin an image; see `Engine.open_tile_rows`."""
        assert eight_bit
        return ReadyRows(plan)


class ReadyRows:
    """Finished rows as a GPU copies them into the computer's memory: interleaved bytes, seen as planes."""

    def __init__(self, plan: TilePlan) -> None:
        self._plan = plan
        self._fade_rows = len(fade_in(plan.rows.blend_px, SCALE))
        rows = max((row.last - row.first) * SCALE for row in plan.rows.tiles)
        shape = (rows, plan.columns.length_px * SCALE, 3)
        self._levels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        self._input = np.empty((3, plan.rows.tile_px, plan.columns.length_px), np.float32)

    def push(self, index: int, lr: Band) -> "ReadyRow":
        """Copy the input, as into page-locked memory; see `TileRows.push`."""
        np.copyto(self._input, lr)
        row = self._plan.rows.tiles[index]
        held_back = 0 if row is self._plan.rows.tiles[-1] else self._fade_rows
        return ReadyRow(self._levels[: (row.last - row.first) * SCALE - held_back].transpose(2, 0, 1))

    def fade(self, index: int) -> Band | None:
        """Return None: no row fails, so that nobody asks."""
        return None

    def close(self) -> None:
        """Do nothing: there is nothing to free."""


class ReadyRow:
    """A row that is ready at once; see `realesr.runtime.tile_rows.PendingRow`."""

    def __init__(self, band: FinishedBand) -> None:
        self._band = band

    def result(self, on_progress: ProgressCallback) -> FinishedBand:
        """Hand out the rows."""
        return self._band


def host_ways(height_px: int, width_px: int) -> dict[str, Callable[[], int]]:
    """Return ways of the tiled runtime; each enlarges an image and returns the number of bytes that came out."""
    planes = [np.random.default_rng(1).random((3, height_px, width_px), np.float32)]

    def network(read_px: int, *, joins_tiles: bool) -> EnginePool:
        tile_px = read_px - 2 * BLEND_OVERLAP_PX
        tiling = Tiling(tile_px=tile_px, overlap_px=BLEND_OVERLAP_PX, blend=True)
        return EnginePool(ReadyEngine(joins_tiles=joins_tiles), tiling=tiling)

    def joined_on_host(read_px: int) -> int:
        bands = enlarge_bands(iter(planes), network(read_px, joins_tiles=False), height_px=height_px, width_px=width_px)
        return sum(rows.nbytes for rows in rows_from_bands(bands, bits=8))

    def joined_on_device(read_px: int) -> int:
        bands = enlarge_to_levels(
            iter(planes), network(read_px, joins_tiles=True), height_px=height_px, width_px=width_px
        )
        return sum(rows.nbytes for rows in rows_from_bands(bands, bits=8))

    return {
        f"joined on the host, {CPU_TILE_PX} px": lambda: joined_on_host(CPU_TILE_PX),
        f"joined on the host, {GPU_TILE_PX} px": lambda: joined_on_host(GPU_TILE_PX),
        f"joined on the device, {GPU_TILE_PX} px": lambda: joined_on_device(GPU_TILE_PX),
    }


def host_rows(runs: int, height_px: int, width_px: int) -> list[dict[str, Any]]:
    """Return median and spread of each way, which take turns; the first turn is left out."""
    ways = host_ways(height_px, width_px)
    output_mp = height_px * width_px * SCALE**2 / 1e6
    times: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(runs + 1):
        for way, step in ways.items():
            started = time.perf_counter()
            came_out = step()
            taken = time.perf_counter() - started
            assert came_out == height_px * width_px * SCALE**2 * 3  # every pixel, once
            if turn:
                times[way].append(taken * 1e3 / output_mp)
    first = statistics.median(next(iter(times.values())))
    return [
        {
            "way": way,
            "ms_per_output_mp": statistics.median(taken),
            "least": min(taken),
            "most": max(taken),
            "times_less": first / statistics.median(taken),
            "runs": runs,
        }
        for way, taken in times.items()
    ]


def computed_rows() -> Iterator[dict[str, Any]]:
    """Yield pixels computed for each pixel of a photo of 12 MP, before and after."""
    height, width = PHOTO_PX
    facts = model_facts(ZOO[MODEL])
    before = Tiling(
        tile_px=CPU_TILE_PX - 2 * BLEND_OVERLAP_PX, overlap_px=BLEND_OVERLAP_PX, blend=True, band_bytes=BAND_BYTES
    )
    yield _computed_row("from the host's memory, as at 7f45186", before, None, height, width)
    for joins_tiles in (False, True):
        engine = ReadyEngine(joins_tiles=joins_tiles, device_bytes=GPU_BYTES)
        after = tiling_for(facts, NetworkOptions(model=MODEL), engine)
        what = f"from {GPU_BYTES / 1e9:g} GB of a GPU, joined on the {'device' if joins_tiles else 'host'}"
        yield _computed_row(what, after, GPU_BYTES, height, width)


def _computed_row(what: str, tiling: Tiling, free_bytes: int | None, height: int, width: int) -> dict[str, Any]:
    plan = plan_for(EnginePool(ReadyEngine(joins_tiles=False), tiling=tiling), height, width)
    return {
        "tiles": what,
        "read_px": "{1} x {0}".format(*plan.tile_shape),
        "count": len(plan),
        "computed_per_px": computed_per_px(plan, height, width),
    }


def main() -> None:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9, help="turns that are counted")
    arguments = parser.parse_args()
    computed = list(computed_rows())
    report.show(f"Pixels computed for each pixel of {PHOTO_PX[1]} x {PHOTO_PX[0]}, {MODEL}", computed)
    rows = host_rows(arguments.runs, *HOST_PX)
    report.show("Host time of the tiled runtime", rows)
    report.save("host", rows, computed=computed, image_px=list(HOST_PX), host_free_gb=free_bytes() / 1e9)


if __name__ == "__main__":
    main()

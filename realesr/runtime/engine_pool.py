"""The engines that one network is open in, with fallbacks for tiles that do not fit or fail."""

import math
import queue
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from realesr.engine import Engine, EngineSpec, ProgressCallback, no_progress
from realesr.errors import NotFinite, OutOfMemory
from realesr.runtime.rows import Band, RowWindow
from realesr.runtime.tile_joining import Batch, PixelProgress, enlarge_planned
from realesr.runtime.tiles import plan_tiles
from realesr.runtime.tiling import SMALLEST_PART_PX, Tiling


class EnginePool:
    """One network, open on one device or several, with fallbacks; safe to call from several threads.

    Args:
        engines: one for each device; closed by `close`. Tiles go to whichever is idle.
        open_fp32: opens the network in float32 on the device that it is given, for tiles whose values are not finite;
            none where the engines are float32 already.
        tiling: how its images are cut.
        chosen_because: why the automatic choice took this engine and device; empty where both were asked for.
    """

    def __init__(
        self,
        *engines: Engine,
        tiling: Tiling,
        open_fp32: Callable[[str], Engine] | None = None,
        chosen_because: str = "",
    ) -> None:
        self.tiling = tiling
        self.chosen_because = chosen_because
        self.notices: list[str] = []
        self._engines = [EngineWithFallbacks(engine, tiling, self.notices, open_fp32) for engine in engines]
        self._idle: queue.SimpleQueue[EngineWithFallbacks] = queue.SimpleQueue()
        for engine in self._engines:
            self._idle.put(engine)
        self._threads = ThreadPoolExecutor(len(engines), "realesr-device") if len(engines) > 1 else None

    @property
    def engine(self) -> Engine:
        """Return the first engine; the others differ in their device alone."""
        return self._engines[0].engine

    @property
    def spec(self) -> EngineSpec:
        """Return the facts about the first engine."""
        return self.engine.spec

    @property
    def devices(self) -> str:
        """Return the devices that it runs on: "cpu", "cuda:0, cuda:1"."""
        return ", ".join(engine.spec.device for engine in self._engines)

    @property
    def joins_tiles(self) -> bool:
        """Return whether the engine joins an image's tiles; several cannot, as each has only some of the tiles."""
        return self.spec.joins_tiles and len(self._engines) == 1

    def close(self) -> None:
        """Close the engines, and the float32 ones where they were opened."""
        if self._threads is not None:
            self._threads.shutdown()
        for engine in self._engines:
            engine.close()

    def enlarge(self, batch: Batch, on_progress: ProgressCallback = no_progress) -> Batch:
        """Enlarge a batch on the next idle device; see `EngineWithFallbacks.enlarge`."""
        with self.idle_engine() as engine:
            return engine.enlarge(batch, on_progress)

    @contextmanager
    def idle_engine(self) -> Iterator["EngineWithFallbacks"]:
        """Wait for an idle engine, and yield it for exclusive use."""
        engine = self._idle.get()
        try:
            yield engine
        finally:
            self._idle.put(engine)

    def enlarge_all(self, batches: Iterable[Batch], on_progress: ProgressCallback = no_progress) -> Generator[Batch]:
        """Enlarge each batch, in the same order: one per device at a time, and one more in the queue.

        With several devices `on_progress` is not called.
        """
        if self._threads is None:
            yield from (self.enlarge(batch, on_progress) for batch in batches)
            return
        running: deque[Future[Batch]] = deque()
        try:
            for batch in batches:
                running.append(self._threads.submit(self.enlarge, batch))
                if len(running) > len(self._engines):
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()


class EngineWithFallbacks:
    """One engine, for one thread at a time, that goes on with smaller parts or in float32 where a tile fails."""

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
        """Return the facts about the engine."""
        return self.engine.spec

    def close(self) -> None:
        """Close the engine, and the float32 one where it was opened."""
        for engine in (self.engine, self._fp32):
            if engine is not None:
                engine.close()

    def enlarge_all(self, batches: Iterable[Batch], on_progress: ProgressCallback = no_progress) -> Generator[Batch]:
        """Enlarge each batch, in the same order."""
        yield from (self.enlarge(batch, on_progress) for batch in batches)

    def enlarge(self, batch: Batch, on_progress: ProgressCallback = no_progress) -> Batch:
        """Enlarge a batch of tiles: as it is, else in smaller parts, else in float32.

        Args:
            batch: (N, 3, h, w) float32 RGB in [0, 1].
            on_progress: called as long as the batch is done as a whole.

        Returns:
            (N, 3, h * scale, w * scale) float32 RGB, finite.

        Raises:
            OutOfMemory: not even a tile of SMALLEST_PART_PX fits.
            NotFinite: values are not finite even in float32.
        """
        if batch.shape[2] * batch.shape[3] < self._too_large_px:
            try:
                return self._run_finite(batch, on_progress)
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
        """Enlarge a tile in parts that read three quarters of its longer side; each may be divided again."""
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
        return np.concatenate(list(enlarge_planned(RowWindow([tile]), plan, self, PixelProgress())), axis=1)

    def _run_finite(self, batch: Batch, on_progress: ProgressCallback) -> Batch:
        output = self.engine.run(batch, on_progress)
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
                "another engine or device may do better; the weights may be damaged"
            )
        return output


def is_sound(batch: NDArray[np.float32], output: NDArray[np.float32]) -> bool:
    """Return whether every value is finite, and the result is not black unless the image is.

    The sum is finite only if every value is: one pass, and no array of truth values.
    """
    total = float(output.sum(dtype=np.float32))
    if not math.isfinite(total) and not np.isfinite(output).all():
        return False
    return total > 0 or float(output.max()) > 1 / 255 or float(batch.mean()) < 2 / 255

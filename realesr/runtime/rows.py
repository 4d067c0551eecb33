"""Streams of bands: an image as an iterator of (channels, rows, width) arrays from top to bottom.

A band has any number of rows. Everything between decoding and encoding reads such a stream and yields one, so that
memory never grows with the height.
"""

import queue
import threading
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Band = NDArray[np.float32]

FinishedBand = NDArray[np.uint8]
"""A band whose samples are 8-bit levels already: (channels, rows, width) uint8."""

ROWS_A_CHUNK = 64
"""Rows that a stage hands on at once where it is free to choose: a few MB at the width of a large photo."""


class RowWindow:
    """A window of rows that moves down a stream of bands."""

    def __init__(self, bands: Iterable[Band], first: int = 0) -> None:
        """Open a window on a stream whose first row is row `first` of the image."""
        self._bands = iter(bands)
        self._held: list[Band] = []
        self._first = first  # image row of the first row held

    def rows(self, start: int, stop: int) -> Band:
        """Return rows [start, stop) as one array, and drop those before `start`: a later call must not go back.

        Raises:
            ValueError: the stream ends before `stop`, or row `start` was dropped.
        """
        if start < self._first:
            raise ValueError(f"row {start} was given up: the window begins at row {self._first}")
        self._drop(start)
        while self._stop() < stop:
            band = next(self._bands, None)
            if band is None:
                raise ValueError(f"the stream ended at row {self._stop()}, expected {stop}")
            self._held.append(band)
            self._drop(start)
        joined = self._held[0] if len(self._held) == 1 else np.concatenate(self._held, axis=1)
        self._held, self._first = [joined[:, start - self._first :]], start
        return self._held[0][:, : stop - start]

    def _stop(self) -> int:
        """Return the image row after the last row held."""
        return self._first + sum(len(band[0]) for band in self._held)

    def _drop(self, start: int) -> None:
        """Drop the bands that end before row `start`."""
        while self._held and self._first + self._held[0].shape[1] <= start:
            self._first += self._held.pop(0).shape[1]


def in_chunks(height_px: int, rows: int = ROWS_A_CHUNK) -> Iterator[tuple[int, int]]:
    """Return half-open spans of at most `rows` rows that cover `height_px` rows."""
    return ((start, min(start + rows, height_px)) for start in range(0, height_px, rows))


def pad_bands(bands: Iterable[Band], *, bottom_px: int, right_px: int) -> Iterator[Band]:
    """Yield the bands with their last column repeated `right_px` times, then the last row `bottom_px` times."""
    band = None
    for band in bands:
        if right_px:
            band = np.pad(band, ((0, 0), (0, 0), (0, right_px)), mode="edge")
        yield band
    if bottom_px and band is not None:
        yield np.repeat(band[:, -1:], bottom_px, axis=1)


def crop_bands(bands: Iterable[Band | FinishedBand], *, height_px: int, width_px: int) -> Iterator[Band | FinishedBand]:
    """Yield the top left height_px x width_px of a stream."""
    left = height_px
    for band in bands:
        if left > 0:
            yield band[:, :left, :width_px]
        left -= band.shape[1]


def rounded_to_levels(values: Band, bits: int) -> Band:
    """Return values in [0, 1], clamped, as whole levels of `bits` bits, still in float32."""
    levels = values * np.float32(2**bits - 1)
    np.rint(levels, out=levels)
    return np.clip(levels, 0, 2**bits - 1, out=levels)


@dataclass(frozen=True)
class _Ended:
    """The last item of a queue: the producer has finished or failed."""

    error: BaseException | None = None


def prefetch(items: Iterator[Any], depth: int = 2) -> Generator[Any]:
    """Yield the same items, computed up to `depth` ahead by a thread. Closing the generator ends the thread."""
    ready: queue.Queue[Any] = queue.Queue(maxsize=depth)
    stop = threading.Event()
    thread = threading.Thread(target=_produce, args=(items, ready, stop), name="realesr-prefetch", daemon=True)
    thread.start()
    try:
        while not isinstance(item := ready.get(), _Ended):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stop.set()
        thread.join()


def _produce(items: Iterator[Any], ready: "queue.Queue[Any]", stop: threading.Event) -> None:
    """Put all items into the queue, then their end; runs in the producer's thread."""
    try:
        for item in items:
            if not _offer(item, ready, stop):
                return
        _offer(_Ended(), ready, stop)
    except BaseException as error:  # raised again by the consumer
        _offer(_Ended(error), ready, stop)
    finally:
        if hasattr(items, "close"):
            items.close()


def _offer(item: Any, ready: "queue.Queue[Any]", stop: threading.Event) -> bool:
    """Put an item as soon as there is room; return False once the consumer has stopped."""
    while not stop.is_set():
        try:
            ready.put(item, timeout=0.1)
            return True
        except queue.Full:
            continue
    return False

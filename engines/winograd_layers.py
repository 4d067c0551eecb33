"""Maps, weights and convolutions for the kernel of winograd.c, and the threads that share their tiles."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from realesr.engines.winograd_kernel import TILE_PX, Convolution, Kernel, Points, aligned
from realesr.rows import in_chunks

LARGEST_BLOCK = 96
"""Tiles that a thread takes at a time. Fewer read all weights more often, more leave the caches."""
TILES_AT_ONCE = 6
"""Of a block, for which the kernel is fastest."""
BLOCKS_A_CHUNK = 8
"""Of a dense block's work at a time: 190 MB of points (x4plus). With one, every block reads other weights than the
one before it, which takes a tenth more time."""


class FeatureMap:
    """One map: `height` x `width` pixels, one of zeros around them, and as many more as make whole tiles.

    `numbers` is all of it, (rows, columns, channels) of zeros in the beginning; `inside` is the part without zeros.
    """

    def __init__(self, height: int, width: int, channels: int, *, numbers: NDArray[np.float32] | None = None) -> None:
        self.height, self.width, self.channels = height, width, channels
        shape = padded_shape(height, width, channels)
        self.numbers = aligned(shape) if numbers is None else numbers
        assert self.numbers.shape == shape
        self.inside = self.numbers[1 : height + 1, 1 : width + 1]


def padded_shape(height: int, width: int, channels: int) -> tuple[int, int, int]:
    """What a map's numbers take."""
    return tiles_along(height) * TILE_PX + 2, tiles_along(width) * TILE_PX + 2, channels


def tiles_along(length_px: int) -> int:
    """Tiles that cover a side."""
    return -(-length_px // TILE_PX)


class Layer:
    """Weights of one convolution, and the slopes behind it."""

    def __init__(
        self,
        kernel: Kernel,
        filters: NDArray[np.float32],
        bias: NDArray[np.float32],
        *,
        inputs: tuple[int, ...],
        slopes: NDArray[np.float32] | None = None,
    ) -> None:
        """`inputs`: channels of what is joined to its input; each part is padded in its map."""
        count = len(bias)
        self.channels = kernel.padded(count)
        wide = np.zeros((self.channels, sum(map(kernel.padded, inputs)), 3, 3), np.float32)
        first, place = 0, 0
        for channels in inputs:
            wide[:count, place : place + channels] = filters[:, first : first + channels]
            first, place = first + channels, place + kernel.padded(channels)
        self.weights = kernel.weights(wide)
        self.bias = self._padded(bias)
        self.slopes = None if slopes is None else self._padded(slopes)

    def _padded(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        padded = aligned((self.channels,))
        padded[: len(values)] = values
        return padded


@dataclass(frozen=True)
class Step:
    """One convolution from map to map. It holds on to what its addresses belong to."""

    convolution: Convolution
    tiles: int
    belongings: tuple[object, ...]

    @property
    def work(self) -> int:
        """Multiplications at each of the 36 points: time goes by with them."""
        one = self.convolution
        work: int = self.tiles * (one.offset + one.input_channels) * one.output_channels
        return work


def step(
    layer: Layer,
    source: FeatureMap,
    target: FeatureMap,
    *,
    doubled: bool = False,
    joined: tuple[int, int] | None = None,
    top: int = 1,
    skip: tuple[FeatureMap, float] | None = None,
    outer: FeatureMap | None = None,
) -> Step:
    """Bind a layer to its maps.

    Args:
        layer: its weights.
        source: the map that it reads.
        target: the map that it writes; it may be `skip` or `outer` too.
        doubled: whether every pixel of `source` is read twice in either direction: nearest-neighbour doubling.
        joined: in a dense block, the channels of all its inputs together, and where those of `source` begin.
        top: row of the target's numbers that the first row of the result goes to. Otherwise the target has its size.
        skip: what is added after the activation, and the factor for it. Likewise `outer`, without a factor.
    """
    depth, offset = joined or (source.channels, 0)
    height, width = (source.height * 2, source.width * 2) if doubled else (source.height, source.width)
    assert target.channels == layer.channels and target.width == width
    convolution = Convolution(
        input=source.numbers.ctypes.data,
        input_row=source.numbers[0].size,
        input_channels=source.channels,
        doubled=int(doubled),
        depth=depth,
        offset=offset,
        weights=layer.weights.ctypes.data,
        bias=layer.bias.ctypes.data,
        slopes=None if layer.slopes is None else layer.slopes.ctypes.data,
        skip=None if skip is None else skip[0].inside.ctypes.data,
        skip_scale=0.0 if skip is None else skip[1],
        outer=None if outer is None else outer.inside.ctypes.data,
        output=target.numbers[top:, 1:].ctypes.data,
        output_row=target.numbers[0].size,
        output_channels=target.channels,
        height=height,
        width=width,
        tiles_across=tiles_along(width),
    )
    return Step(convolution, tiles_along(height) * tiles_along(width), (layer, source, target, skip, outer))


@dataclass(frozen=True)
class Task:
    """Some tiles of a convolution, for one thread."""

    step: Step
    first: int
    last: int
    points: Points | None = None
    """Of a dense block's inputs; none for a thread's own room."""


def block_size(tiles: int, threads: int) -> int:
    """Tiles of a block: as many blocks for each thread, none larger than LARGEST_BLOCK."""
    rounds = -(-tiles // (LARGEST_BLOCK * threads))
    return -(-tiles // (rounds * threads * TILES_AT_ONCE)) * TILES_AT_ONCE


class DenseRoom:
    """Room for the points of a dense block's inputs, which all its convolutions read, and an order that keeps it small.

    The tiles, in reading order, are cut into chunks of at least one row. A convolution looks one row ahead, so it can
    do a chunk when the one before it has done the chunk after. Thus at any time the five of them do five chunks at
    once, each two behind the one before it, and the points of nine chunks are kept, whatever the image's height:

        time      0    1    2    3    4  ...
        conv1     0    1    2    3    4
        conv2               0    1    2
        conv3                         0
    """

    _LAG = 2

    def __init__(self, first: Step, depth: int, convs: int, threads: int) -> None:
        """`first`: any convolution of the block; `depth`: channels of all inputs together."""
        self._tiles = first.tiles
        self._block = block_size(first.tiles, threads)
        a_row = -(-(first.convolution.tiles_across + 1) // self._block)
        self._blocks_a_chunk = max(BLOCKS_A_CHUNK, threads, a_row)
        self._chunks = -(-first.tiles // (self._blocks_a_chunk * self._block))
        kept = min(self._LAG * (convs - 1) + 1, self._chunks)
        self._points = [[Points(self._block, depth) for _ in range(self._blocks_a_chunk)] for _ in range(kept)]

    def phases(self, convs: list[Step]) -> Iterator[list[Task]]:
        """What can be done at the same time, one time after the other; in each the last convolution is first."""
        for time in range(self._chunks + self._LAG * (len(convs) - 1)):
            tasks: list[Task] = []
            for number in reversed(range(len(convs))):
                chunk = time - self._LAG * number
                if 0 <= chunk < self._chunks:
                    tasks += self._tasks(convs[number], chunk)
            yield tasks

    def _tasks(self, one: Step, chunk: int) -> list[Task]:
        points = self._points[chunk % len(self._points)]
        start = chunk * self._blocks_a_chunk * self._block
        firsts = [start + number * self._block for number in range(self._blocks_a_chunk)]
        return [
            Task(one, first, min(first + self._block, self._tiles), points[number])
            for number, first in enumerate(firsts)
            if first < self._tiles
        ]


class Workers:
    """Threads that share the tiles of each convolution."""

    def __init__(self, kernel: Kernel, threads: int) -> None:
        self.threads = threads
        self._kernel = kernel
        self._pool = ThreadPoolExecutor(threads - 1) if threads > 1 else None
        self._rooms: dict[tuple[int, str, int], Points] = {}

    def run_alone(self, one: Step) -> None:
        """One convolution."""
        size = block_size(one.tiles, self.threads)
        self.run([Task(one, first, last) for first, last in in_chunks(one.tiles, size)])

    def run(self, tasks: list[Task]) -> None:
        """Do them in any order, and all before this returns."""
        remaining = iter(tasks)  # shared: whoever is free takes the next one
        helpers = range(1, min(self.threads, len(tasks))) if self._pool else ()
        others = [self._pool.submit(self._work, remaining, thread) for thread in helpers if self._pool]
        self._work(remaining, 0)
        for other in others:
            other.result()

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()
        self._rooms.clear()

    def _work(self, tasks: Iterator[Task], thread: int) -> None:
        for task in tasks:
            convolution = task.step.convolution
            before = task.points or self._room(thread, "input", convolution.depth)
            after = self._room(thread, "output", convolution.output_channels)
            self._kernel.convolve(convolution, task.first, task.last, before, after)

    def _room(self, thread: int, use: str, channels: int) -> Points:
        """A thread's own room for the points of a block."""
        key = thread, use, channels
        if key not in self._rooms:
            self._rooms[key] = Points(LARGEST_BLOCK, channels)
        return self._rooms[key]

"""Convolutions bound to maps, cut into blocks of tiles, and the threads that share these."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import wait
from dataclasses import dataclass
from typing import Any, TypeVar

from realesr.engines.winograd.filters import Filters
from realesr.engines.winograd.kernel import ConvolutionStruct, Kernel, WinogradWorkspace
from realesr.engines.winograd.maps import MapRows, tiles_along
from realesr.machine.worker_threads import WorkerThreads
from realesr.runtime.rows import in_chunks

LARGEST_BLOCK = 72
"""Tiles that a thread takes at a time. Fewer read all weights more often; more are too few blocks for many threads."""
LARGEST_DENSE_BLOCK = 36
"""Likewise in dense blocks, whose points have to stay in a cache while a block of tiles is computed."""
BLOCK_STEP = 3
"""Blocks have multiples of so many tiles. The kernel multiplies six at once, and three in less time than that; in steps
of six, blocks are so uneven that a tenth of 32 threads waits."""
BLOCKS_A_CHUNK = 12
"""Of a dense block's work at a time: 190 MB of workspace (x4plus). With one, every block reads other weights than the
one before it, which takes a tenth more time; with six, a twentieth."""


Item = TypeVar("Item")


@dataclass(frozen=True)
class Step:
    """One convolution from map to map. It holds on to what its addresses belong to."""

    convolution: ConvolutionStruct
    tiles: int
    """Of a 1x1 convolution its rows."""
    owners: tuple[object, ...]


@dataclass(frozen=True, kw_only=True)
class Addend:
    """What a convolution's result is added to: a map times a factor."""

    rows: MapRows
    factor: float


def bind(
    filters: Filters,
    source: MapRows,
    target: MapRows,
    first_row: int,
    *,
    depth: int | None = None,
    offset: int = 0,
    addends: tuple[Addend, ...] = (),
) -> Step:
    """Bind a convolution to its maps.

    Args:
        filters: its weights, and what else does not depend on the maps.
        source: the map that it reads.
        target: the map that it writes, from `first_row` to its end; it may be that of an addend too.
        first_row: even where the source is enlarged.
        depth: in a dense block, the channels of all its inputs together. Likewise `offset`: where those of `source`
            begin.
        addends: what is added after the activation, up to two.
    """
    assert target.channels == filters.channels and not (filters.nearest_x2_input and first_row % 2)
    height, width = target.end_row - first_row, target.width
    convolution = ConvolutionStruct(
        input=source.address((first_row - 1) // (2 if filters.nearest_x2_input else 1)),
        input_row=source.values[0].size,
        input_channels=source.channels,
        depth=depth or source.channels,
        offset=offset,
        **filters.fields,
        **_addend_fields(addends, first_row),
        output=_pixel_address(target, first_row),
        output_row=target.values[0].size,
        output_channels=target.channels,
        height=height,
        width=width,
        tiles_across=tiles_along(width),
    )
    tiles = height if filters.is_1x1 else tiles_along(height) * tiles_along(width)
    return Step(convolution, tiles, (filters, source, target, addends))


def _addend_fields(addends: tuple[Addend, ...], first_row: int) -> dict[str, Any]:
    """Return the fields of `ConvolutionStruct` for what is added to the result."""
    fields: dict[str, Any] = {}
    for name, addend in zip(("skip", "outer"), addends, strict=False):
        fields |= {name: _pixel_address(addend.rows, first_row), f"{name}_scale": addend.factor}
    return fields


def _pixel_address(rows: MapRows, row: int) -> int:
    """Return the address of a row's first pixel."""
    return rows.address(row) + 4 * rows.channels


@dataclass(frozen=True)
class Task:
    """Some tiles of a convolution, for one thread."""

    step: Step
    first: int
    last: int
    workspace: WinogradWorkspace | None = None
    """Of a dense block's inputs; None for the thread's own."""


def block_size(tiles: int, threads: int, largest: int) -> int:
    """Return the tiles of a block: as many blocks for each thread, none larger than `largest`."""
    rounds = -(-tiles // (largest * threads))
    return -(-tiles // (rounds * threads * BLOCK_STEP)) * BLOCK_STEP


class Workers:
    """Threads that share the tiles of each convolution."""

    def __init__(self, kernel: Kernel, threads: int) -> None:
        self.threads = threads
        self._kernel = kernel
        self._pool = WorkerThreads(threads - 1, "realesr-winograd") if threads > 1 else None
        self._workspaces: dict[tuple[int, str, int], WinogradWorkspace] = {}

    def run_alone(self, step: Step) -> None:
        """Compute one convolution."""
        if step.tiles:
            size = block_size(step.tiles, self.threads, LARGEST_BLOCK)
            self.run([Task(step, first, last) for first, last in in_chunks(step.tiles, size)])

    def run(self, tasks: list[Task]) -> None:
        """Do the tasks in any order, and all of them before this returns."""
        self._share(self._work, tasks)

    def for_each(self, function: Callable[[Item], None], items: Sequence[Item]) -> None:
        """Call a function with each item, in any order, and with all of them before this returns."""

        def work(remaining: Iterator[Item], _thread: int) -> None:
            for item in remaining:
                function(item)

        self._share(work, items)

    def _share(self, work: Callable[[Iterator[Item], int], None], items: Sequence[Item]) -> None:
        """Have threads take items, each with its number, until there are none; what one raises is raised here."""
        remaining = iter(items)  # shared: whoever is free takes the next one
        helpers = range(1, min(self.threads, len(items))) if self._pool else ()
        others = [self._pool.submit(work, remaining, thread) for thread in helpers if self._pool]
        try:
            work(remaining, 0)
        finally:
            wait(others)
        for other in others:
            other.result()

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.close()
        self._workspaces.clear()

    def _work(self, tasks: Iterator[Task], thread: int) -> None:
        for task in tasks:
            convolution = task.step.convolution
            inputs = task.workspace or self._workspace(thread, "input", convolution.depth)
            outputs = self._workspace(thread, "output", convolution.output_channels)
            self._kernel.convolve(convolution, task.first, task.last, inputs, outputs)

    def _workspace(self, thread: int, use: str, channels: int) -> WinogradWorkspace:
        """Return a thread's own workspace for a block."""
        key = thread, use, channels
        if key not in self._workspaces:
            self._workspaces[key] = WinogradWorkspace(LARGEST_BLOCK, channels)
        return self._workspaces[key]

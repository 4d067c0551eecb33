"""The order in which a dense block's convolutions go through an image, and their inputs in the Winograd domain."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from realesr.engines.winograd import tiles
from realesr.engines.winograd.kernel import POINTS, WinogradWorkspace, workspace_point_floats
from realesr.engines.winograd.maps import tiles_along
from realesr.engines.winograd.tiles import Step, Task, block_size

_LAG = 2
"""Chunks between one convolution and the next."""


class DenseBlockSchedule:
    """Workspace for the inputs of a dense block, which all its convolutions read, and an order that keeps it small.

    The tiles, in reading order, are cut into chunks of at least one row. A convolution looks one row ahead, so it can
    do a chunk when the one before it has done the chunk after. Thus at any time the five of them do five chunks at
    once, each two behind the one before it, and the inputs of nine chunks are kept, whatever the image's height:

        time      0    1    2    3    4  ...
        conv1     0    1    2    3    4
        conv2               0    1    2
        conv3                         0
    """

    def __init__(self, width: int, depth: int, threads: int) -> None:
        """Allocate no workspace yet: it grows with the height of what comes, up to that of nine chunks.

        Args:
            width: of the maps.
            depth: channels of all inputs together.
            threads: how many share the tiles.
        """
        self._across, self._depth, self._threads = tiles_along(width), depth, threads
        self._workspaces: list[WinogradWorkspace] = []
        self._block = 0
        """Tiles that each of them holds."""

    def phases(self, convolutions: list[Step]) -> Iterator[list[Task]]:
        """Yield what can be done at the same time, one time after the other; in each the last convolution is first.

        A later convolution may have fewer tiles than an earlier one, at the bottom.
        """
        cut = _chunks(max(step.tiles for step in convolutions), self._across, len(convolutions), self._threads)
        self._reserve(cut)
        for time in range(cut.chunks + _LAG * (len(convolutions) - 1)):
            tasks: list[Task] = []
            for number in reversed(range(len(convolutions))):
                chunk = time - _LAG * number
                if 0 <= chunk < cut.chunks:
                    tasks += self._tasks(convolutions[number], chunk, cut)
            if tasks:
                yield tasks

    def _reserve(self, cut: "_Chunks") -> None:
        """Make the workspaces as many and as large as are needed."""
        if cut.block > self._block:
            self._block = cut.block
            self._workspaces.clear()  # their memory makes room first
        while len(self._workspaces) < cut.workspaces:
            self._workspaces.append(WinogradWorkspace(self._block, self._depth))

    def _tasks(self, step: Step, chunk: int, cut: "_Chunks") -> list[Task]:
        return [
            Task(step, first, min(last, step.tiles), self._workspaces[(chunk * cut.blocks + number) % cut.workspaces])
            for number, (first, last) in enumerate(cut.blocks_of(chunk))
            if first < step.tiles
        ]


@dataclass(frozen=True, kw_only=True)
class _Chunks:
    """How the tiles of a dense block are cut."""

    tiles: int
    """In all."""
    block: int
    """Tiles of a block, but in the last chunk."""
    blocks: int
    """Blocks of a chunk."""
    convolutions: int

    @property
    def chunks(self) -> int:
        """Return how many there are."""
        return -(-self.tiles // (self.blocks * self.block))

    @property
    def workspaces(self) -> int:
        """Return the blocks whose inputs are kept."""
        return min(_LAG * (self.convolutions - 1) + 1, self.chunks) * self.blocks

    def blocks_of(self, chunk: int) -> list[tuple[int, int]]:
        """Return the first and the end tile of each block, of which the larger ones come first.

        What is left for the last chunk is cut evenly too.
        """
        start = chunk * self.blocks * self.block
        count = min(self.blocks * self.block, self.tiles - start)
        steps, larger_blocks = divmod(-(-count // tiles.BLOCK_STEP), self.blocks)
        ends = [tiles.BLOCK_STEP * (steps * block + min(block, larger_blocks)) for block in range(self.blocks + 1)]
        return [(start + first, start + min(last, count)) for first, last in pairwise(ends) if first < last]


def _chunks(count: int, across: int, convolutions: int, threads: int) -> _Chunks:
    """Cut so many tiles, of which so many are a row: chunks of at least one more, in as many blocks for each thread."""
    block = block_size(count, threads, tiles.LARGEST_DENSE_BLOCK)
    least = max(max(tiles.BLOCKS_A_CHUNK, threads) * block, across + 1)
    blocks = -(-least // (block * threads)) * threads
    even = max(-(-count // -(-count // least)), across + 1)
    return _Chunks(tiles=count, block=_even_block(even, blocks), blocks=blocks, convolutions=convolutions)


def _even_block(count: int, blocks: int) -> int:
    """Return the size of so many blocks that hold so many tiles, in whole steps of the kernel."""
    return -(-count // (blocks * tiles.BLOCK_STEP)) * tiles.BLOCK_STEP


def dense_workspace_floats(height: int, width: int, depth: int, convolutions: int, threads: int) -> int:
    """Return the size of the workspace of so many convolutions for maps of this size; see `DenseBlockSchedule`."""
    across = tiles_along(width)
    cut = _chunks(tiles_along(height) * across, across, convolutions, threads)
    return cut.workspaces * POINTS * workspace_point_floats(cut.block, depth)

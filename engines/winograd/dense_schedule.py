"""The order in which a dense block's convolutions go through an image, and their inputs in the Winograd domain."""

from collections.abc import Iterator
from dataclasses import dataclass

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

    def phases(self, convolutions: list[Step]) -> Iterator[list[Task]]:
        """Yield what can be done at the same time, one time after the other; in each the last convolution is first.

        A later convolution may have fewer tiles than an earlier one, at the bottom.
        """
        cut = _chunks(max(step.tiles for step in convolutions), self._across, len(convolutions), self._threads)
        while len(self._workspaces) < cut.workspaces:
            self._workspaces.append(WinogradWorkspace(tiles.LARGEST_BLOCK, self._depth))
        for time in range(cut.chunks + _LAG * (len(convolutions) - 1)):
            tasks: list[Task] = []
            for number in reversed(range(len(convolutions))):
                chunk = time - _LAG * number
                if 0 <= chunk < cut.chunks:
                    tasks += self._tasks(convolutions[number], chunk, cut)
            yield tasks

    def _tasks(self, step: Step, chunk: int, cut: "_Chunks") -> list[Task]:
        start = chunk * cut.blocks
        return [
            Task(
                step,
                block * cut.block,
                min((block + 1) * cut.block, step.tiles),
                self._workspaces[block % cut.workspaces],
            )
            for block in range(start, start + cut.blocks)
            if block * cut.block < step.tiles
        ]


@dataclass(frozen=True, kw_only=True)
class _Chunks:
    """How the tiles of a dense block are cut."""

    block: int
    """Tiles of a block."""
    blocks: int
    """Blocks of a chunk."""
    chunks: int
    """Of all tiles."""
    workspaces: int
    """Blocks whose inputs are kept."""


def _chunks(count: int, across: int, convolutions: int, threads: int) -> _Chunks:
    """Cut so many tiles, of which so many are a row."""
    block = block_size(count, threads)
    blocks = max(tiles.BLOCKS_A_CHUNK, threads, -(-(across + 1) // block))
    chunks = -(-count // (blocks * block))
    kept = min(_LAG * (convolutions - 1) + 1, chunks)
    return _Chunks(block=block, blocks=blocks, chunks=chunks, workspaces=kept * blocks)


def dense_workspace_floats(height: int, width: int, depth: int, convolutions: int, threads: int) -> int:
    """Return the size of the workspace of so many convolutions for maps of this size; see `DenseBlockSchedule`."""
    across = tiles_along(width)
    cut = _chunks(tiles_along(height) * across, across, convolutions, threads)
    return cut.workspaces * POINTS * workspace_point_floats(tiles.LARGEST_BLOCK, depth)

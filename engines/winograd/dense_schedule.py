"""The order in which a dense block's convolutions go through an image, and their inputs in the Winograd domain."""

from collections.abc import Iterator

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

    def __init__(self, height: int, width: int, depth: int, convolutions: int, threads: int) -> None:
        """Allocate the workspace.

        Args:
            height: of the maps. Likewise `width`.
            depth: channels of all inputs together.
            convolutions: how many the block has.
            threads: how many share the tiles.
        """
        self._tiles = tiles_along(height) * tiles_along(width)
        self._block, self._blocks_a_chunk, self._chunks, kept = _chunks(height, width, convolutions, threads)
        self._workspaces = [
            [WinogradWorkspace(self._block, depth) for _ in range(self._blocks_a_chunk)] for _ in range(kept)
        ]

    def phases(self, convolutions: list[Step]) -> Iterator[list[Task]]:
        """Yield what can be done at the same time, one time after the other; in each the last convolution is first."""
        for time in range(self._chunks + _LAG * (len(convolutions) - 1)):
            tasks: list[Task] = []
            for number in reversed(range(len(convolutions))):
                chunk = time - _LAG * number
                if 0 <= chunk < self._chunks:
                    tasks += self._tasks(convolutions[number], chunk)
            yield tasks

    def _tasks(self, step: Step, chunk: int) -> list[Task]:
        workspaces = self._workspaces[chunk % len(self._workspaces)]
        start = chunk * self._blocks_a_chunk * self._block
        firsts = [start + number * self._block for number in range(self._blocks_a_chunk)]
        return [
            Task(step, first, min(first + self._block, self._tiles), workspaces[number])
            for number, first in enumerate(firsts)
            if first < self._tiles
        ]


def _chunks(height: int, width: int, convolutions: int, threads: int) -> tuple[int, int, int, int]:
    """Return the tiles of a block, the blocks of a chunk, the chunks of the image, and those kept at once."""
    across = tiles_along(width)
    count = tiles_along(height) * across
    block = block_size(count, threads)
    blocks_a_row = -(-(across + 1) // block)
    blocks_a_chunk = max(tiles.BLOCKS_A_CHUNK, threads, blocks_a_row)
    chunks = -(-count // (blocks_a_chunk * block))
    return block, blocks_a_chunk, chunks, min(_LAG * (convolutions - 1) + 1, chunks)


def dense_workspace_floats(height: int, width: int, depth: int, convolutions: int, threads: int) -> int:
    """Return the size of a schedule's workspace; the arguments are those of `DenseBlockSchedule`."""
    block, blocks_a_chunk, _, kept = _chunks(height, width, convolutions, threads)
    return kept * blocks_a_chunk * POINTS * workspace_point_floats(block, depth)

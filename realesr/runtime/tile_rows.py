"""Protocols for joining the tiles of an image in a device's memory: each row of tiles becomes finished rows.

The host then neither adds up nor checks nor rounds pixels, and the next row of tiles is under way while it waits.
"""

from typing import Protocol

from realesr.engine import ProgressCallback
from realesr.runtime.rows import Band, FinishedBand


class PendingRow(Protocol):
    """A row of tiles under way on the device."""

    def result(self, on_progress: ProgressCallback) -> Band | FinishedBand:
        """Wait for the finished rows.

        Args:
            on_progress: called with the share of the row's tiles that are done.

        Returns:
            (3, rows, width * scale), owned by the caller: uint8 levels, clamped and rounded, where `eight_bit` was
            asked for, else float32 RGB, not clamped.

        Raises:
            OutOfMemory: the row does not fit into the device's memory.
            NotFinite: a value is not finite, or a picture came out black.
            EngineError: the device failed.
        """
        ...


class TileRows(Protocol):
    """One image under way in an engine that joins tiles."""

    def push(self, index: int, lr: Band) -> PendingRow:
        """Begin the next row of tiles, without waiting for it.

        Args:
            index: its number in the plan, from 0; every row is pushed once, in order.
            lr: (3, rows.tile_px, width) float32 RGB in [0, 1]: what the row's tiles read.
        """
        ...

    def fade(self, index: int) -> Band | None:
        """Return the rows that the finished row `index` holds back for blending with the next one.

        Returns:
            (3, fade rows, width * scale) float32; none where rows meet at a hard cut. It can be had of the last
            finished row and of those after it.
        """
        ...

    def close(self) -> None:
        """Free the device's memory, without waiting for rows under way."""
        ...

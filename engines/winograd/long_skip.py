"""Rows of a result that wait for a reader far behind, such as the sum behind all of a network's dense blocks.

A map keeps the rows that are still read in one piece, and copies them from strip to strip. For a reader hundreds of
rows behind, that would be most of a network's copying, and hold those rows twice.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LONG_ROWS = 24
"""Rows by which a sum has to lag a result for that to wait outside its map: more than the 18 of a group of dense
blocks."""


@dataclass(frozen=True, kw_only=True)
class LongSkip:
    """The rows of `source`, so many rows later."""

    name: str
    source: str
    lag_rows: int

    @property
    def sources(self) -> tuple[str, ...]:
        """Return the names of the results that are read."""
        return (self.source,)


class WaitingRows:
    """The rows of a long skip that wait, in the pieces in which they came; each is copied once in and once out."""

    def __init__(self) -> None:
        self._pieces: deque[NDArray[np.float32]] = deque()

    def add(self, rows: NDArray[np.float32]) -> None:
        """Take the next rows, (h, width, channels)."""
        if len(rows):
            self._pieces.append(rows.copy())

    def take(self, target: NDArray[np.float32]) -> None:
        """Write the rows that have waited longest, (h, width, channels), and forget them."""
        done = 0
        while done < len(target):
            piece = self._pieces.popleft()
            count = min(len(piece), len(target) - done)
            target[done : done + count] = piece[:count]
            if count < len(piece):
                self._pieces.appendleft(piece[count:])
            done += count

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the rows, by the number of the piece."""
        return {str(number): piece for number, piece in enumerate(self._pieces)}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take the rows of another one's state."""
        self._pieces = deque(state[str(number)] for number in range(len(state)))

"""Chooses the size of tiles and strips: the largest that still gain speed, within a fixed amount of memory.

What a piece of an image takes is the engine's to tell (`Engine.bytes_for`), and at which sizes it is at its best
(`EngineSpec.pieces`). Here is only what may be taken. That never depends on the memory that happens to be free: pieces
of another size round differently, so that a result could not be had twice. Whether an image fits is checked before its
first tile (`realesr.runtime.memory_plan`).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from realesr.engine import Engine, PieceSizes
from realesr.models.architecture import Architecture
from realesr.models.strip_plan import state_values_per_column

SMALLEST_TILE_PX = 64
TILE_STEP_PX = 32

PIECE_LIMIT_BYTES = 2.2e9
"""Most memory for a tile, an untiled image or strips on a CPU: what a computer of 8 GB has beside other programs. It is
1.25 MP of x4plus untiled in engine winograd."""
SHARE_OF_GPU_MEMORY = 0.6
"""Share of a GPU's memory that tiles may take; the network, joined rows and other programs need the rest."""


def tile_px_for(architecture: Architecture, engine: Engine) -> int:
    """Return the side of the largest tile that an engine should be given, with all that it overlaps.

    Args:
        architecture: of the network, or of one like it where that is not known.
        engine: an open engine.

    Returns:
        A multiple of 32, in input px.
    """
    spec = engine.spec
    limit_bytes = PIECE_LIMIT_BYTES
    if spec.device_bytes is not None:
        limit_bytes = spec.device_bytes * SHARE_OF_GPU_MEMORY
    largest_px = spec.pieces.largest_tile_px * architecture.multiple_of
    side_px = largest_side_px(architecture, engine, limit_bytes, largest_px)
    return min(max(side_px // TILE_STEP_PX * TILE_STEP_PX, SMALLEST_TILE_PX), largest_px)


def max_untiled_area_px_for(architecture: Architecture, engine: Engine) -> int:
    """Return the area in input px of the largest image that should go through a network untiled.

    It may take more memory than the tiles that are fastest.
    """
    return largest_side_px(architecture, engine, PIECE_LIMIT_BYTES, 1 << 16) ** 2


def largest_side_px(architecture: Architecture, engine: Engine, limit_bytes: float, at_most_px: int) -> int:
    """Return the side in input px of the largest square that fits in `limit_bytes`; 0 where none does."""
    low, high = 0, at_most_px
    if engine.bytes_for(architecture, high, high) <= limit_bytes:
        return high
    while low < high:
        side_px = (low + high + 1) // 2
        if engine.bytes_for(architecture, side_px, side_px) <= limit_bytes:
            low = side_px
        else:
            high = side_px - 1
    return low


SMALLEST_COLUMNS = 256
"""Fewest columns of a strip where an image is cut, in pixels of the network's own grid."""
STATE_VALUE_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class StripSize:
    """Rows and columns of an image's strips, in input px."""

    rows_px: int
    columns_px: int
    """Columns of the result that one strip makes: all of the image's width, or a part of it."""


@dataclass(frozen=True, kw_only=True)
class StripBudget:
    """Limits of memory and size for the strips of one network.

    States of x4plus are 540 kB a column: a photo of 12 MP would take 7 GB for them and for its first strip.
    """

    architecture: Architecture
    strip_bytes: Callable[[int, int], float]
    """Rows and columns of a strip in input px -> the memory that it takes, with its states."""
    halo_px: int
    """Columns that a strip reads beyond its own on each side, where an image is cut."""
    pieces: PieceSizes
    """Rows and areas of the engine's strips."""

    def size_for(self, height_px: int, width_px: int) -> StripSize | None:
        """Return the largest strips that fit, over all of the width or over the fewest parts; None where none fit."""
        pieces = self.pieces
        if height_px * width_px < pieces.smallest_image_in_strips_px:
            return None
        last_limit_bytes = pieces.strips_limit_bytes or PIECE_LIMIT_BYTES
        multiple = self.architecture.multiple_of
        halo, width = (-(-length // multiple) for length in (self.halo_px, width_px))
        parts = 1
        while parts == 1 or width >= parts * SMALLEST_COLUMNS:
            columns = -(-width // parts)
            read = columns + (2 * halo if parts > 1 else 0)
            for rows in self._rows_to_try(read):
                limit_bytes = last_limit_bytes if rows == pieces.smallest_strip_rows else PIECE_LIMIT_BYTES
                if self.bytes_for(rows * multiple, read * multiple, parts) <= limit_bytes:
                    return StripSize(rows_px=rows * multiple, columns_px=columns * multiple)
            parts += 1
        return None

    def _rows_to_try(self, read_columns: int) -> Iterator[int]:
        """Yield the numbers of rows that strips may have, the most first; in pixels of the network's own grid."""
        pieces = self.pieces
        most = min(pieces.largest_strip_px // read_columns, pieces.largest_strip_rows)
        steps = (most - pieces.smallest_strip_rows) // pieces.strip_rows_step
        for step in range(steps, -1, -1):
            yield pieces.smallest_strip_rows + step * pieces.strip_rows_step

    def bytes_for(self, rows_px: int, read_px: int, parts: int) -> float:
        """Return the memory of strips of `rows_px` rows that read `read_px` columns each, all in input px.

        Only one strip runs at a time, but states are kept for all parts of the image's width.
        """
        columns = -(-read_px // self.architecture.multiple_of)
        state_bytes = self.pieces.strip_state_bytes
        if state_bytes is None:
            state_bytes = state_values_per_column(self.architecture) * STATE_VALUE_BYTES
        return self.strip_bytes(rows_px, read_px) + (parts - 1) * columns * state_bytes


def strip_budget(architecture: Architecture, engine: Engine, halo_px: int) -> StripBudget:
    """Return the limits of strips that read `halo_px` columns beyond their own where an image is cut."""
    return StripBudget(
        architecture=architecture,
        strip_bytes=lambda rows_px, width_px: engine.bytes_for(architecture, rows_px, width_px, in_strips=True),
        halo_px=halo_px,
        pieces=engine.spec.pieces,
    )

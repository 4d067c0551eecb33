"""Cuts an image into tiles of one shape, and weights their results. Pure geometry: integers and weights.

Both axes are planned alone. Along an axis of `length_px`, tile i reads [start, start + tile_px); neighbours share at
least 2 * overlap_px, and the cuts lie in the middle of what they share: no pixel is taken from a tile whose border is
nearer than overlap_px. Round each inner cut the two tiles fade into one another over 2 * blend_px by a raised cosine.

    tile 0   |<---------- tile_px ---------->|
    tile 1                |<---------- tile_px ---------->|
    cuts     0                     ^                      length_px
    fade                        |<-+->| blend_px each way
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from realesr.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class AxisTile:
    """One tile along one axis; all borders are half-open, in input pixels of the image."""

    start: int
    """First pixel that the tile reads."""
    first: int
    """First pixel that the tile contributes to; it fades in from here to first + 2 * blend_px, unless it is 0."""
    last: int
    """End of what the tile contributes to; it fades out before here, unless it is the image's length."""


@dataclass(frozen=True, kw_only=True)
class AxisPlan:
    """Tiles along one axis."""

    length_px: int
    tile_px: int
    """Length that each tile reads."""
    blend_px: int
    """Half the width of a fade; 0 for a hard cut."""
    tiles: tuple[AxisTile, ...]

    def weights(self, tile: AxisTile, scale: int) -> NDArray[np.float32]:
        """Return the weights of `tile` at the output pixels [first * scale, last * scale): (n,) float32 in [0, 1].

        The weights of all tiles sum to 1 at every output pixel.
        """
        weights = np.ones((tile.last - tile.first) * scale, np.float32)
        fade = fade_in(self.blend_px, scale)
        if tile.first > 0 and len(fade):
            weights[: len(fade)] *= fade
        if tile.last < self.length_px and len(fade):
            weights[-len(fade) :] *= 1 - fade
        return weights


@dataclass(frozen=True, kw_only=True)
class TilePlan:
    """Tiles of one shape that cover an image: every row tile crossed with every column tile."""

    rows: AxisPlan
    columns: AxisPlan

    @property
    def tile_shape(self) -> tuple[int, int]:
        """Return the height and width of every tile, in input pixels."""
        return self.rows.tile_px, self.columns.tile_px

    def __len__(self) -> int:
        return len(self.rows.tiles) * len(self.columns.tiles)

    def __iter__(self) -> Iterator[tuple[AxisTile, AxisTile]]:
        return ((row, column) for row in self.rows.tiles for column in self.columns.tiles)


def plan_tiles(
    height_px: int,
    width_px: int,
    *,
    tile_px: int,
    overlap_px: int,
    tile_height_px: int | None = None,
    blend: bool = True,
    multiple_of: int = 1,
    fixed_px: tuple[int, int] | None = None,
) -> TilePlan:
    """Cut an image of height_px x width_px into the fewest tiles of one shape.

    Args:
        height_px: height of the image; a multiple of `multiple_of`. Likewise `width_px`.
        tile_px: largest part of the image that one tile answers for; the tile reads overlap_px more on each side,
            except at the image's border, where it is clipped.
        overlap_px: least distance of any pixel that is used from the border of its tile.
        tile_height_px: the same for the height alone, where tiles shall not be square.
        blend: whether neighbours fade into one another over the middle half of what they share, where both are far from
            their borders, or meet at a hard cut.
        multiple_of: starts and sizes of all tiles are multiples of this.
        fixed_px: the height and width that every tile must have, whatever `tile_px` says, both multiples of
            `multiple_of`; the image is no smaller.

    Raises:
        UsageError: a size that is not positive, or an overlap that leaves nothing of a tile of `fixed_px`.
    """
    if tile_px < 1 or overlap_px < 0:
        raise UsageError(f"got a tile of {tile_px} px and an overlap of {overlap_px} px, expected at least 1 and 0")
    height, width = fixed_px or (None, None)
    return TilePlan(
        rows=_plan_axis(height_px, tile_height_px or tile_px, overlap_px, blend, multiple_of, height),
        columns=_plan_axis(width_px, tile_px, overlap_px, blend, multiple_of, width),
    )


def fade_in(blend_px: int, scale: int) -> NDArray[np.float32]:
    """Return a raised cosine from 0 to 1 at the centres of 2 * blend_px * scale output pixels."""
    count = 2 * blend_px * scale
    position = (np.arange(count) + 0.5) / max(count, 1)
    return ((1 - np.cos(np.pi * position)) / 2).astype(np.float32)


def _plan_axis(length: int, core: int, overlap: int, blend: bool, multiple: int, fixed: int | None) -> AxisPlan:
    core, overlap = _round_up(core, multiple), _round_up(overlap, multiple)
    if fixed is not None:
        core = fixed - 2 * overlap
        if core < 1 and length > fixed:
            raise UsageError(f"got an overlap of {overlap} px, expected less than half of the tile's fixed {fixed} px")
    if length <= (fixed or core + 2 * overlap):
        whole = AxisTile(start=0, first=0, last=length)
        return AxisPlan(length_px=length, tile_px=length, blend_px=0, tiles=(whole,))
    count = -(-(length - 2 * overlap) // core)
    tile = fixed or _round_up(-(-(length + 2 * overlap * (count - 1)) // count), multiple)
    starts = [(length - tile) * i // (count - 1) // multiple * multiple for i in range(count)]
    cuts = [(a + b + tile) // 2 for a, b in itertools.pairwise(starts)]
    gaps = [b - a for a, b in zip([0, *cuts], [*cuts, length], strict=True)]
    half = min(overlap // 2, *(gap // 2 for gap in gaps)) if blend else 0
    firsts = [0, *(cut - half for cut in cuts)]
    lasts = [*(cut + half for cut in cuts), length]
    tiles = [AxisTile(start=s, first=f, last=e) for s, f, e in zip(starts, firsts, lasts, strict=True)]
    return AxisPlan(length_px=length, tile_px=tile, blend_px=half, tiles=tuple(tiles))


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple

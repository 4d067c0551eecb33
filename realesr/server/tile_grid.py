"""The grid of tiles that a large image is looked at by, level by level.

Level `highest_level` is the image itself, each level below it half as large, and level 0 fits in one tile.
"""

from realesr.errors import UsageError

TILE_PX = 512
"""Side of a tile; those at the right and lower edges are what is left."""


def highest_level(width_px: int, height_px: int) -> int:
    """Return the level that shows an image at 100 %."""
    level = 0
    while max(width_px, height_px) > TILE_PX << level:
        level += 1
    return level


def level_size(width_px: int, height_px: int, level: int) -> tuple[int, int]:
    """Return the width and height in px of a level, rounded up.

    Raises:
        UsageError: there is no such level.
    """
    highest = highest_level(width_px, height_px)
    if not 0 <= level <= highest:
        raise UsageError(f"got level {level}, expected 0 to {highest}")
    halvings = highest - level
    return -(-width_px >> halvings), -(-height_px >> halvings)


def tile_box(width_px: int, height_px: int, level: int, x: int, y: int) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom in px of a tile within its level.

    Raises:
        UsageError: there is no such level, or no such tile in it.
    """
    width, height = level_size(width_px, height_px, level)
    columns, rows = -(-width // TILE_PX), -(-height // TILE_PX)
    if not (0 <= x < columns and 0 <= y < rows):
        raise UsageError(f"got tile {x}, {y}, expected 0, 0 to {columns - 1}, {rows - 1} at level {level}")
    left, top = x * TILE_PX, y * TILE_PX
    return left, top, min(left + TILE_PX, width), min(top + TILE_PX, height)

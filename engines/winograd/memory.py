"""How much memory a network takes in this engine, computed from its schedule."""

from realesr.engines.winograd.dense_schedule import dense_workspace_floats
from realesr.engines.winograd.fusion import FusedConvolution, FusedDenseBlock
from realesr.engines.winograd.kernel import POINTS, TILE_PX, workspace_point_floats
from realesr.engines.winograd.long_skip import LongSkip
from realesr.engines.winograd.maps import map_shape
from realesr.engines.winograd.network import portion_rows
from realesr.engines.winograd.schedule import StageSchedule, rows_after, rows_kept, schedules
from realesr.engines.winograd.tiles import LARGEST_BLOCK
from realesr.models.architecture import Architecture

FLOAT32_BYTES = 4
TILE_MARGIN = 1.08
STRIP_MARGIN = 1.15
"""For copies in passing, and what the allocator keeps. Measured was at most 1.04 times what is counted for tiles, and
1.14 times for strips."""
_MANY_STRIPS = 4000
"""So many that all results have rows, even in strips of one row."""


def needed_bytes(
    architecture: Architecture,
    height_px: int,
    width_px: int,
    *,
    in_strips: bool,
    channel_unit: int,
    threads: int,
) -> float:
    """Return the memory for a tile or for strips, beside the weights; see `Engine.bytes_for`.

    Args:
        architecture: of the network.
        height_px: of the tile, or of every strip but the first.
        width_px: likewise.
        in_strips: whether they are strips.
        channel_unit: see `Kernel.channel_unit`.
        threads: how many share the work.
    """
    trunk, *tail = schedules(architecture, channel_unit, in_strips=in_strips)
    height = height_px + _lag_rows(trunk) * in_strips  # the last one gives those too
    floats = 3 * height * width_px * (1 + architecture.scale**2)
    floats += _stage_floats(trunk, height_px, width_px, threads)
    grid = trunk.places[trunk.result].grid
    for stage in tail:
        width = int(width_px * grid)
        floats += _stage_floats(stage, min(portion_rows(width), int(height_px * grid)), width, threads)
    return (STRIP_MARGIN if in_strips else TILE_MARGIN) * FLOAT32_BYTES * floats


def _lag_rows(trunk: StageSchedule) -> int:
    """Return the rows of what a network's first stage reads that wait for others below them."""
    taken = _MANY_STRIPS * TILE_PX
    return taken - int(rows_after(trunk, taken)[trunk.result] / trunk.places[trunk.result].grid)


def _stage_floats(stage: StageSchedule, rows: int, width: int, threads: int) -> int:
    """Return what a stage allocates: maps, rows that are carried from strip to strip, and workspaces.

    Args:
        stage: its schedule.
        rows: of its source that come at a time.
        width: of its source.
        threads: how many share the work.
    """
    map_rows, _ = _rows(stage, rows)
    buffers: dict[int, int] = {}
    for name, place in stage.places.items():
        shape = map_shape(map_rows[name], int(width * place.grid), place.channels)
        buffers[place.buffer] = max(buffers.get(place.buffer, 0), shape[0] * shape[1] * shape[2])
    workspaces = _workspace_floats(stage, max(map_rows.values()), width, threads)
    return sum(buffers.values()) + _state_floats(stage, rows, width) + workspaces


def state_bytes_per_column(architecture: Architecture, channel_unit: int) -> float:
    """Return what strips keep for each column of the network's own grid."""
    floats, width = 0, architecture.multiple_of
    for stage in schedules(architecture, channel_unit, in_strips=True):
        floats += _state_floats(stage, TILE_PX, width)
        width = int(width * stage.places[stage.result].grid)
    return STRIP_MARGIN * FLOAT32_BYTES * floats


def _state_floats(stage: StageSchedule, rows: int, width: int) -> int:
    """Return what a stage carries from strip to strip; the arguments are those of `_stage_floats`."""
    _, carried_rows = _rows(stage, rows)
    floats = sum(
        count * int(width * stage.places[name].grid) * stage.places[name].channels
        for name, count in carried_rows.items()
    )
    skips = (each for each in stage.operations if isinstance(each, LongSkip))
    places = ((stage.places[skip.name], skip.lag_rows + rows) for skip in skips)
    return floats + sum(count * int(width * place.grid) * place.own_channels for place, count in places)


def _rows(stage: StageSchedule, rows: int) -> tuple[dict[str, int], dict[str, int]]:
    """Return how many rows of each result are in memory at once, and how many are carried from strip to strip."""
    if stage.runs_whole:
        map_rows = {name: int(rows * place.grid) + 1 for name, place in stage.places.items()}
        return map_rows, dict.fromkeys(map_rows, 0)
    taken = _MANY_STRIPS * rows
    kept = rows_kept(stage, rows_after(stage, taken))
    after = rows_after(stage, taken + rows)
    map_rows = {name: after[name] - first_row + stage.row_unit for name, (first_row, _) in kept.items()}
    return map_rows, {name: end_row - first_row for name, (first_row, end_row) in kept.items()}


def _workspace_floats(stage: StageSchedule, height: int, width: int, threads: int) -> int:
    """Return the size of all Winograd-domain workspaces: of dense blocks, and of each thread."""
    dense: dict[tuple[int, int], int] = {}
    channels: set[tuple[str, int]] = set()
    for operation in stage.operations:
        if isinstance(operation, FusedDenseBlock):
            parts = [operation.source, *(each.name for each in operation.convolutions[:-1])]
            depth = sum(stage.places[name].channels for name in parts)
            grid = stage.places[operation.name].grid
            dense[int(width * grid), depth] = dense_workspace_floats(
                int(height * grid), int(width * grid), depth, len(parts), threads
            )
            channels |= {("output", stage.places[each.name].channels) for each in operation.convolutions}
        elif isinstance(operation, FusedConvolution):
            channels.add(("input", stage.places[operation.source].channels))
            channels.add(("output", stage.places[operation.name].channels))
    own = sum(POINTS * workspace_point_floats(LARGEST_BLOCK, count) for _, count in channels)
    return sum(dense.values()) + threads * own

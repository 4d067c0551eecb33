"""How much memory a network takes in this engine, computed from its schedule."""

from realesr.engines.winograd.dense_schedule import dense_workspace_floats
from realesr.engines.winograd.fusion import FusedConvolution, FusedDenseBlock
from realesr.engines.winograd.kernel import POINTS, workspace_point_floats
from realesr.engines.winograd.maps import map_shape
from realesr.engines.winograd.network import portion_rows
from realesr.engines.winograd.schedule import StageSchedule, first_rows_read, rows_after, schedules
from realesr.engines.winograd.tiles import LARGEST_BLOCK
from realesr.models.architecture import Architecture

FLOAT32_BYTES = 4
TILE_MARGIN = 1.08
STRIP_MARGIN = 1.2
"""For copies in passing, and what the allocator keeps. Measured was at most 1.04 times what is counted for tiles, and
1.14 times for strips."""


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
    trunk, *tail = schedules(architecture, channel_unit)
    height = height_px + architecture.radius_px * in_strips
    output = 3 * height * width_px * architecture.scale**2
    floats = output + 3 * height * width_px + _stage_floats(trunk, height, width_px, height_px, threads)
    grid = trunk.places[trunk.result].grid
    for stage in tail:
        width = int(width_px * grid)
        rows = min(portion_rows(width), int(height * grid))
        floats += _stage_floats(stage, rows, width, rows, threads)
    return (STRIP_MARGIN if in_strips else TILE_MARGIN) * FLOAT32_BYTES * floats


def _stage_floats(stage: StageSchedule, first_rows: int, width: int, rows: int, threads: int) -> int:
    """Return what a stage allocates: maps, rows that are carried from strip to strip, and workspaces.

    Args:
        stage: its schedule.
        first_rows: rows of its source that come first.
        width: of its source.
        rows: that come after them at a time.
        threads: how many share the work.
    """
    carried = _carried_rows(stage, rows)
    buffers: dict[int, int] = {}
    for name, place in stage.places.items():
        count = max(int(first_rows * place.grid) + 1, int(rows * place.grid) + carried.get(name, 1))
        shape = map_shape(count, int(width * place.grid), place.channels)
        buffers[place.buffer] = max(buffers.get(place.buffer, 0), shape[0] * shape[1] * shape[2])
    states = sum(
        count * int(width * stage.places[name].grid) * stage.places[name].channels for name, count in carried.items()
    )
    return sum(buffers.values()) + states + _workspace_floats(stage, first_rows, width, threads)


def _carried_rows(stage: StageSchedule, rows: int) -> dict[str, int]:
    """Return how many rows of each result are carried from strip to strip."""
    if stage.runs_whole:
        return {}
    known = rows_after(stage, 1000 * rows, is_last=False)
    needed = first_rows_read(stage, known)
    return {name: known[name] - needed[name] for name in known}


def _workspace_floats(stage: StageSchedule, height: int, width: int, threads: int) -> int:
    """Return the size of all Winograd-domain workspaces: of dense blocks, and of each thread."""
    dense: dict[tuple[int, int, int, int], int] = {}
    channels: set[tuple[str, int]] = set()
    for operation in stage.operations:
        if isinstance(operation, FusedDenseBlock):
            parts = [operation.source, *(each.name for each in operation.convolutions[:-1])]
            depth = sum(stage.places[name].channels for name in parts)
            grid = stage.places[operation.name].grid
            key = int(height * grid), int(width * grid), depth, len(parts)
            dense[key] = dense_workspace_floats(*key, threads)
            channels |= {("output", stage.places[each.name].channels) for each in operation.convolutions}
        elif isinstance(operation, FusedConvolution):
            channels.add(("input", stage.places[operation.source].channels))
            channels.add(("output", stage.places[operation.name].channels))
    own = sum(POINTS * workspace_point_floats(LARGEST_BLOCK, count) for _, count in channels)
    return sum(dense.values()) + threads * own

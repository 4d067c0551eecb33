"""The schedule of a network: its operations, the buffers that their results take turns in, and rows strip by strip.

A network is cut before its enlargement, if convolutions run behind that: there, rows cost many times the memory. So the
trunk goes through an image whole, and the tail takes the trunk's result in portions. A network with nothing behind an
enlargement and no dense blocks takes the image itself in strips, and a whole image is its only strip.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from realesr.engines.winograd.fusion import FusedConvolution, FusedDenseBlock, Operation, Output, fused, split_output
from realesr.engines.winograd.kernel import TILE_PX
from realesr.models.architecture import Architecture, MapShape
from realesr.models.layers import NearestEnlargement, PixelShuffle, PixelUnshuffle
from realesr.models.strip_plan import Stage, stages, strip_plan


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a result lies."""

    buffer: int
    channels: int
    """Of the buffer, with those that fill up SIMD vectors."""
    own_channels: int
    """Of the result."""
    grid: Fraction
    """Rows (and columns) of the result for each row (and column) of what the stage reads."""


@dataclass(frozen=True, kw_only=True)
class StageSchedule:
    """The schedule of a network, or of one of its two parts."""

    source: str
    """What is read: the image, or the result of the part before."""
    operations: tuple[Operation, ...]
    output: Output | None
    """How the enlarged image is put together; None for a network's first part."""
    places: dict[str, Place]
    """Name of a result -> where it lies; the source among them, and what dense blocks keep to themselves."""
    runs_whole: bool
    """Whether it takes all rows at once; else a strip at a time."""
    row_unit: int
    """Convolutions give multiples of so many rows until the last: with whole tiles, results do not depend on strips."""

    @property
    def result(self) -> str:
        """Return the name of what the stage gives, or of what the enlarged image is put together from."""
        return self.output.source if self.output else self.operations[-1].name


@lru_cache(maxsize=16)  # memory is asked for again and again
def schedules(architecture: Architecture, channel_unit: int) -> tuple[StageSchedule, ...]:
    """Return a network's schedule: one for all of it, or one for each of its two parts.

    Args:
        architecture: the network.
        channel_unit: see `Kernel.channel_unit`.
    """
    parts = stages(architecture)
    made = []
    for number, part in enumerate(parts):
        layers, output = split_output(part.layers) if number == len(parts) - 1 else (part.layers, None)
        result = output.source if output else part.result
        operations = tuple(fused(layers, kept=[result]))
        is_tail = number > 0
        runs_whole = not is_tail and not _has_strips(architecture, parts, operations)
        made.append(
            StageSchedule(
                source=part.source,
                operations=operations,
                output=output,
                places=_places(architecture, part.source, operations, result, channel_unit, in_place=runs_whole),
                runs_whole=runs_whole,
                row_unit=TILE_PX if is_tail else 1,
            )
        )
    return tuple(made)


def _has_strips(architecture: Architecture, parts: tuple[Stage, ...], operations: tuple[Operation, ...]) -> bool:
    """Return whether a network can take an image strip by strip."""
    is_chain = len(parts) == 1 and not architecture.has_enlarged_convolutions
    if not is_chain or any(isinstance(operation, FusedDenseBlock) for operation in operations):
        return False
    try:
        strip_plan(parts[0])
    except ValueError:
        return False
    return True


class _Buffers:
    """Gives every result a buffer that no result holds which is still read."""

    def __init__(self, shapes: dict[str, MapShape], padded_names: set[str], channel_unit: int) -> None:
        self.places: dict[str, Place] = {}
        self._shapes, self._padded_names, self._channel_unit = shapes, padded_names, channel_unit
        self._free: dict[tuple[int, Fraction], list[int]] = {}
        self._count = 0

    def place(self, name: str, buffer: int | None = None) -> None:
        """Give a result a free buffer of its size, or this one."""
        shape = self._shapes[name]
        unit = self._channel_unit if name in self._padded_names else 1
        channels = -(-shape.channels // unit) * unit
        if buffer is None:
            free = self._free.get((channels, shape.grid))
            buffer = free.pop() if free else self._count
            self._count = max(self._count, buffer + 1)
        self.places[name] = Place(buffer=buffer, channels=channels, own_channels=shape.channels, grid=shape.grid)

    def place_growth(self, block: FusedDenseBlock) -> None:
        """Let what a dense block's convolutions add take turns: of what came earlier the Winograd domain is kept."""
        inner = [convolution.name for convolution in block.convolutions[:-1]]
        for number, name in enumerate(inner):
            self.place(name)
            if number:
                self.release(inner[number - 1])
        self.release(inner[-1])

    def release(self, name: str) -> None:
        """Free the buffer of a result that is not read any more."""
        place = self.places[name]
        self._free.setdefault((place.channels, place.grid), []).append(place.buffer)


def _places(
    architecture: Architecture,
    source: str,
    operations: tuple[Operation, ...],
    result: str,
    channel_unit: int,
    *,
    in_place: bool,
) -> dict[str, Place]:
    """Place all results of a stage; with `in_place` a sum may be written in the place of one of its terms."""
    shapes = _shapes(architecture, source, operations)
    buffers = _Buffers(shapes, _names_of_convolutions(operations), channel_unit)
    last_reads = {name: number for number, operation in enumerate(operations) for name in operation.sources}
    last_reads[result] = len(operations)
    buffers.place(source)
    for number, operation in enumerate(operations):
        done = [name for name in dict.fromkeys(operation.sources) if last_reads[name] == number]
        replaced = _addend_to_replace(operation, done, shapes) if in_place else None
        buffers.place(operation.name, buffers.places[replaced].buffer if replaced else None)
        if isinstance(operation, FusedDenseBlock):
            buffers.place_growth(operation)
        unread = [] if operation.name in last_reads else [operation.name]
        for name in [*done, *unread]:
            if name != replaced:
                buffers.release(name)
    return buffers.places


def _addend_to_replace(operation: Operation, done: list[str], shapes: dict[str, MapShape]) -> str | None:
    """Return the addend that is not read any more, in whose place the result may be written as it is read.

    A convolution reads its source around each pixel, so it cannot be that; a dense block goes on with its source only
    where all its convolutions have read it.
    """
    match operation:
        case FusedConvolution():
            addends = [name for name, _ in operation.addends if name != operation.source]
        case FusedDenseBlock():
            addends = [name for name, _ in operation.convolutions[-1].addends]
        case _:
            return None
    return next((name for name in addends if name in done and shapes[name] == shapes[operation.name]), None)


def _shapes(architecture: Architecture, source: str, operations: tuple[Operation, ...]) -> dict[str, MapShape]:
    """Return the shapes of all results, on grids that are relative to the source's."""
    known = architecture.map_shapes
    shapes = {source: MapShape(known[source].channels, Fraction(1))}
    for operation in operations:
        parts = operation.convolutions if isinstance(operation, FusedDenseBlock) else (operation,)
        for part in parts:
            name = part.layer.name if isinstance(part, FusedConvolution) else part.name
            shapes[part.name] = MapShape(known[name].channels, known[name].grid / known[source].grid)
    return shapes


def _names_of_convolutions(operations: tuple[Operation, ...]) -> set[str]:
    """Return the names of the results that convolutions read or give: the kernel wants whole SIMD vectors of them."""
    names: set[str] = set()
    for operation in operations:
        if isinstance(operation, FusedConvolution):
            names |= {operation.name, *operation.sources}
        if isinstance(operation, FusedDenseBlock):
            names |= {convolution.name for convolution in operation.convolutions} | set(operation.sources)
    return names


def rows_after(schedule: StageSchedule, source_rows: int, *, is_last: bool) -> dict[str, int]:
    """Return how many rows of each result are known.

    Args:
        schedule: of the stage.
        source_rows: rows of what it reads that are known.
        is_last: whether there are no more.
    """
    rows = {schedule.source: source_rows}
    for operation in schedule.operations:
        known = min(rows[source] for source in operation.sources)
        match operation:
            case FusedConvolution():
                read = rows[operation.source] * (2 if operation.nearest_x2_input else 1)
                below = 0 if is_last else operation.layer.kernel // 2
                known = min(read - below, *(rows[name] for name, _ in operation.addends), read)
                if not is_last:
                    known = max(0, known) // schedule.row_unit * schedule.row_unit
            case PixelShuffle() | NearestEnlargement():
                known *= operation.factor
            case PixelUnshuffle():
                known //= operation.factor
            case FusedDenseBlock():
                rows |= {convolution.name: known for convolution in operation.convolutions}
        rows[operation.name] = known
    return rows


def first_rows_read(schedule: StageSchedule, rows: dict[str, int]) -> dict[str, int]:
    """Return the first row of each result that is still read, when so many rows of each are known.

    That is the row below the last one where all has been read.
    """
    needed = dict(rows)
    for operation in schedule.operations:
        done = rows[operation.name]
        for source in operation.sources:
            needed[source] = min(
                needed[source], done if isinstance(operation, FusedConvolution) else _row(operation, done)
            )
        if isinstance(operation, FusedConvolution):
            first = (done - 1) // 2 if operation.nearest_x2_input else done - 1
            needed[operation.source] = min(needed[operation.source], first)
    return needed


def _row(operation: Operation, row: int) -> int:
    """Return the row of its sources that a layer reads for a row of its result."""
    match operation:
        case PixelShuffle() | NearestEnlargement():
            return row // operation.factor
        case PixelUnshuffle():
            return row * operation.factor
    return row

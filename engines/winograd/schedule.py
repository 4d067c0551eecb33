"""The schedule of a network: its operations, the buffers that their results take turns in, and rows strip by strip.

A network is cut before its enlargement, if convolutions run behind that: there, rows cost many times the memory. So the
trunk goes through an image whole or in strips, and the tail takes the trunk's result in portions.

In strips each convolution lags by the one row that it looks ahead, and keeps the rows that it reads again. Those of a
dense block share their input's transform, so in a strip they share a grid of tiles too, and begin it at the same rows
as in a whole image, where tiles round alike. When S rows of the source are known, a multiple of six, conv1 knows S - 1
of its own and conv5 S - 5, of which it gives S - 6: there the next grid begins, for all five. So conv1 to conv4 do six
rows again; kept of each is the one row above the grid, and of the source seven. If each lagged a whole tile, no product
would be done again, but a block would keep 31 + 25 + 19 + 13 + 7 rows and transform all of them again, which takes more
time than the products save; and the network would lag five times as far: in x4plus 1 MB for each column of the image.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache

from realesr.engines.winograd.fusion import FusedConvolution, FusedDenseBlock, Operation, Output, fused, split_output
from realesr.engines.winograd.kernel import TILE_PX
from realesr.engines.winograd.long_skip import LONG_ROWS, LongSkip
from realesr.models.architecture import Architecture, MapShape
from realesr.models.layers import NearestEnlargement, PixelShuffle, PixelUnshuffle
from realesr.models.strip_plan import stages, strip_plan

ALL_ROWS = 1 << 40
"""More rows than any result lags."""

FEWER_CHANNELS = 4
"""Factor by which a convolution reads fewer channels than it gives, where its source waits instead of its result."""

ScheduledOperation = Operation | LongSkip


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
    operations: tuple[ScheduledOperation, ...]
    output: Output | None
    """How the enlarged image is put together; None for a network's first part."""
    places: dict[str, Place]
    """Name of a result -> where it lies; the source among them, and what dense blocks keep to themselves."""
    runs_whole: bool
    """Whether it takes all rows at once; else a strip at a time."""
    row_unit: int
    """Convolutions give multiples of so many rows until the last: whole tiles round as in a whole image."""
    inner_row_unit: int
    """Likewise the convolutions of a dense block but for its last one."""

    @property
    def result(self) -> str:
        """Return the name of what the stage gives, or of what the enlarged image is put together from."""
        return self.output.source if self.output else self.operations[-1].name


@lru_cache(maxsize=16)  # memory is asked for again and again
def schedules(architecture: Architecture, channel_unit: int, *, in_strips: bool = False) -> tuple[StageSchedule, ...]:
    """Return a network's schedule: one for all of it, or one for each of its two parts.

    Args:
        architecture: the network.
        channel_unit: see `Kernel.channel_unit`.
        in_strips: whether the image comes strip by strip, or whole.
    """
    parts = stages(architecture)
    made = []
    for number, part in enumerate(parts):
        layers, output = split_output(part.layers) if number == len(parts) - 1 else (part.layers, None)
        result = output.source if output else part.result
        operations: tuple[ScheduledOperation, ...] = tuple(fused(layers, kept=[result]))
        is_tail = number > 0
        runs_whole = not (in_strips or is_tail)
        inner_row_unit = TILE_PX if is_tail else 1
        row_unit = TILE_PX if _has_dense_block(operations) else inner_row_unit
        if in_strips and not is_tail:
            operations = tuple(_with_long_skips(part.source, operations, row_unit))
        made.append(
            StageSchedule(
                source=part.source,
                operations=operations,
                output=output,
                places=_places(architecture, part.source, operations, result, channel_unit, takes_turns=runs_whole),
                runs_whole=runs_whole,
                row_unit=row_unit,
                inner_row_unit=inner_row_unit,
            )
        )
    return tuple(made)


def has_strips(architecture: Architecture) -> bool:
    """Return whether a network can take an image strip by strip."""
    try:
        strip_plan(stages(architecture)[0])
    except ValueError:
        return False
    return True


def _has_dense_block(operations: tuple[ScheduledOperation, ...]) -> bool:
    return any(isinstance(operation, FusedDenseBlock) for operation in operations)


def _with_long_skips(
    source: str, operations: tuple[ScheduledOperation, ...], unit: int
) -> Iterator[ScheduledOperation]:
    """Yield the operations of a trunk, with a long skip before each convolution that adds a result far ahead of it."""
    rows = {source: ALL_ROWS}
    made_by: dict[str, ScheduledOperation] = {}
    for operation in operations:
        rows |= _rows_known(operation, rows, unit, 1)
        if isinstance(operation, FusedConvolution):
            addends = []
            for name, factor in operation.addends:
                lag_rows = rows[name] - rows[operation.name]
                if lag_rows > LONG_ROWS:
                    for late in _late(name, made_by.get(name), operation.name, lag_rows):
                        rows |= _rows_known(late, rows, unit, 1)
                        yield late
                    name = late.name
                addends.append((name, factor))
            operation = replace(operation, addends=tuple(addends))
        made_by[operation.name] = operation
        yield operation


def _late(
    name: str, made_by: ScheduledOperation | None, reader: str, lag_rows: int
) -> tuple[LongSkip] | tuple[LongSkip, FusedConvolution]:
    """Return what gives a result again for a reader so many rows behind.

    What a convolution made from few channels it makes again from them, for they take less memory to wait: in x4plus
    346 rows of 3 channels, and not of 64, for a ten-thousandth of the multiplications.
    """
    match made_by:
        case FusedConvolution(addends=(), nearest_x2_input=False, layer=layer) if (
            FEWER_CHANNELS * layer.in_channels <= layer.out_channels
        ):
            skip = LongSkip(name=f"source of {name} for {reader}", source=made_by.source, lag_rows=lag_rows)
            return skip, replace(made_by, name=f"{name} for {reader}", source=skip.name)
    return (LongSkip(name=f"{name} for {reader}", source=name, lag_rows=lag_rows),)


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

    def place_growth(self, block: FusedDenseBlock, *, takes_turns: bool) -> None:
        """Place what a dense block's convolutions add.

        Where it takes turns, every other one has the same buffer: of what came earlier the Winograd domain is kept.
        Strips keep a row of each.
        """
        inner = [convolution.name for convolution in block.convolutions[:-1]]
        for number, name in enumerate(inner):
            self.place(name)
            if number and takes_turns:
                self.release(inner[number - 1])
        for name in inner[-1:] if takes_turns else inner:
            self.release(name)

    def release(self, name: str) -> None:
        """Free the buffer of a result that is not read any more."""
        place = self.places[name]
        self._free.setdefault((place.channels, place.grid), []).append(place.buffer)


def _places(
    architecture: Architecture,
    source: str,
    operations: tuple[ScheduledOperation, ...],
    result: str,
    channel_unit: int,
    *,
    takes_turns: bool,
) -> dict[str, Place]:
    """Place all results of a stage; where no rows are kept, a sum may be written over one of its terms."""
    shapes = _shapes(architecture, source, operations)
    buffers = _Buffers(shapes, _names_of_convolutions(operations), channel_unit)
    last_reads = {name: number for number, operation in enumerate(operations) for name in operation.sources}
    last_reads[result] = len(operations)
    buffers.place(source)
    for number, operation in enumerate(operations):
        done = [name for name in dict.fromkeys(operation.sources) if last_reads[name] == number]
        replaced = _addend_to_replace(operation, done, shapes) if takes_turns else None
        buffers.place(operation.name, buffers.places[replaced].buffer if replaced else None)
        if isinstance(operation, FusedDenseBlock):
            buffers.place_growth(operation, takes_turns=takes_turns)
        unread = [] if operation.name in last_reads else [operation.name]
        for name in [*done, *unread]:
            if name != replaced:
                buffers.release(name)
    return buffers.places


def _addend_to_replace(operation: ScheduledOperation, done: list[str], shapes: dict[str, MapShape]) -> str | None:
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


def _shapes(architecture: Architecture, source: str, operations: tuple[ScheduledOperation, ...]) -> dict[str, MapShape]:
    """Return the shapes of all results, on grids that are relative to the source's."""
    known = architecture.map_shapes
    shapes = {source: MapShape(known[source].channels, Fraction(1))}
    for operation in operations:
        parts = operation.convolutions if isinstance(operation, FusedDenseBlock) else (operation,)
        for part in parts:
            name = _name_in_description(part)
            shapes[part.name] = MapShape(known[name].channels, known[name].grid / known[source].grid)
    return shapes


def _name_in_description(operation: ScheduledOperation) -> str:
    """Return the name of the layer whose result has the shape of an operation's."""
    match operation:
        case FusedConvolution():
            return operation.layer.name
        case LongSkip():
            return operation.source
    return operation.name


def _names_of_convolutions(operations: tuple[ScheduledOperation, ...]) -> set[str]:
    """Return the names of the results that convolutions read or give: the kernel wants whole SIMD vectors of them."""
    names: set[str] = set()
    for operation in operations:
        if isinstance(operation, FusedConvolution):
            names |= {operation.name, *operation.sources}
        if isinstance(operation, FusedDenseBlock):
            names |= {convolution.name for convolution in operation.convolutions} | set(operation.sources)
    return names


def rows_after(schedule: StageSchedule, source_rows: int, end_row: int | None = None) -> dict[str, int]:
    """Return how many rows of each result are known.

    Args:
        schedule: of the stage.
        source_rows: rows of what it reads that are known. Behind the last one it goes on growing, by ALL_ROWS or by the
            rows of a strip at a time, for the results that lag.
        end_row: the row below the last one of what it reads; None where it has not come yet.
    """
    rows = {schedule.source: source_rows}
    for operation in schedule.operations:
        rows |= _rows_known(operation, rows, schedule.row_unit, schedule.inner_row_unit)
    if end_row is None:
        return rows
    return {name: min(known, int(end_row * schedule.places[name].grid)) for name, known in rows.items()}


def _rows_known(operation: ScheduledOperation, rows: dict[str, int], unit: int, inner_unit: int) -> dict[str, int]:
    """Return how many rows of an operation's result are known, and of those that a dense block keeps to itself."""
    known = min(rows[source] for source in operation.sources)
    match operation:
        case FusedConvolution():
            known = _rows_of_convolution(operation, rows[operation.source], rows, unit)
        case FusedDenseBlock():
            inner: dict[str, int] = {}
            known = rows[operation.source]
            for convolution in operation.convolutions:
                known = inner[convolution.name] = _rows_of_convolution(convolution, known, rows, inner_unit)
            return inner | {operation.name: known // unit * unit}
        case PixelShuffle() | NearestEnlargement():
            known *= operation.factor
        case PixelUnshuffle():
            known //= operation.factor
        case LongSkip():
            known = max(0, known - operation.lag_rows)
    return {operation.name: known}


def _rows_of_convolution(convolution: FusedConvolution, read_rows: int, rows: dict[str, int], unit: int) -> int:
    """Return how many rows of a convolution's result are known, when so many of its source are."""
    if convolution.nearest_x2_input:
        read_rows, unit = 2 * read_rows, max(2, unit)
    below = convolution.layer.kernel // 2
    known = min(read_rows - below, *(rows[name] for name, _ in convolution.addends), read_rows)
    return max(0, known) // unit * unit


def rows_kept(schedule: StageSchedule, rows: dict[str, int], end_row: int | None = None) -> dict[str, tuple[int, int]]:
    """Return the first and the end row of each result that later rows are computed from; as `rows_after` has it.

    A dense block goes on at the row where its last convolution stopped, with all its convolutions: of those before it
    the row above is kept.
    """
    first = dict(rows)
    inner: dict[str, tuple[int, int]] = {}
    for operation in schedule.operations:
        done = rows[operation.name]
        if isinstance(operation, FusedDenseBlock):
            inner |= {convolution.name: (done - 1, done) for convolution in operation.convolutions[:-1]}
        if end_row is not None and done == int(end_row * schedule.places[operation.name].grid):
            continue
        for source, row in _first_rows_read(operation, done):
            first[source] = min(first[source], row)
    return {name: inner.get(name, (row, rows[name])) for name, row in first.items()}


def _first_rows_read(operation: ScheduledOperation, done: int) -> Iterator[tuple[str, int]]:
    """Yield the first row of each source that an operation reads for the rows of its result from `done` on."""
    match operation:
        case FusedConvolution():
            yield operation.source, (done - 1) // 2 if operation.nearest_x2_input else done - 1
            yield from ((name, done) for name, _ in operation.addends)
        case FusedDenseBlock():
            yield operation.source, done - 1
            yield from ((name, done) for name, _ in operation.convolutions[-1].addends)
        case PixelShuffle() | NearestEnlargement():
            yield operation.source, done // operation.factor
        case PixelUnshuffle():
            yield operation.source, done * operation.factor
        case LongSkip():
            return  # it has taken all rows
        case _:
            yield from ((name, done) for name in operation.sources)

"""A stage of a network with its weights, and one image on its way through it, with the rows carried between strips."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realesr.engines.winograd import plain
from realesr.engines.winograd.dense_schedule import DenseBlockSchedule
from realesr.engines.winograd.filters import DenseInputs, Filters, filters_for, slopes_of, weights_memory
from realesr.engines.winograd.fusion import FusedConvolution, FusedDenseBlock, PlainOperation
from realesr.engines.winograd.kernel import Kernel
from realesr.engines.winograd.long_skip import LongSkip, WaitingRows
from realesr.engines.winograd.maps import MapBuffers, MapRows
from realesr.engines.winograd.schedule import ALL_ROWS, ScheduledOperation, StageSchedule, rows_after, rows_kept
from realesr.engines.winograd.tiles import Addend, Step, Workers, bind
from realesr.models.architecture import State
from realesr.models.layers import Activated
from realesr.runtime.rows import in_chunks
from realesr.runtime.strips import joined_states, state_of

Pixels = NDArray[np.float32]


class StageWeights:
    """What the operations of a stage compute with."""

    def __init__(self, schedule: StageSchedule, kernel: Kernel, workers: Workers, state: State) -> None:
        self.filters: dict[str, Filters] = {}
        """Of each convolution, by the name of its layer."""
        self.slopes: dict[str, Pixels | None] = {}
        """Of each activation that stands for itself."""
        convolutions = list(_convolutions(schedule))
        memory = weights_memory(kernel, convolutions)

        def transform(number: int) -> None:
            operation, inputs = convolutions[number]
            self.filters[operation.layer.name] = filters_for(kernel, operation, inputs, state, memory[number])

        workers.for_each(transform, range(len(convolutions)))
        for operation in schedule.operations:
            if isinstance(operation, Activated):
                channels = schedule.places[operation.name].own_channels
                self.slopes[operation.name] = slopes_of(operation.activation, channels, state)


def _convolutions(schedule: StageSchedule) -> Iterator[tuple[FusedConvolution, DenseInputs]]:
    """Yield all convolutions of a stage, those of dense blocks with the channels of what is joined to their input."""
    for operation in schedule.operations:
        if isinstance(operation, FusedConvolution):
            yield operation, None
        elif isinstance(operation, FusedDenseBlock):
            inputs: tuple[int, ...] = (operation.convolutions[0].layer.in_channels,)
            for convolution in operation.convolutions:
                yield convolution, inputs
                inputs = (*inputs, convolution.layer.out_channels)


class Stage:
    """A schedule with its weights, and the memory in which it runs."""

    def __init__(self, schedule: StageSchedule, weights: StageWeights, workers: Workers) -> None:
        self.schedule, self.workers = schedule, workers
        self.filters, self.slopes = weights.filters, weights.slopes
        self.buffers = MapBuffers()
        self._dense: dict[tuple[int, int], DenseBlockSchedule] = {}

    def dense_schedule(self, width: int, depth: int) -> DenseBlockSchedule:
        """Return a schedule whose memory is kept while the images have one width."""
        key = width, depth
        if key not in self._dense:
            if any(other[0] != width for other in self._dense):
                self._dense.clear()  # its memory makes room first
            self._dense[key] = DenseBlockSchedule(*key, self.workers.threads)
        return self._dense[key]

    def free_memory(self) -> None:
        """Free what an image of this stage ran in; one that is under way goes on all the same."""
        self.buffers = MapBuffers()
        self._dense.clear()


@dataclass(frozen=True)
class _Kept:
    """Rows of a result that are still read."""

    pixels: Pixels
    first_row: int

    @property
    def end_row(self) -> int:
        """Return the number of the row below the last one."""
        return self.first_row + len(self.pixels)


class StageRun:
    """One image in a stage."""

    def __init__(self, stage: Stage, width_px: int) -> None:
        """Begin above the image, where every result has a row of zeros; `width_px`: of what the stage reads."""
        self._stage, self._schedule = stage, stage.schedule
        self._width = width_px
        self._rows = dict.fromkeys(self._schedule.places, 0)
        """How many rows of each result are known."""
        self._end_row: int | None = None
        """Below the last row of what is read, once that has come."""
        self._kept = {name: self._padding(name) for name in self._schedule.places}
        skips = (each for each in self._schedule.operations if isinstance(each, LongSkip))
        self._waiting = {skip.name: WaitingRows() for skip in skips}
        self._maps: dict[str, MapRows] = {}
        """Of this strip; a map is overwritten when the last operation that reads it is done."""

    @property
    def is_done(self) -> bool:
        """Return whether all rows of the result are known."""
        if self._end_row is None:
            return False
        result = self._schedule.result
        return self._rows[result] == int(self._end_row * self._schedule.places[result].grid)

    def advance(
        self, pixels: Pixels, *, is_last: bool, after_each: Callable[[ScheduledOperation], None] | None = None
    ) -> Pixels:
        """Take the next rows, (h, width, channels), and return those of the stage's result that they make known.

        Args:
            pixels: the rows.
            is_last: whether these are the last.
            after_each: called with each operation when it is done.
        """
        taken = self._rows[self._schedule.source] + len(pixels)
        if is_last:
            self._end_row = taken
        return self._computed(pixels, taken + (ALL_ROWS if is_last else 0), after_each)

    def advance_in_strips(self, pixels: Pixels, *, is_last: bool, strip_rows: int) -> Iterator[Pixels]:
        """Take the next rows, and yield those of the result strip by strip.

        Behind the image's last row the results that lag go on by the rows of a strip at a time too, so that no map ever
        holds more.

        Args:
            pixels: the rows, (h, width, channels).
            is_last: whether these are the last.
            strip_rows: most rows that are taken at a time.

        Yields:
            (rows, width, channels), which are overwritten when the next ones are asked for.
        """
        taken = self._rows[self._schedule.source]
        for start, stop in in_chunks(len(pixels), strip_rows):
            if is_last and stop == len(pixels):
                self._end_row = taken + stop
            yield self._computed(pixels[start:stop], taken + stop)
        known = taken + len(pixels)
        while is_last and not self.is_done:
            known += strip_rows
            yield self._computed(pixels[:0], known)

    def _computed(
        self, pixels: Pixels, source_rows: int, after_each: Callable[[ScheduledOperation], None] | None = None
    ) -> Pixels:
        """Take rows, and return those of the result that can be known then; `source_rows`: as `rows_after` has it."""
        schedule, before = self._schedule, self._rows
        self._rows = rows_after(schedule, source_rows, self._end_row)
        kept = rows_kept(schedule, self._rows, self._end_row)
        self._reserve()
        source = self._begin(schedule.source)
        _write(source, before[schedule.source], pixels)
        self._keep(schedule.source, kept)
        for operation in schedule.operations:
            self._begin(operation.name)
            if isinstance(operation, LongSkip):
                self._hold_back(operation, before[operation.source])
            if self._rows[operation.name] > before[operation.name]:
                self._run(operation, before[operation.name])
                if isinstance(operation, FusedDenseBlock):
                    for convolution in operation.convolutions[:-1]:
                        self._keep(convolution.name, kept)
            self._keep(operation.name, kept)
            if after_each is not None:
                after_each(operation)
        result = self._pixels(schedule.result, before[schedule.result], self._rows[schedule.result])
        self._maps.clear()  # for `Stage.free_memory`
        return result

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the rows of each result that are still read, and under "rows" which these are."""
        known = [(self._rows[name], kept.first_row) for name, kept in self._kept.items()]
        waiting = joined_states([rows.state() for rows in self._waiting.values()])
        return {"rows": np.array(known), **{name: kept.pixels for name, kept in self._kept.items()}, **waiting}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from the state of another run of this stage, over an image of the same width."""
        for name, (rows, first_row) in zip(self._kept, state["rows"].tolist(), strict=True):
            self._rows[name] = rows
            self._kept[name] = _Kept(state[name], first_row)
        for number, rows in enumerate(self._waiting.values()):
            rows.restore(state_of(number, state))

    def _padding(self, name: str) -> _Kept:
        place = self._schedule.places[name]
        return _Kept(np.broadcast_to(np.float32(0), (1, int(self._width * place.grid), place.channels)), -1)

    def _reserve(self) -> None:
        """Make the buffers as high as the highest of the maps that will take turns in each."""
        shapes: dict[int, tuple[int, int, int]] = {}
        for name, place in self._schedule.places.items():
            rows = self._rows[name] - self._kept[name].first_row
            shape = rows, int(self._width * place.grid), place.channels
            shapes[place.buffer] = max(shape, shapes.get(place.buffer, shape))
        for number, shape in shapes.items():
            self._stage.buffers.reserve(number, *shape)

    def _begin(self, name: str) -> MapRows:
        """Return a map with the rows that were kept, and below them as many as will be known."""
        buffer, kept = self._schedule.places[name].buffer, self._kept[name]
        new_rows = self._rows[name] - kept.end_row
        self._maps[name] = self._stage.buffers.begin(buffer, kept.pixels, kept.first_row, new_rows)
        return self._maps[name]

    def _keep(self, name: str, kept: dict[str, tuple[int, int]]) -> None:
        """Copy the rows that are still read, where they are as many as before into the same memory."""
        if self._schedule.runs_whole:
            return
        first_row, end_row = kept[name]
        rows, pixels = self._maps[name].between(first_row, end_row), self._kept[name].pixels
        if pixels.shape == rows.shape and pixels.flags.writeable:
            pixels[:] = rows
        else:
            pixels = rows.copy()
        self._kept[name] = _Kept(pixels, first_row)

    def _run(self, operation: ScheduledOperation, first_row: int) -> None:
        """Compute the rows of an operation's result from `first_row`."""
        if isinstance(operation, FusedDenseBlock):
            self._run_dense_block(operation, first_row)
        elif isinstance(operation, FusedConvolution):
            self._stage.workers.run_alone(self._bound(operation, first_row))
        elif isinstance(operation, LongSkip):
            self._let_go_on(operation, first_row)
        else:
            self._run_plain(operation, first_row)

    def _hold_back(self, skip: LongSkip, first_row: int) -> None:
        """Let the rows of a long skip's source from `first_row` wait."""
        self._waiting[skip.name].add(self._pixels(skip.source, first_row, self._maps[skip.source].end_row))

    def _let_go_on(self, skip: LongSkip, first_row: int) -> None:
        """Write the rows of a long skip from `first_row`, which have waited."""
        rows = self._maps[skip.name]
        target = self._pixels(skip.name, first_row, rows.end_row)
        self._waiting[skip.name].take(target)
        rows.between(first_row, rows.end_row)[:, :, target.shape[2] :] = 0

    def _run_plain(self, operation: PlainOperation, first_row: int) -> None:
        end_row = self._maps[operation.name].end_row
        target = self._pixels(operation.name, first_row, end_row)
        grid = self._schedule.places[operation.name].grid
        sources = []
        for name in operation.sources:
            ratio = self._schedule.places[name].grid / grid
            sources.append(self._pixels(name, int(first_row * ratio), int(end_row * ratio)))
        plain.compute(operation, sources, target, self._stage.slopes.get(operation.name))
        self._maps[operation.name].between(first_row, end_row)[:, :, target.shape[2] :] = 0

    def _pixels(self, name: str, first_row: int, end_row: int) -> Pixels:
        """Return rows of a result without padding: (rows, width, channels)."""
        return self._maps[name].between(first_row, end_row)[:, :, : self._schedule.places[name].own_channels]

    def _bound(
        self,
        operation: FusedConvolution,
        first_row: int,
        *,
        source: str = "",
        depth: int | None = None,
        offset: int = 0,
    ) -> Step:
        """Bind a convolution to the maps of this strip; in a dense block it transforms only the newest part."""
        return bind(
            self._stage.filters[operation.layer.name],
            self._maps[source or operation.source],
            self._maps[operation.name],
            first_row,
            depth=depth,
            offset=offset,
            addends=tuple(Addend(rows=self._maps[name], factor=factor) for name, factor in operation.addends),
        )

    def _run_dense_block(self, block: FusedDenseBlock, first_row: int) -> None:
        """Run the convolutions in a pipeline. Each transforms what the one before wrote; the rest is there."""
        parts = [block.source, *(convolution.name for convolution in block.convolutions[:-1])]
        channels = [self._schedule.places[name].channels for name in parts]
        for name in parts[1:]:
            self._begin(name)
        steps = [
            self._bound(convolution, first_row, source=part, depth=sum(channels), offset=sum(channels[:number]))
            for number, (convolution, part) in enumerate(zip(block.convolutions, parts, strict=True))
        ]
        schedule = self._stage.dense_schedule(self._maps[block.name].width, sum(channels))
        for tasks in schedule.phases(steps):
            self._stage.workers.run(tasks)


def _write(rows: MapRows, first_row: int, pixels: Pixels) -> None:
    """Write pixels, (h, width, channels), into a map; channels that only fill up SIMD vectors become zero."""
    target = rows.between(first_row, first_row + len(pixels))
    target[:, :, : pixels.shape[2]] = pixels
    target[:, :, pixels.shape[2] :] = 0

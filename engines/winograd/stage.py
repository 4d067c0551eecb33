"""A stage of a network with its weights, and one image on its way through it, with the rows carried between strips."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realesr.engines.winograd import plain
from realesr.engines.winograd.dense_schedule import DenseBlockSchedule
from realesr.engines.winograd.filters import Filters, filters_for, slopes_of
from realesr.engines.winograd.fusion import FusedConvolution, FusedDenseBlock, Operation, PlainOperation
from realesr.engines.winograd.kernel import Kernel
from realesr.engines.winograd.maps import MapBuffers, MapRows
from realesr.engines.winograd.schedule import StageSchedule, first_rows_read, rows_after
from realesr.engines.winograd.tiles import Addend, Step, Workers, bind
from realesr.models.architecture import State
from realesr.models.layers import Activated

Pixels = NDArray[np.float32]


class Stage:
    """A schedule with its weights, and the memory in which it runs."""

    def __init__(self, schedule: StageSchedule, kernel: Kernel, workers: Workers, state: State) -> None:
        self.schedule, self.workers = schedule, workers
        self.buffers = MapBuffers()
        self.filters: dict[str, Filters] = {}
        """Of each convolution, by the name of its result."""
        self.slopes: dict[str, Pixels | None] = {}
        """Of each activation that stands for itself."""
        for operation in schedule.operations:
            if isinstance(operation, FusedConvolution):
                self.filters[operation.name] = filters_for(kernel, operation, state)
            elif isinstance(operation, FusedDenseBlock):
                self._take_dense_block(operation, kernel, state)
            elif isinstance(operation, Activated):
                channels = schedule.places[operation.name].own_channels
                self.slopes[operation.name] = slopes_of(operation.activation, channels, state)
        self._dense: dict[tuple[int, ...], DenseBlockSchedule] = {}

    def _take_dense_block(self, block: FusedDenseBlock, kernel: Kernel, state: State) -> None:
        inputs: tuple[int, ...] = (block.convolutions[0].layer.in_channels,)
        for convolution in block.convolutions:
            self.filters[convolution.name] = filters_for(kernel, convolution, state, inputs)
            inputs = (*inputs, convolution.layer.out_channels)

    def dense_schedule(self, height: int, width: int, depth: int, convolutions: int) -> DenseBlockSchedule:
        """Return a schedule whose memory is kept while the images have one size."""
        key = height, width, depth, convolutions
        if key not in self._dense:
            if any(other[:2] != key[:2] for other in self._dense):
                self._dense.clear()  # its memory makes room first
            self._dense[key] = DenseBlockSchedule(*key, self.workers.threads)
        return self._dense[key]


@dataclass(frozen=True)
class _Kept:
    """Rows of a result that are still read."""

    pixels: Pixels
    first_row: int


class StageRun:
    """One image in a stage."""

    def __init__(self, stage: Stage, width_px: int) -> None:
        """Begin above the image, where every result has a row of zeros; `width_px`: of what the stage reads."""
        self._stage, self._schedule = stage, stage.schedule
        self._width = width_px
        self._rows = dict.fromkeys(self._schedule.places, 0)
        """How many rows of each result are known."""
        self._kept = {name: self._padding(name) for name in self._schedule.places}
        self._maps: dict[str, MapRows] = {}
        """Of this strip; a map is overwritten when the last operation that reads it is done."""

    def advance(
        self, pixels: Pixels, *, is_last: bool, after_each: Callable[[Operation], None] | None = None
    ) -> Pixels:
        """Take the next rows, (h, width, channels), and return those of the stage's result that they make known.

        Args:
            pixels: the rows.
            is_last: whether these are the last.
            after_each: called with each operation when it is done.
        """
        schedule, before = self._schedule, self._rows
        self._rows = rows_after(schedule, before[schedule.source] + len(pixels), is_last=is_last)
        needed = first_rows_read(schedule, self._rows)
        self._maps.clear()
        self._reserve(before)
        source = self._begin(schedule.source, len(pixels))
        _write(source, before[schedule.source], pixels)
        self._keep(schedule.source, needed)
        for operation in schedule.operations:
            self._begin(operation.name, self._rows[operation.name] - before[operation.name])
            if self._rows[operation.name] > before[operation.name]:
                self._run(operation, before[operation.name])
            self._keep(operation.name, needed)
            if after_each is not None:
                after_each(operation)
        return self._pixels(schedule.result, before[schedule.result], self._rows[schedule.result])

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the rows of each result that are still read, and under "rows" which these are."""
        known = [(self._rows[name], kept.first_row) for name, kept in self._kept.items()]
        return {"rows": np.array(known), **{name: kept.pixels for name, kept in self._kept.items()}}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from the state of another run of this stage, over an image of the same width."""
        for name, (rows, first_row) in zip(self._kept, state["rows"].tolist(), strict=True):
            self._rows[name] = rows
            self._kept[name] = _Kept(state[name], first_row)

    def _padding(self, name: str) -> _Kept:
        place = self._schedule.places[name]
        return _Kept(np.broadcast_to(np.float32(0), (1, int(self._width * place.grid), place.channels)), -1)

    def _reserve(self, before: dict[str, int]) -> None:
        """Make the buffers as high as the highest of the maps that will take turns in each."""
        shapes: dict[int, tuple[int, int, int]] = {}
        for name, place in self._schedule.places.items():
            rows = len(self._kept[name].pixels) + self._rows[name] - before[name]
            shape = rows, int(self._width * place.grid), place.channels
            shapes[place.buffer] = max(shape, shapes.get(place.buffer, shape))
        for number, shape in shapes.items():
            self._stage.buffers.reserve(number, *shape)

    def _begin(self, name: str, new_rows: int) -> MapRows:
        buffer, kept = self._schedule.places[name].buffer, self._kept[name]
        self._maps[name] = self._stage.buffers.begin(buffer, kept.pixels, kept.first_row, new_rows)
        return self._maps[name]

    def _keep(self, name: str, needed: dict[str, int]) -> None:
        rows = self._maps[name]
        if not self._schedule.runs_whole:
            self._kept[name] = _Kept(rows.between(needed[name], rows.end_row).copy(), needed[name])

    def _run(self, operation: Operation, first_row: int) -> None:
        """Compute the rows of an operation's result from `first_row`."""
        if isinstance(operation, FusedDenseBlock):
            self._run_dense_block(operation)
        elif isinstance(operation, FusedConvolution):
            self._stage.workers.run_alone(self._bound(operation, first_row))
        else:
            self._run_plain(operation, first_row)

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
            self._stage.filters[operation.name],
            self._maps[source or operation.source],
            self._maps[operation.name],
            first_row,
            depth=depth,
            offset=offset,
            addends=tuple(Addend(rows=self._maps[name], factor=factor) for name, factor in operation.addends),
        )

    def _run_dense_block(self, block: FusedDenseBlock) -> None:
        """Run the convolutions in a pipeline. Each transforms what the one before wrote; the rest is there."""
        parts = [block.source, *(convolution.name for convolution in block.convolutions[:-1])]
        channels = [self._schedule.places[name].channels for name in parts]
        target = self._maps[block.name]
        for name in parts[1:]:
            self._begin(name, target.end_row)
        steps = [
            self._bound(convolution, 0, source=part, depth=sum(channels), offset=sum(channels[:number]))
            for number, (convolution, part) in enumerate(zip(block.convolutions, parts, strict=True))
        ]
        schedule = self._stage.dense_schedule(target.end_row, target.width, sum(channels), len(steps))
        for tasks in schedule.phases(steps):
            self._stage.workers.run(tasks)


def _write(rows: MapRows, first_row: int, pixels: Pixels) -> None:
    """Write pixels, (h, width, channels), into a map; channels that only fill up SIMD vectors become zero."""
    target = rows.between(first_row, first_row + len(pixels))
    target[:, :, : pixels.shape[2]] = pixels
    target[:, :, pixels.shape[2] :] = 0

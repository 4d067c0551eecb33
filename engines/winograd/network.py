"""A network bound to its weights: whole images and strips of them go through its stages."""

import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realesr.engine import ProgressCallback
from realesr.engines.winograd.fusion import FusedConvolution, FusedDenseBlock
from realesr.engines.winograd.kernel import Kernel
from realesr.engines.winograd.plain import Pixels, put_together
from realesr.engines.winograd.schedule import (
    ALL_ROWS,
    ScheduledOperation,
    StageSchedule,
    has_strips,
    rows_after,
    schedules,
)
from realesr.engines.winograd.stage import Stage, StageRun, StageWeights
from realesr.engines.winograd.tiles import Workers
from realesr.models.weights import Weights
from realesr.runtime.rows import in_chunks
from realesr.runtime.strips import joined_states, state_of

PORTION_PX = 8192
"""Pixels of the trunk's result that the tail takes at a time: 160 MB, for its maps are up to 16 times as large."""


def portion_rows(width: int) -> int:
    """Return the rows of a portion of the trunk's result."""
    return max(1, PORTION_PX // width)


class Network:
    """A network's stages with their weights. One image at a time goes through it whole; several may in strips."""

    def __init__(self, kernel: Kernel, workers: Workers, weights: Weights) -> None:
        architecture = weights.architecture
        self.scale, self.has_strips = architecture.scale, has_strips(architecture)
        whole, in_strips = (schedules(architecture, kernel.channel_unit, in_strips=each) for each in (False, True))
        bound = [StageWeights(schedule, kernel, workers, weights.state) for schedule in whole]
        self.stages = [Stage(schedule, part, workers) for schedule, part in zip(whole, bound, strict=True)]
        self.strip_stages = [Stage(in_strips[0], bound[0], workers), *self.stages[1:]]
        """The first one differs: rows that are kept from strip to strip must not be overwritten."""

    def run(self, image: NDArray[np.float32], on_progress: ProgressCallback) -> NDArray[np.float32]:
        """Enlarge a whole image: (3, h, w) to (3, h * scale, w * scale)."""
        _, height, width = image.shape
        self.strip_stages[0].free_memory()
        output = np.empty((3, height * self.scale, width * self.scale), np.float32)
        progress = _Progress([stage.schedule for stage in self.stages], on_progress)
        first, *later = self.stages
        pixels = StageRun(first, width).advance(image.transpose(1, 2, 0), is_last=True, after_each=progress.after)
        if not later:
            self.write(pixels, image, output)
        progress.after_trunk()
        for stage in later:
            top = 0
            for result, share in in_portions(StageRun(stage, pixels.shape[1]), pixels, is_last=True):
                top += self.write(result, output, output, top)
                progress.after_portion(share)
        return output

    def begin(self, width_px: int, rows_px: int) -> "StripsOfImage":
        """Begin an image that comes in strips, of which so many rows are computed at a time."""
        self.stages[0].free_memory()
        return StripsOfImage(self, width_px, rows_px)

    def write(
        self, pixels: NDArray[np.float32], image: NDArray[np.float32], output: NDArray[np.float32], top: int = 0
    ) -> int:
        """Write rows of the enlarged image.

        Args:
            pixels: (h, w, channels), what the last stage gave.
            image: (3, h, w), the rows of the image from that of the output's first row on; their enlargement may be
                added.
            output: (3, H, W).
            top: first row of it that is written.

        Returns:
            The number of rows.
        """
        how = self.stages[-1].schedule.output
        assert how is not None
        first, rows = top // self.scale, len(pixels) * how.factor
        enlarged = image[:, first : first + len(pixels)] if how.adds_enlarged_image else None
        put_together(pixels, how.factor, enlarged, output[:, top : top + rows])
        return rows

    def rows_after(self, source_rows: int, *, is_last: bool) -> int:
        """Return how many rows of the enlarged image are known when so many of the image have come."""
        rows, grid = source_rows, Fraction(1)
        for stage in self.strip_stages:
            schedule, end_row = stage.schedule, int(source_rows * grid)
            known = rows_after(schedule, rows + ALL_ROWS * is_last, end_row if is_last else None)
            rows, grid = known[schedule.result], grid * schedule.places[schedule.result].grid
        assert schedule.output is not None
        return rows * schedule.output.factor


def in_portions(run: StageRun, pixels: NDArray[np.float32], *, is_last: bool) -> Iterator[tuple[Pixels, float]]:
    """Take rows of the trunk's result, (h, w, channels), through the tail in portions.

    Yields:
        Rows of the tail's result, which are overwritten when the next ones are asked for; and the share that is done.
    """
    height, width, _ = pixels.shape
    for start, stop in in_chunks(height, portion_rows(width)):
        yield run.advance(pixels[start:stop], is_last=is_last and stop == height), stop / height


class StripsOfImage:
    """One image in strips; see `realesr.runtime.strips.StripRun`."""

    def __init__(self, network: Network, width_px: int, rows_px: int) -> None:
        self._network, self._rows_px = network, rows_px
        self._trunk, *self._tail = _runs(network.strip_stages, width_px)
        self._taken = self._given = 0
        """Rows of the image, and of the enlarged image."""
        self._waiting = np.empty((3, 0, width_px), np.float32)
        """Rows of the image to which the network's result has not come yet."""

    def step(self, rows: NDArray[np.float32], *, is_last: bool) -> NDArray[np.float32]:
        """Enlarge the next rows; see `StripRun.step`."""
        network, image = self._network, np.concatenate([self._waiting, rows[0]], axis=1)
        self._taken += rows.shape[2]
        known = network.rows_after(self._taken, is_last=is_last)
        output = np.empty((3, known - self._given, rows.shape[3] * network.scale), np.float32)
        top = 0
        for pixels in self._results(rows[0].transpose(1, 2, 0), is_last=is_last):
            top += network.write(pixels, image, output, top)
        self._waiting = image[:, known // network.scale - self._given // network.scale :]
        self._given = known
        if is_last:  # room for the rows that lagged, which come all at once
            for stage in network.strip_stages:
                stage.free_memory()
        return output[None]

    def _results(self, pixels: NDArray[np.float32], *, is_last: bool) -> Iterator[Pixels]:
        """Yield what the last stage gives for the next rows, (h, w, channels)."""
        trunk = self._trunk
        for part in trunk.advance_in_strips(pixels, is_last=is_last, strip_rows=self._rows_px):
            if self._tail:
                yield from (result for result, _ in in_portions(self._tail[0], part, is_last=trunk.is_done))
            else:
                yield part

    def state(self) -> dict[str, NDArray[Any]]:
        """Return what the next strip is computed from; see `StripRun.state`."""
        counts = np.array([self._taken, self._given])
        stages = joined_states([run.state() for run in (self._trunk, *self._tail)])
        return {"image": self._waiting, "counts": counts, **stages}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from a state; see `StripRun.restore`."""
        self._waiting = state["image"]
        self._taken, self._given = state["counts"].tolist()
        for number, run in enumerate((self._trunk, *self._tail)):
            run.restore(state_of(number, state))


def _runs(stages: list[Stage], width_px: int) -> Iterator[StageRun]:
    """Begin an image of this width in each stage."""
    width = Fraction(width_px)
    for stage in stages:
        yield StageRun(stage, int(width))
        width *= stage.schedule.places[stage.schedule.result].grid


class _Progress:
    """Turns what is done of an image into the share of its MACs."""

    def __init__(self, stages: list[StageSchedule], on_progress: ProgressCallback) -> None:
        trunk, *tail = stages
        grid = trunk.places[trunk.result].grid  # the tail's MACs are those of so many pixels of its source
        self._operations = {each.name: _macs(trunk, each) for each in trunk.operations}
        self._trunk = sum(self._operations.values())
        self._all = self._trunk + sum(_macs(stage, each) * grid**2 for stage in tail for each in stage.operations)
        self._done = Fraction(0)
        self._on_progress = on_progress

    def after(self, operation: ScheduledOperation) -> None:
        """Tell after each dense block of the trunk; all else there takes little."""
        if isinstance(operation, FusedDenseBlock):
            self._done += self._operations[operation.name]
            self._tell(self._done)

    def after_trunk(self) -> None:
        """Tell that the trunk is done."""
        self._tell(self._trunk)

    def after_portion(self, share: float) -> None:
        """Tell that so much of the tail is done."""
        self._tell(self._trunk + (self._all - self._trunk) * Fraction(share))

    def _tell(self, macs: Fraction | int) -> None:
        self._on_progress(float(macs / self._all) if self._all else 1.0)


def _macs(stage: StageSchedule, operation: ScheduledOperation) -> Fraction:
    """Return the multiply-accumulates of an operation for each pixel of what its stage reads."""
    match operation:
        case FusedDenseBlock():
            return sum((_macs(stage, each) for each in operation.convolutions), Fraction(0))
        case FusedConvolution():
            weights = math.prod(operation.layer.arrays[f"{operation.layer.name}.weight"])
            return weights * stage.places[operation.name].grid ** 2
    return Fraction(0)

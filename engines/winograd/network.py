"""A network bound to its weights: whole images and strips of them go through its stages."""

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realesr.engine import ProgressCallback
from realesr.engines.winograd.fusion import FusedConvolution, FusedDenseBlock, Operation
from realesr.engines.winograd.kernel import Kernel
from realesr.engines.winograd.plain import put_together
from realesr.engines.winograd.schedule import StageSchedule, schedules
from realesr.engines.winograd.stage import Stage, StageRun
from realesr.engines.winograd.tiles import Workers
from realesr.models.weights import Weights
from realesr.runtime.rows import in_chunks

PORTION_PX = 16_384
"""Pixels of the trunk's result that the tail takes at a time: 160 MB, for its maps are up to 16 times as large."""


def portion_rows(width: int) -> int:
    """Return the rows of a portion of the trunk's result."""
    return max(1, PORTION_PX // width)


class Network:
    """A network's stages with their weights. One image at a time goes through it whole; several may in strips."""

    def __init__(self, kernel: Kernel, workers: Workers, weights: Weights) -> None:
        self.scale = weights.architecture.scale
        self.stages = [
            Stage(schedule, kernel, workers, weights.state)
            for schedule in schedules(weights.architecture, kernel.channel_unit)
        ]

    @property
    def has_strips(self) -> bool:
        """Return whether `begin` can be called."""
        return not self.stages[0].schedule.runs_whole

    def run(self, image: NDArray[np.float32], on_progress: ProgressCallback) -> NDArray[np.float32]:
        """Enlarge a whole image: (3, h, w) to (3, h * scale, w * scale)."""
        _, height, width = image.shape
        output = np.empty((3, height * self.scale, width * self.scale), np.float32)
        progress = _Progress([stage.schedule for stage in self.stages], on_progress)
        first, *later = self.stages
        pixels = StageRun(first, width).advance(image.transpose(1, 2, 0), is_last=True, after_each=progress.after)
        if not later:
            self.write(pixels, image, output)
        progress.after_trunk()
        for stage in later:
            self._run_tail(stage, pixels, output, progress)
        return output

    def begin(self, width_px: int) -> "StripsOfImage":
        """Begin an image that comes in strips."""
        return StripsOfImage(self, width_px)

    def write(
        self, pixels: NDArray[np.float32], image: NDArray[np.float32], output: NDArray[np.float32], top: int = 0
    ) -> int:
        """Write rows of the enlarged image.

        Args:
            pixels: (h, w, channels), what the last stage gave.
            image: (3, h, w), the rows of the image whose enlargement may be added.
            output: (3, H, W).
            top: first row of it that is written.

        Returns:
            The number of rows.
        """
        how = self.stages[-1].schedule.output
        assert how is not None
        rows = len(pixels) * how.factor
        put_together(pixels, how.factor, image if how.adds_enlarged_image else None, output[:, top : top + rows])
        return rows

    def _run_tail(
        self, stage: Stage, pixels: NDArray[np.float32], output: NDArray[np.float32], progress: "_Progress"
    ) -> None:
        """Take the trunk's result, (h, w, channels), through the tail in portions."""
        height, width, _ = pixels.shape
        tail, top = StageRun(stage, width), 0
        for start, stop in in_chunks(height, portion_rows(width)):
            result = tail.advance(pixels[start:stop], is_last=stop == height)
            top += self.write(result, output, output, top)
            progress.after_portion(stop / height)


class StripsOfImage:
    """One image in strips; see `realesr.runtime.strips.StripRun`."""

    def __init__(self, network: Network, width_px: int) -> None:
        self._network = network
        self._run = StageRun(network.stages[0], width_px)
        self._waiting = np.empty((3, 0, width_px), np.float32)
        """Rows of the image to which the network's result has not come yet."""

    def step(self, rows: NDArray[np.float32], *, is_last: bool) -> NDArray[np.float32]:
        """Enlarge the next rows; see `StripRun.step`."""
        network = self._network
        self._waiting = np.concatenate([self._waiting, rows[0]], axis=1)
        pixels = self._run.advance(rows[0].transpose(1, 2, 0), is_last=is_last)
        count = int(len(pixels) / network.stages[0].schedule.places[network.stages[0].schedule.result].grid)
        image, self._waiting = self._waiting[:, :count], self._waiting[:, count:]
        output = np.empty((3, count * network.scale, rows.shape[3] * network.scale), np.float32)
        network.write(pixels, image, output)
        return output[None]

    def state(self) -> dict[str, NDArray[Any]]:
        """Return what the next strip is computed from; see `StripRun.state`."""
        return {"image": self._waiting, **self._run.state()}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from a state; see `StripRun.restore`."""
        self._waiting = state["image"]
        self._run.restore(state)


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

    def after(self, operation: Operation) -> None:
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


def _macs(stage: StageSchedule, operation: Operation) -> Fraction:
    """Return the multiply-accumulates of an operation for each pixel of what its stage reads."""
    match operation:
        case FusedDenseBlock():
            return sum((_macs(stage, each) for each in operation.convolutions), Fraction(0))
        case FusedConvolution():
            weights = math.prod(operation.layer.arrays[f"{operation.layer.name}.weight"])
            return weights * stage.places[operation.name].grid ** 2
    return Fraction(0)

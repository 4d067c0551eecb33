"""Runs networks with convolutions of our own on the CPU: Winograd's, in float32, from winograd.c."""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realesr.engine import (
    EngineBase,
    EngineSpec,
    PieceSizes,
    Precision,
    ProgressCallback,
    SizeRule,
    check_batch,
    no_progress,
)
from realesr.engines.dense_blocks import find_dense_blocks
from realesr.engines.facts import weights_alone
from realesr.engines.translation import translated
from realesr.engines.winograd.filters import Filters, check_convolutions
from realesr.engines.winograd.kernel import TILE_PX, Kernel, load_kernel
from realesr.engines.winograd.maps import map_rows
from realesr.engines.winograd.memory import needed_bytes, state_bytes_per_column
from realesr.engines.winograd.network import Network, StripsOfImage
from realesr.engines.winograd.schedule import has_strips
from realesr.engines.winograd.tiles import Workers, bind
from realesr.errors import EngineError, UsageError
from realesr.machine.cgroup import usable_cores
from realesr.models.architecture import Architecture
from realesr.models.weights import Weights
from realesr.runtime.strips import Strips, check_strips, first_rows_px

PRECISIONS: tuple[Precision, ...] = ("fp32",)

_NAME = "engine winograd on cpu"
"""In messages."""

LARGEST_ERROR = 1e-3
"""Of the proof's values, which are up to 20: its right ones are within 1e-4."""

PIECES = PieceSizes(
    largest_tile_px=256,
    largest_strip_px=4096 * 3 * TILE_PX,
    smallest_strip_rows=3 * TILE_PX,
    largest_strip_rows=11 * TILE_PX,
    strip_rows_step=TILE_PX,
)
"""Larger images go by strips, which take a third of the memory; all rows of their tiles are needed."""
DEEP_PIECES = PieceSizes(
    largest_tile_px=960,
    largest_strip_px=8192 * 8 * TILE_PX,
    smallest_strip_rows=8 * TILE_PX,
    largest_strip_rows=28 * TILE_PX,
    strip_rows_step=TILE_PX,
    strips_limit_bytes=5.5e9,
)
"""Of networks with dense blocks or convolutions behind an enlargement. Their tail takes the trunk's result in portions.
With every strip, all but the last convolution of a dense block do six rows again: of 48 rows a fifteenth of the work,
of 168 a fiftieth. They keep 250 kB a column (x4plus), so that fewer rows save little: 5.5 GB are 8,000 px."""


class WinogradEngine(EngineBase):
    """An open network. One image at a time: all threads work on it."""

    def __init__(self, network: Network, kernel: Kernel, workers: Workers, spec: EngineSpec) -> None:
        self.spec = spec
        self._network: Network | None = network
        self._kernel, self._workers = kernel, workers

    def run(self, batch: NDArray[np.float32], on_progress: ProgressCallback | None = None) -> NDArray[np.float32]:
        """Enlarge a batch; see `Engine.run`. `on_progress` hears of dense blocks and of portions of the tail."""
        check_batch(batch, self.spec)
        network = self._opened()
        with translated(_NAME):
            return network.run(batch[0], on_progress or no_progress)[None]

    def open_strips(self, width_px: int, height_px: int, *, rows_px: int) -> Strips:
        """Begin an image, strip by strip; see `Engine.open_strips`."""
        network = self._opened()
        if not network.has_strips:
            return super().open_strips(width_px, height_px, rows_px=rows_px)
        check_strips(self.spec, width_px, height_px)
        with translated(_NAME):
            run = _TranslatedStrips(network.begin(width_px, rows_px))
        return Strips(run, self.spec, width_px=width_px, height_px=height_px)

    def bytes_for(self, architecture: Architecture, height_px: int, width_px: int, *, in_strips: bool = False) -> float:
        """Return the memory for a tile or for strips, computed from the schedule; see `Engine.bytes_for`."""
        return needed_bytes(
            architecture,
            height_px,
            width_px,
            in_strips=in_strips,
            channel_unit=self._kernel.channel_unit,
            threads=self._workers.threads,
        )

    def close(self) -> None:
        """Free the network."""
        self._network = None
        self._workers.close()

    def _opened(self) -> Network:
        if self._network is None:
            raise EngineError("engine winograd is closed: open it again")
        return self._network


@dataclass(frozen=True)
class _TranslatedStrips:
    """One image in strips, whose errors become ours."""

    run: StripsOfImage

    def step(self, rows: NDArray[np.float32], *, is_last: bool) -> NDArray[np.float32]:
        """Enlarge the next rows; see `StripRun.step`."""
        with translated(_NAME):
            return self.run.step(rows, is_last=is_last)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return what the next strip is computed from; see `StripRun.state`."""
        return self.run.state()

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from a state; see `StripRun.restore`."""
        self.run.restore(state)


def open_winograd(
    model: Weights | Path, *, device: str = "auto", precision: str = "auto", threads: int | None = None
) -> WinogradEngine:
    """Open a network; the arguments are those of `realesr.engines.open_engine`.

    Raises:
        EngineError: There is no such device, or the network has a convolution that winograd.c has not.
        UsageError: The precision is another one than float32, or the model is an .onnx file.
    """
    weights = weights_alone(model, "winograd")
    if device.lower() not in ("auto", "cpu"):
        raise EngineError(f"engine winograd got the device {device}, expected one that it has here: cpu")
    if precision not in ("auto", *PRECISIONS):
        raise UsageError(f"engine winograd got precision {precision}, expected fp32")
    check_convolutions(weights.architecture)
    kernel = proven_kernel()
    workers = Workers(kernel, threads or usable_cores())
    with translated(_NAME):
        network = Network(kernel, workers, weights)
    return WinogradEngine(network, kernel, workers, _spec(weights.architecture, kernel.channel_unit))


def _spec(architecture: Architecture, channel_unit: int) -> EngineSpec:
    multiple_of, first_rows, pieces = architecture.multiple_of, None, PIECES
    if architecture.has_enlarged_convolutions or find_dense_blocks(architecture.layers):
        pieces = DEEP_PIECES
    if has_strips(architecture):
        first_rows = first_rows_px(architecture)
        pieces = replace(pieces, strip_state_bytes=state_bytes_per_column(architecture, channel_unit))
    return EngineSpec(
        name="winograd",
        scale=architecture.scale,
        precision="fp32",
        device="cpu",
        size=SizeRule(minimum_px=multiple_of, multiple_of=multiple_of),
        pieces=pieces,
        first_rows_px=first_rows,
    )


def devices() -> tuple[str, ...]:
    """Return the devices that there are here; raises as `proven_kernel` where there is no kernel."""
    proven_kernel()
    return ("cpu",)


@functools.cache
def proven_kernel() -> Kernel:
    """Return the kernel after comparing one convolution with its definition: a compiler may have done anything.

    Raises:
        MissingDependency: It was not compiled when realesr was installed.
        EngineError: This processor has no vectors that it is written for, or it computes something else.
    """
    kernel = load_kernel()
    height, width, channels = 7, 9, kernel.padded(1)
    image, weights = _waves((height, width, channels)), _waves((channels, channels, 3, 3))
    bias = weights[0, :, 0, 0]
    source, target = (map_rows(width, channels, height) for _ in range(2))
    source.between(0, height)[:] = image
    Workers(kernel, threads=1).run_alone(bind(Filters(kernel, weights, bias, inputs=(channels,)), source, target, 0))
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(image, ((1, 1), (1, 1), (0, 0))), (3, 3), axis=(0, 1))
    expected = np.einsum("hwiyx,oiyx->hwo", windows, weights) + bias  # its own loops: no BLAS, whose threads spin
    error = float(np.abs(target.between(0, height) - expected).max())
    if not error < LARGEST_ERROR:
        raise EngineError(
            f"engine winograd computes wrong values on this processor: {error:.1e} from a convolution, expected less "
            f"than {LARGEST_ERROR:.0e}; take another engine, and tell the authors"
        )
    return kernel


def _waves(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return values between -1 and 1 without a pattern; importing numpy.random would take 30 ms of each start."""
    return np.sin(np.arange(math.prod(shape), dtype=np.float32) ** 2).reshape(shape)

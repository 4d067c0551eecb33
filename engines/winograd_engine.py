"""Runs networks with convolutions of our own on the CPU: Winograd's, in float32, from winograd.c."""

import contextlib
import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from realesr.architectures import RRDB, Compact
from realesr.cgroup import usable_cores
from realesr.engine import EngineBase, EngineSpec, OnShare, Precision, SizeRule, check_batch, not_told
from realesr.engines.facts import weights_alone
from realesr.engines.winograd_compact import CompactNetwork, CompactRun
from realesr.engines.winograd_kernel import Kernel, load_kernel
from realesr.engines.winograd_layers import FeatureMap, Layer, Workers, step
from realesr.engines.winograd_rrdb import RrdbNetwork
from realesr.errors import EngineError, OutOfMemory, UsageError
from realesr.strips import Strips, check_strips, first_rows_px
from realesr.weights import Weights

PRECISIONS: tuple[Precision, ...] = ("fp32",)

LARGEST_ERROR = 1e-3
"""Of the proof's values, which are up to 20: its right ones are within 5e-5."""


class WinogradEngine(EngineBase):
    """An open network. One image at a time: all threads work on it. Compact networks have strips."""

    def __init__(self, network: CompactNetwork | RrdbNetwork, workers: Workers, spec: EngineSpec) -> None:
        self.spec = spec
        self._network: CompactNetwork | RrdbNetwork | None = network
        self._workers = workers

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Enlarge a batch; see `Engine.run`."""
        return self.run_watched(batch, not_told)

    def run_watched(self, batch: NDArray[np.float32], on_share: OnShare) -> NDArray[np.float32]:
        """The same, and tell how far an RRDBNet is; see `Engine.run_watched`."""
        check_batch(batch, self.spec)
        network = self._opened()
        with _translated():
            if isinstance(network, RrdbNetwork):
                return network.run(batch[0], on_share)[None]
            return network.run(batch[0])[None]

    def open_strips(self, width_px: int, height_px: int, *, rows_px: int) -> Strips:
        """Begin an image, strip by strip; see `Engine.open_strips`."""
        network = self._opened()
        if not isinstance(network, CompactNetwork):
            return super().open_strips(width_px, height_px, rows_px=rows_px)
        check_strips(self.spec, width_px, height_px)
        with _translated():
            run = _Translated(CompactRun(network, width_px))
        return Strips(run, self.spec, width_px=width_px, height_px=height_px)

    def close(self) -> None:
        """Free the network."""
        self._network = None
        self._workers.close()

    def _opened(self) -> CompactNetwork | RrdbNetwork:
        if self._network is None:
            raise EngineError("engine winograd is closed: open it again")
        return self._network


@dataclass(frozen=True)
class _Translated:
    """One image in strips, its errors ours."""

    run: CompactRun

    def step(self, rows: NDArray[np.float32], *, is_last: bool) -> NDArray[np.float32]:
        """See `StripRun.step`."""
        with _translated():
            return self.run.step(rows, is_last=is_last)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """The one seam at which errors become ours."""
    try:
        yield
    except MemoryError as error:
        raise OutOfMemory("engine winograd on cpu: out of memory; expected a smaller tile") from error


def open_winograd(
    model: Weights | Path, *, device: str = "auto", precision: str = "auto", threads: int | None = None
) -> WinogradEngine:
    """Open a network; the arguments are those of `realesr.engines.open_engine`."""
    weights = weights_alone(model, "winograd")
    if device.lower() not in ("auto", "cpu"):
        raise EngineError(f"engine winograd got the device {device}, expected one that it has here: cpu")
    if precision not in ("auto", *PRECISIONS):
        raise UsageError(f"engine winograd got precision {precision}, expected fp32")
    kernel = proven_kernel()
    workers = Workers(kernel, threads or usable_cores())
    multiple_of = weights.architecture.multiple_of
    spec = EngineSpec(
        name="winograd",
        scale=weights.architecture.scale,
        precision="fp32",
        device="cpu",
        size=SizeRule(minimum_px=multiple_of, multiple_of=multiple_of),
        first_rows_px=first_rows_px(weights.architecture) if isinstance(weights.architecture, Compact) else None,
    )
    with _translated():
        network = RrdbNetwork if isinstance(weights.architecture, RRDB) else CompactNetwork
        return WinogradEngine(network(kernel, workers, weights), workers, spec)


def devices() -> tuple[str, ...]:
    """What `--device` may be here; raises as `proven_kernel` where there is no kernel."""
    proven_kernel()
    return ("cpu",)


@functools.cache
def proven_kernel() -> Kernel:
    """The kernel, after one convolution that was compared with its definition: a compiler may have done anything.

    Raises:
        MissingDependency: it was not compiled when realesr was installed.
        EngineError: this processor has no vectors that it is written for, or it computes something else.
    """
    kernel = load_kernel()
    height, width, channels = 7, 9, kernel.padded(1)
    image, filters = _waves((height, width, channels)), _waves((channels, channels, 3, 3))
    source, target = (FeatureMap(height, width, channels) for _ in range(2))
    source.inside[:] = image
    workers = Workers(kernel, threads=1)
    workers.run_alone(step(Layer(kernel, filters, filters[0, :, 0, 0], inputs=(channels,)), source, target))
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(image, ((1, 1), (1, 1), (0, 0))), (3, 3), axis=(0, 1))
    expected = np.tensordot(windows, filters, axes=((2, 3, 4), (1, 2, 3))) + filters[0, :, 0, 0]
    error = float(np.abs(target.inside - expected).max())
    if not error < LARGEST_ERROR:
        raise EngineError(
            f"engine winograd computes wrong values on this processor: {error:.1e} from a convolution, expected less "
            f"than {LARGEST_ERROR:.0e}; take another --engine, and tell the authors"
        )
    return kernel


def _waves(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Values between -1 and 1 without a pattern; importing numpy's random ones would take 30 ms of every start."""
    return np.sin(np.arange(math.prod(shape), dtype=np.float32) ** 2).reshape(shape)

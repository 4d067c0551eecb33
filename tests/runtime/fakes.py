"""Engines with known answers, for tests of what surrounds an engine."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realesr.engine import EngineBase, EngineSpec, Precision, ProgressCallback, SizeRule, check_batch
from realesr.errors import OutOfMemory


class BoxBlurEngine(EngineBase):
    """A zero-padded box blur of known radius, then nearest enlargement: tiles err near their borders."""

    def __init__(self, scale: int = 2, radius_px: int = 3, multiple_of: int = 1, max_batch: int = 1) -> None:
        self.spec = EngineSpec(
            name="box",
            scale=scale,
            precision="fp32",
            device="cpu",
            size=SizeRule(minimum_px=multiple_of, multiple_of=multiple_of),
            max_batch=max_batch,
            best_batch=max_batch,
        )
        self._radius_px = radius_px

    def run(self, batch: NDArray[np.float32], on_progress: ProgressCallback | None = None) -> NDArray[np.float32]:
        check_batch(batch, self.spec)
        side = 2 * self._radius_px + 1
        blurred = batch.astype(np.float64)
        for axis in (2, 3):
            pad = [(0, 0)] * 4
            pad[axis] = (self._radius_px, self._radius_px)
            padded = np.pad(blurred, pad)
            windows = np.lib.stride_tricks.sliding_window_view(padded, side, axis=axis)
            blurred = windows.mean(axis=-1)
        scale = self.spec.scale
        return blurred.repeat(scale, axis=2).repeat(scale, axis=3).astype(np.float32)


class FaultyEngine(EngineBase):
    """Runs another engine, but asks `fault(call, batch)` first what to do: None, an error to raise, or an output."""

    def __init__(
        self, inner: Any, fault: Callable[[int, NDArray[np.float32]], Any], precision: Precision = "fp32"
    ) -> None:
        spec: EngineSpec = inner.spec
        self.spec = EngineSpec(
            name=spec.name,
            scale=spec.scale,
            precision=precision,
            device=spec.device,
            size=spec.size,
            max_batch=spec.max_batch,
            best_batch=spec.best_batch,
        )
        self.shapes: list[tuple[int, ...]] = []
        self._inner = inner
        self._fault = fault

    def run(self, batch: NDArray[np.float32], on_progress: ProgressCallback | None = None) -> NDArray[np.float32]:
        self.shapes.append(batch.shape)
        answer = self._fault(len(self.shapes) - 1, batch)
        if isinstance(answer, Exception):
            raise answer
        output: NDArray[np.float32] = self._inner.run(batch) if answer is None else answer
        return output


def out_of_memory_above(area_px: int) -> Callable[[int, NDArray[np.float32]], OutOfMemory | None]:
    """A device that holds tiles of up to `area_px` px."""

    def fault(call: int, batch: NDArray[np.float32]) -> OutOfMemory | None:
        area = batch.shape[0] * batch.shape[2] * batch.shape[3]
        return OutOfMemory(f"no room for {area} px") if area > area_px else None

    return fault

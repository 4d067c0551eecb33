"""The short measurement that tells how long a network takes."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from realesr.engine import NearestEngine, SizeRule
from realesr.runtime.engine_pool import EnginePool
from realesr.runtime.speed import seconds_per_px
from realesr.runtime.tiling import Tiling


class SlowEngine(NearestEngine):
    """Takes as many seconds a run as `seconds` says, by a clock of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: list[float], **changes: Any) -> None:
        super().__init__(4, size=changes.pop("size", None))
        self.spec = replace(self.spec, **changes)
        self.now, self.left = 0.0, seconds
        self.shapes: list[tuple[int, ...]] = []
        monkeypatch.setattr("realesr.runtime.speed.time.monotonic", lambda: self.now)

    def run(self, batch: NDArray[np.float32], on_progress: Any = None) -> NDArray[np.float32]:
        self.now += self.left[len(self.shapes)]
        self.shapes.append(batch.shape)
        return super().run(batch)


def pool(engine: NearestEngine) -> EnginePool:
    return EnginePool(engine, tiling=Tiling(tile_px=64, overlap_px=4, blend=True))


def test_the_second_run_counts_where_the_first_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = SlowEngine(monkeypatch, [0.8, 0.4096])
    assert seconds_per_px(pool(engine)) == pytest.approx(1e-4)
    assert engine.shapes == [(1, 3, 64, 64)] * 2


def test_one_run_is_enough_where_it_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = SlowEngine(monkeypatch, [4.096])
    assert seconds_per_px(pool(engine)) == pytest.approx(1e-3)


def test_a_gpu_is_not_measured_by_a_small_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = SlowEngine(monkeypatch, [], device="cuda:0")
    assert seconds_per_px(pool(engine)) is None


@pytest.mark.parametrize(
    ("size", "shape"),
    [
        (SizeRule(fixed_px=(32, 48)), (32, 48)),
        (SizeRule(minimum_px=96, multiple_of=4), (96, 96)),
        (SizeRule(multiple_of=48, minimum_px=48), (96, 96)),
    ],
)
def test_the_tile_is_one_that_the_engine_takes(
    monkeypatch: pytest.MonkeyPatch, size: SizeRule, shape: tuple[int, int]
) -> None:
    engine = SlowEngine(monkeypatch, [0.1, 0.1], size=size)
    assert seconds_per_px(pool(engine)) == pytest.approx(0.1 / (shape[0] * shape[1]))
    assert engine.shapes[0] == (1, 3, *shape)

"""Strips in the runtime: which images go through in them, that the result is the untiled one, what failures cost."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from realesr.engine import Engine, EngineBase, PieceSizes, ProgressCallback
from realesr.engines import open_engine
from realesr.errors import OutOfMemory
from realesr.models.architecture import Architecture
from realesr.models.compact import Compact
from realesr.models.rrdb import RRDB
from realesr.runtime.engine_pool import EnginePool
from realesr.runtime.rows import Band
from realesr.runtime.strip_bands import enlarge_rows, strip_layout_for
from realesr.runtime.strips import Strips
from realesr.runtime.tile_size import StripBudget, StripSize
from realesr.runtime.tiling import Tiling
from tests.models.small_networks import small_weights

COMPACT = Compact(scale=2, features=8, convs=2)
RRDB_X2 = RRDB(scale=2, features=4, blocks=1, growth=2)


def no_bytes(_rows_px: int, _width_px: int) -> float:
    return 0.0


class FixedBudget(StripBudget):
    """A budget that gives one size."""

    size = StripSize(rows_px=8, columns_px=1000)

    def size_for(self, height_px: int, width_px: int) -> StripSize | None:
        return self.size


def opened(architecture: Architecture) -> Engine:
    weights = replace(small_weights(architecture), name="".join(filter(str.isalnum, repr(architecture)))[-40:])
    return open_engine(weights, engine="onnxruntime", threads=1)


@pytest.fixture(scope="module", params=[COMPACT, RRDB_X2], ids=["compact", "rrdb"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with opened(request.param) as engine:
        yield engine


@pytest.fixture(scope="module")
def compact() -> Iterator[Engine]:
    with opened(COMPACT) as engine:
        yield engine


def network(engine: Engine, *, rows: int = 8, columns: int = 1000, fp32: Engine | None = None) -> EnginePool:
    first = engine.spec.first_rows_px
    assert first is not None
    halo = first  # more than the receptive radius
    budget = FixedBudget(
        architecture=COMPACT, halo_px=halo, pieces=PieceSizes(largest_strip_px=1), strip_bytes=no_bytes
    )
    object.__setattr__(budget, "size", StripSize(rows_px=rows, columns_px=columns))
    open_fp32 = None if fp32 is None else lambda _: fp32
    tiling = Tiling(tile_px=16, overlap_px=halo, blend=False, strips=budget)
    return EnginePool(engine, tiling=tiling, open_fp32=open_fp32)


def photo(height: int, width: int, seed: int = 0) -> Band:
    return np.random.default_rng(seed).random((3, height, width), np.float32)


def enlarged(image: Band, net: EnginePool, pixels: list[int] | None = None) -> Band:
    bands = (image[:, top : top + 5] for top in range(0, image.shape[1], 5))
    told = None if pixels is None else pixels.append
    parts = enlarge_rows(bands, net, height_px=image.shape[1], width_px=image.shape[2], on_pixels=told)
    return np.concatenate(list(parts), axis=1)


def untiled(image: Band, engine: Engine) -> Band:
    """Filled up to what the network takes, and cropped."""
    multiple, scale = engine.spec.size.multiple_of, engine.spec.scale
    _, height, width = image.shape
    filled = np.pad(image, ((0, 0), (0, -height % multiple), (0, -width % multiple)), mode="edge")
    whole: Band = engine.run(filled[None])[0]
    return whole[:, : height * scale, : width * scale]


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 200), width=st.integers(1, 70), rows=st.integers(1, 40), columns=st.integers(8, 80))
def test_any_image_in_any_strips_equals_the_untiled_one(
    engine: Engine, height: int, width: int, rows: int, columns: int
) -> None:
    multiple = engine.spec.size.multiple_of
    net = network(engine, rows=rows * multiple, columns=columns * multiple)
    image = photo(height, width)
    np.testing.assert_allclose(enlarged(image, net), untiled(image, engine), rtol=0, atol=2e-6)


def test_an_image_of_one_tile_takes_no_strips_and_a_larger_one_does(compact: Engine) -> None:
    net = network(compact)
    assert strip_layout_for(net, 10, 10) is None
    plan = strip_layout_for(net, 60, 70)
    assert plan is not None
    assert (plan.rows_px, plan.columns.tile_px, len(plan.columns.tiles)) == (8, 70, 1)


def test_finished_pixels_sum_to_the_area(engine: Engine) -> None:
    pixels: list[int] = []
    enlarged(photo(130, 40), network(engine), pixels)
    assert sum(pixels) == 130 * 40
    assert len(pixels) > 4


class FaultyStrips(Strips):
    """Asks `fault(call, rows)` what to do instead of a push: None, an error to raise, or what the push gives."""

    def __init__(self, inner: Strips, fault: Callable[[int, Band], Any]) -> None:
        self._inner = inner
        self._fault = fault
        self._calls = 0

    def push(self, rows: Band) -> Band:
        self._calls += 1
        result = self._inner.push(rows)
        answer = self._fault(self._calls, result)
        if isinstance(answer, Exception):
            raise answer
        changed: Band = result if answer is None else answer
        return changed


class FaultyEngine(EngineBase):
    """An engine whose strips fail, but whose tiles do not."""

    def __init__(self, inner: Engine, fault: Callable[[int, Band], Any]) -> None:
        self.spec = replace(inner.spec, precision="fp16")
        self.tiles: list[tuple[int, ...]] = []
        self._inner = inner
        self._fault = fault

    def run(self, batch: NDArray[np.float32], on_progress: ProgressCallback | None = None) -> NDArray[np.float32]:
        self.tiles.append(batch.shape)
        return self._inner.run(batch)

    def open_strips(self, width_px: int, height_px: int, *, rows_px: int) -> Strips:
        return FaultyStrips(self._inner.open_strips(width_px, height_px, rows_px=rows_px), self._fault)


@pytest.mark.parametrize("failing", [1, 2, 5, 12])
@pytest.mark.parametrize("columns", [1000, 30])
def test_a_strip_that_does_not_fit_costs_no_pixel_and_only_the_rest_goes_by_tiles(
    engine: Engine, failing: int, columns: int
) -> None:
    faulty = FaultyEngine(engine, lambda call, _: OutOfMemory("full") if call == failing else None)
    net = network(faulty, columns=columns)
    image, pixels = photo(97, 64), list[int]()
    np.testing.assert_allclose(enlarged(image, net, pixels), untiled(image, engine), rtol=0, atol=2e-6)
    assert sum(pixels) == (97 + 97 % engine.spec.size.multiple_of) * 64
    assert net.notices == ["out of memory with strips of 8 rows: gone on in tiles (full)"]
    if failing == 12:
        assert sum(shape[2] for shape in faulty.tiles) < 5 * 97, "tiles began at the top"


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_a_strip_that_is_no_picture_is_done_again_in_tiles(compact: Engine, value: float) -> None:
    def fault(call: int, result: Band) -> Band | None:
        return np.full_like(result, value) if call == 6 else None

    net = network(FaultyEngine(compact, fault), fp32=compact)
    image = photo(97, 40)
    np.testing.assert_allclose(enlarged(image, net), untiled(image, compact), rtol=0, atol=2e-6)
    assert len(net.notices) == 1
    assert "no picture in fp16: gone on in tiles" in net.notices[0]


def test_black_stays_black_without_complaint() -> None:
    weights = small_weights(COMPACT)
    state = {key: np.zeros_like(array) for key, array in weights.state.items()}
    with open_engine(replace(weights, name="black", state=state), engine="onnxruntime", threads=1) as black:
        net = network(black)
        assert enlarged(np.zeros((3, 80, 40), np.float32), net).max() == 0
        assert net.notices == []

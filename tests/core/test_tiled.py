import threading
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from realesr.engine import Engine, NearestEngine
from realesr.errors import NotFinite, OutOfMemory
from realesr.rows import Band
from realesr.tiled import Network, Tiling, enlarge_bands, plan_for
from tests.core.fakes import BoxBlurEngine, FaultyEngine, out_of_memory_above


def photo(height: int, width: int, seed: int = 0) -> Band:
    return np.random.default_rng(seed).random((3, height, width), np.float32)


def network(
    engine: Engine, tile: int = 16, overlap: int = 3, *, blend: bool = False, fp32: Engine | None = None
) -> Network:
    open_fp32 = None if fp32 is None else lambda: fp32
    return Network(engine, tiling=Tiling(tile_px=tile, overlap_px=overlap, blend=blend), open_fp32=open_fp32)


def enlarged(image: Band, net: Network, rows: int = 7) -> Band:
    def bands() -> Iterator[Band]:
        for start in range(0, image.shape[1], rows):
            yield image[:, start : start + rows]

    parts = enlarge_bands(bands(), net, height_px=image.shape[1], width_px=image.shape[2])
    return np.concatenate(list(parts), axis=1)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 50),
    width=st.integers(1, 50),
    tile=st.integers(1, 30),
    rows=st.integers(1, 20),
    blend=st.booleans(),
    batch=st.integers(1, 3),
)
def test_tiles_that_overlap_by_the_radius_equal_the_whole_image(
    height: int, width: int, tile: int, rows: int, blend: bool, batch: int
) -> None:
    image = photo(height, width)
    whole = BoxBlurEngine().run(image[None])[0]
    overlap = 6 if blend else 3  # a fade takes half of the overlap
    net = network(BoxBlurEngine(max_batch=batch), tile, overlap, blend=blend)
    np.testing.assert_allclose(enlarged(image, net, rows), whole, atol=1e-6)


def test_too_small_an_overlap_shows_so_the_test_above_can_fail() -> None:
    image = photo(60, 60)
    whole = BoxBlurEngine().run(image[None])[0]
    assert np.abs(enlarged(image, network(BoxBlurEngine(), 16, 1)) - whole).max() > 0.01


def test_a_fade_lessens_the_step_at_a_seam() -> None:
    bright_left = photo(40, 80) * np.linspace(1, 0, 80, dtype=np.float32)
    engine = BoxBlurEngine(scale=1, radius_px=16)
    whole = engine.run(bright_left[None])[0]

    def worst_step(blend: bool) -> float:
        net = network(engine, 34, 12, blend=blend)
        cut = plan_for(net, 40, 80).columns.tiles[0].last
        error = (enlarged(bright_left, net) - whole)[:, 20, cut - 12 : cut + 12]
        return float(np.abs(np.diff(error, axis=-1)).max())

    assert worst_step(blend=True) < worst_step(blend=False) * 2 / 3


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 7), (33, 31), (18, 19)])
def test_sizes_that_the_network_cannot_take_are_padded_and_cropped(height: int, width: int) -> None:
    image = photo(height, width)
    net = network(BoxBlurEngine(radius_px=0, multiple_of=4), 8, 2)
    np.testing.assert_allclose(enlarged(image, net), image.repeat(2, axis=1).repeat(2, axis=2), atol=1e-6)


@pytest.mark.parametrize(("width", "tile_height"), [(10, 50), (100, 50), (1000, 33), (100_000, 32)])
def test_tiles_of_wide_images_are_less_high(width: int, tile_height: int) -> None:
    tiling = Tiling(tile_px=50, overlap_px=0, blend=False, band_bytes=33 * 1000 * 48)
    plan = plan_for(Network(NearestEngine(2), tiling=tiling), 1000, width)
    assert plan.rows.tile_px == -(-1000 // -(-1000 // tile_height))


def test_finished_pixels_sum_to_the_area_of_the_plan() -> None:
    net = network(BoxBlurEngine(max_batch=2), 16, 4, blend=True)
    image = photo(61, 47)
    done: list[int] = []
    list(enlarge_bands([image], net, height_px=61, width_px=47, on_tiles=done.append))
    assert sum(done) == 61 * 47
    assert len(done) > 4
    assert len(plan_for(net, 61, 47)) > len(done)


@pytest.mark.parametrize("failing_row", [0, 1, 2, 3])
def test_out_of_memory_in_any_row_of_tiles_costs_no_pixel(failing_row: int) -> None:
    image = photo(200, 100)
    whole = BoxBlurEngine().run(image[None])[0]
    calls = [0]

    def fault(call: int, batch: NDArray[np.float32]) -> OutOfMemory | None:
        calls[0] = call
        return OutOfMemory("full") if call >= 2 * failing_row and batch.shape[2] * batch.shape[3] > 45 * 45 else None

    engine = FaultyEngine(BoxBlurEngine(), fault)
    net = network(engine, 50, 3)
    np.testing.assert_allclose(enlarged(image, net), whole, atol=1e-6)
    assert len(net.notices) >= 1
    assert "out of memory with a tile of" in net.notices[0]


def test_after_out_of_memory_a_size_that_failed_is_not_tried_again() -> None:
    engine = FaultyEngine(NearestEngine(2), out_of_memory_above(45 * 45))
    net = network(engine, 60, 2)
    enlarged(photo(180, 180), net)
    failed = [shape for shape in engine.shapes if shape[2] * shape[3] > 45 * 45]
    assert len(failed) == len(set(failed))


def test_a_batch_that_does_not_fit_is_run_one_by_one() -> None:
    engine = FaultyEngine(BoxBlurEngine(max_batch=4), out_of_memory_above(30 * 30))
    image = photo(22, 88)
    net = network(engine, 22, 3)
    whole = BoxBlurEngine().run(image[None])[0]
    np.testing.assert_allclose(enlarged(image, net), whole, atol=1e-6)
    assert net.notices == []


def test_a_device_that_holds_nothing_is_an_error_that_says_so() -> None:
    net = network(FaultyEngine(NearestEngine(), out_of_memory_above(0)), 64)
    with pytest.raises(OutOfMemory, match="smallest that is tried"):
        enlarged(photo(100, 100), net)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_tile_that_is_not_finite_is_done_again_in_float32(value: float) -> None:
    def fault(call: int, batch: NDArray[np.float32]) -> NDArray[np.float32] | None:
        if call != 2:
            return None
        broken = NearestEngine(2).run(batch)
        broken[0, 1, 3, 4] = value
        return broken

    image = photo(60, 60)
    net = network(FaultyEngine(NearestEngine(2), fault, precision="fp16"), 20, fp32=NearestEngine(2))
    np.testing.assert_array_equal(enlarged(image, net), image.repeat(2, axis=1).repeat(2, axis=2))
    assert net.notices == ["values were not finite in fp16: such tiles were done again in fp32"]


@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_a_network_that_gives_no_picture_even_in_float32_is_an_error(value: float) -> None:
    def fault(call: int, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.full((1, 3, batch.shape[2] * 2, batch.shape[3] * 2), value, np.float32)

    with pytest.raises(NotFinite, match="no picture even in fp32"):
        enlarged(photo(30, 30), network(FaultyEngine(NearestEngine(2), fault)))


def test_black_stays_black_without_complaint() -> None:
    black = np.zeros((3, 30, 30), np.float32)
    assert enlarged(black, network(NearestEngine(2))).max() == 0


def test_a_network_is_safe_to_use_from_many_threads() -> None:
    busy = threading.Lock()

    def fault(call: int, batch: NDArray[np.float32]) -> Exception | None:
        if not busy.acquire(blocking=False):
            return AssertionError("two threads were in the engine at once")
        busy.release()
        return None

    net = network(FaultyEngine(NearestEngine(2), fault), 10)
    images = [photo(40, 40, seed) for seed in range(4)]
    results: dict[int, Band] = {}
    threads = [
        threading.Thread(target=lambda i=i: results.update({i: enlarged(images[i], net)}))  # type: ignore[misc]
        for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, image in enumerate(images):
        np.testing.assert_array_equal(results[i], image.repeat(2, axis=1).repeat(2, axis=2))

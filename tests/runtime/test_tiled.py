import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from realesr.engine import Engine, NearestEngine, ProgressCallback
from realesr.errors import EngineError, NotFinite, OutOfMemory
from realesr.runtime.engine_pool import EnginePool
from realesr.runtime.rows import Band
from realesr.runtime.tiled import enlarge_bands, plan_for
from realesr.runtime.tiling import Tiling
from tests.runtime.fakes import BoxBlurEngine, FaultyEngine, out_of_memory_above


def photo(height: int, width: int, seed: int = 0) -> Band:
    return np.random.default_rng(seed).random((3, height, width), np.float32)


def network(
    engine: Engine, tile: int = 16, overlap: int = 3, *, blend: bool = False, fp32: Engine | None = None
) -> EnginePool:
    open_fp32 = None if fp32 is None else lambda device: fp32
    return EnginePool(engine, tiling=Tiling(tile_px=tile, overlap_px=overlap, blend=blend), open_fp32=open_fp32)


def enlarged(image: Band, net: EnginePool, rows: int = 7) -> Band:
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
    plan = plan_for(EnginePool(NearestEngine(2), tiling=tiling), 1000, width)
    assert plan.rows.tile_px == -(-1000 // -(-1000 // tile_height))


@pytest.mark.parametrize(("height", "width", "tiles"), [(100, 50, 1), (50, 100, 1), (1, 5000, 1), (51, 100, 2 * 4)])
def test_images_of_a_small_area_are_one_tile(height: int, width: int, tiles: int) -> None:
    tiling = Tiling(tile_px=30, overlap_px=0, blend=False, band_bytes=1, max_untiled_area_px=5000)
    assert len(plan_for(EnginePool(NearestEngine(2), tiling=tiling), height, width)) == tiles


def test_finished_pixels_sum_to_the_area_of_the_plan() -> None:
    net = network(BoxBlurEngine(max_batch=2), 16, 4, blend=True)
    image = photo(61, 47)
    done: list[int] = []
    list(enlarge_bands([image], net, height_px=61, width_px=47, on_pixels=done.append))
    assert sum(done) == 61 * 47
    assert len(done) > 4
    assert len(plan_for(net, 61, 47)) > len(done)


class TellingEngine(BoxBlurEngine):
    """Tells how far it is, once more than it should: a run that was begun anew."""

    def run(self, batch: NDArray[np.float32], on_progress: ProgressCallback | None = None) -> NDArray[np.float32]:
        for share in (0.25, 0.5, 0.25, 0.75):
            if on_progress is not None:
                on_progress(share)
        return self.finished(batch)

    def finished(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        return super().run(batch)


def test_shares_of_a_tile_are_told_on_the_way() -> None:
    done: list[int] = []
    net = network(TellingEngine(), 100, 3)
    list(enlarge_bands([photo(40, 20)], net, height_px=40, width_px=20, on_pixels=done.append))
    assert done == [200, 200, 200, 200]


def test_shares_of_many_tiles_sum_to_the_area() -> None:
    done: list[int] = []
    net = network(TellingEngine(), 16, 4, blend=True)
    list(enlarge_bands([photo(61, 47)], net, height_px=61, width_px=47, on_pixels=done.append))
    assert sum(done) == 61 * 47
    assert len(done) == 4 * len(plan_for(net, 61, 47))


def test_work_can_be_ended_within_a_tile() -> None:
    class StopError(Exception):
        pass

    def stop(_pixels: int) -> None:
        raise StopError

    engine = TellingEngine()
    engine.finished = lambda batch: pytest.fail("the tile was finished")  # type: ignore[method-assign]
    with pytest.raises(StopError):
        list(enlarge_bands([photo(40, 20)], network(engine, 100, 3), height_px=40, width_px=20, on_pixels=stop))


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


class OnDevice(NearestEngine):
    """An engine of a name of its own that takes its time, so that others get tiles too; it counts them."""

    def __init__(self, device: str, seconds: float = 0.002, max_batch: int = 1) -> None:
        super().__init__(2, max_batch=max_batch)
        self.spec = replace(self.spec, device=device)
        self.tiles = 0
        self._seconds = seconds

    def run(self, batch: NDArray[np.float32], on_progress: ProgressCallback | None = None) -> NDArray[np.float32]:
        self.tiles += len(batch)
        time.sleep(self._seconds)
        return super().run(batch)


def shared(*engines: Engine, tile: int = 16, overlap: int = 3, fp32: Any = None) -> EnginePool:
    return EnginePool(*engines, tiling=Tiling(tile_px=tile, overlap_px=overlap, blend=False), open_fp32=fp32)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (90, 70), (200, 12)])
@pytest.mark.parametrize("batch", [1, 3])
def test_several_devices_share_the_tiles_and_give_what_one_gives(height: int, width: int, batch: int) -> None:
    image = photo(height, width)
    engines = [OnDevice(f"gpu:{i}", seconds=0.001 * (i + 1), max_batch=batch) for i in range(3)]
    done: list[int] = []
    with closing(shared(*engines)) as net:
        bands = list(enlarge_bands([image], net, height_px=height, width_px=width, on_pixels=done.append))
        assert net.devices == "gpu:0, gpu:1, gpu:2"
        tiles = len(plan_for(net, height, width))
    np.testing.assert_array_equal(np.concatenate(bands, axis=1), image.repeat(2, axis=1).repeat(2, axis=2))
    assert sum(done) == height * width
    assert sum(engine.tiles for engine in engines) == tiles
    if tiles > 8 * batch:
        assert all(engine.tiles for engine in engines), "a device did nothing"


@pytest.mark.parametrize("failing_row", [0, 2, 4])
def test_out_of_memory_on_one_of_several_devices_costs_no_pixel(failing_row: int) -> None:
    image = photo(250, 100)
    whole = BoxBlurEngine().run(image[None])[0]

    def fault(call: int, batch: NDArray[np.float32]) -> OutOfMemory | None:
        return OutOfMemory("full") if call >= failing_row and batch.shape[2] * batch.shape[3] > 45 * 45 else None

    slow = FaultyEngine(BoxBlurEngine(), lambda call, batch: time.sleep(0.05))
    with closing(shared(FaultyEngine(BoxBlurEngine(), fault), slow, tile=50)) as net:
        np.testing.assert_allclose(enlarged(image, net), whole, atol=1e-6)
        assert "out of memory with a tile of" in net.notices[0]


def test_each_device_does_its_own_tiles_again_in_float32() -> None:
    def fault(call: int, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.full((1, 3, batch.shape[2] * 2, batch.shape[3] * 2), np.nan, np.float32)

    opened: list[str] = []

    def open_fp32(device: str) -> Engine:
        opened.append(device)
        return NearestEngine(2)

    image = photo(60, 60)
    engines = [FaultyEngine(OnDevice(f"gpu:{i}"), fault, precision="fp16") for i in range(2)]
    with closing(shared(*engines, tile=10, fp32=open_fp32)) as net:
        np.testing.assert_array_equal(enlarged(image, net), image.repeat(2, axis=1).repeat(2, axis=2))
    assert sorted(opened) == ["gpu:0", "gpu:1"]


def test_a_device_that_fails_ends_the_image_and_the_others_go_on_for_the_next() -> None:
    def fault(call: int, batch: NDArray[np.float32]) -> EngineError | None:
        return EngineError("the cable is out") if call == 3 else None

    image = photo(80, 80)
    with closing(shared(FaultyEngine(OnDevice("gpu:0"), fault), OnDevice("gpu:1"))) as net:
        with pytest.raises(EngineError, match="the cable is out"):
            enlarged(image, net)
        np.testing.assert_array_equal(enlarged(image, net), image.repeat(2, axis=1).repeat(2, axis=2))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("realesr-device")]


def test_no_more_tiles_are_read_than_the_devices_can_take() -> None:
    read: list[int] = []

    def bands() -> Iterator[Band]:
        for start in range(0, 400, 10):
            read.append(start)
            yield photo(10, 20)

    with closing(shared(OnDevice("gpu:0"), OnDevice("gpu:1"), tile=20, overlap=0)) as net:
        parts = enlarge_bands(bands(), net, height_px=400, width_px=20)
        next(parts)
        assert len(read) <= 8, "three tiles of 20 rows, and not the whole image"
        parts.close()  # type: ignore[attr-defined]

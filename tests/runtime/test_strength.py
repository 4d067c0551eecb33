"""A share of the network's detail over the photo's own low frequencies."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from realesr.engine import Engine, EngineBase, EngineSpec, ProgressCallback, check_batch
from realesr.errors import UsageError
from realesr.models.compact import Compact
from realesr.options import ImageOptions
from realesr.runtime.engine_pool import EnginePool
from realesr.runtime.memory_plan import needed_bytes
from realesr.runtime.pipeline import EnlargeJob, bands_for_rows, enlarge, planes_from_rows, rows_from_bands
from realesr.runtime.resize import resize_bands
from realesr.runtime.rows import Band
from realesr.runtime.strength import CELL_PX, OWN_COLOURS_UP_TO, low_share, mixed_bands, waiting_rows
from realesr.runtime.tiling import Tiling
from tests.runtime.test_pipeline import info_of, noise


class DarkeningEngine(EngineBase):
    """Repeats every pixel and takes a tenth off: a network that shifts colours. `calls` counts its batches."""

    def __init__(self, scale: int = 4) -> None:
        self.calls = 0
        self.spec = EngineSpec(name="darkening", scale=scale, precision="fp32", device="cpu")

    def run(self, batch: NDArray[np.float32], on_progress: ProgressCallback | None = None) -> NDArray[np.float32]:
        check_batch(batch, self.spec)
        self.calls += 1
        return batch.repeat(self.spec.scale, axis=2).repeat(self.spec.scale, axis=3) - np.float32(0.1)


def pool(engine: Engine | None = None, tile_px: int = 24) -> EnginePool:
    return EnginePool(engine or DarkeningEngine(), tiling=Tiling(tile_px=tile_px, overlap_px=4, blend=True))


def job_for(pixels: NDArray[Any], network: EnginePool | None = None, **options: Any) -> EnlargeJob:
    return EnlargeJob(info=info_of(pixels), pool=network or pool(), options=ImageOptions(**options))


def as_rows(pixels: NDArray[Any], network: EnginePool | None = None, **options: Any) -> NDArray[Any]:
    """Enlarge by the way of files: rows of integers in, rows of integers out."""
    job = job_for(pixels, network, **options)
    rows = (pixels[start : start + 10] for start in range(0, len(pixels), 10))
    bands = bands_for_rows(planes_from_rows(rows, job.info.bits), job)
    return np.concatenate(list(rows_from_bands(bands, job.info.bits)))


def as_floats(pixels: NDArray[Any], network: EnginePool | None = None, **options: Any) -> Band:
    job = job_for(pixels, network, **options)
    return np.concatenate(list(enlarge(planes_from_rows([pixels], job.info.bits), job)), axis=1)


def lanczos(planes: Band, height: int, width: int) -> Band:
    _, rows, columns = planes.shape
    bands = resize_bands([planes], height_px=rows, width_px=columns, to_height_px=height, to_width_px=width)
    return np.concatenate(list(bands), axis=1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("scale", [None, 1, 2.5, 9])
def test_nothing_of_the_network_is_lanczos_bit_by_bit_and_the_network_does_not_run(
    dtype: type, channels: int, scale: float | None
) -> None:
    engine, pixels = DarkeningEngine(), noise(30, 23, channels, dtype)
    pixels[..., -1] |= 1  # no transparent pixel, whose colour would be made up
    found = as_rows(pixels, pool(engine), strength=0, scale=scale)
    bits = 8 if dtype == np.uint8 else 16
    planes = next(planes_from_rows([pixels], bits))
    expected = np.concatenate(list(rows_from_bands([lanczos(planes, *found.shape[:2])], bits)))
    np.testing.assert_array_equal(found, expected)
    assert engine.calls == 0


def test_without_the_network_there_are_no_passes_and_no_pixels_to_wait_for() -> None:
    job = job_for(noise(30, 23, 3), strength=0)
    assert (job.sizes.passes, job.work_px) == (0, 0)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_all_of_the_network_is_what_it_gives_bit_by_bit(channels: int) -> None:
    pixels = noise(70, 37, channels)
    np.testing.assert_array_equal(as_rows(pixels, strength=1), as_rows(pixels))
    np.testing.assert_array_equal(as_floats(pixels, strength=1.0), as_floats(pixels))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("scale", [None, 2.5, 9])
def test_the_result_goes_over_to_what_the_network_gives(channels: int, scale: float | None) -> None:
    pixels = noise(40, 37, channels)
    whole = as_floats(pixels, scale=scale)
    errors = [np.abs(as_floats(pixels, scale=scale, strength=s) - whole).max() for s in (0.9, 0.99, 0.999, 0.9999)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-3


@pytest.mark.parametrize("strength", [0.1, 0.5, 0.9])
def test_the_photos_own_colours_stay_where_the_network_shifts_them(strength: float) -> None:
    flat = np.full((50, 45, 3), (200, 120, 60), np.uint8)
    np.testing.assert_array_equal(as_rows(flat, strength=strength), np.full((200, 180, 3), (200, 120, 60), np.uint8))
    pixels = noise(64, 48, 3)
    means = as_floats(pixels, strength=strength).mean(axis=(1, 2))
    np.testing.assert_allclose(means, as_floats(pixels, strength=0).mean(axis=(1, 2)), atol=2e-4)
    assert as_floats(pixels).mean() < as_floats(pixels, strength=0).mean() - 0.09


def test_the_detail_is_mixed_by_the_share() -> None:
    pixels = noise(64, 48, 3)
    own, half, most = (as_floats(pixels, strength=s) for s in (0, 0.45, 0.9))
    np.testing.assert_allclose(half - own, (most - own) / 2, atol=1e-5)
    assert np.abs(most - own).mean() > 0.05


def test_low_frequencies_are_the_photos_up_to_nine_tenths() -> None:
    assert [low_share(s) for s in (0, 0.5, OWN_COLOURS_UP_TO)] == [0, 0, 0]
    assert low_share(0.95) == pytest.approx(0.5)
    assert low_share(1) == 1


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 40),
    factors=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    rows=st.integers(1, 100),
    strength=st.sampled_from([0.3, 0.95]),
)
def test_bands_of_any_height_give_what_the_whole_image_gives(
    height: int, width: int, factors: tuple[int, int], rows: int, strength: float
) -> None:
    to_size = height * factors[0] // 2 + 1, width * factors[1] // 2 + 1
    network, own = (np.random.default_rng(seed).random((2, *to_size), np.float32) for seed in (1, 2))

    def mixed(step: int) -> Band:
        streams = [[image[:, at : at + step] for at in range(0, to_size[0], step)] for image in (network, own)]
        streams[1] = [np.concatenate(streams[1], axis=1)]  # the streams need not be cut alike
        bands = mixed_bands(*streams, strength=strength, size=(height, width), to_size=to_size)
        return np.concatenate(list(bands), axis=1)

    whole = mixed(to_size[0])
    assert whole.shape == network.shape
    np.testing.assert_allclose(mixed(rows), whole, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_no_seam_where_tiles_meet(channels: int) -> None:
    pixels = noise(150, 90, channels, np.uint16)
    tiled, whole = (as_floats(pixels, pool(tile_px=side), strength=0.5) for side in (20, 1000))
    np.testing.assert_allclose(tiled, whole, atol=1e-5)


def test_no_step_where_cells_of_the_grid_meet() -> None:
    ramp = np.linspace(0.2, 0.8, 8 * CELL_PX * 4, dtype=np.float32)
    own = np.broadcast_to(ramp[:, None], (1, len(ramp), 64)).copy()
    bands = mixed_bands([own * 0.5], [own], strength=0.5, size=(8 * CELL_PX, 16), to_size=own.shape[1:])
    column = np.concatenate(list(bands), axis=1)[0, :, 0]
    assert np.abs(np.diff(column, 2)).max() < 1e-3


def test_alpha_goes_its_own_way() -> None:
    pixels = noise(40, 30, 4)
    for alpha in ("network", "lanczos"):
        mixed = as_floats(pixels, strength=0.4, alpha=alpha)
        np.testing.assert_array_equal(mixed[-1], as_floats(pixels, alpha=alpha)[-1])


def test_the_network_is_not_rounded_to_8_bit_levels_before_it_is_mixed() -> None:
    job = job_for(noise(20, 20, 3), strength=0.5)
    assert not job.ends_with_network
    assert job_for(noise(20, 20, 3)).ends_with_network
    planes = planes_from_rows([noise(20, 20, 3)], 8)
    assert all(band.dtype == np.float32 for band in bands_for_rows(planes, job))


def test_memory_does_not_grow_with_the_height_and_is_planned_for() -> None:
    def peak_bytes(height: int) -> int:
        pixels, width = noise(1, 60, 3), 60
        rows = (pixels.repeat(20, axis=0) for _ in range(height // 20))
        job = EnlargeJob(
            info=info_of(np.empty((height, width, 3), np.uint8)), pool=pool(), options=ImageOptions(strength=0.5)
        )
        tracemalloc.start()
        try:
            for band in bands_for_rows(planes_from_rows(rows, 8), job):
                del band
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    short, tall = peak_bytes(1600), peak_bytes(4800)
    assert tall < 1.1 * short
    mixed, plain = job_for(noise(400, 60, 3), strength=0.5), job_for(noise(400, 60, 3))
    architecture = Compact(scale=4)
    more = needed_bytes(mixed, mixed.pool.tiling, architecture) - needed_bytes(plain, plain.pool.tiling, architecture)
    assert more == waiting_rows(4) * 240 * 3 * 4
    assert short < needed_bytes(mixed, mixed.pool.tiling, architecture)


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_a_strength_is_a_share(strength: float) -> None:
    with pytest.raises(UsageError, match=r"got strength .*, expected a number from 0 to 1"):
        ImageOptions(strength=strength)

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from realesr.engine import NearestEngine, ProgressCallback
from realesr.images.info import ImageInfo
from realesr.options import ImageOptions
from realesr.runtime.engine_pool import EnginePool
from realesr.runtime.pipeline import EnlargeJob, enlarge, plan_sizes, planes_from_rows, rows_from_bands
from realesr.runtime.tiling import Tiling
from realesr.target_size import TargetSize


def nearest(scale: int = 4) -> EnginePool:
    return EnginePool(NearestEngine(scale), tiling=Tiling(tile_px=24, overlap_px=4, blend=True))


def info_of(pixels: NDArray[Any]) -> ImageInfo:
    height, width, channels = pixels.shape
    return ImageInfo(
        width_px=width,
        height_px=height,
        bits=8 if pixels.dtype == np.uint8 else 16,
        is_grey=channels <= 2,
        has_alpha=channels in (2, 4),
        format="png",
    )


def run(
    pixels: NDArray[Any], network: EnginePool | None = None, constant: float | None = None, **options: Any
) -> NDArray[Any]:
    def rows() -> Iterator[NDArray[Any]]:
        for start in range(0, len(pixels), 10):
            yield pixels[start : start + 10]

    info = info_of(pixels)
    job = EnlargeJob(info=info, pool=network or nearest(), options=ImageOptions(**options), constant_alpha=constant)
    bands = enlarge(planes_from_rows(rows(), info.bits), job)
    return np.concatenate(list(rows_from_bands(bands, info.bits)))


def noise(height: int, width: int, channels: int, dtype: type = np.uint8) -> NDArray[Any]:
    return np.random.default_rng(2).integers(0, np.iinfo(dtype).max, (height, width, channels), dtype, endpoint=True)


def repeated(pixels: NDArray[Any], scale: int) -> NDArray[Any]:
    return pixels.repeat(scale, axis=0).repeat(scale, axis=1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_rows_come_out_exactly_as_the_network_gave_them(dtype: type, channels: int) -> None:
    pixels = noise(50, 37, channels, dtype)
    result = run(pixels)
    assert result.dtype == dtype
    difference = np.abs(result.astype(int) - repeated(pixels, 4).astype(int)).max()
    assert difference <= (0 if channels == 3 else 1)  # the luma weights sum to 1 only in exact arithmetic


@pytest.mark.parametrize(
    ("network_scale", "scale", "passes"),
    [
        (4, None, 1),
        (4, 1, 1),
        (4, 4, 1),
        (4, 8, 1),
        (4, 8.1, 2),
        (4, 16, 2),
        (2, 1, 1),
        (2, 3, 2),
        (2, 4, 2),
        (2, 16, 4),
        (1, 3, 1),
    ],
)
def test_the_network_runs_as_often_as_brings_it_nearest(network_scale: int, scale: float | None, passes: int) -> None:
    assert plan_sizes(10, 20, network_scale, scale).passes == passes


@pytest.mark.parametrize(
    ("scale", "size"), [(None, (28, 44)), (1, (7, 11)), (2.5, (18, 28)), (1.5, (11, 17)), (16, (112, 176))]
)
def test_the_output_has_the_size_that_was_asked_for(scale: float | None, size: tuple[int, int]) -> None:
    assert plan_sizes(7, 11, 4, scale).output == size
    assert run(noise(7, 11, 3), scale=scale).shape[:2] == size


@pytest.mark.parametrize(
    ("size", "passes", "output"),
    [
        (TargetSize(long_side_px=80), 1, (60, 80)),
        (TargetSize(long_side_px=161), 2, (121, 161)),
        (TargetSize(long_side_px=21), 1, (16, 21)),
        (TargetSize(long_side_px=10), 0, (8, 10)),
        (TargetSize(width_px=320, height_px=90), 3, (90, 120)),
    ],
)
def test_passes_for_a_size_are_those_of_its_scale(size: TargetSize, passes: int, output: tuple[int, int]) -> None:
    network_scale = 4 if size.height_px is None else 2
    sizes = plan_sizes(15, 20, network_scale, None, size)
    assert (sizes.passes, sizes.output) == (passes, output)
    assert plan_sizes(15, 20, 1, None, size).passes == min(passes, 1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_shrinking_is_lanczos_alone(channels: int, dtype: type) -> None:
    class Unused(NearestEngine):
        def run(self, batch: NDArray[np.float32], on_progress: ProgressCallback | None = None) -> NDArray[np.float32]:
            raise AssertionError

    pixels = noise(90, 60, channels, dtype)
    if channels in (2, 4):
        pixels[..., -1] = np.maximum(pixels[..., -1], 1)  # nothing hidden, so that no colour bleeds
    network = EnginePool(Unused(), tiling=Tiling(tile_px=64, overlap_px=4, blend=True))
    result = run(pixels, network, size=TargetSize(long_side_px=31), shrink=True)
    expected = np.stack(
        [
            np.asarray(Image.fromarray(plane.astype(np.float32)).resize((21, 31), Image.Resampling.LANCZOS))
            for plane in pixels.transpose(2, 0, 1)
        ],
        axis=-1,
    )
    difference = np.abs(result.astype(float) - np.rint(expected.clip(0, np.iinfo(dtype).max)))
    assert difference.max() <= 1


def test_two_passes_are_the_network_twice() -> None:
    pixels = noise(9, 13, 3)
    np.testing.assert_array_equal(run(pixels, nearest(2), scale=4), repeated(pixels, 4))


def test_other_scales_are_lanczos_on_what_the_network_gave() -> None:
    pixels = noise(20, 30, 3)
    large = repeated(pixels, 4).astype(np.float32)
    planes = [
        np.asarray(Image.fromarray(np.ascontiguousarray(large[..., c])).resize((75, 50), Image.Resampling.LANCZOS))
        for c in range(3)
    ]
    expected = np.rint(np.clip(np.stack(planes, axis=-1), 0, 255))
    assert np.abs(run(pixels, scale=2.5) - expected).max() <= 1


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("alpha", ["network", "lanczos"])
def test_alpha_is_enlarged_and_visible_colour_kept(channels: int, alpha: str) -> None:
    pixels = noise(40, 40, channels)
    pixels[..., -1] = 255
    pixels[:, 20:, -1] = 0
    result = run(pixels, alpha=alpha)
    assert result.shape == (160, 160, channels)
    assert np.all(result[:, :70, -1] == 255)
    assert np.all(result[:, 90:, -1] == 0)
    difference = np.abs(result[:, :80, :-1].astype(int) - repeated(pixels, 4)[:, :80, :-1].astype(int))
    assert difference.max() <= 1


def test_hidden_colour_does_not_reach_the_network_near_an_edge() -> None:
    pixels = np.zeros((30, 30, 4), np.uint8)
    pixels[:, :15] = [200, 10, 10, 255]
    pixels[:, 15:] = [0, 255, 0, 0]
    assert np.all(run(pixels)[:, 60:100, :3] == [200, 10, 10])


def test_constant_alpha_takes_the_short_way() -> None:
    calls: list[int] = []

    class Counting(NearestEngine):
        def run(self, batch: NDArray[np.float32], on_progress: ProgressCallback | None = None) -> NDArray[np.float32]:
            calls.append(len(batch))
            return super().run(batch)

    pixels = noise(12, 12, 4)
    pixels[..., 3] = 77
    network = EnginePool(Counting(), tiling=Tiling(tile_px=64, overlap_px=4, blend=True))
    result = run(pixels, network, constant=77 / 255)
    assert calls == [1]
    np.testing.assert_array_equal(result, repeated(pixels, 4))


def test_work_counts_every_pass_and_the_alpha_channel() -> None:
    def work(channels: int, **options: Any) -> int:
        return EnlargeJob(
            info=info_of(noise(10, 20, channels)), pool=nearest(), options=ImageOptions(**options)
        ).work_px

    assert work(3) == 200
    assert work(3, scale=16) == 200 + 200 * 16
    assert work(4) == 400
    assert work(4, alpha="lanczos") == 200

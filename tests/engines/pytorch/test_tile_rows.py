"""Tiles that engine torch joins on its device: the same bits as joined on the host, and no pixel lost when it fails."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from realesr.engine import NearestEngine, no_progress
from realesr.engines.pytorch import device as torch_device
from realesr.engines.pytorch.engine import TorchEngine, open_torch
from realesr.errors import EngineError, NotFinite, OutOfMemory
from realesr.models.architecture import Architecture
from realesr.models.compact import Compact
from realesr.models.facts import ModelFacts
from realesr.models.rrdb import RRDB
from realesr.options import FileOptions, ImageOptions
from realesr.runtime.engine_pool import EnginePool
from realesr.runtime.file_job import upscale_file
from realesr.runtime.pipeline import rows_from_bands
from realesr.runtime.rows import Band
from realesr.runtime.tiled import enlarge_bands, enlarge_to_levels, plan_for
from realesr.runtime.tiling import Tiling
from tests.engines.small_models import small_model

COMPACT = Compact(scale=2, features=8, convs=2)
RRDB_X2 = RRDB(scale=2, features=8, blocks=1, growth=4)
SIZES = [(90, 70), (33, 200), (24, 24), (7, 61)]


def opened(architecture: Architecture, join: str, device: str = "cpu", **options: str) -> TorchEngine:
    precision = "fp32" if device == "cpu" else "fp16"
    return open_torch(small_model(architecture), device=device, precision=precision, options={"join": join, **options})


def network(engine: Any, *, blend: bool = True, fp32: Any = None) -> EnginePool:
    open_fp32 = None if fp32 is None else lambda device: fp32
    return EnginePool(engine, tiling=Tiling(tile_px=32, overlap_px=8, blend=blend), open_fp32=open_fp32)


def photo(height: int, width: int) -> Band:
    return np.random.default_rng(0).random((3, height, width), np.float32)


def bands(image: Band) -> Iterator[Band]:
    return (image[:, start : start + 11] for start in range(0, image.shape[1], 11))


def enlarged(image: Band, net: EnginePool, done: list[int] | None = None) -> Band:
    on_pixels = None if done is None else done.append
    parts = enlarge_bands(bands(image), net, height_px=image.shape[1], width_px=image.shape[2], on_pixels=on_pixels)
    return np.concatenate(list(parts), axis=1)


def levels(image: Band, net: EnginePool) -> NDArray[Any]:
    parts = enlarge_to_levels(bands(image), net, height_px=image.shape[1], width_px=image.shape[2])
    return np.concatenate(list(rows_from_bands(parts, 8)))


@pytest.mark.parametrize("architecture", [COMPACT, RRDB_X2])
@pytest.mark.parametrize("blend", [True, False])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_both_ways_of_joining_give_the_same_bits(
    architecture: Architecture, blend: bool, height: int, width: int
) -> None:
    image = photo(height, width)
    with (
        closing(network(opened(architecture, "host"), blend=blend)) as on_host,
        closing(network(opened(architecture, "device"), blend=blend)) as on_device,
    ):
        assert (on_host.joins_tiles, on_device.joins_tiles) == (False, True)
        expected = enlarged(image, on_host)
        assert np.array_equal(enlarged(image, on_device), expected)
        assert np.array_equal(levels(image, on_device), np.concatenate(list(rows_from_bands([expected], 8))))


@pytest.mark.parametrize("streams", ["1", "2"])
def test_tiles_in_turn_on_several_streams_are_all_joined(streams: str) -> None:
    image = photo(90, 120)
    with (
        closing(network(opened(COMPACT, "host"))) as on_host,
        closing(network(opened(COMPACT, "device", streams=streams))) as on_device,
    ):
        assert np.array_equal(enlarged(image, on_device), enlarged(image, on_host))


def test_finished_pixels_are_told_tile_row_by_tile_row_and_sum_to_the_area() -> None:
    with closing(network(opened(COMPACT, "device"))) as net:
        done: list[int] = []
        enlarged(photo(90, 70), net, done)
        assert sum(done) == 90 * 70
        assert len(done) == len(plan_for(net, 90, 70).rows.tiles)


class Faulty:
    """The network, which from the tile of this number on does something else."""

    def __init__(self, forward: Callable[[torch.Tensor], torch.Tensor], first: int, fault: Callable[..., Any]) -> None:
        self._forward, self._first, self._fault = forward, first, fault
        self.calls = 0

    def __call__(self, lr: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        sr = self._forward(lr)
        if self.calls > self._first:
            self._fault(sr)
        return sr


def not_finite(sr: torch.Tensor) -> None:
    sr[0, 1, 3, 4] = float("nan")


def black(sr: torch.Tensor) -> None:
    sr.zero_()


def too_much(sr: torch.Tensor) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.mark.parametrize("row", [0, 1, 2])
@pytest.mark.parametrize("fault", [not_finite, black])
def test_rows_that_are_no_picture_are_done_again_in_float32(row: int, fault: Callable[..., Any]) -> None:
    image = photo(90, 70)
    with closing(network(opened(COMPACT, "host"))) as on_host:
        expected = enlarged(image, on_host)
        columns = len(plan_for(on_host, 90, 70).columns.tiles)
    engine = opened(COMPACT, "device")
    engine._forwards = [Faulty(engine._forwards[0], row * columns, fault)]
    with closing(network(engine, fp32=opened(COMPACT, "host"))) as net:
        assert np.array_equal(enlarged(image, net), expected)
        assert "gone on with single tiles" in net.notices[0]
        assert "done again in fp32" in net.notices[1]


@pytest.mark.parametrize("row", [0, 1, 2])
def test_out_of_memory_in_any_row_costs_no_pixel(row: int) -> None:
    image = photo(90, 70)
    with closing(network(opened(COMPACT, "host"))) as on_host:
        expected = enlarged(image, on_host)
        columns = len(plan_for(on_host, 90, 70).columns.tiles)
    engine = opened(COMPACT, "device")
    working = engine._forwards[0]
    faulty = Faulty(working, row * columns + 1, too_much)
    engine._forwards = [lambda lr: faulty(lr) if lr.shape[2] > 40 else working(lr)]
    with closing(network(engine)) as net:
        np.testing.assert_allclose(enlarged(image, net), expected, atol=1e-5)
        assert any("out of memory" in notice for notice in net.notices)


def test_a_closed_engine_begins_no_image() -> None:
    engine = opened(COMPACT, "device")
    plan = plan_for(network(engine), 90, 70)
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.open_tile_rows(plan, eight_bit=True)


def test_a_row_that_is_no_picture_is_refused() -> None:
    engine = opened(COMPACT, "device")
    engine._forwards = [Faulty(engine._forwards[0], 0, not_finite)]
    net = network(engine)
    plan = plan_for(net, 24, 24)
    with closing(net), pytest.raises(NotFinite, match="no picture"):
        engine.open_tile_rows(plan, eight_bit=True).push(0, photo(24, 24)).result(no_progress)


def test_an_engine_that_joins_no_tiles_says_so() -> None:
    image = photo(9, 9)
    with closing(network(NearestEngine())) as net:
        assert not net.engine.spec.joins_tiles
        assert not net.joins_tiles
        np.testing.assert_allclose(enlarged(image, net), image.repeat(4, 1).repeat(4, 2), atol=1e-6)


def test_several_devices_join_their_tiles_on_the_host() -> None:
    with (
        closing(
            EnginePool(
                opened(COMPACT, "device"),
                opened(COMPACT, "device"),
                tiling=Tiling(tile_px=32, overlap_px=8, blend=True),
            )
        ) as net,
        closing(network(opened(COMPACT, "host"))) as one,
    ):
        assert not net.joins_tiles
        image = photo(60, 70)
        assert np.array_equal(enlarged(image, net), enlarged(image, one))


@pytest.mark.parametrize(("mode", "size"), [("RGB", (70, 60)), ("L", (40, 30)), ("RGBA", (50, 41))])
@pytest.mark.parametrize("scale", [2.0, 3.0])
def test_a_file_is_the_same_whichever_side_joins(
    tmp_path: Path, mode: str, size: tuple[int, int], scale: float
) -> None:
    source = tmp_path / f"photo-{mode}.png"
    pixels = np.random.default_rng(1).integers(0, 256, (size[1], size[0], len(mode)), np.uint8)
    Image.fromarray(pixels[:, :, 0] if mode == "L" else pixels).save(source)
    results = []
    for join in ("host", "device"):
        engine = opened(COMPACT, join)
        net = network(engine)
        with closing(net):
            target = tmp_path / f"{join}.png"
            upscale_file(
                source,
                target,
                pool_for=partial(the_same, net),
                facts=ModelFacts(name="small", scale=2, radius_px=3, multiple_of=1, architecture=COMPACT),
                identity=dict,
                image=ImageOptions(scale=scale),
                file=FileOptions(overwrite=True),
                on_progress=None,
            )
            with Image.open(target) as image:
                results.append(np.asarray(image))
    assert np.array_equal(results[0], results[1])


def the_same(net: EnginePool, _bits: int) -> EnginePool:
    return net


def test_all_work_of_a_gpu_is_done_in_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for a GPU: the work itself runs on the CPU, in the thread that a GPU's would be done in."""
    names: set[str] = set()
    engine = opened(COMPACT, "host")
    forward = engine._forwards[0]

    def watched(lr: torch.Tensor) -> torch.Tensor:
        names.add(threading.current_thread().name)
        return forward(lr)

    engine._forwards = [watched]
    monkeypatch.setattr(
        "realesr.engines.pytorch.engine.in_thread_of",
        lambda device, work, *arguments: torch_device.thread_of("cuda:7").submit(work, *arguments).result(),
    )
    threads = [threading.Thread(target=engine.run, args=(photo(9, 9)[None],)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names == {"realesr-cuda:7_0"}


@pytest.mark.cuda
@pytest.mark.parametrize("streams", ["1", "2"])
@pytest.mark.parametrize("mode", ["eager", "graphs"])
@pytest.mark.parametrize("architecture", [COMPACT, RRDB_X2])
def test_a_gpu_joins_its_tiles_as_the_host_does(architecture: Architecture, mode: str, streams: str) -> None:
    image = photo(90, 120)
    with (
        closing(network(opened(architecture, "host", "cuda", mode=mode))) as on_host,
        closing(network(opened(architecture, "device", "cuda", mode=mode, streams=streams))) as on_device,
    ):
        for _ in range(3):
            np.testing.assert_allclose(enlarged(image, on_device), enlarged(image, on_host), atol=2e-3)
            difference = levels(image, on_device).astype(int) - levels_of_host(image, on_host)
            assert np.abs(difference).max() <= 1
        assert on_device.notices == []


def levels_of_host(image: Band, net: EnginePool) -> NDArray[Any]:
    return np.concatenate(list(rows_from_bands([enlarged(image, net)], 8))).astype(int)


@pytest.mark.cuda
def test_a_row_that_a_gpu_cannot_hold_goes_on_in_smaller_parts() -> None:
    image = photo(700, 900)
    weights = Compact(scale=4, features=64, convs=2)
    with closing(network(opened(weights, "host", "cuda"))) as on_host:
        expected = enlarged(image, on_host)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, 0.35e9 / total))
    try:
        engine = opened(weights, "device", "cuda")
        net = EnginePool(engine, tiling=replace(network(engine).tiling, tile_px=1000))
        with closing(net):
            np.testing.assert_allclose(enlarged(image, net), expected, atol=1e-2)
            assert any("out of memory" in notice for notice in net.notices)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_memory_that_cudas_libraries_lack_is_told_as_such() -> None:
    """Messages of cuDNN through torch (pytorch/pytorch, issues 108645 and 102535) and of cuBLAS."""
    for message in (
        "FIND was unable to find an engine to execute this computation",
        "GET was unable to find an engine to execute this computation",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    ):
        with pytest.raises(OutOfMemory, match="expected a smaller tile"), torch_device.translated(torch.device("cpu")):
            raise RuntimeError(message)

"""What is torch's own: devices, threads, errors, and that it takes weights only."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from realesr.engines import open_engine
from realesr.engines.pytorch.device import ProcessSettings
from realesr.engines.pytorch.engine import open_torch
from realesr.errors import EngineError, OutOfMemory, UsageError
from realesr.models.compact import Compact
from realesr.models.rrdb import RRDB
from tests.engines.small_models import small_model, write_nearest

COMPACT = small_model(Compact(scale=2, features=8, convs=1))


def test_an_onnx_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"x.onnx, expected weights .*take engine onnxruntime"):
        open_engine(write_nearest(tmp_path / "x.onnx"), engine="torch")


def test_an_unknown_device_is_told_which_there_are() -> None:
    for device in ("tpu", "cuda:77", "cpu:0"):
        with pytest.raises(EngineError, match=rf"got the device {device}, expected one that it has here: cpu"):
            open_engine(COMPACT, engine="torch", device=device)


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(UsageError, match="int8, expected fp32, fp16, bf16"):
        open_engine(COMPACT, engine="torch", precision="int8")


def test_threads_are_set_while_it_calculates_and_then_as_before() -> None:
    seen = []

    class Counting(torch.nn.Module):
        def forward(self, lr: torch.Tensor) -> torch.Tensor:
            seen.append(torch.get_num_threads())
            return lr.repeat(1, 1, 2, 2)

    before = torch.get_num_threads()
    settings = ProcessSettings(threads=before + 1)
    with settings.applied(), ProcessSettings(threads=before + 2).applied():
        Counting()(torch.zeros(1, 3, 8, 8))
    assert (seen, torch.get_num_threads()) == ([before + 2], before)


def test_threads_of_two_engines_at_once_leave_those_before() -> None:
    before = torch.get_num_threads()
    both = threading.Barrier(2)

    def calculate(threads: int) -> int:
        for _ in range(20):
            both.wait(timeout=10)
            with ProcessSettings(threads=threads).applied():
                assert torch.get_num_threads() == threads
        return torch.get_num_threads()

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(calculate, (before + 1, before + 2))) == [before, before]
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == before == torch.get_num_threads()


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), OutOfMemory),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"), OutOfMemory),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to"), OutOfMemory),
        (MemoryError(), OutOfMemory),
        (RuntimeError("Given groups=1, weight of size\n[8]"), EngineError),
    ],
)
def test_errors_are_translated_by_type_and_text(raised: Exception, expected: type[Exception]) -> None:
    class Failing(torch.nn.Module):
        def forward(self, _: Any) -> None:
            raise raised

    with open_engine(COMPACT, engine="torch") as engine:
        working = engine._forwards  # type: ignore[attr-defined]
        engine._forwards = [Failing()]  # type: ignore[attr-defined]
        with pytest.raises(EngineError) as caught:
            engine.run(np.zeros((1, 3, 4, 4), np.float32))
        engine._forwards = working  # type: ignore[attr-defined]
        assert engine.run(np.zeros((1, 3, 4, 4), np.float32)).shape == (1, 3, 8, 8)
    assert type(caught.value) is expected
    assert "\n" not in str(caught.value)


def test_a_closed_engine_says_so() -> None:
    engine = open_engine(COMPACT, engine="torch")
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.run(np.zeros((1, 3, 4, 4), np.float32))


def test_an_unknown_mode_and_what_needs_a_gpu_are_refused_without_one() -> None:
    with pytest.raises(UsageError, match="the option mode=fast, expected mode=eager, mode=compile or mode=graphs"):
        open_torch(COMPACT, device="cpu", options={"mode": "fast"})
    with pytest.raises(UsageError, match="graphs on cpu, expected an NVIDIA GPU"):
        open_torch(COMPACT, device="cpu", options={"mode": "graphs"})
    with pytest.raises(UsageError, match="triton on cpu, expected an NVIDIA GPU"):
        open_torch(COMPACT, device="cpu", options={"kernels": "triton"})


def test_a_compiled_module_is_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling takes a minute: what torch.compile is asked for is looked at, and the answer is the module's own."""
    asked: list[Any] = []

    def compiled(module: torch.nn.Module, **options: Any) -> Any:
        asked.append(options)
        return lambda lr: module(lr) + 1

    monkeypatch.setattr(torch, "compile", compiled)
    batch = np.random.default_rng(0).random((1, 3, 8, 8), dtype=np.float32)
    with (
        open_torch(COMPACT, device="cpu", options={"mode": "compile"}) as engine,
        open_torch(COMPACT, device="cpu") as plain,
    ):
        np.testing.assert_allclose(engine.run(batch), plain.run(batch) + 1, atol=1e-6)
    assert asked == [{"dynamic": False}]


def test_what_fails_while_compiling_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def compiled(*_: Any, **__: Any) -> Any:
        def fail(_: Any) -> None:
            raise RuntimeError("no C++ compiler\nwas found")

        return fail

    monkeypatch.setattr(torch, "compile", compiled)
    with (
        open_torch(COMPACT, device="cpu", options={"mode": "compile"}) as engine,
        pytest.raises(EngineError, match=r"engine torch on cpu: no C\+\+ compiler was found"),
    ):
        engine.run(np.zeros((1, 3, 4, 4), np.float32))


def test_pieces_are_smaller_where_convolutions_run_behind_an_enlargement() -> None:
    dense = small_model(RRDB(scale=4, features=8, blocks=1, growth=4))
    sizes = []
    for weights in (COMPACT, dense):
        with open_torch(weights, device="cpu") as engine:
            sizes.append((engine.spec.pieces.largest_tile_px, engine.spec.pieces.largest_strip_px))
    assert sizes == [(512, 65_536), (288, 40_000)]


def test_memory_is_counted_in_maps_of_the_networks_own_and_half_precision_takes_twice() -> None:
    architecture = COMPACT.architecture
    with open_torch(COMPACT, device="cpu") as engine, open_torch(COMPACT, device="cpu", precision="bf16") as half:
        tile = engine.bytes_for(architecture, 100, 60)
        assert tile == 4 * 12 * 4 * 100 * 60  # 12 channels are shuffled into an image of twice the side
        assert half.bytes_for(architecture, 100, 60) == 2 * tile
        strips = [engine.bytes_for(architecture, rows, 60, in_strips=True) for rows in (16, 32)]
        assert strips[1] - strips[0] == 9 * 12 * 4 * 16 * 60


PRECISIONS_ON_GPUS = [("fp32", 100.0), ("fp16", 45.0), ("bf16", 30.0)]
"""Precision, and the least PSNR to float32 on a CPU, in dB. TF32 would have some 60 dB."""


@pytest.mark.cuda
@pytest.mark.parametrize("mode", ["eager", "graphs"])
@pytest.mark.parametrize(("precision", "least_db"), PRECISIONS_ON_GPUS)
def test_error_of_each_precision_on_a_gpu(precision: str, least_db: float, mode: Any) -> None:
    weights = small_model(RRDB(scale=4, features=32, blocks=3, growth=16))
    batch = np.random.default_rng(0).random((1, 3, 65, 33), dtype=np.float32)
    with (
        open_torch(weights, device="cpu", precision="fp32") as exact,
        open_torch(weights, device="cuda", precision=precision, options={"mode": mode}) as engine,
    ):
        assert (engine.spec.device, engine.spec.precision) == ("cuda:0", precision)
        expected, given = exact.run(batch), engine.run(batch)
    error = (given - expected) / np.ptp(expected)
    assert -10 * np.log10((error**2).mean()) > least_db


@pytest.mark.cuda
def test_a_graph_is_recorded_anew_for_each_shape_and_gives_what_the_module_gives() -> None:
    with (
        open_torch(COMPACT, device="cuda", precision="fp32", options={"mode": "graphs"}) as engine,
        open_torch(COMPACT, device="cuda", precision="fp32") as eager,
    ):
        for seed, shape in enumerate([(1, 3, 16, 16), (1, 3, 16, 16), (2, 3, 16, 16), (1, 3, 9, 31), (1, 3, 16, 16)]):
            batch = np.random.default_rng(seed).random(shape, dtype=np.float32)
            np.testing.assert_allclose(engine.run(batch), eager.run(batch), atol=1e-5)


@pytest.mark.cuda
@pytest.mark.parametrize("mode", ["eager", "graphs"])
def test_a_tile_that_a_gpu_cannot_hold_raises_and_a_smaller_one_then_works(mode: Any) -> None:
    small = np.random.default_rng(0).random((1, 3, 32, 32), dtype=np.float32)
    torch.cuda.set_per_process_memory_fraction(0.02)
    try:
        weights = small_model(Compact(scale=4, features=64, convs=2))
        with open_torch(weights, device="cuda", precision="fp32", options={"mode": mode}) as engine:
            before = engine.run(small)
            for _ in range(2):
                with pytest.raises(OutOfMemory, match="expected a smaller tile"):
                    engine.run(np.zeros((1, 3, 4096, 4096), np.float32))
                np.testing.assert_allclose(engine.run(small), before, atol=1e-5)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)

"""What is torch's own: devices, threads, errors, and that it takes weights only."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from realesr.architectures import Compact
from realesr.engines import open_engine
from realesr.errors import EngineError, OutOfMemory, UsageError
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


def test_threads_are_set() -> None:
    before = torch.get_num_threads()
    try:
        open_engine(COMPACT, engine="torch", threads=1)
        assert torch.get_num_threads() == 1
        open_engine(COMPACT, engine="torch")
        assert torch.get_num_threads() >= 1
    finally:
        torch.set_num_threads(before)


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
        working = engine._forward  # type: ignore[attr-defined]
        engine._forward = Failing()  # type: ignore[attr-defined]
        with pytest.raises(EngineError) as caught:
            engine.run(np.zeros((1, 3, 4, 4), np.float32))
        engine._forward = working  # type: ignore[attr-defined]
        assert engine.run(np.zeros((1, 3, 4, 4), np.float32)).shape == (1, 3, 8, 8)
    assert type(caught.value) is expected
    assert "\n" not in str(caught.value)


def test_a_closed_engine_says_so() -> None:
    engine = open_engine(COMPACT, engine="torch")
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.run(np.zeros((1, 3, 4, 4), np.float32))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here")
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_a_gpu_gives_what_the_cpu_gives(precision: str) -> None:
    batch = np.random.default_rng(0).random((1, 3, 33, 17), dtype=np.float32)
    with (
        open_engine(COMPACT, engine="torch") as exact,
        open_engine(COMPACT, engine="torch", device="cuda", precision=precision) as engine,
    ):
        assert engine.spec.device == "cuda:0"
        np.testing.assert_allclose(engine.run(batch), exact.run(batch), atol=0.05)

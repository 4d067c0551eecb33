"""What is OpenVINO's own: nothing is sent, shapes are compiled one by one, errors, precisions by the processor."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from realesr.engines import open_engine
from realesr.engines.fidelity import BF16_DB, bf16_is_measured
from realesr.errors import EngineError, ModelError, OutOfMemory, UsageError
from realesr.models.compact import Compact
from tests.engines.small_models import small_model, write_nearest

pytest.importorskip("openvino", reason="needs the package of the `openvino` extra")

from realesr.engines import openvino_engine

COMPACT = small_model(Compact(scale=2, features=8, convs=1))


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).random((1, 3, height, width), dtype=np.float32)


def test_the_import_sends_nothing_and_hides_nothing_afterwards(tmp_path: Path) -> None:
    """The package that sends writes an identity into the home folder at its first import."""
    script = (
        "import sys, realesr.engines.openvino_engine\n"
        "print(sorted(name for name in sys.modules if name.startswith('openvino_telemetry')))"
    )
    run = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert run.stdout == "[]\n"
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_run_and_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    batch = picture(6, 4)
    with open_engine(write_nearest(tmp_path / "x.onnx", scale=3), engine="openvino") as engine:
        assert np.array_equal(engine.run(batch), batch.repeat(3, 2).repeat(3, 3))
    with pytest.raises(ModelError, match=r"bytes.onnx, which takes u8 .*take engine onnxruntime"):
        open_engine(write_nearest(tmp_path / "bytes.onnx", dtype=TensorProto.UINT8), engine="openvino")
    with pytest.raises(ModelError, match=r"fixed.onnx, which takes f32 \[1,3,8,8\].*take engine onnxruntime"):
        open_engine(write_nearest(tmp_path / "fixed.onnx", shape=(1, 3, 8, 8)), engine="openvino")


def test_a_file_that_gives_another_size_than_it_says_is_refused(tmp_path: Path) -> None:
    path = write_nearest(tmp_path / "x.onnx", scale=3, metadata={"realesr.scale": "2", "realesr.multiple_of": "1"})
    with pytest.raises(ModelError, match="says scale = 2, but its network has 3"):
        open_engine(path, engine="openvino")


def test_a_shape_is_compiled_once_and_the_oldest_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    real = openvino_engine._compile

    def counting(path, shape, precision, threads):
        compiled.append(shape[2:])
        return real(path, shape, precision, threads)

    monkeypatch.setattr(openvino_engine, "_compile", counting)
    with open_engine(COMPACT, engine="openvino") as engine:
        for side in (4, 5, 4, 5, 4, 6, 4, 5):
            engine.run(picture(side, side))
    assert compiled == [(4, 4), (5, 5), (6, 6), (5, 5)]


def test_only_the_cpu_is_offered() -> None:
    with pytest.raises(EngineError, match="got the device cuda, expected one that it has here: cpu"):
        open_engine(COMPACT, engine="openvino", device="cuda")


def test_precisions_that_there_are_not() -> None:
    with pytest.raises(UsageError, match="fp16, expected fp32 or bf16"):
        open_engine(COMPACT, engine="openvino", precision="fp16")


def test_bf16_is_refused_where_the_processor_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_engine, "precisions", lambda: ("fp32",))
    with pytest.raises(EngineError, match="this processor has no bf16: expected fp32"):
        open_engine(COMPACT, engine="openvino", precision="bf16")


@pytest.mark.skipif("bf16" not in openvino_engine.precisions(), reason="this processor has no bf16")
def test_bf16_is_near_fp32_but_not_the_same() -> None:
    exact = open_engine(COMPACT, engine="openvino", precision="fp32").run(picture(16, 16))
    coarse = open_engine(COMPACT, engine="openvino", precision="bf16").run(picture(16, 16))
    assert not np.array_equal(exact, coarse)
    np.testing.assert_allclose(coarse, exact, atol=0.1)


@pytest.mark.parametrize(
    ("fast", "measured", "expected"), [(True, True, "bf16"), (True, False, "fp32"), (False, True, "fp32")]
)
def test_auto_is_bf16_only_where_it_is_fast_and_measured(
    monkeypatch: pytest.MonkeyPatch, fast: bool, measured: bool, expected: str
) -> None:
    monkeypatch.setattr(openvino_engine, "has_fast_bf16", lambda: fast)
    monkeypatch.setattr(openvino_engine, "precisions", lambda: ("fp32", "bf16"))
    weights = replace(COMPACT, sha256=next(iter(BF16_DB))) if measured else COMPACT
    with open_engine(weights, engine="openvino") as engine:
        assert engine.spec.precision == expected


def test_only_weights_whose_error_is_small_enough_count_as_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    for known, expected in ((None, False), (44.9, False), (45.0, True)):
        monkeypatch.setattr("realesr.engines.fidelity.BF16_DB", {} if known is None else {COMPACT.sha256: known})
        assert bf16_is_measured(COMPACT) is expected


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (RuntimeError("Exception from src/core/src/runtime/allocator.cpp:79:\nstd::bad_alloc\n"), OutOfMemory),
        (MemoryError(), OutOfMemory),
        (RuntimeError("Check 'x' failed\nat y"), EngineError),
    ],
)
def test_errors_are_translated_and_the_engine_goes_on(
    monkeypatch: pytest.MonkeyPatch, raised: Exception, expected: type[Exception]
) -> None:
    def failing(*_):
        raise raised

    with open_engine(COMPACT, engine="openvino") as engine:
        with monkeypatch.context() as patch, pytest.raises(EngineError) as caught:
            patch.setattr(openvino_engine, "_compile", failing)
            engine.run(picture(4, 4))
        assert engine.run(picture(4, 4)).shape == (1, 3, 8, 8)
    assert type(caught.value) is expected
    assert "\n" not in str(caught.value)


def test_a_closed_engine_says_so() -> None:
    engine = open_engine(COMPACT, engine="openvino")
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.run(picture(4, 4))

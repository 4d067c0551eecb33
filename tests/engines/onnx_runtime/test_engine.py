"""ONNX Runtime: files of all kinds, devices, errors by name, nothing sent or printed."""

import importlib.metadata
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, save

from realesr.engines import ModelFacts, model_facts
from realesr.engines import open_engine as open_any_engine
from realesr.engines.onnx_runtime import devices as onnxruntime_devices
from realesr.engines.onnx_runtime import engine as onnxruntime_engine
from realesr.engines.onnx_runtime.engine import open_onnxruntime
from realesr.errors import EngineError, ModelError, OutOfMemory, UsageError
from realesr.machine.cgroup import usable_cores
from realesr.models.compact import Compact
from realesr.models.onnx_graph import cached_onnx, onnx_bytes
from realesr.models.rrdb import RRDB
from tests.engines.small_models import small_model, write_nearest

open_engine = partial(open_any_engine, engine="onnxruntime")
COMPACT = small_model(Compact(scale=2, features=8, convs=1))
OTHER = small_model(Compact(scale=2, features=8, convs=2))


def test_facts_of_our_own_file_are_those_of_its_architecture(tmp_path: Path) -> None:
    architecture = RRDB(scale=2, features=8, blocks=2, growth=4)
    path = tmp_path / "mine.onnx"
    path.write_bytes(onnx_bytes(small_model(architecture)))
    assert model_facts(path) == ModelFacts(
        name="mine", scale=2, radius_px=architecture.radius_px, multiple_of=2, architecture=architecture
    )
    with open_engine(path) as engine:
        assert (engine.spec.scale, engine.spec.size.multiple_of) == (2, 2)


@pytest.mark.parametrize(("scale", "unshuffle"), [(1, 1), (2, 1), (3, 2), (4, 4), (2, 16)])
def test_facts_of_a_foreign_file_are_found_by_a_trial(tmp_path: Path, scale: int, unshuffle: int) -> None:
    path = write_nearest(tmp_path / "foreign.onnx", scale=scale, unshuffle=unshuffle)
    assert model_facts(path) == ModelFacts(
        name="foreign", scale=scale, radius_px=None, multiple_of=unshuffle, architecture=None
    )
    with open_engine(path) as engine:
        image = np.random.default_rng(0).random((1, 3, 2 * unshuffle, unshuffle), dtype=np.float32)
        assert np.array_equal(engine.run(image), image.repeat(scale, 2).repeat(scale, 3))


def test_facts_that_are_no_numbers_are_found_by_a_trial(tmp_path: Path) -> None:
    lies = {"realesr.scale": "two", "realesr.multiple_of": "1", "realesr.radius_px": "-3", "realesr.architecture": "{"}
    facts = model_facts(write_nearest(tmp_path / "x.onnx", scale=3, metadata=lies))
    assert (facts.scale, facts.radius_px, facts.architecture) == (3, None, None)


def test_a_file_that_gives_another_size_than_it_says_is_refused(tmp_path: Path) -> None:
    path = write_nearest(tmp_path / "x.onnx", scale=3, metadata={"realesr.scale": "2", "realesr.multiple_of": "1"})
    for use in (model_facts, open_engine):
        with pytest.raises(ModelError, match=r"x\.onnx says scale = 2, but its network has 3: export it again"):
            use(path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"shape": ("n", 1, "h", "w")}, r"\['n', 1, 'h', 'w'\], expected float32 or uint8 \(N, 3, H, W\), RGB"),
        ({"dtype": TensorProto.INT8}, r"tensor\(int8\).*expected float32 or uint8"),
        ({"shape": (1, 3, 64, "w")}, "images of w x 64 px, expected both sides open or both fixed: export it with"),
    ],
)
def test_a_network_of_another_kind_is_refused(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    path = write_nearest(tmp_path / "other.onnx", **options)
    for use in (model_facts, open_engine):
        with pytest.raises(ModelError, match=words) as caught:
            use(path)
        assert "\n" not in str(caught.value)
        assert "other.onnx" in str(caught.value)


def test_a_network_that_gives_no_enlargement_is_refused(tmp_path: Path) -> None:
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "h", "w"])
    small = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3, "H", "W"])
    node = helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[3, 3])
    model = helper.make_model(
        helper.make_graph([node], "g", [image], [small]), opset_imports=[helper.make_opsetid("", 18)], ir_version=8
    )
    save(model, tmp_path / "pool.onnx")
    with pytest.raises(ModelError, match=r"pool.onnx gave .*expected \(1, 3, H \* scale, W \* scale\)"):
        model_facts(tmp_path / "pool.onnx")


@pytest.mark.parametrize("content", [b"", b"no protobuf", None])
def test_a_damaged_or_missing_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "damaged.onnx"
    if content is not None:
        path.write_bytes(content)
    for use in (model_facts, open_engine):
        with pytest.raises(ModelError, match=r"damaged\.onnx"):
            use(path)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_nothing_in_the_cache_is_run_or_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    if engine == "openvino":
        pytest.importorskip("openvino")
    monkeypatch.setenv("REALESR_CACHE", str(tmp_path))
    cached_onnx(OTHER, "fp32").rename(cached_onnx(COMPACT, "fp32"))
    batch = np.random.default_rng(0).random((1, 3, 9, 9), dtype=np.float32)
    with open_engine(COMPACT, engine=engine) as beside_another:
        found = beside_another.run(batch)
    (tmp_path / "file").touch()
    monkeypatch.setenv("REALESR_CACHE", str(tmp_path / "file"))
    with open_engine(COMPACT, engine=engine) as without_cache:
        assert np.array_equal(found, without_cache.run(batch))


def test_precision_is_fp32_on_a_cpu_and_may_be_fp16() -> None:
    batch = np.random.default_rng(0).random((1, 3, 9, 9), dtype=np.float32)
    with open_engine(COMPACT) as exact, open_engine(COMPACT, precision="fp16") as coarse:
        assert (exact.spec.precision, coarse.spec.precision) == ("fp32", "fp16")
        assert not np.array_equal(exact.run(batch), coarse.run(batch))
        np.testing.assert_allclose(exact.run(batch), coarse.run(batch), atol=0.02)


def test_unknown_precisions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="bf16, expected fp32 or fp16"):
        open_engine(COMPACT, engine="onnxruntime", precision="bf16")
    with pytest.raises(UsageError, match="has its own, fp32: leave precision at auto"):
        open_engine(write_nearest(tmp_path / "x.onnx"), precision="fp16")


def test_an_unknown_device_is_told_which_there_are() -> None:
    with pytest.raises(EngineError, match=r"got the device gpu, expected one that it has here: cpu"):
        open_engine(COMPACT, device="gpu")
    with pytest.raises(UsageError, match=r"cpu:1, expected cpu: it has no numbers"):
        open_engine(COMPACT, device="cpu:1")


def test_devices_are_the_providers_but_no_remote_one(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["CUDAExecutionProvider", "OpenVINOExecutionProvider", "AzureExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    assert onnxruntime_devices.devices() == ("cpu", "cuda", "openvino")
    for wrong in ("cuda:", "cuda:x"):
        with pytest.raises(UsageError, match="expected cuda:0, cuda:1"):
            open_engine(COMPACT, device=wrong)


def test_a_device_is_asked_for_by_number_in_half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU here: what ONNX Runtime is asked for is looked at, and the answer is a CPU session's."""
    asked: list[Any] = []
    real = onnxruntime.InferenceSession

    def session(path: str, options: Any, providers: list[Any]) -> Any:
        asked.extend([path, *providers])
        opened = real(path, options, providers=["CPUExecutionProvider"])
        monkeypatch.setattr(opened, "get_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
        return opened

    names = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    with open_engine(COMPACT, device="cuda:1") as engine:
        assert (engine.spec.device, engine.spec.precision) == ("cuda:1", "fp16")
    assert asked[0] == onnx_bytes(COMPACT, "fp16")
    assert asked[1][0] == "CUDAExecutionProvider"
    assert asked[1][1]["device_id"] == "1"
    assert "use_tf32" not in asked[1][1], "it matters in float32 alone"
    assert asked[2] == "CPUExecutionProvider"


def on_a_fake_gpu(monkeypatch: pytest.MonkeyPatch, asked: dict[str, str]) -> None:
    """Sessions for CUDA run on the CPU; `asked` gets the options of the provider."""
    real = onnxruntime.InferenceSession

    def session(path: str, options: Any, providers: list[Any]) -> Any:
        asked.update(providers[0][1])
        opened = real(path, options, providers=["CPUExecutionProvider"])
        monkeypatch.setattr(opened, "get_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
        return opened

    names = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)


@pytest.mark.parametrize(
    ("options", "expected"), [(None, None), ({"prefer_nhwc": "0"}, None), ({"prefer_nhwc": "1"}, "1")]
)
def test_nhwc_is_preferred_where_it_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, str] | None, expected: str | None
) -> None:
    asked: dict[str, str] = {}
    on_a_fake_gpu(monkeypatch, asked)
    open_onnxruntime(COMPACT, device="cuda", options=options).close()
    assert asked.get("prefer_nhwc") == expected


def test_options_that_the_engine_or_the_device_does_not_have_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="engine onnxruntime got the option nhwc, expected prefer_nhwc"):
        open_onnxruntime(COMPACT, device="cpu", options={"nhwc": "1"})
    with pytest.raises(EngineError, match="got the option prefer_nhwc=1 on the device cpu, expected the device cuda"):
        open_onnxruntime(COMPACT, device="cpu", options={"prefer_nhwc": "1"})
    open_onnxruntime(COMPACT, device="cpu", options={"prefer_nhwc": "0"}).close()


def test_free_memory_is_that_of_the_gpu_that_the_network_is_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime_engine, "gpu_memory_bytes", lambda number: 1000 + number)
    with open_onnxruntime(COMPACT, device="cpu") as engine:
        assert engine.spec.device_bytes is None
    on_a_fake_gpu(monkeypatch, {})
    with open_onnxruntime(COMPACT, device="cuda:1") as engine:
        assert engine.spec.device_bytes == 1001


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_device_that_cannot_start_is_an_error_not_a_slow_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["DmlExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    with pytest.raises(EngineError, match="DmlExecutionProvider but it cannot start here"):
        open_engine(COMPACT, device="dml")


def test_two_packages_of_onnxruntime_are_named_with_what_mends_them(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1" if name == "onnxruntime-gpu" else real(name))
    with pytest.raises(EngineError) as caught:
        open_engine(COMPACT)
    assert "'pip uninstall -y onnxruntime onnxruntime-gpu', then 'pip install onnxruntime-gpu'" in str(caught.value)


_WHERE = "; GPU=0 ; hostname=x ; file=/onnxruntime_src/onnxruntime/core/providers/cuda/nn/conv.cc ; line=1 ; expr=y; "
"""How every message of a CUDA library goes on: '%s failure %d: %s ; GPU=%d ; hostname=%s ; file=%s ; line=%d ; expr=%s;
%s' (libonnxruntime_providers_cuda.so of onnxruntime-gpu 1.31.1; core/providers/cuda/cuda_call.cc).

The names: cuDNN 9 has 4003 and 4004 where cuDNN 8 had 2 (cudnn_graph.h, cudnnStatus_t, "Since cuDNN 9.0.0"); the
cuBLAS one is in fudan-generative-vision/hallo, issue 218, the arena's in microsoft/onnxruntime, issue 22702, the memory
pool's in the same library. CUDNN_FE's tell a cause only in the log (core/providers/cuda/cudnn_fe_call.cc).
"""


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("bfc_arena.cc:360 Failed to allocate memory for requested buffer of size 163840000", OutOfMemory),
        ("Non-zero status code returned while running Conv node. Status Message: std::bad_alloc", OutOfMemory),
        ("Non-zero status code returned while running Conv node. Status Message: bad allocation", OutOfMemory),
        ("CUDA failure 2: out of memory ; GPU=0", OutOfMemory),
        ("CUDNN failure 2: CUDNN_STATUS_ALLOC_FAILED", OutOfMemory),
        (f"CUDNN failure 4003: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED {_WHERE}", OutOfMemory),
        (f"CUDNN failure 4004: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED {_WHERE}", OutOfMemory),
        (f"CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED {_WHERE}", OutOfMemory),
        ("CudaMempoolArena::Alloc: cudaMallocFromPoolAsync failed: out of memory", OutOfMemory),
        (f"CUDNN failure 5003: CUDNN_STATUS_EXECUTION_FAILED_CUDART {_WHERE}", EngineError),
        (f"CUDNN_FE failure 11: CUDNN_BACKEND_API_FAILED {_WHERE}", EngineError),
        ("Conv: the filter\nhas 3 channels", EngineError),
    ],
)
def test_errors_are_translated_by_type_and_text(message: str, expected: type[Exception]) -> None:
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail

    class Failing:
        def run(self, *_: Any) -> None:
            raise Fail(f"[ONNXRuntimeError] : 1 : FAIL : {message}")

    with open_engine(COMPACT) as engine:
        engine._session = Failing()  # type: ignore[attr-defined]
        with pytest.raises(EngineError) as caught:
            engine.run(np.zeros((1, 3, 4, 4), np.float32))
    assert type(caught.value) is expected
    assert "\n" not in str(caught.value)


def test_threads_are_those_asked_for_or_all_that_may_be_used() -> None:
    for threads, expected in ((3, 3), (None, usable_cores())):
        with open_engine(COMPACT, threads=threads) as engine:
            options = engine._session.get_session_options()  # type: ignore[attr-defined]
            assert (options.intra_op_num_threads, options.inter_op_num_threads) == (expected, 1)


def test_a_closed_engine_says_so() -> None:
    engine = open_engine(COMPACT)
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.run(np.zeros((1, 3, 4, 4), np.float32))


RUN_ONCE = """
import sys
from pathlib import Path
import numpy as np
from realesr.engines import open_engine
open_engine(Path(sys.argv[1])).run(np.zeros((1, 3, 8, 8), np.float32))
"""


def test_no_telemetry_is_sent_and_nothing_is_printed(tmp_path: Path) -> None:
    """ONNX Runtime's reporting keeps a device id and a database under the home folder."""
    path = write_nearest(tmp_path / "x.onnx")
    home = tmp_path / "home"
    home.mkdir()
    dropped = ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")
    environment = {key: value for key, value in os.environ.items() if key not in dropped}
    environment |= {"HOME": str(home), "USERPROFILE": str(home), "LOCALAPPDATA": str(home)}
    run = subprocess.run(
        [sys.executable, "-c", RUN_ONCE, str(path)], env=environment, capture_output=True, text=True, timeout=60
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert list(home.rglob("*")) == []

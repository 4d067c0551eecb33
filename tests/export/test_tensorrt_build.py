"""Engines are really built here, by TensorRT for RTX, which needs no GPU for it."""

import dataclasses
import errno
import importlib.util
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from realesr.engine import EngineBase, EngineSpec, NearestEngine, SizeRule
from realesr.engines import model_facts
from realesr.engines.nvidia.tensorrt_sidecar import read_sidecar, sidecar_path
from realesr.errors import EngineError, MissingDependency, ModelError, OutputError, UsageError
from realesr.export import tensorrt_build, tensorrt_process, tensorrt_proof
from realesr.export.tensorrt_build import ShapeProfile, TensorrtOptions, export_tensorrt, profile_for
from realesr.machine.whole_file import file_sha256
from realesr.models.architecture import Architecture
from realesr.models.compact import Compact
from realesr.models.onnx_graph import onnx_bytes
from realesr.models.rrdb import RRDB
from tests.engines.small_models import write_nearest
from tests.models.small_networks import SMALL, small_weights

needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="TensorRT for RTX is not installed (tensorrt-rtx-cu13)"
)
COMPACT = Compact(scale=4, features=8, convs=3)
PROFILE = ShapeProfile(min_hw=(4, 4), opt_hw=(32, 32), max_hw=(64, 64))


def options(**changes: Any) -> TensorrtOptions:
    return TensorrtOptions(**{"library": "tensorrt-rtx", "profile": PROFILE, **changes})


def write_onnx(folder: Path, architecture: Architecture = COMPACT, precision: Any = "fp16") -> Path:
    path = folder / "small.onnx"
    path.write_bytes(onnx_bytes(small_weights(architecture), precision))
    return path


def write_graph(folder: Path, *nodes: onnx.NodeProto, dtype: int = TensorProto.FLOAT, result: int = 0) -> Path:
    """An ONNX file of our signature with these nodes between "picture" and "out"."""
    source = helper.make_tensor_value_info("picture", dtype, ["n", 3, "h", "w"])
    out = helper.make_tensor_value_info("out", result or dtype, ["n", 3, "H", "W"])
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("org.foreign", 1)]
    model = helper.make_model(helper.make_graph(list(nodes), "g", [source], [out]), opset_imports=imports, ir_version=8)
    path = folder / "graph.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@needs_rtx
@pytest.mark.parametrize("architecture", [SMALL[number] for number in (0, 1, 3, 5, 6)], ids=str)
def test_every_family_and_size_rule_is_built_in_fp16(architecture: Architecture, tmp_path: Path) -> None:
    source = write_onnx(tmp_path, architecture)
    report = export_tensorrt(source, tmp_path / "x.engine", options())
    sidecar = report.sidecar
    assert files(tmp_path) == ["small.onnx", "x.engine", "x.engine.json"]
    assert read_sidecar(report.engine) == sidecar
    assert (sidecar.scale, sidecar.multiple_of) == (architecture.scale, architecture.multiple_of)
    assert sidecar.radius_px == architecture.radius_px
    assert sidecar.facts.architecture == architecture
    assert (sidecar.precision, sidecar.values, sidecar.library) == ("fp16", "float32", "tensorrt-rtx")
    assert sidecar.engine_sha256 == file_sha256(report.engine)
    assert sidecar.engine_bytes == report.engine.stat().st_size > 10_000
    assert sidecar.onnx_sha256 == file_sha256(source)
    assert sidecar.weights_sha256 == small_weights(architecture).sha256
    assert sidecar.layers > 5
    assert sidecar.build_seconds > 0
    assert sidecar.gpu is None


@needs_rtx
def test_fp32_is_built_as_such_for_the_gpus_that_were_named(tmp_path: Path) -> None:
    progress: list[tuple[float, str]] = []
    asked = options(
        compute_capabilities=("sm89", "sm120"), on_progress=lambda share, phase: progress.append((share, phase))
    )
    report = export_tensorrt(write_onnx(tmp_path, precision="fp32"), tmp_path / "x.engine", asked)
    assert report.sidecar.precision == "fp32"
    assert report.sidecar.targets == ("sm89", "sm120")
    shares = [share for share, _ in progress]
    assert len(shares) > 5
    assert shares == sorted(shares)
    assert 0 <= shares[0] < 0.5 < shares[-1] <= 1
    assert "Building engine" in {phase for _, phase in progress}


@needs_rtx
def test_why_an_engine_is_not_proven_is_in_its_sidecar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_gpu(number: int) -> Any:
        raise EngineError("no NVIDIA GPU can be used here")

    monkeypatch.setattr(tensorrt_proof, "gpu_facts", no_gpu)
    report = export_tensorrt(write_onnx(tmp_path), tmp_path / "x.engine", options())
    assert report.sidecar.proof == "not proven: no NVIDIA GPU can be used here"
    assert json.loads(sidecar_path(report.engine).read_text())["proof"] == report.sidecar.proof


@needs_rtx
def test_an_engine_that_fails_its_proof_does_not_replace_the_one_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise EngineError("got 12.3 dB to float32, expected 45 dB")

    target = tmp_path / "x.engine"
    target.write_bytes(b"old")
    monkeypatch.setattr(tensorrt_build, "prove", fail)
    with pytest.raises(EngineError, match=r"12\.3 dB"):
        export_tensorrt(write_onnx(tmp_path), target, options())
    assert target.read_bytes() == b"old"
    assert files(tmp_path) == ["small.onnx", "x.engine"]


@needs_rtx
def test_a_foreign_network_is_built_and_its_scale_found_by_trial(tmp_path: Path) -> None:
    sidecar = export_tensorrt(write_nearest(tmp_path / "a.onnx", scale=3), tmp_path / "x.engine", options()).sidecar
    assert (sidecar.scale, sidecar.architecture, sidecar.weights_sha256, sidecar.precision) == (3, "", "", "fp32")
    assert sidecar.facts.radius_px is None


def rejected(source: Path, **changes: Any) -> str:
    """The one line with which a file is refused; nothing is left beside it."""
    before = files(source.parent)
    with pytest.raises(ModelError) as caught:
        export_tensorrt(source, source.parent / "x.engine", options(**changes))
    assert files(source.parent) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


@needs_rtx
def test_a_truncated_file_is_refused_with_the_parsers_reason(tmp_path: Path) -> None:
    path = write_onnx(tmp_path)
    for size in (0, 100, path.stat().st_size // 2):
        path.write_bytes(path.read_bytes()[:size])
        assert "small.onnx" in rejected(path)
    path.write_bytes(onnx_bytes(small_weights(SMALL[0]), "fp16")[:5000])
    assert "MODEL_DESERIALIZE_FAILED" in rejected(path)


@needs_rtx
def test_an_operator_that_tensorrt_does_not_know_is_named_with_its_node(tmp_path: Path) -> None:
    foreign = helper.make_node("Frobnicate", ["picture"], ["out"], name="third layer", domain="org.foreign")
    message = rejected(write_graph(tmp_path, foreign))
    assert "node 0 'third layer' (Frobnicate)" in message
    assert "Plugin not found" in message
    determinant = helper.make_node("Det", ["picture"], ["out"], name="area")
    assert "node 0 'area' (Det): UNSUPPORTED_NODE" in rejected(write_graph(tmp_path, determinant))


@needs_rtx
def test_inputs_that_are_no_image_are_refused(tmp_path: Path) -> None:
    double = helper.make_node("Add", ["picture", "picture"], ["out"])
    assert "picture as int32 (-1, 3, -1, -1)" in rejected(write_graph(tmp_path, double, dtype=TensorProto.INT32))
    half = helper.make_node("Cast", ["picture"], ["out"], to=TensorProto.FLOAT16)
    assert "out as float16" in rejected(write_graph(tmp_path, half, result=TensorProto.FLOAT16))
    four = write_nearest(tmp_path / "four.onnx", shape=("n", 4, "h", "w"))
    profile_error = rejected(four)
    assert "picture as float32 (-1, 4, -1, -1), expected" in profile_error


@needs_rtx
def test_a_network_of_integers_is_built_as_such(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["picture"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["real", "real"], ["twice"]),
        helper.make_node("Cast", ["twice"], ["out"], to=TensorProto.UINT8),
    ]
    report = export_tensorrt(write_graph(tmp_path, *nodes, dtype=TensorProto.UINT8), tmp_path / "x.engine", options())
    assert report.sidecar.values == "uint8"


@needs_rtx
def test_shapes_that_a_fixed_network_does_not_take_are_refused(tmp_path: Path) -> None:
    path = write_nearest(tmp_path / "fixed.onnx", shape=(1, 3, 16, 20))
    with pytest.raises(UsageError, match=r"fixed\.onnx takes \(1, 3, 16, 20\) only: got the shapes 1x3x4x4"):
        export_tensorrt(path, tmp_path / "x.engine", options())
    fixed = ShapeProfile(min_hw=(16, 20), opt_hw=(16, 20), max_hw=(16, 20))
    assert export_tensorrt(path, tmp_path / "x.engine", options(profile=fixed)).sidecar.profile.is_fixed


@needs_rtx
def test_a_target_that_the_library_does_not_know_is_told_those_that_it_does(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no target sm90: expected some of sm75, sm80, .*sm120") as caught:
        export_tensorrt(write_onnx(tmp_path), tmp_path / "x.engine", options(compute_capabilities=("sm89", "sm90")))
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="TensorRT is installed")
def test_a_library_that_is_not_installed_is_told_with_the_line_that_installs_it(tmp_path: Path) -> None:
    with pytest.raises(MissingDependency, match="tensorrt is not installed: run 'pip install tensorrt cuda-bindings'"):
        export_tensorrt(write_onnx(tmp_path), tmp_path / "x.engine", options(library="tensorrt"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"library": "tensorrt-lean"}, "got the library tensorrt-lean"),
        (
            {"library": "tensorrt", "compute_capabilities": ("sm89",)},
            "this machine's GPU: take tensorrt-rtx",
        ),
        ({"compute_capabilities": ("sm89", "sm89")}, "expected each once"),
        ({"workspace_bytes": 0}, "got a workspace of 0 bytes"),
        ({"limit_seconds": 0}, "a limit of 0 s"),
        ({"timing_cache": Path("x")}, "only tensorrt has one"),
    ],
)
def test_options_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        options(**changes)


@pytest.mark.parametrize(
    "sides", [((0, 1), (1, 1), (1, 1)), ((2, 1), (1, 1), (3, 3)), ((1, 1), (1, 4), (3, 3)), ((5, 5), (5, 5), (5, 4))]
)
def test_profiles_are_in_order(sides: Any) -> None:
    with pytest.raises(UsageError, match="smallest <= best <= largest"):
        ShapeProfile(min_hw=sides[0], opt_hw=sides[1], max_hw=sides[2])
    with pytest.raises(UsageError, match="got batches of 2 and 1"):
        dataclasses.replace(PROFILE, opt_batch=2)


def test_one_profile_serves_every_photo() -> None:
    facts = model_facts(small_weights(RRDB(scale=4, features=8, blocks=1, growth=4)))
    assert profile_for(facts).shapes == ((1, 3, 1, 1), (1, 3, 288, 288), (1, 3, 288, 288))
    x2 = model_facts(small_weights(RRDB(scale=2, features=8, blocks=1, growth=4)))
    assert profile_for(x2).shapes == ((1, 3, 2, 2), (1, 3, 576, 576), (1, 3, 576, 576))
    assert profile_for(x2, read_px=601, max_batch=4).shapes[2] == (4, 3, 602, 602)
    compact = model_facts(small_weights(Compact(scale=4, features=8, convs=1)))
    assert profile_for(compact, read_px=300) == profile_for(compact)
    assert profile_for(compact).max_hw == (512, 512)


def child(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """The builder's process runs this instead."""
    monkeypatch.setattr(tensorrt_process, "child_command", lambda: [sys.executable, "-c", script])


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            "import os; os.write(2, b'last words'); os.abort()",
            r"crashed \(SIGABRT\): last words",
        ),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", r"crashed \(SIGSEGV\): it printed nothing"),
        ("raise ValueError('unthought of')", r"ended without an engine \(exit status 1\): ValueError: unthought of"),
        ("pass", r"ended without an engine \(exit status 0\)"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="other signals there")
def test_a_builder_that_crashes_is_one_line(
    script: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child(monkeypatch, script)
    with pytest.raises(EngineError, match=f"the builder of tensorrt-rtx {message}") as caught:
        export_tensorrt(write_onnx(tmp_path), tmp_path / "x.engine", options())
    assert "\n" not in str(caught.value)
    assert files(tmp_path) == ["small.onnx"]


def test_a_builder_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pid_file = tmp_path / "pid"
    child(monkeypatch, f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(600)")
    start = time.monotonic()
    with pytest.raises(EngineError, match=r"was ended after 1\.5 s without an engine: allow it more time"):
        export_tensorrt(write_onnx(tmp_path), tmp_path / "x.engine", options(limit_seconds=1.5))
    assert time.monotonic() - start < 60
    assert_gone(pid_file)


def test_ctrl_c_ends_the_builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pid_file = tmp_path / "pid"
    script = f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); "
    script += 'print(\'{"progress": 0.1, "phase": "x"}\', flush=True); time.sleep(600)'
    child(monkeypatch, script)

    def interrupt(share: float, phase: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_tensorrt(write_onnx(tmp_path), tmp_path / "x.engine", options(on_progress=interrupt))
    assert files(tmp_path) == ["pid", "small.onnx"]
    assert_gone(pid_file)


def assert_gone(pid_file: Path) -> None:
    if sys.platform != "win32":
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid_file.read_text()), 0)


@needs_rtx
def test_a_builder_may_be_started_from_a_thread(tmp_path: Path) -> None:
    built: list[Any] = []
    source = write_onnx(tmp_path)
    threads = [
        threading.Thread(target=lambda n=n: built.append(export_tensorrt(source, tmp_path / f"{n}.engine", options())))
        for n in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert files(tmp_path) == ["0.engine", "0.engine.json", "1.engine", "1.engine.json", "small.onnx"]


@needs_rtx
def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("realesr.machine.whole_file.os.replace", full)
    with pytest.raises(OutputError, match=r"x\.engine cannot be written \(No space left on device\): free some space"):
        export_tensorrt(write_onnx(tmp_path), tmp_path / "x.engine", options())
    monkeypatch.undo()
    assert files(tmp_path) == ["small.onnx"]
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OutputError, match="cannot be written"):
        export_tensorrt(write_onnx(tmp_path), tmp_path / "file" / "x.engine", options())


class Off(EngineBase):
    """Another engine's output with an error added."""

    def __init__(self, error: float, size: SizeRule) -> None:
        self._inner = NearestEngine(scale=2, size=size, max_batch=2)
        self.spec: EngineSpec = self._inner.spec
        self._error = np.float32(error)

    def run(self, batch: Any, on_progress: Any = None) -> Any:
        return self._inner.run(batch) + self._error


def test_the_proof_tells_engines_that_err_from_those_that_do_not() -> None:
    size = SizeRule(minimum_px=4, multiple_of=1, maximum_px=64)
    found = tensorrt_proof.compared(Off(0.001, size), NearestEngine(scale=2, max_batch=2), PROFILE, "x.engine")
    assert all(59 < row["psnr_db"] < 61 for row in found["rows"])
    batches, _, _, _ = zip(*(row["shape"] for row in found["rows"]), strict=True)
    assert set(batches) == {1, 2}
    for error in (0.02, float("nan")):
        with pytest.raises(EngineError, match="is not the network that it was built from"):
            tensorrt_proof.compared(Off(error, size), NearestEngine(scale=2, max_batch=2), PROFILE, "x.engine")


def test_the_precision_is_that_of_most_numbers(tmp_path: Path) -> None:
    path = write_onnx(tmp_path)
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.name.startswith("body.0."):
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    onnx.save(model, path)
    assert tensorrt_build.precision_of(path) == "fp16"
    assert tensorrt_build.precision_of(write_onnx(tmp_path, precision="fp32")) == "fp32"

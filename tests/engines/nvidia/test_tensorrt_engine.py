"""Opening engines and running them: with a TensorRT that is none, and where there is a GPU with the real one."""

import dataclasses
import importlib.util
import json
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from realesr.engine import MAX_BATCH
from realesr.engines import model_facts, open_chosen_engine, open_engine
from realesr.engines.choice import Choice
from realesr.engines.nvidia import tensorrt_engine
from realesr.engines.nvidia.cuda_memory import GpuFacts, gpu_facts
from realesr.engines.nvidia.tensorrt_engine import TensorrtEngine, open_tensorrt
from realesr.engines.nvidia.tensorrt_library import targets
from realesr.engines.nvidia.tensorrt_sidecar import ShapeProfile, read_sidecar, sidecar_path, text_from_sidecar
from realesr.errors import BadShape, EngineError, MissingDependency, ModelError, OutOfMemory, RealesrError, UsageError
from realesr.machine.whole_file import file_sha256
from realesr.models.rrdb import RRDB
from realesr.models.weights import Weights
from tests.engines.nvidia.fake_gpu import COMPACT, H100, RTX_4090, SCALE, SIDECAR, FakeMemory, FakeTrt
from tests.engines.small_models import small_model


class Machine:
    """A machine with one fake GPU and a fake TensorRT; `engine` writes a file that it runs."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, gpu: GpuFacts = RTX_4090) -> None:
        self.folder = folder
        self.memory = FakeMemory(facts=gpu)
        self.trt = FakeTrt(self.memory, SCALE)
        self.asked_memory: list[str | None] = []
        monkeypatch.setattr(tensorrt_engine, "open_cuda", self._open_cuda)
        monkeypatch.setattr(tensorrt_engine, "load", lambda library: self.trt)
        monkeypatch.setenv("REALESR_CACHE", str(folder / "cache"))

    def _open_cuda(self, number: int, library: str | None = None) -> FakeMemory:
        self.asked_memory.append(library)
        return self.memory

    def engine(self, content: bytes = b"engine", **changes: Any) -> Path:
        path = self.folder / "small.engine"
        path.write_bytes(content)
        fields = {"engine_sha256": file_sha256(path), "engine_bytes": len(content), **changes}
        sidecar_path(path).write_text(text_from_sidecar(dataclasses.replace(SIDECAR, **fields)))
        return path


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def picture(count: int = 1, height: int = 5, width: int = 7) -> np.ndarray:
    return np.random.default_rng(0).random((count, 3, height, width), dtype=np.float32)


def test_an_engine_file_is_run_by_its_name_alone(machine: Machine) -> None:
    path = machine.engine()
    with open_engine(path) as engine:
        spec = engine.spec
        assert (spec.name, spec.scale, spec.precision, spec.device) == ("tensorrt", SCALE, "fp16", "cuda:0")
        assert (spec.size.minimum_px, spec.size.maximum_px, spec.max_batch) == (1, 32, MAX_BATCH)
        for batch in (picture(), picture(8), picture(3, 32, 1)):
            np.testing.assert_array_equal(engine.run(batch), batch.repeat(SCALE, 2).repeat(SCALE, 3))
    assert machine.trt.loaded == [b"engine"]
    assert machine.memory.is_closed
    assert machine.memory.buffers == {}


def test_facts_for_planning_come_from_the_sidecar(machine: Machine) -> None:
    facts = model_facts(machine.engine())
    assert (facts.name, facts.scale, facts.radius_px, facts.multiple_of) == ("small", SCALE, 3, 1)
    assert facts.architecture == COMPACT
    assert model_facts(machine.engine(architecture="")).architecture is None


def test_a_sidecar_survives_the_way_through_json(machine: Machine) -> None:
    for changes in ({}, {"gpu": RTX_4090, "library": "tensorrt", "targets": ()}, {"proof": {"rows": [1.5]}}):
        path = machine.engine(**changes)
        expected = dataclasses.replace(SIDECAR, engine_sha256=file_sha256(path), engine_bytes=6, **changes)
        assert read_sidecar(path) == expected


def test_batches_and_sizes_that_the_profile_does_not_cover_are_refused(machine: Machine) -> None:
    with open_tensorrt(machine.engine(profile=ShapeProfile(min_hw=(8, 8), opt_hw=(9, 9), max_hw=(20, 16)))) as engine:
        for height, width in ((7, 9), (9, 17), (17, 9)):
            with pytest.raises(BadShape, match="at least 8 px and at most 16 px"):
                engine.run(picture(1, height, width))
        with pytest.raises(BadShape, match="batch of 9"):
            engine.run(picture(9, 9, 9))
        engine.run(picture(8, 16, 16))


def test_an_engine_of_one_shape_takes_nothing_else(machine: Machine) -> None:
    fixed = ShapeProfile(min_hw=(16, 20), opt_hw=(16, 20), max_hw=(16, 20))
    with open_tensorrt(machine.engine(profile=fixed)) as engine:
        assert engine.spec.size.fixed_px == (16, 20)
        with pytest.raises(BadShape, match="20 x 16 px"):
            engine.run(picture(1, 16, 16))


def test_parts_of_the_best_batch_run_at_once_where_they_divide_the_batch(machine: Machine) -> None:
    profile = dataclasses.replace(SIDECAR.profile, opt_batch=4, max_batch=4)
    with open_tensorrt(machine.engine(profile=profile)) as engine:
        for count, runs in ((8, 2), (6, 6)):
            machine.memory.calls.clear()
            batch = picture(count)
            np.testing.assert_array_equal(engine.run(batch), batch.repeat(SCALE, 2).repeat(SCALE, 3))
            assert machine.memory.calls.count("execute") == runs


def test_tensorrt_for_rtx_makes_its_own_graphs_and_keeps_what_it_compiled(machine: Machine) -> None:
    path = machine.engine()
    for expected in (b"", b"+"):
        with open_tensorrt(path) as engine:
            assert machine.trt.compiled == expected
            machine.trt.compiled = expected
            for _ in range(3):
                engine.run(picture(4))
        config = machine.trt.asked
        assert (config.cuda_graph_strategy, config.allocation) == ("whole graph", "user managed")
        assert config.runtime_cache is not None
        assert "capture" not in machine.memory.calls
        machine.memory.is_closed = False


def test_tensorrt_runs_from_graphs_captured_here(machine: Machine) -> None:
    path = machine.engine(library="tensorrt", gpu=RTX_4090, targets=())
    with open_tensorrt(path) as engine:
        engine.run(picture(4))
        assert machine.trt.asked == "user managed"
        assert machine.memory.calls.count("capture") == 2


def test_a_cache_that_cannot_be_written_is_no_error(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("no folder")
    with open_tensorrt(machine.engine()) as engine:
        engine.run(picture())


def test_an_engine_of_another_version_is_refused(machine: Machine) -> None:
    with pytest.raises(EngineError, match=r"built by tensorrt-rtx 1\.6\.0, but 1\.7\.1\.116 is installed: build"):
        open_tensorrt(machine.engine(library_version="1.6.0"))
    assert machine.trt.loaded == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": ("sm86", "sm120")}, "built for sm86, sm120, but this GPU is NVIDIA GeForce RTX 4090, sm89"),
        ({"gpu": H100, "targets": ()}, "built on NVIDIA H100 80GB HBM3, sm90, but this GPU is .*RTX 4090"),
        ({"gpu": dataclasses.replace(RTX_4090, name="NVIDIA L4"), "targets": ()}, "built on NVIDIA L4, sm89"),
    ],
)
def test_an_engine_of_another_gpu_is_refused_before_it_is_loaded(
    machine: Machine, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(EngineError, match=message):
        open_tensorrt(machine.engine(**changes))
    assert machine.trt.loaded == []
    assert machine.memory.is_closed


def test_an_engine_for_all_gpus_is_for_those_from_ampere_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turing = GpuFacts(name="NVIDIA T4", compute_capability=(7, 5), driver="13.0")
    machine = Machine(tmp_path, monkeypatch, turing)
    with pytest.raises(EngineError, match="sm120, sm121, but this GPU is NVIDIA T4, sm75: export it for sm75"):
        open_tensorrt(machine.engine(targets=()))


@pytest.mark.parametrize(("capability", "name"), [((9, 0), "NVIDIA H100"), ((10, 0), "NVIDIA B200"), ((8, 7), "Orin")])
def test_an_engine_for_all_gpus_is_for_none_that_tensorrt_for_rtx_does_not_know(
    capability: tuple[int, int], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = GpuFacts(name=name, compute_capability=capability, driver="13.0")
    machine = Machine(tmp_path, monkeypatch, gpu)
    with pytest.raises(
        EngineError, match=f"sm80, sm86, .* sm121, but this GPU is {name}, {gpu.target}, which TensorRT"
    ):
        open_tensorrt(machine.engine(targets=()))
    assert machine.trt.loaded == []


@pytest.mark.parametrize("capability", [(8, 0), (8, 6), (8, 9), (12, 0), (12, 1)])
def test_an_engine_for_all_gpus_runs_on_each_that_tensorrt_for_rtx_knows(
    capability: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = GpuFacts(name="NVIDIA RTX", compute_capability=capability, driver="13.0")
    open_tensorrt(Machine(tmp_path, monkeypatch, gpu).engine(targets=())).close()


def test_the_gpus_of_an_engine_for_all_are_those_that_the_library_knows() -> None:
    """But for Turing, which it builds for only when it is told to."""
    trt = pytest.importorskip("tensorrt_rtx")
    assert (*tensorrt_engine._ONLY_WHEN_NAMED, *tensorrt_engine.PORTABLE_TARGETS) == targets(trt)


def test_the_library_for_memory_is_the_one_that_was_asked_for(machine: Machine) -> None:
    for options in (None, {}, {"memory": "auto"}, {"memory": "pycuda"}, {"memory": "cuda-bindings"}):
        open_tensorrt(machine.engine(), options=options).close()
        machine.memory.is_closed = False
    assert machine.asked_memory == [None, None, None, "pycuda", "cuda-bindings"]
    with pytest.raises(UsageError, match="engine tensorrt got the option memory=cupy, expected memory=auto, memory="):
        open_tensorrt(machine.engine(), options={"memory": "cupy"})


def test_free_memory_is_that_of_the_gpu(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_engine, "gpu_memory_bytes", lambda number: 1000 + number)
    with open_tensorrt(machine.engine(), device="cuda:1") as engine:
        assert engine.spec.device_bytes == 1001


def test_a_changed_engine_is_never_loaded(machine: Machine) -> None:
    path = machine.engine()
    path.write_bytes(b"enginf")
    with pytest.raises(ModelError, match=r"is damaged, or not the engine that its .json describes"):
        open_tensorrt(path)
    assert machine.trt.loaded == []


def test_an_engine_without_its_sidecar_is_refused(machine: Machine) -> None:
    path = machine.engine()
    sidecar_path(path).unlink()
    for attempt in (open_tensorrt, model_facts):
        with pytest.raises(ModelError, match=r"has no small\.engine\.json beside it"):
            attempt(path)
    path.unlink()
    with pytest.raises(ModelError, match="does not exist"):
        open_tensorrt(path)


LARGE = {"min_hw": [1, 1], "opt_hw": [1, 1], "max_hw": [10**9, 1], "opt_batch": 1, "max_batch": 1}


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"format": 2}', '{"format": 1, "library": "x"}', "null", "[" * 10_000]
)
def test_a_sidecar_that_is_none_is_one_line(machine: Machine, text: str) -> None:
    path = machine.engine()
    sidecar_path(path).write_text(text)
    with pytest.raises(ModelError, match="is no description of an engine") as caught:
        open_tensorrt(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scale": "4"}, "scale = '4': expected a whole number"),
        ({"library": "another"}, "library = 'another': expected 'tensorrt' or 'tensorrt-rtx'"),
        ({"targets": [89]}, r"targets\[0\] = 89: expected a text"),
        ({"gpu": {"name": "RTX"}}, "gpu lacks compute_capability"),
        ({"profile": {}}, "profile lacks min_hw"),
        ({"colour": "red"}, "colour = 'red' is no key here"),
        ({"scale": 0}, "got scale 0, expected 1 to 16"),
        ({"scale": 10**9}, "got scale 1000000000, expected 1 to 16"),
        ({"multiple_of": 0}, "got multiple_of 0, expected 1 to 64"),
        ({"radius_px": -1}, "got radius_px -1"),
        ({"profile": LARGE}, "got inputs of"),
    ],
)
def test_a_sidecar_names_what_is_wrong_in_it(machine: Machine, changes: dict[str, Any], words: str) -> None:
    path = machine.engine()
    record = json.loads(sidecar_path(path).read_text())
    sidecar_path(path).write_text(json.dumps(record | changes))
    with pytest.raises(ModelError, match=rf"is no description of an engine .*{words}"):
        open_tensorrt(path)


@pytest.mark.parametrize(
    ("words", "kind", "message"),
    [
        ("Serialization assertion failed.", EngineError, "was not loaded by tensorrt-rtx .*assertion failed"),
        ("cudaError 35: CUDA driver version is insufficient for CUDA runtime version", EngineError, "too old for it"),
        ("Requested amount of GPU memory: OutOfMemory", OutOfMemory, "expected a smaller tile"),
    ],
)
def test_what_tensorrt_says_while_loading_becomes_one_line(
    machine: Machine, words: str, kind: type[Exception], message: str
) -> None:
    machine.trt.refuses = words
    with pytest.raises(EngineError, match=message) as caught:
        open_tensorrt(machine.engine())
    assert type(caught.value) is kind
    assert machine.memory.is_closed


def test_running_out_of_memory_leaves_the_engine_usable_for_a_smaller_tile(machine: Machine) -> None:
    with open_tensorrt(machine.engine()) as engine:
        machine.memory.total_bytes = 50_000
        with pytest.raises(OutOfMemory):
            engine.run(picture(1, 32, 32))
        assert machine.memory.buffers == {}
        engine.run(picture(1, 8, 8))


@pytest.mark.parametrize("words", ["Error Code 2: OutOfMemory (Requested 12345 bytes)", "cudaError 2) out of memory"])
def test_tensorrts_own_lack_of_memory_is_told_by_its_words(machine: Machine, words: str) -> None:
    with open_tensorrt(machine.engine()) as engine:
        machine.trt.contexts[0].error = words
        with pytest.raises(OutOfMemory):
            engine.run(picture())
        machine.trt.contexts[0].error = "Error Code 1: Cuda Runtime (an illegal memory access)"
        with pytest.raises(EngineError, match=r"on cuda:0 did not run: .*illegal memory access") as caught:
            engine.run(picture())
        assert not isinstance(caught.value, OutOfMemory)


def test_a_closed_engine_says_so_and_closing_twice_is_allowed(machine: Machine) -> None:
    engine = open_tensorrt(machine.engine())
    engine.run(picture())
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.run(picture())


def test_closing_frees_tensorrts_context_while_the_gpus_is_current(machine: Machine) -> None:
    engine = open_tensorrt(machine.engine())
    engine.run(picture())
    freed: list[int] = []
    weakref.finalize(machine.trt.contexts.pop(), lambda: freed.append(machine.memory.depth))
    engine.close()
    assert freed == [1]


def test_a_precision_that_the_engine_does_not_have_is_refused(machine: Machine) -> None:
    for precision in ("auto", "fp32", "fp16"):
        open_tensorrt(machine.engine(), precision=precision).close()
        machine.memory.is_closed = False
    with pytest.raises(UsageError, match=r"got precision bf16 for small\.engine, which is fp16"):
        open_tensorrt(machine.engine(), precision="bf16")


def test_other_engines_do_not_take_engine_files(machine: Machine) -> None:
    with pytest.raises(UsageError, match=r"engine onnxruntime got small\.engine, which only engine tensorrt runs"):
        open_engine(machine.engine(), engine="onnxruntime")


def test_a_network_is_run_from_the_file_that_is_built_for_it(machine: Machine) -> None:
    asked: list[Any] = []

    def engine_file(device: str, precision: str, may_build: bool) -> Path:
        asked.append((device, precision, may_build))
        return machine.engine()

    weights = small_model(COMPACT)
    with open_engine(weights, engine="tensorrt", device="cuda:0", precision="fp16", engine_file=engine_file) as engine:
        assert isinstance(engine, TensorrtEngine)
        batch = picture()
        np.testing.assert_array_equal(engine.run(batch), batch.repeat(SCALE, 2).repeat(SCALE, 3))
    assert asked == [("cuda:0", "fp16", True)]
    with pytest.raises(EngineError, match=r"expected an .engine file: export it to TensorRT first"):
        open_engine(weights, engine="tensorrt", device="cuda:0")


@pytest.mark.parametrize(("other", "may_build"), [("cuda", False), ("cpu", True)])
def test_the_automatic_choice_builds_no_engine_while_another_engine_has_a_gpu(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, other: str, may_build: bool
) -> None:
    tensorrt, torch, onnxruntime = (
        Choice(engine=name, device=device, reason=f"because of {name}")
        for name, device in (("tensorrt", "cuda"), ("torch", other), ("onnxruntime", "cpu"))
    )
    asked: list[bool] = []

    def engine_file(device: str, precision: str, may_build: bool) -> Path:
        asked.append(may_build)
        raise EngineError("no engine has been built yet")

    monkeypatch.setattr("realesr.engines.choose", lambda **_: (tensorrt, onnxruntime, torch))
    chosen = open_chosen_engine(small_model(COMPACT), engine_file=engine_file)
    with chosen.engine as engine:
        assert engine.spec.name in ("torch", "onnxruntime")
        assert "tensorrt on cuda did not start (no engine has been built yet)" in chosen.chosen_because
    assert asked == [may_build]


def test_every_name_of_tensorrt_that_the_engine_uses_exists() -> None:
    """The fake has what the engine asks for; the real library must have it too."""
    trt = pytest.importorskip("tensorrt_rtx")
    names = {
        trt.Runtime: ["deserialize_cuda_engine"],
        trt.ICudaEngine: ["num_io_tensors", "get_tensor_name", "get_tensor_mode", "create_execution_context"],
        trt.IRuntimeConfig: [
            "create_runtime_cache",
            "cuda_graph_strategy",
            "set_execution_context_allocation_strategy",
            "set_runtime_cache",
        ],
        trt.IRuntimeCache: ["deserialize", "serialize"],
        trt.IExecutionContext: [
            "execute_async_v3",
            "set_device_memory",
            "set_input_shape",
            "set_tensor_address",
            "update_device_memory_size_for_shapes",
        ],
        trt.ExecutionContextAllocationStrategy: ["USER_MANAGED"],
        trt.CudaGraphStrategy: ["WHOLE_GRAPH_CAPTURE"],
        trt.TensorIOMode: ["INPUT", "OUTPUT"],
    }
    assert [(kind, name) for kind, used in names.items() for name in used if not hasattr(kind, name)] == []
    assert hasattr(trt.ICudaEngine, "create_runtime_config")
    assert trt.TensorIOMode.INPUT.name == "INPUT"


def test_without_a_gpu_there_is_one_line() -> None:
    try:
        gpu_facts(0)
    except RealesrError:
        pass
    else:
        pytest.skip("there is a GPU")
    with pytest.raises((EngineError, MissingDependency)) as caught:
        tensorrt_engine.devices()
    assert "\n" not in str(caught.value)


def built_for_real_gpu(weights: Weights, precision: str = "fp16") -> Path:
    """An engine for the GPU of this machine, built and proven; or a skipped test with the reason."""
    from realesr.export.engine_cache import cached_engine

    if not any(importlib.util.find_spec(name) for name in ("tensorrt", "tensorrt_rtx")):
        pytest.skip("no TensorRT is installed")
    try:
        gpu_facts(0)
    except RealesrError as error:
        pytest.skip(str(error))
    try:
        return cached_engine(weights, precision=precision)
    except EngineError as error:
        if "is not for" in str(error):
            pytest.skip(str(error))
        raise


@pytest.mark.cuda
@pytest.mark.tensorrt
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
@pytest.mark.parametrize("architecture", [COMPACT, RRDB(scale=4, features=16, blocks=2, growth=8)])
def test_a_real_gpu_computes_what_onnxruntime_does(architecture: Any, precision: str) -> None:
    weights = small_model(architecture)
    path = built_for_real_gpu(weights, precision)
    assert isinstance(read_sidecar(path).proof, dict)
    with open_tensorrt(path) as engine, open_engine(weights, engine="onnxruntime", device="cpu") as exact:
        assert engine.spec.precision == precision
        for shape in ((1, 64, 64), (4, 64, 64), (4, 64, 64), (8, 33, 17), (1, 1, 1), (4, 64, 64)):
            batch = picture(*shape)
            difference = engine.run(batch) - exact.run(batch)
            assert -10 * np.log10(np.mean(difference**2)) > 45
        with pytest.raises(BadShape):
            engine.run(picture(1, 2000, 2000))


@pytest.mark.cuda
@pytest.mark.tensorrt
def test_two_engines_on_a_real_gpu_do_not_disturb_each_other() -> None:
    path = built_for_real_gpu(small_model(COMPACT))
    with open_tensorrt(path) as first, open_tensorrt(path) as second:
        expected = first.run(picture(3))
        np.testing.assert_array_equal(second.run(picture(3)), expected)
        second.close()
        np.testing.assert_array_equal(first.run(picture(3)), expected)

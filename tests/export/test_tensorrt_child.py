"""What the builder's process asks of `tensorrt` itself, which cannot be installed everywhere: a fake takes it down."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from realesr.errors import EngineError
from realesr.export import tensorrt_child
from realesr.export.tensorrt_child import BuildTask, build


class FakeBuilderTrt:
    """`tensorrt` 10, with its flag for strongly typed networks and its timing cache."""

    __version__ = "10.15.1"
    ILogger = type("ILogger", (), {})
    IProgressMonitor = type("IProgressMonitor", (), {})
    NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
    MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
    ProfilingVerbosity = SimpleNamespace(DETAILED="detailed")
    LayerInformationFormat = SimpleNamespace(JSON="json")
    DataType = SimpleNamespace(FLOAT=SimpleNamespace(name="FLOAT"), UINT8=SimpleNamespace(name="UINT8"))

    def __init__(self, plan: bytes | None = b"plan") -> None:
        self.plan = plan
        self.done: list[Any] = []
        self.timing = b"measured before"
        self.engine: Any = SimpleNamespace(
            create_engine_inspector=lambda: SimpleNamespace(
                get_engine_information=lambda form: json.dumps({"Layers": ["a", "b", "c"]})
            )
        )

    def Builder(self, log: Any) -> Any:  # noqa: N802 - TensorRT's names, here and below
        self.log = log
        return SimpleNamespace(
            create_network=self._network,
            create_builder_config=self._config,
            create_optimization_profile=lambda: SimpleNamespace(
                set_shape=lambda *shape: self.done.append(("shape", *shape))
            ),
            build_serialized_network=self._build,
        )

    def OnnxParser(self, network: Any, log: Any) -> Any:  # noqa: N802
        return SimpleNamespace(parse_from_file=lambda path: True, num_errors=0)

    def Runtime(self, log: Any) -> Any:  # noqa: N802
        return SimpleNamespace(deserialize_cuda_engine=lambda content: self.engine)

    def _network(self, flags: int) -> Any:
        self.done.append(("flags", flags))
        tensor = SimpleNamespace(name="input", shape=(-1, 3, -1, -1), dtype=self.DataType.FLOAT)
        return SimpleNamespace(
            num_inputs=1, num_outputs=1, num_layers=9, get_input=lambda _: tensor, get_output=lambda _: tensor
        )

    def _config(self) -> Any:
        return SimpleNamespace(
            set_memory_pool_limit=lambda *limit: self.done.append(("limit", *limit)),
            add_optimization_profile=lambda profile: 0,
            create_timing_cache=self._timing_cache,
            set_timing_cache=lambda cache, mismatch: self.done.append(("use", cache, mismatch)),
            get_timing_cache=lambda: SimpleNamespace(serialize=lambda: self.timing),
        )

    def _timing_cache(self, content: bytes) -> str:
        self.done.append(("timing", content))
        return "cache"

    def _build(self, network: Any, config: Any) -> bytes | None:
        for name, parent, steps in (("all", None, 2), ("part", "all", 4)):
            config.progress_monitor.phase_start(name, parent, steps)
        for step in range(4):
            assert config.progress_monitor.step_complete("part", step)
        config.progress_monitor.phase_finish("part")
        for step in range(2):
            config.progress_monitor.step_complete("all", step)
        if self.plan is None:
            self.log.log(SimpleNamespace(value=1), "Error Code 10: Could not find any implementation for node conv")
        return self.plan


def task(folder: Path, **changes: Any) -> BuildTask:
    fields: dict[str, Any] = {
        "onnx_path": "a.onnx",
        "output_path": str(folder / "a.engine"),
        "library": "tensorrt",
        "compute_capabilities": (),
        "shapes": ((1, 3, 4, 4), (1, 3, 8, 8), (1, 3, 8, 8)),
        "workspace_bytes": 1 << 20,
        "timing_cache": "",
        "device": 1,
    }
    return BuildTask(**{**fields, **changes})


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch) -> FakeBuilderTrt:
    fake = FakeBuilderTrt()
    monkeypatch.setattr(tensorrt_child, "load", lambda library: fake)

    def open_cuda(number: int) -> Any:
        @contextlib.contextmanager
        def active() -> Any:
            fake.done.append(("context of", number))
            yield
            fake.done.append("context left")

        return SimpleNamespace(active=active)

    monkeypatch.setattr("realesr.engines.nvidia.cuda_memory.open_cuda", open_cuda)
    return fake


def test_tensorrt_10_is_asked_for_a_strongly_typed_network_on_the_chosen_gpu(
    trt: FakeBuilderTrt, tmp_path: Path
) -> None:
    told: list[Any] = []
    result = build(task(tmp_path), told.append)
    assert trt.done[0] == ("context of", 1)
    assert trt.done[-1] == "context left"
    assert ("flags", 1 << 1) in trt.done
    assert ("limit", "workspace", 1 << 20) in trt.done
    assert ("shape", "input", *task(tmp_path).shapes) in trt.done
    assert (result.layers, result.layers_of, result.library_version) == (3, "engine", "10.15.1")
    assert (tmp_path / "a.engine").read_bytes() == b"plan"
    assert [step["progress"] for step in told] == [0.125, 0.25, 0.375, 0.5, 1.0]


def test_networks_are_strongly_typed_anyway_where_there_is_no_flag_for_it(
    trt: FakeBuilderTrt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeBuilderTrt, "NetworkDefinitionCreationFlag", SimpleNamespace())
    build(task(tmp_path), lambda message: None)
    assert ("flags", 0) in trt.done


def test_layers_are_the_networks_where_the_engine_cannot_be_opened(trt: FakeBuilderTrt, tmp_path: Path) -> None:
    trt.engine = None
    result = build(task(tmp_path), lambda message: None)
    assert (result.layers, result.layers_of) == (9, "network")


def test_the_timing_cache_is_read_if_it_is_there_and_written_again(trt: FakeBuilderTrt, tmp_path: Path) -> None:
    path = tmp_path / "timing.bin"
    for before, after in ((b"", b"first"), (b"first", b"second")):
        trt.done.clear()
        trt.timing = after
        build(task(tmp_path, timing_cache=str(path)), lambda message: None)
        assert ("timing", before) in trt.done
        assert ("use", "cache", False) in trt.done
        assert path.read_bytes() == after
    build(task(tmp_path, timing_cache=str(tmp_path / "no folder" / "x")), lambda message: None)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.engine", "timing.bin"]


def test_no_engine_is_an_error_with_the_builders_words(trt: FakeBuilderTrt, tmp_path: Path) -> None:
    trt.plan = None
    with pytest.raises(EngineError, match=r"tensorrt 10\.15\.1 built no engine from a\.onnx: .*any implementation"):
        build(task(tmp_path), lambda message: None)


def run_child(text: str) -> tuple[int, list[dict[str, Any]]]:
    command = [sys.executable, "-m", "realesr.export.tensorrt_child"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=120, env=dict(os.environ))
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def test_the_process_tells_errors_as_json(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    (tmp_path / "a.onnx").write_bytes(b"no network")
    code, told = run_child(task(tmp_path, library="tensorrt-rtx", onnx_path=str(tmp_path / "a.onnx")).to_json())
    assert code == 1
    assert told[-1]["error"] == "ModelError"
    assert "a.onnx is no ONNX network that tensorrt-rtx" in told[-1]["message"]


def test_a_place_that_cannot_be_written_is_told_as_such(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    from tests.engines.small_models import write_nearest

    source = write_nearest(tmp_path / "a.onnx")
    text = task(
        tmp_path, library="tensorrt-rtx", onnx_path=str(source), output_path=str(tmp_path / "no" / "x")
    ).to_json()
    code, told = run_child(text)
    assert code == 1
    assert told[-1]["message"].startswith("the engine cannot be written: No such file")

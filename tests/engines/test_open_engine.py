"""Choosing an engine by name, and what is said where one cannot be had."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from realesr.engine import NearestEngine
from realesr.engines import ENGINE_NAMES, available_engines, model_facts, open_engine
from realesr.engines.choice import Machine
from realesr.errors import EngineError, MissingDependency, UsageError
from realesr.models.compact import Compact
from tests.engines.small_models import small_model, write_nearest

COMPACT = small_model(Compact(scale=3, features=8, convs=1))

ROOMS = {"torch": "pytorch", "onnxruntime": "onnx_runtime"}
"""Engine -> the folder of `engines/` that it has to itself."""


def test_auto_is_onnxruntime_on_the_cpu_in_fp32_where_nothing_else_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    light = Machine(nvidia_gpus=0, offered=frozenset({("onnxruntime", "cpu")}))
    monkeypatch.setattr("realesr.engines.machine_here", lambda: light)
    with open_engine(COMPACT) as engine:
        spec = engine.spec
    assert (spec.name, spec.device, spec.precision, spec.scale) == ("onnxruntime", "cpu", "fp32", 3)


def test_nearest_takes_the_scale_of_the_model(tmp_path: Path) -> None:
    for model, scale in ((COMPACT, 3), (write_nearest(tmp_path / "x.onnx", scale=2), 2)):
        engine = open_engine(model, engine="nearest")
        assert isinstance(engine, NearestEngine)
        assert engine.spec.scale == scale


def test_nearest_has_one_device_and_one_precision() -> None:
    with pytest.raises(EngineError, match="cuda, expected one that it has here: cpu"):
        open_engine(COMPACT, engine="nearest", device="cuda")
    with pytest.raises(UsageError, match="fp16, expected fp32"):
        open_engine(COMPACT, engine="nearest", precision="fp16")


def test_an_unknown_engine_is_told_which_there_are() -> None:
    with pytest.raises(UsageError, match=f"got the engine tensorflow, expected auto, {', '.join(ENGINE_NAMES)}"):
        open_engine(COMPACT, engine="tensorflow")


def test_fewer_than_one_thread_is_refused() -> None:
    with pytest.raises(UsageError, match="got 0 threads, expected 1 or more"):
        open_engine(COMPACT, threads=0)


@pytest.mark.parametrize(
    ("engine", "options"), [("torch", {"mode": "compile", "join": "device"}), ("onnxruntime", {"prefer_nhwc": "0"})]
)
def test_options_go_to_the_engine_that_has_them(
    monkeypatch: pytest.MonkeyPatch, engine: str, options: dict[str, str]
) -> None:
    given: list[Any] = []

    def opened(_: Any, **asked: Any) -> NearestEngine:
        given.append(asked["options"])
        return NearestEngine(3)

    monkeypatch.setattr(f"realesr.engines.{ROOMS[engine]}.engine.open_{engine}", opened)
    for asked in (options, None):
        open_engine(COMPACT, engine=engine, device="cpu", options=asked)
    assert given == [options, {}]


def test_options_go_to_tensorrt_for_files_and_for_engines_that_it_builds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given: list[Any] = []

    def opened(path: Path, **asked: Any) -> NearestEngine:
        given.append((path.name, asked["options"]))
        return NearestEngine(3)

    def built(device: str, precision: str, may_build: bool) -> Path:
        return tmp_path / "built.engine"

    monkeypatch.setattr("realesr.engines.nvidia.tensorrt_engine.open_tensorrt", opened)
    options = {"memory": "auto"}
    open_engine(tmp_path / "x.engine", options=options)
    open_engine(COMPACT, engine="tensorrt", device="cuda", options=options, engine_file=built)
    assert given == [("x.engine", options), ("built.engine", options)]


def test_tensorrt_builds_nothing_for_options_that_it_does_not_have() -> None:
    def built(*_: Any) -> Path:
        raise AssertionError("minutes of building")

    with pytest.raises(UsageError, match="engine tensorrt got the option mode"):
        open_engine(COMPACT, engine="tensorrt", device="cuda", options={"mode": "graphs"}, engine_file=built)


@pytest.mark.parametrize("engine", ["winograd", "openvino", "ncnn", "nearest"])
def test_an_engine_without_options_refuses_them(engine: str) -> None:
    with pytest.raises(UsageError, match=f"engine {engine} got the option mode, but it has no options"):
        open_engine(COMPACT, engine=engine, options={"mode": "graphs"})


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
def test_an_option_that_the_engine_does_not_have_is_refused(engine: str) -> None:
    with pytest.raises(UsageError, match=f"engine {engine} got the option colour, expected "):
        open_engine(COMPACT, engine=engine, device="cpu", options={"colour": "blue"})


def test_the_automatic_choice_is_not_led_by_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """It neither leaves them out nor goes on to an engine that has them: it names the one that it chose."""
    offered = frozenset({("onnxruntime", "cpu"), ("torch", "cpu")})
    monkeypatch.setattr("realesr.engines.machine_here", lambda: Machine(nvidia_gpus=0, offered=offered))
    with pytest.raises(UsageError, match="engine onnxruntime got the option mode, expected prefer_nhwc"):
        open_engine(COMPACT, options={"mode": "eager"})


@pytest.mark.parametrize(("name", "line"), [("torch", "pip install torch"), ("onnxruntime", "pip install onnxruntime")])
def test_a_missing_package_is_named_with_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, name: str, line: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)  # `import` then fails as if it were not installed
    room = f"realesr.engines.{ROOMS[name]}"
    for module in [module for module in sys.modules if module.startswith((f"{room}.", "realesr.networks"))]:
        monkeypatch.delitem(sys.modules, module)
    if room in sys.modules:
        monkeypatch.delattr(sys.modules[room], "engine", raising=False)
    with pytest.raises(MissingDependency) as caught:
        open_engine(COMPACT, engine=name)
    assert line in str(caught.value)
    (facts,) = (facts for facts in available_engines() if facts.name == name)
    assert not facts.works
    assert facts.devices == ()
    assert line in facts.problem


def test_facts_of_the_engines_here() -> None:
    facts = {facts.name: facts for facts in available_engines()}
    assert tuple(facts) == ENGINE_NAMES
    for found in facts.values():
        if found.name == "tensorrt" and not found.works:
            assert "NVIDIA GPU" in found.problem or found.install in found.problem
            continue
        assert found.works
        assert found.devices[0] == ("cuda:0" if found.name == "tensorrt" else "cpu")
        assert "fp32" in found.precisions
    assert facts["torch"].options["mode"] == ("eager", "compile", "graphs")
    assert facts["onnxruntime"].options == {"prefer_nhwc": ("0", "1")}
    assert not any(facts[name].options for name in ("winograd", "openvino", "ncnn", "nearest"))
    assert facts["torch"].version is not None
    assert facts["nearest"].version is None


def test_facts_of_weights_are_those_of_their_architecture() -> None:
    facts = model_facts(COMPACT)
    assert (facts.name, facts.scale, facts.radius_px, facts.multiple_of) == (COMPACT.name, 3, 3, 1)
    assert facts.architecture is COMPACT.architecture


def test_importing_the_engines_imports_nothing_heavy() -> None:
    script = "import sys, realesr.engines; print([m for m in ('torch', 'onnxruntime', 'onnx') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout == "[]\n"

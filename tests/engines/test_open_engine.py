"""Choosing an engine by name, and what is said where one cannot be had."""

import subprocess
import sys
from pathlib import Path

import pytest

from realesr.architectures import Compact
from realesr.engine import NearestEngine
from realesr.engines import ENGINE_NAMES, available_engines, model_facts, open_engine
from realesr.engines.choice import Machine
from realesr.errors import EngineError, MissingDependency, UsageError
from tests.engines.small_models import small_model, write_nearest

COMPACT = small_model(Compact(scale=3, features=8, convs=1))


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


@pytest.mark.parametrize(("name", "line"), [("torch", "pip install torch"), ("onnxruntime", "pip install onnxruntime")])
def test_a_missing_package_is_named_with_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, name: str, line: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)  # `import` then fails as if it were not installed
    for module in (f"realesr.engines.{name}_engine", "realesr.networks", "realesr.networks.rrdb"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    package = sys.modules["realesr.engines"]
    if hasattr(package, f"{name}_engine"):
        monkeypatch.delattr(package, f"{name}_engine")
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

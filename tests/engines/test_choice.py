"""The automatic choice: which engine on which device, why, and what happens where it cannot start."""

import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from realesr import engines
from realesr.engine import NearestEngine
from realesr.engines import choice, open_chosen_engine, open_engine
from realesr.engines.choice import ROWS, Machine, choose
from realesr.engines.tuning import Setting
from realesr.errors import EngineError, MissingDependency, UsageError
from realesr.models.compact import Compact
from tests.engines.small_models import small_model

COMPACT = small_model(Compact(scale=3, features=8, convs=1))
EVERYTHING = frozenset((row.engine, row.device) for row in ROWS)
CPU_ONLY = Machine(nvidia_gpus=0, offered=frozenset({("onnxruntime", "cpu"), ("torch", "cpu")}))


def machine(*offered: tuple[str, str], gpus: int = 1) -> Machine:
    return Machine(nvidia_gpus=gpus, offered=frozenset({("onnxruntime", "cpu"), *offered}))


def taken(**asked: Any) -> tuple[str, str]:
    first = choose(**asked)[0]
    return first.engine, first.device


@pytest.mark.parametrize(
    ("offered", "expected"),
    [
        ([("tensorrt", "cuda"), ("onnxruntime", "cuda"), ("torch", "cuda")], ("tensorrt", "cuda")),
        ([("onnxruntime", "cuda"), ("torch", "cuda")], ("onnxruntime", "cuda")),
        ([("torch", "cuda"), ("onnxruntime", "webgpu")], ("torch", "cuda")),
        ([("torch", "mps"), ("onnxruntime", "webgpu"), ("torch", "cpu")], ("torch", "mps")),
        ([("onnxruntime", "webgpu"), ("torch", "cpu")], ("onnxruntime", "webgpu")),
        ([("torch", "cpu")], ("onnxruntime", "cpu")),
    ],
)
def test_the_fastest_that_is_offered_is_taken(offered: list[tuple[str, str]], expected: tuple[str, str]) -> None:
    found = choose(machine=machine(*offered))
    assert (found[0].engine, found[0].device) == expected
    assert found[0].reason
    assert ("onnxruntime", "cpu") in [(one.engine, one.device) for one in found], "nothing is left to fall back on"


def test_the_cpu_is_kept_to_where_it_was_asked_for() -> None:
    everything = Machine(nvidia_gpus=2, offered=EVERYTHING)
    found = choose(device="cpu", machine=everything)
    assert {one.device for one in found} == {"cpu"}
    assert found[0].reason == "the CPU was asked for"


def test_an_engine_is_kept_to_and_gets_the_best_device() -> None:
    everything = Machine(nvidia_gpus=1, offered=EVERYTHING)
    assert taken(engine="torch", machine=everything) == ("torch", "cuda")
    assert {one.engine for one in choose(engine="torch", machine=everything)} == {"torch"}
    assert taken(engine="torch", machine=CPU_ONLY) == ("torch", "cpu")


def test_a_device_keeps_its_number() -> None:
    assert taken(device="cuda:1", machine=Machine(nvidia_gpus=2, offered=EVERYTHING)) == ("tensorrt", "cuda:1")


def test_what_was_asked_for_in_full_is_not_judged() -> None:
    (only,) = choose(engine="torch", device="cuda:7", machine=CPU_ONLY)
    assert (only.engine, only.device, only.reason) == ("torch", "cuda:7", "")


def test_files_and_precisions_leave_out_what_cannot_run_them() -> None:
    everything = Machine(nvidia_gpus=1, offered=EVERYTHING)
    assert taken(is_file=True, machine=everything) == ("onnxruntime", "cuda")
    assert taken(precision="bf16", machine=everything) == ("torch", "cuda")
    assert taken(precision="bf16", machine=CPU_ONLY) == ("torch", "cpu")


def test_where_nothing_fits_the_engine_says_what_is_wrong() -> None:
    (only,) = choose(device="npu", machine=CPU_ONLY)
    assert (only.engine, only.device) == ("onnxruntime", "npu")
    (only,) = choose(engine="tensorrt", machine=CPU_ONLY)
    assert (only.engine, only.device) == ("tensorrt", "auto")


def test_further_gpus_are_named_with_what_uses_them() -> None:
    reason = choose(machine=Machine(nvidia_gpus=3, offered=EVERYTHING))[0].reason
    assert reason == "an NVIDIA GPU with TensorRT; device cuda:0,1,2 uses all 3"


def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "machine_here", lambda: machine(("tensorrt", "cuda"), ("torch", "cuda")))


def test_the_engine_says_why_it_was_chosen() -> None:
    chosen = open_chosen_engine(COMPACT, device="cpu")
    with chosen.engine:
        assert chosen.chosen_because == "the CPU was asked for"
    chosen = open_chosen_engine(COMPACT, engine="onnxruntime", device="cpu")
    with chosen.engine:
        assert chosen.chosen_because == ""


def test_one_that_cannot_start_is_told_and_the_next_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def built(*_: Any) -> NearestEngine:
        raise EngineError("the driver is too old")

    def opened(chosen: choice.Choice, *_: Any) -> NearestEngine:
        if chosen.device == "cuda":
            raise MissingDependency("engine torch needs the package torch")
        return NearestEngine(3)

    on_a_gpu(monkeypatch)
    monkeypatch.setattr(engines, "_open_built", built)
    monkeypatch.setattr(engines, "_open_chosen", opened)
    reason = open_chosen_engine(COMPACT).chosen_because
    assert "tensorrt on cuda did not start (the driver is too old)" in reason
    assert "torch on cuda did not start (engine torch needs the package torch)" in reason
    assert reason.startswith("no GPU that an installed engine can use; ")


def test_where_none_starts_each_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> NearestEngine:
        raise EngineError("not today")

    on_a_gpu(monkeypatch)
    monkeypatch.setattr(engines, "_open_built", fail)
    monkeypatch.setattr(engines, "_open_chosen", fail)
    with pytest.raises(EngineError) as caught:
        open_engine(COMPACT, device="cuda")
    assert str(caught.value) == (
        "no engine works on the device cuda: tensorrt on cuda did not start (not today); "
        "torch on cuda did not start (not today)"
    )


def test_a_mistake_of_the_user_is_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> NearestEngine:
        raise UsageError("precision int3")

    on_a_gpu(monkeypatch)
    monkeypatch.setattr(engines, "_open_built", fail)
    with pytest.raises(UsageError, match="int3"):
        open_engine(COMPACT)


def test_looking_at_the_machine_imports_no_engine() -> None:
    script = (
        "import sys; from realesr.engines.choice import machine_here; print(machine_here().nvidia_gpus >= 0, "
        "[m for m in ('torch', 'onnxruntime', 'openvino', 'ncnn', 'tensorrt', 'tensorrt_rtx') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout == "True []\n"


def test_what_is_installed_with_a_gpu_is_offered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(choice, "nvidia_gpus", lambda: 1)
    monkeypatch.setattr(choice, "is_installed", lambda module: True)
    monkeypatch.setattr(choice, "_has_package", lambda name: True)
    monkeypatch.setattr(choice, "_torch_has_cuda", lambda: False)
    offered = choice.machine_here().offered
    assert {("tensorrt", "cuda"), ("onnxruntime", "cuda"), ("onnxruntime", "webgpu")} < offered
    assert ("torch", "cuda") not in offered, "this build of torch is for the CPU"
    monkeypatch.setattr(choice, "nvidia_gpus", lambda: 0)
    assert not {device for _, device in choice.machine_here().offered} & {"cuda", "tensorrt_rtx"}


def test_on_a_processor_that_was_not_measured_only_tune_takes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    monkeypatch.setattr(choice, "is_installed", lambda module: True)
    monkeypatch.setattr(choice, "is_usable", lambda: True)
    untried = {("winograd", "cpu"), ("openvino", "cpu"), ("ncnn", "cpu")}
    assert not untried & choice.machine_here().offered
    assert untried < choice.machine_here(with_unmeasured=True).offered


def test_gpus_are_those_that_the_driver_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "gpu_names", lambda: ("NVIDIA L4", "NVIDIA L4"))
    assert choice.nvidia_gpus() == 2


def test_what_tune_has_kept_is_told_with_its_options() -> None:
    plain = Setting(engine="torch", device="cuda", precision="fp16")
    assert choice.kept_choice(plain).reason == "the fastest that was measured here"
    graphs = replace(plain, options={"mode": "graphs", "join": "device"})
    assert choice.kept_choice(graphs).reason.endswith("measured here, with mode=graphs, join=device")


ON_CPUS = [("openvino", "cpu"), ("ncnn", "cpu"), ("torch", "cpu")]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"has_enlarged_convolutions": False}, "ncnn"),
        ({"has_enlarged_convolutions": False, "precision": "fp32"}, "ncnn"),
        ({}, "openvino"),
        ({"precision": "fp16"}, "onnxruntime"),
        ({"precision": "bf16"}, "torch"),
        ({"is_file": True}, "onnxruntime"),
        ({"engine": "ncnn"}, "ncnn"),
    ],
)
def test_cpus_without_bf16_take_what_was_measured(asked: dict[str, Any], expected: str) -> None:
    assert taken(machine=machine(*ON_CPUS, gpus=0), **asked) == (expected, "cpu")


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"is_faithful_in_bf16": True}, "openvino"),
        ({"is_faithful_in_bf16": True, "has_enlarged_convolutions": False}, "openvino"),
        ({"has_enlarged_convolutions": False}, "ncnn"),
        ({"has_enlarged_convolutions": False, "precision": "bf16"}, "openvino"),
        ({"has_enlarged_convolutions": False, "is_faithful_in_bf16": True, "precision": "fp32"}, "ncnn"),
    ],
)
def test_bf16_is_taken_only_for_networks_that_bear_it_or_where_it_is_asked_for(
    asked: dict[str, Any], expected: str
) -> None:
    xeon = replace(machine(*ON_CPUS, gpus=0), has_fast_bf16=True)
    assert taken(machine=xeon, **asked) == (expected, "cpu")


@pytest.mark.parametrize("has_fast_bf16", [False, True])
@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"has_enlarged_convolutions": False}, "winograd"),
        ({"is_faithful_in_bf16": True}, "winograd"),
        ({"precision": "fp32"}, "winograd"),
        ({"precision": "fp16"}, "onnxruntime"),
        ({"is_file": True}, "onnxruntime"),
    ],
)
def test_winograd_is_taken_wherever_it_can_run(asked: dict[str, Any], expected: str, has_fast_bf16: bool) -> None:
    here = replace(machine(("winograd", "cpu"), *ON_CPUS, gpus=0), has_fast_bf16=has_fast_bf16)
    assert taken(machine=here, **asked) == (expected, "cpu")


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"is_faithful_in_bf16": True}, "openvino"),
        ({"precision": "bf16"}, "openvino"),
        ({}, "winograd"),
        ({"is_faithful_in_bf16": True, "precision": "fp32"}, "winograd"),
        ({"is_faithful_in_bf16": True, "is_file": True}, "onnxruntime"),
    ],
)
def test_with_amx_bf16_comes_first_for_networks_that_bear_it(asked: dict[str, Any], expected: str) -> None:
    here = replace(machine(("winograd", "cpu"), *ON_CPUS, gpus=0), has_fast_bf16=True, has_amx=True)
    assert taken(machine=here, **asked) == (expected, "cpu")


def test_with_amx_the_reason_says_that_it_was_not_measured() -> None:
    here = replace(machine(("winograd", "cpu"), *ON_CPUS, gpus=0), has_fast_bf16=True, has_amx=True)
    assert "AMX" in choose(machine=here, is_faithful_in_bf16=True)[0].reason
    assert "not measured" in choose(machine=here, is_faithful_in_bf16=True)[0].reason


def test_vulkan_has_to_be_asked_for() -> None:
    everything = Machine(nvidia_gpus=0, offered=EVERYTHING)
    assert "vulkan" not in {one.device for one in choose(machine=everything)}
    assert taken(device="vulkan:1", machine=everything) == ("ncnn", "vulkan:1")

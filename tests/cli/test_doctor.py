"""`realesr doctor`: it finds what works by trying it, and says what to do where something does not."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from realesr.cli import doctor, selftest
from realesr.engine import NearestEngine
from realesr.engines import EngineFacts
from realesr.errors import EngineError

from .conftest import Command

GOOD_ENGINES = [{"name": "onnxruntime", "devices": {"cpu": "works"}}]
GOOD_FORMATS = {name: {"read": "works", "write": "works"} for name in ("png", "jpeg")}
ONE_ONNXRUNTIME = {"onnxruntime": "1.30", "onnxruntime-gpu": None}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REALESR_CACHE", str(tmp_path / "cache"))


def facts(name: str, problem: str = "") -> EngineFacts:
    devices = () if problem else ("cpu",)
    return EngineFacts(name=name, version="1", devices=devices, precisions=("fp32",), install="", problem=problem)


def test_the_report_as_json_and_as_text(realesr: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    engines = [facts("onnxruntime"), facts("torch", problem="engine torch needs the package torch")]
    monkeypatch.setattr(doctor, "engine_facts", lambda: engines)
    result = realesr("doctor", "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["machine"]["cores"] >= 1
    assert report["machine"]["free_bytes"] > 0
    assert report["engines"][0]["devices"] == {"cpu": "works"}
    assert report["engines"][1]["problem"] == "engine torch needs the package torch"
    (test,) = report["engines"][0]["self_tests"]
    assert (test["device"], test["precision"], test["state"]) == ("cpu", "fp32", "works")
    assert test["psnr_db"] > 100
    assert report["choice"]["reason"]
    assert {name for name, steps in report["formats"].items() if steps.get("write") == "works"} >= {
        "png",
        "jpeg",
        "tiff",
    }
    assert {name for name, steps in report["formats"].items() if steps["read"] == "works"} >= {
        "png",
        "gif",
        "bmp",
        "ppm",
    }
    assert report["problems"] == []

    text = realesr("doctor").stdout
    assert "  onnxruntime 1 on cpu, fp32: works, error " in text
    assert "  chosen by default: " in text
    assert "  torch 1: engine torch needs the package torch\n" in text
    assert text.endswith("No problem found.\n")


def opens(monkeypatch: pytest.MonkeyPatch, spoil: Callable[[np.ndarray], np.ndarray]) -> None:  # type: ignore[type-arg]
    """Let every engine give the right answer, spoiled."""

    class Answering(NearestEngine):
        def run(self, batch, on_progress=None):
            return spoil(TRIAL.answer.astype(np.float32))

    monkeypatch.setattr("realesr.engines.open_engine", lambda *_, **__: Answering(scale=4))


TRIAL = selftest.ReferenceRun()


def test_the_right_answer_is_that_of_another_implementation() -> None:
    import torch

    from realesr.networks import build

    module = build(TRIAL.weights.architecture)
    module.load_state_dict({key: torch.from_numpy(np.array(value)) for key, value in TRIAL.weights.state.items()})
    with torch.inference_mode():
        expected = module.double()(torch.from_numpy(TRIAL.batch).double()).numpy()
    np.testing.assert_allclose(TRIAL.answer, expected, atol=1e-9)
    added = TRIAL.answer - TRIAL.batch.repeat(4, 2).repeat(4, 3)
    assert 0.05 < added.std() < 0.2, "the network must add something, and not much"


def test_error_and_speed_of_an_engine_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    opens(monkeypatch, lambda answer: answer + np.float32(1e-5))
    found = TRIAL.checked(facts("onnxruntime"))
    assert found["devices"] == {"cpu": "works"}
    (test,) = found["self_tests"]
    assert test["max_error"] == pytest.approx(1e-5, rel=0.05)
    assert test["psnr_db"] == pytest.approx(100, abs=0.5)
    assert test["us_per_px"] > 0
    (line,) = doctor.engine_lines(found)
    assert line.startswith("  onnxruntime 1 on cpu, fp32: works, error 1.0e-05, 100 dB, ")
    assert line.endswith(" us/px")


@pytest.mark.parametrize(
    ("precision", "error", "works"),
    [
        ("fp32", 1e-5, True),
        ("fp32", 1e-3, False),
        ("fp16", 1e-3, True),
        ("fp16", 0.01, False),
        ("bf16", 0.01, True),
        ("bf16", 0.1, False),
        ("bf16", np.nan, False),
    ],
)
def test_an_engine_that_gives_wrong_values_does_not_work(
    monkeypatch: pytest.MonkeyPatch, precision: str, error: float, works: bool
) -> None:
    opens(monkeypatch, lambda answer: answer + np.float32(error))
    state = TRIAL.tested("onnxruntime", "cpu", precision).state
    assert (state == "works") == works
    assert works or state.startswith("runs, but its result is wrong by ")


def test_a_result_of_another_size_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    opens(monkeypatch, lambda answer: answer[:, :, 1:])
    assert "runs, but gives (1, 3, 127, 128)" in TRIAL.tested("onnxruntime", "cpu", "fp32").state


@pytest.mark.parametrize(
    ("error", "state"),
    [(EngineError("no driver"), "no driver"), (OSError("bad\nlibrary"), "OSError: bad library")],
)
def test_an_engine_that_fails_is_told_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, error: Exception, state: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("realesr.engines.open_engine", fail)
    found = TRIAL.checked(facts("onnxruntime"))
    assert found["devices"] == {"cpu": state}
    assert list(doctor.engine_lines(found)) == [f"  onnxruntime 1 on cpu, fp32: {state}"]


def test_the_engine_that_repeats_pixels_has_no_error() -> None:
    found = TRIAL.checked(facts("nearest"))
    assert (found["devices"], found["self_tests"][0]["max_error"]) == ({"cpu": "works"}, 0)
    assert "works, no error, " in next(doctor.engine_lines(found))


def test_the_options_of_an_engine_are_told() -> None:
    torch = replace(facts("torch"), options={"mode": ("eager", "graphs"), "join": ("host", "device")})
    found = TRIAL.checked(replace(torch, devices=()))
    assert found["options"] == {"mode": ("eager", "graphs"), "join": ("host", "device")}
    assert list(doctor.engine_lines(found)) == [
        "  torch 1: --option mode=eager|graphs, join=host|device (the first is the default)"
    ]


def test_what_is_needed_and_broken_ends_with_1(realesr: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "engine_facts", lambda: [facts("onnxruntime", problem="does not load")])
    monkeypatch.setattr(doctor, "checked_formats", lambda: GOOD_FORMATS)
    result = realesr("doctor")
    assert result.exit_code == 1
    assert "problem: no engine works here: pip install" in result.stdout


def test_both_onnxruntimes_are_a_conflict() -> None:
    both = {"onnxruntime": "1.30", "onnxruntime-gpu": "1.30"}
    (problem,) = doctor.problems(both, GOOD_ENGINES, GOOD_FORMATS)
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in problem
    assert doctor.problems(ONE_ONNXRUNTIME, GOOD_ENGINES, GOOD_FORMATS) == []


def test_formats_that_everybody_needs_are_a_problem_when_broken() -> None:
    formats = GOOD_FORMATS | {"jpeg": {"read": "works", "write": "no codec"}}
    (problem,) = doctor.problems(ONE_ONNXRUNTIME, GOOD_ENGINES, formats)
    assert problem.startswith("jpeg files do not work here")
    assert "  jpeg: write: no codec" in list(doctor.format_lines(formats))


def test_the_nearest_engine_alone_enlarges_nothing() -> None:
    engines = [{"name": "nearest", "devices": {"cpu": "works"}}]
    assert "no engine works here" in doctor.problems(ONE_ONNXRUNTIME, engines, GOOD_FORMATS)[0]


def test_the_cache_is_measured(tmp_path: Path) -> None:
    assert doctor.cache() == {"folder": str(tmp_path / "cache"), "bytes": 0}
    (tmp_path / "cache" / "onnx").mkdir(parents=True)
    (tmp_path / "cache" / "onnx" / "a.onnx").write_bytes(b"12345")
    assert doctor.cache()["bytes"] == 5

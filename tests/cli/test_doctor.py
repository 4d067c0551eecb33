"""`realesr doctor`: it finds what works by trying it, and says what to do where something does not."""

import json
from pathlib import Path

import numpy as np
import pytest

from realesr.cli import checks, doctor
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
    assert "  onnxruntime 1 on cpu (fp32): works\n" in text
    assert "  torch 1: engine torch needs the package torch\n" in text
    assert text.endswith("No problem found.\n")


def test_an_engine_that_gives_wrong_values_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(NearestEngine):
        def run(self, batch: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
            return super().run(batch) * np.float32(0.9)

    monkeypatch.setattr("realesr.engines.open_engine", lambda *_, **__: Wrong(scale=2))
    assert checks.checked_engine(facts("onnxruntime"))["devices"] == {
        "cpu": "runs, but its result is wrong by 0.1 of full scale"
    }


def test_an_engine_that_fails_is_told_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise EngineError("no driver")

    monkeypatch.setattr("realesr.engines.open_engine", fail)
    assert checks.checked_engine(facts("onnxruntime"))["devices"] == {"cpu": "no driver"}


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

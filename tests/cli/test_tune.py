"""`realesr tune`: what it prints and keeps; nothing is measured here."""

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from realesr.engines.trial import Trial
from realesr.engines.tuning import Answer, Setting, kept
from realesr.models.compact import Compact
from realesr.models.weights import read_weights

from .conftest import Command

BEST = Setting(engine="ncnn", device="cpu", precision="fp32", tile_px=192)
KEPT = replace(BEST, tile_px=None)
HALF = Setting(engine="openvino", device="cpu", precision="bf16", threads=2, tile_px=192)
TRIALS = [
    Trial(setting=BEST, us_per_px=4.7),
    Trial(setting=HALF, us_per_px=3.2, psnr_db=40.0),
    Trial(setting=Setting(engine="torch", device="cpu", precision="fp32"), problem="reinstall it"),
]


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("REALESR_CACHE", str(tmp_path / "cache"))
    shapes = Compact(scale=2, features=4, convs=1).shapes
    path = tmp_path / "own.safetensors"
    save_file({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, path)
    yield path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the measuring was asked for."""
    seen: dict[str, Any] = {"give": TRIALS}

    def fake(weights: Any, **options: Any) -> Iterator[Trial]:
        seen.update(options, name=weights.name)
        yield from seen["give"]

    monkeypatch.setattr("realesr.engines.trial.trials", fake)
    return seen


def test_the_answer_is_shown_and_kept(realesr: Command, network: Path, asked: dict[str, Any]) -> None:
    result = realesr("tune", "-m", network, "--seconds", 7)
    assert result.exit_code == 0, result.stderr
    assert asked["seconds"] == 7
    assert asked["overlap_px"] == 3
    assert result.stdout.splitlines() == [
        "openvino\tcpu\tbf16\t-\t2\t192\t3.2\t40.0",
        "ncnn\tcpu\tfp32\t-\tall\t192\t4.7\t-",
        "torch\tcpu\tfp32\t-\tall\t-\treinstall it\t-",
        "kept: ncnn fp32 on cpu, all cores, tiles as large as the memory allows",
    ]
    assert kept(read_weights(network)) == Answer(best=KEPT, fp32=KEPT)


def test_options_are_shown_and_kept(realesr: Command, network: Path, asked: dict[str, Any]) -> None:
    graphs = Setting(
        engine="torch", device="cuda", precision="fp16", tile_px=576, options={"mode": "graphs", "join": "device"}
    )
    asked["give"] = [*TRIALS, Trial(setting=graphs, us_per_px=0.4, psnr_db=62.0)]
    lines = realesr("tune", "-m", network).stdout.splitlines()
    assert lines[0] == "torch\tcuda\tfp16\tmode=graphs join=device\tall\t576\t0.4\t62.0"
    assert lines[-1] == (
        "kept: torch fp16 on cuda, mode=graphs join=device, all cores, tiles as large as the memory allows; "
        "in fp32 ncnn"
    )
    assert kept(read_weights(network)) == Answer(best=replace(graphs, tile_px=None), fp32=KEPT)


def test_json_is_one_object(realesr: Command, network: Path, asked: dict[str, Any]) -> None:
    result = realesr("tune", "-m", network, "--json", "--quiet")
    record = json.loads(result.stdout)
    assert (record["network"], record["best"], record["fp32"]) == ("own", asdict(KEPT), asdict(KEPT))
    assert [trial["us_per_px"] for trial in record["trials"]] == [4.7, 3.2, None]
    assert Path(record["kept"]).exists()
    assert result.stderr == ""


def test_answers_are_forgotten(realesr: Command, network: Path, asked: dict[str, Any]) -> None:
    realesr("tune", "-m", network)
    result = realesr("tune", "--forget")
    assert result.exit_code == 0
    assert result.stdout.startswith("forgotten: ")
    assert kept(read_weights(network)) is None
    assert realesr("tune", "--forget").stdout == "there was nothing to forget\n"
    assert json.loads(realesr("tune", "--forget", "--json").stdout) == {"forgotten": []}


def test_where_no_engine_works_nothing_is_kept(realesr: Command, network: Path, asked: dict[str, Any]) -> None:
    asked["give"] = TRIALS[2:]
    result = realesr("tune", "-m", network)
    assert result.exit_code == 1
    assert "no engine works here: see 'realesr doctor'" in result.stderr
    assert kept(read_weights(network)) is None


def test_an_onnx_file_is_refused(realesr: Command, tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"")
    result = realesr("tune", "-m", tmp_path / "x.onnx")
    assert result.exit_code == 2
    assert "expected weights" in result.stderr


def test_less_than_a_second_is_refused(realesr: Command) -> None:
    assert realesr("tune", "--seconds", 0).exit_code == 2

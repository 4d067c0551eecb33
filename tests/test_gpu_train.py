"""What benchmarks/gpu_train.py and benchmarks/gpu_distill.py do, in small and on the CPU."""

import importlib
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file

from realesr.models.compact import Compact
from realesr.models.rrdb import RRDB
from realesr.models.weights import read_weights
from realesr.train.recipe import STAGES, read_recipe
from tests.models.small_networks import small_state

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Beside other load, two threads that wait actively make tiny networks twenty times as slow."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`module("gpu_train")`: a file of the benchmarks, as a script there would import it."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


def noise(path: Path, width_px: int = 120, height_px: int = 110) -> Path:
    """A photo that is rich in detail."""
    path.parent.mkdir(exist_ok=True)
    pixels = np.random.default_rng(len(path.name)).integers(0, 256, (height_px // 2, width_px // 2, 3), np.uint8)
    Image.fromarray(pixels).resize((width_px, height_px), Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture
def crops(tmp_path: Path) -> list[Path]:
    return [noise(tmp_path / "crops" / f"{photo}-{turn}.jpg") for photo in ("a", "bb", "ccc") for turn in range(2)]


@pytest.mark.long
def test_training_in_small_gives_a_row_for_each_stage_and_goes_on_to_the_same_bits(
    module: Any, tmp_path: Path, crops: list[Path]
) -> None:
    rows = module("gpu_train").training("cpu", tmp_path / "runs", crops, small=True)
    first, second, resumed = (json.loads(json.dumps(row)) for row in rows)
    assert [first["what"], second["what"], resumed["what"]] == [
        "x4plus stage1",
        "x4plus stage2",
        "x4plus stage2 resumed",
    ]
    assert first["iterations_s"] > 0
    assert (first["counted"], second["counted"], resumed["iterations"]) == (2, 2, 2)
    assert second["VGG_percent"] > 0
    assert (resumed["largest_difference"], resumed["same_bits"]) == (0, True)


def test_losses_that_are_not_finite_are_infinitely_far(module: Any) -> None:
    gpu_train = module("gpu_train")
    one = {"l1": 0.5, "perceptual": 2.0, "gan": 0.7}
    assert gpu_train._difference(one, {**one, "perceptual": 2.2}) == pytest.approx(0.1)
    assert gpu_train._difference(one, {**one, "gan": math.nan}) == math.inf
    assert gpu_train._difference({**one, "l1": math.inf}, one) == math.inf


@pytest.mark.long
def test_a_distillation_in_small_goes_through_the_command(
    module: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, crops: list[Path]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    networks = {"teacher": RRDB(scale=4, features=8, blocks=1, growth=4), "student": Compact(scale=4, convs=16)}
    for name, architecture in networks.items():
        save_file(small_state(architecture), tmp_path / f"{name}.safetensors")
    names = {name: str(tmp_path / f"{name}.safetensors") for name in networks}
    distil = module("gpu_distill").distillation
    rows = list(distil("cpu", tmp_path / "work" / "run", crops, tmp_path, seconds=600, small=True, **names))
    json.dumps(rows, allow_nan=False)
    scores = ["scores, stage A"] * 2, ["scores, stage B"] * 2
    assert [row["what"] for row in rows] == ["teacher's answers", "stage A", *scores[0], "stage B", *scores[1], "end"]
    answers, stage_a, stage_b = rows[0], rows[1], rows[4]
    assert (answers["patches"], answers["patches_s"] > 0) == (128, True)
    assert (stage_a["iterations"], stage_a["batch"], stage_a["iterations_s"] > 0) == (4, 2, True)
    assert stage_b["D_percent"] > 0
    for name in ("student-l1", "student"):
        made = read_weights(tmp_path / f"{name}.safetensors")
        assert made.architecture == networks["student"]
    with Image.open(tmp_path / "patches.png") as picture:
        assert picture.size == (4 * 64, 2 * 64)


@pytest.mark.parametrize("sizes", ["FULL", "SMALL"])
def test_the_recipe_takes_the_changes_of_the_run_on_a_gpu(module: Any, sizes: str) -> None:
    changes = [f"{key}={value}" for key, value in getattr(module("gpu_distill"), sizes).items()]
    recipe = read_recipe("distill_64x16", changes)
    assert [problem for stage in STAGES for problem in recipe.stage_problems(stage)] == []
    assert recipe.stage2.d_warm_up <= recipe.log_every, "both networks learn in every iteration that counts"
    assert recipe.stage2.gan_ramp < recipe.stage2.iterations


def fake_run(run: Path) -> None:
    """What a distillation has written that is stopped in stage B: three lots of answers, and four iterations."""
    for number in range(3):
        folder = run / "teacher" / f"{number:06d}"
        folder.mkdir(parents=True)
        os.utime(folder, (1000 + 2 * number, 1000 + 2 * number))
    (run / "teacher" / "teacher.json").touch()
    os.utime(run / "teacher" / "teacher.json", (990, 990))
    lines: list[dict[str, Any]] = [{"kind": "run", "stage": "stage2", "recipe": {"stage2": {"batch": 32}}}]
    for iteration in (2, 4):
        lines.append(
            {"kind": "losses", "iteration": iteration, "time": iteration / 8, "seconds": {"G": 0.2, "D": 0.05}}
        )
    lines.append({"kind": "validation", "iteration": 4, "psnr": 30.5, "bicubic_psnr": 27.0})
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run / "last.safetensors").write_bytes(b"a network")


def distilled_by(code: str, module: Any, monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[dict[str, Any]]:
    """Rows where a program of Python takes the command's place, and has half a second before it is told to stop."""
    gpu_distill = module("gpu_distill")
    monkeypatch.setattr(gpu_distill, "COMMAND", (sys.executable, "-c", code))
    monkeypatch.setattr(gpu_distill, "STOP_SECONDS", 20.0)
    monkeypatch.setattr(gpu_distill, "LOOK_SECONDS", 0.1)
    return list(gpu_distill.distillation("cpu", folder / "run", [], folder, seconds=20.5))


def test_a_distillation_that_is_stopped_still_tells_what_it_has_logged(
    module: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_run(tmp_path / "run")
    answers, stage_b, scores, end, problem = distilled_by("import time; time.sleep(60)", module, monkeypatch, tmp_path)
    assert answers == {"what": "teacher's answers", "patches": 192, "seconds": 14, "patches_s": 32}
    assert (stage_b["what"], stage_b["iterations"], stage_b["counted"]) == ("stage B", 4, 2)
    assert (stage_b["iterations_s"], stage_b["images_s"], stage_b["gaps_percent"]) == (8, 256, 0)
    assert scores == {"what": "scores, stage B", "iterations": 4, "psnr_to_teacher_db": 30.5, "bicubic_db": 27.0}
    assert 0.5 <= end["seconds"] < 20
    assert problem["failed"].startswith("stopped after ")
    assert (tmp_path / "student.safetensors").read_bytes() == b"a network"


def test_a_distillation_that_does_not_stop_when_it_is_told_is_ended(
    module: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gpu_distill = module("gpu_distill")
    monkeypatch.setattr(gpu_distill, "STOP_SECONDS", 0.2)
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        gpu_distill._stop(child)
        assert child.wait(30) == -signal.SIGKILL


def test_a_distillation_that_fails_tells_the_last_words_of_the_command(
    module: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module("gpu_distill"), "time", SimpleNamespace(monotonic=lambda: 0.0))  # it is never too late
    end, problem = distilled_by("import sys; sys.exit('error: no such\\nteacher')", module, monkeypatch, tmp_path)
    assert end == {"what": "end", "seconds": 0}
    assert problem["failed"] == "it ended with 1: error: no such teacher"
    assert "error: no such\nteacher" in capsys.readouterr().out


@pytest.mark.parametrize(("words", "gb"), [("2048", 2.147483648), ("[N/A]", 0), ("", 0)])
def test_memory_of_a_gpu_is_what_nvidia_smi_reports(
    module: Any, monkeypatch: pytest.MonkeyPatch, words: str, gb: float
) -> None:
    gpu_distill = module("gpu_distill")
    monkeypatch.setattr(gpu_distill.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=f"{words}\n99\n"))
    assert gpu_distill._gpu_memory_gb() == gb

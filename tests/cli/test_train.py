"""`realesr train`: what is asked for reaches training, and what is wrong is one line."""

import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from realesr.cli.app import build_app
from realesr.train import distributed, trainer
from realesr.train.checkpoint import write_checkpoint
from realesr.train.request import Request


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """What training was asked for, in the place of training."""
    requests = []

    def train(request, *, say, show):
        requests.append(request)
        say("a word")
        show("1/3")
        return tmp_path / "last.safetensors"

    monkeypatch.setattr(trainer, "train", train)
    return requests


def run(*words):
    return CliRunner().invoke(build_app(), [str(word) for word in words])


def test_every_option_reaches_training(asked, tmp_path):
    words = ["--data", "a", "--data", "b", "--gt", "g", "--lq", "l", "--val-gt", "vg", "--val-lq", "vl"]
    words += ["--recipe", "tiny_cpu", "--set", "seed=1", "--set", "stage2.gan=0.2", "--init", "runs/net"]
    words += ["--init-d", "d.pth", "--vgg", "v.pth", "--device", "cpu", "--out", "o", "--trial"]
    result = run("train", "stage2", *words)
    assert result.exit_code == 0
    assert result.stdout == f"{tmp_path / 'last.safetensors'}\n"
    (request,) = asked
    assert [str(path) for path in (*request.data, *request.gt, *request.lq)] == ["a", "b", "g", "l"]
    assert (str(request.val_gt), str(request.val_lq), request.recipe, request.init) == (
        "vg",
        "vl",
        "tiny_cpu",
        "runs/net",
    )
    assert request.changes == ["seed=1", "stage2.gan=0.2"]
    assert (str(request.init_d), str(request.vgg), request.device, request.trial) == ("d.pth", "v.pth", "cpu", True)
    assert (request.stage, str(request.run)) == ("stage2", "o-trial")


def test_debug_shows_the_traceback_and_is_no_trial(monkeypatch, tmp_path):
    def train(request, *, say, show):
        assert not request.trial
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(trainer, "train", train)
    words = ["train", "stage1", "--data", "a", "--out", "o"]
    assert "Traceback" not in run(*words).stderr
    assert "Traceback" in run(*words, "--debug").stderr


@pytest.mark.parametrize(
    ("words", "folder"),
    [
        (("stage1",), "runs/x4plus-stage1"),
        (("stage1", "--init", "none"), "runs/x4plus-stage1"),
        (("stage1", "--init", "realesr-animevideov3"), "runs/realesr-animevideov3-stage1"),
        (("stage2", "--init", "runs/net"), "runs/net-stage2"),
        (("stage2", "--init", "nets/my.x4.pth"), "runs/my.x4-stage2"),
        (("stage2", "--init", "runs/net", "--recipe", "my/own.toml"), "runs/own-stage2"),
    ],
)
def test_a_folder_that_is_not_named_has_the_name_of_the_recipe_or_of_the_start(asked, words, folder):
    assert run("train", *words, "--data", "a").exit_code == 0
    assert asked[0].out == Path(folder)


def test_a_warning_is_one_line_and_told_once(monkeypatch, tmp_path):
    def train(request, *, say, show):
        for _ in range(2):
            warnings.warn("this and\nthat is deprecated", FutureWarning, stacklevel=1)
        return tmp_path / "last.safetensors"

    monkeypatch.setattr(trainer, "train", train)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        result = run("train", "stage1", "--data", "a", "--out", "o")
    assert result.stderr.splitlines()[0] == "FutureWarning: this and that is deprecated"
    assert result.stderr.count("deprecated") == 1
    assert ".py" not in result.stderr


def test_processes_beside_the_first_tell_errors_only(asked, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert "a word" not in run("train", "stage1", "--data", "a", "--out", "o").stderr


def test_resuming_asks_for_the_run_and_for_as_many_processes(asked, monkeypatch, tmp_path):
    began = Request(stage="stage1", out=tmp_path / "net", data=[tmp_path], init="runs/x", device="cpu")
    facts = {"request": began.as_record(), "processes": 2}
    write_checkpoint(tmp_path / "net", 4, {}, facts, keep=1)
    monkeypatch.setattr(distributed, "run_on_gpus", lambda *arguments: arguments[0] + 40)
    words = ["train", "resume", tmp_path / "net", "--set", "stage1.learning_rate=1e-5"]
    assert run(*words).exit_code == 42
    assert run(*words, "--gpus", "1").exit_code == 41
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run(*words).exit_code == 0
    (request,) = asked
    assert request == replace(began, resume=True, changes=["stage1.learning_rate=1e-5"])
    write_checkpoint(tmp_path / "net", 8, {}, facts | {"processes": 1}, keep=1)
    monkeypatch.delenv("WORLD_SIZE")
    assert run(*words, "--device", "cuda").exit_code == 0
    assert asked[1].device == "cuda"


def test_a_folder_that_is_no_run_cannot_be_resumed(tmp_path):
    result = run("train", "resume", tmp_path)
    assert result.exit_code == 1
    assert "has no checkpoint to go on from: expected the folder of a run that was saved" in result.stderr
    write_checkpoint(tmp_path, 4, {}, {"processes": 1}, keep=1)
    assert (
        "does not say how the run was begun: say the command that began it once more"
        in run("train", "resume", tmp_path).stderr
    )


def test_quiet_prints_nothing_but_the_result(asked):
    result = run("train", "stage1", "--data", "a", "--out", "o", "--quiet")
    assert "a word" not in result.stderr
    assert "a word" in run("train", "stage1", "--data", "a", "--out", "o").stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "got no images: expected photos (data), or pairs (gt and lq); --data names photos, --gt and --lq"),
        (
            ("--gt", "a"),
            "got one of gt and lq, expected both: pairs need the large and the small images; --gt and --lq",
        ),
        (
            ("--data", "a", "--val-gt", "b"),
            "got one of val_gt and val_lq, expected both or none; --val-gt and --val-lq",
        ),
    ],
)
def test_options_that_make_no_sense_are_one_line_and_exit_2(words, message):
    result = run("train", "stage1", "--out", "o", *words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_what_is_wrong_with_recipe_and_images_is_told(tmp_path):
    result = run("train", "stage1", "--data", tmp_path, "--out", tmp_path / "o", "--set", "stage1.bach=1")
    assert result.exit_code == 2
    assert "stage1.bach = 1 is no key here: did you mean batch?" in result.stderr
    result = run("train", "stage1", "--data", tmp_path, "--out", tmp_path / "o", "--recipe", "tiny_cpu")
    assert result.exit_code == 1
    assert "found no images" in result.stderr
    assert not (tmp_path / "o").exists()


def test_several_gpus_are_left_to_torchrun(monkeypatch):
    started = []

    def run_on_gpus(*arguments):
        started.append(arguments)
        return 7

    monkeypatch.setattr(distributed, "run_on_gpus", run_on_gpus)
    monkeypatch.setattr(sys, "argv", ["realesr", "train", "stage1", "--gpus", "2"])
    result = run("train", "stage1", "--data", "a", "--out", "o", "--gpus", "2")
    assert result.exit_code == 7
    assert started == [(2, "auto", ["train", "stage1", "--gpus", "2"])]


def test_more_gpus_than_there_are_is_wrong_usage(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    result = run("train", "stage1", "--data", "a", "--out", "o", "--gpus", "2")
    assert result.exit_code == 2
    assert "got 2 GPUs, expected 1 or more, and no more than the 1 that torch sees here" in result.stderr


def test_without_torch_the_line_that_installs_it_is_told(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("realesr.train.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    result = run("train", "stage1", "--data", "a", "--out", "o")
    assert result.exit_code == 1
    assert "training needs the package torch: run 'pip install \"realesr[train]\"'" in result.stderr


def test_recipes_are_listed_and_shown():
    names = [line.split("\t")[0] for line in run("train", "recipes").stdout.splitlines()]
    assert {"finetune", "general_x4", "tiny_cpu", "x2plus", "x4plus"} <= set(names)
    assert "iterations = 1_000_000" in run("train", "recipes", "x4plus").stdout
    assert run("train", "recipes", "x5plus").exit_code == 2

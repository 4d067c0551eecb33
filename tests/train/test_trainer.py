"""Runs tiny networks to the end: runs stop, go on, fail and spread over processes as they should."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import realesr
from realesr.errors import InputError, ModelError, OutputError, TrainingError, UsageError
from realesr.models.discriminator import UNetDiscriminator
from realesr.models.weights import read_any_weights, read_weights
from realesr.train import synthesis, trainer
from realesr.train.checkpoint import checkpoints
from realesr.train.data.hold_out import hold_out
from realesr.train.data.loader import batches
from realesr.train.data.pair_pool import PairPool
from realesr.train.data.samples import image_of
from realesr.train.request import Request, resumed
from realesr.train.run_lock import run_lock
from realesr.train.steps import gan_step

RECIPE = """
log_every = 1
[compact]
scale = 2
features = 8
convs = 1
[discriminator]
features = 4
[degrade]
pool = 4
group = 2
[data]
read_px = 48
workers = 0
[stage1]
iterations = 6
batch = 2
crop_px = 32
ema_decay = 0.9
bf16 = false
[stage2]
iterations = 6
batch = 2
crop_px = 32
gan = 0.1
colour = 1.0
artefact = 0.5
ema_decay = 0.9
bf16 = false
[validation]
every = 3
crops = 2
crop_px = 32
[save]
every = 2
"""


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(4):
        noise = np.random.default_rng(number).integers(0, 256, (20, 24, 3), np.uint8)
        Image.fromarray(noise).resize((72, 60), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def train(photos, tmp_path):
    """Return a function that runs training in this process, like `train("stage1", "net")`, and returns its messages."""
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(RECIPE)

    def run(stage, out, *, said=None, **more):
        said = [] if said is None else said
        if "recipe" not in more:
            more["recipe"] = str(recipe)
        if stage == "stage2":
            more.setdefault("init", "none")
        request = Request(stage=stage, out=tmp_path / out, data=[photos], **more)
        trainer.train(request, say=said.append, show=lambda _: None)
        return said

    return run


def network(folder):
    return (folder / "last.safetensors").read_bytes()


def raw(folder):
    return torch.load(folder / "last.pth", weights_only=True)["params"]


def records(folder, kind):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [record for record in lines if record["kind"] == kind]


def test_stage1_makes_a_network_that_the_product_runs(train, tmp_path):
    said = train("stage1", "net")
    assert said[0] == "SRVGGNetCompact x2: 1 convolutions, 8 features, prelu starts from random initialisation"
    assert said[-1] == f"done: 6 iterations; the network is in {tmp_path / 'net'}"
    with realesr.Upscaler(tmp_path / "net") as upscaler:
        assert upscaler.upscale(np.zeros((10, 12, 3), np.uint8)).shape == (20, 24, 3)
    assert read_weights(tmp_path / "net" / "best.safetensors").architecture.scale == 2
    assert [record["iteration"] for record in records(tmp_path / "net", "losses")] == [1, 2, 3, 4, 5, 6]
    scores = records(tmp_path / "net", "validation")
    assert [(record["iteration"], set(record) >= {"psnr", "ssim", "colour_drift"}) for record in scores] == [
        (3, True),
        (6, True),
    ]
    with Image.open(tmp_path / "net" / "validation" / "00000006.png") as picture:
        assert picture.size == (4 * 32, 2 * 32)


def test_stage2_goes_on_from_stage1_with_its_recipe(train, tmp_path):
    train("stage1", "net")
    said = train("stage2", "gan", init=str(tmp_path / "net"), recipe=None)
    assert f"starts from {tmp_path / 'net'}" in said[0]
    last = records(tmp_path / "gan", "losses")[-1]
    assert {"l1", "gan", "colour", "artefact", "d_real", "d_fake"} <= set(last)
    assert set(last["seconds"]) >= {"data", "degrade", "G", "D", "optimiser"}


@pytest.mark.parametrize(
    ("stage", "changes"),
    [
        ("stage1", ["degrade.arithmetic=corrected"]),
        ("stage2", ["degrade.arithmetic=faithful"]),
        ("stage2", ["stage2.gan_adaptive=true", "stage2.gan_details=true", "discriminator.channels=6"]),
    ],
)
def test_a_run_that_was_killed_ends_with_the_same_bits(train, tmp_path, monkeypatch, stage, changes):
    train(stage, "whole", changes=changes)
    step = trainer._step

    class Kill(BaseException):
        """Ends a run as a signal that cannot be caught would: nothing is saved."""

    def killed(run, pairs):
        if run.state.iteration == 5:
            raise Kill
        return step(run, pairs)

    monkeypatch.setattr(trainer, "_step", killed)
    with pytest.raises(Kill):
        train(stage, "killed", changes=changes)
    monkeypatch.undo()
    said = train(stage, "killed", changes=changes)
    assert "going on at iteration 4 of 6" in said
    assert network(tmp_path / "killed") == network(tmp_path / "whole")
    for key, value in raw(tmp_path / "whole").items():
        assert torch.equal(value, raw(tmp_path / "killed")[key])


def test_a_resumed_run_has_its_pool_on_the_device_that_it_trains_on(train, monkeypatch):
    train("stage1", "net", changes=["stage1.iterations=4"])  # the pool of four pairs is full
    devices = []
    load = PairPool.load_state_dict

    def spied(pool, state, device=None):
        devices.append(device)
        load(pool, state, device)

    monkeypatch.setattr(PairPool, "load_state_dict", spied)
    train("stage1", "net")
    assert devices == [torch.device("cpu")]


def test_ctrl_c_saves_what_was_done(train, tmp_path, monkeypatch):
    train("stage1", "whole")
    step = trainer._step

    def interrupted(run, pairs):
        if run.state.iteration == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return step(run, pairs)

    monkeypatch.setattr(trainer, "_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train("stage1", "stopped")
    assert checkpoints(tmp_path / "stopped")[-1].name == "00000003"
    monkeypatch.undo()
    train("stage1", "stopped")
    assert network(tmp_path / "stopped") == network(tmp_path / "whole")


def test_a_finished_run_is_left_alone(train, tmp_path):
    train("stage1", "net")
    before = network(tmp_path / "net")
    assert train("stage1", "net")[-1] == f"{tmp_path / 'net'} is finished: all 6 iterations are done"
    assert network(tmp_path / "net") == before


def test_a_finished_run_can_be_made_longer(train, tmp_path):
    train("stage1", "net", changes=["stage1.iterations=4"])
    train("stage1", "net")
    train("stage1", "whole")
    assert network(tmp_path / "net") == network(tmp_path / "whole")


def test_a_finished_run_does_not_change(train, tmp_path):
    train("stage1", "net")
    said = resume(tmp_path / "net", ["stage1.iterations=4", "stage1.learning_rate=1e-5"])
    assert said[-1] == f"{tmp_path / 'net'} is finished: 6 iterations are done, and the recipe has 4"
    assert not any("has changed" in line for line in said)
    assert records(tmp_path / "net", "changed") == []


def test_a_run_among_its_photos_is_refused(train, tmp_path, photos):
    with pytest.raises(UsageError, match=r"photos/net lies in .*photos, from which the photos are taken"):
        train("stage1", "photos/net")
    assert not (photos / "net").exists()


def test_another_recipe_is_refused_and_what_differs_is_named(train):
    train("stage1", "net")
    with pytest.raises(UsageError, match=r"was begun otherwise \(stage1.batch was 2 and is 1\)"):
        train("stage1", "net", changes=["stage1.batch=1"])
    with pytest.raises(UsageError, match="stage was 'stage1' and is 'stage2'"):
        train("stage2", "net")


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_batch(train, tmp_path, monkeypatch):
    poison(monkeypatch, at=5)
    with pytest.raises(TrainingError, match=r"iteration 5 is not finite \(.*l1 = nan.*the last checkpoint is whole"):
        train("stage1", "net")
    assert checkpoints(tmp_path / "net")[-1].name == "00000004"
    record = json.loads((tmp_path / "net" / "failures" / "00000005-rank0.json").read_text())
    assert record["iteration"] == 5
    assert len(record["degradation"]["samples"]) == 2
    assert all(name.endswith(".png") for name in record["images"])


def test_a_loss_that_is_not_finite_twice_rolls_the_run_back(train, tmp_path, monkeypatch):
    poison(monkeypatch, at=5)
    for _ in range(2):
        with pytest.raises(TrainingError):
            train("stage1", "net")
    monkeypatch.undo()
    said = train("stage1", "net")
    assert "rolled back to iteration 2: what came after failed twice; other batches come now" in said
    assert checkpoints(tmp_path / "net")[-1].name == "00000006"
    train("stage1", "whole")
    assert network(tmp_path / "net") != network(tmp_path / "whole")


def poison(monkeypatch, at):
    make = synthesis.make_pairs

    def poisoned(batch, recipe, *, iteration, **more):
        pairs = make(batch, recipe, iteration=iteration, **more)
        if iteration == at:
            pairs.lr[0, 0, 0, 0] = float("nan")
        return pairs

    monkeypatch.setattr(trainer, "make_pairs", poisoned)


def test_a_full_disk_ends_the_run_and_keeps_the_last_checkpoint(train, tmp_path, monkeypatch):
    save = torch.save
    calls = []

    def full(*arguments):
        calls.append(1)
        if len(calls) > 4:
            raise OSError(28, "No space left on device")
        save(*arguments)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OutputError, match="No space left on device"):
        train("stage1", "net")
    assert checkpoints(tmp_path / "net")
    monkeypatch.undo()
    train("stage1", "net")
    train("stage1", "whole")
    assert network(tmp_path / "net") == network(tmp_path / "whole")


def test_a_resumed_run_is_the_run_with_all_its_options(train, tmp_path):
    train("stage1", "whole", changes=["seed=4"])
    train("stage1", "net", changes=["seed=4", "stage1.iterations=4"])
    said = resume(tmp_path / "net", ["stage1.iterations=6"])
    assert "from iteration 4 on the recipe has changed: stage1.iterations was 4 and is 6" in said
    assert network(tmp_path / "net") == network(tmp_path / "whole")


def test_a_resumed_run_may_learn_otherwise_which_is_told_and_logged(train, tmp_path):
    train("stage2", "gan", changes=["stage2.iterations=4"])
    changes = ["stage2.iterations=6", "stage2.learning_rate=5e-5", "stage2.beta1=0.5", "stage2.l1=0.5", "stage1.l1=9"]
    said = resume(tmp_path / "gan", changes)
    assert any("stage2.learning_rate was 0.0002 and is 5e-05" in line for line in said)
    (record,) = records(tmp_path / "gan", "changed")
    assert (record["iteration"], set(record["changes"])) == (4, {change.partition("=")[0] for change in changes[:4]})
    losses = records(tmp_path / "gan", "losses")
    assert [each["learning_rate"] for each in losses] == [2e-4] * 4 + [5e-5] * 2
    assert [each["d_learning_rate"] for each in losses] == [1e-4] * 6
    state = torch.load(checkpoints(tmp_path / "gan")[-1] / "state.pt", weights_only=True)["train"]
    assert state["g_optimiser"]["param_groups"][0]["betas"] == (0.5, 0.99)
    with pytest.raises(UsageError, match=r"begun otherwise \(.*stage2.learning_rate was 5e-05 and is 0.0002"):
        train("stage2", "gan")  # the command that began it no longer says what the run does


def test_a_resumed_run_with_another_batch_is_refused(train, tmp_path):
    train("stage1", "net", changes=["stage1.iterations=4"])
    with pytest.raises(UsageError, match=r"cannot go on with another stage1.batch \(the samples of an iteration"):
        resume(tmp_path / "net", ["stage1.batch=1"])


def resume(folder, changes):
    said: list[str] = []
    trainer.train(resumed(folder, changes=changes), say=said.append, show=lambda _: None)
    return said


def test_options_of_the_other_stage_do_not_matter_where_a_run_goes_on(train, tmp_path):
    train("stage1", "net", changes=["stage1.iterations=4"])
    assert "going on at iteration 4 of 6" in train("stage1", "net", changes=["stage2.gan=0.7", "stage2.batch=4"])


def test_losses_are_means_over_the_interval(train, tmp_path):
    train("stage1", "each")
    train("stage1", "third", changes=["log_every=3"])
    each, third = (records(tmp_path / name, "losses") for name in ("each", "third"))
    assert [record["iteration"] for record in third] == [3, 6]
    for name in ("l1", "g_norm"):
        means = [sum(record[name] for record in each[first : first + 3]) / 3 for first in (0, 3)]
        assert [record[name] for record in third] == pytest.approx(means, rel=1e-5)


def test_a_run_gives_its_discriminator_to_another(train, tmp_path):
    train("stage2", "gan")
    for name in ("best", "last"):
        found = read_any_weights(tmp_path / "gan" / f"{name}-discriminator.pth")
        assert found.architecture == UNetDiscriminator(features=4)
    params = torch.load(tmp_path / "gan" / "last-discriminator.pth", weights_only=True)["params"]
    saved = torch.load(checkpoints(tmp_path / "gan")[-1] / "state.pt", weights_only=True)["train"]["discriminator"]
    assert all(torch.equal(value, saved[key]) for key, value in params.items())
    said = train("stage2", "gan2", init_d=tmp_path / "gan")
    assert f"the discriminator starts from {tmp_path / 'gan'}" in said


def test_all_else_is_checked_before_vgg19_is_fetched(train, tmp_path, monkeypatch):
    def fetched(*_, **__):
        raise AssertionError("fetched")

    monkeypatch.setattr("realesr.train.opening.find_vgg", fetched)
    changes = ["stage2.perceptual=1"]
    with pytest.raises(AssertionError, match="fetched"):
        train("stage2", "gan", changes=changes)
    with pytest.raises(ModelError, match="no network is called nothing"):
        train("stage2", "gan", changes=changes, init="nothing")
    with pytest.raises(ModelError, match=r"nothing\.pth"):
        train("stage2", "gan", changes=changes, init_d=tmp_path / "nothing.pth")
    (tmp_path / "val").mkdir()
    with pytest.raises(InputError):
        train("stage2", "gan", changes=changes, val_gt=tmp_path / "val", val_lq=tmp_path / "val")


def test_the_network_comes_from_the_start_where_the_recipe_names_none(train, tmp_path):
    train("stage1", "net")
    text = RECIPE.replace("[compact]\nscale = 2\nfeatures = 8\nconvs = 1\n", "")
    (tmp_path / "none.toml").write_text(text)
    init = str(tmp_path / "net" / "best.safetensors")
    said = train("stage1", "tuned", recipe=str(tmp_path / "none.toml"), init=init)
    assert said[0] == f"SRVGGNetCompact x2: 1 convolutions, 8 features, prelu starts from {init}"
    (tmp_path / "net" / "best.safetensors").unlink()  # an unfinished run goes on without it
    longer = ["stage1.iterations=8"]
    assert "going on at iteration 6 of 8" in train(
        "stage1", "tuned", recipe=str(tmp_path / "none.toml"), init=init, changes=longer
    )
    with pytest.raises(UsageError, match="the recipe names no network, and training starts from none"):
        train("stage1", "other", recipe=str(tmp_path / "none.toml"))


def test_a_run_that_started_elsewhere_is_not_gone_on_with(train, tmp_path, monkeypatch):
    for name in ("a", "b"):
        train("stage1", name)
    train("stage1", "tuned", init=str(tmp_path / "a"))
    with pytest.raises(UsageError, match=r"tuned started from .*/a, and .*/b is given: choose another folder"):
        train("stage1", "tuned", init=str(tmp_path / "b"))
    monkeypatch.chdir(tmp_path)
    assert "is finished" in train("stage1", "tuned", init="a")[-1]


def test_a_network_without_a_recipe_is_fine_tuned(train, tmp_path):
    train("stage1", "net")
    init = str(tmp_path / "net" / "last.safetensors")
    changes = ["stage1.iterations=2", "stage1.batch=2", "stage1.crop_px=32", "data.read_px=48", "data.workers=0"]
    train("stage1", "tuned", recipe=None, init=init, changes=[*changes, "stage1.bf16=false", "validation.every=0"])
    (began,) = records(tmp_path / "tuned", "run")
    assert began["recipe"]["purpose"].startswith("fine-tuning: any network")
    assert began["recipe"]["compact"]["features"] == 8


def test_a_network_of_another_architecture_is_no_start(train, tmp_path):
    train("stage1", "net")
    with pytest.raises(ModelError, match=r"is SRVGGNetCompact x2: 1 conv.*expected SRVGGNetCompact x2: 2 conv"):
        train("stage1", "other", init=str(tmp_path / "net"), changes=["compact.convs=2"])
    with pytest.raises(UsageError, match="stage2 got no init"):
        train("stage2", "gan", init=None)


def test_a_trial_is_eight_iterations_with_saves_and_validations_and_tells_its_folder(train, tmp_path):
    said = train("stage2", "gan", trial=True)
    folder = tmp_path / "gan-trial"
    assert not (tmp_path / "gan").exists()
    assert [record["iteration"] for record in records(folder, "validation")] == [4, 8]
    assert [path.name for path in checkpoints(folder)] == ["00000004", "00000008"]
    assert f"a trial of 8 iterations, in the folder {folder}" in said
    assert said[-1] == (
        f"done: 8 iterations; the network is in {folder}; the trial is over, and its folder may be deleted"
    )


def test_pairs_are_trained_and_validated_on(tmp_path, photos, train):
    small = tmp_path / "small"
    small.mkdir()
    for path in photos.iterdir():
        with Image.open(path) as photo:
            photo.resize((36, 30)).save(small / path.name)
    recipe = str(tmp_path / "tiny.toml")
    pairs = {"gt": [photos], "lq": [small], "val_gt": photos, "val_lq": small}
    request = Request(stage="stage1", out=tmp_path / "pairs", recipe=recipe, **pairs)
    trainer.train(request, say=lambda _: None, show=lambda _: None)
    mixed = Request(
        stage="stage1", out=tmp_path / "mixed", recipe=recipe, data=[photos], changes=["data.pair_share=0.5"], **pairs
    )
    trainer.train(mixed, say=lambda _: None, show=lambda _: None)
    assert network(tmp_path / "pairs") != network(tmp_path / "mixed")


def test_two_runs_in_one_folder_are_refused_and_a_trial_leaves_the_lock(train, tmp_path):
    train("stage1", "net", trial=True)
    with run_lock(tmp_path / "net"), run_lock(tmp_path / "net-trial"):
        for trial in (False, True):
            with pytest.raises(UsageError, match=f"is in use: process {os.getpid()} on"):
                train("stage1", "net", trial=trial)
    train("stage1", "net", trial=True)
    assert (tmp_path / "net-trial" / "lock").exists()


def test_images_that_go_bad_are_named_and_what_was_done_is_saved(train, tmp_path, photos, monkeypatch):
    step = trainer._step
    said: list[str] = []
    images = {path: path.read_bytes() for path in photos.iterdir()}

    def damaging(run, pairs):
        if run.state.iteration == 2:
            for path in images:
                path.write_bytes(b"\x89PNG")
        return step(run, pairs)

    monkeypatch.setattr(trainer, "_step", damaging)
    with pytest.raises(InputError, match=r"no image is left that can be read \(.*\.png"):
        train("stage1", "net", said=said)
    assert said[-1] == "an error came at iteration 3, which is saved"
    monkeypatch.undo()
    for path, content in images.items():
        path.write_bytes(content)
    assert "going on at iteration 3 of 6" in train("stage1", "net")
    train("stage1", "whole")
    assert network(tmp_path / "net") == network(tmp_path / "whole")


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), MemoryError(), KeyError("surprise")])
def test_any_error_saves_what_was_done(train, tmp_path, monkeypatch, error):
    step = trainer._step

    def failing(run, pairs):
        if run.state.iteration == 5:
            raise error
        return step(run, pairs)

    monkeypatch.setattr(trainer, "_step", failing)
    said: list[str] = []
    with pytest.raises(type(error)):
        train("stage1", "net", said=said)
    assert said[-1] == "an error came at iteration 5, which is saved"
    monkeypatch.undo()
    assert "going on at iteration 5 of 6" in train("stage1", "net")


def test_an_iteration_that_is_half_done_is_not_saved(train, tmp_path, monkeypatch):
    def failing(state, *_, **__):
        state.g_optimiser.step()  # without gradients it only counts where there is something to remember
        for memory in state.g_optimiser.state.values():
            memory["step"] += 1
        raise RuntimeError("out of memory in the discriminator")

    step = gan_step
    calls = iter(range(100))
    monkeypatch.setattr(trainer, "gan_step", lambda *a, **k: (failing if next(calls) == 3 else step)(*a, **k))
    said: list[str] = []
    with pytest.raises(RuntimeError, match="out of memory"):
        train("stage2", "gan", said=said)
    assert said[-1] == "iteration 3 was broken off half done and cannot be saved; the last checkpoint is whole"
    assert [path.name for path in checkpoints(tmp_path / "gan")] == ["00000002"]


def test_an_error_is_told_even_where_saving_fails_too(train, tmp_path, monkeypatch):
    step = trainer._step

    def failing(run, pairs):
        if run.state.iteration == 3:
            monkeypatch.setattr(trainer, "save", lambda *_, **__: 1 / 0)
            raise KeyError("the first one")
        return step(run, pairs)

    monkeypatch.setattr(trainer, "_step", failing)
    said: list[str] = []
    with pytest.raises(KeyError, match="the first one"):
        train("stage1", "net", said=said)
    assert said[-1] == "iteration 3 could not be saved (division by zero); the last checkpoint is whole"


def test_a_signal_that_ends_the_reading_processes_is_no_error(train, tmp_path, monkeypatch):
    class Interrupted:
        """Yields two batches; a signal then comes to the whole process group."""

        def __init__(self, stream):
            self.stream, self.left = stream, 2

        def __next__(self):
            if not self.left:
                os.kill(os.getpid(), signal.SIGINT)
                raise InputError("a process that reads images was ended")
            self.left -= 1
            return next(self.stream)

    monkeypatch.setattr(trainer, "batches", lambda *a, **k: Interrupted(batches(*a, **k)))
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        train("stage1", "net", said=said)
    assert said[-1] == "stopped at iteration 2, which is saved"


def test_an_image_that_cannot_be_read_is_named_and_counted(train, photos):
    used, _ = hold_out(sorted(photos.iterdir()), 1)
    used[0].write_bytes(b"\x89PNG")
    said = train("stage1", "net")
    assert [line.startswith("left out, and the next image takes its place: ") for line in said].count(True) == 1
    assert "1 images or pairs could not be read and were left out; they are named above" in said


def test_images_that_cannot_be_read_are_in_the_log(train, tmp_path, photos):
    used, held = hold_out(sorted(photos.iterdir()), 1)
    for path in (used[0], held[0]):
        path.write_bytes(b"\x89PNG")
    with pytest.raises(InputError, match=rf"no image is left that can be read \({held[0]}"):
        train("stage1", "net")  # the only one that is held out
    Image.new("RGB", (72, 60)).save(held[0])
    train("stage1", "net")
    (record,) = records(tmp_path / "net", "unreadable")
    assert record["image"] == str(used[0])
    assert str(used[0]) in record["reason"]


def test_a_held_out_pair_that_cannot_be_used_is_left_out_named_and_counted(train, tmp_path, photos):
    small = tmp_path / "small"
    small.mkdir()
    for number in range(12):
        Image.new("RGB", (72, 60), (20 * number, 90, 0)).save(photos / f"{number}.png")
        Image.new("RGB", (36, 30), (20 * number, 90, 0)).save(small / f"{number}.png")
    _, held = hold_out(sorted(photos.iterdir()), 3)
    (small / held[0].name).write_bytes(b"\x89PNG")
    Image.new("RGB", (35, 30)).save(small / held[1].name)

    def train_on_pairs(out, *changes):
        recipe = str(tmp_path / "tiny.toml")
        request = Request(stage="stage1", out=out, gt=[photos], lq=[small], recipe=recipe, changes=changes)
        trainer.train(request, say=said.append, show=lambda _: None)

    said: list[str] = []
    train_on_pairs(tmp_path / "net")
    assert [line for line in said if line.startswith("left out of the validation: ") and held[0].name in line]
    assert "2 images or pairs could not be read and were left out; they are named above" in said
    assert "training on 9 pairs, validating on 1 others" in said
    assert [f"{held[0]} and {small / held[0].name}", f"{held[1]} and {small / held[1].name}"] == sorted(
        record["image"] for record in records(tmp_path / "net", "unreadable")
    )
    with pytest.raises(InputError, match=r"2 images cannot be read, more than data\.max_failures = 1 allows"):
        train_on_pairs(tmp_path / "few", "data.max_failures=1")


def test_other_weights_of_losses_that_learn_another_truth_judge_the_best_anew(train, tmp_path):
    changes = ["stage2.gan_sharp=true", "stage2.l1_sharp=false", "stage2.artefact=0"]
    train("stage2", "gan", changes=[*changes, "stage2.iterations=4"])
    said = resume(tmp_path / "gan", ["stage2.iterations=5", "stage2.mse=1"])  # L1 is still there: the same truth
    assert not any("judged anew" in line for line in said)
    said = resume(tmp_path / "gan", ["stage2.iterations=6", "stage2.l1=0", "stage2.mse=0"])
    assert "the validation is another one, so the best network is judged anew" in said
    assert any("(best; bicubic" in line for line in said)


def test_a_best_score_against_an_earlier_truth_or_other_images_does_not_count(train, tmp_path, photos):
    train("stage1", "net", changes=["stage1.iterations=4"])
    facts_file = checkpoints(tmp_path / "net")[-1] / "facts.json"
    (facts_file.parent / "sha256.txt").unlink()
    facts = json.loads(facts_file.read_text())
    assert facts["judged_by"]["sharp"] and len(facts["judged_by"]["images"]) == 2
    del facts["judged_by"]
    facts_file.write_text(json.dumps({**facts, "best_psnr": 99.0}))
    said = train("stage1", "net")
    assert "the validation is another one, so the best network is judged anew" in said
    assert any("iteration 6: PSNR" in line and "(best; bicubic" in line for line in said)
    _, held = hold_out(sorted(photos.iterdir()), 1)
    held[0].rename(photos / "other.png")
    assert any("judged anew" in line for line in train("stage1", "net", changes=["stage1.iterations=8"]))


@pytest.mark.long
def test_images_that_only_another_process_meets_are_named_and_counted(train, tmp_path, photos):
    for number in range(4, 40):
        Image.new("RGB", (72, 60), (6 * number, 0, 0)).save(photos / f"{number}.png")
    used, _ = hold_out(sorted(photos.iterdir()), 8)
    of_second_process = used[image_of(2, len(used), 0)]  # samples 0 and 1 are the first process's
    of_second_process.write_bytes(b"\x89PNG")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "realesr"]
    words = ["train", "stage1", "--data", photos, "--recipe", tmp_path / "tiny.toml", "--out", tmp_path / "two"]
    words += ["--set", "stage1.iterations=1", "--set", "validation.every=0", "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *map(str, words)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (record,) = records(tmp_path / "two", "unreadable")
    assert record["image"] == str(of_second_process)
    assert f"left out, and the next image takes its place: {of_second_process}" in done.stderr
    words[words.index(tmp_path / "two")] = tmp_path / "three"
    words += ["--set", "data.max_failures=0"]
    done = subprocess.run([*command, *map(str, words)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "1 image cannot be read, more than data.max_failures = 0 allows" in done.stderr
    assert "Traceback" not in done.stderr.partition("torch/distributed")[0]


@pytest.mark.long
@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_two_processes_are_one_with_twice_the_batch(tmp_path, photos, train, stage):
    changes = ["degrade.pool=0", "validation.every=0"]
    train(stage, "one", changes=[*changes, f"{stage}.batch=4"])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "realesr"]
    words = ["train", stage, "--data", photos, "--recipe", tmp_path / "tiny.toml", "--out", tmp_path / "two"]
    words += ["--init", "none", *(word for change in changes for word in ("--set", change))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *map(str, words)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    two = raw(tmp_path / "two")
    for key, value in raw(tmp_path / "one").items():
        torch.testing.assert_close(two[key], value, rtol=0, atol=1e-5)

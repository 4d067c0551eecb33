"""Checks distillation from photos to a network: both stages, exact resuming, and what is refused at once."""

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from realesr import networks
from realesr.engine import NearestEngine
from realesr.errors import InputError, ModelError, UsageError
from realesr.models.compact import Compact
from realesr.models.weights import Weights
from realesr.models.zoo import load_model
from realesr.train.checkpoint import checkpoints, write_network
from realesr.train.distill.run import Distillation, distill

RECIPE = """\
[compact]
scale = 2
features = 4
convs = 1

[teacher]
patches = 64
patch_px = 16

[discriminator]
features = 2

[data]
read_px = 48
workers = 0
rotate = true

[stage1]
iterations = 6
batch = 2
crop_px = 32
l1_sharp = false
bf16 = false

[stage2]
iterations = 5
batch = 2
crop_px = 16
l1_sharp = false
laplacian = 0.5
fft = 0.1
gan = 0.1
d_warm_up = 2
bf16 = false

[validation]
every = 5
crops = 2
grid = 1

[save]
every = 100
"""

Distil = Callable[..., Path | None]


class NoTeacherError(Exception):
    """Raised where the teacher is opened though nothing is to be asked."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Photos, a recipe and the file of a teacher."""
    (tmp_path / "photos").mkdir()
    for number in range(4):
        image = Image.effect_noise((14, 14), 90).convert("RGB").resize((56, 52), Image.Resampling.BICUBIC)
        image.save(tmp_path / "photos" / f"{number}.png")
    (tmp_path / "my.toml").write_text(RECIPE)
    for name, scale in (("teacher", 2), ("x4", 4)):
        architecture = Compact(scale=scale, features=3, convs=1)
        write_network(tmp_path / f"{name}.safetensors", networks.build(architecture).state_dict(), architecture)
    return tmp_path


@pytest.fixture
def distil(folder: Path) -> Distil:
    """`distil(out, opens=..., show=..., **options)`: with a teacher that repeats pixels."""

    def call(out: str, *, opens: bool = True, say: Any = None, show: Any = None, **options: Any) -> Path | None:
        def open_teacher(_: Weights | Path) -> NearestEngine:
            if not opens:
                raise NoTeacherError
            return NearestEngine(2)

        values: dict[str, Any] = {"data": [folder / "photos"], "recipe": str(folder / "my.toml")}
        values |= {"teacher": str(folder / "teacher.safetensors"), "device": "cpu", **options}
        said = say or (lambda _: None)
        return distill(
            Distillation(out=folder / out, **values),
            open_teacher=open_teacher,
            say=said,
            show=show or (lambda _: None),
        )

    return call


def stop_at(words: str) -> Callable[[str], None]:
    """Send Ctrl-C when a line with these words is shown."""

    def see(line: str) -> None:
        if words in line:
            signal.raise_signal(signal.SIGINT)

    return see


def test_a_folder_of_photos_becomes_a_network(folder: Path, distil: Distil) -> None:
    said: list[str] = []
    network = distil("fast", say=said.append)
    assert network == folder / "fast" / "last.safetensors"
    weights = load_model(folder / "fast")
    assert isinstance(weights, Weights)
    assert weights.architecture == Compact(scale=2, features=4, convs=1)
    assert (folder / "fast" / "stage_a" / "last.safetensors").read_bytes() != network.read_bytes()
    assert (folder / "fast" / "last-discriminator.safetensors").exists()
    assert [line for line in said if line.startswith("stage ")] == [
        "stage A: what the teacher answers",
        "stage B: its texture",
    ]
    assert any("training on a teacher's answers to 64 patches, validating on 2 others" in line for line in said)


def test_the_network_is_the_same_however_often_its_making_was_stopped(folder: Path, distil: Distil) -> None:
    every = {"changes": ["log_every=1"]}
    distil("whole", **every)
    for words in ("3/6", "3/5"):
        with pytest.raises(KeyboardInterrupt):
            distil("parts", show=stop_at(words), **every)
    last = [int(path.name) for path in checkpoints(folder / "parts")]
    assert last == [3]
    distil("parts", opens=False, **every)
    for name in ("last.safetensors", "stage_a/last.safetensors", "last-discriminator.safetensors"):
        assert (folder / "parts" / name).read_bytes() == (folder / "whole" / name).read_bytes()


def test_answers_in_a_folder_of_their_own_serve_several_runs(folder: Path, distil: Distil) -> None:
    distil("a", cache=folder / "answers")
    assert not (folder / "a" / "teacher").exists()
    distil("b", cache=folder / "answers", opens=False, changes=["stage1.batch=4", "compact.features=5"])
    with pytest.raises(UsageError, match="answers to other patches"):
        distil("c", cache=folder / "answers", opens=False, changes=["seed=1"])


def test_a_trial_is_short_and_in_a_folder_of_its_own(folder: Path, distil: Distil) -> None:
    (folder / "fast-trial").mkdir()
    (folder / "fast-trial" / "of another trial").touch()
    network = distil("fast", trial=True, cache=folder / "answers", changes=["teacher.patches=6400"])
    assert network == folder / "fast-trial" / "last.safetensors"
    assert not (folder / "fast").exists()
    assert not (folder / "answers").exists()
    assert not (folder / "fast-trial" / "of another trial").exists()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"teacher": None}, UsageError, "got no teacher"),
        ({"teacher": "realesrgan-x4plus"}, UsageError, "x4plus enlarges 4 times and the network that learns 2 times"),
        ({"teacher": "nothing-like-it"}, ModelError, "no network is called nothing-like-it"),
        ({"init": "realesr-general-x4v3"}, ModelError, "realesr-general-x4v3 is SRVGG"),
        ({"changes": ["stage2.crop_px=40"]}, UsageError, "stage2.crop_px = 40, expected at most 32"),
        ({"changes": ["teacher.patch_px=32"]}, UsageError, "which is 64 px of a photo: expected at most"),
        ({"changes": ["teacher.patchs=32"]}, UsageError, "did you mean patches"),
        ({"data": []}, InputError, "found no images"),
    ],
)
def test_what_is_wrong_is_told_before_the_teacher_is_asked(
    folder: Path, distil: Distil, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        distil("out", opens=False, **options)
    assert not (folder / "out").exists()


def test_a_run_among_its_photos_is_refused(distil: Distil) -> None:
    with pytest.raises(UsageError, match=r"photos/run lies in .*photos, from which the photos are taken"):
        distil("photos/run", opens=False)


def test_a_file_of_another_scale_is_no_teacher(folder: Path, distil: Distil) -> None:
    with pytest.raises(UsageError, match="enlarges 4 times"):
        distil("out", opens=False, teacher=str(folder / "x4.safetensors"))


def test_a_folder_with_another_run_is_refused_before_the_teacher_is_asked(folder: Path, distil: Distil) -> None:
    distil("fast")
    shutil.rmtree(folder / "fast" / "teacher")
    for change in ("stage2.batch=4", "stage1.batch=4", "compact.features=5"):
        with pytest.raises(UsageError, match=f"begun otherwise .*{change.partition('=')[0]}"):
            distil("fast", opens=False, changes=[change])

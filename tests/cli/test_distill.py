"""`realesr train distill` as a new user runs it: from a folder of photos to a network that upscales."""

from pathlib import Path

import pytest
from PIL import Image

from realesr.cli.distill import DISTILL_EXAMPLES

from .conftest import Command

RECIPE = """\
[compact]
scale = 4
features = 4
convs = 1

[teacher]
model = "realesr-general-x4v3"
patches = 64
patch_px = 16

[discriminator]
features = 2

[data]
read_px = 80
workers = 0

[stage1]
iterations = 3
batch = 2
crop_px = 64
l1_sharp = false
bf16 = false

[stage2]
iterations = 3
batch = 2
crop_px = 32
l1_sharp = false
gan = 0.1
bf16 = false

[validation]
every = 3
crops = 2
grid = 1
"""


@pytest.fixture
def photos(folder: Path) -> Path:
    (folder / "photos").mkdir()
    for number in range(3):
        image = Image.effect_noise((20, 20), 90).convert("RGB").resize((90, 84), Image.Resampling.BICUBIC)
        image.save(folder / "photos" / f"{number}.png")
    (folder / "my.toml").write_text(RECIPE)
    return folder / "photos"


def test_from_a_folder_of_photos_to_an_upscaled_photo(realesr: Command, photos: Path) -> None:
    result = realesr(
        "train", "distill", "--data", "photos", "--recipe", "my.toml", "--out", "runs/fast", "--device", "cpu"
    )
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "runs/fast/last.safetensors\n"
    assert "the teacher answers 64 patches by engine" in result.stderr
    assert "to use it: realesr upscale photo.jpg -m runs/fast" in result.stderr
    again = realesr("upscale", "photos/1.png", "-m", "runs/fast", "-o", "large.png")
    assert again.exit_code == 0, again.stderr
    with Image.open("large.png") as image:
        assert image.size == (360, 336)


def test_what_is_wrong_is_told_with_the_option_that_helps(realesr: Command, photos: Path) -> None:
    common = ("train", "distill", "--data", "photos", "--out", "o", "--recipe", "my.toml")
    for more, words in (
        (
            ("--set", "teacher.model=none"),
            "got no teacher: expected a large network, like realesrgan-x4plus; --teacher",
        ),
        (("--teacher", "realesrgan-x2plus"), "enlarges 2 times and the network that learns 4 times"),
        (("--recipe", "distill_65x16"), "expected one of "),
    ):
        result = realesr(*common, *more)
        assert (result.exit_code, words in result.stderr) == (2, True), result.stderr
    assert not Path("o").exists()


def test_help_has_an_example_of_every_option(realesr: Command) -> None:
    text = realesr("train", "distill", "--help").stdout
    for option in ("--data", "--out", "--teacher", "--recipe", "--set", "--init", "--cache", "--device", "--gpus"):
        assert option in text and option in DISTILL_EXAMPLES
    for option in ("--trial", "--quiet"):
        assert option in text and option in DISTILL_EXAMPLES

"""Checks how a degradation is found: by its name, in a recipe of training, or as a table alone."""

from pathlib import Path

import pytest

from realesr.errors import UsageError
from realesr.train.degrade.recipe import CORRECTED, FAITHFUL
from realesr.train.pair_settings import read_pair_settings


def test_the_two_degradations_have_the_sizes_of_x4plus() -> None:
    settings = read_pair_settings()
    assert (settings.degrade, settings.scale, settings.read_px, settings.crop_px) == (CORRECTED, 4, 400, 256)
    assert settings.sharpened
    assert settings.seed == 0
    assert read_pair_settings("faithful").degrade == FAITHFUL


def test_a_recipe_of_training_brings_its_sizes_and_whether_it_sharpens() -> None:
    settings = read_pair_settings("tiny_cpu")
    assert (settings.scale, settings.read_px, settings.crop_px, settings.sharpened) == (4, 144, 128, False)
    assert read_pair_settings("x2plus").scale == 2
    assert read_pair_settings("finetune").scale == 4  # it is for any network
    assert read_pair_settings("finetune", ["init=realesrgan-x2plus"]).scale == 2


def test_a_file_may_hold_the_degradation_alone(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text("[degrade]\narithmetic = 'faithful'\nfinal_sinc = 0.5\n")
    settings = read_pair_settings(str(path), ["degrade.first.blur=0"])
    assert settings.degrade.arithmetic == "faithful"
    assert settings.degrade.pool == FAITHFUL.pool
    assert (settings.degrade.final_sinc, settings.degrade.first.blur) == (0.5, 0)


def test_options_go_over_the_recipe() -> None:
    settings = read_pair_settings("tiny_cpu", ["seed=4"], scale=3, crop_px=300)
    assert (settings.scale, settings.crop_px, settings.read_px, settings.seed) == (3, 300, 300, 4)
    assert read_pair_settings("tiny_cpu", ["seed=4"], seed=5).seed == 5


@pytest.mark.parametrize(
    ("recipe", "changes", "words"),
    [
        ("correctd", [], "the recipe correctd, expected"),
        ("corrected", ["degrade.motion_blurr=1"], "did you mean motion_blur"),
        ("corrected", ["degrade.h264=2"], "expected a probability"),
        ("x4plus", ["degrade.first.nois=0"], "did you mean noise"),
    ],
)
def test_what_is_wrong_is_named(recipe: str, changes: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read_pair_settings(recipe, changes)

"""`realesr degrade`: a picture with parameters, and the same picture again from its JSON."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner, Result

from realesr.cli.degrade import EXAMPLES, degrade
from realesr.cli.help import CommandHelp

Run = Callable[..., Result]


@pytest.fixture
def run() -> Run:
    """The command alone, in this process."""
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(cls=CommandHelp, epilog=EXAMPLES)(degrade)

    def call(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="realesr degrade")

    return call


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    noise = Image.effect_noise((17, 13), 120).convert("RGB").resize((90, 70), Image.Resampling.BICUBIC)
    noise.save(path)
    return path


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_a_picture_and_its_parameters_are_written_beside_the_photo(run: Run, photo: Path) -> None:
    result = run(photo)
    assert result.exit_code == 0, result.stderr
    target = photo.with_name("photo_degraded.png")
    assert result.stdout == f"{target}\n"
    assert sorted(path.name for path in photo.parent.iterdir()) == [
        "photo.png",
        "photo_degraded.json",
        "photo_degraded.png",
    ]
    record = json.loads(target.with_suffix(".json").read_text())
    assert len(record["degradation"]["samples"]) == 8
    assert record["degradation"]["scale"] == 4
    sheet = pixels(target)
    assert np.array_equal(sheet[12 : 12 + 68, 12 : 12 + 88], pixels(photo)[1:69, 1:89])  # the original comes first
    blocks = sheet[12 : 12 + 68, 324 : 324 + 88].reshape(17, 4, 22, 4, 3)
    assert (blocks == blocks[:, :1, :, :1]).all()  # then a degraded one, enlarged by repeating pixels
    assert (sheet[82:110, 324:500] < 128).any()  # with words under it


@pytest.mark.parametrize("recipe", ["corrected", "faithful"])
def test_the_same_pixels_come_again_from_the_json(run: Run, photo: Path, recipe: str) -> None:
    first, again = photo.with_name("first.png"), photo.with_name("again.png")
    asked = ("-n", 3, "--scale", 2, "--recipe", recipe, "--seed", 5)
    assert run(photo, *asked, "-o", first).exit_code == 0
    assert run(photo, "--replay", first.with_suffix(".json"), "-o", again).exit_code == 0
    assert first.read_bytes() == again.read_bytes()
    assert first.with_suffix(".json").read_bytes() == again.with_suffix(".json").read_bytes()


def test_another_seed_gives_other_pixels(run: Run, photo: Path) -> None:
    for seed in (0, 1):
        assert run(photo, "-n", 1, "--seed", seed, "-o", photo.with_name(f"{seed}.png")).exit_code == 0
    assert photo.with_name("0.png").read_bytes() != photo.with_name("1.png").read_bytes()


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "I;16", "1"])
def test_grey_alpha_and_16_bit_photos_are_read(run: Run, photo: Path, mode: str) -> None:
    if mode == "I;16":
        Image.fromarray(np.arange(64 * 48, dtype=np.uint16).reshape(48, 64) * 20).save(photo)
    else:
        Image.open(photo).convert(mode).save(photo)
    result = run(photo, "-n", 1)
    assert result.exit_code == 0, result.stderr


def test_what_is_there_is_kept_unless_it_may_be_replaced(run: Run, photo: Path) -> None:
    there = photo.with_name("photo_degraded.json")
    there.write_text("mine")
    result = run(photo, "-n", 1)
    assert result.exit_code == 1
    assert "is there already" in result.stderr
    assert there.read_text() == "mine"
    assert run(photo, "-n", 1, "--overwrite").exit_code == 0
    assert there.read_text() != "mine"


def test_usage_that_makes_no_sense_is_refused(run: Run, photo: Path) -> None:
    record = photo.with_name("record.json")
    record.write_text("{}")
    tiny = photo.with_name("tiny.png")
    Image.new("RGB", (3, 30)).save(tiny)
    for arguments, words in (
        ((photo, "-n", 0), "expected 1 or more"),
        ((photo, "--scale", 17), "1 to 16"),
        ((photo, "-o", "sheet.jpg"), "ends in .png"),
        ((tiny,), "expected 4 px or more a side"),
        ((photo, "--replay", record, "-n", 2, "--seed", 1), "got -n, --seed beside --replay"),
    ):
        result = run(*arguments)
        assert (result.exit_code, words in result.stderr) == (2, True), result.stderr


def test_photos_and_records_that_cannot_be_used_are_named(run: Run, photo: Path) -> None:
    assert run(photo, "-n", 1).exit_code == 0
    good = photo.with_name("photo_degraded.json")
    bad = photo.with_name("bad.json")
    other = photo.with_name("other.png")
    Image.new("RGB", (90, 70)).save(other)
    small = photo.with_name("small.png")
    Image.new("RGB", (20, 20)).save(small)
    out = ("-o", photo.with_name("out.png"))
    changed = json.loads(good.read_text())
    changed["degradation"]["samples"][0]["first"] = None
    for text, arguments, words in (
        ("", (photo.with_name("none.png"),), "none.png"),
        ("", (photo, "--replay", photo.with_name("none.json"), *out), "cannot be read"),
        ("{", (photo, "--replay", bad, *out), "is no JSON"),
        ("[]", (photo, "--replay", bad, *out), "has no record"),
        ("{}", (photo, "--replay", bad, *out), "without corner_yx"),
        (json.dumps(changed), (photo, "--replay", bad, *out), "draw them again"),
        ("", (other, "--replay", good, *out), "other pixels"),
        ("", (small, "--replay", good, *out), "too small"),
    ):
        bad.write_text(text)
        result = run(*arguments)
        assert (result.exit_code, words in result.stderr) == (1, True), result.stderr
    assert not photo.with_name("out.png").exists()


def test_a_place_that_cannot_be_written_is_named_and_nothing_half_written_is_left(run: Run, photo: Path) -> None:
    result = run(photo, "-n", 1, "-o", photo.parent / "missing" / "sheet.png")
    assert result.exit_code == 1
    assert "cannot be written" in result.stderr
    assert [path.name for path in photo.parent.iterdir()] == ["photo.png"]


def test_without_torch_it_says_what_to_install(run: Run, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("realesr.train")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("realesr.train", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    result = run(photo)
    assert result.exit_code == 1
    assert "realesr degrade needs the package torch: run 'pip install \"realesr[train]\"'" in result.stderr


def test_a_recipe_may_be_a_file_and_be_changed(run: Run, photo: Path) -> None:
    recipe = photo.with_name("my.toml")
    recipe.write_text("[degrade]\nfinal_sinc = 0.0\n")
    changes = ("--set", "degrade.motion_blur=1", "--set", "degrade.oversharpen=1")
    result = run(photo, "-n", 2, "--recipe", recipe, *changes)
    assert result.exit_code == 0, result.stderr
    record = json.loads(photo.with_name("photo_degraded.json").read_text())
    for sample in record["degradation"]["samples"]:
        assert sample["final_sinc"] is None
        assert sample["motion"] and sample["oversharpen"] and not sample["h264"]
    assert run(photo, "--replay", photo.with_name("photo_degraded.json"), "-o", photo.with_name("2.png")).exit_code == 0
    assert photo.with_name("2.png").read_bytes() == photo.with_name("photo_degraded.png").read_bytes()


def test_a_recipe_that_learns_the_plain_truth_degrades_the_plain_photo(run: Run, photo: Path) -> None:
    assert run(photo, "-n", 1, "--recipe", "tiny_cpu").exit_code == 0
    record = photo.with_name("photo_degraded.json")
    assert json.loads(record.read_text())["sharpened"] is False
    assert run(photo, "--replay", record, "-o", photo.with_name("2.png")).exit_code == 0
    assert photo.with_name("2.png").read_bytes() == photo.with_name("photo_degraded.png").read_bytes()


def test_pairs_are_written_beside_each_other_and_how_to_train_on_them_is_said(run: Run, photo: Path) -> None:
    folder = photo.with_name("pairs")
    result = run(photo, "--export", folder, "-n", 3, "--crop-px", 32, "--seed", 7)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{folder}\n"
    assert f"--gt {folder}/hr --lq {folder}/lr" in result.stderr
    for kind, side in (("hr", 32), ("lr", 8)):
        images = sorted((folder / kind).iterdir())
        assert len(images) == 3
        assert {pixels(path).shape for path in images} == {(side, side, 3)}
    assert len((folder / "parameters.jsonl").read_text().splitlines()) == 3
    again = run(photo, "--export", folder, "-n", 4, "--crop-px", 32, "--seed", 7, "--quiet")
    assert (again.exit_code, again.stderr) == (0, "")
    assert len(list((folder / "lr").iterdir())) == 4


def test_options_of_a_picture_and_of_pairs_do_not_mix(run: Run, photo: Path) -> None:
    folder = photo.with_name("pairs")
    for arguments, words in (
        ((photo, "--export", folder, "-o", "a.png"), "got -o beside --export"),
        ((photo, "--export", folder, "--overwrite"), "got --overwrite beside --export"),
        ((photo, "--crop-px", 64), "got --crop-px beside a picture"),
        ((photo, photo), "expected one image"),
        ((photo.parent,), "expected one image"),
        ((photo, "--export", folder, "-n", 0), "1 to 1,000,000"),
        ((photo.parent, "--export", folder), "from which the photos are taken"),
        ((photo, "--set", "degrade.webpp=1"), "did you mean webp"),
    ):
        result = run(*arguments)
        assert (result.exit_code, words in result.stderr) == (2, True), result.stderr
    assert not folder.exists()


def test_h264_without_pyav_is_refused_before_anything_is_written(
    run: Run, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    for more in ((), ("--export", photo.with_name("pairs"))):
        result = run(photo, "--set", "degrade.h264=0.1", *more)
        assert result.exit_code == 1
        assert "pip install av" in result.stderr
    assert [path.name for path in photo.parent.iterdir()] == ["photo.png"]


def test_help_has_an_example_of_every_option(run: Run) -> None:
    text = run("--help").stdout
    picture = ("-n", "--scale", "--recipe", "--set", "--seed", "--replay", "--overwrite", "-o", "--debug")
    for option in (*picture, "--export", "--crop-px", "--quiet"):
        assert option in EXAMPLES
        assert option in text

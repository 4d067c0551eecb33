"""Reads the recipes that ship, and recipes that are wrong."""

import dataclasses
import json
import os

import pytest

from realesr.errors import UsageError
from realesr.machine.tables import TableError
from realesr.models.compact import Compact
from realesr.models.rrdb import RRDB
from realesr.train.degrade.recipe import CORRECTED, FAITHFUL
from realesr.train.recipe import read_recipe, recipe_from, recipe_names, recipe_purpose, recipe_text
from realesr.train.start import network_at

SMALL = "[compact]\nscale = 4\n[stage1]\niterations = 1\n[stage2]\niterations = 1\ngan = 0.1\n"


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "mine.toml"
        path.write_text(text)
        return str(path)

    return write


def test_the_recipes_that_ship_are_whole():
    assert recipe_names() == sorted(recipe_names())
    assert {"compact_x2", "finetune", "finetune_animevideov3", "finetune_general_x4v3"} <= set(recipe_names())
    assert {"general_x4", "tiny_cpu", "x2plus", "x4plus"} <= set(recipe_names())
    for name in recipe_names():
        recipe = read_recipe(name, network_of=lambda _: Compact(scale=4))
        assert recipe.purpose == recipe_purpose(name) != ""
        if name != "finetune_animevideov3":
            assert dataclasses.replace(recipe.degrade, pool=0) == CORRECTED
        assert recipe.stage2.gan > 0 == recipe.stage1.gan


@pytest.mark.parametrize(
    ("name", "init", "network"),
    [
        ("finetune", "realesrgan-x2plus", RRDB(scale=2)),
        ("finetune_animevideov3", "realesr-animevideov3", Compact(scale=4)),
        ("finetune_general_x4v3", "realesr-general-x4v3", Compact(scale=4, convs=32)),
    ],
)
def test_recipes_for_fine_tuning_are_for_the_network_that_they_start_from(name, init, network):
    recipe = read_recipe(name, network_of=lambda of_recipe: network_at(init if of_recipe == "none" else of_recipe))
    assert (recipe.architecture, recipe.stage1.warm_up, recipe.stage2.warm_up) == (network, 0, 0)
    assert recipe.init in (init, "none")
    assert max(recipe.stage1.learning_rate, recipe.stage2.learning_rate) <= 1e-4


def test_x4plus_has_the_numbers_of_the_paper():
    recipe = read_recipe("x4plus")
    assert (recipe.architecture, recipe.init, recipe.data.read_px) == (RRDB(scale=4), "esrgan-x4", 400)
    first, second = recipe.stage1, recipe.stage2
    assert (first.iterations, second.iterations) == (1_000_000, 400_000)
    for stage, rate in ((first, 2e-4), (second, 1e-4)):
        assert (stage.batch, stage.crop_px, stage.learning_rate, stage.beta1, stage.beta2) == (12, 256, rate, 0.9, 0.99)
        assert (stage.ema_decay, stage.l1, stage.l1_sharp) == (0.999, 1.0, True)
    assert (second.perceptual, second.gan, second.perceptual_sharp, second.gan_sharp) == (1.0, 0.1, True, False)
    assert (second.d_learning_rate, second.d_every, first.perceptual, first.gan) == (1e-4, 1, 0, 0)


def test_the_other_recipes_are_their_networks():
    assert read_recipe("x2plus").architecture == RRDB(scale=2)
    assert read_recipe("x2plus").init == "realesrgan-x4plus"
    assert read_recipe("general_x4").architecture == Compact(scale=4, convs=32)
    assert read_recipe("compact_x2").architecture == Compact(scale=2, convs=32)
    assert read_recipe("compact_x2").init == "realesr-general-x4v3"
    assert read_recipe("tiny_cpu").stage2.perceptual == 0


def test_a_recipe_comes_back_from_what_is_logged_of_it():
    for name in recipe_names():
        changes = ["degrade.arithmetic=faithful", "stage1.clip_norm=2"]
        recipe = read_recipe(name, changes, network_of=lambda _: Compact(scale=4))
        assert recipe_from(json.loads(json.dumps(recipe.as_dict()))) == recipe


def test_checkpoints_that_name_every_family_are_read():
    recipe = read_recipe("general_x4")
    assert "rrdb" not in recipe.as_dict()
    assert recipe_from({**recipe.as_dict(), "rrdb": None}) == recipe


def test_the_network_is_named_by_its_family_alone(file):
    text = SMALL.replace("[compact]", "[compat]")
    with pytest.raises(TableError) as caught:
        read_recipe(file(text))
    assert caught.value.lines == (
        "compat = {'scale': 4} is no key here: did you mean compact?",
        "got no network or two, expected one table of [rrdb], [compact], [span]",
    )
    with pytest.raises(TableError, match=r"architecture = .* is no key here"):
        read_recipe(file(SMALL), ["architecture.scale=4"])


def test_degradation_starts_from_the_recipe_that_it_names(file):
    assert read_recipe(file(SMALL)).degrade == CORRECTED
    assert read_recipe(file(SMALL + '[degrade]\narithmetic = "faithful"\n')).degrade == FAITHFUL
    changed = read_recipe(file(SMALL + "[degrade.second]\nblur = 0.5\n")).degrade
    assert changed.second.blur == 0.5
    assert changed.second.up == CORRECTED.second.up


def test_words_of_the_command_line_go_over_the_file(file):
    recipe = read_recipe(file(SMALL), ["stage1.batch=3", "seed=7", "compact.convs=2"])
    assert (recipe.stage1.batch, recipe.seed, recipe.architecture) == (3, 7, Compact(scale=4, convs=2))


def test_all_that_is_wrong_is_told_at_once(file):
    text = SMALL.replace("gan", "gann") + "learning_rate = -1\n[data]\nread_px = 3\nflip = 1\n[degrade]\nphotons = 0\n"
    with pytest.raises(TableError) as caught:
        read_recipe(file(text))
    assert caught.value.lines == (
        "degrade: got photons = 0.0, expected a number above 0",
        "stage2.gann = 0.1 is no key here: did you mean gan?",
        "stage2: got learning_rate = -1.0, expected 0 to 10; got learning_rate = -1.0, expected a number above 0; "
        "got min_learning_rate = 0, expected at most the learning rate, -1",
        "data.flip = 1: expected true or false",
        "data: got read_px = 3, expected 16 to 8,192",
    )
    assert "has 5 problems" in str(caught.value)


def test_a_wrong_stage_hides_nothing_of_the_rest(file):
    with pytest.raises(TableError) as caught:
        read_recipe(
            file(SMALL), ["stage1.batchsize=8", "stage1.l1=-1", "stage2.iterations=x", "stage2.l1=-2", "seed=-1"]
        )
    assert caught.value.lines == (
        "stage1.batchsize = 8 is no key here: did you mean batch?",
        "stage1: got l1 = -1.0, expected 0 to 1,000,000",
        "stage2.iterations = 'x': expected a whole number",
        "stage2: got l1 = -2.0, expected 0 to 1,000,000",
        "got seed = -1, expected 0 to 9,007,199,254,740,991",
    )


def test_a_stage_that_is_not_run_need_not_fit_the_rest(file):
    changes = ["data.read_px=128", "stage1.crop_px=128"]
    assert read_recipe(file(SMALL), changes, stages=["stage1"]).stage1.crop_px == 128
    with pytest.raises(TableError, match=r"got stage2.crop_px = 256, expected at most data.read_px = 128"):
        read_recipe(file(SMALL), changes, stages=["stage2"])


def test_a_recipe_without_a_network_takes_the_one_that_training_starts_from(file):
    text = "init = 'photos.pth'\n" + SMALL.partition("scale = 4\n")[2]
    asked = []

    def network_of(init):
        asked.append(init)
        return Compact(scale=2, convs=3)

    recipe = read_recipe(file(text), network_of=network_of)
    assert (asked, recipe.architecture) == (["photos.pth"], Compact(scale=2, convs=3))
    assert recipe_from(recipe.as_dict()) == recipe
    with pytest.raises(TableError, match="got no network or two, expected one table of"):
        read_recipe(file(text))
    assert read_recipe(file(SMALL), network_of=network_of).architecture == Compact(scale=4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("stage1.crop_px=30", "got stage1.crop_px = 30, expected a multiple of the scale 4"),
        ("stage2.crop_px=404", "got crop_px = 404, expected a multiple of 8: the discriminator halves it three times"),
        ("data.read_px=128", "got stage1.crop_px = 256, expected at most data.read_px = 128"),
        ("data.read_px=401", "got data.read_px = 401, expected a multiple of 4"),
        ("rrdb.scale=4", "got no network or two, expected one table of"),
        ("stage1.accumulate=5", "got accumulate = 5, expected a divisor of batch = 12"),
        ("compact.scale=0", "cannot be: expected positive numbers"),
        ("stage1.gamma=0", "got gamma = 0.0, expected a number above 0"),
        ("data.pair_share=2", "got pair_share = 2.0, expected 0 to 1"),
        ("validation.crops=0", "got crops = 0, expected 1 to 10,000"),
        ("stage1.gan=0.1", "got stage1.gan or stage1.perceptual above 0, expected 0"),
        ("stage2.gan=0", "got stage2.gan = 0, expected more"),
        ("stage2.d_warm_up=1", "expected more iterations or less of the others: the generator would never learn"),
        ("save.keep=0", "got keep = 0, expected 1 to 1,000,000"),
    ],
)
def test_values_that_cannot_be_are_told_with_what_can(file, change, message):
    with pytest.raises(TableError) as caught:
        read_recipe(file(SMALL), [change])
    assert any(message in line for line in caught.value.lines), caught.value.lines


def _keys(table, where=""):
    for key, value in table.items():
        yield where + key
        if isinstance(value, dict):
            yield from _keys(value, f"{where}{key}.")


HOSTILE_COUNT = f"{10**9 + 1}"
HOSTILE = (
    *("nan", "inf", "-inf", "-1", "1e308", "1e-320", "true", "'x'", "[]", "{}", "[[1]]", "[nan, nan]", "[inf, 1]"),
    *("[0.1, 0.2, nan]", "[1e308, 1e308]", "[1000000001]", "{a = {b = {c = 1}}}", "1979-05-27", "'\\u001b[31m'"),
    *(HOSTILE_COUNT, "9" * 25, "9" * 5000, "0x" + "f" * 5000, "[" * 50 + "]" * 50, "[" * 5000 + "]" * 5000),
)


@pytest.mark.long
def test_each_value_of_each_key_is_taken_or_refused_in_one_line(file):
    path = file(SMALL)
    for key in _keys(read_recipe(path).as_dict()):
        for value in HOSTILE:
            try:
                read_recipe(path, [f"{key}={value}"])
            except UsageError as error:
                assert str(error).isprintable() and len(str(error)) < 600, (key, value[:20])
                continue
            assert (key, value) == ("seed", HOSTILE_COUNT) or value in (
                "1e-320",
                "true",
                "[]",
                "{}",
                "'x'",
                "'\\u001b[31m'",
            ), (key, value[:20])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("seed=-1", "got seed = -1, expected 0 to 9,007,199,254,740,991"),
        ("stage1.batch=1000000000", "stage1: got batch = 1000000000, expected 1 to 10,000"),
        ("data.workers=1000000000", "data: got workers = 1000000000, expected 0 to 512"),
        ("compact.convs=1000000000", "compact: got convs = 1000000000, expected 0 to 4,096"),
        ("discriminator.features=0", "discriminator: got features = 0, expected 1 to 4,096"),
        ("discriminator.channels=4", "discriminator: this discriminator sees 4 channels: expected 3 (an image) or 6"),
        ("stage2.gan_adaptive=1", "stage2.gan_adaptive = 1: expected true or false"),
        ("stage1.learning_rate=nan", "stage1.learning_rate = nan: expected a number"),
        ("stage1.milestones=[-1]", "got milestones = [-1], expected iterations"),
        ("degrade.first.up=[1, 1e9]", "expected two numbers of 0.01 or more, at most 16"),
        ("stage1.bach=3", "stage1.bach = 3 is no key here: did you mean batch?"),
        ("version=0x" + "f" * 5000, "expected 1 or lower"),
        ("a..b=1", "got the change a..b=1, expected key=value"),
        ("\x1b[31m=1", r"'\x1b[31m' = 1 is no key here"),
        ("seed=[" + "[" * 90_000, "too many digits or levels"),
    ],
)
def test_values_beyond_all_sense_are_told_with_their_range(file, change, message):
    with pytest.raises(UsageError) as caught:
        read_recipe(file(SMALL), [change])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 5000,
        "[" + ".".join("a" * 3000) + "]",
        "seed = " + "9" * 5000,
        "a = " + "{a=" * 5000,
        "\0",
    ],
    ids=range(5),
)
def test_toml_that_nobody_wants_to_read_is_refused(file, text):
    with pytest.raises(UsageError, match=r"is no TOML|too many|within each other"):
        read_recipe(file(text))


def test_a_long_list_of_problems_is_cut(file):
    with pytest.raises(TableError, match=r"has 500 problems: .*; and 492 more$") as caught:
        read_recipe(file("".join(f"key{number} = 1\n" for number in range(500)) + SMALL))
    assert len(caught.value.lines) == 500


def test_something_else_in_the_place_of_a_recipe_is_told(tmp_path):
    (tmp_path / "large.toml").write_bytes(b"#" * (1 << 21))
    os.mkfifo(tmp_path / "pipe.toml")
    for name in ("large.toml", "pipe.toml"):
        with pytest.raises(UsageError, match="is no recipe: expected a file"):
            read_recipe(str(tmp_path / name))
    for name in (str(tmp_path), "a\0b", "x" * 5000):
        with pytest.raises(UsageError, match="got the recipe"):
            read_recipe(name)


@pytest.mark.parametrize(
    ("iterations", "d_warm_up", "d_every", "is_wrong"),
    [
        (100, 99, 1, False),
        (100, 100, 1, True),
        (100, 81, 80, True),
        (100, 80, 80, False),
        (1, 0, 5, False),
    ],
)
def test_a_warm_up_after_which_the_generator_never_learns_is_refused(file, iterations, d_warm_up, d_every, is_wrong):
    values = {"iterations": iterations, "d_warm_up": d_warm_up, "d_every": d_every}
    changes = [f"stage2.{key}={value}" for key, value in values.items()]
    if not is_wrong:
        assert read_recipe(file(SMALL), changes).stage2.d_warm_up == d_warm_up
        return
    with pytest.raises(TableError, match=f"got stage2.d_warm_up = {d_warm_up}.*the generator would never learn"):
        read_recipe(file(SMALL), changes)


def test_a_recipe_of_a_later_realesr_is_refused(file):
    with pytest.raises(UsageError, match="is of version 2, expected 1 or lower: it needs a later realesr"):
        read_recipe(file("version = 2\n" + SMALL))


def test_recipes_that_cannot_be_read_are_told(file, tmp_path):
    with pytest.raises(UsageError, match=r"got the recipe x4plas, expected one of compact_x2, .*finetune, .*, x4plus"):
        recipe_text("x4plas")
    with pytest.raises(UsageError, match="is no TOML"):
        read_recipe(file("a = "))
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="is no text"):
        read_recipe(str(tmp_path / "binary.toml"))

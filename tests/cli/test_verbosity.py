"""`-q` and `-v`: less and more on stderr, and the same results."""

import logging
from pathlib import Path

import pytest

from .conftest import Command, FakeUpscaler, write
from .test_naming import NEAREST, picture


@pytest.mark.parametrize("option", ["-q", "--quiet"])
def test_quiet_has_a_short_name(realesr: Command, fake: FakeUpscaler, folder: Path, option: str) -> None:
    write(folder, "a.jpg", "b.jpg", "b_x4.jpg")
    result = realesr("upscale", ".", option)
    assert (result.stdout, result.stderr) == ("a_x4.jpg\n", "")


@pytest.mark.parametrize("option", ["-v", "--verbose"])
def test_verbose_tells_plan_weights_engine_tiles_and_stages(realesr: Command, folder: Path, option: str) -> None:
    picture(folder / "a.png")
    result = realesr("upscale", "a.png", "-m", "realesr-general-x4v3", option)
    lines = result.stderr.splitlines()
    assert result.stdout == "a_x4.png\n"
    assert lines[0] == "a.png becomes a_x4.png"
    assert any(line.startswith("realesr-general-x4v3: weights from ") for line in lines)
    assert any(" fp32 on cpu, " in line and "tiles of " in line and " that overlap by 34 px" in line for line in lines)
    assert any(
        line.startswith("a.png: decoding ") and "network " in line and line.endswith("s, side by side")
        for line in lines
    )


def test_verbose_tells_where_an_original_is(realesr: Command, folder: Path) -> None:
    picture(folder / "a.png")
    result = realesr("upscale", "a.png", "--in-place", "--backup", "kept", "-v", *NEAREST)
    assert "a.png: the original is kept/a.png\n" in result.stderr


def test_without_verbose_the_log_is_not_shown_and_stays_as_it_was(realesr: Command, folder: Path) -> None:
    picture(folder / "a.png")
    log = logging.getLogger("realesr")
    before = log.level, list(log.handlers)
    assert realesr("upscale", "a.png", *NEAREST).stderr.count("\n") == 1
    assert realesr("upscale", "a.png", "--overwrite", "-v", *NEAREST).stderr.count("\n") > 1
    assert (log.level, log.handlers) == before


def test_quiet_and_verbose_contradict_each_other(realesr: Command, fake: FakeUpscaler, folder: Path) -> None:
    write(folder, "a.jpg")
    result = realesr("upscale", "a.jpg", "-q", "-v")
    assert (result.exit_code, fake.opened) == (2, 0)
    assert result.stderr == "error: got -q and -v, which contradict each other: leave one of them out\n"

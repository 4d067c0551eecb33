"""Lists of inputs: `--files-from`, from a file or stdin."""

import os
import sys
from pathlib import Path

import pytest

from realesr.cli.upscaling.inputs import inputs_from
from realesr.errors import InputError, UsageError

from .conftest import Command, FakeUpscaler, write


def test_a_list_stands_beside_the_paths_that_are_named(realesr: Command, fake: FakeUpscaler, folder: Path) -> None:
    write(folder, "a.jpg", "in/b.png", "in/c.png", "d e.webp")
    (folder / "list").write_text("in\n\nd e.webp\n")
    assert realesr("upscale", "a.jpg", "--files-from", "list", "-o", "out").exit_code == 0
    assert [str(source) for source, *_ in fake.asked] == ["a.jpg", "in/b.png", "in/c.png", "d e.webp"]


def test_a_list_comes_from_stdin_and_its_names_may_end_in_a_nul(
    realesr: Command, fake: FakeUpscaler, folder: Path
) -> None:
    write(folder, "a.jpg", "line\nbreak.png")
    result = realesr("upscale", "--files-from", "-", "-0", data=b"a.jpg\0line\nbreak.png\0")
    assert result.exit_code == 0
    assert [source.name for source, *_ in fake.asked] == ["a.jpg", "line\nbreak.png"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere file names are text")
def test_names_in_a_list_are_bytes(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(b"caf\xe9.png\n-\n")
    assert [os.fsencode(path) for path in inputs_from([], str(tmp_path / "list"), is_null_separated=False).paths] == [
        b"caf\xe9.png",
        b"-",
    ]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "expected images or folders, - for stdin, or a list by --files-from"),
        (["--files-from", "missing"], 2, "got --files-from missing, which cannot be read (No such file"),
        (["--files-from", "."], 2, "got --files-from ., which cannot be read ("),
        (["--files-from", "empty"], 1, "the list empty is empty: expected one path a line"),
        (["--files-from", "-", "-0"], 1, "the list on stdin is empty: expected one path a NUL"),
        (["a.jpg", "-0"], 2, "got -0 without --files-from"),
        ([""], 2, "got an empty path, expected an image or a folder"),
        (["a.jpg", "", "--in-place", "--no-backup"], 2, "got an empty path"),
    ],
)
def test_a_list_that_names_nothing_is_one_line(
    realesr: Command, fake: FakeUpscaler, folder: Path, words: list[str], code: int, message: str
) -> None:
    (folder / "empty").write_text("\n")
    result = realesr("upscale", *words, data=b"")
    assert (result.exit_code, result.stdout, fake.opened) == (code, "", 0)
    assert message in result.stderr


def test_a_path_of_a_list_that_is_not_there_fails_alone(realesr: Command, fake: FakeUpscaler, folder: Path) -> None:
    write(folder, "a.jpg")
    result = realesr("upscale", "--files-from", "-", data=b"missing.jpg\na.jpg\n")
    assert (result.exit_code, result.stdout) == (1, "a_x4.jpg\n")
    assert "error: missing.jpg does not exist" in result.stderr


def test_no_input_is_refused_before_a_list_is_read() -> None:
    with pytest.raises(UsageError, match="without --files-from"):
        inputs_from(["a.jpg"], None, is_null_separated=True)
    with pytest.raises(InputError, match="is empty"):
        inputs_from([], os.devnull, is_null_separated=False)

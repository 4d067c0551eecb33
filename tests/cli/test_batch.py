"""A batch goes on: one file's trouble never ends the others, and each is named with its own reason."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from realesr.models.compact import Compact

from .conftest import Command, FakeUpscaler, write

REALESR = [sys.executable, "-m", "realesr", "upscale"]

Run = Callable[..., subprocess.CompletedProcess[bytes]]

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="no such files or streams")
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere file names are text")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """`run("in", shell="> /dev/full")`: the command as a process, in `tmp_path`, with a network of scale 2."""
    shapes = Compact(scale=2, features=4, convs=1).shapes
    save_file({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, tmp_path / "own.safetensors")

    def run(*arguments: str, shell: str = "", **variables: str) -> subprocess.CompletedProcess[bytes]:
        words = [*REALESR, "-m", "own.safetensors", "--engine", "nearest", *arguments]
        command = ["/bin/sh", "-c", f'"$@" {shell}', "sh", *words]
        environment = os.environ | {"REALESR_CACHE": str(tmp_path / "cache"), "NO_COLOR": "1", **variables}
        return subprocess.run(command, input=b"", capture_output=True, cwd=tmp_path, env=environment, timeout=60)

    return run


def pictures(folder: Path, *names: str | bytes) -> None:
    """Make small images; a name in bytes need not be text."""
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4), (10, 200, 30)).save(folder.parent / "picture.png")
    for name in names:
        (folder / os.fsdecode(name)).write_bytes((folder.parent / "picture.png").read_bytes())


ODD_NAMES = (b"line\nbreak.png", b"\x1b[31mred.png", b"caf\xe9.png", "日本 \U0001f600.png".encode(), b"plain.png")


@linux_only
def test_odd_names_are_bytes_on_stdout_and_quoted_on_stderr(tmp_path: Path, run: Run) -> None:
    pictures(tmp_path / "in", *ODD_NAMES, b"broken\x1b]0;title\x07.png")
    (tmp_path / "in" / "broken\x1b]0;title\x07.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    result = run("in", "-o", "out")
    assert result.returncode == 1
    made = sorted(os.fsencode(path) for path in (tmp_path / "out").glob("*.png"))
    assert result.stdout == b"".join(b"out/" + os.path.basename(path) + b"\n" for path in made)
    words = result.stderr.decode()
    assert not {char for char in words if ord(char) < 32} - {"\n"}
    for name in (r"'line\nbreak.png'", r"'\x1b[31mred.png'", r"'caf\xe9.png'", "日本 \U0001f600.png", "plain.png"):
        assert f"{name}  6 x 4" in words
    assert r"error: 'in/broken\x1b]0;title\x07.png' is " in words


@linux_only
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "ascii:strict"])
def test_names_that_stdout_cannot_print_are_printed_as_bytes(tmp_path: Path, run: Run, encoding: str) -> None:
    pictures(tmp_path / "in", *ODD_NAMES)
    result = run("in", "-o", "out", PYTHONIOENCODING=encoding, PYTHONUTF8="1")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count(b"out/") == len(ODD_NAMES)
    assert "日本 \U0001f600_x2.png\n".encode() in result.stdout


@linux_only
def test_json_escapes_odd_names(tmp_path: Path, run: Run) -> None:
    pictures(tmp_path / "in", *ODD_NAMES)
    records = [json.loads(line) for line in run("in", "-o", "out", "--json").stdout.splitlines()]
    sources = {os.fsencode(record["source"]) for record in records}
    assert sources == {b"in/" + name for name in ODD_NAMES}


@posix_only
@pytest.mark.parametrize(
    ("shell", "code"),
    [
        (">&-", 1),
        ("2>&-", 0),
        ("<&-", 0),
        (">&- 2>&- <&-", 1),
        pytest.param("> /dev/full", 1, marks=pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only")),
        pytest.param("2> /dev/full", 0, marks=pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only")),
    ],
)
def test_all_is_done_where_a_stream_is_closed_or_full(tmp_path: Path, run: Run, shell: str, code: int) -> None:
    pictures(tmp_path / "in", "a.png", "b.png", "c.png")
    result = run("in", "-o", "out", shell=shell)
    assert result.returncode == code
    assert b"Traceback" not in result.stderr
    if code and "2>" not in shell:
        assert result.stderr.count(b"results cannot be written to stdout") == 1
    for path in sorted((tmp_path / "in").iterdir()):  # no message went into a file that got the number of stderr
        with Image.open(tmp_path / "out" / f"{path.stem}_x2.png") as image:
            assert image.convert("RGB").getpixel((11, 7)) == (10, 200, 30)
    assert len(list((tmp_path / "out").glob("*.png"))) == 3


@posix_only
def test_a_star_a_second_time_does_what_is_missing(tmp_path: Path, run: Run) -> None:
    pictures(tmp_path / "in", "a.png")
    assert run("in/a.png").returncode == 0
    pictures(tmp_path / "in", "b.png")
    result = run("in/a.png", "in/a_x2.png", "in/b.png")
    assert (result.returncode, result.stdout) == (0, b"in/b_x2.png\n")
    assert b"in/a_x2.png is taken for an output of in/a.png: skipped" in result.stderr
    assert b"in/a_x2.png exists: skipped" in result.stderr
    assert result.stderr.splitlines()[-1] == b"1 done, 0 failed, 2 skipped"
    assert run("in/a_x2.png").stdout == b"in/a_x2_x2.png\n"


@posix_only
def test_each_trouble_in_a_folder_has_a_line_and_the_good_ones_are_done(tmp_path: Path, run: Run) -> None:
    pictures(tmp_path / "in", "a.png", "L" * 251 + ".png", "z.png")
    (tmp_path / "in/dead.png").symlink_to("gone.png")
    (tmp_path / "in/empty.png").touch()
    (tmp_path / "in/page.jpg").write_text("<html><body>not found</body></html>")
    os.mkfifo(tmp_path / "in/pipe.png")
    (tmp_path / "in/y_x2.png").mkdir()
    pictures(tmp_path / "in", "y.png")
    result = run("in", "--json")
    records = {Path(record["source"]).name: record for record in map(json.loads, result.stdout.splitlines())}
    reasons = {name: record["error"] for name, record in records.items() if "error" in record}
    assert result.returncode == 1
    assert {name for name, record in records.items() if "output_px" in record} == {"a.png", "z.png"}
    expected = {
        "L" * 251 + ".png": "its name has 258 bytes",
        "dead.png": "is a link to gone.png, which does not exist",
        "empty.png": "is empty (0 bytes)",
        "page.jpg": "is a web page (HTML)",
        "pipe.png": "is a pipe",
        "y.png": "y_x2.png is a folder",
    }
    assert reasons.keys() == expected.keys()
    for name, words in expected.items():
        assert words in reasons[name]
        assert words.encode() in result.stderr
    assert result.stderr.splitlines()[-1] == b"2 done, 6 failed, 0 skipped"


@posix_only
def test_a_pipe_as_an_argument_is_refused_as_what_it_is(tmp_path: Path, run: Run) -> None:
    pictures(tmp_path / "in", "a.png")
    result = run("/dev/stdin", "in/a.png", "-o", "out")
    assert b"error: /dev/stdin is a pipe: expected an image file; write the data to a file first" in result.stderr
    assert result.stdout == b"out/a_x2.png\n"


@posix_only
@pytest.mark.parametrize("output", ["blocked/below", "blocked"])
def test_an_output_below_a_file_fails_in_one_line_a_file(tmp_path: Path, run: Run, output: str) -> None:
    pictures(tmp_path / "in", "a.png", "b.png")
    (tmp_path / "blocked").write_text("a file")
    result = run("in", "-o", output)
    assert (result.returncode, result.stdout) == (1, b"")
    assert result.stderr.decode().splitlines() == [
        "error: a.png: blocked is no folder: expected one for the output; --output names another",
        "error: b.png: blocked is no folder: expected one for the output; --output names another",
        "0 done, 2 failed, 0 skipped",
    ]


def test_an_input_that_vanishes_is_named(realesr: Command, fake: FakeUpscaler, folder: Path) -> None:
    from realesr.images.reader import open_image

    write(folder, "a.jpg", "b.jpg")
    upscale_file = fake.upscale_file

    def vanish(source: Path, target: Path, **options: Any) -> Any:
        if source.name == "a.jpg":
            source.unlink()
            open_image(source)
        return upscale_file(source, target, **options)

    fake.upscale_file = vanish  # type: ignore[method-assign]
    result = realesr("upscale", ".")
    assert (result.exit_code, result.stdout) == (1, "b_x4.jpg\n")
    assert "error: a.jpg does not exist" in result.stderr


def test_a_link_to_the_source_in_the_place_of_its_output_fails_alone(
    realesr: Command, fake: FakeUpscaler, folder: Path
) -> None:
    write(folder, "in/a.jpg", "in/b.jpg")
    (folder / "out").mkdir()
    (folder / "out/a_x4.jpg").hardlink_to(folder / "in/a.jpg")
    result = realesr("upscale", "in", "-o", "out", "--overwrite")
    assert (result.exit_code, result.stdout) == (1, "out/b_x4.jpg\n")
    assert "error: out/a_x4.jpg is the input in/a.jpg itself" in result.stderr


def test_an_argument_that_may_not_be_read_does_not_stop_the_others(
    realesr: Command, fake: FakeUpscaler, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, "closed/a.jpg", "b.jpg")
    scandir, access = os.scandir, os.access

    def refuse(path: Any) -> Any:
        if Path(path).name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("os.scandir", refuse)
    monkeypatch.setattr("os.access", lambda path, mode: Path(path).name != "closed" and access(path, mode))
    result = realesr("upscale", "closed", "b.jpg")
    assert (result.exit_code, result.stdout) == (1, "b_x4.jpg\n")
    assert "error: closed cannot be read: Permission denied" in result.stderr


def test_the_shares_of_several_commands_are_a_folder_together(run: Run, tmp_path: Path) -> None:
    pictures(tmp_path / "in", *(f"{number}.png" for number in range(7)))
    outputs: list[bytes] = []
    for share in ("1/3", "2/3", "3/3"):
        outputs += run("in", "-o", "out", "--shard", share).stdout.split()
    assert sorted(outputs) == sorted(f"out/{number}_x2.png".encode() for number in range(7))
    assert run("in", "-o", "out", "--shard", "4/3").returncode == 2

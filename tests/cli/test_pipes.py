"""`-`: an image from stdin, to stdout, or both; stdout gets the whole image or nothing."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from realesr.cli.upscaling import pipes
from realesr.cli.upscaling.pipes import PREFIX

from .conftest import Command

REALESR = [sys.executable, "-m", "realesr", "upscale", "--engine", "nearest", "-m", "realesr-animevideov3"]

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="no such streams or signals")


def picture(name: str = "PNG", size: tuple[int, int] = (6, 4)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (10, 200, 30)).save(file, name)
    return file.getvalue()


def run(folder: Path, *arguments: str, data: bytes = b"", shell: str = '"$@"') -> subprocess.CompletedProcess[bytes]:
    """The command as a process in `folder`, whose temporary files lie in `folder`/tmp."""
    (folder / "tmp").mkdir(exist_ok=True)
    environment = os.environ | {"TMPDIR": str(folder / "tmp"), "NO_COLOR": "1"}
    command = ["/bin/sh", "-c", shell, "sh", *REALESR, *arguments]
    return subprocess.run(command, input=data, capture_output=True, cwd=folder, env=environment, timeout=60)


def opened(data: bytes) -> tuple[str | None, tuple[int, int]]:
    with Image.open(io.BytesIO(data)) as image:
        return image.format, image.size


@posix_only
def test_stdin_goes_to_stdout_with_no_word_between(tmp_path: Path) -> None:
    result = run(tmp_path, "-", data=picture("JPEG"))
    assert (result.returncode, opened(result.stdout)) == (0, ("JPEG", (24, 16)))
    assert result.stderr.startswith(b"stdin  6 x 4 -> 24 x 16")
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize(
    ("source", "options", "expected"),
    [("GIF", [], "PNG"), ("JPEG", ["--format", "png"], "PNG"), ("WEBP", ["-o", "-"], "WEBP")],
)
def test_the_format_of_stdout_is_the_one_asked_for_or_the_inputs(
    realesr: Command, folder: Path, source: str, options: list[str], expected: str
) -> None:
    result = realesr("upscale", "-", *options, "--engine", "nearest", data=picture(source))
    assert (result.exit_code, opened(result.stdout_bytes)) == (0, (expected, (24, 16)))


def test_stdin_to_a_file_prints_the_files_name_as_ever(realesr: Command, folder: Path) -> None:
    words = ["upscale", "-", "-o", "out.webp", "--engine", "nearest"]
    result = realesr(*words, data=picture())
    assert (result.exit_code, result.stdout) == (0, "out.webp\n")
    assert opened((folder / "out.webp").read_bytes()) == ("WEBP", (24, 16))
    record = json.loads(realesr(*words, "--json", "--overwrite", data=picture()).stdout)
    assert (record["source"], record["target"]) == ("-", "out.webp")


@posix_only
def test_a_file_goes_to_stdout(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(picture("JPEG"))
    result = run(tmp_path, "photo.jpg", "-o", "-", "-q")
    assert (opened(result.stdout), result.stderr) == (("JPEG", (24, 16)), b"")
    assert {item.name for item in tmp_path.iterdir()} == {"photo.jpg", "tmp"}


@posix_only
def test_a_reader_that_has_gone_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(picture())
    shell = '{ "$@"; echo $? >code; } | true; cat code'
    result = run(tmp_path, "photo.png", "-o", "-", "-q", shell=shell)
    assert (result.stdout, result.stderr) == (b"1\n", b"")
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_full_stdout_is_one_line(tmp_path: Path) -> None:
    result = run(tmp_path, "-", "-q", data=picture(), shell='"$@" >/dev/full')
    assert result.returncode == 1
    assert result.stderr == b"error: the image cannot be written to stdout (No space left on device)\n"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "error: stdin is empty (0 bytes): expected an image\n"),
        (b"hello", "error: stdin is not an image: it begins with 'hello', expected"),
        (picture()[:-30], "error: stdin is truncated"),
    ],
)
def test_what_is_no_image_gives_one_line_and_nothing_on_stdout(
    realesr: Command, folder: Path, data: bytes, message: str
) -> None:
    result = realesr("upscale", "-", "--engine", "nearest", data=data)
    assert (result.exit_code, result.stdout_bytes) == (1, b"")
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1


def test_a_failure_is_a_record_with_json(realesr: Command, folder: Path) -> None:
    result = realesr("upscale", "-", "-o", "out.png", "--json", data=b"")
    assert json.loads(result.stdout) == {"source": "-", "error": "stdin is empty (0 bytes): expected an image"}


def test_stdin_is_not_kept_without_a_limit(realesr: Command, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipes, "METADATA_BYTES", 20)
    result = realesr("upscale", "-", "--engine", "nearest", "--max-pixels", 10, data=b"x" * 101)
    assert (result.exit_code, result.stdout_bytes) == (1, b"")
    assert result.stderr == "error: stdin holds more than 100 bytes: expected one image\n"


def test_an_image_that_is_skipped_leaves_stdout_empty_and_is_an_error(realesr: Command, folder: Path) -> None:
    result = realesr("upscale", "-", "--engine", "nearest", "--long-side", 6, data=picture())
    assert (result.exit_code, result.stdout_bytes) == (1, b"")
    assert result.stderr.splitlines()[-1] == "error: nothing was written to stdout, for the image was skipped"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("- photo.png", "got -, which is stdin, beside other inputs"),
        ("- --files-from list", "got -, which is stdin, beside other inputs"),
        ("- --json", "got --json while the image goes to stdout"),
        ("photo.png -o - --json", "got --json while the image goes to stdout"),
        (". -o -", "takes one image, for many inputs"),
        ("photo.png photo.png -o -", "takes one image, for many inputs"),
        ("- -o out/", "got -o out, a folder, for stdin, which has no name"),
        ("- --name {stem}", "got --name with -"),
        ("- --shard 1/2", "got --shard with -"),
        ("- --in-place --no-backup", "got --in-place and -"),
        ("- --quality 80 --format png", "got --quality 80, but stdout is in a lossless format"),
    ],
)
def test_what_cannot_go_through_a_pipe_is_wrong_usage(realesr: Command, folder: Path, words: str, message: str) -> None:
    (folder / "photo.png").write_bytes(picture())
    result = realesr("upscale", *words.split(), data=picture())
    assert (result.exit_code, result.stdout_bytes) == (2, b"")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert [item.name for item in folder.iterdir()] == ["photo.png"]


@posix_only
@pytest.mark.parametrize("words", [["-"], ["photo.png", "-o", "-"]])
def test_a_terminal_is_neither_read_from_nor_written_to(tmp_path: Path, words: list[str]) -> None:
    import pty

    (tmp_path / "photo.png").write_bytes(picture())
    ours, theirs = pty.openpty()
    command = [*REALESR, *words]
    result = subprocess.run(command, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, cwd=tmp_path, timeout=60)
    os.close(ours)
    os.close(theirs)
    assert result.returncode == 2
    assert b"is a terminal" in result.stderr


def test_a_file_that_is_called_like_the_stream_is_named_by_its_folder(realesr: Command, folder: Path) -> None:
    (folder / "-").write_bytes(picture())
    assert realesr("upscale", "./-", "--engine", "nearest").stdout == "-_x4.png\n"


@posix_only
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_no_temporary_file(tmp_path: Path, number: signal.Signals, code: int) -> None:
    with subprocess.Popen(
        [*REALESR, "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | {"TMPDIR": str(tmp_path)}
    ) as process:
        assert process.stdin is not None
        process.stdin.write(picture())
        process.stdin.flush()
        until = time.monotonic() + 30
        while not list(tmp_path.glob(f"{PREFIX}*/stdin")) and time.monotonic() < until:
            time.sleep(0.02)
        process.send_signal(number)
        assert process.wait(30) == code
    assert list(tmp_path.iterdir()) == []

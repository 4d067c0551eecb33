"""The command as a process of its own: real files, signals, pipes. The network is `--engine nearest`."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from realesr.models.compact import Compact

REALESR = [sys.executable, "-m", "realesr"]


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """A network of scale 2 in a file: what `nearest` needs to know its scale."""
    shapes = Compact(scale=2, features=4, convs=1).shapes
    path = tmp_path / "own.safetensors"
    save_file({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, path)
    return path


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return os.environ | {"REALESR_CACHE": str(tmp_path / "cache"), "PYTHONIOENCODING": "", "NO_COLOR": "1"}


def picture(path: Path, width: int = 6, height: int = 4) -> np.ndarray:  # type: ignore[type-arg]
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def upscale(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [*REALESR, "upscale", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)  # type: ignore[call-overload, no-any-return]


def test_files_and_folders_are_enlarged_in_one_call(tmp_path: Path, network: Path, environment: dict[str, str]) -> None:
    pixels = picture(tmp_path / "in/a.png")
    picture(tmp_path / "in/deep/b.tif", 5, 3)
    (tmp_path / "in/broken.png").write_bytes(b"\x89PNG\r\n\x1a\nand no more")
    arguments = ("in", "--recursive", "-o", "out", "--json", "-m", network, "--engine", "nearest")
    result = upscale(*arguments, cwd=tmp_path, env=environment)
    assert result.returncode == 1
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [record.get("output_px") for record in records] == [[12, 8], None, [10, 6]]
    assert "broken.png" in records[1]["error"]
    enlarged = np.asarray(Image.open(tmp_path / "out/a_x2.png"))
    np.testing.assert_array_equal(enlarged, pixels.repeat(2, axis=0).repeat(2, axis=1))
    assert sorted(path.name for path in (tmp_path / "out").rglob("*") if path.is_file()) == [
        "a_x2.png",
        "b_x2.tif",
        "realesr-manifest.jsonl",
    ]
    assert result.stderr.splitlines()[-1] == "2 done, 1 failed, 0 skipped"
    again = upscale(*arguments, cwd=tmp_path, env=environment)
    assert again.stderr.splitlines()[-1] == "0 done, 1 failed, 2 skipped"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere file names are text")
def test_a_file_name_that_is_no_text_is_printed_as_its_bytes(
    tmp_path: Path, network: Path, environment: dict[str, str]
) -> None:
    name = tmp_path / os.fsdecode(b"caf\xe9 \xe2\x82\xac.png")
    picture(tmp_path / "a.png")
    (tmp_path / "a.png").rename(name)
    command = [*REALESR, "upscale", str(name), "-m", str(network), "--engine", "nearest"]
    result = subprocess.run(command, capture_output=True, timeout=60, env=environment)
    assert result.returncode == 0, result.stderr
    assert result.stdout == os.fsencode(tmp_path) + b"/caf\xe9 \xe2\x82\xac_x2.png\n"
    assert Path(os.fsdecode(result.stdout.rstrip(b"\n"))).exists()


def _listening_to_signals() -> None:
    """Undo what nohup and a shell's background jobs hand down: signals that are ignored."""
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)


@pytest.fixture
def long_run(tmp_path: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A command that has a minute's work and has begun to write its output."""
    slow = tmp_path / "slow.safetensors"
    shapes = Compact(scale=2, features=32, convs=16).shapes
    save_file({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, slow)
    picture(tmp_path / "in/a.png", 500, 12000)
    out = tmp_path / "out"
    options = ["-o", str(out), "-m", str(slow), "--tile", "64", "--threads", "1", "--no-resume"]
    command = [*REALESR, "upscale", str(tmp_path / "in"), *options]
    with subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, preexec_fn=_listening_to_signals
    ) as process:
        try:
            for _ in range(1200):
                if list(out.glob(".*.part")):
                    break
                assert process.poll() is None, process.communicate()[1]
                time.sleep(0.05)
            yield process
        finally:
            process.kill()


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
@pytest.mark.parametrize(("sent", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_stopped_command_leaves_no_half_file(
    tmp_path: Path, long_run: subprocess.Popen[str], sent: str, code: int
) -> None:
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == [".claim", ".jsonl", ".part"]
    long_run.send_signal(getattr(signal, sent))
    _, words = long_run.communicate(timeout=60)
    assert long_run.returncode == code, words
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["realesr-manifest.jsonl"]
    assert "Traceback" not in words
    if sent == "SIGINT":
        assert words.splitlines()[-1] == "stopped: no half file is left; the same command goes on from here"


@pytest.mark.skipif(sys.platform == "win32", reason="no /bin/sh")
@pytest.mark.parametrize("arguments", [["models"], ["models", "--json"]])
def test_a_reader_that_goes_away_is_no_fault(environment: dict[str, str], arguments: list[str]) -> None:
    process = subprocess.Popen(
        [*REALESR, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(timeout=30) == 1


def test_wrong_usage_ends_with_2() -> None:
    result = upscale("--scale", "many", "a.png")
    assert result.returncode == 2
    assert "--scale" in result.stderr
    assert "Traceback" not in result.stderr

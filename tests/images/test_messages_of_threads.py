"""libvips keeps the messages of all threads in one place: each error must tell the reason of its own file."""

import io
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from realesr.errors import InputError
from realesr.images.libvips import EncoderTurn, own_messages
from realesr.images.reader import open_image
from realesr.images.writer import open_writer

FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "jpg": ("JPEG", {}),
    "png": ("PNG", {}),
    "tif": ("TIFF", {"compression": "tiff_lzw"}),
    "webp": ("WEBP", {}),
    "gif": ("GIF", {}),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return 200 files of five formats: cut, with changed bytes, both, and whole."""
    folder = tmp_path_factory.mktemp("damaged")
    generator = np.random.default_rng(0)
    picture = Image.fromarray(generator.integers(0, 256, (120, 90, 3), np.uint8))
    made = []
    for suffix, (name, options) in FORMATS.items():
        stream = io.BytesIO()
        picture.save(stream, name, **options)
        whole = stream.getvalue()
        for number in range(40):
            data = bytearray(whole[: generator.integers(len(whole) // 5, len(whole))] if number % 2 else whole)
            for _ in range(10 if number % 3 else 0):
                data[generator.integers(60, len(data))] ^= int(generator.integers(1, 256))
            made.append(folder / f"{number}.{suffix}")
            made[-1].write_bytes(data)
    return made


def _read(path: Path) -> str:
    """Return how reading a file ends."""
    try:
        with open_image(path) as reader:
            while len(reader.read_rows(16)):
                pass
    except InputError as error:
        return str(error)
    return "whole"


def _copy(path: Path) -> str:
    """Return how reading a file ends while its rows are written to another one."""
    target = path.with_name(f"{path.name}.copy.tif")
    try:
        with (
            open_image(path) as reader,
            open_writer(target, replace(reader.info, icc=None, exif=None, xmp=None), "tiff") as writer,
        ):
            while len(rows := reader.read_rows(16)):
                writer.write_rows(rows)
    except InputError as error:
        return str(error)
    target.unlink()
    return "whole"


@pytest.mark.parametrize("job", [_read, _copy])
def test_in_threads_each_file_has_the_reason_that_it_has_alone(files: list[Path], job: Callable[[Path], str]) -> None:
    alone = [_read(path) for path in files]
    assert len(set(alone)) > 100
    for _ in range(2):
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(job, files))
        assert [pair for pair in zip(together, alone, strict=True) if pair[0] != pair[1]] == []


def test_an_encoder_that_fails_waits_for_those_who_read() -> None:
    turn = EncoderTurn()
    with ThreadPoolExecutor(1) as pool:
        with own_messages(), own_messages():
            taken = pool.submit(turn.take)
            assert not taken.done()
        taken.result(timeout=10)
        turn.take()
        waiting = pool.submit(_enter_and_leave)
        assert not waiting.done()
        turn.end()
        turn.end()
        waiting.result(timeout=10)


def _enter_and_leave() -> None:
    with own_messages():
        pass


NO_ROOM = """
import os, resource, sys
from pathlib import Path
from PIL import Image
from realesr.errors import InputError
from realesr.images.reader import open_image

path = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    with open_image(path) as reader:
        reader.read_rows(1)
except InputError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of a file's size")
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("has_folder", [True, False])
def test_no_room_for_the_temporary_file_is_not_called_damage(suffix: str, has_folder: bool, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (300, 200)).save(tmp_path / f"turned.{suffix}", exif=exif)
    temporary = tmp_path / "temporary"
    if has_folder:
        temporary.mkdir()
    environment = {"VIPS_DISC_THRESHOLD": "100k", "TMPDIR": str(temporary), "PYTHONDONTWRITEBYTECODE": "1"}
    arguments = [sys.executable, "-c", NO_ROOM, str(tmp_path / f"turned.{suffix}")]
    result = subprocess.run(arguments, capture_output=True, text=True, timeout=60, env=environment)
    reason = "File too large" if has_folder else "No such file or directory"
    assert f"cannot be written to {temporary} ({reason})" in result.stdout, result.stderr
    assert f"turned.{suffix}" in result.stdout
    assert "damaged" not in result.stdout


NO_ROOM_FOR_OUTPUT = """
import resource, sys
from pathlib import Path
import numpy as np
from realesr.errors import OutputError
from realesr.images.info import ImageInfo
from realesr.images.writer import open_writer

resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
info = ImageInfo(width_px=300, height_px=600, bits=8, is_grey=False, has_alpha=False, format="png")
noise = np.random.default_rng(0).integers(0, 256, (600, 300, 3), np.uint8)
try:
    with open_writer(Path(sys.argv[1]), info, sys.argv[2]) as writer:
        for row in range(0, 600, 10):
            writer.write_rows(noise[row : row + 10])
except OutputError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of a file's size")
@pytest.mark.parametrize("fmt", ["tiff", "png", "jpeg", "webp", "avif"])
def test_a_disk_that_becomes_full_is_one_line_and_nothing_on_stderr(fmt: str, tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", NO_ROOM_FOR_OUTPUT, str(tmp_path / "a"), fmt]
    result = subprocess.run(arguments, capture_output=True, text=True, timeout=60)
    assert result.stdout == f"{tmp_path / 'a'} cannot be written (File too large); nothing was left there\n"
    assert result.stderr == ""
    assert list(tmp_path.iterdir()) == []

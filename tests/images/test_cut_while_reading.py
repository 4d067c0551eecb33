"""A file that becomes shorter while it is read is an error of this file alone, and the next one is read."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

CHILD = """
import json, os, shutil, sys
from pathlib import Path
import numpy as np
from realesr.errors import InputError
from realesr.images.reader import open_image

def rows_of(path, after_opening=None, after_reading=None):
    with open_image(path) as reader:
        if after_opening is not None:
            os.truncate(path, after_opening)
        bands = [reader.read_rows(8)]
        if after_reading is not None:
            os.truncate(path, after_reading)
        while len(rows := reader.read_rows(8)):
            bands.append(rows)
        return np.concatenate(bands)

source, other = map(Path, sys.argv[1:])
whole, right = rows_of(source), rows_of(other)
ends = []
for moment in ("after_opening", "after_reading"):
    for length in (0, 100, source.stat().st_size // 2, source.stat().st_size - 10):
        cut = source.with_stem("cut")
        shutil.copy(source, cut)
        try:
            rows = rows_of(cut, **{moment: length})
            ends.append("right" if np.array_equal(rows, whole) else f"{moment} {length}: wrong rows")
        except InputError as error:
            ends.append("refused" if str(cut) in str(error) else f"unnamed: {error}")
        assert np.array_equal(rows_of(other), right)
print(json.dumps(ends))
"""


def _noise() -> Image.Image:
    """Return an image whose file is longer than what is read at once, whatever its format."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (400, 500, 3), np.uint8))


def _save_deep_ppm(path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (300, 400, 3)).astype(">u2")
    path.write_bytes(b"P6\n400 300\n65535\n" + values.tobytes())


def _save_turned(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    _noise().save(path, quality=95, exif=exif)


def _save_heic(path: Path) -> None:
    heif = pytest.importorskip("pillow_heif", reason="needs pillow-heif")
    heif.from_pillow(_noise()).save(path, quality=90)


def _saved(**options: Any) -> Callable[[Path], None]:
    return lambda path: _noise().save(path, **options)


FILES: dict[str, Callable[[Path], None]] = {
    "baseline.jpg": _saved(quality=95),
    "progressive.jpg": _saved(quality=95, progressive=True),
    "turned.jpg": _save_turned,
    "a.png": _saved(),
    "plain.tif": _saved(),
    "lzw.tif": _saved(compression="tiff_lzw"),
    "a.webp": _saved(lossless=True),
    "a.gif": _saved(),
    "a.avif": _saved(quality=90),
    "a.bmp": _saved(),
    "a.ppm": _saved(),
    "deep.ppm": _save_deep_ppm,
    "a.heic": _save_heic,
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_cut_while_it_is_read_is_refused_and_the_next_one_is_read(name: str, tmp_path: Path) -> None:
    FILES[name](tmp_path / name)
    Image.new("RGB", (30, 20), (1, 2, 3)).save(tmp_path / "other.png")
    arguments = [sys.executable, "-c", CHILD, str(tmp_path / name), str(tmp_path / "other.png")]
    result = subprocess.run(arguments, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, (result.returncode, result.stderr)
    assert set(json.loads(result.stdout)) <= {"right", "refused"}, result.stdout

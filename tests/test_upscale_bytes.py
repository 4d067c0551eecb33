"""An image file in memory, enlarged into another."""

import io
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from realesr import FileOptions, ImageOptions, Upscaler
from realesr.errors import InputError, RealesrError, UsageError


@pytest.fixture(scope="module")
def upscaler() -> Iterator[Upscaler]:
    with Upscaler("realesr-animevideov3", engine="nearest") as opened:
        yield opened


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The place of temporary files, which is empty afterwards."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    assert list(tmp_path.iterdir()) == []


def file_of(image: Image.Image, name: str) -> bytes:
    file = io.BytesIO()
    image.save(file, name)
    return file.getvalue()


@pytest.mark.parametrize(
    ("source", "format", "file", "expected"),
    [
        ("JPEG", None, None, "JPEG"),
        ("GIF", None, None, "PNG"),
        ("PNG", "webp", None, "WEBP"),
        ("PNG", None, FileOptions(format="tiff"), "TIFF"),
        ("PNG", "jpeg", FileOptions(format="tiff", quality=50), "JPEG"),
    ],
)
def test_bytes_become_the_bytes_of_a_larger_image(
    upscaler: Upscaler, source: str, format: str | None, file: FileOptions | None, expected: str
) -> None:
    data = upscaler.upscale_bytes(file_of(Image.new("RGB", (6, 4)), source), format=format, file=file)
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size) == (expected, (24, 16))


def test_the_options_of_the_image_count(upscaler: Upscaler) -> None:
    data = upscaler.upscale_bytes(file_of(Image.new("L", (6, 4)), "PNG"), image=ImageOptions(scale=2))
    with Image.open(io.BytesIO(data)) as image:
        assert (image.mode, image.size) == ("L", (12, 8))


@pytest.mark.parametrize(
    ("data", "options", "error", "message"),
    [
        (b"", {}, InputError, "the image's file is empty (0 bytes)"),
        (b"hello", {}, InputError, "the image's file is not an image"),
        (file_of(Image.new("RGB", (6, 4)), "PNG"), {"format": "gif"}, UsageError, "format 'gif' is not known"),
    ],
)
def test_errors_name_no_temporary_file(
    upscaler: Upscaler, data: bytes, options: dict[str, str], error: type[RealesrError], message: str, place: Path
) -> None:
    with pytest.raises(error) as caught:
        upscaler.upscale_bytes(data, format=options.get("format"))
    assert str(caught.value).startswith(message)
    assert str(place) not in str(caught.value)


def test_notices_go_to_the_log(upscaler: Upscaler, caplog: pytest.LogCaptureFixture) -> None:
    image = Image.fromarray(np.zeros((4, 6), np.uint16))
    with caplog.at_level(logging.INFO, "realesr.api"):
        upscaler.upscale_bytes(file_of(image, "PNG"), format="webp")
    assert "16 bit are rounded" in caplog.text

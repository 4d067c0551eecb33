"""Images that are decoded whole are refused where they do not fit into memory; and libvips' words may be any bytes."""

import io
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import pyvips
from PIL import Image

from realesr.errors import InputError
from realesr.images import decoded
from realesr.images.libvips import own_messages, srgb_profile
from realesr.images.reader import open_image
from tests.images.image_files import photo

HEIGHT, WIDTH = 48, 64
PIXELS = HEIGHT * WIDTH


def saved(format_name: str, mode: str = "RGB", orientation: int = 1, **options: object) -> bytes:
    channels = {"L": 1, "RGB": 3, "RGBA": 4, "CMYK": 4}[mode]
    pixels = photo(HEIGHT, WIDTH, channels)
    image = Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels, mode)
    if orientation != 1:
        exif = Image.Exif()
        exif[0x0112] = orientation
        options["exif"] = exif
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


def interlaced_png(bands: int) -> bytes:
    image = pyvips.Image.new_from_memory(photo(HEIGHT, WIDTH, bands), WIDTH, HEIGHT, bands, "uchar")
    data = image.copy(interpretation="b-w" if bands == 1 else "srgb").pngsave_buffer(interlace=True)
    return bytes(data)


def heic() -> bytes:
    heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    buffer = io.BytesIO()
    heif.from_pillow(Image.fromarray(photo(HEIGHT, WIDTH))).save(buffer, quality=50)
    return buffer.getvalue()


def tiff(fields: list[tuple[int, int, list[int]]], data: bytes) -> bytes:
    """A little-endian TIFF with one strip or tile; its offset, tag 273 or 324, is filled in."""
    begin = 8 + 2 + 12 * len(fields) + 4
    head, extra = b"", b""
    for tag, kind, values in fields:
        if tag in (273, 324):
            values = [begin + 64]
        packed = struct.pack(f"<{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(packed) > 4:
            packed, extra = struct.pack("<I", begin + len(extra)), extra + packed
        head += struct.pack("<HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(fields)) + head + bytes(4) + extra.ljust(64, b"\0") + data


def rgb_tiff(depth: int, photometric: int, data_bytes: int, more: list[tuple[int, int, list[int]]]) -> bytes:
    fields = [(256, 4, [WIDTH]), (257, 4, [HEIGHT]), (258, 3, [depth] * 3), (259, 3, [1]), (262, 3, [photometric])]
    return tiff(sorted([*fields, (277, 3, [3]), *more]), bytes(data_bytes))


def packed_tiff() -> bytes:
    size = PIXELS * 3 // 2
    return rgb_tiff(4, 2, size, [(273, 4, [0]), (278, 4, [HEIGHT]), (279, 4, [size])])


def subsampled_tiff() -> bytes:
    size = PIXELS * 3 // 2
    return rgb_tiff(8, 6, size, [(273, 4, [0]), (278, 4, [HEIGHT]), (279, 4, [size]), (530, 3, [2, 2])])


def oddly_tiled_tiff() -> bytes:
    size = 50 * 70 * 3
    return rgb_tiff(8, 2, size, [(322, 4, [70]), (323, 4, [50]), (324, 4, [0]), (325, 4, [size])])


def masked_bmp(bits: int, masks: tuple[int, int, int]) -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, WIDTH, HEIGHT, 1, bits, 3, 0, 0, 0, 0, 0) + struct.pack("<3I", *masks)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 14 + len(head)) + head + bytes(PIXELS * bits // 8)


WHOLE: dict[str, tuple[Callable[[], bytes], str, float]] = {
    "4:2:0.jpg": (lambda: saved("JPEG", progressive=True, subsampling=2), "progressive JPEG", 4.5),
    "4:4:4.jpg": (lambda: saved("JPEG", progressive=True, subsampling=0), "progressive JPEG", 7.5),
    "grey.jpg": (lambda: saved("JPEG", "L", progressive=True), "progressive JPEG", 2.5),
    "cmyk.jpg": (lambda: saved("JPEG", "CMYK", progressive=True), "progressive JPEG", 10),
    "turned progressive.jpg": (
        lambda: saved("JPEG", orientation=6, progressive=True, subsampling=2),
        "progressive JPEG",
        7.5,
    ),
    "turned.jpg": (lambda: saved("JPEG", orientation=6), "turned JPEG", 3),
    "turned.png": (lambda: saved("PNG", orientation=6), "turned PNG", 3),
    "turned.tif": (lambda: saved("TIFF", orientation=6), "turned TIFF", 3),
    "grey.png": (lambda: interlaced_png(1), "interlaced PNG", 1.35),
    "rgb.png": (lambda: interlaced_png(3), "interlaced PNG", 4),
    "rgba.png": (lambda: interlaced_png(4), "interlaced PNG", 5.4),
    "lossy.webp": (lambda: saved("WEBP"), "WebP", 9),
    "lossless.webp": (lambda: saved("WEBP", "RGBA", lossless=True), "WebP", 9),
    "a.avif": (lambda: saved("AVIF"), "AVIF", 20),
    "a.heic": (heic, "HEIC", 12),
    "a.gif": (lambda: saved("GIF", "L"), "GIF", 14),
    "plain.bmp": (lambda: saved("BMP"), "BMP", 6.5),
    "grey.bmp": (lambda: saved("BMP", "L"), "BMP", 5),
    "masks.bmp": (lambda: masked_bmp(16, (0xF800, 0x7E0, 0x1F)), "BMP", 10),
    "deep.bmp": (lambda: masked_bmp(32, (0x3FF00000, 0xFFC00, 0x3FF)), "BMP", 28),
    "a.ppm": (lambda: saved("PPM"), "PNM", 3.6),
    "a.pgm": (lambda: b"P5 64 48 65535\n" + bytes(PIXELS * 2), "PNM", 4.2),
    "text.pgm": (lambda: b"P2 64 48 255\n" + b"7 " * PIXELS, "PNM", 1.2),
    "packed.tif": (packed_tiff, "packed TIFF", 9),
    "subsampled.tif": (subsampled_tiff, "subsampled YCbCr in TIFF", 9),
    "tiles.tif": (oddly_tiled_tiff, "TIFF in tiles of unusual size", 9),
}
"""How each is made, what the message calls it, and bytes per pixel that it takes at least."""


@pytest.fixture(params=WHOLE)
def whole_file(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str, float]:
    make, what, px_bytes = WHOLE[request.param]
    if request.param == "a.avif" and "AVIF" not in (Image.init(), Image.SAVE)[1]:
        pytest.skip("Pillow was built without AVIF")
    path = tmp_path / request.param.replace(":", "")
    path.write_bytes(make())
    return path, what, px_bytes


def test_an_image_decoded_whole_is_refused_where_memory_is_short(
    whole_file: tuple[Path, str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, what, px_bytes = whole_file
    monkeypatch.setattr(decoded, "free_bytes", lambda: int(PIXELS * px_bytes))  # of which only a share may be used

    def decodes(*_: object) -> None:
        raise AssertionError("a pixel was decoded")

    monkeypatch.setattr(pyvips.Region, "fetch", decodes)
    monkeypatch.setattr(pyvips.Image, "write_to_memory", decodes)
    monkeypatch.setattr(np, "fromfile", decodes)
    monkeypatch.setattr(Image.Image, "load", decodes)
    with pytest.raises(InputError) as caught:
        open_image(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: "), message
    pattern = rf" px of {re.escape(what)} are decoded whole, which takes about 0\.\d MB, and 0\.\d MB are free"
    assert re.search(pattern, message), message
    assert "of which 80% may be used; free some, or " in message


def test_an_image_decoded_whole_is_read_where_it_fits(
    whole_file: tuple[Path, str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _, _ = whole_file
    monkeypatch.setattr(decoded, "free_bytes", lambda: PIXELS * 100 + 100_000)
    with open_image(path) as reader:
        assert reader.info.width_px * reader.info.height_px == PIXELS
        assert len(reader.read_rows(HEIGHT)) == HEIGHT


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF"])
def test_rows_that_are_decoded_in_order_need_no_memory(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(saved(form))
    monkeypatch.setattr(decoded, "free_bytes", lambda: 0)
    with open_image(tmp_path / "a") as reader:
        assert len(reader.read_rows(HEIGHT)) == HEIGHT


def test_a_copy_in_a_temporary_file_is_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jpg").write_bytes(saved("JPEG", orientation=6))
    monkeypatch.setattr(decoded, "free_bytes", lambda: 0)
    monkeypatch.setenv("VIPS_DISC_THRESHOLD", "1k")
    with open_image(tmp_path / "a.jpg") as reader:
        assert reader.read_rows(1).shape == (1, HEIGHT, 3)


def test_the_message_has_size_estimate_and_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved("JPEG", progressive=True, subsampling=2)
    at = data.index(b"\xff\xc2") + 5
    path = tmp_path / "x.jpg"
    path.write_bytes(data[:at] + struct.pack(">HH", 30_000, 30_000) + data[at + 4 :])
    monkeypatch.setattr(decoded, "free_bytes", lambda: 2_100_000_000)
    with pytest.raises(InputError) as caught:
        open_image(path)
    assert str(caught.value) == (
        f"{path}: 30,000 x 30,000 px of progressive JPEG are decoded whole, which takes about 4.0 GB, and 2.1 GB are "
        "free, of which 80% may be used; free some, or save it as a baseline JPEG first"
    )


def png_with_profile_name(name: bytes) -> bytes:
    """A file that libpng warns of, quoting the name: its profile lacks the signature "acsp"."""
    data = saved("PNG")
    profile = bytearray(srgb_profile())
    profile[36:40] = b"xxxx"
    content = b"iCCP" + name + b"\0\0" + zlib.compress(profile)
    chunk = struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
    return data[:33] + chunk + data[33:]


READ = """
import sys
from pathlib import Path
from realesr.errors import InputError
from realesr.images.reader import open_image

try:
    with open_image(Path(sys.argv[1])) as reader:
        print(reader.read_rows(1000).shape)
except InputError as error:
    print(error)
"""


@pytest.mark.parametrize("is_cut", [False, True])
def test_words_of_libvips_that_are_no_utf8_put_nothing_on_stderr(is_cut: bool, tmp_path: Path) -> None:
    data = png_with_profile_name(b"\xff\xfe\xe4")
    (tmp_path / "a.png").write_bytes(data[: len(data) // 2] if is_cut else data)
    arguments = [sys.executable, "-c", READ, str(tmp_path / "a.png")]
    result = subprocess.run(arguments, capture_output=True, text=True, timeout=60)
    assert result.stderr == ""
    assert ("is truncated or damaged" if is_cut else "(48, 64, 3)") in result.stdout


def test_an_error_of_libvips_may_hold_any_bytes() -> None:
    with pytest.raises(pyvips.Error, match=r"\\xff\\xfe"), own_messages():
        assert pyvips.vips_lib.vips_operation_new(b"\xff\xfe") == pyvips.ffi.NULL  # its message quotes the name
        raise pyvips.Error("no such operation")


def test_an_error_of_libvips_of_any_bytes_is_one_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(saved("PNG"))

    def fails(*_: object, **__: object) -> None:
        pyvips.vips_lib.vips_operation_new(b"\xff\xfe")
        raise pyvips.Error("it failed")

    with monkeypatch.context() as patch, pytest.raises(InputError, match=r"is damaged, or no PNG \(.*\\xff\\xfe"):
        patch.setattr(pyvips.Image, "pngload_source", fails, raising=False)
        open_image(tmp_path / "a.png")
    monkeypatch.setattr(pyvips.Region, "fetch", fails)
    with open_image(tmp_path / "a.png") as reader, pytest.raises(InputError, match=r"near row 0 .*\\xff\\xfe"):
        reader.read_rows(1)

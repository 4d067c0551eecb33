"""Reading PBM, PGM, PPM and PAM: every form against the values that were stored, and against Pillow."""

import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from realesr.errors import InputError
from realesr.images.info import ImageInfo
from realesr.images.reader import open_image


def read(path: Path, data: bytes) -> tuple[NDArray[np.generic], ImageInfo, tuple[str, ...]]:
    path.write_bytes(data)
    with open_image(path) as reader:
        return reader.read_rows(reader.info.height_px), reader.info, reader.notices


def stored(values: NDArray[Any], magic: str, largest: int) -> bytes:
    """The values (H, W, C) as P2, P3, P5 or P6."""
    head = f"{magic}\n{values.shape[1]} {values.shape[0]}\n{largest}\n".encode()
    if magic in ("P2", "P3"):
        return head + " ".join(map(str, values.ravel())).encode() + b"\n"
    return head + values.astype("u1" if largest < 256 else ">u2").tobytes()


@pytest.mark.parametrize("magic", ["P2", "P3", "P5", "P6"])
@pytest.mark.parametrize("largest", [1, 2, 15, 100, 254, 255, 256, 1000, 4095, 65534, 65535])
def test_values_up_to_every_largest_are_scaled_exactly(magic: str, largest: int, tmp_path: Path) -> None:
    channels = 1 if magic in ("P2", "P5") else 3
    values = np.random.default_rng(0).integers(0, largest + 1, (5, 7, channels))
    values[0, 0], values[0, 1] = 0, largest
    pixels, info, notices = read(tmp_path / "a.pnm", stored(values, magic, largest))
    full = 255 if largest <= 255 else 65535
    expected = [round(int(value) * full / largest) for value in values.ravel()]
    np.testing.assert_array_equal(pixels.ravel(), expected)
    assert (info.bits, info.is_grey, info.has_alpha) == (8 if largest <= 255 else 16, channels == 1, False)
    assert notices == ()


@pytest.mark.parametrize("text", ["1 0 1 1\n0 0 1 0", "10110010", "1 0110\n0 1 0", "#x\n1 0 #y 1\n11#\n0010 trailing"])
def test_plain_bitmaps_read_with_and_without_spaces(text: str, tmp_path: Path) -> None:
    pixels, info, _ = read(tmp_path / "a.pbm", b"P1\n4 2\n" + text.encode())
    np.testing.assert_array_equal(pixels[:, :, 0], [[0, 255, 0, 0], [255, 255, 0, 255]])
    assert (info.bits, info.is_grey) == (8, True)


@pytest.mark.parametrize("width", [1, 7, 8, 9, 20])
def test_packed_bitmaps_read_as_pillow_reads_them(width: int, tmp_path: Path) -> None:
    bits = np.random.default_rng(width).integers(0, 2, (5, width)).astype(bool)
    Image.fromarray(bits).save(tmp_path / "a.pbm")
    data = (tmp_path / "a.pbm").read_bytes()
    assert data.startswith(b"P4")
    np.testing.assert_array_equal(read(tmp_path / "a.pbm", data)[0][:, :, 0], bits * np.uint8(255))


@pytest.mark.parametrize(
    "head",
    [
        "P5\n3 2\n255\n",
        "P5 3 2 255 ",
        "P5#one\n# two 9 9\n3 # three\n#four\n2\n#five\n255\n",
        "P5\r\n3\t2\r\n255\n",
        "P5\n003 2\n255#comment that ends the header\n",
        "P5\n" + "# long\n" * 20_000 + "3 2\n255\n",
    ],
)
def test_comments_and_whitespace_may_stand_anywhere_in_the_header(head: str, tmp_path: Path) -> None:
    pixels, _, _ = read(tmp_path / "a.pgm", head.encode() + b"#234\n6")
    np.testing.assert_array_equal(pixels.ravel(), list(b"#234\n6"))


@pytest.mark.parametrize(
    ("kind", "channels"),
    [("BLACKANDWHITE", 1), ("GRAYSCALE", 1), ("RGB", 3), ("GRAYSCALE_ALPHA", 2), ("RGB_ALPHA", 4)],
)
@pytest.mark.parametrize("largest", [1, 255, 4095])
def test_pam_reads_with_its_alpha(kind: str, channels: int, largest: int, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, largest + 1, (4, 3, channels))
    head = f"P7\n# by hand\nWIDTH 3\nHEIGHT 4\nDEPTH {channels}\n\nMAXVAL {largest}\nTUPLTYPE {kind}\nENDHDR\n"
    data = head.encode() + values.astype("u1" if largest < 256 else ">u2").tobytes()
    pixels, info, _ = read(tmp_path / "a.pam", data)
    full = 255 if largest <= 255 else 65535
    np.testing.assert_array_equal(pixels, np.rint(values * full / largest))
    assert (info.is_grey, info.has_alpha) == (channels < 3, channels in (2, 4))


@pytest.mark.parametrize(("kind", "depth"), [("", 3), ("CMYK", 4), ("RGB", 5), ("GRAYSCALE", 3), ("RGB RGB", 3)])
def test_pam_of_other_tuples_is_refused_by_name(kind: str, depth: int, tmp_path: Path) -> None:
    words = "\n".join(f"TUPLTYPE {word}" for word in kind.split())
    data = f"P7\nWIDTH 2\nHEIGHT 2\nDEPTH {depth}\nMAXVAL 255\n{words}\nENDHDR\n".encode() + bytes(20)
    with pytest.raises(InputError, match=f"tuple type '{kind}' and depth {depth}, which is not read"):
        read(tmp_path / "a.pam", data)


def test_the_first_of_several_images_is_read_with_a_notice(tmp_path: Path) -> None:
    for magic in ("P2", "P3", "P5", "P6"):
        one = stored(np.full((2, 3, 1 if magic in ("P2", "P5") else 3), 7), magic, 255)
        pixels, _, notices = read(tmp_path / "a.pnm", one + one)
        assert (pixels == 7).all()
        assert notices == ("the file holds more images; only the first was read",)
    assert read(tmp_path / "b.pgm", stored(np.zeros((2, 3, 1), int), "P5", 255) + b"\0\0 padding")[2] == ()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"P5 4 4 255\n" + bytes(7), "truncated: it has 7 of 16 values"),
        (b"P5 4 4 999\n" + bytes(7), "truncated: it has 3 of 16 values"),
        (b"P4 9 4\n" + bytes(7), "truncated: it has 35 of 36 values"),
        (b"P2 2 2 255\n1 2 300", "truncated: it has at most 4 of 4|has '300', expected a number from 0 to 255"),
        (b"P2 2 2 255\n1000 2 3", r"after 0 of 4 values it has '1000"),
        (b"P2 2 2 255\n    1 2 3", "truncated: it has 3 of 4 values"),
        (b"P2 2 2 255\n1 2 x 4", "after 2 of 4 values it has 'x"),
        (b"P2 2 2 255\n1 -2 3 4", "after 1 of 4 values it has '-2"),
        (b"P1 2 2\n1 2 1 1", "after 1 of 4 values it has '2 1"),
        (b"P2 1000 1000 255\n1", "at most 1 of 1000000 values"),
        (b"P5 2 2 100\n" + bytes((1, 2, 3, 101)), "has a value of 101, expected at most 100"),
        (b"P5 0 2 100\n", "states 0 x 2 px"),
        (b"P5 2 2 0\n" + bytes(9), "values up to 0"),
        (b"P5 2 2 65536\n" + bytes(9), "values up to 65536"),
        (b"P5 2 -2 255\n" + bytes(9), "has '-2' as height"),
        (b"P5 99999999999999999999 2 255\n", "as width"),
        (b"P5 " + b"#" * 3_000_000, "as width"),
        (b"P5 60000 60000 255\n", "expected at most 1,000,000,000"),
        (b"P7\nWIDTH 2\n", "no ENDHDR"),
        (b"P7\nWIDTH 2\nENDHDR\n", "has '' as HEIGHT"),
        (b"P7 332\n#XVVERSION:Version 2.28\n", "thumbnail of XV"),
        (b"PF\n2 2\n-1.0\n" + bytes(48), "PFM file"),
        (b"Pf\n2 2\n-1.0\n" + bytes(16), "PFM file"),
    ],
)
def test_damage_is_named(data: bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words) as caught:
        read(tmp_path / "a.pnm", data)
    assert "\n" not in str(caught.value)


def test_plain_numbers_across_blocks_read_as_numpy_reads_them(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (700, 500, 1))
    buffer = io.BytesIO()
    np.savetxt(buffer, values[:, :, 0], fmt="%d", newline=" # a comment with 12 numbers\n")
    pixels, _, _ = read(tmp_path / "a.pgm", b"P2 500 700 65535\n" + buffer.getvalue())
    np.testing.assert_array_equal(pixels, values)
    comment = b"#" + b"7 " * 2_000_000 + b"\n"
    pixels, _, _ = read(tmp_path / "a.pgm", b"P2 2 1 9\n" + comment + b"3" + comment + b"9")
    np.testing.assert_array_equal(pixels.ravel(), [85, 255])


def test_large_plain_files_take_seconds_and_endless_words_end(tmp_path: Path) -> None:
    begin = time.process_time()
    pixels, _, _ = read(tmp_path / "a.pgm", b"P2 4000 1000 255\n" + b"200 17 3 " * 1_333_333 + b"5")
    assert (pixels[0, 0, 0], pixels[-1, -1, 0]) == (200, 5)
    with pytest.raises(InputError, match="after 0 of"):
        read(tmp_path / "a.pgm", b"P2 1000 1000 255\n" + b"1" * 20_000_000)
    assert time.process_time() - begin < 10

"""Reading GIF: grey tables, frames, transparency and metadata, against Pillow or values that were stored."""

import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from realesr.errors import InputError
from realesr.images.info import ImageInfo
from realesr.images.reader import open_image

from .image_files import ADOBE_PRIMARIES, XMP, libvips_profile, rgb_profile

GREYS = bytes(v for v in (0, 60, 200, 255) for _ in range(3))
COLOURS = bytes((0, 0, 0, 255, 0, 0, 0, 255, 0, 9, 9, 9))


def frame(indices: NDArray[np.generic], table: bytes = b"", transparent: int | None = None, left: int = 0) -> bytes:
    """A frame of a GIF file of 2-bit indices: no compression, by a code that clears the table before each."""
    height, width = indices.shape
    control = b"" if transparent is None else b"!\xf9\4" + struct.pack("<BHBB", 1, 0, transparent, 0)
    flags = 0x81 if table else 0
    bits = "".join(f"{code:03b}"[::-1] for value in indices.ravel() for code in (4, int(value))) + f"{5:03b}"[::-1]
    data = bytes(int(bits[i : i + 8][::-1], 2) for i in range(0, len(bits), 8))
    blocks = b"".join(bytes((len(data[i : i + 255]),)) + data[i : i + 255] for i in range(0, len(data), 255))
    return control + b"," + struct.pack("<4HB", left, 0, width, height, flags) + table + b"\2" + blocks + b"\0"


def gif(*parts: bytes, size: tuple[int, int] = (6, 4), table: bytes = b"") -> bytes:
    """A GIF file of width and height `size` with a colour table for all frames."""
    flags = 0x81 if table else 0
    return b"GIF89a" + struct.pack("<HHBBB", *size, flags, 0, 0) + table + b"".join(parts) + b";"


def read(path: Path, data: bytes, page: int | None = None) -> tuple[NDArray[np.generic], ImageInfo, tuple[str, ...]]:
    path.write_bytes(data)
    with open_image(path, page=page) as reader:
        return reader.read_rows(reader.info.height_px), reader.info, reader.notices


INDICES = np.random.default_rng(0).integers(0, 4, (4, 6))


@pytest.mark.parametrize("is_local", [False, True])
def test_a_grey_table_is_grey(is_local: bool, tmp_path: Path) -> None:
    data = gif(frame(INDICES, GREYS), table=COLOURS) if is_local else gif(frame(INDICES), table=GREYS)
    pixels, info, notices = read(tmp_path / "a.gif", data)
    assert (info.is_grey, info.has_alpha, notices) == (True, False, ())
    np.testing.assert_array_equal(pixels[:, :, 0], np.frombuffer(GREYS, np.uint8)[::3][INDICES])


def test_a_table_with_colours_is_colour(tmp_path: Path) -> None:
    for data in (gif(frame(INDICES, COLOURS), table=GREYS), gif(frame(INDICES), table=COLOURS)):
        pixels, info, _ = read(tmp_path / "a.gif", data)
        assert not info.is_grey
        np.testing.assert_array_equal(pixels, np.frombuffer(COLOURS, np.uint8).reshape(4, 3)[INDICES])


def test_a_transparent_grey_is_grey_with_alpha(tmp_path: Path) -> None:
    pixels, info, _ = read(tmp_path / "a.gif", gif(frame(INDICES, transparent=2), table=GREYS))
    assert (info.is_grey, info.has_alpha) == (True, True)
    np.testing.assert_array_equal(pixels[:, :, 1], np.where(INDICES == 2, 0, 255))
    shown = INDICES != 2
    np.testing.assert_array_equal(pixels[shown][:, 0], np.frombuffer(GREYS, np.uint8)[::3][INDICES[shown]])


def test_of_an_animation_the_first_frame_is_read_with_a_notice(tmp_path: Path) -> None:
    data = gif(frame(INDICES), frame(INDICES, COLOURS), frame(INDICES), table=GREYS)
    _, info, notices = read(tmp_path / "a.gif", data)
    assert info.is_grey
    assert notices == ("the animation has 3 frames; only the first was read",)
    for page, is_grey in ((0, True), (1, False), (2, False)):  # the third is drawn over colours
        _, info, notices = read(tmp_path / "a.gif", data, page)
        assert (info.is_grey, notices) == (is_grey, ())


def test_what_the_first_frame_does_not_cover_is_transparent(tmp_path: Path) -> None:
    pixels, info, _ = read(tmp_path / "a.gif", gif(frame(INDICES[:, :3], left=3), table=COLOURS))
    assert info.has_alpha
    np.testing.assert_array_equal(pixels[:, :, 3], [[0, 0, 0, 255, 255, 255]] * 4)
    halves = gif(frame(INDICES[:, :3], left=3), frame(INDICES[:, :3]), table=COLOURS)
    assert not read(tmp_path / "a.gif", halves, page=1)[1].has_alpha


def extension(name: bytes, data: bytes) -> bytes:
    blocks = b"".join(bytes((len(data[i : i + 255]),)) + data[i : i + 255] for i in range(0, len(data), 255))
    return b"!\xff\x0b" + name + blocks + b"\0"


def test_profile_and_xmp_are_read_wherever_they_stand(tmp_path: Path) -> None:
    adobe = rgb_profile(ADOBE_PRIMARIES, 2.2)
    trailer = b"\1" + bytes(range(255, -1, -1)) + b"\0"
    xmp = b"!\xff\x0bXMP DataXMP" + XMP + trailer
    loop = extension(b"NETSCAPE2.0", b"\1\0\0")
    for parts in (
        (loop, xmp, extension(b"ICCRGBG1012", adobe), frame(INDICES)),
        (frame(INDICES), xmp, extension(b"ICCRGBG1012", adobe)),
    ):
        _, info, notices = read(tmp_path / "a.gif", gif(*parts, table=GREYS))
        assert (info.xmp, info.icc, info.is_grey, notices) == (XMP, adobe, False, ())
    srgb = extension(b"ICCRGBG1012", libvips_profile("srgb"))
    assert read(tmp_path / "a.gif", gif(srgb, frame(INDICES), table=GREYS))[1].is_grey


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA"])
def test_files_of_pillow_read_as_pillow_reads_them(mode: str, tmp_path: Path) -> None:
    grey = Image.linear_gradient("L").resize((30, 20))
    grey.convert(mode).save(tmp_path / "a.gif")
    pixels, info, _ = read(tmp_path / "a.gif", (tmp_path / "a.gif").read_bytes())
    with Image.open(tmp_path / "a.gif") as image:
        expected = np.asarray(image.convert("L"))
    assert info.is_grey
    np.testing.assert_array_equal(pixels[:, :, 0], expected)


def test_every_cut_of_a_file_is_read_or_refused_in_words(tmp_path: Path) -> None:
    from realesr.images.formats.gif_blocks import read_gif_blocks

    whole = gif(extension(b"ICCRGBG1012", bytes(300)), frame(INDICES, COLOURS, transparent=1), table=GREYS)
    for cut in range(len(whole)):
        (tmp_path / "a.gif").write_bytes(whole[:cut])
        assert len(read_gif_blocks(tmp_path / "a.gif").frame_is_grey) <= 1


def test_a_frame_whose_data_end_early_is_refused_or_told(tmp_path: Path) -> None:
    data = bytearray(gif(frame(INDICES), size=(6, 40), table=GREYS))
    at = data.index(b",")
    data[at + 7 : at + 9] = struct.pack("<H", 40)
    with pytest.raises(InputError, match="truncated or damaged"):
        read(tmp_path / "a.gif", bytes(data))
    with open_image(tmp_path / "a.gif", allow_damaged=True) as reader:
        assert reader.notices == ("the file has lost pixels, which were left empty",)


def test_a_huge_canvas_or_frame_is_refused_before_it_is_made(tmp_path: Path) -> None:
    huge_frame = bytearray(gif(frame(INDICES), table=GREYS))
    at = huge_frame.index(b",")
    huge_frame[at + 5 : at + 9] = b"\xff" * 4
    for data in (gif(frame(INDICES), size=(65535, 65535), table=GREYS), bytes(huge_frame)):
        with pytest.raises(InputError, match=r"65535 x 65535 = .* expected at most 1,000,000,000"):
            read(tmp_path / "a.gif", data)

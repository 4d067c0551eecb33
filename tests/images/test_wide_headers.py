"""A header that promises more pixels than its file can hold is refused before memory is taken for its rows."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from realesr.errors import InputError
from realesr.images.libvips import own_messages, pyvips
from realesr.images.reader import open_image

from .tiff_files import page, tiff

WIDE = 40_000_000


def written(tmp_path: Path, file: bytes) -> Path:
    path = tmp_path / "a.image"
    path.write_bytes(file)
    return path


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, pixels: bytes, interlaced: int = 0) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, interlaced)
    more = chunk(b"tEXt", b"a\0" + bytes(90_000))  # longer than a row needs, but no pixels
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + more + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("scheme", [1, 2, 3, 5, 8, 32771, 32773, 32946])
@pytest.mark.parametrize("more", [{}, {"rows": 1}, {"tile": (WIDE, 32)}, {"t274": 6}, {"t278": 0}])
def test_a_tiff_of_few_bytes_and_wide_rows_is_refused(scheme: int, more: dict[str, Any], tmp_path: Path) -> None:
    bits = 1 if scheme in (2, 3, 32771) else 8
    pieces = [bytes(480)] * (20 if "rows" in more else 1)
    path = written(tmp_path, tiff(page(WIDE, 20, pieces, bits=[bits], photometric=1, t259=scheme, **more)))
    with pytest.raises(InputError, match=r"(strip|tile) 1 of \d+ has [\d,]+ bytes in the file, expected"):
        open_image(path)


@pytest.mark.parametrize(("scheme", "most_px"), [(7, "65,535"), (50001, "16,384")])
def test_a_tiff_whose_compression_has_no_rows_as_wide_is_refused(scheme: int, most_px: str, tmp_path: Path) -> None:
    path = written(tmp_path, tiff(page(WIDE, 20, [bytes(480)], bits=[8] * 3, photometric=2, t259=scheme)))
    with pytest.raises(InputError, match=f"40,000,000 px wide, expected at most {most_px}"):
        open_image(path)


def test_a_tiff_that_is_decoded_whole_needs_all_its_strips(tmp_path: Path) -> None:
    pieces = [zlib.compress(bytes(24))] * 19 + [b""]
    path = written(tmp_path, tiff(page(16, 20, pieces, bits=[12], photometric=1, rows=1, t259=8)))
    with pytest.raises(InputError, match="strip 20 of 20 has 0 bytes in the file, expected at least 1;"):
        open_image(path)


@pytest.mark.parametrize("interlaced", [0, 1])
def test_a_png_of_few_bytes_and_wide_rows_is_refused(interlaced: int, tmp_path: Path) -> None:
    path = written(tmp_path, png(WIDE, 20, zlib.compress(bytes(480)), interlaced))
    with pytest.raises(InputError, match=r"it has \d+ compressed bytes of pixels, expected at least"):
        open_image(path)


def test_an_interlaced_png_needs_bytes_for_all_its_rows(tmp_path: Path) -> None:
    path = written(tmp_path, png(1000, 1000, zlib.compress(bytes(480)), interlaced=1))
    with pytest.raises(InputError, match="expected at least 968 for 1,000 x 1,000 px"):
        open_image(path)


@pytest.mark.parametrize("compression", ["none", "lzw", "deflate", "packbits", "ccittfax4", "jpeg"])
@pytest.mark.parametrize("bits", [1, 8])
@pytest.mark.parametrize("is_tiled", [False, True])
def test_images_of_one_colour_are_read_however_well_they_compress(
    compression: str, bits: int, is_tiled: bool, tmp_path: Path
) -> None:
    if (compression == "ccittfax4" and bits == 8) or (compression == "jpeg" and bits == 1):
        pytest.skip("the scheme has no such samples")
    path = tmp_path / "a.tif"
    white = pyvips.Image.black(6000, 1000) + 255
    with own_messages():
        white.cast("uchar").tiffsave(
            str(path), compression=compression, bitdepth=bits if bits == 1 else 0, predictor="none",
            tile=is_tiled, tile_width=2048, tile_height=1008,
        )  # fmt: skip
    with open_image(path) as reader:
        assert (reader.read_rows(1000) == 255).all()


def test_a_png_of_one_colour_is_read_however_well_it_compresses(tmp_path: Path) -> None:
    rows = zlib.compress(bytes(1000 * 4001), 9)
    with open_image(written(tmp_path, png(4000, 1000, rows))) as reader:
        assert not np.any(reader.read_rows(1000))

"""YCbCr pages of TIFF files, against TIFF 6.0's formulas and against Pillow, which reads them with libtiff."""

import itertools
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from realesr.errors import InputError
from realesr.images.decoded import ReadOptions
from realesr.images.decoding import decode
from realesr.images.reader import open_image

from .image_files import photo
from .tiff_files import page, tiff

HEIGHT, WIDTH = 37, 45
VIDEO = [(16, 1), (235, 1), (128, 1), (240, 1), (128, 1), (240, 1)]
BT709 = [(2126, 10000), (7152, 10000), (722, 10000)]


def luma_and_chroma(bits: int = 8) -> NDArray[Any]:
    """(H, W, 3): YCbCr of a photo."""
    values = np.asarray(Image.fromarray(photo(HEIGHT, WIDTH)).convert("YCbCr"))
    return values if bits == 8 else values.astype(np.uint16) * 257 + 3


def units(values: NDArray[Any], across: int, down: int) -> bytes:
    """Data units: across x down values of Y, then the upper left values of Cb and Cr. Source: TIFF 6.0, section 21."""
    height, width, _ = values.shape
    padded = np.pad(values, ((0, -height % down), (0, -width % across), (0, 0)), mode="edge")
    stored = []
    for top, left in itertools.product(range(0, height, down), range(0, width, across)):
        unit = padded[top : top + down, left : left + across]
        stored += [*unit[:, :, 0].ravel(), *unit[0, 0, 1:]]
    return np.array(stored, values.dtype).tobytes()


def ycbcr(
    values: NDArray[Any], across: int, down: int, layout: str, compression: int = 8, rows: int = 8, **more: Any
) -> bytes:
    def piece(data: bytes) -> bytes:
        return zlib.compress(data) if compression == 8 else data

    stated: dict[str, Any] = {"rows": rows}
    pieces = [piece(units(values[top : top + rows], across, down)) for top in range(0, HEIGHT, rows)]
    if layout == "tiles":
        padded = np.pad(values, ((0, -HEIGHT % 16), (0, -WIDTH % 32), (0, 0)))
        corners = itertools.product(range(0, HEIGHT, 16), range(0, WIDTH, 32))
        pieces = [piece(units(padded[y : y + 16, x : x + 32], across, down)) for y, x in corners]
        stated = {"tile": (32, 16)}
    if layout == "planes":
        steps = [(1, 1), (down, across), (down, across)]
        pieces = [
            piece(values[top : top + rows : steps[i][0], :: steps[i][1], i].tobytes())
            for i in range(3)
            for top in range(0, HEIGHT, rows)
        ]
        stated["t284"] = 2
    bits = [8 * values.itemsize] * 3
    return tiff(
        page(WIDTH, HEIGHT, pieces, bits=bits, photometric=6, t259=compression, t530=[across, down], **stated, **more)
    )


def by_the_formula(
    values: NDArray[Any],
    luma: tuple[float, float, float] = (0.299, 0.587, 0.114),
    levels: tuple[int, ...] = (0, 255, 128, 255, 128, 255),
) -> NDArray[Any]:
    """RGB of YCbCr of 8 bit, not rounded. Source: TIFF 6.0, sections 20 and 21."""
    coded = values.astype(float)
    y, cb, cr = (
        (coded[:, :, i] - levels[2 * i]) * (255, 127, 127)[i] / (levels[2 * i + 1] - levels[2 * i]) for i in range(3)
    )
    red, blue = cr * (2 - 2 * luma[0]) + y, cb * (2 - 2 * luma[2]) + y
    green = (y - luma[2] * blue - luma[0] * red) / luma[1]
    return np.clip(np.stack([red, green, blue], axis=2), 0, 255)


def read(path: Path, file: bytes) -> NDArray[Any]:
    path.write_bytes(file)
    facts = decode(path, "tiff", ReadOptions())
    assert (facts.space, facts.has_alpha) == ("rgb", False)
    return facts.image.numpy()  # type: ignore[no-any-return]


@pytest.mark.parametrize("across", [1, 2, 4])
@pytest.mark.parametrize("down", [1, 2, 4])
@pytest.mark.parametrize("layout", ["strips", "tiles", "planes"])
@pytest.mark.parametrize("compression", [1, 8])
def test_ycbcr_of_every_subsampling_becomes_rgb(
    across: int, down: int, layout: str, compression: int, tmp_path: Path
) -> None:
    values = luma_and_chroma()
    path = tmp_path / "a.tif"
    pixels = read(path, ycbcr(values, across, down, layout, compression))
    shared = values.copy()
    shared[:, :, 1:] = values[::down, ::across, 1:].repeat(down, 0).repeat(across, 1)[:HEIGHT, :WIDTH]
    assert np.abs(pixels - by_the_formula(shared)).max() < 0.51
    libtiff_reads = layout != "planes" and compression == 8 and (across, down) not in ((1, 4), (2, 4))
    if libtiff_reads:
        with Image.open(path) as image:
            assert np.abs(pixels.astype(int) - np.asarray(image.convert("RGB"))).max() <= 1


@pytest.mark.parametrize(("across", "layout"), [(1, "strips"), (2, "strips"), (2, "tiles"), (1, "planes")])
def test_reference_levels_and_coefficients_are_the_file_s(across: int, layout: str, tmp_path: Path) -> None:
    values = np.clip(luma_and_chroma(), 20, 230)
    levels = (16, 235, 128, 240, 128, 240)
    file = ycbcr(values, across, 1, layout, t532=VIDEO, t529=BT709)
    shared = values.copy()
    shared[:, :, 1:] = values[:, ::across, 1:].repeat(across, 1)[:, :WIDTH]
    expected = by_the_formula(shared, (0.2126, 0.7152, 0.0722), levels)
    assert np.abs(read(tmp_path / "a.tif", file) - expected).max() < 0.51


@pytest.mark.parametrize(("across", "layout"), [(1, "strips"), (2, "strips"), (2, "planes")])
def test_ycbcr_of_16_bit_keeps_its_depth(across: int, layout: str, tmp_path: Path) -> None:
    values = luma_and_chroma(16)
    pixels = read(tmp_path / "a.tif", ycbcr(values, across, 1, layout))
    shared = values.copy()
    shared[:, :, 1:] = values[:, ::across, 1:].repeat(across, 1)[:, :WIDTH]
    coded = shared.astype(float) - (0, 32768, 32768)
    red = coded[:, :, 0] + 1.402 * coded[:, :, 2]
    assert pixels.dtype == np.uint16
    assert np.abs(pixels[:, :, 0] - np.clip(red, 0, 65535)).max() < 0.6


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "packbits", "tiff_adobe_deflate"])
def test_ycbcr_that_pillow_writes_reads_as_pillow_reads_it(compression: str, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(photo(HEIGHT, WIDTH)).convert("YCbCr").save(path, compression=compression)
    with Image.open(path) as image, open_image(path) as reader:
        assert np.abs(reader.read_rows(HEIGHT).astype(int) - np.asarray(image.convert("RGB"))).max() <= 1


def test_alpha_beside_ycbcr_is_kept(tmp_path: Path) -> None:
    values = np.dstack([luma_and_chroma(), photo(HEIGHT, WIDTH, 1)])
    one = page(WIDTH, HEIGHT, [values.tobytes()], bits=[8] * 4, photometric=6, t530=[1, 1], t338=[2])
    (tmp_path / "a.tif").write_bytes(tiff(one))
    facts = decode(tmp_path / "a.tif", "tiff", ReadOptions())
    pixels = facts.image.numpy()
    assert facts.has_alpha
    np.testing.assert_array_equal(pixels[:, :, 3], values[:, :, 3])
    assert np.abs(pixels[:, :, :3] - by_the_formula(values[:, :, :3])).max() < 0.51


@pytest.mark.parametrize(
    ("more", "reason"),
    [({"across": 3}, "3 x 2"), ({"rows": 7}, "cut its 2 x 2 subsampling"), ({"t317": 2}, "with a predictor"),
     ({"t532": [(9, 1)] * 6}, "reference black is its reference white"), ({"t529": [(0, 1)] * 3}, "coefficients")],
)  # fmt: skip
def test_ycbcr_that_is_not_read_says_why(more: dict[str, Any], reason: str, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(ycbcr(luma_and_chroma(), **{"across": 2, "down": 2, "layout": "strips", **more}))
    with pytest.raises(InputError, match=reason):
        decode(path, "tiff", ReadOptions())


def test_a_truncated_subsampled_page_raises(tmp_path: Path) -> None:
    file = ycbcr(luma_and_chroma(), 2, 2, "strips", 1)
    (tmp_path / "a.tif").write_bytes(file)
    fields_first = tiff_with_directory_first(file)
    (tmp_path / "a.tif").write_bytes(fields_first[: len(fields_first) - 50])
    with pytest.raises(InputError, match="truncated or damaged"):
        decode(tmp_path / "a.tif", "tiff", ReadOptions())


def tiff_with_directory_first(file: bytes) -> bytes:
    """A file whose last strip is copied to its end, so that a cut there loses pixels and no field."""
    import struct

    (at,) = struct.unpack("<I", file[4:8])
    (count,) = struct.unpack("<H", file[at : at + 2])
    moved = bytearray(file)
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, _, values, place = struct.unpack("<HHII", file[entry : entry + 12])
        if tag == 273:
            last = place + 4 * (values - 1) if values > 1 else entry + 8
            (start,) = struct.unpack("<I", file[last : last + 4])
            struct.pack_into("<I", moved, last, len(file))
    return bytes(moved) + file[start:at]

"""Turns YCbCr pages of TIFF files that are not compressed with JPEG into RGB.

Source: TIFF 6.0, section 20 (coding ranges), section 21 (the matrix, and data units of subsampled pages).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from realesr.errors import InputError
from realesr.images.decoded import image_from_array
from realesr.images.file_source import FileSource
from realesr.images.formats.tiff_directory import (
    PREDICTOR,
    REFERENCE_BLACK_WHITE,
    YCBCR_COEFFICIENTS,
    YCBCR_SUBSAMPLING,
    Page,
)
from realesr.images.formats.tiff_meaning import Meaning
from realesr.images.formats.tiff_samples import check_whole, decoded_rows, grid_of, open_samples
from realesr.images.formats.tiff_sizes import Grid
from realesr.images.libvips import pyvips

_BT601 = (0.299, 0.587, 0.114)


def open_ycbcr(page: Page, meaning: Meaning, *, access: str) -> tuple[Any, tuple[FileSource, ...]]:
    """Open a YCbCr page of 8 or 16 bit as RGB, followed by its alpha; subsampled pages are decoded whole.

    Raises:
        InputError: its subsampling, coefficients or depth are not read.
        pyvips.Error: damaged.
    """
    if meaning.depth not in (8, 16):
        raise InputError(f"{page.path} is YCbCr of {meaning.depth} bit, expected 8 or 16; save it as RGB first")
    across, down = _subsampling(page)
    if (across, down) == (1, 1):
        image, sources = open_samples(page, meaning.wanted, access=access)
    else:
        check_whole(page, grid_of(page), len(meaning.wanted), "subsampled YCbCr in TIFF")
        image, sources = image_from_array(_upsampled(page, meaning, across, down)), ()
    return _to_rgb(image, page, meaning.depth), sources


def _subsampling(page: Page) -> tuple[int, int]:
    """Return how many columns and rows share a value of Cb and Cr; raise InputError for what is not read."""
    across, down = (*page.integers(YCBCR_SUBSAMPLING, 2, 2), 2, 2)[:2]
    if across not in (1, 2, 4) or down not in (1, 2, 4):
        raise InputError(
            f"{page.path} is YCbCr with chroma subsampled {across} x {down}, expected 1, 2 or 4; save it as RGB first"
        )
    return across, down


def _to_rgb(image: Any, page: Page, depth: int) -> Any:
    """Return YCbCr, which fills the range of its type, as RGB; further bands stay as they are."""
    red, green, blue = page.fractions(YCBCR_COEFFICIENTS)[:3] or _BT601
    if min(red, green, blue) <= 0:
        raise InputError(f"{page.path} is damaged: its YCbCr coefficients are {red:g}, {green:g} and {blue:g}")
    top, middle = 2**depth - 1, 2 ** (depth - 1)
    stated = page.fractions(REFERENCE_BLACK_WHITE)
    levels = stated if len(stated) == 6 else (0, top, middle, top, middle, top)
    black, white = levels[::2], levels[1::2]
    if any(low == high for low, high in zip(black, white, strict=True)):
        raise InputError(f"{page.path} is damaged: its reference black is its reference white; save it as RGB first")
    ranges = (top, middle - 1, middle - 1)
    gains = [size / (high - low) for size, low, high in zip(ranges, black, white, strict=True)]
    signal = image.extract_band(0, n=3).linear(gains, [-low * gain for low, gain in zip(black, gains, strict=True)])
    from_blue, from_red = 2 - 2 * blue, 2 - 2 * red
    matrix = [
        [1, 0, from_red],
        [1, -blue * from_blue / green, -red * from_red / green],
        [1, from_blue, 0],
    ]
    rgb = signal.recomb(pyvips.Image.new_from_array(matrix)).rint().cast(image.format)
    return rgb.bandjoin(image.extract_band(3, n=image.bands - 3)) if image.bands > 3 else rgb


def _upsampled(page: Page, meaning: Meaning, across: int, down: int) -> NDArray[Any]:
    """Decode a subsampled page: (H, W, 3 or 4) YCbCr, each chroma value repeated for the pixels that share it."""
    if page.is_planar:
        return _from_planes(page, meaning, across, down)
    if page.samples != 3:
        raise InputError(f"{page.path} is subsampled YCbCr in {page.samples} channels; save it as RGB first")
    if page.integer(PREDICTOR, 1) != 1:
        raise InputError(f"{page.path} is subsampled YCbCr with a predictor, which is not read; save it as RGB first")
    return _from_units(page, across, down)


def _from_units(page: Page, across: int, down: int) -> NDArray[Any]:
    """Decode data units: across x down values of Y, row by row, then one of Cb and one of Cr."""
    grid = grid_of(page)
    _check_pieces(page, grid, across, down)
    unit = across * down + 2
    units_a_piece = -(-grid.piece_width // across)
    rows = -(-grid.height // down)
    as_stored = Grid(
        grid.across * units_a_piece * unit, rows, 1, grid.depth, units_a_piece * unit, -(-grid.piece_height // down),
        grid.is_tiled,
    )  # fmt: skip
    units = decoded_rows(page, as_stored, 0).reshape(rows, -1, unit)
    luma = units[:, :, :-2].reshape(rows, -1, down, across).transpose(0, 2, 1, 3).reshape(rows * down, -1)
    chroma = units[:, :, -2:].repeat(down, axis=0).repeat(across, axis=1)
    return np.dstack([luma, chroma])[: grid.height, : grid.width]


def _from_planes(page: Page, meaning: Meaning, across: int, down: int) -> NDArray[Any]:
    """Decode planes, of which the second and third, Cb and Cr, are smaller than the others."""
    grid = grid_of(page)
    _check_pieces(page, grid, across, down)
    small = Grid(
        -(-grid.width // across), -(-grid.height // down), 1, grid.depth, -(-grid.piece_width // across),
        -(-grid.piece_height // down), grid.is_tiled,
    )  # fmt: skip
    if page.is_tiled:
        # Tiles have one size in all planes, so that the small planes have fewer.
        small = Grid(small.width, small.height, 1, grid.depth, grid.piece_width, grid.piece_height, True)
    planes = []
    for plane in meaning.wanted:
        first = plane * grid.pieces if plane < 2 or not page.is_tiled else grid.pieces + (plane - 1) * small.pieces
        values = decoded_rows(page, small if plane in (1, 2) else grid, first)[:, :, 0]
        if plane in (1, 2):
            values = values.repeat(down, axis=0).repeat(across, axis=1)[: grid.height, : grid.width]
        planes.append(values)
    return np.stack(planes, axis=2)


def _check_pieces(page: Page, grid: Grid, across: int, down: int) -> None:
    """Raise InputError where strips or tiles do not begin with a whole data unit, as section 21 demands."""
    if (grid.is_tiled and grid.piece_width % across) or (grid.piece_height % down and grid.piece_height < grid.height):
        raise InputError(
            f"{page.path} is YCbCr in pieces of {grid.piece_width} x {grid.piece_height} px, which cut its "
            f"{across} x {down} subsampling; save it as RGB first"
        )

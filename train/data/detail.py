"""Measures detail, sharpness and noise of an image on tiles of its luma, as it is read by bands of rows.

The tiles are split into scales by the undecimated ("a trous") wavelet transform with the B3 spline. Its first scale
holds what is one or two pixels wide, each next one what is twice as wide. In photos all scales have about the same
standard deviation (D. J. Field, "Relations between the statistics of natural images and the response properties of
cortical cells", JOSA A 4, 1987); blur empties the first scale, noise fills it, and without structure all are empty.

Source: J.-L. Starck, F. Murtagh, "Automatic noise estimation from the multiresolution support", PASP 110, 1998, for
the transform and for what white noise adds to each scale.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realesr.images.info import ImageInfo

Rows = NDArray[Any]
"""(rows, width, channels) uint8 or uint16, as `ImageReader.read_rows` returns them."""

Tiles = NDArray[np.float32]
"""(N, side, side) luma in levels of 255."""

TileMeasures = NDArray[np.float32]
"""(N, 5): of each tile the standard deviations of its first three scales, its mean, and its noise (Immerkaer)."""

TILE_PX = 64
_MOST_TILES_A_SIDE = 16
"""Tiles are spread evenly over larger images, so that the measure costs no more than that of one megapixel."""
_LEAST_TILE_PX = 32

_NOISE_IN_SCALE = (0.889, 0.200, 0.086)
"""Standard deviation of each scale of white noise of standard deviation 1, as Starck and Murtagh give it."""
_ROUNDING = 12**-0.5
"""Standard deviation of what rounding to whole levels adds."""
_BORDER_PX = 14
"""Border of a tile whose scales depend on pixels outside it: 2 + 4 + 8."""

_STRUCTURE_LEVELS = 1.0
"""Standard deviation of the third scale from which a tile has structure."""
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Rec. ITU-R BT.601."""


@dataclass(frozen=True, kw_only=True)
class Detail:
    """What an image has to teach a network, and what stands in the way."""

    structure: float
    """Share of the tiles with any structure: edges or texture of some pixels' width; 0 to 1."""
    sharpness: float
    """Standard deviation of the first scale over that of the second, where there is most of it: 0.8 to 1.7 in sharp
    photos, 0.4 after Gaussian blur with a standard deviation of 1.5 px, 0.3 after more. 0 without structure."""
    noise: float
    """Standard deviation of the luma's noise, in levels of 255; 0 where no tile is smooth enough to tell."""


class LumaTiles:
    """Collects the tiles of an image from its rows, given in order from the first to the last."""

    def __init__(self, info: ImageInfo) -> None:
        self._info = info
        self._side = min(TILE_PX, info.width_px, info.height_px)
        lefts = np.array(_starts(info.width_px, self._side))
        self._columns = (lefts[:, None] + np.arange(self._side)).ravel()
        self._tops = _starts(info.height_px, self._side)
        self._strips: list[TileMeasures] = []
        self._pending: list[Rows] = []
        self._next_row = 0

    def add(self, rows: Rows) -> None:
        """Take the next rows."""
        start, end = self._next_row, self._next_row + len(rows)
        for top in self._tops[len(self._strips) :]:
            first, last = max(top, start), min(top + self._side, end)
            if first < last:
                self._pending.append(rows[first - start : last - start, self._columns])
            if end < top + self._side:
                break
            self._strips.append(_measured(self._tiles_of(np.concatenate(self._pending))))
            self._pending = []
        self._next_row = end

    def detail(self) -> Detail | None:
        """Return the measures of the whole image; None where it is too small for them."""
        return None if self._side < _LEAST_TILE_PX else _detail(np.concatenate(self._strips))

    def _tiles_of(self, strip: Rows) -> Tiles:
        """Return the luma of a row of tiles, given as (side, N * side, channels)."""
        luma = strip[:, :, 0].astype(np.float32) if self._info.is_grey else strip[:, :, :3] @ _LUMA
        levels = luma / np.float32(257 if self._info.bits == 16 else 1)
        return levels.reshape(self._side, -1, self._side).transpose(1, 0, 2)


def immerkaer_noise(tiles: Tiles) -> NDArray[np.float32]:
    """Return the standard deviation of the noise of each tile, as if it had no texture.

    Source: J. Immerkaer, "Fast noise variance estimation", Computer Vision and Image Understanding 64, 1996, section 3.
    """
    across = tiles[:, :, :-2] - 2 * tiles[:, :, 1:-1] + tiles[:, :, 2:]
    laplacians = across[:, :-2] - 2 * across[:, 1:-1] + across[:, 2:]
    deviations: NDArray[np.float32] = np.abs(laplacians).mean(axis=(1, 2)) * np.float32(np.sqrt(np.pi / 2) / 6)
    return deviations


def _measured(tiles: Tiles) -> TileMeasures:
    """Measure tiles of 32 px or more; smaller ones get zeros."""
    if tiles.shape[1] < _LEAST_TILE_PX:
        return np.zeros((len(tiles), 5), np.float32)
    return np.stack([*_deviations(tiles), tiles.mean(axis=(1, 2)), immerkaer_noise(tiles)], axis=1)


def _deviations(tiles: Tiles) -> list[NDArray[np.float32]]:
    """Return the standard deviation of each tile's first three scales, where they depend on no pixel outside it."""
    scales, smooth, border = [], tiles, _BORDER_PX
    for step in (1, 2, 4):
        smoother = _smoothed(_smoothed(smooth, step, axis=1), step, axis=2)
        scale = smooth[:, 2 * step : -2 * step, 2 * step : -2 * step] - smoother
        border -= 2 * step
        inside = slice(border, -border or None)
        scales.append(scale[:, inside, inside].std(axis=(1, 2)))
        smooth = smoother
    return scales


def _smoothed(tiles: Tiles, step: int, *, axis: int) -> Tiles:
    """Convolve with the spline, whose weights lie `step` px apart; the result is 4 * step px shorter."""
    length = tiles.shape[axis] - 4 * step
    ahead = np.moveaxis(tiles, axis, 0)
    a, b, c, d, e = (ahead[place : place + length] for place in range(0, 5 * step, step))
    smooth = (a + e) / np.float32(16) + (b + d) / np.float32(4) + c * np.float32(6 / 16)
    return np.moveaxis(smooth, 0, axis)


def _detail(tiles: TileMeasures) -> Detail:
    """Return the measures of an image from those of its tiles."""
    scales, noise = tiles[:, :3], _noise(tiles)
    floor = np.hypot(noise, _ROUNDING) * np.array(_NOISE_IN_SCALE)
    fine, middle, coarse = np.sqrt(np.maximum(scales**2 - floor**2, 0)).T
    has_structure = coarse > _STRUCTURE_LEVELS
    most = np.argsort(-middle)[: max(1, len(tiles) // 10)]
    ratios = fine[most] / np.maximum(middle[most], _ROUNDING)
    return Detail(
        structure=float(has_structure.mean()),
        sharpness=float(np.median(ratios)) if has_structure.any() else 0.0,
        noise=noise,
    )


def _noise(tiles: TileMeasures) -> float:
    """Return the noise that the smoothest tenth of the tiles shows, where it is noise rather than fine texture.

    Black and white areas, where noise is cut off, tell nothing.
    """
    fine, middle, _, means, noise = tiles.T
    telling = np.flatnonzero((means > 8) & (means < 247) & (middle > 0))
    if not len(telling):
        return 0.0
    smoothest = telling[np.argsort(middle[telling])[: max(1, len(telling) // 10)]]
    white = _NOISE_IN_SCALE[0] / _NOISE_IN_SCALE[1]
    is_noise = np.median(fine[smoothest] / middle[smoothest]) > white / 2
    return float(np.median(noise[smoothest])) if is_noise else 0.0


def _starts(length_px: int, side_px: int) -> list[int]:
    """Return where tiles begin that are spread evenly and do not overlap."""
    count = min(_MOST_TILES_A_SIDE, length_px // side_px)
    return [round((length_px - side_px) * place / max(1, count - 1)) for place in range(count)]

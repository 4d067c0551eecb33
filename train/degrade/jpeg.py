"""Simulates JPEG on a batch without making files: colours, subsampling, DCT, quantisation; a quality per sample.

RGB -> YCbCr -> chroma at half size -> 8 x 8 DCT -> rounded to multiples of the table -> back
Entropy coding loses nothing, so it is left out. `compress` computes what libjpeg-turbo does with its defaults, up to
the rounding of its integer DCT; `compress_faithful` what the reference's simulator does.

Sources: ITU-T T.81 (Annex K), JFIF 1.02 (colours), libjpeg-turbo (jcparam.c, jcsample.c, jdsample.c, jccolor.c).
"""

import functools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from realesr.train.degrade.degradation import Subsampling
from realesr.train.degrade.filters import to_device
from realesr.train.degrade.jpeg_tables import CHROMA_TABLE, LUMA_TABLE, tables_by_quality

TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
"""Rows Y, Cb, Cr; columns R, G, B."""


def compress(images: Tensor, quality: Tensor, subsampling: Sequence[Subsampling]) -> Tensor:
    """Return images as libjpeg would give them back after writing and reading them.

    Args:
        images: (N, 3, H, W) float32 RGB in [0, 1], of any size; rounded to 8 bits first, as an encoder gets them.
        quality: (N,) 1 to 100, rounded to whole numbers; it is not modified.
        subsampling: of each sample's chroma.

    Returns:
        (N, 3, H, W) float32 in [0, 1], multiples of 1/255.
    """
    if len(images) == 0:
        return images
    ycc = _round(_to_ycc(_round((images * 255).clamp(0, 255)))).clamp(0, 255)
    luma_table, chroma_table = tables(to_device(quality, images.device))
    luma = _crop_like(_decoded(_pad_by_edge(ycc[:, :1], 8, 8), luma_table), images)
    chroma = _chroma(ycc[:, 1:], chroma_table, subsampling)
    return _round(_to_rgb(torch.cat((luma, chroma), 1))).clamp(0, 255) / 255


def compress_faithful(images: Tensor, quality: Tensor) -> Tensor:
    """Return images as the reference's simulator of JPEG would give them back.

    Its tables are not rounded, the one of the luma is transposed, so that horizontal and vertical frequencies change
    places; images are made multiples of 16 by black; chroma comes back by repeating; only coefficients are rounded.
    Source: basicsr/utils/diffjpeg.py.

    Args:
        images: (N, 3, H, W) float32 RGB in [0, 1].
        quality: (N,) 1 to 100, need not be whole.

    Returns:
        (N, 3, H, W) float32 in [0, 1], not rounded.
    """
    if len(images) == 0:
        return images
    height, width = images.shape[-2:]
    padded = functional.pad(images * 255, (0, -width % 16, 0, -height % 16))
    ycc = _to_ycc(padded)
    quality = to_device(quality, images.device)
    factor = torch.where(quality < 50, 50 / quality, (200 - 2 * quality) / 100)[:, None, None]
    luma = _transformed(ycc[:, :1], _table(LUMA_TABLE, images.device).T * factor)
    chroma = _transformed(functional.avg_pool2d(ycc[:, 1:], 2), _table(CHROMA_TABLE, images.device) * factor)
    large = functional.interpolate(chroma, scale_factor=2, mode="nearest")
    return _crop_like(_to_rgb(torch.cat((luma, large), 1)).clamp(0, 255) / 255, images)


def tables(quality: Tensor) -> tuple[Tensor, Tensor]:
    """Return tables of luma and chroma, (N, 8, 8) float32 whole numbers of 1 to 255, for (N,) qualities."""
    scaled = _tables_by_quality(quality.device)[quality.round().clamp(1, 100).long() - 1]
    return scaled[:, 0], scaled[:, 1]


@functools.cache
def _tables_by_quality(device: torch.device) -> Tensor:
    return to_device(torch.from_numpy(tables_by_quality()).float(), device)


@functools.cache
def _table(table: tuple[tuple[int, ...], ...], device: torch.device) -> Tensor:
    return to_device(torch.tensor(table, dtype=torch.float32), device)


@functools.cache
def _dct_matrix(device: torch.device) -> Tensor:
    """Return the (8, 8) orthonormal DCT-II matrix: rows are frequencies (T.81, A.3.3)."""
    rows = [
        [math.sqrt((1 if u == 0 else 2) / 8) * math.cos((2 * x + 1) * u * math.pi / 16) for x in range(8)]
        for u in range(8)
    ]
    return to_device(torch.tensor(rows, dtype=torch.float32), device)


def _to_ycc(rgb: Tensor) -> Tensor:
    """Convert RGB in [0, 255] to YCbCr with chroma round 128 (JFIF 1.02)."""
    red, green, blue = rgb.unbind(1)
    y, cb, cr = (red * r + green * g + blue * b for r, g, b in TO_YCC)
    return torch.stack((y, cb + 128, cr + 128), 1)


def _to_rgb(ycc: Tensor) -> Tensor:
    y, cb, cr = ycc.unbind(1)
    cb, cr = cb - 128, cr - 128
    return torch.stack((y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb), 1)


def _decoded(planes: Tensor, table: Tensor) -> Tensor:
    return _round(_transformed(planes, table)).clamp(0, 255)


def _transformed(planes: Tensor, table: Tensor) -> Tensor:
    """Put planes (N, C, H, W) in multiples of 8 px through DCT and quantisation by (N, 8, 8) tables, and back."""
    count, channels, height, width = planes.shape
    dct = _dct_matrix(planes.device)
    shape = (count, channels, height // 8, 8, width // 8, 8)
    steps = table[:, None, None, :, None, :]
    coefficients = _transform_2d((planes - 128).view(shape), dct)
    quantised = torch.round(coefficients / steps) * steps
    return _transform_2d(quantised, dct.T).reshape(planes.shape) + 128


def _transform_2d(blocks: Tensor, matrix: Tensor) -> Tensor:
    """Return matrix @ block @ matrix^T for blocks (N, C, rows, 8, columns, 8); the layout stays that of an image."""
    count, channels, rows, _, columns, _ = blocks.shape
    across = blocks @ matrix.T
    return (matrix @ across.reshape(count, channels, rows, 8, columns * 8)).view(blocks.shape)


def _chroma(planes: Tensor, table: Tensor, subsampling: Sequence[Subsampling]) -> Tensor:
    """Return chroma planes (N, 2, H, W) after the round trip; samples of one subsampling are computed together."""
    restored: list[Tensor | None] = [None] * len(planes)
    for kind in dict.fromkeys(subsampling):
        picks = [at for at, other in enumerate(subsampling) if other == kind]
        some = planes if len(picks) == len(planes) else torch.stack([planes[at] for at in picks])
        steps = table if len(picks) == len(planes) else torch.stack([table[at] for at in picks])
        for at, plane in zip(picks, _CHROMA[kind](some, steps), strict=True):
            restored[at] = plane
    return torch.stack([plane for plane in restored if plane is not None])


def _chroma_444(planes: Tensor, table: Tensor) -> Tensor:
    return _crop_like(_decoded(_pad_by_edge(planes, 8, 8), table), planes)


def _chroma_422(planes: Tensor, table: Tensor) -> Tensor:
    """Halve the columns: average pairs, and round .5 down and up in turn (jcsample.c, h2v1_downsample)."""
    height, width = planes.shape[-2:]
    full = _pad_by_edge(planes, 1, 16)
    small = torch.floor((full[..., 0::2] + full[..., 1::2] + _alternating(full, 0.0, 1.0)) / 2)
    small = _decoded(_pad_by_edge(small, 8, 8), table)[..., :height, : -(-width // 2)]
    if small.shape[-1] <= _MOST_REPEATED_COLUMNS:
        return _crop_like(small.repeat_interleave(2, 3), planes)
    near, before, after = _neighbours(small)
    return _crop_like(
        _interleave(torch.floor((3 * near + before + 1) / 4), torch.floor((3 * near + after + 2) / 4)), planes
    )


def _chroma_420(planes: Tensor, table: Tensor) -> Tensor:
    """Halve rows and columns: average fours, adding 1 and 2 in turn before dividing (jcsample.c, h2v2_downsample)."""
    height, width = planes.shape[-2:]
    full = _pad_by_edge(planes, 2, 16)
    rows = full[..., 0::2, :] + full[..., 1::2, :]
    small = torch.floor((rows[..., 0::2] + rows[..., 1::2] + _alternating(full, 1.0, 2.0)) / 4)
    small = _decoded(_pad_by_edge(small, 8, 8), table)[..., : -(-height // 2), : -(-width // 2)]
    if small.shape[-1] <= _MOST_REPEATED_COLUMNS:
        return _crop_like(small.repeat_interleave(2, 3).repeat_interleave(2, 2), planes)
    near, above, below = (plane.transpose(2, 3) for plane in _neighbours(small.transpose(2, 3)))
    tall = _interleave((3 * near + above).transpose(2, 3), (3 * near + below).transpose(2, 3)).transpose(2, 3)
    near, before, after = _neighbours(tall)
    return _crop_like(
        _interleave(torch.floor((3 * near + before + 8) / 16), torch.floor((3 * near + after + 7) / 16)), planes
    )


_MOST_REPEATED_COLUMNS = 2
"""Chroma of so few columns is repeated and not interpolated (libjpeg, jdsample.c)."""

_CHROMA: dict[Subsampling, Callable[[Tensor, Tensor], Tensor]] = {
    "4:2:0": _chroma_420,
    "4:2:2": _chroma_422,
    "4:4:4": _chroma_444,
}


def _alternating(full: Tensor, even: float, odd: float) -> Tensor:
    """Return what is added at even and at odd columns before a division, so that rounding favours no side."""
    columns = torch.arange(full.shape[-1] // 2, device=full.device) % 2
    return even + (odd - even) * columns


def _neighbours(planes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return each pixel, the one before and the one after it along the last axis; the edge is repeated."""
    padded = functional.pad(planes, (1, 1, 0, 0), mode="replicate")
    return planes, padded[..., :-2], padded[..., 2:]


def _interleave(first: Tensor, second: Tensor) -> Tensor:
    """Interleave columns: one of the first, one of the second, and so on."""
    return torch.stack((first, second), -1).flatten(-2)


def _pad_by_edge(planes: Tensor, rows: int, columns: int) -> Tensor:
    """Repeat the last row and column until the sides are multiples."""
    height, width = planes.shape[-2:]
    if height % rows == 0 and width % columns == 0:
        return planes
    return functional.pad(planes, (0, -width % columns, 0, -height % rows), mode="replicate")


def _crop_like(planes: Tensor, like: Tensor) -> Tensor:
    return planes[..., : like.shape[-2], : like.shape[-1]]


def _round(values: Tensor) -> Tensor:
    """Round halves upwards as libjpeg does; torch.round takes them to even."""
    return torch.floor(values + 0.5)

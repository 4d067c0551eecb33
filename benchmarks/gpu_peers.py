"""Real-ESRGAN's own way through an image, which most people run on a GPU: half precision, NCHW, kernel by kernel.

Source of the steps: Real-ESRGAN, realesrgan/utils.py (RealESRGANer.pre_process, tile_process, enhance).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

PEERS_TILE_PX, PEERS_OVERLAP_PX = 400, 10
"""A tile that its users are often told to take, and its default overlap."""


@dataclass(frozen=True, kw_only=True)
class PeersTile:
    """One tile along one axis: reads [start, stop), answers for [first, last)."""

    start: int
    stop: int
    first: int
    last: int


def peers_tiles(length_px: int, tile_px: int, overlap_px: int) -> Iterator[PeersTile]:
    """Yield tiles that begin every `tile_px`; the last one is what is left."""
    for first in range(0, length_px, tile_px):
        last = min(first + tile_px, length_px)
        yield PeersTile(
            start=max(first - overlap_px, 0), stop=min(last + overlap_px, length_px), first=first, last=last
        )


def enlarge_as_peers(
    module: torch.nn.Module, photo: NDArray[np.uint8], *, scale: int, tile_px: int = PEERS_TILE_PX
) -> NDArray[np.uint8]:
    """Enlarge (height, width, 3) RGB tile by tile, where the module lies and in its type.

    The result is put together there; clamping and rounding are the CPU's.
    """
    first = next(module.parameters())
    planes = np.ascontiguousarray((photo.astype(np.float32) / 255).transpose(2, 0, 1))
    lr = torch.from_numpy(planes).unsqueeze(0).to(first.device).to(first.dtype)
    _, channels, height, width = lr.shape
    sr = lr.new_zeros((1, channels, height * scale, width * scale))
    with torch.no_grad():
        for row in peers_tiles(height, tile_px, PEERS_OVERLAP_PX):
            for column in peers_tiles(width, tile_px, PEERS_OVERLAP_PX):
                tile = module(lr[:, :, row.start : row.stop, column.start : column.stop])
                top, left = (row.first - row.start) * scale, (column.first - column.start) * scale
                bottom, right = (row.last - row.start) * scale, (column.last - column.start) * scale
                sr[:, :, row.first * scale : row.last * scale, column.first * scale : column.last * scale] = tile[
                    :, :, top:bottom, left:right
                ]
    result = sr.squeeze(0).float().cpu().clamp_(0, 1).numpy().transpose(1, 2, 0)
    levels: NDArray[np.uint8] = (result * 255.0).round().astype(np.uint8)
    return levels

"""Resizes as the degradation does: area, bilinear and bicubic, all without antialiasing.

Source: Real-ESRGAN, realesrgan/models/realesrgan_model.py. Nearest is left out there because it moves pixels.
"""

import functools

import torch
from torch import Tensor
from torch.nn import functional

from realesr.train.degrade.degradation import Arithmetic, ResizeDraw


def resize(images: Tensor, draw: ResizeDraw, arithmetic: Arithmetic = "corrected") -> Tensor:
    """Resize so that the corners of the image stay where they are: by size, not by factor.

    Args:
        images: (N, C, H, W) float32.
        draw: size and interpolation. Bicubic is the one with a = -0.75.
        arithmetic: what "area" is: the mean over exactly what an output pixel covers, or the reference's adaptive
            pooling, which takes whole input pixels and so moves each output pixel by up to half an input pixel.

    Returns:
        (N, C, draw.height_px, draw.width_px); bicubic ones may leave [0, 1].
    """
    size = (draw.height_px, draw.width_px)
    if images.shape[-2:] == size:
        return images
    if draw.mode != "area":
        return functional.interpolate(images, size=size, mode=draw.mode, align_corners=False)
    if arithmetic == "faithful":
        return functional.interpolate(images, size=size, mode="area")
    return _box_means(_box_means(images, 2, draw.height_px), 3, draw.width_px)


def first_resize(images: Tensor, draw: ResizeDraw, arithmetic: Arithmetic) -> Tensor:
    """Do the first stage's resize: in the faithful arithmetic by factor, to a size that is rounded down.

    There bilinear and bicubic cover size / factor input pixels, less than all: what lies at the right and at the bottom
    is lost, and a later resize by size stretches the rest.
    """
    vanishes = min(images.shape[-2:]) * draw.factor < 1
    if arithmetic == "corrected" or draw.mode == "area" or draw.factor == 1 or vanishes:
        return resize(images, draw, arithmetic)
    return functional.interpolate(images, scale_factor=draw.factor, mode=draw.mode, align_corners=False)


def _box_means(images: Tensor, dim: int, to_px: int) -> Tensor:
    """Return means over the boxes that output pixels cover along one axis.

    Output pixel i covers [i * px, (i + 1) * px) and input pixel j covers [j * to_px, (j + 1) * to_px), so that overlaps
    are whole numbers.
    """
    px = images.shape[dim]
    start = torch.arange(to_px, device=images.device) * px
    first = start // to_px
    shape = (-1, 1) if dim == 2 else (-1,)
    parts = (
        images.index_select(dim, (first + step).clamp(max=px - 1))
        * _overlap(start, first + step, px, to_px).view(shape)
        for step in range(-(-px // to_px) + 1)
    )
    return functools.reduce(torch.add, parts)


def _overlap(start: Tensor, pixel: Tensor, px: int, to_px: int) -> Tensor:
    """Return the share of each box that lies in its pixel, (to_px,)."""
    last, first = torch.minimum(start + px, (pixel + 1) * to_px), torch.maximum(start, pixel * to_px)
    return (last - first).clamp(min=0).float() / px

"""Filters batches of images: with a kernel per sample, and to sharpen the ground truth."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


def filter_batch(images: Tensor, kernels: Tensor) -> Tensor:
    """Correlate each image with its own kernel (cross-correlation: the kernel is not flipped).

    Edges are mirrored without repeating them (OpenCV's BORDER_REFLECT_101), also where the kernel is larger than the
    image. Source: basicsr/utils/img_process_util.py, filter2D.

    Args:
        images: (N, C, H, W) float32.
        kernels: (N, k, k) float32 with k odd, the same for all channels; they are moved to the images' device.

    Returns:
        (N, C, H, W).
    """
    count, channels, height, width = images.shape
    if count == 0:
        return images
    side = kernels.shape[-1]
    padded = reflect_pad(images, side // 2)
    weights = to_device(kernels, images.device).repeat_interleave(channels, 0)[:, None]
    planes = padded.reshape(1, count * channels, *padded.shape[-2:])
    return functional.conv2d(planes, weights, groups=count * channels).view(count, channels, height, width)


def sharpen(hr: Tensor, amount: float = 0.5, radius_px: int = 50, threshold: float = 10.0) -> Tensor:
    """Sharpen by unsharp masking where an image differs from its blurred self by more than a threshold.

    The Gaussian is applied along rows, then along columns, which is the same as the reference's 51 x 51 kernel.
    Source: basicsr/utils/img_process_util.py, USMSharp; OpenCV's rule makes the standard deviation 8.0.

    Args:
        hr: (N, C, H, W) float32 in [0, 1].
        amount: how much of the difference is added.
        radius_px: side of the kernel, made odd.
        threshold: in levels of 255.

    Returns:
        (N, C, H, W) in [0, 1].
    """
    if hr.shape[0] == 0:
        return hr
    taps = to_device(_gaussian_taps(radius_px), hr.device)
    rest = hr - _blur(hr, taps)
    mask = _blur((rest.abs() * 255 > threshold).to(hr.dtype), taps)
    sharp = (hr + amount * rest).clamp(0, 1)
    return mask * sharp + (1 - mask) * hr


def reflect_pad(images: Tensor, px: int) -> Tensor:
    """Pad (N, C, H, W) to (N, C, H + 2 px, W + 2 px) by mirroring at the edges, as often as it takes."""
    if px < min(images.shape[-2:]):
        return functional.pad(images, (px, px, px, px), mode="reflect")
    rows, columns = (
        to_device(torch.from_numpy(np.pad(np.arange(side), px, mode="reflect")), images.device)
        for side in images.shape[-2:]
    )
    return images.index_select(2, rows).index_select(3, columns)


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Return values on a device, without waiting for it."""
    if device.type != "cuda" or values.device.type != "cpu":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def _gaussian_taps(radius_px: int) -> Tensor:
    side = radius_px + (radius_px + 1) % 2
    sigma = 0.3 * ((side - 1) / 2 - 1) + 0.8
    taps = [math.exp(-((at - side // 2) ** 2) / (2 * sigma**2)) for at in range(side)]
    return torch.tensor([tap / sum(taps) for tap in taps], dtype=torch.float32)


def _blur(images: Tensor, taps: Tensor) -> Tensor:
    count = images.shape[0] * images.shape[1]
    padded = reflect_pad(images, len(taps) // 2)
    planes = padded.reshape(1, count, *padded.shape[-2:])
    down = taps[None, None, :, None].repeat(count, 1, 1, 1)
    across = taps[None, None, None, :].repeat(count, 1, 1, 1)
    return functional.conv2d(functional.conv2d(planes, down, groups=count), across, groups=count).view(images.shape)

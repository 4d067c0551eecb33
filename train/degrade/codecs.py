"""Encodes and decodes WebP and AVIF by Pillow: whole files on the CPU, one image after the other.

For a GPU this is a round trip over the host, which waits for it; so both are off in the recipes that ship.
"""

import io
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from realesr.errors import MissingDependency
from realesr.train.degrade.filters import to_device


def recompress(image: Tensor, codec: Literal["webp", "avif"], quality: float) -> Tensor:
    """Encode an image into memory and decode it.

    Args:
        image: (3, H, W) float32 RGB in [0, 1]; rounded to 8 bits. WebP takes up to 16383 px a side.
        codec: of the file.
        quality: 1 to 100, rounded to a whole number.

    Returns:
        (3, H, W) float32 in [0, 1], multiples of 1/255, on the image's device.

    Raises:
        MissingDependency: this Pillow was built without the codec.
    """
    from PIL import Image, features

    if not features.check(codec):
        raise MissingDependency(
            f"this Pillow has no {codec.upper()}: pip install --force-reinstall pillow, or set degrade.{codec} = 0"
        )
    pixels = (image.detach().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, codec.upper(), quality=round(quality))
    with Image.open(file) as again:
        restored = np.array(again.convert("RGB"))
    return to_device(torch.from_numpy(restored), image.device).permute(2, 0, 1).float() / 255

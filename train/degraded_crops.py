"""Degrades crops of images for what is kept: exported pairs, and the patches that a teacher answers."""

import torch
from torch import Tensor

from realesr.train.degrade.apply import apply, crop_pair
from realesr.train.degrade.degradation import Degradation
from realesr.train.degrade.draw import draw
from realesr.train.degrade.filters import sharpen, to_device
from realesr.train.degrade.recipe import DegradeRecipe


def degraded_crops(
    images: Tensor,
    recipe: DegradeRecipe,
    *,
    seed: int,
    scale: int,
    crop_px: int,
    sharpened: bool,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor, Degradation]:
    """Degrade images and cut a crop out of each.

    Args:
        images: (N, 3, H, W) RGB, bytes, or float32 in [0, 1], as `data.loader` reads them.
        recipe: the degradation.
        seed: decides everything that is drawn.
        scale: HR px per LR px and side.
        crop_px: side of the HR crops.
        sharpened: whether images are sharpened before they are degraded; the HR crops are not.
        device: where it is done, and where the results are.

    Returns:
        LR crops and HR crops, float32 in [0, 1], and what was drawn.
    """
    hr = as_floats(to_device(images, torch.device(device)))
    size = (hr.shape[2], hr.shape[3])
    generator = torch.Generator().manual_seed(seed)
    drawn = draw(recipe, len(hr), generator, hr_px=size, scale=scale, crop_px=crop_px)
    lr = apply(sharpen(hr) if sharpened else hr, drawn)
    return *crop_pair(lr, hr, drawn, crop_px), drawn


def as_floats(images: Tensor) -> Tensor:
    """Return bytes as float32 in [0, 1]; floats as they are."""
    return images.float() / 255 if images.dtype == torch.uint8 else images


def as_bytes(images: Tensor) -> Tensor:
    """Round values to the 256 levels of bytes; what lies outside [0, 1] is clamped."""
    return (images.float().clamp(0, 1) * 255).round().to(torch.uint8)

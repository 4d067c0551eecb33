"""Makes noise from seeds: a field for each sample, so that noise does not depend on its neighbours in the batch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from realesr.train.degrade.degradation import Arithmetic, NoiseDraw

LUMA = (0.2989, 0.587, 0.114)
"""Weights of R, G, B in the grey image that grey Poisson noise is drawn from (basicsr/data/degradations.py)."""


def add_noise(images: Tensor, draws: Sequence[NoiseDraw | None], *, arithmetic: Arithmetic, photons: float) -> Tensor:
    """Add each sample's noise and clamp.

    Args:
        images: (N, 3, H, W) float32.
        draws: one a sample; None leaves it as it is, but for the clamp.
        arithmetic: `faithful` draws Poisson noise by the number of a sample's levels.
        photons: that white stands for, in the corrected arithmetic.

    Returns:
        (N, 3, H, W) float32 in [0, 1], not rounded. On the CPU and on a GPU the same seeds make different fields.
    """
    noises = [
        _no_noise(image) if draw is None else _noise(image, draw, arithmetic, photons)
        for image, draw in zip(images, draws, strict=True)
    ]
    return (images + torch.stack(noises)).clamp(0, 1) if noises else images


def _no_noise(image: Tensor) -> Tensor:
    return torch.zeros_like(image)


def _noise(image: Tensor, draw: NoiseDraw, arithmetic: Arithmetic, photons: float) -> Tensor:
    """Return one image's noise, (3, H, W)."""
    generator = torch.Generator(image.device).manual_seed(draw.seed)
    if draw.kind == "gaussian":
        shape = (1 if draw.grey else 3, *image.shape[1:])
        field = torch.randn(shape, generator=generator, device=image.device, dtype=image.dtype)
        return (field * (draw.strength / 255)).expand_as(image)
    light = _grey(image) if draw.grey else image
    if arithmetic == "faithful":
        return (poisson_by_levels(light, generator) * draw.strength).expand_as(image)
    return (poisson_by_photons(light.clamp(0, 1), photons, generator) * draw.strength).expand_as(image)


def poisson_by_photons(light: Tensor, photons: float, generator: torch.Generator) -> Tensor:
    """Return shot noise of light in [0, 1]: mean 0, variance light / photons."""
    return torch.poisson(light * photons, generator=generator) / photons - light


def poisson_by_levels(light: Tensor, generator: torch.Generator) -> Tensor:
    """Return shot noise as the reference has it: of the image in 8 bits, with as many photons as it has levels.

    The number of levels is rounded up to a power of 2. Source: basicsr/data/degradations.py, generate_poisson_noise_pt.
    """
    levels = (light * 255).round().clamp(0, 255)
    # A mark for every level that occurs: torch.unique would have to tell the host how many there are.
    marks = torch.zeros(256, dtype=torch.float32, device=light.device).scatter_(0, levels.long().flatten(), 1.0)
    powers = torch.arange(9, device=light.device, dtype=torch.float32).exp2()
    photons = (marks.sum() > powers).sum().to(torch.float32).exp2()
    rounded = levels / 255
    return torch.poisson(rounded * photons, generator=generator) / photons - rounded


def _grey(image: Tensor) -> Tensor:
    red, green, blue = LUMA
    return (image[0] * red + image[1] * green + image[2] * blue)[None]

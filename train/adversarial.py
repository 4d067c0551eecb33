"""Says what the discriminator sees of an image, and how strongly its verdict pulls at the generator."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from realesr.train.stage_options import StageOptions
from realesr.train.train_state import unwrapped

MEAN_PX = 7
"""Side of the local means that `details` takes away."""
DETAILS_GAIN = 4.0
"""Factor of what is left: details are small, and spectral norm keeps a discriminator from enlarging them itself."""

MOST_FACTOR = 10.0
"""Largest factor of the adversarial gradient. That of a discriminator which tells images apart needs one below 1; where
it has given up, the gradient is noise, and three runs that enlarged it 100 to 600 times drew dots."""

_LEAST_NORM = 1e-12
"""Smallest norm that is divided by: a gradient of zeros stays one."""


def details(images: Tensor) -> Tensor:
    """Return DETAILS_GAIN times the differences from the local means, the shape as before; a flat image is all zeros.

    At the border the mean is that of what lies inside.

    Args:
        images: (N, C, H, W), at least 4 px a side.
    """
    means = functional.avg_pool2d(images, MEAN_PX, 1, MEAN_PX // 2, count_include_pad=False)
    return DETAILS_GAIN * (images - means)


def enlarged(lr: Tensor, like: Tensor) -> Tensor:
    """Return the generator's input at the size of an image of `like`: bicubic (a = -0.75), float32 in [0, 1]."""
    size = (like.shape[2], like.shape[3])
    return functional.interpolate(lr.float(), size=size, mode="bicubic", align_corners=False).clamp(0, 1)


def seen(discriminator: nn.Module, images: Tensor, lr: Tensor, options: StageOptions) -> Tensor:
    """Return what the discriminator sees of images: themselves or their details, and the enlarged input if it has room.

    Source of the second: Isola et al. 2017, "Image-to-Image Translation with Conditional Adversarial Networks", arXiv
    1611.07004, section 3.1, equation 1.

    Args:
        discriminator: of 3 channels, or of 6, then it sees the input too.
        images: (N, 3, H, W) float32 RGB in [0, 1], real or fake.
        lr: (N, 3, h, w), what the generator made (or would make) them from.
        options: of the stage.
    """
    shown = details(images) if options.gan_details else images
    channels = unwrapped(discriminator).get_parameter("conv0.weight").shape[1]
    return shown if channels == images.shape[1] else torch.cat([shown, enlarged(lr, images)], dim=1)


def balanced_gradient(others: Tensor, gan: Tensor, sr: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Return the gradient of all losses at the generator's output, with the adversarial loss's as strong as asked.

    Its norm becomes `share` times that of the others together, unless that takes a factor above MOST_FACTOR. Source:
    Esser et al. 2021, "Taming Transformers", arXiv 2012.09841, equation 7, which compares the gradients at the
    generator's last layer. The norms go over all of `sr`, which is a part of the batch where the batch is cut into
    parts or spread over processes; each part then has the share, and so has the whole. Nothing waits for the device.

    Args:
        others: weighted sum of the other losses, of `sr`.
        gan: the adversarial loss, unweighted, of `sr`.
        sr: (N, 3, H, W), what the generator made, with its graph. The graphs from there to the losses are used up.
        share: 0 or more.

    Returns:
        The gradient, of the shape of `sr`, and the factor by which the adversarial loss's was multiplied.
    """
    (wanted,) = torch.autograd.grad(others, sr)
    (adversarial,) = torch.autograd.grad(gan, sr)
    factor = (share * wanted.norm() / adversarial.norm().clamp(min=_LEAST_NORM)).clamp(max=MOST_FACTOR)
    return wanted + factor * adversarial, factor

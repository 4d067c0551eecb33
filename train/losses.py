"""Computes losses in float32, each a mean over everything: images are (N, 3, H, W) RGB in [0, 1]."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from realesr.train.vgg import LAYERS

COLOUR_PX = 16
"""Side of the squares whose means `colour_loss` compares; smaller images are one square."""

_VARIANCE_PX = 7
"""Side of the window of local variance: BasicSR, basicsr/models/esrgan_model.py."""


def l1(sr: Tensor, hr: Tensor) -> Tensor:
    """Return the mean absolute error."""
    return functional.l1_loss(sr.float(), hr.float())


def mse(sr: Tensor, hr: Tensor) -> Tensor:
    """Return the mean squared error, of which PSNR is the logarithm."""
    return functional.mse_loss(sr.float(), hr.float())


def colour_loss(sr: Tensor, hr: Tensor) -> Tensor:
    """Return the mean absolute error of the mean colours of squares of COLOUR_PX: it sees colours, not texture."""
    return l1(_shrunk(sr), _shrunk(hr))


def gan_loss(logits: Tensor, real: bool) -> Tensor:
    """Return the binary cross-entropy of a discriminator's logits, of any shape, with "real" or "not real"."""
    logits = logits.float()
    return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))


def artefact_loss(sr: Tensor, mean_sr: Tensor, hr: Tensor) -> Tensor:
    """Return the locally discriminative loss (LDL): the mean absolute error where it looks like an artefact.

    A pixel's error counts by the local variance of the residual, times the fifth root of the image's variance; and only
    where it is larger than that of the generator's running mean, which makes fewer artefacts. The residual is summed
    over the channels.

    Source: Liang et al. 2022, arXiv 2203.09195; BasicSR, basicsr/losses/loss_util.py, get_refined_artifact_map. There
    the map has a gradient too; here it is a weight, as the root's gradient is infinite where an image is without error.

    Args:
        sr: of the generator.
        mean_sr: of its running mean, for the same input.
        hr: the truth.
    """
    sr, mean_sr, hr = sr.float(), mean_sr.float(), hr.float()
    with torch.no_grad():
        residual = (hr - sr).abs().sum(dim=1, keepdim=True)
        residual_of_mean = (hr - mean_sr).abs().sum(dim=1, keepdim=True)
        whole = residual.var(dim=(1, 2, 3), keepdim=True) ** 0.2
        weights = whole * _local_variance(residual)
        weights = torch.where(residual < residual_of_mean, torch.zeros_like(weights), weights)
    return l1(weights * sr, weights * hr)


class PerceptualLoss:
    """Weighted sum of the mean absolute errors of VGG19's features (before their ReLU).

    Source: Real-ESRGAN 2021, section 3.4 and BasicSR, losses/basic_loss.py, PerceptualLoss.
    """

    def __init__(self, vgg: Callable[[Tensor], list[Tensor]]) -> None:
        """Take a Vgg19, or another function that returns as many features of an image."""
        self.vgg = vgg

    def __call__(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return the loss; `hr` gets no gradient."""
        with torch.no_grad():
            wanted = self.vgg(hr)
        losses = [
            weight * l1(own, other) for weight, own, other in zip(LAYERS.values(), self.vgg(sr), wanted, strict=True)
        ]
        return torch.stack(losses).sum()


def _shrunk(images: Tensor) -> Tensor:
    rows, columns = (max(1, side // COLOUR_PX) for side in images.shape[2:])
    return functional.adaptive_avg_pool2d(images.float(), (rows, columns))


def _local_variance(residual: Tensor) -> Tensor:
    """Return the sample variance (by n - 1) of the window round each pixel; the border is mirrored."""
    pad = _VARIANCE_PX // 2
    padded = functional.pad(residual, (pad, pad, pad, pad), mode="reflect")
    # Deviations from the image's mean: the difference of two means of squares would lose its digits.
    padded = padded - residual.mean(dim=(2, 3), keepdim=True)
    mean = functional.avg_pool2d(padded, _VARIANCE_PX, stride=1)
    mean_of_squares = functional.avg_pool2d(padded**2, _VARIANCE_PX, stride=1)
    count = _VARIANCE_PX**2
    return (mean_of_squares - mean**2).clamp(min=0) * count / (count - 1)

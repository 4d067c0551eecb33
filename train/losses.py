"""Computes losses in float32, in means over everything: images are (N, 3, H, W) RGB in [0, 1]."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from realesr.errors import UsageError
from realesr.train.stage_options import MS_SSIM_LEAST_PX
from realesr.train.vgg import LAYERS

COLOUR_PX = 16
"""Side of the squares whose means `colour_loss` compares; smaller images are one square."""

LAPLACIAN_BANDS = 3
"""Octaves of details that `laplacian_loss` compares: at scales up to 4 they have all that the input has not."""

_PYRAMID_TAPS = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
"""Burt and Adelson's generating kernel with a = 0.375, which is nearest to a Gaussian."""

_MS_SSIM_EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Weights of the scales, the finest first: Wang et al. 2003, section 3.2."""
_SSIM_SIGMA_PX, _SSIM_RADIUS_PX = 1.5, 5
_SSIM_C1, _SSIM_C2 = 0.01**2, 0.03**2
"""Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity", section III.B."""
MS_SSIM_LEAST = 1e-4
"""Least similarity at a scale that `ms_ssim_loss` tells from none. An assumption: its gradients stay below 1,000."""

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


def laplacian_loss(sr: Tensor, hr: Tensor) -> Tensor:
    """Return the sum of the mean absolute errors of LAPLACIAN_BANDS bands of a Laplacian pyramid, and of what is left.

    A band has the details of one octave; what is left is the image at 1/8 of its size. So an error of fine details
    counts beside a larger one of coarse structure, whose sign alone decides in L1; and where a detail lies matters.

    Source: Bojanowski et al. 2018, arXiv 1707.05776, Lap1, whose factors 4^j make means of its sums; the pyramid is
    that of Burt and Adelson 1983, IEEE Transactions on Communications 31(4), with mirrored borders.

    Args:
        sr: at least 9 px a side.
        hr: likewise.
    """
    left = sr.float() - hr.float()  # the pyramid is linear: that of a difference is the difference of both
    losses = []
    for _ in range(LAPLACIAN_BANDS):
        smaller = _reduced(left)
        losses.append((left - _expanded(smaller, left)).abs().mean())
        left = smaller
    return torch.stack([*losses, left.abs().mean()]).sum()


def fft_loss(sr: Tensor, hr: Tensor) -> Tensor:
    """Return the mean absolute error of the real and imaginary parts of the images' Fourier transforms.

    Both amplitudes and phases count: without the phases, a detail could lie anywhere. The transform is scaled to keep
    the sum of squares, so the loss of noise does not depend on the size of the crop.

    Source: Cho et al. 2021, "MIMO-UNet", arXiv 2108.05054, the frequency reconstruction loss, whose transform is not
    scaled: its weight of 0.1 is 0.1 * sqrt(H * W) here, 25.6 for crops of 256 px.
    """
    spectrum = torch.fft.fft2(sr.float() - hr.float(), norm="ortho")
    return torch.view_as_real(spectrum).abs().mean()


def ms_ssim_loss(sr: Tensor, hr: Tensor) -> Tensor:
    """Return 1 less the multi-scale structural similarity, mean over images and channels: 0 where both are equal.

    Contrast and structure are compared at five scales, each half the size of the one before, and luminance at the last.
    A similarity below MS_SSIM_LEAST counts as that, without a gradient: powers of negative numbers are none, and the
    slope of a root is infinite at 0.

    Source: Wang, Simoncelli and Bovik 2003, "Multiscale structural similarity for image quality assessment", equation 7
    and section 3.2, with the authors' halving by means of 2 x 2 px; Zhao et al. 2016, arXiv 1511.08861, as a loss.

    Raises:
        UsageError: images of less than MS_SSIM_LEAST_PX a side.
    """
    height, width = sr.shape[2:]
    if min(height, width) < MS_SSIM_LEAST_PX:
        raise UsageError(
            f"got images of {width} x {height} px, expected {MS_SSIM_LEAST_PX} px or more a side for MS-SSIM"
        )
    a, b = sr.float(), hr.float()
    product = torch.ones(a.shape[:2], device=a.device)
    for scale, exponent in enumerate(_MS_SSIM_EXPONENTS):
        if scale:
            a, b = functional.avg_pool2d(a, 2), functional.avg_pool2d(b, 2)
        similarity = _similarity(a, b, with_luminance=scale == len(_MS_SSIM_EXPONENTS) - 1)
        product = product * similarity.clamp(min=MS_SSIM_LEAST) ** exponent
    return 1 - product.mean()


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


def _reduced(images: Tensor) -> Tensor:
    """Return every second px of the smoothed images, from the first: Burt and Adelson's REDUCE."""
    return _filtered(functional.pad(images, (2, 2, 2, 2), mode="reflect"), _PYRAMID_TAPS)[:, :, ::2, ::2]


def _expanded(images: Tensor, like: Tensor) -> Tensor:
    """Return images enlarged to the size of `like`: Burt and Adelson's EXPAND."""
    spread = torch.zeros_like(like)
    spread[:, :, ::2, ::2] = 4 * images
    return _filtered(functional.pad(spread, (2, 2, 2, 2), mode="reflect"), _PYRAMID_TAPS)


def _similarity(a: Tensor, b: Tensor, *, with_luminance: bool) -> Tensor:
    """Return the mean over windows of contrast times structure, with or without luminance: (N, C)."""
    taps = [math.exp(-(at**2) / (2 * _SSIM_SIGMA_PX**2)) for at in range(-_SSIM_RADIUS_PX, _SSIM_RADIUS_PX + 1)]
    window = [tap / sum(taps) for tap in taps]
    mean_a, mean_b, of_squares, of_products = _filtered(torch.cat([a, b, a * a + b * b, a * b]), window).chunk(4)
    squared_means, product_of_means = mean_a**2 + mean_b**2, mean_a * mean_b
    similarity = (2 * (of_products - product_of_means) + _SSIM_C2) / (of_squares - squared_means + _SSIM_C2)
    if with_luminance:
        similarity = similarity * (2 * product_of_means + _SSIM_C1) / (squared_means + _SSIM_C1)
    return similarity.mean(dim=(2, 3))


def _filtered(images: Tensor, taps: Sequence[float]) -> Tensor:
    """Filter rows and columns with the same taps, where all of them lie inside.

    A sum of shifted images, as a convolution would run in bfloat16 under autocast, and in TF32 on a GPU, whose digits
    do for no variance.
    """
    for axis in (2, 3):
        length = images.shape[axis] - len(taps) + 1
        filtered = taps[0] * images.narrow(axis, 0, length)
        for at, tap in enumerate(taps[1:], start=1):
            filtered.add_(images.narrow(axis, at, length), alpha=tap)
        images = filtered
    return images


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

"""The U-Net discriminator with spectral norm. Source: Real-ESRGAN, realesrgan/archs/discriminator_arch.py."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from realesr.models.discriminator import UNetDiscriminator

_SLOPE = 0.2

_LEAST_NORM = 1e-12
"""Smallest norm that a vector is divided by, as in torch."""


class UNetDiscriminatorSN(nn.Module):
    """(N, channels, H, W) -> (N, 1, H, W) logits, one a pixel: above zero is real; H and W multiples of 8.

    The first three channels are RGB in [0, 1] (or what is taken for it), three more the generator's enlarged input.
    """

    def __init__(self, architecture: UNetDiscriminator) -> None:
        super().__init__()
        f = architecture.features
        self.conv0 = nn.Conv2d(architecture.channels, f, 3, padding=1)
        self.conv1 = _halving(f, 2 * f)
        self.conv2 = _halving(2 * f, 4 * f)
        self.conv3 = _halving(4 * f, 8 * f)
        self.conv4 = _normed(8 * f, 4 * f)
        self.conv5 = _normed(4 * f, 2 * f)
        self.conv6 = _normed(2 * f, f)
        self.conv7 = _normed(f, f)
        self.conv8 = _normed(f, f)
        self.conv9 = nn.Conv2d(f, 1, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits of a batch. The skips are added after the activations."""
        x0 = _leaky_relu(self.conv0(image))
        x1 = _leaky_relu(self.conv1(x0))
        x2 = _leaky_relu(self.conv2(x1))
        x3 = _leaky_relu(self.conv3(x2))
        x = _leaky_relu(self.conv4(_doubled(x3))) + x2
        x = _leaky_relu(self.conv5(_doubled(x))) + x1
        x = _leaky_relu(self.conv6(_doubled(x))) + x0
        x = _leaky_relu(self.conv8(_leaky_relu(self.conv7(x))))
        logits: Tensor = self.conv9(x)
        return logits


class NormedConv(nn.Conv2d):
    """A convolution without bias whose weights are divided by their largest singular value (spectral norm).

    Miyato et al. 2018, arXiv 1802.05957. One step of the power iteration is taken with each training pass. Parameters
    and results are those of `torch.nn.utils.spectral_norm`, whose key names the released files have: weight_orig,
    weight_u, weight_v. But the products that the singular value comes from are float32 under autocast too; in torch's
    they are bfloat16 on a GPU, which puts the value off by up to 6e-4.
    """

    weight_u: Tensor
    """(out channels,): the left singular vector."""
    weight_v: Tensor
    """(in channels * kernel height * kernel width,): the right singular vector."""

    def __init__(self, into: int, out: int, kernel: int, *, stride: int = 1, padding: int = 0) -> None:
        super().__init__(into, out, kernel, stride=stride, padding=padding, bias=False)
        weight = self.weight
        del self.weight
        self.weight_orig = weight
        for name, length in (("weight_u", out), ("weight_v", weight[0].numel())):
            self.register_buffer(name, functional.normalize(torch.randn(length), dim=0, eps=_LEAST_NORM))

    def forward(self, x: Tensor) -> Tensor:
        """Convolve a batch, (N, in, H, W), to (N, out, H, W)."""
        return functional.conv2d(x, self.normed_weight(), None, self.stride, self.padding)

    def normed_weight(self) -> Tensor:
        """Return the weights that the convolution has, float32; in training mode after a step of the iteration."""
        with torch.autocast(self.weight_orig.device.type, enabled=False):
            matrix = self.weight_orig.flatten(1)
            if self.training:
                self._iterate(matrix.detach())
            # Copies: the next pass changes the vectors, and the gradient of this one still needs them.
            u, v = self.weight_u.clone(), self.weight_v.clone()
            normed: Tensor = self.weight_orig / (u @ (matrix @ v))
        return normed

    @torch.no_grad()
    def _iterate(self, matrix: Tensor) -> None:
        self.weight_v.copy_(functional.normalize(matrix.t() @ self.weight_u, dim=0, eps=_LEAST_NORM))
        self.weight_u.copy_(functional.normalize(matrix @ self.weight_v, dim=0, eps=_LEAST_NORM))


def _halving(into: int, out: int) -> nn.Module:
    return NormedConv(into, out, 4, stride=2, padding=1)


def _normed(into: int, out: int) -> nn.Module:
    return NormedConv(into, out, 3, padding=1)


def _doubled(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def _leaky_relu(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, _SLOPE)

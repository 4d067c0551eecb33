"""The U-Net discriminator with spectral norm. Source: Real-ESRGAN, realesrgan/archs/discriminator_arch.py."""

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import spectral_norm

from realesr.architectures import UNetDiscriminator

_SLOPE = 0.2


class UNetDiscriminatorSN(nn.Module):
    """(N, 3, H, W) RGB in [0, 1] -> (N, 1, H, W) logits, one a pixel: above zero is real; H and W multiples of 8."""

    def __init__(self, architecture: UNetDiscriminator) -> None:
        super().__init__()
        f = architecture.features
        self.conv0 = nn.Conv2d(3, f, 3, padding=1)
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
        """Judge a batch. The skips are added after the activations."""
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


def _halving(into: int, out: int) -> nn.Module:
    return _with_spectral_norm(nn.Conv2d(into, out, 4, stride=2, padding=1, bias=False))


def _normed(into: int, out: int) -> nn.Module:
    return _with_spectral_norm(nn.Conv2d(into, out, 3, padding=1, bias=False))


def _with_spectral_norm(conv: nn.Conv2d) -> nn.Module:
    """The older of torch's two forms: the released files have its key names (weight_orig, weight_u, weight_v)."""
    normed: nn.Module = spectral_norm(conv)
    return normed


def _doubled(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def _leaky_relu(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, _SLOPE)

"""SRVGGNetCompact, the small generator of Real-ESRGAN. Source: Real-ESRGAN, realesrgan/archs/srvgg_arch.py."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from realesr.models.compact import Compact

_LAST_GAIN = 0.1
"""Gain of the last convolution's initial weights, small so that the network begins near its skip."""


class SRVGGNetCompact(nn.Module):
    """(N, 3, H, W) RGB in [0, 1] -> (N, 3, H * scale, W * scale), not clamped; any H and W."""

    def __init__(self, architecture: Compact) -> None:
        super().__init__()
        self.scale = architecture.scale
        layers: list[nn.Module] = []
        for conv in range(architecture.convs + 1):
            layers.append(nn.Conv2d(architecture.features if conv else 3, architecture.features, 3, padding=1))
            layers.append(_activation(architecture))
        layers.append(nn.Conv2d(architecture.features, 3 * self.scale**2, 3, padding=1))
        self.body = nn.Sequential(*layers)
        _start(self.body)

    def forward(self, lr: Tensor) -> Tensor:
        """Enlarge a batch."""
        residual = functional.pixel_shuffle(self.body(lr), self.scale)
        return residual + functional.interpolate(lr, scale_factor=self.scale, mode="nearest")


def _activation(architecture: Compact) -> nn.Module:
    if architecture.activation == "prelu":
        return nn.PReLU(architecture.features)
    return nn.ReLU() if architecture.activation == "relu" else nn.LeakyReLU(0.1)


def _start(body: nn.Sequential) -> None:
    """Initialise: Kaiming-normal over the inputs, no bias, and the image passed on in the first three features.

    The reference keeps torch's default initialisation, which makes the signal 1.7 times smaller with each convolution:
    so begun, 24 features and 12 convolutions had learnt nothing after 1,000 iterations of batch 8. With the image at
    hand the last convolution can interpolate, and take back noise that the skip repeats: in a trial 0.05 dB after 1,500
    iterations.
    Source of the weights: He et al. 2015, arXiv 1502.01852, equation 15, slope 0.25.
    """
    convs = [layer for layer in body if isinstance(layer, nn.Conv2d)]
    for conv in convs:
        nn.init.kaiming_normal_(conv.weight, a=0.25)
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)
    with torch.no_grad():
        for conv in convs[:-1]:
            nn.init.dirac_(conv.weight[:3])
        convs[-1].weight *= _LAST_GAIN

"""RRDBNet, the generator of ESRGAN and Real-ESRGAN. Source: BasicSR, basicsr/archs/rrdbnet_arch.py."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from realesr.models.rrdb import RRDB

_RESIDUAL_SCALE = 0.2
_SLOPE = 0.2
_INITIAL_GAIN = 0.1
"""Gain of the dense blocks' initial weights, small so that the blocks begin near the identity."""


class RRDBNet(nn.Module):
    """(N, 3, H, W) RGB in [0, 1] -> (N, 3, H * scale, W * scale), not clamped; H and W multiples of `multiple_of`."""

    def __init__(self, architecture: RRDB) -> None:
        super().__init__()
        features = architecture.features
        self.unshuffle = architecture.unshuffle
        self.upsamplings = architecture.upsamplings
        self.conv_first = _conv(architecture.in_channels, features)
        self.body = nn.Sequential(*(_Block(features, architecture.growth) for _ in range(architecture.blocks)))
        self.conv_body = _conv(features, features)
        for up in range(1, self.upsamplings + 1):
            self.add_module(f"conv_up{up}", _conv(features, features))
        self.conv_hr = _conv(features, features)
        self.conv_last = _conv(features, 3)

    def forward(self, lr: Tensor) -> Tensor:
        """Enlarge a batch."""
        first = self.conv_first(functional.pixel_unshuffle(lr, self.unshuffle))
        x = first + self.conv_body(self.body(first))
        for up in range(1, self.upsamplings + 1):
            x = functional.interpolate(x, scale_factor=2, mode="nearest")
            x = _leaky_relu(self.get_submodule(f"conv_up{up}")(x))
        sr: Tensor = self.conv_last(_leaky_relu(self.conv_hr(x)))
        return sr


class _Block(nn.Module):
    """Residual-in-residual dense block."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.rdb1 = _DenseBlock(features, growth)
        self.rdb2 = _DenseBlock(features, growth)
        self.rdb3 = _DenseBlock(features, growth)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.rdb3(self.rdb2(self.rdb1(x)))
        return out * _RESIDUAL_SCALE + x


class _DenseBlock(nn.Module):
    """Five convolutions, each of which reads the block's input and the results of all before it."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.conv1 = _conv(features, growth)
        self.conv2 = _conv(features + growth, growth)
        self.conv3 = _conv(features + 2 * growth, growth)
        self.conv4 = _conv(features + 3 * growth, growth)
        self.conv5 = _conv(features + 4 * growth, features)
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4, self.conv5):
            _start_small(conv)

    def forward(self, x: Tensor) -> Tensor:
        x1 = _leaky_relu(self.conv1(x))
        x2 = _leaky_relu(self.conv2(torch.cat((x, x1), 1)))
        x3 = _leaky_relu(self.conv3(torch.cat((x, x1, x2), 1)))
        x4 = _leaky_relu(self.conv4(torch.cat((x, x1, x2, x3), 1)))
        x5: Tensor = self.conv5(torch.cat((x, x1, x2, x3, x4), 1))
        return x5 * _RESIDUAL_SCALE + x


def _conv(into: int, out: int) -> nn.Conv2d:
    return nn.Conv2d(into, out, kernel_size=3, padding=1)


def _leaky_relu(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, _SLOPE)


def _start_small(conv: nn.Conv2d) -> None:
    """Initialise: Kaiming-normal over the inputs, times 0.1; no bias. Source: BasicSR, default_init_weights."""
    nn.init.kaiming_normal_(conv.weight)
    with torch.no_grad():
        conv.weight *= _INITIAL_GAIN
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)

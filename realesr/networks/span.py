"""SPAN in the form that it runs in, its branches folded. Source: hongyuanyu/SPAN, basicsr/archs/span_arch.py.

Written out apart from `realesr.models.span`, so that tests can hold the layers there against it. The branches that
training adds to each 3x3 convolution are not here.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from realesr.models.span import Span, norm_arrays


class SPAN(nn.Module):
    """(N, 3, H, W) RGB in [0, 1] -> (N, 3, H * scale, W * scale), not clamped; any H and W."""

    def __init__(self, architecture: Span) -> None:
        super().__init__()
        features = architecture.features
        self.norm = _norm() if architecture.normalised else nn.Identity()
        self.conv_1 = _conv(3, features)
        self.block_1 = _Block(features)
        self.block_2 = _Block(features)
        self.block_3 = _Block(features)
        self.block_4 = _Block(features)
        self.block_5 = _Block(features)
        self.block_6 = _Block(features)
        self.conv_2 = _conv(features, features)
        self.conv_cat = nn.Conv2d(4 * features, features, kernel_size=1)
        self.upsampler = nn.Sequential(_conv(features, 3 * architecture.scale**2), nn.PixelShuffle(architecture.scale))

    def forward(self, lr: Tensor) -> Tensor:
        """Enlarge a batch."""
        first = self.conv_1(self.norm(lr))
        after_block_1, _ = self.block_1(first)
        x, _ = self.block_2(after_block_1)
        x, _ = self.block_3(x)
        x, _ = self.block_4(x)
        x, _ = self.block_5(x)
        x, inside_block_6 = self.block_6(x)
        joined = torch.cat((first, self.conv_2(x), after_block_1, inside_block_6), 1)
        sr: Tensor = self.upsampler(self.conv_cat(joined))
        return sr


class _Block(nn.Module):
    """Three convolutions, whose result gates its own sum with the input: parameter-free attention."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.c1_r = _conv(features, features)
        self.c2_r = _conv(features, features)
        self.c3_r = _conv(features, features)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the block's result and its first convolution's, activated: the reference's SiLU works in place."""
        first = functional.silu(self.c1_r(x))
        c = self.c3_r(functional.silu(self.c2_r(first)))
        return (c + x) * (torch.sigmoid(c) - 0.5), first


def _conv(into: int, out: int) -> nn.Conv2d:
    return nn.Conv2d(into, out, kernel_size=3, padding=1)


def _norm() -> nn.Conv2d:
    """Return the depthwise 1x1 convolution of the reference's mean colour and range, which no training changes."""
    norm = nn.Conv2d(3, 3, kernel_size=1, groups=3)
    norm.load_state_dict({key.removeprefix("norm."): torch.from_numpy(array) for key, array in norm_arrays().items()})
    return norm.requires_grad_(False)

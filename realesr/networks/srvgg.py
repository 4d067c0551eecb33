"""SRVGGNetCompact, the small generator of Real-ESRGAN. Source: Real-ESRGAN, realesrgan/archs/srvgg_arch.py."""

from torch import Tensor, nn
from torch.nn import functional

from realesr.architectures import Compact


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

    def forward(self, lr: Tensor) -> Tensor:
        """Enlarge a batch."""
        residual = functional.pixel_shuffle(self.body(lr), self.scale)
        return residual + functional.interpolate(lr, scale_factor=self.scale, mode="nearest")


def _activation(architecture: Compact) -> nn.Module:
    if architecture.activation == "prelu":
        return nn.PReLU(architecture.features)
    return nn.ReLU() if architecture.activation == "relu" else nn.LeakyReLU(0.1)

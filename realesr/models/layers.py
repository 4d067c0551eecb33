"""The kinds of layer that every network of ours is made of.

A network is an ordered list of layers. Each has a name, which its result goes by, and reads the results of layers
before it, or IMAGE: (3, H, W) RGB in [0, 1]. The result of the last layer is the enlarged image.
"""

from dataclasses import dataclass
from typing import Literal

IMAGE = "input"
"""Name of the image among the results that layers read."""

ActivationKind = Literal["relu", "leaky_relu", "prelu", "silu", "gelu", "sigmoid", "mish"]


@dataclass(frozen=True, kw_only=True)
class Activation:
    """A function of each value by itself. GELU is the exact one, by the error function."""

    kind: ActivationKind
    slope: float = 0.0
    """Factor of a leaky ReLU for values below 0."""
    slopes: str = ""
    """Key of a PReLU's slopes in the state dict, one for each channel."""


@dataclass(frozen=True, kw_only=True)
class _ReadsOne:
    """A layer that reads one result."""

    name: str
    source: str

    @property
    def sources(self) -> tuple[str, ...]:
        """Return the names of the results that this layer reads."""
        return (self.source,)


@dataclass(frozen=True, kw_only=True)
class Convolution(_ReadsOne):
    """A square convolution of stride 1, with as much zero padding as keeps the size, then an activation."""

    name: str
    """Its arrays are NAME.weight, (out, in / groups, kernel, kernel), and NAME.bias, (out,)."""
    in_channels: int
    out_channels: int
    kernel: int = 3
    """Side of the kernel, odd."""
    groups: int = 1
    has_bias: bool = True
    activation: Activation | None = None

    @property
    def arrays(self) -> dict[str, tuple[int, ...]]:
        """Return the keys of its arrays in the state dict, with their shapes."""
        shapes: dict[str, tuple[int, ...]] = {
            f"{self.name}.weight": (self.out_channels, self.in_channels // self.groups, self.kernel, self.kernel)
        }
        if self.has_bias:
            shapes[f"{self.name}.bias"] = (self.out_channels,)
        if self.activation is not None and self.activation.kind == "prelu":
            shapes[self.activation.slopes] = (self.out_channels,)
        return shapes


@dataclass(frozen=True, kw_only=True)
class Activated(_ReadsOne):
    """An activation of a result that other layers read as it was."""

    activation: Activation


@dataclass(frozen=True, kw_only=True)
class Concatenation:
    """Results of one size, joined along their channels."""

    name: str
    sources: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ScaledSum:
    """The sum of results of one shape, each times a factor, and of a constant."""

    name: str
    terms: tuple[tuple[str, float], ...]
    """Name of a result and its factor."""
    offset: float = 0.0

    @property
    def sources(self) -> tuple[str, ...]:
        """Return the names of the results that this layer reads."""
        return tuple(source for source, _ in self.terms)


@dataclass(frozen=True, kw_only=True)
class Product:
    """The product of two results of one shape, value by value."""

    name: str
    sources: tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class PixelShuffle(_ReadsOne):
    """Channels become pixels: (C * factor^2, H, W) -> (C, H * factor, W * factor), as torch orders them."""

    factor: int


@dataclass(frozen=True, kw_only=True)
class PixelUnshuffle(_ReadsOne):
    """Pixels become channels: (C, H * factor, W * factor) -> (C * factor^2, H, W), as torch orders them."""

    factor: int


@dataclass(frozen=True, kw_only=True)
class NearestEnlargement(_ReadsOne):
    """Every pixel repeated factor x factor times."""

    factor: int


@dataclass(frozen=True, kw_only=True)
class ChannelSlice(_ReadsOne):
    """Some of a result's channels, from `first_channel`: a split is several of these."""

    first_channel: int
    channels: int


Layer = (
    Convolution
    | Activated
    | Concatenation
    | ScaledSum
    | Product
    | PixelShuffle
    | PixelUnshuffle
    | NearestEnlargement
    | ChannelSlice
)

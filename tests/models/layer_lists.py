"""Networks that nobody uses, for layers and connections that those of `small_networks` lack."""

from dataclasses import dataclass

from realesr.models.architecture import Architecture
from realesr.models.layers import (
    IMAGE,
    Activated,
    Activation,
    ChannelSlice,
    Concatenation,
    Convolution,
    Layer,
    NearestEnlargement,
    PixelShuffle,
    PixelUnshuffle,
    Product,
    ScaledSum,
)


@dataclass(frozen=True, kw_only=True)
class LayerList(Architecture):
    """A network made of these layers."""

    title: str = ""
    layers: tuple[Layer, ...] = ()

    def __str__(self) -> str:
        return self.title

    @property
    def scale(self) -> int:  # type: ignore[override]
        return self.output_scale


def conv(name, source, into, out, *, kernel=3, kind=None, groups=1, has_bias=True):
    """Return a convolution with an activation of this kind."""
    activation = None
    if kind is not None:
        activation = Activation(kind=kind, slope=0.1, slopes=f"{name}.slopes" if kind == "prelu" else "")
    return Convolution(
        name=name, source=source, in_channels=into, out_channels=out,
        kernel=kernel, groups=groups, has_bias=has_bias, activation=activation,
    )  # fmt: skip


def _gated(name, source):
    """Return three convolutions, and the sum with their source times what a sigmoid lets through."""
    return (
        conv(f"{name}.conv1", source, 4, 6, kind="silu"),
        conv(f"{name}.conv2", f"{name}.conv1", 6, 6, kind="silu", has_bias=False),
        conv(f"{name}.conv3", f"{name}.conv2", 6, 4),
        Activated(name=f"{name}.open", source=f"{name}.conv3", activation=Activation(kind="sigmoid")),
        ScaledSum(name=f"{name}.gate", terms=((f"{name}.open", 1.0),), offset=-0.5),
        ScaledSum(name=f"{name}.skipped", terms=((f"{name}.conv3", 1.0), (source, 1.0))),
        Product(name=name, sources=(f"{name}.skipped", f"{name}.gate")),
    )


GATED = LayerList(
    title="gated blocks, and four maps of unequal lag",
    layers=(
        conv("shift", IMAGE, 3, 3, kernel=1, groups=3),
        conv("first", "shift", 3, 4),
        *_gated("a", "first"),
        *_gated("b", "a"),
        conv("after", "b", 4, 4, kind="mish"),
        Concatenation(name="all", sources=("first", "after", "a", "b.conv1")),
        conv("mixed", "all", 18, 4, kernel=1),
        conv("last", "mixed", 4, 12, kind="gelu"),
        PixelShuffle(name="shuffled", source="last", factor=2),
    ),
)

WIDE = LayerList(
    title="wide kernels, slices, and a skip to behind an enlarged convolution",
    layers=(
        conv("wide", IMAGE, 3, 8, kernel=5, kind="prelu"),
        ChannelSlice(name="low", source="wide", first_channel=0, channels=3),
        ChannelSlice(name="high", source="wide", first_channel=3, channels=5),
        conv("wider", "high", 5, 6, kernel=7, kind="relu"),
        conv("grouped", "wider", 6, 6, groups=3, kind="leaky_relu"),
        ChannelSlice(name="half", source="grouped", first_channel=2, channels=3),
        ScaledSum(name="three", terms=(("low", 0.3), (IMAGE, -0.5), ("half", 1.0)), offset=0.25),
        NearestEnlargement(name="large", source="three", factor=2),
        conv("fine", "large", 3, 3),
        NearestEnlargement(name="large.image", source=IMAGE, factor=2),
        ScaledSum(name="sum", terms=(("fine", 0.3), ("large.image", 1.0), ("fine", 0.3))),
    ),
)

UNSHUFFLED = LayerList(
    title="unshuffled pixels that two layers read, and a second stage with a wide kernel",
    layers=(
        PixelUnshuffle(name="blocks", source=IMAGE, factor=2),
        conv("grouped", "blocks", 12, 6, groups=3, kind="sigmoid"),
        conv("other", "blocks", 12, 6, kernel=1),
        Product(name="product", sources=("grouped", "other")),
        conv("trunk", "product", 6, 4, kind="silu"),
        NearestEnlargement(name="large", source="trunk", factor=4),
        conv("fine", "large", 4, 3, kernel=5),
        ScaledSum(name="last", terms=(("fine", 0.5),), offset=0.5),
    ),
)

LAYER_LISTS: list[Architecture] = [GATED, WIDE, UNSHUFFLED]

"""Artificial networks of every kind of layer."""

from dataclasses import dataclass, field
from typing import Any

from realesr.models.architecture import Architecture
from realesr.models.layers import (
    IMAGE,
    Activated,
    Activation,
    ActivationKind,
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

KINDS: tuple[ActivationKind, ...] = ("relu", "leaky_relu", "prelu", "silu", "gelu", "sigmoid", "mish")


@dataclass(frozen=True)
class Artificial(Architecture):
    """A network that is nothing but a list of layers."""

    name: str
    parts: tuple[Layer, ...]
    scale: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", self.output_scale)

    @property
    def title(self) -> str:
        """Return its name."""
        return self.name

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Return the list."""
        return self.parts

    def __str__(self) -> str:
        return self.name


def conv(name: str, source: str, count_in: int, count_out: int, kind: str = "", **more: Any) -> Convolution:
    """A 3x3 convolution, unless `kernel` says otherwise, with an activation of some kind."""
    after = activation(kind, f"{name}.slopes") if kind else None
    return Convolution(name=name, source=source, in_channels=count_in, out_channels=count_out, activation=after, **more)


def activation(kind: str, slopes: str = "") -> Activation:
    """An activation; only a PReLU has slopes in the state dict."""
    return Activation(kind=kind, slope=0.3, slopes=slopes if kind == "prelu" else "")  # type: ignore[arg-type]


def gated(name: str, source: str) -> list[Layer]:
    """A block as in SPAN: (c3 + x) * (sigmoid(c3) - 0.5)."""
    return [
        conv(f"{name}.c1", source, 12, 12, "silu"),
        conv(f"{name}.c2", f"{name}.c1", 12, 12, "silu"),
        conv(f"{name}.c3", f"{name}.c2", 12, 12),
        ScaledSum(name=f"{name}.sum", terms=((f"{name}.c3", 1.0), (source, 1.0))),
        Activated(name=f"{name}.sigmoid", source=f"{name}.c3", activation=activation("sigmoid")),
        ScaledSum(name=f"{name}.gate", terms=((f"{name}.sigmoid", 1.0),), offset=-0.5),
        Product(name=name, sources=(f"{name}.sum", f"{name}.gate")),
    ]


SPAN_LIKE = Artificial(
    "gates, four maps joined, 1x1",
    (
        conv("normalised", IMAGE, 3, 3, kernel=1, groups=3),
        conv("first", "normalised", 3, 12),
        *gated("b1", "first"),
        *gated("b2", "b1"),
        *gated("b3", "b2"),
        conv("last", "b3", 12, 12),
        Concatenation(name="joined", sources=("first", "last", "b1", "b3.c1")),
        conv("mixed", "joined", 48, 12, kernel=1),
        conv("up", "mixed", 12, 12),
        PixelShuffle(name="image", source="up", factor=2),
    ),
)


def dense_block(name: str, source: str, features: int, growth: int, count: int, kind: str) -> list[Layer]:
    """A dense block of so many convolutions, with its sum."""
    layers: list[Layer] = []
    known = [source]
    for number in range(count):
        read, channels = source, features + number * growth
        if number:
            read = f"{name}.{number}.in"
            layers.append(Concatenation(name=read, sources=tuple(known)))
        is_last = number == count - 1
        layers.append(
            conv(f"{name}.{number}", read, channels, features if is_last else growth, "" if is_last else kind)
        )
        known.append(f"{name}.{number}")
    return [*layers, ScaledSum(name=name, terms=((known[-1], 0.3), (source, 1.0)))]


def dense(kind: str, count: int) -> Artificial:
    """Two dense blocks in a group."""
    return Artificial(
        f"dense blocks of {count}, {kind}",
        (
            conv("first", IMAGE, 3, 12),
            *dense_block("d1", "first", 12, 5, count, kind),
            *dense_block("d2", "d1", 12, 5, count, kind),
            ScaledSum(name="group", terms=(("d2", 0.5), ("first", 1.0))),
            conv("up", "group", 12, 12),
            PixelShuffle(name="image", source="up", factor=2),
        ),
    )


ARTIFICIAL = [
    SPAN_LIKE,
    dense("leaky_relu", 4),
    dense("silu", 3),
    dense("gelu", 4),
    dense("relu", 2),
    Artificial(
        "every activation behind a convolution",
        (
            conv("c", IMAGE, 3, 8, "relu"),
            *(
                conv(f"c{kind}", f"c{before}" if before else "c", 8, 8, kind)
                for before, kind in zip(("", *KINDS), KINDS, strict=False)
            ),
            conv("image", "cmish", 8, 3),
        ),
    ),
    Artificial(
        "every activation of a result that others read",
        (
            conv("c", IMAGE, 3, 8),
            *(Activated(name=kind, source="c", activation=activation(kind)) for kind in KINDS if kind != "prelu"),
            ScaledSum(
                name="sum", terms=(("c", -0.5), *((kind, 1.5) for kind in KINDS if kind != "prelu")), offset=0.25
            ),
            conv("image", "sum", 8, 3, has_bias=False),
        ),
    ),
    Artificial(
        "sums of all kinds",
        (
            conv("c1", IMAGE, 3, 8, "silu"),
            conv("c2", "c1", 8, 8),
            conv("c3", "c1", 8, 8, "relu"),
            ScaledSum(name="s1", terms=(("c2", 0.5), ("c3", -2.0))),
            conv("c4", "s1", 8, 8),
            ScaledSum(name="s2", terms=(("s1", 1.0), ("c4", 0.25), ("c1", 3.0))),
            conv("c5", "s2", 8, 8),
            ScaledSum(name="s3", terms=(("c5", 0.5), ("s2", 0.5)), offset=-0.125),
            conv("c6", "s3", 8, 8),
            ScaledSum(name="s4", terms=(("c6", 1.0), ("c1", 1.0), ("s1", 0.5), ("s3", 0.5))),
            conv("c7", "s4", 8, 3),
            ScaledSum(name="image", terms=(("c7", 1.0), (IMAGE, 1.0))),
        ),
    ),
    Artificial(
        "products, slices and a sum that is read twice",
        (
            conv("c1", IMAGE, 3, 12),
            ChannelSlice(name="low", source="c1", first_channel=0, channels=5),
            ChannelSlice(name="high", source="c1", first_channel=7, channels=5),
            Product(name="product", sources=("low", "high")),
            conv("c2", "product", 5, 5),
            ScaledSum(name="sum", terms=(("c2", 1.0), ("low", 1.0))),
            Activated(name="sigmoid", source="c2", activation=activation("sigmoid")),
            Product(name="gated", sources=("sum", "sigmoid")),
            Concatenation(name="joined", sources=("gated", "sum", "product")),
            conv("up", "joined", 15, 27, kernel=1),
            PixelShuffle(name="image", source="up", factor=3),
        ),
    ),
    Artificial(
        "pixel-shuffles with convolutions behind",
        (
            conv("c1", IMAGE, 3, 8, "relu"),
            conv("c2", "c1", 8, 8),
            ScaledSum(name="body", terms=(("c2", 0.1), ("c1", 1.0))),
            conv("u1", "body", 8, 32),
            PixelShuffle(name="x2", source="u1", factor=2),
            conv("u2", "x2", 8, 72, "mish"),
            PixelShuffle(name="x6", source="u2", factor=3),
            conv("image", "x6", 8, 3),
        ),
    ),
    Artificial(
        "dense blocks behind an enlargement",
        (
            conv("c1", IMAGE, 3, 12),
            NearestEnlargement(name="x2", source="c1", factor=2),
            conv("c2", "x2", 12, 12, "leaky_relu"),
            *dense_block("d1", "c2", 12, 5, 4, "leaky_relu"),
            conv("image", "d1", 12, 3),
        ),
    ),
    Artificial(
        "enlargements by three, and by two that are read twice",
        (
            conv("c1", IMAGE, 3, 8),
            NearestEnlargement(name="x2", source="c1", factor=2),
            conv("c2", "x2", 8, 8, "prelu"),
            ScaledSum(name="sum", terms=(("c2", 1.0), ("x2", 0.5))),
            NearestEnlargement(name="x6", source="sum", factor=3),
            conv("c3", "x6", 8, 8, "gelu"),
            NearestEnlargement(name="x12", source="c3", factor=2),
            conv("image", "x12", 8, 3, kernel=1),
        ),
    ),
    Artificial(
        "a tail that reads the image too",
        (
            conv("c1", IMAGE, 3, 8, "silu"),
            NearestEnlargement(name="x2", source="c1", factor=2),
            conv("c2", "x2", 8, 3),
            NearestEnlargement(name="large", source=IMAGE, factor=2),
            ScaledSum(name="image", terms=(("c2", 1.0), ("large", 1.0))),
        ),
    ),
    Artificial(
        "pixels unshuffled, and again behind a convolution",
        (
            PixelUnshuffle(name="half", source=IMAGE, factor=2),
            conv("c1", "half", 12, 8, "leaky_relu"),
            PixelUnshuffle(name="quarter", source="c1", factor=2),
            conv("c2", "quarter", 32, 48),
            PixelShuffle(name="image", source="c2", factor=4),
        ),
    ),
    Artificial(
        "pixels unshuffled",
        (
            PixelUnshuffle(name="half", source=IMAGE, factor=2),
            conv("c1", "half", 12, 8, "silu"),
            conv("c2", "c1", 8, 48),
            PixelShuffle(name="image", source="c2", factor=4),
        ),
    ),
    Artificial(
        "an enlarged image below a pixel-shuffle that is scaled",
        (
            conv("c1", IMAGE, 3, 12),
            PixelShuffle(name="shuffled", source="c1", factor=2),
            NearestEnlargement(name="large", source=IMAGE, factor=2),
            ScaledSum(name="image", terms=(("shuffled", 0.5), ("large", 1.0))),
        ),
    ),
    Artificial(
        "an image that is enlarged before a pixel-shuffle in the sum",
        (
            NearestEnlargement(name="large", source=IMAGE, factor=2),
            conv("c1", IMAGE, 3, 12),
            PixelShuffle(name="shuffled", source="c1", factor=2),
            ScaledSum(name="image", terms=(("large", 1.0), ("shuffled", 1.0))),
        ),
    ),
]

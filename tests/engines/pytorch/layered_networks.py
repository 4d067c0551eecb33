"""Small networks of every kind of layer, which belong to no family, and what they give by each layer's formula."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

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


@dataclass(frozen=True, kw_only=True)
class Layered(Architecture):
    """A network that is its list of layers."""

    name: str
    scale: int
    steps: tuple[Layer, ...]

    @property
    def title(self) -> str:
        return self.name

    @property
    def layers(self) -> tuple[Layer, ...]:
        return self.steps


def activation(kind: ActivationKind, name: str) -> Activation:
    return Activation(
        kind=kind, slope=0.3 if kind == "leaky_relu" else 0.0, slopes=f"{name}.slopes" * (kind == "prelu")
    )


def conv(name: str, source: str, into: int, out: int, **more: Any) -> Convolution:
    return Convolution(name=name, source=source, in_channels=into, out_channels=out, **more)


def activated(kind: ActivationKind) -> Layered:
    """Convolutions of 1x1, 3x3, 5x5 and 7x7 with this activation; one after the last, on a result read twice."""
    layers: list[Layer] = []
    source, channels = IMAGE, 3
    for kernel in (3, 1, 7, 5):
        name = f"conv{kernel}"
        layers.append(conv(name, source, channels, 6, kernel=kernel, activation=activation(kind, name)))
        source, channels = name, 6
    shared = Activation(kind=kind, slope=0.1, slopes="conv5.slopes" if kind == "prelu" else "")
    layers += [
        Activated(name="again", source="conv5", activation=shared),
        Product(name="gated", sources=("again", "conv5")),
        conv("last", "gated", 6, 3),
    ]
    return Layered(name=f"{kind} x1", steps=tuple(layers), scale=1)


SPAN_LIKE = Layered(
    name="attention x2",
    scale=2,
    steps=(
        conv("shifted", IMAGE, 3, 3, kernel=1, groups=3),
        conv("first", "shifted", 3, 8),
        conv("a", "first", 8, 8, activation=Activation(kind="silu")),
        conv("b", "a", 8, 8, has_bias=False),
        Activated(name="b.sigmoid", source="b", activation=Activation(kind="sigmoid")),
        ScaledSum(name="attention", terms=(("b.sigmoid", 1.0),), offset=-0.5),
        ScaledSum(name="residual", terms=(("b", 1.0), ("first", 1.0))),
        Product(name="block", sources=("residual", "attention")),
        conv("second", "block", 8, 8),
        Concatenation(name="joined", sources=("first", "second", "block", "a")),
        conv("mixed", "joined", 32, 8, kernel=1),
        conv("last", "mixed", 8, 12),
        PixelShuffle(name="image", source="last", factor=2),
    ),
)
"""As SPAN is made: attention by a product, a concatenation of four results."""

UNSHUFFLED = Layered(
    name="unshuffled x2",
    scale=2,
    steps=(
        PixelUnshuffle(name="small", source=IMAGE, factor=2),
        conv("first", "small", 12, 8, groups=4, activation=Activation(kind="gelu")),
        ChannelSlice(name="left", source="first", first_channel=0, channels=3),
        ChannelSlice(name="right", source="first", first_channel=3, channels=5),
        conv("wide", "right", 5, 3, kernel=5, activation=Activation(kind="mish")),
        ScaledSum(name="mix", terms=(("left", 0.5), ("wide", -2.0), ("left", 0.25)), offset=0.125),
        NearestEnlargement(name="large", source="mix", factor=4),
        conv("smooth", "large", 3, 6, kernel=7),
        ChannelSlice(name="rgb", source="smooth", first_channel=3, channels=3),
        NearestEnlargement(name="base", source=IMAGE, factor=2),
        ScaledSum(name="image", terms=(("base", 1.0), ("rgb", 0.2))),
    ),
)
"""Slices of channels, several factors, and a tail that reads the image beside the trunk: one stage in strips."""

TWO_STAGES = Layered(
    name="two stages x3",
    scale=3,
    steps=(
        conv("first", IMAGE, 3, 8, kernel=5, activation=Activation(kind="relu")),
        conv("trunk", "first", 8, 8),
        NearestEnlargement(name="large", source="trunk", factor=3),
        conv("a", "large", 8, 6, kernel=7),
        conv("b", "a", 6, 6, kernel=7, activation=Activation(kind="leaky_relu", slope=0.1)),
        conv("c", "b", 6, 6, kernel=7),
        ScaledSum(name="skip", terms=(("c", 0.5), ("a", 1.0))),
        conv("last", "skip", 6, 3),
    ),
)
"""A tail that looks further away than a doubling and a convolution."""

LAYERED = [*map(activated, KINDS), SPAN_LIKE, UNSHUFFLED, TWO_STAGES]


def written_out(architecture: Layered, state: dict[str, NDArray[Any]], lr: Tensor) -> Tensor:
    """Return the last layer's result, by torch's functions: all results are kept, no memory is used again."""
    arrays = {key: torch.from_numpy(array).to(lr.dtype) for key, array in state.items()}
    values = {IMAGE: lr}
    for layer in architecture.layers:
        values[layer.name] = _result(layer, [values[source] for source in layer.sources], arrays)
    return values[architecture.layers[-1].name]


def _result(layer: Layer, sources: list[Tensor], arrays: dict[str, Tensor]) -> Tensor:
    x = sources[0]
    match layer:
        case Convolution():
            bias = arrays[f"{layer.name}.bias"] if layer.has_bias else None
            weight = arrays[f"{layer.name}.weight"]
            y = functional.conv2d(x, weight, bias, padding=layer.kernel // 2, groups=layer.groups)
            return y if layer.activation is None else _activated(layer.activation, y, arrays)
        case Activated():
            return _activated(layer.activation, x, arrays)
        case Concatenation():
            return torch.cat(sources, 1)
        case ScaledSum():
            total = sum(source * factor for source, (_, factor) in zip(sources, layer.terms, strict=True))
            return torch.as_tensor(total) + layer.offset
        case Product():
            return x * sources[1]
        case PixelShuffle():
            return functional.pixel_shuffle(x, layer.factor)
        case PixelUnshuffle():
            return functional.pixel_unshuffle(x, layer.factor)
        case NearestEnlargement():
            return x.repeat_interleave(layer.factor, 2).repeat_interleave(layer.factor, 3)
        case ChannelSlice():
            return x[:, layer.first_channel : layer.first_channel + layer.channels]


def _activated(how: Activation, x: Tensor, arrays: dict[str, Tensor]) -> Tensor:
    """Return an activation by its formula; sources: torch's documentation of its modules."""
    match how.kind:
        case "relu":
            return x.clamp(min=0)
        case "leaky_relu":
            return torch.where(x < 0, x * how.slope, x)
        case "prelu":
            return torch.where(x < 0, x * arrays[how.slopes][:, None, None], x)
        case "silu":
            return x / (1 + torch.exp(-x))
        case "gelu":
            return x / 2 * (1 + torch.erf(x / np.sqrt(2)))
        case "sigmoid":
            return 1 / (1 + torch.exp(-x))
        case "mish":
            return x * torch.tanh(torch.log1p(torch.exp(x)))

"""SRVGGNetCompact, the small generator of Real-ESRGAN: how it is recognised, and its layers.

A chain of convolutions at input size, then a pixel-shuffle onto the nearest-neighbour enlargement of the image.
Source: Real-ESRGAN, realesrgan/archs/srvgg_arch.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isqrt
from typing import Literal

from realesr.errors import ModelError
from realesr.models.architecture import MAX_SCALE, Architecture, State, conv_shape
from realesr.models.layers import (
    IMAGE,
    Activation,
    Convolution,
    Layer,
    NearestEnlargement,
    PixelShuffle,
    ScaledSum,
)

CompactActivation = Literal["prelu", "relu", "leakyrelu"]


@dataclass(frozen=True, kw_only=True)
class Compact(Architecture):
    """The numbers in which networks of the family SRVGGNetCompact differ."""

    scale: int
    """Output pixels per input pixel and side."""
    features: int = 64
    """Channels of the chain."""
    convs: int = 16
    """Convolutions between the first and the last one."""
    activation: CompactActivation = "prelu"
    """Activation after every convolution but the last; leaky ReLU has the slope 0.1."""

    def __post_init__(self) -> None:
        if min(self.scale, self.features) < 1 or self.convs < 0 or self.scale > MAX_SCALE:
            raise ModelError(f"{self} cannot be: expected positive numbers, and a scale of at most {MAX_SCALE}")
        if self.activation not in ("prelu", "relu", "leakyrelu"):
            raise ModelError(f"{self} cannot be: expected the activation prelu, relu or leakyrelu")

    @property
    def title(self) -> str:
        """Return a description in one line, for people."""
        return f"SRVGGNetCompact x{self.scale}: {self.convs} convolutions, {self.features} features, {self.activation}"

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Return the layers; see `Architecture.layers`."""
        layers: list[Layer] = []
        x, channels = IMAGE, 3
        for number in range(self.convs + 1):
            layers.append(
                Convolution(
                    name=f"body.{2 * number}",
                    source=x,
                    in_channels=channels,
                    out_channels=self.features,
                    activation=self._activation(number),
                )
            )
            x, channels = f"body.{2 * number}", self.features
        last = f"body.{2 * self.convs + 2}"
        return (
            *layers,
            Convolution(name=last, source=x, in_channels=channels, out_channels=3 * self.scale**2),
            PixelShuffle(name="residual", source=last, factor=self.scale),
            NearestEnlargement(name="input.enlarged", source=IMAGE, factor=self.scale),
            ScaledSum(name="sum", terms=(("residual", 1.0), ("input.enlarged", 1.0))),
        )

    def _activation(self, number: int) -> Activation:
        match self.activation:
            case "prelu":
                return Activation(kind="prelu", slopes=f"body.{2 * number + 1}.weight")
            case "relu":
                return Activation(kind="relu")
            case "leakyrelu":
                return Activation(kind="leaky_relu", slope=0.1)


def detect_compact(state: State, activation: str | None = None) -> Compact | None:
    """Return the SRVGGNetCompact whose state dict this looks like; None where it looks like another network.

    Args:
        state: the arrays.
        activation: "relu" or "leakyrelu", of a network without PReLU slopes: its keys do not tell them apart.

    Raises:
        ModelError: It gives something else than RGB, or the activation is not known.
    """
    if "body.0.weight" not in state:
        return None
    convs = sum(array.ndim == 4 for array in state.values()) - 2
    out = conv_shape(state, f"body.{2 * convs + 2}")[0]
    scale = isqrt(out // 3)
    if 3 * scale**2 != out:
        raise ModelError(f"this SRVGGNetCompact ends in {out} channels: expected 3 times a square, for RGB")
    if "body.1.weight" in state:
        activation = "prelu"
    elif activation is None:
        raise ModelError(
            "this SRVGGNetCompact has no PReLU slopes, and its weights do not tell ReLU from leaky ReLU: "
            "save it as .safetensors with the metadata activation = relu or leakyrelu"
        )
    features = conv_shape(state, "body.0")[0]
    return Compact(scale=scale, features=features, convs=convs, activation=activation)  # type: ignore[arg-type]


def compact_candidates(shapes: Sequence[tuple[int, ...]]) -> list[Compact]:
    """Return the SRVGGNetCompacts that convolutions of these shapes, in the order of use, could be."""
    scale = isqrt(shapes[-1][0] // 3) if shapes else 0
    if len(shapes) < 2 or not 1 <= scale <= MAX_SCALE:
        return []
    features, convs = shapes[0][0], len(shapes) - 2
    activations: tuple[CompactActivation, ...] = ("prelu", "relu", "leakyrelu")
    return [Compact(scale=scale, features=features, convs=convs, activation=kind) for kind in activations]

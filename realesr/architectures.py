"""The networks that realesr knows, as plain values: what a state dict holds, what it costs, how far it looks.

A "conv" is a 3x3 convolution, stride 1, zero padding 1, with bias. Names of state-dict keys and the order of layers are
from Real-ESRGAN and BasicSR: basicsr/archs/rrdbnet_arch.py, realesrgan/archs/srvgg_arch.py and discriminator_arch.py.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from math import isqrt, prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from realesr.errors import ModelError

Activation = Literal["prelu", "relu", "leakyrelu"]
Shapes = dict[str, tuple[int, ...]]
State = Mapping[str, NDArray[Any]]

_CONVS_PER_BLOCK_IN_A_ROW = 15
"""Three dense blocks of five convs each; the longest way through an RRDB passes all of them."""


@dataclass(frozen=True, kw_only=True)
class RRDB:
    """RRDBNet, the generator of ESRGAN and Real-ESRGAN."""

    scale: int
    """Output pixels per input pixel and side."""
    features: int = 64
    """Channels of the trunk."""
    blocks: int = 23
    """Residual-in-residual dense blocks."""
    growth: int = 32
    """Channels that each dense convolution adds."""
    upsamplings: int = 2
    """Doublings at the end. Two in every Real-ESRGAN network: scales 2 and 1 begin with a pixel-unshuffle instead."""

    def __post_init__(self) -> None:
        if min(self.scale, self.features, self.blocks, self.growth) < 1 or not 0 <= self.upsamplings <= 4:
            raise ModelError(f"{self} cannot be: expected positive numbers, and at most 4 doublings")
        if 2**self.upsamplings % self.scale:
            raise ModelError(f"{self} cannot be: {self.upsamplings} doublings give no scale {self.scale}")

    @property
    def unshuffle(self) -> int:
        """Side of the square of input pixels that become one pixel's channels before the first conv; 1 for none."""
        return int(2**self.upsamplings) // self.scale

    @property
    def multiple_of(self) -> int:
        """Heights and widths must be multiples of this, in input px."""
        return self.unshuffle

    @property
    def in_channels(self) -> int:
        """Channels that the first conv takes."""
        return 3 * self.unshuffle**2

    @property
    def shapes(self) -> Shapes:
        """Every key of the state dict with its shape, in the order in which the network uses them."""
        shapes = _conv_shapes("conv_first", self.in_channels, self.features)
        for block in range(self.blocks):
            for rdb in (1, 2, 3):
                for conv in (1, 2, 3, 4, 5):
                    out = self.growth if conv < 5 else self.features
                    into = self.features + (conv - 1) * self.growth
                    shapes |= _conv_shapes(f"body.{block}.rdb{rdb}.conv{conv}", into, out)
        shapes |= _conv_shapes("conv_body", self.features, self.features)
        for up in range(1, self.upsamplings + 1):
            shapes |= _conv_shapes(f"conv_up{up}", self.features, self.features)
        shapes |= _conv_shapes("conv_hr", self.features, self.features)
        return shapes | _conv_shapes("conv_last", self.features, 3)

    @property
    def parameters(self) -> int:
        """Numbers in the state dict."""
        return _count(self.shapes)

    @property
    def mac_per_px(self) -> float:
        """Multiplications with addition for one input pixel."""
        total = 0
        for key, shape in self.shapes.items():
            if key.endswith(".weight"):
                total += prod(shape) * self._grid_scale(key.removesuffix(".weight")) ** 2
        return total / self.unshuffle**2

    def _grid_scale(self, conv: str) -> int:
        """How much finer than conv_first's grid the one is on which `conv` runs."""
        if conv in ("conv_hr", "conv_last"):
            return int(2**self.upsamplings)
        return int(2 ** int(conv.removeprefix("conv_up"))) if conv.startswith("conv_up") else 1

    @property
    def radius_px(self) -> int:
        """How far from an input pixel's place its value can change the output, in input px: exact, not rounded up.

        Followed backwards from every output pixel of one period: a conv widens the interval by one on either side, a
        doubling halves its ends downwards, a pixel-unshuffle multiplies them.
        """
        radius = 0
        for pixel in range(2**self.upsamplings):
            low, high = pixel - 2, pixel + 2  # conv_last and conv_hr
            for _ in range(self.upsamplings):
                low, high = (low - 1) // 2, (high + 1) // 2
            reach = 1 + _CONVS_PER_BLOCK_IN_A_ROW * self.blocks + 1  # conv_body, the blocks, conv_first
            low, high = (low - reach) * self.unshuffle, (high + reach + 1) * self.unshuffle - 1
            centre = pixel // self.scale
            radius = max(radius, centre - low, high - centre)
        return radius

    @property
    def title(self) -> str:
        """One line for people."""
        return f"RRDBNet x{self.scale}: {self.blocks} blocks, {self.features} features, growth {self.growth}"


@dataclass(frozen=True, kw_only=True)
class Compact:
    """SRVGGNetCompact: a chain of convs at input size, then a pixel-shuffle onto the nearest-neighbour enlargement."""

    scale: int
    """Output pixels per input pixel and side."""
    features: int = 64
    """Channels of the chain."""
    convs: int = 16
    """Convolutions between the first and the last one."""
    activation: Activation = "prelu"
    """After every conv but the last; leaky ReLU has the slope 0.1 (srvgg_arch.py)."""

    def __post_init__(self) -> None:
        if min(self.scale, self.features) < 1 or self.convs < 0:
            raise ModelError(f"{self} cannot be: expected positive numbers")
        if self.activation not in ("prelu", "relu", "leakyrelu"):
            raise ModelError(f"{self} cannot be: expected the activation prelu, relu or leakyrelu")

    @property
    def slope(self) -> float | None:
        """Of the activation, for values below 0; None where the weights have one for each channel."""
        return {"prelu": None, "relu": 0.0, "leakyrelu": 0.1}[self.activation]

    @property
    def multiple_of(self) -> int:
        """Any size works."""
        return 1

    @property
    def in_channels(self) -> int:
        """Channels that the first conv takes."""
        return 3

    @property
    def shapes(self) -> Shapes:
        """Every key of the state dict with its shape, in the order in which the network uses them."""
        shapes: Shapes = {}
        for conv in range(self.convs + 1):
            shapes |= _conv_shapes(f"body.{2 * conv}", self.features if conv else 3, self.features)
            if self.activation == "prelu":
                shapes[f"body.{2 * conv + 1}.weight"] = (self.features,)
        return shapes | _conv_shapes(f"body.{2 * self.convs + 2}", self.features, 3 * self.scale**2)

    @property
    def parameters(self) -> int:
        """Numbers in the state dict."""
        return _count(self.shapes)

    @property
    def mac_per_px(self) -> float:
        """Multiplications with addition for one input pixel."""
        return float(sum(prod(shape) for shape in self.shapes.values() if len(shape) == 4))

    @property
    def radius_px(self) -> int:
        """How far from an input pixel's place its value can change the output, in input px: one for each conv."""
        return self.convs + 2

    @property
    def title(self) -> str:
        """One line for people."""
        return f"SRVGGNetCompact x{self.scale}: {self.convs} convolutions, {self.features} features, {self.activation}"


@dataclass(frozen=True, kw_only=True)
class UNetDiscriminator:
    """UNetDiscriminatorSN, what judges images in training. It enlarges nothing."""

    features: int = 64
    """Channels of the first conv."""

    @property
    def shapes(self) -> Shapes:
        """Every key of the state dict with its shape; spectral norm adds two vectors to conv1 to conv8."""
        f = self.features
        sizes = [(f, 2 * f, 4), (2 * f, 4 * f, 4), (4 * f, 8 * f, 4), (8 * f, 4 * f, 3), (4 * f, 2 * f, 3)]
        sizes += [(2 * f, f, 3), (f, f, 3), (f, f, 3)]
        shapes = _conv_shapes("conv0", 3, f)
        for number, (into, out, kernel) in enumerate(sizes, start=1):
            shapes[f"conv{number}.weight_orig"] = (out, into, kernel, kernel)
            shapes[f"conv{number}.weight_u"] = (out,)
            shapes[f"conv{number}.weight_v"] = (into * kernel * kernel,)
        return shapes | _conv_shapes("conv9", f, 1)

    @property
    def parameters(self) -> int:
        """Numbers that training changes; the vectors of spectral norm are not among them."""
        return _count({key: shape for key, shape in self.shapes.items() if not key.endswith(("_u", "_v"))})

    @property
    def title(self) -> str:
        """One line for people."""
        return f"UNetDiscriminatorSN: {self.features} features (for training; it enlarges nothing)"


Architecture = RRDB | Compact


def detect(state: State, *, activation: Activation | None = None) -> Architecture:
    """Find the architecture whose state dict this is, and check every key and shape.

    Args:
        state: arrays by modern key names (`realesr.state_keys` renames the others).
        activation: of a compact network without PReLU slopes: its keys do not tell ReLU from leaky ReLU.

    Raises:
        ModelError: no architecture of ours, a discriminator, or keys missing, unexpected or of another shape.
    """
    found = detect_any(state, activation=activation)
    if isinstance(found, UNetDiscriminator):
        raise ModelError("these are the weights of a discriminator, which enlarges nothing: expected a generator's")
    return found


def detect_any(state: State, *, activation: Activation | None = None) -> Architecture | UNetDiscriminator:
    """Like `detect`, but a discriminator is an answer as well."""
    found: Architecture | UNetDiscriminator
    if "conv_first.weight" in state:
        found = _detect_rrdb(state)
    elif "body.0.weight" in state:
        found = _detect_compact(state, activation)
    elif "conv1.weight_orig" in state and "conv0.weight" in state:
        found = UNetDiscriminator(features=_conv_shape(state, "conv0")[0])
    else:
        raise ModelError(
            f"no network that realesr knows has these weights: got {_first(state)}; "
            "expected RRDBNet (conv_first.weight, ...) or SRVGGNetCompact (body.0.weight, ...)"
        )
    _check_shapes(state, found)
    return found


def text_from_architecture(architecture: Architecture) -> str:
    """One line of JSON that `architecture_from_text` reads: the metadata of our ONNX files."""
    return json.dumps({"network": type(architecture).__name__, **asdict(architecture)})


def architecture_from_text(text: str) -> Architecture | None:
    """The architecture that `text_from_architecture` wrote, or None where the text is none of ours."""
    try:
        fields = json.loads(text)
        return RRDB(**fields) if fields.pop("network") == "RRDB" else Compact(**fields)
    except (ValueError, KeyError, TypeError, AttributeError, ModelError):
        return None


def _detect_rrdb(state: State) -> RRDB:
    features, into = _conv_shape(state, "conv_first")[:2]
    unshuffle = isqrt(into // 3)
    if 3 * unshuffle**2 != into or _conv_shape(state, "conv_last")[0] != 3:
        raise ModelError(
            f"this RRDBNet takes {into} channels and gives {_conv_shape(state, 'conv_last')[0]}: "
            "expected 3 (or 12 or 48 with a pixel-unshuffle) and 3, for realesr enlarges RGB"
        )
    upsamplings = sum(key.startswith("conv_up") and key.endswith(".weight") for key in state)
    if 2**upsamplings % unshuffle:
        raise ModelError(f"this RRDBNet unshuffles by {unshuffle} but doubles {upsamplings} times: it would shrink")
    return RRDB(
        scale=2**upsamplings // unshuffle,
        features=features,
        blocks=len({key.split(".")[1] for key in state if key.startswith("body.")}),
        growth=_conv_shape(state, "body.0.rdb1.conv1")[0],
        upsamplings=upsamplings,
    )


def _detect_compact(state: State, activation: Activation | None) -> Compact:
    features = _conv_shape(state, "body.0")[0]
    convs = sum(array.ndim == 4 for array in state.values()) - 2
    out = _conv_shape(state, f"body.{2 * convs + 2}")[0]
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
    return Compact(scale=scale, features=features, convs=convs, activation=activation)


def _check_shapes(state: State, architecture: Architecture | UNetDiscriminator) -> None:
    expected = architecture.shapes
    missing = [key for key in expected if key not in state]
    if missing:
        raise ModelError(f"weights of a {architecture.title} miss {_first(missing)}: is the file complete?")
    unexpected = [key for key in state if key not in expected]
    if unexpected:
        raise ModelError(f"weights look like a {architecture.title} but also hold {_first(unexpected)}")
    for key, shape in expected.items():
        if state[key].shape != shape:
            raise ModelError(f"{key} of a {architecture.title} has the shape {state[key].shape}, expected {shape}")


def _conv_shapes(name: str, into: int, out: int) -> Shapes:
    return {f"{name}.weight": (out, into, 3, 3), f"{name}.bias": (out,)}


def _conv_shape(state: State, name: str) -> tuple[int, ...]:
    array = state.get(f"{name}.weight")
    if array is None or array.ndim != 4 or 0 in array.shape:
        got = "nothing" if array is None else f"an array of shape {array.shape}"
        raise ModelError(f"weights hold {got} as {name}.weight: expected the four dimensions of a convolution")
    return array.shape


def _count(shapes: Shapes) -> int:
    return sum(int(np.prod(shape)) for shape in shapes.values())


def _first(keys: Collection[str]) -> str:
    shown = ", ".join(list(keys)[:4])
    return f"{shown}, ... ({len(keys)} in all)" if len(keys) > 4 else shown or "no arrays"

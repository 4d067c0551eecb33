"""RRDBNet, the generator of ESRGAN and Real-ESRGAN: how it is recognised, and its layers.

Source: BasicSR, basicsr/archs/rrdbnet_arch.py; of older names chaiNNer-org/spandrel, its ESRGAN loader.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isqrt

from realesr.errors import ModelError
from realesr.models.architecture import Architecture, State, conv_shape
from realesr.models.layers import (
    IMAGE,
    Activation,
    Concatenation,
    Convolution,
    Layer,
    NearestEnlargement,
    PixelUnshuffle,
    ScaledSum,
)

_LEAKY_RELU = Activation(kind="leaky_relu", slope=0.2)
_RESIDUAL_SCALE = 0.2
_CONVS_PER_BLOCK = 15
_MAX_UPSAMPLINGS = 4
_MAX_BLOCKS_MISSING = 64


@dataclass(frozen=True, kw_only=True)
class RRDB(Architecture):
    """The numbers in which networks of the family RRDBNet differ."""

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
        is_positive = min(self.scale, self.features, self.blocks, self.growth) >= 1
        if not is_positive or not 0 <= self.upsamplings <= _MAX_UPSAMPLINGS:
            raise ModelError(f"{self} cannot be: expected positive numbers, and at most {_MAX_UPSAMPLINGS} doublings")
        if 2**self.upsamplings % self.scale:
            raise ModelError(f"{self} cannot be: {self.upsamplings} doublings give no scale {self.scale}")

    @property
    def title(self) -> str:
        """Return a description in one line, for people."""
        return f"RRDBNet x{self.scale}: {self.blocks} blocks, {self.features} features, growth {self.growth}"

    @property
    def unshuffle(self) -> int:
        """Return the factor of the pixel-unshuffle that the network begins with; 1 for none."""
        return int(2**self.upsamplings) // self.scale

    @property
    def in_channels(self) -> int:
        """Return the channels that the first convolution takes."""
        return 3 * self.unshuffle**2

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Return the layers; see `Architecture.layers`."""
        layers: list[Layer] = []
        image = IMAGE
        if self.unshuffle > 1:
            layers.append(PixelUnshuffle(name="unshuffled", source=IMAGE, factor=self.unshuffle))
            image = "unshuffled"
        layers.append(_convolution("conv_first", image, self.in_channels, self.features))
        x = "conv_first"
        for block in range(self.blocks):
            layers += self._block(f"body.{block}", x)
            x = f"body.{block}"
        layers.append(_convolution("conv_body", x, self.features, self.features))
        layers.append(ScaledSum(name="body", terms=(("conv_body", 1.0), ("conv_first", 1.0))))
        return (*layers, *self._enlargement("body"))

    def _block(self, name: str, source: str) -> list[Layer]:
        """Return a residual-in-residual dense block, whose result is called `name`."""
        layers: list[Layer] = []
        x = source
        for rdb in (1, 2, 3):
            layers += self._dense_block(f"{name}.rdb{rdb}", x)
            x = f"{name}.rdb{rdb}"
        return [*layers, ScaledSum(name=name, terms=((x, _RESIDUAL_SCALE), (source, 1.0)))]

    def _dense_block(self, name: str, source: str) -> list[Layer]:
        """Return five convolutions, each of which reads the block's source and the results of all before it."""
        layers: list[Layer] = []
        known = [source]
        for number in (1, 2, 3, 4, 5):
            conv = f"{name}.conv{number}"
            read = source
            if number > 1:
                layers.append(Concatenation(name=f"{conv}.in", sources=tuple(known)))
                read = f"{conv}.in"
            channels = self.features + (number - 1) * self.growth
            if number < 5:
                layers.append(_convolution(conv, read, channels, self.growth, _LEAKY_RELU))
            else:
                layers.append(_convolution(conv, read, channels, self.features))
            known.append(conv)
        return [*layers, ScaledSum(name=name, terms=((f"{name}.conv5", _RESIDUAL_SCALE), (source, 1.0)))]

    def _enlargement(self, source: str) -> list[Layer]:
        layers: list[Layer] = []
        x = source
        for up in range(1, self.upsamplings + 1):
            layers.append(NearestEnlargement(name=f"conv_up{up}.in", source=x, factor=2))
            x = f"conv_up{up}"
            layers.append(_convolution(x, f"{x}.in", self.features, self.features, _LEAKY_RELU))
        layers.append(_convolution("conv_hr", x, self.features, self.features, _LEAKY_RELU))
        return [*layers, _convolution("conv_last", "conv_hr", self.features, 3)]


def _convolution(
    name: str, source: str, in_channels: int, out_channels: int, activation: Activation | None = None
) -> Convolution:
    return Convolution(
        name=name, source=source, in_channels=in_channels, out_channels=out_channels, activation=activation
    )


def detect_rrdb(state: State) -> RRDB | None:
    """Return the RRDBNet whose state dict, by today's names, this looks like; None where it looks like another network.

    Raises:
        ModelError: It takes or gives something else than RGB, or would shrink.
    """
    if "conv_first.weight" not in state:
        return None
    (features, into, *_), out = conv_shape(state, "conv_first"), conv_shape(state, "conv_last")[0]
    unshuffle = isqrt(into // 3)
    if 3 * unshuffle**2 != into or out != 3:
        raise ModelError(
            f"this RRDBNet takes {into} channels and gives {out}: "
            "expected 3 (or 12 or 48 with a pixel-unshuffle) and 3, for realesr enlarges RGB"
        )
    upsamplings = sum(key.startswith("conv_up") and key.endswith(".weight") for key in state)
    if upsamplings > _MAX_UPSAMPLINGS or 2**upsamplings % unshuffle:
        raise ModelError(
            f"this RRDBNet unshuffles by {unshuffle} but doubles {upsamplings} times: it would shrink, "
            f"or doubles more than {_MAX_UPSAMPLINGS} times"
        )
    blocks = len({key.split(".")[1] for key in state if key.startswith("body.")})
    convolutions = sum(array.ndim == 4 for array in state.values())
    # A few may be missing, which are named later; but no name alone makes a block of 31 layers.
    if (blocks - _MAX_BLOCKS_MISSING) * _CONVS_PER_BLOCK > convolutions:
        raise ModelError(f"this RRDBNet has {blocks} blocks in {convolutions} convolutions: is the file complete?")
    return RRDB(
        scale=2**upsamplings // unshuffle,
        features=features,
        blocks=blocks,
        growth=conv_shape(state, "body.0.rdb1.conv1")[0],
        upsamplings=upsamplings,
    )


def rrdb_candidates(shapes: Sequence[tuple[int, ...]]) -> list[RRDB]:
    """Return the RRDBNets that convolutions of these shapes, in the order of use, could be."""
    upsamplings = (len(shapes) - 4) % _CONVS_PER_BLOCK
    blocks = (len(shapes) - 4) // _CONVS_PER_BLOCK
    if blocks < 1 or upsamplings > _MAX_UPSAMPLINGS:
        return []
    features, growth, unshuffle = shapes[0][0], shapes[1][0], isqrt(shapes[0][1] // 3)
    if unshuffle < 1 or 2**upsamplings % unshuffle:
        return []
    scale = 2**upsamplings // unshuffle
    return [RRDB(scale=scale, features=features, blocks=blocks, growth=growth, upsamplings=upsamplings)]


_RENAMED = {
    "trunk_conv": "conv_body",
    "upconv1": "conv_up1",
    "upconv2": "conv_up2",
    "upconv3": "conv_up3",
    "HRconv": "conv_hr",
}
"""Names of layers in ESRGAN's second code base, RealSR and BSRGAN -> today's names."""

_TRUNK_KEY = re.compile(r"RRDB_trunk\.(\d+)\.RDB([123])\.conv([1-5])")
_SEQUENTIAL_KEY = re.compile(r"model\.1\.sub\.(\d+)\.RDB([123])\.conv([1-5])\.0")
_SEQUENTIAL_TAIL = re.compile(r"model\.(\d{1,6})", re.ASCII)
_SEQUENTIAL_BODY = re.compile(r"model\.1\.sub\.(\d+)")


def with_rrdb_names(state: State) -> State:
    """Return a state dict in which the keys of older RRDBNets have today's names; others stay as they are.

    Raises:
        ModelError: Two keys mean the same array, or the numbers of an old sequential ESRGAN's layers make no network.
    """
    tail = [int(match[1]) for key in state if (match := _SEQUENTIAL_TAIL.fullmatch(key.removesuffix(".weight")))]
    tail_names = _sequential_tail(sorted(tail)) if 0 in tail else {}
    renamed: dict[str, object] = {}
    for key, array in state.items():
        name, dot, kind = key.rpartition(".")
        modern = f"{tail_names.get(name) or _modern_name(name)}{dot}{kind}"
        if modern in renamed:
            raise ModelError(f"two of the weights are {modern} (one is {key}): expected one network in the file")
        renamed[modern] = array
    return renamed  # type: ignore[return-value]


def _modern_name(name: str) -> str:
    match = _TRUNK_KEY.fullmatch(name) or _SEQUENTIAL_KEY.fullmatch(name)
    if match:
        return f"body.{match[1]}.rdb{match[2]}.conv{match[3]}"
    if _SEQUENTIAL_BODY.fullmatch(name):
        return "conv_body"
    return _RENAMED.get(name, name)


def _sequential_tail(indices: list[int]) -> dict[str, str]:
    """Return names of the layers around the trunk, which n doublings number 0, 3, 6, ... 3n, 3n + 2 and 3n + 4."""
    doublings = len(indices) - 3
    expected = [0, *(3 * k for k in range(1, doublings + 1)), 3 * doublings + 2, 3 * doublings + 4]
    if indices != expected:
        raise ModelError(f"an old sequential ESRGAN has convolutions at {indices}: expected {expected}")
    names = ["conv_first", *(f"conv_up{k}" for k in range(1, doublings + 1)), "conv_hr", "conv_last"]
    return {f"model.{index}": name for index, name in zip(indices, names, strict=True)}

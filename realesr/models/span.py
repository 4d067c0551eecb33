"""SPAN, the Swift Parameter-free Attention Network: how it is recognised, and its layers.

Convolutions at input size, six blocks of three that gate their own result, then a pixel-shuffle. Training splits every
3x3 convolution into branches (`Conv3XC`); here each is one convolution, into which they are folded when a file is read.
Source: Wan et al. 2023, arXiv 2311.12770; hongyuanyu/SPAN, basicsr/archs/span_arch.py. The key `no_norm` is neosr's.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from realesr.errors import ModelError
from realesr.models.architecture import MAX_SCALE, Architecture, State, conv_shape
from realesr.models.layers import (
    IMAGE,
    Activated,
    Activation,
    Concatenation,
    Convolution,
    Layer,
    PixelShuffle,
    Product,
    ScaledSum,
)

_BLOCKS = 6
_SILU, _SIGMOID = Activation(kind="silu"), Activation(kind="sigmoid")

_MEAN_RGB = (0.4488, 0.4371, 0.4040)
_RANGE = 255.0
"""With a norm the network sees (image - mean) * range. No .pth holds the two: they are the reference's defaults."""


@dataclass(frozen=True, kw_only=True)
class Span(Architecture):
    """SPAN."""

    scale: int
    """Output pixels per input pixel and side."""
    features: int = 48
    """Channels of every result but the last."""
    normalised: bool = True
    """Whether the image goes through a 1x1 convolution of each channel by itself, which takes the mean colour away."""

    def __post_init__(self) -> None:
        if min(self.scale, self.features) < 1 or self.scale > MAX_SCALE:
            raise ModelError(f"{self} cannot be: expected positive numbers, and a scale of at most {MAX_SCALE}")

    @property
    def title(self) -> str:
        """Return one line for people."""
        return f"SPAN x{self.scale}: {self.features} features" + ("" if self.normalised else ", no norm")

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Return the layers; see `Architecture.layers`."""
        layers: list[Layer] = []
        image = IMAGE
        if self.normalised:
            layers.append(Convolution(name="norm", source=IMAGE, in_channels=3, out_channels=3, kernel=1, groups=3))
            image = "norm"
        layers.append(_convolution("conv_1", image, 3, self.features))
        x = "conv_1"
        for block in range(1, _BLOCKS + 1):
            layers += self._block(f"block_{block}", x)
            x = f"block_{block}"
        joined = ("conv_1", "conv_2", "block_1", f"{x}.c1_r")
        return (
            *layers,
            _convolution("conv_2", x, self.features, self.features),
            Concatenation(name="conv_cat.in", sources=joined),
            _convolution("conv_cat", "conv_cat.in", len(joined) * self.features, self.features, kernel=1),
            _convolution("upsampler.0", "conv_cat", self.features, 3 * self.scale**2),
            PixelShuffle(name="upsampler", source="upsampler.0", factor=self.scale),
        )

    def _block(self, name: str, source: str) -> list[Layer]:
        """Return three convolutions, whose result c becomes (c + source) * (sigmoid(c) - 0.5)."""
        c1, c2, c3 = (f"{name}.c{number}_r" for number in (1, 2, 3))
        gate = f"{name}.attention"
        return [
            _convolution(c1, source, self.features, self.features, _SILU),
            _convolution(c2, c1, self.features, self.features, _SILU),
            _convolution(c3, c2, self.features, self.features),
            Activated(name=f"{c3}.sigmoid", source=c3, activation=_SIGMOID),
            ScaledSum(name=gate, terms=((f"{c3}.sigmoid", 1.0),), offset=-0.5),
            ScaledSum(name=f"{name}.sum", terms=((c3, 1.0), (source, 1.0))),
            Product(name=name, sources=(f"{name}.sum", gate)),
        ]


def _convolution(
    name: str, source: str, in_channels: int, out_channels: int, activation: Activation | None = None, kernel: int = 3
) -> Convolution:
    return Convolution(
        name=name,
        source=source,
        in_channels=in_channels,
        out_channels=out_channels,
        kernel=kernel,
        activation=activation,
    )


def detect_span(state: State) -> Span | None:
    """Return the SPAN whose state dict, folded, this looks like; None where it looks like another network.

    Raises:
        ModelError: It takes or gives something else than RGB.
    """
    if "conv_1.weight" not in state or "block_1.c1_r.weight" not in state:
        return None
    (features, into, *_), out = conv_shape(state, "conv_1"), conv_shape(state, "upsampler.0")[0]
    scale = isqrt(out // 3)
    if into != 3 or 3 * scale**2 != out:
        raise ModelError(
            f"this SPAN takes {into} channels and ends in {out}: "
            "expected 3 and 3 times a square, for realesr enlarges RGB"
        )
    return Span(scale=scale, features=features, normalised="norm.weight" in state)


def span_candidates(shapes: Sequence[tuple[int, ...]]) -> list[Span]:
    """Return the SPANs that convolutions of these shapes, in the order of use, could be.

    A norm may be among them, as a convolution of groups, or be written as arithmetic: then it cannot be told from none.
    """
    norms = [True, False]
    if shapes and shapes[0] == (3, 1, 1, 1):
        shapes, norms = shapes[1:], [True]
    if len(shapes) != 3 * _BLOCKS + 4:
        return []
    features, scale = shapes[0][0], isqrt(shapes[-1][0] // 3)
    fits = 1 <= scale <= MAX_SCALE and shapes[0][1:] == (3, 3, 3) and shapes[-2] == (features, 4 * features, 1, 1)
    return [Span(scale=scale, features=features, normalised=norm) for norm in norms] if fits else []


_BRANCH_KEY = re.compile(r"(conv_[12]|block_[1-6]\.c[123]_r)\.(?:sk|conv\.[012]|eval_conv)\.(?:weight|bias)")
_BRANCHES = ("sk", "conv.0", "conv.1", "conv.2")


def norm_arrays(mean_rgb: Sequence[float] = _MEAN_RGB, value_range: float = _RANGE) -> dict[str, NDArray[np.float32]]:
    """Return the arrays of the convolution that makes (image - mean) * range of an RGB image in [0, 1]."""
    bias = -np.array(mean_rgb, np.float64) * value_range
    return {"norm.weight": np.full((3, 1, 1, 1), value_range, np.float32), "norm.bias": bias.astype(np.float32)}


def folded_span(state: State) -> State:
    """Return a state dict in which the branches of a SPAN's convolutions are folded; others stay as they are.

    The norm, which files do not hold, is among the arrays, unless there is the key `no_norm`. Of a convolution that is
    there both folded (`eval_conv`) and in branches only these count: training writes them, and leaves the fold behind.

    Raises:
        ModelError: A convolution lacks a branch, or its arrays do not fit each other.
    """
    names = list(dict.fromkeys(match[1] for key in state if (match := _BRANCH_KEY.fullmatch(key))))
    if not names:
        return state
    folded = {key: array for key, array in state.items() if not _BRANCH_KEY.fullmatch(key)}
    for name in names:
        if f"{name}.weight" in folded:
            raise ModelError(f"two of the weights are {name}.weight, one of them in branches: expected one network")
        folded |= _folded(state, name)
    if folded.pop("no_norm", None) is None:
        folded = norm_arrays() | folded
    return folded


def _folded(state: State, name: str) -> dict[str, NDArray[np.float32]]:
    """Return weight and bias of the one 3x3 convolution that `conv.2(conv.1(conv.0(x))) + sk(x)` is.

    The zeros around the image go before all branches, as the reference runs a trained network (`update_params`).
    """
    if not any(f"{name}.{branch}.weight" in state for branch in _BRANCHES):
        weight, bias = _arrays(state, f"{name}.eval_conv")
        return {f"{name}.weight": weight.astype(np.float32), f"{name}.bias": bias.astype(np.float32)}
    (skip, skip_bias), (first, first_bias), (middle, middle_bias), (last, last_bias) = (
        _arrays(state, f"{name}.{branch}") for branch in _BRANCHES
    )
    (out, into, *_), wide_in, wide_out = skip.shape, first.shape[0], middle.shape[0]
    got = tuple(array.shape for array in (skip, first, middle, last))
    expected = ((out, into, 1, 1), (wide_in, into, 1, 1), (wide_out, wide_in, 3, 3), (out, wide_out, 1, 1))
    if got != expected:
        raise ModelError(f"the branches {', '.join(_BRANCHES)} of {name} have the shapes {got}, expected {expected}")
    gain = wide_in // into
    # Branches that were narrower than the convolution that they make could make gigabytes of a megabyte.
    if not gain or (wide_in, wide_out) != (gain * into, gain * out):
        raise ModelError(
            f"the branches of {name} go from {into} over {wide_in} and {wide_out} to {out} channels: "
            "expected the two in the middle to be one multiple of those around them"
        )
    last, first = last[:, :, 0, 0], first[:, :, 0, 0]
    weight = np.einsum("om,mnyx,ni->oiyx", last, middle, first, optimize=True)
    weight[:, :, 1, 1] += skip[:, :, 0, 0]
    bias = last @ (middle.sum((2, 3)) @ first_bias + middle_bias) + last_bias + skip_bias
    return {f"{name}.weight": weight.astype(np.float32), f"{name}.bias": bias.astype(np.float32)}


def _arrays(state: State, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return weight and bias of one branch."""
    shape = conv_shape(state, name)
    weight, bias = state[f"{name}.weight"], state.get(f"{name}.bias")
    if bias is None or bias.shape != shape[:1]:
        got = "nothing" if bias is None else f"an array of shape {bias.shape}"
        raise ModelError(f"weights hold {got} as {name}.bias: expected the shape {shape[:1]}")
    if weight.dtype.kind != "f" or bias.dtype.kind != "f":
        raise ModelError(f"{name} is of {weight.dtype}: expected floating-point weights, not quantised ones")
    return weight.astype(np.float64), bias.astype(np.float64)

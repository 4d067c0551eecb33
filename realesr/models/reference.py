"""Computes a network's result in float64 with numpy, layer by layer: slow, and correct by definition."""

import math

import numpy as np
from numpy.typing import NDArray

from realesr.models.architecture import Architecture, State
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

Map = NDArray[np.float64]
"""(channels, height, width)."""


def reference_answer(architecture: Architecture, state: State, image: NDArray[np.floating]) -> Map:
    """Run a network on an image.

    Args:
        architecture: the network.
        state: its arrays.
        image: (3, height, width) RGB in [0, 1].

    Returns:
        (3, height * scale, width * scale) float64, not clamped.
    """
    maps = {IMAGE: image.astype(np.float64)}
    for layer in architecture.layers:
        maps[layer.name] = _result(layer, [maps[source] for source in layer.sources], state)
    return maps[architecture.layers[-1].name]


def _result(layer: Layer, sources: list[Map], state: State) -> Map:
    x = sources[0]
    match layer:
        case Convolution():
            return _convolution(layer, x, state)
        case Activated():
            return activated(layer.activation, x, state)
        case Concatenation():
            return np.concatenate(sources)
        case ScaledSum():
            weighted = (factor * source for (_, factor), source in zip(layer.terms, sources, strict=True))
            return np.asarray(sum(weighted) + layer.offset)
        case Product():
            return sources[0] * sources[1]
        case PixelShuffle(factor=factor):
            channels, height, width = x.shape
            squares = x.reshape(channels // factor**2, factor, factor, height, width).transpose(0, 3, 1, 4, 2)
            return squares.reshape(-1, height * factor, width * factor)
        case PixelUnshuffle(factor=factor):
            channels, height, width = x.shape
            squares = x.reshape(channels, height // factor, factor, width // factor, factor).transpose(0, 2, 4, 1, 3)
            return squares.reshape(-1, height // factor, width // factor)
        case NearestEnlargement(factor=factor):
            return x.repeat(factor, axis=1).repeat(factor, axis=2)
        case ChannelSlice():
            return x[layer.first_channel : layer.first_channel + layer.channels]


def _convolution(layer: Convolution, x: Map, state: State) -> Map:
    weight, margin = state[f"{layer.name}.weight"].astype(np.float64), layer.kernel // 2
    padded = np.pad(x, ((0, 0), (margin, margin), (margin, margin)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (layer.kernel, layer.kernel), axis=(1, 2))
    results = [
        np.tensordot(filters, group, axes=((1, 2, 3), (0, 3, 4)))
        for filters, group in zip(np.split(weight, layer.groups), np.split(windows, layer.groups), strict=True)
    ]
    result = np.concatenate(results)
    if layer.has_bias:
        result += state[f"{layer.name}.bias"][:, None, None]
    return result if layer.activation is None else activated(layer.activation, result, state)


def activated(activation: Activation, x: Map, state: State) -> Map:
    """Apply an activation to a map."""
    match activation.kind:
        case "relu":
            return np.maximum(x, 0)
        case "leaky_relu":
            return np.where(x > 0, x, x * activation.slope)
        case "prelu":
            return np.where(x > 0, x, x * state[activation.slopes][:, None, None])
        case "silu":
            return x * _sigmoid(x)
        case "sigmoid":
            return _sigmoid(x)
        case "gelu":
            erf = np.vectorize(math.erf, otypes=[np.float64])
            return np.asarray(x * (1 + erf(x / math.sqrt(2))) / 2)
        case "mish":
            return x * np.tanh(np.logaddexp(0, x))


def _sigmoid(x: Map) -> Map:
    return np.asarray(1 / (1 + np.exp(-x)))

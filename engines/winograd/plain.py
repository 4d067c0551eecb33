"""Layers that no convolution takes in, in numpy, on rows of pixels: (rows, width, channels) float32."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from realesr.engines.winograd.fusion import PlainOperation
from realesr.models.layers import (
    Activated,
    Activation,
    ChannelSlice,
    Concatenation,
    NearestEnlargement,
    PixelShuffle,
    PixelUnshuffle,
    Product,
    ScaledSum,
)

Pixels = NDArray[np.float32]


def compute(layer: PlainOperation, sources: Sequence[Pixels], target: Pixels, slopes: Pixels | None) -> None:
    """Write a layer's result.

    Args:
        layer: what is computed.
        sources: the rows that it reads, without padding.
        target: the rows that it writes.
        slopes: of a ReLU of any kind, (channels,).
    """
    first = sources[0]
    match layer:
        case Activated():
            with np.errstate(over="ignore", invalid="ignore"):  # of e^x, and where there is no number
                target[:] = activated(first, layer.activation, slopes)
        case Concatenation():
            np.concatenate(sources, axis=2, out=target)
        case ScaledSum():
            _add(layer, sources, target)
        case Product():
            np.multiply(first, sources[1], out=target)
        case PixelShuffle():
            _shuffle(first, target, layer.factor)
        case PixelUnshuffle():
            target[:] = _unshuffled(first, layer.factor)
        case NearestEnlargement():
            target[:] = first.repeat(layer.factor, axis=0).repeat(layer.factor, axis=1)
        case ChannelSlice():
            target[:] = first[:, :, layer.first_channel : layer.first_channel + layer.channels]


def activated(x: Pixels, activation: Activation, slopes: Pixels | None) -> Pixels:
    """Return an activation of each value; `slopes`, (channels,), are those of a ReLU of any kind."""
    match activation.kind:
        case "silu":
            return x * _sigmoid(x)
        case "sigmoid":
            return _sigmoid(x)
        case "gelu":
            return x * (0.5 + 0.5 * _erf(x * np.float32(0.5**0.5)))
        case "mish":
            return x * np.tanh(np.logaddexp(x, np.zeros_like(x)))
    assert slopes is not None
    return np.where(x > 0, x, x * slopes)


def _sigmoid(x: Pixels) -> Pixels:
    result: Pixels = np.reciprocal(1 + np.exp(-x))
    return result


def _erf(x: Pixels) -> Pixels:
    """Return the error function, within 2e-7. Source: Abramowitz and Stegun, 7.1.26."""
    size = np.abs(x)
    t = 1 / (1 + np.float32(0.3275911) * size)
    series = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t
    result: Pixels = np.copysign(1 - series * np.exp(-size * size), x)
    return result


def _add(layer: ScaledSum, sources: Sequence[Pixels], target: Pixels) -> None:
    factors = [np.float32(factor) for _, factor in layer.terms]
    np.multiply(sources[0], factors[0], out=target)
    for source, factor in zip(sources[1:], factors[1:], strict=True):
        target += source if factor == 1 else factor * source
    if layer.offset:
        target += np.float32(layer.offset)


def _shuffle(pixels: Pixels, target: Pixels, factor: int) -> None:
    height, width, channels = pixels.shape
    squares = pixels.reshape(height, width, channels // factor**2, factor, factor)
    target[:] = squares.transpose(0, 3, 1, 4, 2).reshape(target.shape)


def _unshuffled(pixels: Pixels, factor: int) -> Pixels:
    height, width, channels = pixels.shape
    squares = pixels.reshape(height // factor, factor, width // factor, factor, channels)
    return squares.transpose(0, 2, 4, 1, 3).reshape(height // factor, width // factor, -1)


def put_together(pixels: Pixels, factor: int, image: NDArray[np.float32] | None, output: NDArray[np.float32]) -> None:
    """Write rows of the enlarged image.

    Args:
        pixels: (h, w, 3 * factor^2) what the network gives, before its pixel-shuffle.
        factor: of the pixel-shuffle.
        image: (3, h, w) the rows whose enlargement is added, if any.
        output: (3, h * factor, w * factor) RGB.
    """
    height, width, _ = pixels.shape
    squares = pixels.reshape(height, width, 3, factor, factor).transpose(2, 0, 3, 1, 4)
    target = output.reshape(3, height, factor, width, factor)
    if image is None:
        target[:] = squares
    else:
        np.add(squares, image[:, :, None, :, None], out=target)

"""A network's list of layers as a torch module, for inference: see `realesr.models.layers`.

Tensors are (N, channels, rows, columns), in channels-last order where the input is.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

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
from realesr.models.weights import Weights

_CHANNELS = 1
"""Axis."""

Arrays = Mapping[str, NDArray[np.float32]]
Key = TypeVar("Key", bound=Hashable)


class LayerNetwork(nn.Module):
    """A network's layers: (N, 3, H, W) RGB in [0, 1] -> (N, 3, H * scale, W * scale), not clamped.

    H and W are multiples of the architecture's `multiple_of`. Parameters are copies of the weights, float32 until the
    module is moved to another type; none needs a gradient.
    """

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.architecture = weights.architecture
        self.layers = weights.architecture.layers
        self.operations = nn.ModuleList(_operation(layer, weights.state) for layer in self.layers)
        self._unread = unread_after([layer.sources for layer in self.layers])

    def forward(self, lr: Tensor) -> Tensor:
        """Enlarge a batch. Each result is dropped after its last reader."""
        results = {IMAGE: lr}
        for layer, operation, unread in zip(self.layers, self.operations, self._unread, strict=True):
            results[layer.name] = operation(*[results[source] for source in layer.sources])
            for name in unread:
                del results[name]
        return results[self.layers[-1].name]

    def operation(self, name: str) -> nn.Module:
        """Return the module of the layer of this name."""
        return next(each for layer, each in zip(self.layers, self.operations, strict=True) if layer.name == name)


def unread_after(reads: Sequence[Sequence[Key]]) -> list[tuple[Key, ...]]:
    """Return the keys that each step of a computation is the last to read, from those that each step reads."""
    last = {key: step for step, keys in enumerate(reads) for key in keys}
    unread: list[tuple[Key, ...]] = []
    for step, keys in enumerate(reads):
        unread.append(tuple(key for key in dict.fromkeys(keys) if last[key] == step))
    return unread


def _operation(layer: Layer, state: Arrays) -> nn.Module:
    """Return the module that computes a layer's result from those of its sources, in their order."""
    match layer:
        case Convolution():
            return ConvolutionOperation(layer, state)
        case Activated():
            return _activation(layer.activation, state, in_place=False)
        case Concatenation():
            return _Concatenation()
        case ScaledSum():
            return _ScaledSum([factor for _, factor in layer.terms], layer.offset)
        case Product():
            return _Product()
        case PixelShuffle():
            return nn.PixelShuffle(layer.factor)
        case PixelUnshuffle():
            return nn.PixelUnshuffle(layer.factor)
        case NearestEnlargement():
            return nn.Upsample(scale_factor=layer.factor, mode="nearest")
        case ChannelSlice():
            return _ChannelSlice(layer.first_channel, layer.channels)


class ConvolutionOperation(nn.Module):
    """A convolution and its activation."""

    def __init__(self, layer: Convolution, state: Arrays) -> None:
        super().__init__()
        self.convolution: nn.Conv2d = nn.utils.skip_init(  # type: ignore[no-untyped-call]
            nn.Conv2d,
            layer.in_channels,
            layer.out_channels,
            layer.kernel,
            padding=layer.kernel // 2,
            groups=layer.groups,
            bias=layer.has_bias,
        )
        self.convolution.weight = _parameter(state[f"{layer.name}.weight"])
        if layer.has_bias:
            self.convolution.bias = _parameter(state[f"{layer.name}.bias"])
        self.activation: nn.Module = nn.Identity()
        if layer.activation is not None:
            self.activation = _activation(layer.activation, state, in_place=True)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, in, H, W) -> (N, out, H, W)."""
        result: Tensor = self.activation(self.convolution(x))
        return result

    def without_row_padding(self, rows: Tensor) -> Tensor:
        """Convolve (N, in, H + kernel - 1, W) -> (N, out, H, W), with zeros beside the columns and no padded rows."""
        conv = self.convolution
        padding = (0, conv.kernel_size[1] // 2)
        result: Tensor = self.activation(
            functional.conv2d(rows, conv.weight, conv.bias, padding=padding, groups=conv.groups)
        )
        return result


def _activation(activation: Activation, state: Arrays, *, in_place: bool) -> nn.Module:
    """Return an activation; with `in_place` it may write over what it reads."""
    match activation.kind:
        case "relu":
            return nn.ReLU(in_place)
        case "leaky_relu":
            return nn.LeakyReLU(activation.slope, in_place)
        case "prelu":
            prelu = nn.PReLU(len(state[activation.slopes]))
            prelu.weight = _parameter(state[activation.slopes])
            return prelu
        case "silu":
            return nn.SiLU(in_place)
        case "gelu":
            return nn.GELU()
        case "sigmoid":
            return nn.Sigmoid()
        case "mish":
            return nn.Mish(in_place)


class _Concatenation(nn.Module):
    def forward(self, *sources: Tensor) -> Tensor:
        return torch.cat(sources, _CHANNELS)


class _ScaledSum(nn.Module):
    def __init__(self, factors: Sequence[float], offset: float) -> None:
        super().__init__()
        # A term without a factor comes first: those after it are multiplied and added by one kernel each.
        order = sorted(range(len(factors)), key=lambda number: factors[number] != 1)
        self._terms = [(number, factors[number]) for number in order]
        self._offset = offset

    def forward(self, *sources: Tensor) -> Tensor:
        (first, factor), *others = self._terms
        total = sources[first] if factor == 1 else sources[first] * factor
        for number, factor in others:
            total = torch.add(total, sources[number], alpha=factor)
        return total + self._offset if self._offset else total


class _Product(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a * b


class _ChannelSlice(nn.Module):
    def __init__(self, first_channel: int, channels: int) -> None:
        super().__init__()
        self._channels = slice(first_channel, first_channel + channels)

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self._channels]


def _parameter(array: NDArray[Any]) -> nn.Parameter:
    return nn.Parameter(torch.from_numpy(np.array(array)), requires_grad=False)

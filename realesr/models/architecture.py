"""Describes a network as an ordered list of layers, from which all else follows.

`Architecture` is the base of one frozen dataclass for each family of networks (`rrdb.py`, `compact.py`, ...): its
fields are the numbers in which networks of the family differ, its `layers` the list. All else is computed from that.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

from numpy.typing import NDArray

from realesr.errors import ModelError
from realesr.models.layers import (
    IMAGE,
    Activated,
    ChannelSlice,
    Concatenation,
    Convolution,
    Layer,
    NearestEnlargement,
    PixelShuffle,
    PixelUnshuffle,
)

MAX_SCALE = 64
"""Largest enlargement. Assumption: no network enlarges more; a hostile file could state or form any."""

Shapes = dict[str, tuple[int, ...]]
State = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class MapShape:
    """Channels of a result, and `grid`, its rows (and columns) for each row (and column) of the image."""

    channels: int
    grid: Fraction

    @property
    def values_per_px(self) -> float:
        """Return how many values the result has for each pixel of the image."""
        return float(self.channels * self.grid**2)


class Architecture:
    """A network without its weights. Equal values describe equal networks."""

    scale: int
    """Output pixels per input pixel and side."""

    @property
    def title(self) -> str:
        """Return a description in one line, for people."""
        raise NotImplementedError

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Return the layers in an order in which they can be computed."""
        raise NotImplementedError

    @cached_property
    def map_shapes(self) -> dict[str, MapShape]:
        """Return the shape of each result by its name, the image among them."""
        shapes = {IMAGE: MapShape(3, Fraction(1))}
        for layer in self.layers:
            shapes[layer.name] = _result_shape(layer, [shapes[source] for source in layer.sources])
        return shapes

    @cached_property
    def shapes(self) -> Shapes:
        """Return every key of the state dict with its shape, in the order in which the network uses them."""
        shapes: Shapes = {}
        for layer in self.layers:
            if isinstance(layer, Convolution):
                shapes |= layer.arrays
            elif isinstance(layer, Activated) and layer.activation.kind == "prelu":
                shapes[layer.activation.slopes] = (self.map_shapes[layer.name].channels,)
        return shapes

    @cached_property
    def convolutions(self) -> tuple[Convolution, ...]:
        """Return the convolutions in the order of use."""
        return tuple(layer for layer in self.layers if isinstance(layer, Convolution))

    @cached_property
    def parameters(self) -> int:
        """Return how many numbers the state dict holds."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    @cached_property
    def macs_per_px(self) -> float:
        """Return the multiply-accumulates for one pixel of the image."""
        macs = (
            math.prod(layer.arrays[f"{layer.name}.weight"]) * self.map_shapes[layer.name].grid ** 2
            for layer in self.convolutions
        )
        return float(sum(macs))

    @cached_property
    def output_scale(self) -> int:
        """Return the output pixels for each input pixel and side, as the layers make them."""
        return int(self.map_shapes[self.layers[-1].name].grid)

    @cached_property
    def multiple_of(self) -> int:
        """Return the number in input px that heights and widths must be multiples of."""
        return math.lcm(*(shape.grid.denominator for shape in self.map_shapes.values()))

    @cached_property
    def largest_map_values_per_px(self) -> float:
        """Return the values of the largest result that a convolution reads or gives, for each pixel of the image."""
        names = {name for layer in self.convolutions for name in (layer.name, layer.source)} - {IMAGE}
        return max(self.map_shapes[name].values_per_px for name in names)

    @cached_property
    def has_enlarged_convolutions(self) -> bool:
        """Return whether convolutions run on a grid finer than the image's: there their results are largest."""
        return any(
            self.map_shapes[layer.name].grid > self.map_shapes[self.convolutions[0].name].grid
            for layer in self.convolutions
        )

    @cached_property
    def radius_px(self) -> int:
        """Return the exact receptive radius in input px: the distance at which a pixel's value can change the output.

        The interval of rows that each output pixel of one period depends on is followed backwards through the layers.
        """
        scale, multiple = self.output_scale, self.multiple_of
        radius = 0
        for pixel in range(scale * multiple):
            low, high = self._rows_seen(pixel)
            centre = pixel // scale
            radius = max(radius, centre - low, high - centre)
        return radius

    def _rows_seen(self, pixel: int) -> tuple[int, int]:
        """Return the first and the last row of the image that an output row depends on."""
        seen = {self.layers[-1].name: (pixel, pixel)}
        for layer in reversed(self.layers):
            if layer.name in seen:
                low, high = _rows_read(layer, *seen[layer.name])
                for source in layer.sources:
                    known = seen.get(source, (low, high))
                    seen[source] = min(low, known[0]), max(high, known[1])
        return seen[IMAGE]


def _result_shape(layer: Layer, sources: list[MapShape]) -> MapShape:
    """Return the shape of a layer's result; a failed assertion is a mistake in the architecture's file."""
    channels, grid = sources[0].channels, sources[0].grid
    assert all(source.grid == grid for source in sources), layer
    match layer:
        case Convolution():
            assert layer.in_channels == channels, layer
            return MapShape(layer.out_channels, grid)
        case Concatenation():
            return MapShape(sum(source.channels for source in sources), grid)
        case PixelShuffle():
            assert channels % layer.factor**2 == 0, layer
            return MapShape(channels // layer.factor**2, grid * layer.factor)
        case PixelUnshuffle():
            return MapShape(channels * layer.factor**2, grid / layer.factor)
        case NearestEnlargement():
            return MapShape(channels, grid * layer.factor)
        case ChannelSlice():
            assert layer.first_channel + layer.channels <= channels, layer
            return MapShape(layer.channels, grid)
    assert all(source.channels == channels for source in sources), layer
    return sources[0]


def _rows_read(layer: Layer, low: int, high: int) -> tuple[int, int]:
    """Return the rows of its sources that a layer needs for the rows [low, high] of its result."""
    match layer:
        case Convolution():
            return low - layer.kernel // 2, high + layer.kernel // 2
        case PixelShuffle() | NearestEnlargement():
            return low // layer.factor, high // layer.factor
        case PixelUnshuffle():
            return low * layer.factor, (high + 1) * layer.factor - 1
    return low, high


def conv_shape(state: State, name: str) -> tuple[int, ...]:
    """Return the shape of a convolution's weights in a state dict.

    Raises:
        ModelError: There are none, or they are those of something else.
    """
    array = state.get(f"{name}.weight")
    if array is None or array.ndim != 4 or 0 in array.shape:
        got = "nothing" if array is None else f"an array of shape {array.shape}"
        raise ModelError(f"weights hold {got} as {name}.weight: expected the four dimensions of a convolution")
    return array.shape

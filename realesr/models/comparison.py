"""Compares two lists of layers by what they compute, whatever their names and order, and pairs their arrays.

Every result gets a number: equal numbers for equal kinds of layer that read results of equal numbers, in either list.
So convolutions of one shape that read the same have one number too, though their arrays differ: which is which
follows from a walk through both lists at once, from the last result backwards.

Forms that compute the same have one number: an activation in a convolution or behind it; ReLU and a leaky ReLU of
slope 0; sums and products in any order; factors and offsets alone, or in the sum that reads them.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """A layer of a file that no kind of `realesr.models.layers` expresses; it equals no other layer."""

    name: str
    sources: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class LayerPart:
    """The work of a layer: all of it, or its convolution, activation, sum or offset alone."""

    layer: Layer | Foreign
    is_last: bool
    """Whether it is the last part of its layer."""
    number: int
    reads: tuple[int, ...]
    """Places of other parts in the list of all; of sums and products in the order of their numbers."""
    arrays: tuple[str, ...] = ()
    """Keys of its arrays in the state dict."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Differences between a list of layers and the expected one."""

    extra: tuple[LayerPart, ...]
    """Steps that the expected list has not, in order."""
    missing: tuple[LayerPart, ...]
    """Steps that the expected list has besides."""
    keys: dict[str, str]
    """Key of an array of the expected list -> that of the same array. Empty where the lists differ."""


def compare(layers: Sequence[Layer | Foreign], expected: Sequence[Layer]) -> Comparison:
    """Compare two lists of layers, whose results are those of their last layers, in linear time."""
    numbers: dict[Hashable, int] = {}
    got, wanted = _Steps(layers, numbers), _Steps(expected, numbers)
    known_got, known_wanted = ({step.number for step in each.steps} for each in (got, wanted))
    extra = tuple(step for step in got.steps if step.number not in known_wanted)
    missing = tuple(step for step in wanted.steps if step.number not in known_got)
    return Comparison(extra=extra, missing=missing, keys={} if extra or missing else _paired(got, wanted))


def _paired(got: "_Steps", wanted: "_Steps") -> dict[str, str]:
    """Return the expected key of each array -> the other list's; empty where they do not correspond one to one."""
    keys: dict[str, str] = {}
    back: dict[str, str] = {}
    waiting, seen = [(got.result, wanted.result)], set()
    while waiting:
        pair = waiting.pop()
        if pair in seen:
            continue
        seen.add(pair)
        step, twin = got.steps[pair[0]], wanted.steps[pair[1]]
        if step.number != twin.number:
            return {}
        for key, own in zip(twin.arrays, step.arrays, strict=True):
            if keys.setdefault(key, own) != own or back.setdefault(own, key) != key:
                return {}
        waiting += zip(step.reads, twin.reads, strict=True)
    return keys


@dataclass(frozen=True)
class _Affine:
    """factor * x + offset, of the step x."""

    step: int
    factor: float = 1.0
    offset: float = 0.0


class _Steps:
    """The steps of a list of layers. Factors and offsets become a step where something other than a sum reads them."""

    def __init__(self, layers: Sequence[Layer | Foreign], numbers: dict[Hashable, int]) -> None:
        image = Foreign(name=IMAGE, sources=())
        self.steps = [LayerPart(layer=image, is_last=True, number=numbers.setdefault(IMAGE, 0), reads=())]
        self._numbers = numbers
        self._results = {IMAGE: _Affine(0)}
        self._layers: dict[str, Layer | Foreign] = {layer.name: layer for layer in layers}
        for layer in layers:
            self._results[layer.name] = self._affine(layer)
        self.result = self._step_of(layers[-1].name if layers else IMAGE)

    def _affine(self, layer: Layer | Foreign) -> _Affine:
        if not isinstance(layer, ScaledSum):
            return _Affine(self._add_layer(layer))
        if len(layer.terms) > 1:
            return self._sum(layer)
        ((source, factor),) = layer.terms
        x = self._results[source]
        return _Affine(x.step, x.factor * factor, x.offset * factor + layer.offset)

    def _sum(self, layer: ScaledSum) -> _Affine:
        terms, offset = [], layer.offset
        for source, factor in layer.terms:
            x = self._results[source]
            terms.append((self.steps[x.step].number, _rounded(x.factor * factor), x.step))
            offset += x.offset * factor
        terms.sort(key=lambda term: term[:2])
        key = "sum", tuple(term[:2] for term in terms)
        return _Affine(self._add(layer, key, [step for *_, step in terms], is_last=False), 1.0, offset)

    def _step_of(self, name: str) -> int:
        """Return the step that gives a result as it is."""
        x = self._results[name]
        factor, offset = _rounded(x.factor), _rounded(x.offset)
        if (factor, offset) == (1.0, 0.0):
            return x.step
        key = "affine", factor, offset, self.steps[x.step].number
        self._results[name] = _Affine(self._add(self._layers[name], key, [x.step]))
        return self._results[name].step

    def _add_layer(self, layer: Layer | Foreign) -> int:
        reads = [self._step_of(source) for source in layer.sources]
        if isinstance(layer, Product):
            reads.sort(key=lambda step: self.steps[step].number)
        key: Hashable = _key(layer), tuple(self.steps[step].number for step in reads)
        if isinstance(layer, Convolution):
            arrays = [f"{layer.name}.weight", f"{layer.name}.bias"][: 1 + layer.has_bias]
            step = self._add(layer, key, reads, arrays, is_last=layer.activation is None)
            return step if layer.activation is None else self._add_activation(layer, layer.activation, step)
        if isinstance(layer, Activated):
            return self._add_activation(layer, layer.activation, reads[0])
        return self._add(layer, key, reads)

    def _add_activation(self, layer: Layer, activation: Activation, step: int) -> int:
        kind = activation.kind
        slope = _rounded(activation.slope) if kind == "leaky_relu" else 0.0
        if kind == "leaky_relu" and slope == 0:
            kind = "relu"
        arrays = [activation.slopes] if kind == "prelu" else []
        return self._add(layer, (kind, slope, self.steps[step].number), [step], arrays)

    def _add(
        self,
        layer: Layer | Foreign,
        key: Hashable,
        reads: Sequence[int],
        arrays: Sequence[str] = (),
        *,
        is_last: bool = True,
    ) -> int:
        number = self._numbers.setdefault(key, len(self._numbers))
        self.steps.append(
            LayerPart(layer=layer, is_last=is_last, number=number, reads=tuple(reads), arrays=tuple(arrays))
        )
        return len(self.steps) - 1


def _key(layer: Layer | Foreign) -> Hashable:
    """Return the numbers that tell a layer from others of its kind, but neither its sources nor its activation."""
    match layer:
        case Convolution():
            channels = layer.in_channels, layer.out_channels
            return "convolution", *channels, layer.kernel, layer.groups, layer.has_bias
        case Concatenation() | Product():
            return type(layer).__name__
        case PixelShuffle() | PixelUnshuffle() | NearestEnlargement():
            return type(layer).__name__, layer.factor
        case ChannelSlice():
            return "slice", layer.first_channel, layer.channels
    return "foreign", layer.name


def _rounded(value: float) -> float:
    """Round a number to the six digits that text files keep."""
    return float(f"{value:.6g}")

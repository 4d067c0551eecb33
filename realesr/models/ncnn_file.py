"""Reads ncnn's pair of files, a graph in text (.param) and its numbers (.bin), back into a state dict.

The graph becomes layers, its numbers the arrays of these; then the network is the one whose layers compute the same:
names and forms differ from converter to converter. A graph that computes anything else is refused.
Layout: Tencent/ncnn src/modelbin.cpp and its format documents.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from realesr.errors import ModelError
from realesr.models.architecture import Architecture, Shapes
from realesr.models.comparison import Comparison, Foreign, LayerPart, compare
from realesr.models.layers import (
    IMAGE,
    Activated,
    ChannelSlice,
    Concatenation,
    Convolution,
    Layer,
    PixelShuffle,
    PixelUnshuffle,
)
from realesr.models.ncnn_layers import constant_operation, layer_from_line, slice_layers
from realesr.models.ncnn_operations import operations
from realesr.models.ncnn_param import Line, parse_param, shortest
from realesr.models.recognition import candidates

Arrays = dict[str, NDArray[np.float32]]

_TAG_FLOAT16 = 0x01306B47
_TAGS_FLOAT32 = (0x00000000, 0x0002C056)

_MAX_CHANNELWISE = 1 << 20
"""Numbers of all channelwise arithmetic together. Assumption: a network has one or two of three channels; a line of a
hostile file can make as many anew as the .bin has bytes."""

_MAX_CHANNELS = 1 << 40
"""Limit of counted channels: no file holds weights for more, and a hostile one could let the number grow."""


def read_ncnn(param: str, data: bytes) -> tuple[Architecture, Arrays]:
    """Read a network from the text of a .param file and the bytes of the .bin file beside it.

    Returns:
        The architecture and its state dict: its keys, torch's element order (the same as ncnn's), float32.

    Raises:
        ModelError: The graph is that of no network of ours, numbers are in a format other than float16 and float32,
            or bytes are missing.
    """
    lines = parse_param(param)
    graph = _read_graph(lines, data)
    architecture, keys = _network(graph, lines)
    if graph.fault is not None:
        raise graph.fault
    state = {}
    for key, shape in architecture.shapes.items():
        state[key] = graph.arrays[keys[key]]
        if state[key].shape != shape:
            raise ModelError(f"the ncnn graph has an array {state[key].shape}, expected {shape} for {key}")
    return architecture, state


@dataclass
class _Channelwise:
    """factors * x + offsets along the channels of x: a depthwise 1x1 convolution."""

    source: str
    factors: NDArray[np.float64]
    """(channels,), like the offsets."""
    offsets: NDArray[np.float64]


@dataclass
class _Graph:
    """The layers and arrays of a pair of files, filled line by line."""

    data: bytes
    layers: list[Layer | Foreign] = field(default_factory=list)
    """Named after their line in the file: the number of the line, or that and a part."""
    arrays: Arrays = field(default_factory=dict)
    """Key that a layer has for an array -> the array."""
    results: dict[str, str] = field(default_factory=dict)
    """Blob -> name of the result that it holds."""
    constants: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    """Blob -> its numbers along the channels."""
    channelwise: dict[str, _Channelwise] = field(default_factory=dict)
    """Results of channelwise arithmetic; each becomes a layer once a layer of another kind reads it."""
    channelwise_numbers: int = 0
    """Numbers of all channelwise arithmetic so far."""
    channels: dict[str, int] = field(default_factory=lambda: {IMAGE: 3})
    """Name of a result -> its channels; 0 where they are not known."""
    offset: int = 0
    """Bytes of `data` read so far."""
    fault: ModelError | None = None
    """Error in the bytes. The bytes of a foreign graph are bound to be misread, so errors of the graph come first."""

    def take_tagged(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Read the next array, in the number format that the tag before it states."""
        if self.offset + 4 > len(self.data):
            raise ModelError(f"an ncnn .bin ends after {len(self.data)} bytes, expected more: fetch it again")
        (tag,) = struct.unpack_from("<I", self.data, self.offset)
        self.offset += 4
        if tag == _TAG_FLOAT16:
            array = self.take(shape, "<f2")
            self.offset += 2 * (array.size % 2)
            return array
        if tag in _TAGS_FLOAT32:
            return self.take(shape)
        raise ModelError(
            f"an ncnn .bin has weights in format {tag:#010x}: expected float16 or float32, not quantised ones"
        )

    def take(self, shape: tuple[int, ...], dtype: str = "<f4") -> NDArray[np.float32]:
        """Read the next array, which has no tag."""
        count = int(np.prod(shape, dtype=object))
        end = self.offset + count * np.dtype(dtype).itemsize
        if count < 0 or end > len(self.data):
            raise ModelError(f"an ncnn .bin ends after {len(self.data)} bytes, expected at least {end}: fetch it again")
        array = np.frombuffer(self.data, dtype, count, self.offset).reshape(shape).astype(np.float32)
        self.offset = end
        return array

    def source(self, blob: str) -> str:
        """Return the name of the result that a blob holds, adding channelwise arithmetic as a layer."""
        if blob not in self.results:
            what = "a constant" if blob in self.constants else "not made before"
            raise ModelError(f"the ncnn graph has a layer that reads {blob[:60]!r}, which is {what}: is it complete?")
        name = self.results[blob]
        if name in self.channelwise:
            self._add_channelwise(name, self.channelwise.pop(name))
        return name

    def _add_channelwise(self, name: str, found: _Channelwise) -> None:
        count = len(found.factors)
        self.add(
            Convolution(name=name, source=found.source, in_channels=count, out_channels=count, kernel=1, groups=count)
        )
        with np.errstate(over="ignore"):
            self.arrays[f"{name}.weight"] = found.factors.astype(np.float32).reshape(-1, 1, 1, 1)
            self.arrays[f"{name}.bias"] = found.offsets.astype(np.float32)

    def add(self, layer: Layer | Foreign) -> None:
        """Add a layer whose sources have been added."""
        self.layers.append(layer)
        self.channels[layer.name] = min(_MAX_CHANNELS, self._channels(layer))

    def _channels(self, layer: Layer | Foreign) -> int:
        read = [self.channels[source] for source in layer.sources]
        match layer:
            case Convolution():
                return layer.out_channels
            case Concatenation():
                return sum(read) if all(read) else 0
            case PixelShuffle():
                return read[0] // layer.factor**2
            case PixelUnshuffle():
                return read[0] * layer.factor**2
            case ChannelSlice():
                return layer.channels
            case Foreign():
                return 0
        return read[0]


def _read_graph(lines: Sequence[Line], data: bytes) -> _Graph:
    """Read the layers of a .param file and their arrays; `fault` is set where the bytes do not match the layers."""
    graph = _Graph(data)
    number = 0
    for line in lines:
        for blob in line.outputs:
            if blob in graph.results or blob in graph.constants or line.outputs.count(blob) > 1:
                raise ModelError(f"the ncnn graph has two results called {blob[:60]!r}, expected different names")
        _read_line(graph, line, str(number))
        number += line.kind not in _UNCOUNTED
    for blob in lines[-1].outputs if lines else ():
        graph.source(blob)
    if graph.fault is None and graph.offset != len(data):
        graph.fault = ModelError(
            f"an ncnn .bin has {len(data)} bytes, expected {graph.offset} by its .param: not a pair?"
        )
    return graph


_UNCOUNTED = ("Input", "Split")
"""Kinds that compute nothing: error messages number the others."""


def _read_line(graph: _Graph, line: Line, name: str) -> None:
    """Add a line to the graph: in most cases as a layer of this name."""
    match line.kind:
        case "Input":
            if line.inputs or len(line.outputs) != 1 or graph.results:
                line.fail("one image, before all else")
            graph.results[line.outputs[0]] = IMAGE
        case "Split":
            _read_split(graph, line)
        case "MemoryData":
            _read_constants(graph, line)
        case "Slice":
            source = graph.source(line.inputs[0]) if len(line.inputs) == 1 else line.fail("one source")
            parts = slice_layers(line, name, source, graph.channels[source])
            for blob, part in zip(line.outputs, parts, strict=True):
                graph.add(part)
                graph.results[blob] = part.name
        case "BinaryOp" if channelwise := _channelwise(graph, line):
            graph.channelwise[name] = channelwise
            graph.results |= dict.fromkeys(line.outputs, name)
        case _:
            _read_layer(graph, line, name)


def _read_layer(graph: _Graph, line: Line, name: str) -> None:
    sources = [graph.source(blob) for blob in line.inputs]
    layer = layer_from_line(line, name, sources, [graph.channels[source] for source in sources])
    graph.add(layer)
    graph.results[line.outputs[0]] = name
    if isinstance(layer, Convolution):
        _read_arrays(graph, layer.arrays)
    elif isinstance(layer, Activated) and layer.activation.kind == "prelu":
        _read_arrays(graph, {layer.activation.slopes: (line.integer("0"),)})


def _read_arrays(graph: _Graph, shapes: Shapes) -> None:
    """Read the arrays of one layer, unless earlier bytes were at fault."""
    try:
        for key, shape in shapes.items() if graph.fault is None else ():
            graph.arrays[key] = graph.take_tagged(shape) if len(shape) == 4 else graph.take(shape)
    except ModelError as error:
        graph.fault = error


def _read_split(graph: _Graph, line: Line) -> None:
    """Add the outputs of a Split, which are further names of one blob."""
    (blob,) = line.inputs if len(line.inputs) == 1 else line.fail("one source")
    if blob in graph.constants:
        graph.constants |= dict.fromkeys(line.outputs, graph.constants[blob])
    elif graph.results.get(blob) in graph.channelwise:
        graph.results |= dict.fromkeys(line.outputs, graph.results[blob])
    else:
        graph.results |= dict.fromkeys(line.outputs, graph.source(blob))


def _read_constants(graph: _Graph, line: Line) -> None:
    """Read the numbers of a MemoryData: one per channel, or one for all channels."""
    width, height, depth, channels = (line.integer(key, 0) for key in ("0", "1", "11", "2"))
    if line.inputs or len(line.outputs) != 1 or not (width == 1 and height in (0, 1) and depth in (0, 1)):
        line.fail("one number for each channel")
    if graph.fault is not None:
        raise graph.fault
    shape = (max(channels, 1),)
    raw = line.integer("21", 1) == 1
    graph.constants[line.outputs[0]] = graph.take(shape) if raw else graph.take_tagged(shape)


@np.errstate(over="ignore", invalid="ignore")
def _channelwise(graph: _Graph, line: Line) -> _Channelwise | None:
    """Return a BinaryOp of a result and constants per channel, or of such a one and a scalar; None for any other."""
    variable = [blob for blob in line.inputs if blob not in graph.constants]
    if len(variable) != 1 or len(line.outputs) != 1 or len(line.inputs) > 2:
        return None
    graph.channelwise_numbers += _channelwise_numbers(graph, line)
    if graph.channelwise_numbers > _MAX_CHANNELWISE:
        line.fail(f"at most {_MAX_CHANNELWISE:,} numbers of arithmetic along channels")
    before = graph.channelwise.get(graph.results.get(variable[0], ""))
    if len(line.inputs) == 2:
        constants = next(graph.constants[blob] for blob in line.inputs if blob in graph.constants)
        affine = constant_operation(line, constants, is_first=line.inputs[0] != variable[0])
    elif before is not None:
        affine = constant_operation(line)
    else:
        return None
    if affine is None:
        line.fail("constants that are added, subtracted, or that multiply")
    factors, offsets = affine
    if before is None:
        source = graph.source(variable[0])
        if len(factors) != graph.channels[source]:
            line.fail(f"one constant for each of {graph.channels[source]} channels")
        return _Channelwise(source, factors, offsets)
    if len(factors) not in (1, len(before.factors)):
        line.fail(f"one constant for each of {len(before.factors)} channels")
    return _Channelwise(before.source, factors * before.factors, factors * before.offsets + offsets)


def _channelwise_numbers(graph: _Graph, line: Line) -> int:
    """Return how many factors a BinaryOp makes: those of its constants, or of the arithmetic that it goes on."""
    before = (graph.channelwise.get(graph.results.get(blob, "")) for blob in line.inputs)
    sizes = [len(found.factors) for found in before if found is not None]
    return max([*sizes, *(graph.constants[blob].size for blob in line.inputs if blob in graph.constants)], default=0)


def _network(graph: _Graph, lines: Sequence[Line]) -> tuple[Architecture, dict[str, str]]:
    """Return the architecture that computes the same, and the key of each of its arrays -> the key in the graph."""
    convolutions = [layer for layer in graph.layers if isinstance(layer, Convolution)]
    others: list[tuple[Architecture, Comparison]] = []
    for candidate in candidates([layer.arrays[f"{layer.name}.weight"] for layer in convolutions]):
        comparison = compare(graph.layers, candidate.layers)
        if comparison.keys and comparison.keys.keys() >= candidate.shapes.keys():
            return candidate, comparison.keys
        others.append((candidate, comparison))
    if not others:
        count = len(convolutions)
        raise ModelError(f"the ncnn graph has {count} convolutions: expected those of a network that realesr knows")
    nearest, comparison = min(others, key=lambda pair: (len(pair[1].extra), len(pair[1].missing)))
    raise ModelError(_difference(nearest, comparison, [line for line in lines if line.kind not in _UNCOUNTED]))


def _difference(expected: Architecture, comparison: Comparison, lines: Sequence[Line]) -> str:
    """Describe how a graph differs from the expected one; `lines` are those that error messages number."""
    if not comparison.extra and not comparison.missing:
        return f"the ncnn graph has the layers of a {expected.title}, but joins them otherwise"
    if not comparison.extra:
        return f"the ncnn graph ends before {_shown(comparison.missing[0], expected)}: is the .param complete?"
    number = int(comparison.extra[0].layer.name.partition(".")[0])
    if not comparison.missing:
        return (
            f"the ncnn graph goes on with {lines[number].text[:200]} where the network ends: take the file of the "
            f"network itself (the one for scale {expected.scale}), and resize what it gives"
        )
    wanted = _shown(comparison.missing[0], expected)
    got = lines[number].text[:200]
    more = f" that reads other results, those of {expected.title}" if got == wanted else ""
    return f"layer {number} of the ncnn graph is {got}, expected {wanted}{more}"


def _shown(step: LayerPart, architecture: Architecture) -> str:
    """Return a step of a network as a line of ncnn's."""
    assert not isinstance(step.layer, Foreign), step
    operation = operations(step.layer, architecture.shapes)[-1 if step.is_last else 0]
    words = (word.partition("=") for word in operation.keys.split())
    return " ".join([operation.kind, *(f"{key}={shortest(value)}" for key, _, value in words)])

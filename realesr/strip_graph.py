"""The second form of a network's ONNX graph, for strips of rows with carried state, rewritten from the first form.

A strip holds the image's next rows, as many as one likes. Every 3x3 convolution gets its strip below the rows that it
still needs of the one before, pads only left and right, and gives those rows on for the next. So after a convolution a
strip begins and ends one row higher in the image: it lags. Where values of unequal lag meet in a sum or concatenation,
the earlier ones wait. Above the first strip every convolution gets one row of zeros, and below the last another one,
just as the first form's zero padding: each row of each layer is computed once, from the same neighbours.

    first strip                    next strip                     last strip
    0 0 0 0 0 0 0 0  state         r r r r r r r r  state         r r r r r r r r  state
    r r r r r r r r  rows          r r r r r r r r  (2 rows)      r r r r r r r r
    r r r r r r r r                R R R R R R R R  rows          R R R R R R R R  rows
    r r r r r r r r                R R R R R R R R                0 0 0 0 0 0 0 0  border

The heights of a strip, of states and of borders are open, so one graph serves all three. The first strip must be higher
than the network's receptive radius: a convolution cannot run on less than three rows.

With the last strip come all rows that the network lags, 347 in x4plus. So an RRDBNet is cut into two graphs, before
its doublings: what comes behind needs sixteen times the memory a row, and gets the rows in portions.
"""

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from realesr.architectures import Compact
from realesr.engine import Precision
from realesr.onnx_graph import onnx_bytes
from realesr.weights import Weights

_END = 2**62
"""Past the end of any axis."""

_CHANNELS, _ROWS = 1, 2
"""Axes."""


@dataclass(frozen=True, kw_only=True)
class StripInput:
    """A state or a border of the strip graph: (1, channels, rows, width_px * width_scale) of zeros in the beginning."""

    name: str
    channels: int
    width_scale: Fraction
    """Columns for each column of the image."""
    rows: int
    """Of a state: before the first strip. Of a border: 0, and 1 with the last strip."""
    dtype: Literal["float32", "float16"]

    def zeros(self, width_px: int, *, more_rows: int = 0) -> np.ndarray[Any, np.dtype[Any]]:
        """What to give for it in the beginning, for an image of this width."""
        return np.zeros((1, self.channels, self.rows + more_rows, int(width_px * self.width_scale)), self.dtype)


@dataclass(frozen=True, kw_only=True)
class StripGraph:
    """An ONNX file's bytes. Inputs: rows, states, borders; outputs: the next rows, then `NAME.next` of each state."""

    content: bytes
    input: str
    output: str
    states: tuple[StripInput, ...]
    borders: tuple[StripInput, ...]


def strip_graphs(weights: Weights, precision: Precision = "fp32") -> tuple[StripGraph, ...]:
    """Write a network for strips; batches hold one image. What one graph gives is what the next one takes.

    Args:
        weights: what `realesr.weights.read_weights` gave.
        precision: as for `realesr.onnx_graph.onnx_bytes`. States have the type of what they hold.

    Raises:
        UsageError: as `onnx_bytes`.
    """
    model = onnx.load_model_from_string(onnx_bytes(weights, precision))
    image = _Value(name="input", channels=3, scale=Fraction(1), lag=0)
    nodes = list(model.graph.node)
    if isinstance(weights.architecture, Compact):
        return (_Rewriter(model, image).rewritten(nodes),)
    cut = next(number for number, node in enumerate(nodes, start=1) if node.output[0] == "body")
    trunk = _Rewriter(model, image)
    written = trunk.rewritten(nodes[:cut])
    features = replace(trunk.values["body"], lag=0)
    return (written, _Rewriter(model, features).rewritten(nodes[cut:]))


@dataclass(frozen=True, kw_only=True)
class _Value:
    """What is known of one array on its way through the graph."""

    name: str
    channels: int
    scale: Fraction
    """Of its rows and columns to the image's."""
    lag: int
    """Rows, of its own, by which it is behind the rows that were given."""
    dtype: Literal["float32", "float16"] = "float32"


@dataclass(frozen=True, kw_only=True)
class _Held:
    """A value delayed by some rows, found among what a convolution reads: without the first and last row."""

    rows: str
    first_channel: int


class _Rewriter:
    """Goes once through nodes of the first form, from the value that they take to the one that they give."""

    def __init__(self, model: onnx.ModelProto, source: _Value) -> None:
        self._new = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
        self._new.producer_name, self._new.producer_version = model.producer_name, model.producer_version
        self._new.graph.name = model.graph.name
        self._weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self._source = source
        self.values = {source.name: source}
        self._parts: dict[str, list[tuple[_Value, int]]] = {}  # of a concatenation: what was joined, and its delay
        self._held: dict[tuple[str, int], _Held] = {}  # by the value's name and delay
        self._delays: set[str] = set()
        self._used: set[str] = set()  # names of weights
        self._states: list[StripInput] = []
        self._borders: dict[str, StripInput] = {}

    def rewritten(self, nodes: list[onnx.NodeProto]) -> StripGraph:
        for node in nodes:
            self._add(node)
        result = self.values[nodes[-1].output[0]]
        graph = self._new.graph
        graph.initializer.extend(self._weights[name] for name in sorted(self._used))
        graph.input.append(_value_info(self._source.name, self._source))
        graph.output.append(_value_info(result.name, result))
        for item in (*self._states, *self._borders.values()):
            graph.input.append(_value_info(item.name, item))
        for item in self._states:
            graph.output.append(_value_info(f"{item.name}.next", item))
        return StripGraph(
            content=self._new.SerializeToString(deterministic=True),
            input=self._source.name,
            output=result.name,
            states=tuple(self._states),
            borders=tuple(self._borders.values()),
        )

    def _add(self, node: onnx.NodeProto) -> None:
        if node.op_type == "Conv":
            self._add_conv(node)
            return
        values = [self.values[name] for name in node.input if name in self.values]
        lag = max(value.lag for value in values)
        latest = next(value for value in values if value.lag == lag)
        ready = {value.name: self._delayed(value, lag - value.lag, latest) for value in values}
        copy = self._copied(node, [ready.get(name, name) for name in node.input])
        result = replace(latest, name=copy.output[0])
        if node.op_type == "Concat":
            self._parts[result.name] = [(value, lag - value.lag) for value in values]
            result = replace(result, channels=sum(value.channels for value in values))
        self.values[result.name] = self._resized(node, result)

    def _resized(self, node: onnx.NodeProto, value: _Value) -> _Value:
        """The value as this kind of node leaves it."""
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        if node.op_type == "Cast":
            is_half = attributes["to"] == TensorProto.FLOAT16
            return replace(value, dtype="float16" if is_half else "float32")
        if node.op_type == "Resize":
            return _enlarged(value, int(numpy_helper.to_array(self._weights[node.input[2]])[_ROWS]), 1)
        if node.op_type == "DepthToSpace":
            return _enlarged(value, attributes["blocksize"], attributes["blocksize"] ** 2)
        if node.op_type == "SpaceToDepth":
            factor = attributes["blocksize"]
            assert value.lag == 0, "rows that were given are whole blocks; rows that lag need not be"
            return replace(value, channels=value.channels * factor**2, scale=value.scale / factor)
        return value

    def _add_conv(self, node: onnx.NodeProto) -> None:
        """One row later in: the state's two rows, or the zeros above the image; the zeros below it with the last."""
        value = self.values[node.input[0]]
        state = self._state(f"{node.output[0]}.state", value, rows=1)
        rows = self._node("Concat", [state, value.name, self._border(value)], f"{node.output[0]}.rows", axis=_ROWS)
        self._slice(rows, f"{state}.next", {_ROWS: (-2, _END)})
        self._hold(value, rows)
        copy = self._copied(node, [rows, *node.input[1:]])
        pads = next(item for item in copy.attribute if item.name == "pads")
        pads.ints[:] = [0, 1, 0, 1]
        channels = self._weights[node.input[1]].dims[0]
        self.values[copy.output[0]] = replace(value, name=copy.output[0], channels=channels, lag=value.lag + 1)

    def _hold(self, value: _Value, rows: str) -> None:
        """Remember that `rows` without its first and last one is the value one row later, and so are its parts."""
        self._held[value.name, 1] = _Held(rows=rows, first_channel=0)
        first_channel = 0
        for part, delay in self._parts.get(value.name, []):
            self._held[part.name, delay + 1] = _Held(rows=rows, first_channel=first_channel)
            first_channel += part.channels

    def _delayed(self, value: _Value, delay: int, latest: _Value) -> str:
        """The rows of `value` that belong to those of `latest`, which lags `delay` rows more."""
        if delay == 0:
            return value.name
        output = f"{value.name}.after{delay}"
        if output in self._delays:
            return output
        self._delays.add(output)
        held = self._held.get((value.name, delay))
        if held is not None:
            channels = (held.first_channel, held.first_channel + value.channels)
            return self._slice(held.rows, output, {_CHANNELS: channels, _ROWS: (1, -1)})
        state = self._state(f"{output}.state", value, rows=0)
        rows = self._node("Concat", [state, value.name], f"{output}.rows", axis=_ROWS)
        count = self._node("Shape", [latest.name], f"{output}.count", start=_ROWS, end=_ROWS + 1)
        last, axis = self._integers((_END,)), self._integers((_ROWS,))
        self._node("Slice", [rows, count, last, axis], f"{state}.next")
        return self._node("Slice", [rows, self._integers((0,)), count, axis], output)

    def _state(self, name: str, value: _Value, *, rows: int) -> str:
        self._states.append(
            StripInput(name=name, channels=value.channels, width_scale=value.scale, rows=rows, dtype=value.dtype)
        )
        return name

    def _border(self, value: _Value) -> str:
        """The input that is a row of zeros with the last strip, and no row before; one for all of this shape."""
        name = f"border.{value.channels}.{value.scale}.{value.dtype}"
        self._borders[name] = StripInput(
            name=name, channels=value.channels, width_scale=value.scale, rows=0, dtype=value.dtype
        )
        return name

    def _slice(self, x: str, output: str, spans: dict[int, tuple[int, int]]) -> str:
        firsts, lasts = zip(*spans.values(), strict=True)
        return self._node("Slice", [x, *map(self._integers, (firsts, lasts, tuple(spans)))], output)

    def _integers(self, numbers: tuple[int, ...]) -> str:
        name = f"integers.{'.'.join(map(str, numbers))}"
        self._weights[name] = numpy_helper.from_array(np.array(numbers, np.int64), name)
        return name

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self._new.graph.node.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        self._used.update(name for name in inputs if name in self._weights)
        return output

    def _copied(self, node: onnx.NodeProto, inputs: list[str]) -> onnx.NodeProto:
        copy: onnx.NodeProto = self._new.graph.node.add()
        copy.CopyFrom(node)
        copy.input[:] = inputs
        self._used.update(name for name in inputs if name in self._weights)
        return copy


def _enlarged(value: _Value, factor: int, fewer_channels: int) -> _Value:
    channels = value.channels // fewer_channels
    return replace(value, channels=channels, scale=value.scale * factor, lag=value.lag * factor)


def _value_info(name: str, item: StripInput | _Value) -> onnx.ValueInfoProto:
    number = TensorProto.FLOAT16 if item.dtype == "float16" else TensorProto.FLOAT
    return helper.make_tensor_value_info(name, number, [1, item.channels, f"{name}.h", f"{name}.w"])

"""Writes a network as stateful (streaming) ONNX graphs: rows that convolutions need of the last strip are states.

A strip holds the image's next rows, as many as one likes. Every convolution gets its strip below the rows that it
still needs of the one before, pads only left and right, and gives those rows on for the next. So after a 3x3
convolution a strip begins and ends one row higher in the image: it lags. Where values of unequal lag meet in a sum or
concatenation, the earlier ones wait. Above the first strip every convolution gets rows of zeros, and below the last
others, just as `realesr.models.onnx_graph` pads: each row of each layer is computed once, from the same neighbours.

    first strip                    next strip                     last strip
    0 0 0 0 0 0 0 0  state         r r r r r r r r  state         r r r r r r r r  state
    r r r r r r r r  rows          r r r r r r r r  (2 rows)      r r r r r r r r
    r r r r r r r r                R R R R R R R R  rows          R R R R R R R R  rows
    r r r r r r r r                R R R R R R R R                0 0 0 0 0 0 0 0  border

The heights of a strip, of states and of borders are open, so one graph serves all three. The first strip must be higher
than the network's receptive radius: a convolution cannot run on fewer rows than its kernel has.

How far each layer lags, and what waits for it, is in `realesr.models.strip_plan`, and so is the cut into several
graphs: what comes behind an enlargement needs many times the memory a row, and gets the rows in portions.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import onnx
from onnx import helper

import realesr
from realesr.models.graph_options import DEFAULT_OPSET, GraphOptions, GraphPrecision
from realesr.models.layers import IMAGE, Convolution, Layer
from realesr.models.onnx_layers import CHANNELS, ROWS, LayerWriter
from realesr.models.onnx_nodes import FLOAT32, TO_END
from realesr.models.strip_plan import Delay, Stage, stages, strip_plan
from realesr.models.weights import Weights


@dataclass(frozen=True, kw_only=True)
class StatefulInput:
    """A state or a border: (1, channels, rows, width_px * width_scale) of zeros in the beginning."""

    name: str
    channels: int
    width_scale: Fraction
    """Columns for each column of the image."""
    rows: int
    """Rows of a state before the first strip; 0 for a border, which has one row with the last strip."""
    dtype: Literal["float32", "float16"]

    def zeros(self, width_px: int, *, more_rows: int = 0) -> np.ndarray[Any, np.dtype[Any]]:
        """Return its initial value for an image of this width."""
        return np.zeros((1, self.channels, self.rows + more_rows, int(width_px * self.width_scale)), self.dtype)


@dataclass(frozen=True, kw_only=True)
class StatefulGraph:
    """An ONNX file's bytes. Inputs: rows, states, borders; outputs: the next rows, then `NAME.next` of each state."""

    content: bytes
    input: str
    output: str
    states: tuple[StatefulInput, ...]
    borders: tuple[StatefulInput, ...]


def stateful_graphs(weights: Weights, precision: str = "fp32") -> tuple[StatefulGraph, ...]:
    """Write a network as stateful graphs for strips, each of which reads the rows that the one before produces.

    Batches hold one image.

    Args:
        weights: what `realesr.models.weights.read_weights` gave.
        precision: as for `realesr.models.onnx_graph.onnx_bytes`. States have the type of what they hold.

    Raises:
        UsageError: As `onnx_bytes`.
        ValueError: As `realesr.models.strip_plan.strip_plan`.
    """
    options = GraphOptions(precision=precision)  # type: ignore[arg-type]  # it is checked there
    graphs = []
    rows, dtype = IMAGE, FLOAT32
    for stage in stages(weights.architecture):
        writer = _StageWriter(weights, options.precision, stage)
        graphs.append(writer.written(rows, dtype))
        rows = graphs[-1].output
        dtype = writer.dtypes[rows]
    return tuple(graphs)


class _StageWriter(LayerWriter):
    """Writes the layers of one stage; its convolutions have states."""

    def __init__(self, weights: Weights, precision: GraphPrecision, stage: Stage) -> None:
        super().__init__(_empty_model(weights.name), weights, precision)
        self._stage = stage
        self._plan = strip_plan(stage)
        self._kept: dict[str, str] = {}  # name of a convolution -> what it reads: the rows of its state, then new ones
        self._late: dict[tuple[str, int], str] = {}  # name of a result and by how many rows it is late -> value
        self._states: list[StatefulInput] = []
        self._borders: dict[str, StatefulInput] = {}

    def written(self, rows: str, dtype: np.dtype[Any]) -> StatefulGraph:
        """Return the graph that takes the stage's source by the name `rows`, of this type."""
        self.values[self._stage.source], self.dtypes[rows] = rows, dtype
        for layer in self._stage.layers:
            self.add(layer)
        output = self.values[self._stage.result]
        if self._stage.result == self.architecture.layers[-1].name:
            output = self.finish(output, "output")
        self._declare(rows, output)
        return StatefulGraph(
            content=self.model.SerializeToString(deterministic=True),
            input=rows,
            output=output,
            states=tuple(self._states),
            borders=tuple(self._borders.values()),
        )

    def read(self, layer: Layer) -> list[str]:
        """Return the values of a layer's sources, rows of the same place in all of them."""
        return [self._delayed(delay) for delay in self._plan.reads[layer.name]]

    def padded(self, layer: Convolution, x: str) -> tuple[str, list[int]]:
        """Return new rows below those of the state, above the border; zeros are left and right alone.

        They have the type of `x`, so that others find it among them as it was.
        """
        edge = layer.kernel // 2
        if not edge:
            return x, [0] * 4
        state = self._state(f"{layer.name}.out.state", layer.source, rows=edge)
        parts = [state, x, *[self._border(layer.source)] * edge]
        rows = self.node("Concat", parts, f"{layer.name}.out.rows", axis=ROWS)
        self._kept[layer.name] = rows
        self.slice(rows, f"{state}.next", {ROWS: (-2 * edge, TO_END)})
        return rows, [0, edge, 0, edge]

    def _delayed(self, delay: Delay) -> str:
        """Return the value of a result, late by some rows."""
        if not delay.rows:
            return self.values[delay.source]
        key = delay.source, delay.rows
        if key not in self._late:
            self._late[key] = self._held(delay) if delay.held_by else self._waiting(delay)
        return self._late[key]

    def _held(self, delay: Delay) -> str:
        """Append the slice of what a convolution reads that is the result, one row later than the convolution's."""
        value = self.values[delay.source]
        channels = self.architecture.map_shapes[delay.source].channels
        spans = {CHANNELS: (delay.first_channel, delay.first_channel + channels), ROWS: (1, -1)}
        late = self.slice(self._kept[delay.held_by], f"{value}.after{delay.rows}", spans)
        return self.cast(late, self.dtypes[value])  # a concatenation may have made it wider

    def _waiting(self, delay: Delay) -> str:
        """Append a state of the last rows, which wait; with the image's last strip none do."""
        value = self.values[delay.source]
        late = f"{value}.after{delay.rows}"
        state = self._state(f"{late}.state", delay.source, rows=0)
        rows = self.node("Concat", [state, value], f"{late}.rows", axis=ROWS)
        self.slice(rows, f"{state}.next", {ROWS: (-delay.rows, TO_END)})
        inputs = [rows, self.integers(0), self._end_of_ready(delay.rows), self.integers(ROWS)]
        return self.node("Slice", inputs, late)

    def _end_of_ready(self, waiting_rows: int) -> str:
        """Return the end of a slice without the last rows; with the image's last strip, which has borders, past all."""
        output = f"ready.{waiting_rows}"
        if output not in self.dtypes:
            border = next(iter(self._borders))  # whatever lags does so behind a convolution that has one
            if "last" not in self.dtypes:
                self.node("Shape", [border], "last", start=ROWS, end=ROWS + 1)
                self.dtypes["last"] = np.dtype(np.int64)
                self.node("Mul", ["last", self.integers(TO_END)], "last.end")
            self.node("Add", ["last.end", self.integers(-waiting_rows)], output)
        return output

    def _state(self, name: str, source: str, *, rows: int) -> str:
        self._states.append(self._input(name, source, rows=rows))
        return name

    def _border(self, source: str) -> str:
        """Return the input that is a row of zeros with the last strip, and no row before; one for each shape."""
        shape, dtype = self.architecture.map_shapes[source], self.dtypes[self.values[source]]
        name = f"border.{shape.channels}.{shape.grid}.{dtype.name}"
        if name not in self._borders:
            self._borders[name] = self._input(name, source, rows=0)
        return name

    def _input(self, name: str, source: str, *, rows: int) -> StatefulInput:
        """Return an input of the graph for rows of a result."""
        shape, dtype = self.architecture.map_shapes[source], self.dtypes[self.values[source]]
        self.dtypes[name] = dtype
        return StatefulInput(
            name=name,
            channels=shape.channels,
            width_scale=shape.grid,
            rows=rows,
            dtype="float16" if dtype == np.float16 else "float32",
        )

    def _declare(self, rows: str, output: str) -> None:
        """Enter the graph's inputs and outputs, in the order that `StatefulGraph` tells."""
        graph, shapes = self.model.graph, self.architecture.map_shapes
        graph.input.append(self._value_info(rows, shapes[self._stage.source].channels))
        graph.output.append(self._value_info(output, shapes[self._stage.result].channels))
        for item in (*self._states, *self._borders.values()):
            graph.input.append(self._value_info(item.name, item.channels))
        for item in self._states:
            graph.output.append(self._value_info(f"{item.name}.next", item.channels))

    def _value_info(self, name: str, channels: int) -> onnx.ValueInfoProto:
        number = helper.np_dtype_to_tensor_dtype(self.dtypes[name])
        return helper.make_tensor_value_info(name, number, [1, channels, f"{name}.h", f"{name}.w"])


def _empty_model(name: str) -> onnx.ModelProto:
    opset = helper.make_opsetid("", DEFAULT_OPSET)
    return helper.make_model(
        helper.make_graph([], name, [], []),
        opset_imports=[opset],
        ir_version=helper.find_min_ir_version_for([opset]),
        producer_name="realesr",
        producer_version=realesr.__version__,
    )

"""Nodes of an ONNX graph under construction, one method for each, and the type of every value.

In an fp16 body no operator mixes types: a sum, a product or a concatenation takes the widest one of its inputs, a
convolution that of its weights, everything else that of its input. So what comes from the image alone stays float32.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from realesr.models.graph_options import GraphPrecision

FLOAT32 = np.dtype(np.float32)

TO_END = 2**62
"""Past the end of any axis."""

Floats = NDArray[np.floating]
Span = tuple[int, int]
"""First index and end (exclusive); negative ones count from the end."""


class NodeWriter:
    """Appends nodes to a model's graph. Each is named after its output, whose name the methods return.

    Args:
        model: what to append to.
        precision: of values that nothing keeps wider.
    """

    def __init__(self, model: onnx.ModelProto, precision: GraphPrecision) -> None:
        self.model = model
        self.dtype: np.dtype[Any] = np.dtype(np.float16 if precision == "fp16" else np.float32)
        self.dtypes: dict[str, np.dtype[Any]] = {}
        """Name of a value -> its type; inputs of the graph are entered from outside."""
        self._constants: set[str] = set()

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Append a node whose result has the type of its first input."""
        self.model.graph.node.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        self.dtypes[output] = self.dtypes[inputs[0]]
        return output

    def joined(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Append a node whose inputs are cast to the widest of their types first."""
        return self.node(kind, self.of_one_type(inputs), output, **attributes)

    def of_one_type(self, values: list[str]) -> list[str]:
        """Return the values, all cast to the widest of their types."""
        widest = max((self.dtypes[x] for x in values), key=lambda dtype: dtype.itemsize)
        return [self.cast(x, widest) for x in values]

    def cast(self, x: str, dtype: np.dtype[Any], output: str = "") -> str:
        """Cast `x` to a type: `x` itself where it has that type, and one shared Cast for all readers otherwise."""
        output = output or f"{x}.{dtype.name}"
        if self.dtypes[x] == dtype or output in self.dtypes:
            return x if self.dtypes[x] == dtype else output
        self.node("Cast", [x], output, to=helper.np_dtype_to_tensor_dtype(dtype))
        self.dtypes[output] = dtype
        return output

    def constant(self, name: str, array: NDArray[Any]) -> str:
        """Write an array into the graph, unless it is there already, and return its name."""
        if name not in self._constants:
            self.model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
            self._constants.add(name)
        return name

    def number(self, name: str, value: float, x: str) -> str:
        """Write a scalar in the type of `x` and return its name, which states a type other than the body's."""
        dtype = self.dtypes[x]
        return self.constant(name if dtype == self.dtype else f"{name}.{dtype.name}", np.array(value, dtype))

    def integers(self, *numbers: int) -> str:
        """Write a one-dimensional array of int64, as slices need it, and return its name."""
        return self.constant(f"integers.{'.'.join(map(str, numbers))}", np.array(numbers, np.int64))

    def slice(self, x: str, output: str, spans: Mapping[int, Span]) -> str:
        """Append a slice; `spans` are those of the axes that are cut."""
        firsts, ends = zip(*spans.values(), strict=True)
        return self.node("Slice", [x, *(self.integers(*each) for each in (firsts, ends, tuple(spans)))], output)

    def finish(self, x: str, output: str) -> str:
        """Make `x`, the result of the last node, the graph's float32 output of that name."""
        x = self.cast(x, FLOAT32, output)
        if x != output:
            last = self.model.graph.node[-1]
            assert last.output[0] == x, f"{x} is not what the last node gives"
            last.output[0] = last.name = output
            self.dtypes[output] = FLOAT32
        return output


def rounded(array: Floats, dtype: np.dtype[Any]) -> Floats:
    """Return weights in a graph's type. What float16 cannot hold becomes infinite here, and shows in the result."""
    with np.errstate(over="ignore"):
        return array.astype(dtype)

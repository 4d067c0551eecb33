"""Lines of a .param file as layers: the kinds of ncnn's layers and their numbered parameters.

The other direction is in `ncnn_operations.py`. Source: Tencent/ncnn, docs/developer-guide/operators.md and
src/layer/*.cpp.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realesr.errors import ModelError
from realesr.models.comparison import Foreign
from realesr.models.layers import (
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
from realesr.models.ncnn_param import Line

_ADD, _SUBTRACT, _MULTIPLY, _DIVIDE, _SUBTRACT_FROM = 0, 1, 2, 3, 7
"""Parameter 0 of a BinaryOp; the last one is the second source minus the first."""

_FACTORS = range(1, 65)
"""Factors of enlargements and shuffles. Assumption: no network has larger ones."""

_REMAINING = -233
"""Size or end that stands for "as many as are left" in ncnn's files."""

_ONE_SOURCE = frozenset(
    {"Convolution", "ConvolutionDepthWise", "PReLU", "ReLU", "Swish", "SiLU", "GELU", "Sigmoid", "Mish"}
    | {"PixelShuffle", "Reorg", "Interp", "Crop"}
)
"""Kinds of layer that read one result."""


def layer_from_line(line: Line, name: str, sources: Sequence[str], channels: Sequence[int]) -> Layer | Foreign:
    """Return the layer that a line with one result stands for; a `Foreign` where no layer of ours computes it.

    Args:
        line: of any kind but Input, Split, Slice, MemoryData, and a BinaryOp with constants of channels.
        name: name of the layer.
        sources: names of the results that it reads.
        channels: channels of each source; 0 where they are not known.

    Raises:
        ModelError: The kind is not known, or the line contradicts itself.
    """
    if (len(sources) != 1 and line.kind in _ONE_SOURCE) or not sources or len(line.outputs) != 1:
        line.fail("one source and one result")
    found: Layer | None
    match line.kind:
        case "Convolution" | "ConvolutionDepthWise":
            return _convolution(line, name, sources[0])
        case "Eltwise":
            found = _eltwise(line, name, sources)
        case "BinaryOp":
            found = _binary(line, name, sources)
        case "Interp":
            found = _interp(line, name, sources[0])
        case "Crop":
            found = _crop(line, name, sources[0], channels[0])
        case "Concat" | "PixelShuffle" | "Reorg":
            found = _rearranged(line, name, sources)
        case _:
            activation = _activation(line, name)
            found = None if activation is None else Activated(name=name, source=sources[0], activation=activation)
    return found or Foreign(name=name, sources=tuple(sources))


def _rearranged(line: Line, name: str, sources: Sequence[str]) -> Layer | None:
    if line.kind == "Concat":
        return Concatenation(name=name, sources=tuple(sources)) if line.integer("0", 0) in (0, -3) else None
    factor = line.integer("0")
    if line.integer("1", 0) != 0 or factor not in _FACTORS:
        return None
    kind = PixelShuffle if line.kind == "PixelShuffle" else PixelUnshuffle
    return kind(name=name, source=sources[0], factor=factor)


def _convolution(line: Line, name: str, source: str) -> Convolution:
    """Return a convolution; raise ModelError unless kernel, stride, dilation and padding are those of `Convolution`."""
    kernel, pad, groups = line.integer("1"), line.integer("4", 0), line.integer("7", 1)
    kernels = kernel, line.integer("11", kernel)
    pads = pad, line.integer("15", pad), line.integer("14", pad), line.integer("16", line.integer("14", pad))
    plain = {"2": 1, "12": 1, "3": 1, "13": 1, "18": 0, "8": 0, "19": 0}
    out, weights, has_bias = line.integer("0"), line.integer("6"), line.integer("5", 0)
    square = max(kernel, 1) ** 2
    if (
        kernel < 1
        or kernel % 2 == 0
        or kernels != (kernel, kernel)
        or pads != (kernel // 2,) * 4
        or any(line.keys.get(key, str(value)) not in (str(value), f"{value}.0") for key, value in plain.items())
    ):
        line.fail("a square odd kernel, stride 1, no dilation, and a padding with zeros that keeps the size")
    if out < 1 or weights < 1 or groups < 1 or out % groups or weights % (square * out) or has_bias not in (0, 1):
        line.fail("as many weights as its channels, kernel and groups make")
    if groups > 1 and line.kind == "Convolution":
        line.fail("groups in ConvolutionDepthWise alone")
    return Convolution(
        name=name,
        source=source,
        in_channels=weights // (square * out) * groups,
        out_channels=out,
        kernel=kernel,
        groups=groups,
        has_bias=bool(has_bias),
        activation=_fused_activation(line),
    )


def _fused_activation(line: Line) -> Activation | None:
    match line.integer("9", 0):
        case 0:
            return None
        case 1:
            return Activation(kind="relu")
        case 2 if len(line.floats(10)) == 1:
            return Activation(kind="leaky_relu", slope=line.floats(10)[0])
        case 4:
            return Activation(kind="sigmoid")
        case 5:
            return Activation(kind="mish")
    line.fail("none of the activations but ReLU (9=1), leaky ReLU (9=2), sigmoid (9=4) and Mish (9=5)")


def _activation(line: Line, name: str) -> Activation | None:
    match line.kind:
        case "PReLU":
            return Activation(kind="prelu", slopes=f"{name}.slopes")
        case "ReLU":
            return Activation(kind="leaky_relu", slope=line.scalar("0"))
        case "Swish" | "SiLU":
            return Activation(kind="silu")
        case "GELU":
            return Activation(kind="gelu") if line.integer("0", 0) == 0 else None
        case "Sigmoid":
            return Activation(kind="sigmoid")
        case "Mish":
            return Activation(kind="mish")
    raise ModelError(f"the ncnn graph has a layer of the kind {line.kind[:60]}, which realesr does not know")


def _eltwise(line: Line, name: str, sources: Sequence[str]) -> Layer | None:
    match line.integer("0", 0):
        case 0 if len(sources) == 2:
            return Product(name=name, sources=(sources[0], sources[1]))
        case 1:
            factors = line.floats(1) or (1.0,) * len(sources)
            if len(factors) != len(sources):
                line.fail("one coefficient for each source")
            return ScaledSum(name=name, terms=tuple(zip(sources, factors, strict=True)))
    return None


def _binary(line: Line, name: str, sources: Sequence[str]) -> Layer | None:
    if line.integer("1", 0) and len(sources) == 1:
        affine = constant_operation(line)
        return affine and ScaledSum(name=name, terms=((sources[0], float(affine[0][0])),), offset=float(affine[1][0]))
    if line.integer("1", 0) or len(sources) != 2:
        line.fail("two sources, or one and a constant")
    operation = line.integer("0", 0)
    if operation == _MULTIPLY:
        return Product(name=name, sources=(sources[0], sources[1]))
    factors = {_ADD: (1.0, 1.0), _SUBTRACT: (1.0, -1.0), _SUBTRACT_FROM: (-1.0, 1.0)}.get(operation)
    return factors and ScaledSum(name=name, terms=tuple(zip(sources, factors, strict=True)))


@np.errstate(over="ignore", invalid="ignore")
def constant_operation(
    line: Line, constants: NDArray[Any] | None = None, *, is_first: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return factors and offsets of a BinaryOp with constants, or None where it is another function.

    Args:
        line: the BinaryOp.
        constants: in any shape, which the results have too; by default the line's own scalar, (1,).
        is_first: whether the constants are its first source.
    """
    operation = line.integer("0", 0)
    values = np.asarray([line.scalar("2")] if constants is None else constants, np.float64)
    if is_first:
        operation = {_SUBTRACT: _SUBTRACT_FROM, _SUBTRACT_FROM: _SUBTRACT, _DIVIDE: -1}.get(operation, operation)
    one, zero = np.ones_like(values), np.zeros_like(values)
    if operation == _DIVIDE:
        return (1 / values, zero) if values.all() else None
    table = {_ADD: (one, values), _SUBTRACT: (one, -values), _MULTIPLY: (values, zero), _SUBTRACT_FROM: (-one, values)}
    return table.get(operation)


def _interp(line: Line, name: str, source: str) -> NearestEnlargement | None:
    """Return a nearest-neighbour enlargement by one whole factor; None where it is another interpolation."""
    factor = line.scalar("1")
    is_scaled = all(line.integer(key, 0) == 0 for key in "3456")
    if line.integer("0", 0) != 1 or not is_scaled or factor != line.scalar("2") or factor not in _FACTORS:
        return None
    return NearestEnlargement(name=name, source=source, factor=int(factor))


def _crop(line: Line, name: str, source: str, channels: int) -> ChannelSlice | None:
    """Return a slice along the channels alone, from arrays of starts, ends and axes; None where it is another cut."""
    starts, ends, axes = line.floats(9), line.floats(10), line.floats(11)
    if not len(starts) == len(ends) == len(axes) == 1 or axes[0] not in (0, -3):
        return None
    end = channels if ends[0] == _REMAINING or ends[0] > channels > 0 else ends[0]
    if not 0 <= starts[0] < end < 1 << 31 or starts[0] % 1 or end % 1:
        return None
    return ChannelSlice(name=name, source=source, first_channel=int(starts[0]), channels=int(end - starts[0]))


def slice_layers(line: Line, name: str, source: str, channels: int) -> list[ChannelSlice]:
    """Return the channel slices that a Slice cuts a result into, one for each of its outputs: NAME.0, NAME.1, ...

    Raises:
        ModelError: It cuts along another axis, or the sizes do not sum to the channels.
    """
    sizes, left = [], channels
    for number, size in enumerate(in_file := line.floats(0)):
        sizes.append(left // (len(in_file) - number) if size == _REMAINING else int(size) if 0 < size < 1 << 31 else 0)
        left -= sizes[-1]
    if line.integer("1", 0) not in (0, -3) or len(sizes) != len(line.outputs) or not sizes or min(sizes) < 1 or left:
        line.fail(f"a cut of {channels} channels into as many parts as it has results")
    firsts = [0, *accumulate(sizes)]
    return [
        ChannelSlice(name=f"{name}.{part}", source=source, first_channel=firsts[part], channels=size)
        for part, size in enumerate(sizes)
    ]

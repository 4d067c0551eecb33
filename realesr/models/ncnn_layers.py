"""Every kind of layer in ncnn's words, and back: the kinds and the numbered parameters of a .param file.

Source: Tencent/ncnn, docs/developer-guide/operators.md and src/layer/*.cpp.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from realesr.errors import ModelError
from realesr.models.architecture import Shapes
from realesr.models.comparison import Foreign
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

_ADD, _SUBTRACT, _MULTIPLY, _DIVIDE, _SUBTRACT_FROM = 0, 1, 2, 3, 7
"""Parameter 0 of a BinaryOp; the last one is the second source minus the first."""

_LAYER_OF_ACTIVATION = {"silu": "Swish", "gelu": "GELU", "sigmoid": "Sigmoid", "mish": "Mish"}
_FUSED = {"sigmoid": 4, "mish": 5}
"""Parameter 9 of a convolution; 1 is ReLU, 2 leaky ReLU, whose slope is parameter 10."""

_LARGEST = 1 << 62
"""Of integer parameters."""

_FACTORS = range(1, 65)
"""Of enlargements and shuffles. Assumption: no network has larger ones."""

_END = -233
"""What ncnn writes for "as many as are left"."""


@dataclass(frozen=True)
class Operation:
    """One line of a .param file that is to be, without its sources. Blob is ncnn's word for a result."""

    kind: str
    keys: str
    blob: str
    """Name of its result."""


@dataclass(frozen=True)
class Line:
    """One line of a .param file that was read."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    keys: dict[str, str]
    """Its parameters by number; floats in their shortest form."""

    @cached_property
    def text(self) -> str:
        """Return the kind and the parameters, for people."""
        return " ".join([self.kind, *(f"{key}={value}" for key, value in self.keys.items())])

    def fail(self, expected: str) -> NoReturn:
        """Raise ModelError about this line."""
        raise ModelError(f"the ncnn graph has a layer {self.text[:200]}: expected {expected}")

    def integer(self, key: str, default: int | None = None) -> int:
        """Return a parameter.

        Raises:
            ModelError: It is missing and has no default, or is no integer of a size that can be.
        """
        if key not in self.keys and default is not None:
            return default
        try:
            value = int(self.keys[key])
        except (KeyError, ValueError):
            raise ModelError(f"the ncnn graph has a {self.kind} without a number {key}") from None
        return value if abs(value) <= _LARGEST else self.fail(f"a number {key} of at most {_LARGEST}")

    def floats(self, number: int) -> tuple[float, ...]:
        """Return an array's elements; empty where there is none. Its key is -23300 - number, its first word its length.

        Raises:
            ModelError: They are no numbers, or not as many as announced.
        """
        words = self.keys.get(str(-23300 - number), "0").split(",")
        try:
            values = tuple(float(word) for word in words[1:])
            if len(values) == int(words[0]):
                return values
        except ValueError:
            pass
        self.fail(f"as many numbers in array {number} as it announces")


def operations(layer: Layer, shapes: Shapes) -> list[Operation]:
    """Return what ncnn does for a layer: the first operation reads its sources, each later one the one before.

    Args:
        layer: of any kind.
        shapes: of the network's arrays.
    """
    match layer:
        case Convolution():
            return _convolution_operations(layer, shapes)
        case Activated():
            return [_activation_operation(layer.activation, layer.name, shapes)]
        case ScaledSum():
            return _sum_operations(layer)
    # The image has another name here.
    return [Operation(*_plain_operation(layer), blob=layer.name.removeprefix(f"{IMAGE}."))]


def _plain_operation(layer: Layer) -> tuple[str, str]:
    match layer:
        case Concatenation():
            return "Concat", ""
        case Product():
            return "BinaryOp", "0=2"
        case PixelShuffle():
            return "PixelShuffle", f"0={layer.factor}"
        case PixelUnshuffle():
            return "Reorg", f"0={layer.factor}"
        case NearestEnlargement():
            return "Interp", f"0=1 1={layer.factor:e} 2={layer.factor:e}"
        case ChannelSlice():
            end = layer.first_channel + layer.channels
            return "Crop", f"-23309=1,{layer.first_channel} -23310=1,{end} -23311=1,0"
    raise ModelError(f"{layer.name} is a {type(layer).__name__}, which is not known how to write for ncnn")


def _convolution_operations(layer: Convolution, shapes: Shapes) -> list[Operation]:
    """Return a convolution with its activation fused where ncnn can; else the activation follows."""
    shape = layer.arrays[f"{layer.name}.weight"]
    keys = f"0={shape[0]} 1={layer.kernel} 4={layer.kernel // 2} 5={layer.has_bias:d} 6={np.prod(shape)}"
    kind = "Convolution" if layer.groups == 1 else "ConvolutionDepthWise"
    if layer.groups > 1:
        keys += f" 7={layer.groups}"
    fused = _fused_keys(layer.activation)
    made = [Operation(kind, keys + fused, f"{layer.name}.out")]
    if layer.activation is not None and not fused:
        name = layer.activation.slopes.removesuffix(".weight") or f"{layer.name}.active"
        made.append(_activation_operation(layer.activation, f"{name}.out", shapes))
    return made


def _fused_keys(activation: Activation | None) -> str:
    match activation:
        case Activation(kind="relu" | "leaky_relu"):
            return f" 9=2 -23310=1,{_number(_slope(activation))}"
        case Activation(kind="sigmoid" | "mish"):
            return f" 9={_FUSED[activation.kind]}"
    return ""


def _activation_operation(activation: Activation, blob: str, shapes: Shapes) -> Operation:
    match activation.kind:
        case "relu" | "leaky_relu":
            return Operation("ReLU", f"0={_number(_slope(activation))}", blob)
        case "prelu":
            return Operation("PReLU", f"0={shapes[activation.slopes][0]}", blob)
    return Operation(_LAYER_OF_ACTIVATION[activation.kind], "", blob)


def _slope(activation: Activation) -> float:
    """Return the slope below 0: a ReLU is written as a leaky one."""
    return activation.slope if activation.kind == "leaky_relu" else 0.0


def _sum_operations(layer: ScaledSum) -> list[Operation]:
    factors = [factor for _, factor in layer.terms]
    made = []
    if factors == [1.0, 1.0]:
        made.append(Operation("BinaryOp", "", layer.name))
    elif len(factors) > 1:
        coefficients = ",".join(map(_number, factors))
        made.append(Operation("Eltwise", f"0=1 -23301={len(factors)},{coefficients}", f"{layer.name}.sum"))
    elif factors != [1.0] or not layer.offset:
        made.append(Operation("BinaryOp", f"0=2 1=1 2={_number(factors[0])}", f"{layer.name}.scaled"))
    if layer.offset:
        made.append(Operation("BinaryOp", f"0=0 1=1 2={_number(layer.offset)}", f"{layer.name}.shifted"))
    return made


def _number(value: float) -> str:
    """Return a number in ncnn's usual 7 digits, or in 9 where float32 needs them: its parser takes 15 characters."""
    text = f"{value:e}"
    return text if np.float32(text) == np.float32(value) else f"{value:.8e}"


def layer_from_line(line: Line, name: str, sources: Sequence[str], channels: Sequence[int]) -> Layer | Foreign:
    """Return the layer that a line of one result means, or a foreign one where its parameters mean something else.

    Args:
        line: of any kind but Input, Split, Slice, MemoryData, and a BinaryOp with constants of channels.
        name: of the layer.
        sources: names of the results that it reads.
        channels: of these; 0 where they are not known.

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


_ONE_SOURCE = frozenset(
    [
        "Convolution",
        "ConvolutionDepthWise",
        "PReLU",
        "ReLU",
        "Swish",
        "SiLU",
        "GELU",
        "Sigmoid",
        "Mish",
        "PixelShuffle",
        "Reorg",
        "Interp",
        "Crop",
    ]
)


def _convolution(line: Line, name: str, source: str) -> Convolution:
    """Return the convolution: of a square odd kernel, stride 1, no dilation, and a padding that keeps the size."""
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
            return Activation(kind="leaky_relu", slope=_scalar(line, "0"))
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
        constants: of any shape, that of what is returned; by default its own scalar, (1,).
        is_first: whether the constants are its first source.
    """
    operation = line.integer("0", 0)
    values = np.asarray([_scalar(line, "2")] if constants is None else constants, np.float64)
    if is_first:
        operation = {_SUBTRACT: _SUBTRACT_FROM, _SUBTRACT_FROM: _SUBTRACT, _DIVIDE: -1}.get(operation, operation)
    one, zero = np.ones_like(values), np.zeros_like(values)
    if operation == _DIVIDE:
        return (1 / values, zero) if values.all() else None
    table = {_ADD: (one, values), _SUBTRACT: (one, -values), _MULTIPLY: (values, zero), _SUBTRACT_FROM: (-one, values)}
    return table.get(operation)


def _scalar(line: Line, key: str) -> float:
    try:
        return float(line.keys.get(key, "0"))
    except ValueError:
        line.fail(f"a number {key}")


def _interp(line: Line, name: str, source: str) -> NearestEnlargement | None:
    """Return an enlargement by nearest neighbours, by one whole factor."""
    factor = _scalar(line, "1")
    is_scaled = all(line.integer(key, 0) == 0 for key in "3456")
    if line.integer("0", 0) != 1 or not is_scaled or factor != _scalar(line, "2") or factor not in _FACTORS:
        return None
    return NearestEnlargement(name=name, source=source, factor=int(factor))


def _crop(line: Line, name: str, source: str, channels: int) -> ChannelSlice | None:
    """Return a slice of channels alone, from arrays of starts, ends and axes."""
    starts, ends, axes = line.floats(9), line.floats(10), line.floats(11)
    if not len(starts) == len(ends) == len(axes) == 1 or axes[0] not in (0, -3):
        return None
    end = channels if ends[0] == _END or ends[0] > channels > 0 else ends[0]
    if not 0 <= starts[0] < end < 1 << 31 or starts[0] % 1 or end % 1:
        return None
    return ChannelSlice(name=name, source=source, first_channel=int(starts[0]), channels=int(end - starts[0]))


def slice_layers(line: Line, name: str, source: str, channels: int) -> list[ChannelSlice]:
    """Return the parts that a Slice makes of a result, one for each of its outputs: NAME.0, NAME.1, ...

    Raises:
        ModelError: It cuts something else than channels, or other than into whole parts.
    """
    sizes, left = [], channels
    for number, size in enumerate(given := line.floats(0)):
        sizes.append(left // (len(given) - number) if size == _END else int(size) if 0 < size < 1 << 31 else 0)
        left -= sizes[-1]
    if line.integer("1", 0) not in (0, -3) or len(sizes) != len(line.outputs) or not sizes or min(sizes) < 1 or left:
        line.fail(f"a cut of {channels} channels into as many parts as it has results")
    firsts = [0, *accumulate(sizes)]
    return [
        ChannelSlice(name=f"{name}.{part}", source=source, first_channel=firsts[part], channels=size)
        for part, size in enumerate(sizes)
    ]

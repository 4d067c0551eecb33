"""Every kind of layer as ncnn operations: the kinds and the numbered parameters of a .param file.

The other direction is in `ncnn_layers.py`. Source: Tencent/ncnn, docs/developer-guide/operators.md and src/layer/*.cpp.
"""

from dataclasses import dataclass

import numpy as np

from realesr.errors import ModelError
from realesr.models.architecture import Shapes
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

_LAYER_OF_ACTIVATION = {"silu": "Swish", "gelu": "GELU", "sigmoid": "Sigmoid", "mish": "Mish"}
_FUSED = {"sigmoid": 4, "mish": 5}
"""Parameter 9 of a convolution; 1 is ReLU, 2 leaky ReLU, whose slope is parameter 10."""


@dataclass(frozen=True)
class Operation:
    """One line of a .param file to be written, without its sources. Blob is ncnn's word for a result."""

    kind: str
    keys: str
    """Parameters as they stand in the line: "0=64 1=3"."""
    blob: str
    """Name of its result."""


def operations(layer: Layer, shapes: Shapes) -> list[Operation]:
    """Return ncnn's operations for a layer: the first one reads its sources, each later one the result before it.

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
    return [Operation(*_single_operation(layer), blob=layer.name.removeprefix(f"{IMAGE}."))]


def _single_operation(layer: Layer) -> tuple[str, str]:
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
    """Return a convolution with its activation fused where ncnn can fuse it; else the activation follows."""
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
    """Return the slope below 0; a ReLU is written as a leaky ReLU of slope 0."""
    return activation.slope if activation.kind == "leaky_relu" else 0.0


def _sum_operations(layer: ScaledSum) -> list[Operation]:
    """Return a sum in as few operations as ncnn needs; it has none with coefficients and an offset at once."""
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
    """Format a number with ncnn's usual 7 digits, or 9 where float32 needs them: its parser reads 15 characters."""
    text = f"{value:e}"
    return text if np.float32(text) == np.float32(value) else f"{value:.8e}"

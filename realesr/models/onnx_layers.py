"""Writes layers as ONNX operators, one method for each kind of layer, in every opset of `GraphOptions`."""

from math import sqrt
from typing import Any, assert_never

import numpy as np
import onnx
from numpy.typing import NDArray

from realesr.models.graph_options import GraphPrecision
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
from realesr.models.onnx_nodes import FLOAT32, Floats, NodeWriter, rounded
from realesr.models.weights import Weights

CHANNELS, ROWS = 1, 2
"""Axes of (N, channels, rows, columns)."""


class LayerWriter(NodeWriter):
    """Appends layers to a model's graph, in their order.

    Args:
        model: what to append to.
        weights: their arrays, and the architecture that they belong to.
        precision: of the convolutions.
        fp32_convs: names of those that are float32 in any case.
    """

    def __init__(
        self, model: onnx.ModelProto, weights: Weights, precision: GraphPrecision, fp32_convs: tuple[str, ...] = ()
    ) -> None:
        super().__init__(model, precision)
        self.architecture = weights.architecture
        self.values: dict[str, str] = {}
        """Name of a layer's result -> that of its value in the graph; the image's is entered from outside."""
        self._arrays = weights.state
        self._fp32_convs = fp32_convs
        self._unshuffled: dict[str, int] = {}
        """Results whose channels are in ONNX's order, for the one convolution that reads them -> factor."""
        self._factors: dict[float, str] = {}
        """Factor of a sum -> name of its constant."""

    def add(self, layer: Layer) -> None:
        """Append the nodes of a layer whose sources have been added."""
        sources = self.read(layer)
        self.values[layer.name] = self._written(layer, sources)

    def read(self, layer: Layer) -> list[str]:
        """Return the values of a layer's sources."""
        return [self.values[source] for source in layer.sources]

    def padded(self, layer: Convolution, x: str) -> tuple[str, list[int]]:
        """Return the value that a convolution reads, and its zero padding: top, left, bottom, right."""
        return x, [layer.kernel // 2] * 4

    def _written(self, layer: Layer, sources: list[str]) -> str:
        x = sources[0]
        match layer:
            case Convolution():
                return self._convolution(layer, x)
            case Activated():
                return self._activation(layer.activation, x, layer.name)
            case Concatenation():
                return self.joined("Concat", sources, layer.name, axis=CHANNELS)
            case ScaledSum():
                return self._scaled_sum(layer, sources)
            case Product():
                return self.joined("Mul", sources, layer.name)
            case PixelShuffle():
                return self.node("DepthToSpace", [x], layer.name, blocksize=layer.factor, mode="CRD")
            case PixelUnshuffle():
                return self._pixel_unshuffle(layer, x)
            case NearestEnlargement():
                return self._nearest(layer, x)
            case ChannelSlice():
                span = layer.first_channel, layer.first_channel + layer.channels
                return self.slice(x, layer.name, {CHANNELS: span})
        assert_never(layer)

    def _convolution(self, layer: Convolution, x: str) -> str:
        dtype = FLOAT32 if layer.name in self._fp32_convs else self.dtype
        x, pads = self.padded(layer, x)
        weight = self._arrays[f"{layer.name}.weight"]
        if layer.source in self._unshuffled:
            weight = _in_onnx_order(weight, self._unshuffled[layer.source])
        inputs = [self.cast(x, dtype), self.constant(f"{layer.name}.weight", rounded(weight, dtype))]
        if layer.has_bias:
            bias = self._arrays[f"{layer.name}.bias"]
            inputs.append(self.constant(f"{layer.name}.bias", rounded(bias, dtype)))
        attributes: dict[str, Any] = {"kernel_shape": [layer.kernel] * 2, "pads": pads}
        if layer.groups > 1:
            attributes["group"] = layer.groups
        x = self.node("Conv", inputs, f"{layer.name}.out", **attributes)
        return self._activation(layer.activation, x, f"{x}.active") if layer.activation else x

    def _activation(self, activation: Activation, x: str, output: str) -> str:
        match activation.kind:
            case "relu":
                return self.node("Relu", [x], output)
            case "leaky_relu":
                return self.node("LeakyRelu", [x], output, alpha=activation.slope)
            case "prelu":
                slopes = rounded(self._arrays[activation.slopes].reshape(-1, 1, 1), self.dtypes[x])
                return self.node("PRelu", [x, self.constant(activation.slopes, slopes)], output)
            case "sigmoid":
                return self.node("Sigmoid", [x], output)
            case "silu":
                return self.node("Mul", [x, self.node("Sigmoid", [x], f"{output}.sigmoid")], output)
            case "gelu":
                return self._gelu(x, output)
            case "mish":
                softplus = self.node("Softplus", [x], f"{output}.softplus")
                return self.node("Mul", [x, self.node("Tanh", [softplus], f"{output}.tanh")], output)
        assert_never(activation.kind)

    def _gelu(self, x: str, output: str) -> str:
        """Append x / 2 * (1 + erf(x / sqrt(2))). Source: Hendrycks and Gimpel 2016, arXiv 1606.08415, section 2."""
        share = self.node("Div", [x, self.number("sqrt_2", sqrt(2), x)], f"{output}.deviations")
        share = self.node("Erf", [share], f"{output}.erf")
        share = self.node("Add", [share, self.number("one", 1, x)], f"{output}.double_share")
        doubled = self.node("Mul", [x, share], f"{output}.doubled")
        return self.node("Mul", [doubled, self.number("half", 0.5, x)], output)

    def _scaled_sum(self, layer: ScaledSum, sources: list[str]) -> str:
        terms = self.of_one_type(self._scaled_terms(layer, sources))
        is_plain = all(factor == 1 for _, factor in layer.terms) and not layer.offset
        output = layer.name if is_plain else f"{layer.name}.sum"
        total, *others = terms
        for number, term in enumerate(others, start=2):
            total = self.node("Add", [total, term], output if number == len(terms) else f"{output}.{number}")
        if layer.offset:
            offset = self.number(f"{layer.name}.offset", layer.offset, total)
            return self.node("Add", [total, offset], f"{layer.name}.shifted")
        # The sum of one result that nothing changes is that result, by a name of its own.
        return self.node("Identity", [total], output) if is_plain and len(terms) == 1 else total

    def _scaled_terms(self, layer: ScaledSum, sources: list[str]) -> list[str]:
        terms = []
        output = f"{layer.name}.scaled"
        for number, (x, (_, factor)) in enumerate(zip(sources, layer.terms, strict=True), start=1):
            if factor == 1:
                terms.append(x)
                continue
            constant = self.number(self._factor_name(factor), factor, x)
            terms.append(self.node("Mul", [x, constant], output))
            output = f"{layer.name}.scaled.{number + 1}"
        return terms

    def _factor_name(self, factor: float) -> str:
        """Return the name of a factor's constant; a network's first one is that of its residuals."""
        known = len(self._factors)
        return self._factors.setdefault(factor, f"residual_scale.{known + 1}" if known else "residual_scale")

    def _pixel_unshuffle(self, layer: PixelUnshuffle, x: str) -> str:
        """Append SpaceToDepth, and reorder either the weights that read its channels or the channels themselves."""
        depth = self.node("SpaceToDepth", [x], layer.name, blocksize=layer.factor)
        readers = [each for each in self.architecture.layers if layer.name in each.sources]
        if len(readers) == 1 and isinstance(readers[0], Convolution) and readers[0].groups == 1:
            self._unshuffled[layer.name] = layer.factor
            return depth
        channels = self.architecture.map_shapes[layer.name].channels
        order = self.constant(f"{layer.name}.order", _onnx_channels(channels, layer.factor))
        return self.node("Gather", [depth, order], f"{layer.name}.ordered", axis=CHANNELS)

    def _nearest(self, layer: NearestEnlargement, x: str) -> str:
        scales = self.constant(f"{layer.name}.scales", np.array([1, 1, layer.factor, layer.factor], np.float32))
        modes = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
        return self.node("Resize", [x, "", scales], layer.name, **modes)


def _onnx_channels(channels: int, factor: int) -> NDArray[np.int64]:
    """Return the index in ONNX's order of each of torch's unshuffled channels.

    torch unshuffles to channel, dy, dx; ONNX's SpaceToDepth to dy, dx, channel.
    """
    return np.arange(channels, dtype=np.int64).reshape(factor**2, -1).T.reshape(-1)


def _in_onnx_order(weight: Floats, factor: int) -> Floats:
    """Return a convolution's weights for unshuffled channels in the order of ONNX's SpaceToDepth."""
    return weight[:, np.argsort(_onnx_channels(weight.shape[1], factor))]

"""Writes a network as an ONNX graph, straight from its arrays: no torch, no tracing.

Every graph has the input "input", (N, 3, H, W), and the output "output", (N, 3, H * scale, W * scale): float32 in
[0, 1] with N, H and W open, unless `GraphOptions` say otherwise. Opset 18 and IR version 8 (ONNX 1.13) load everywhere
that matters, TensorRT among it.

In an fp16 body every value has a type, and no operator mixes types: a convolution takes that of its weights, a sum or a
concatenation the wider one of its inputs, everything else that of its input.
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import realesr
from realesr.architectures import RRDB, Architecture, Compact, text_from_architecture
from realesr.engine import Precision
from realesr.errors import ModelError, UsageError
from realesr.graph_options import GraphOptions
from realesr.weights import Weights
from realesr.whole_file import write_whole
from realesr.zoo import cache_folder

_GRAPH_NUMBER = 2
"""Raise it with every change of the graphs, so that cached ones are written anew."""

_FLOAT32 = np.dtype(np.float32)

Floats = NDArray[np.floating]


def onnx_bytes(weights: Weights, precision: Precision = "fp32") -> bytes:
    """Write a network as an ONNX file's bytes, as `realesr upscale` runs it.

    Args:
        weights: what `realesr.weights.read_weights` gave.
        precision: of the arithmetic between input and output, which are float32 in any case.

    Raises:
        UsageError: bf16, for which ONNX Runtime and TensorRT lack most operators.
    """
    return graph_bytes(weights, GraphOptions(precision=precision))  # type: ignore[arg-type]  # it is checked there


def graph_bytes(weights: Weights, options: GraphOptions) -> bytes:
    """Write a network as an ONNX file's bytes; the same weights and options give the same bytes.

    Raises:
        UsageError: the options do not fit this network.
    """
    _check_fits(options, weights.architecture)
    graph = _Graph(weights, options)
    image = graph.input_image()
    if isinstance(weights.architecture, RRDB):
        result = _add_rrdb(graph, weights.architecture, image)
    else:
        result = _add_compact(graph, weights.architecture, image)
    graph.output_image(result)
    return bytes(graph.model.SerializeToString(deterministic=True))


def conv_names(architecture: Architecture) -> tuple[str, ...]:
    """Every convolution, in the order of use: what `GraphOptions.fp32_convs` may name."""
    return tuple(key.removesuffix(".weight") for key, shape in architecture.shapes.items() if len(shape) == 4)


def _check_fits(options: GraphOptions, architecture: Architecture) -> None:
    unknown = sorted(set(options.fp32_convs) - set(conv_names(architecture)))
    if unknown:
        raise UsageError(
            f"a {architecture.title} has no convolution {unknown[0]}: expected names like conv_last, body.0"
        )
    multiple = architecture.multiple_of
    if options.shape_nhw is not None and any(side % multiple for side in options.shape_nhw[1:]):
        _, height, width = options.shape_nhw
        raise UsageError(f"got the shape {height} x {width}, expected sides that are multiples of {multiple} px")


def cached_onnx(weights: Weights, precision: Precision) -> Path:
    """Path of the network's ONNX file in the cache, written where it is missing, damaged, or by another version.

    Raises:
        UsageError: as `onnx_bytes`.
        ModelError: the cache cannot be written.
    """
    # File systems take names of some 250 bytes; the hash tells apart what is cut off.
    path = cache_folder() / "onnx" / f"{weights.name[:40]}-{weights.sha256[:12]}-{precision}.onnx"
    if _is_intact(path):
        return path
    content = onnx_bytes(weights, precision)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
        write_whole(_stamp_path(path), _stamp(content))
    except OSError as error:
        raise ModelError(
            f"{path} cannot be written ({error.strerror}): free some space, or set REALESR_CACHE to another folder"
        ) from error
    return path


def _is_intact(path: Path) -> bool:
    """Whether the file holds, to the last bit, what this version's writer wrote."""
    try:
        return _stamp_path(path).read_bytes() == _stamp(path.read_bytes())
    except OSError:
        return False


def _stamp_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _stamp(content: bytes) -> bytes:
    return f"{hashlib.sha256(content).hexdigest()} realesr {realesr.__version__} graph {_GRAPH_NUMBER}\n".encode()


def _empty_model(weights: Weights, options: GraphOptions) -> onnx.ModelProto:
    """Input, output and the facts that engines read without the weights."""
    scale = weights.architecture.scale
    number = TensorProto.UINT8 if options.uint8 else TensorProto.FLOAT
    n, h, w = options.shape_nhw or ("n", "h", "w")
    large = (f"{scale}*h", f"{scale}*w") if options.shape_nhw is None else (int(h) * scale, int(w) * scale)
    opset = helper.make_opsetid("", options.opset)
    model = helper.make_model(
        helper.make_graph(
            [],
            weights.name,
            [helper.make_tensor_value_info("input", number, [n, 3, h, w])],
            [helper.make_tensor_value_info("output", number, [n, 3, *large])],
        ),
        opset_imports=[opset],
        ir_version=helper.find_min_ir_version_for([opset]),
        producer_name="realesr",
        producer_version=realesr.__version__,
    )
    facts = {
        "scale": str(scale),
        "architecture": text_from_architecture(weights.architecture),
        "radius_px": str(weights.architecture.radius_px),
        "multiple_of": str(weights.architecture.multiple_of),
        "sha256": weights.sha256,
        "version": realesr.__version__,
    }
    if options.precision != "fp32":
        facts["precision"] = options.precision
    helper.set_model_props(model, {f"realesr.{key}": value for key, value in facts.items()})
    return model


class _Graph:
    """A graph under construction. Each method adds one node, named after its output, and returns that name."""

    def __init__(self, weights: Weights, options: GraphOptions) -> None:
        self.state = weights.state
        self.dtype: np.dtype[Any] = np.dtype(np.float16 if options.precision == "fp16" else np.float32)
        self.model = _empty_model(weights, options)
        self._options = options
        self._dtypes: dict[str, np.dtype[Any]] = {"input": _FLOAT32}
        self._constants: set[str] = set()

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.model.graph.node.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        self._dtypes[output] = self._dtypes[inputs[0]]
        return output

    def joined(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """A node whose inputs must have one type: the wider one."""
        widest = max((self._dtypes[x] for x in inputs), key=lambda dtype: dtype.itemsize)
        return self.node(kind, [self.cast(x, widest) for x in inputs], output, **attributes)

    def constant(self, name: str, array: Floats) -> str:
        if name not in self._constants:
            self.model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
            self._constants.add(name)
        return name

    def cast(self, x: str, dtype: np.dtype[Any], output: str = "") -> str:
        """`x` in another type; nothing where it has it, and once for all who ask."""
        output = output or f"{x}.{dtype.name}"
        if self._dtypes[x] == dtype or output in self._dtypes:
            return x if self._dtypes[x] == dtype else output
        self.node("Cast", [x], output, to=helper.np_dtype_to_tensor_dtype(dtype))
        self._dtypes[output] = dtype
        return output

    def conv(self, name: str, x: str, output: str = "", weight: Floats | None = None) -> str:
        dtype = _FLOAT32 if name in self._options.fp32_convs else self.dtype
        weight = self.state[f"{name}.weight"] if weight is None else weight
        x = self.cast(x, dtype)
        inputs = [
            x,
            self.constant(f"{name}.weight", _rounded(weight, dtype)),
            self.constant(f"{name}.bias", _rounded(self.state[f"{name}.bias"], dtype)),
        ]
        return self.node("Conv", inputs, output or f"{name}.out", kernel_shape=[3, 3], pads=[1, 1, 1, 1])

    def leaky_relu(self, x: str, slope: float) -> str:
        return self.node("LeakyRelu", [x], f"{x}.active", alpha=slope)

    def prelu(self, x: str, name: str) -> str:
        slopes = _rounded(self.state[f"{name}.weight"].reshape(-1, 1, 1), self._dtypes[x])
        return self.node("PRelu", [x, self.constant(f"{name}.weight", slopes)], f"{x}.active")

    def times(self, x: str, factor: float, output: str, name: str) -> str:
        """The constant `name` is made in the type of `x`."""
        name = name if self._dtypes[x] == self.dtype else f"{name}.{self._dtypes[x].name}"
        return self.node("Mul", [x, self.constant(name, np.array(factor, self._dtypes[x]))], output)

    def nearest(self, x: str, factor: int, output: str) -> str:
        """Repeat each pixel factor x factor times."""
        scales = self.constant(f"{output}.scales", np.array([1, 1, factor, factor], np.float32))
        modes = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
        return self.node("Resize", [x, "", scales], output, **modes)

    def input_image(self) -> str:
        """The input in [0, 1], float32."""
        if not self._options.uint8:
            return "input"
        self._dtypes["input"] = np.dtype(np.uint8)
        levels = self.cast("input", _FLOAT32, "input.levels")
        return self.node("Div", [levels, self.constant("levels", np.array(255, np.float32))], "input.image")

    def output_image(self, x: str) -> None:
        """The output as it is asked for, from `x` in any type."""
        x = self.cast(x, _FLOAT32, "output.image" if self._options.uint8 else "output")
        if self._options.uint8:
            x = self.node("Mul", [x, self.constant("levels", np.array(255, np.float32))], "output.levels")
            limits = [self.constant("level.first", np.array(0, np.float32)), "levels"]
            x = self.node("Clip", [self.node("Round", [x], "output.rounded"), *limits], "output.limited")
            self.cast(x, np.dtype(np.uint8), "output")
        elif x != "output":
            self.model.graph.node[-1].output[0] = self.model.graph.node[-1].name = "output"


def _rounded(array: Floats, dtype: np.dtype[Any]) -> Floats:
    """What float16 cannot hold becomes infinite here, and shows in the result."""
    with np.errstate(over="ignore"):
        return array.astype(dtype)


def _add_rrdb(graph: _Graph, architecture: RRDB, x: str) -> str:
    """BasicSR, basicsr/archs/rrdbnet_arch.py: every leaky ReLU has the slope 0.2, every residual the scale 0.2."""
    first_weight: Floats = graph.state["conv_first.weight"]
    if architecture.unshuffle > 1:
        x = graph.node("SpaceToDepth", [x], "unshuffled", blocksize=architecture.unshuffle)
        first_weight = _in_onnx_order(graph.state["conv_first.weight"], architecture.unshuffle)

    first = graph.conv("conv_first", x, weight=first_weight)
    x = first
    for block in range(architecture.blocks):
        inner = x
        for rdb in (1, 2, 3):
            inner = _add_dense_block(graph, inner, f"body.{block}.rdb{rdb}")
        x = _add_scaled_residual(graph, inner, x, f"body.{block}")
    x = graph.joined("Add", [graph.conv("conv_body", x), first], "body")

    for up in range(1, architecture.upsamplings + 1):
        x = graph.nearest(x, 2, f"conv_up{up}.in")
        x = graph.leaky_relu(graph.conv(f"conv_up{up}", x), 0.2)
    x = graph.leaky_relu(graph.conv("conv_hr", x), 0.2)
    return graph.conv("conv_last", x)


def _in_onnx_order(weight: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Reorder the first conv's inputs: torch unshuffles to channel, dy, dx; ONNX's SpaceToDepth to dy, dx, channel."""
    out, into, height, width = weight.shape
    by_place = weight.reshape(out, into // factor**2, factor, factor, height, width)
    return by_place.transpose(0, 2, 3, 1, 4, 5).reshape(weight.shape)


def _add_dense_block(graph: _Graph, x: str, name: str) -> str:
    features = [x]
    for conv in (1, 2, 3, 4):
        joined = graph.joined("Concat", features, f"{name}.conv{conv}.in", axis=1) if conv > 1 else x
        features.append(graph.leaky_relu(graph.conv(f"{name}.conv{conv}", joined), 0.2))
    joined = graph.joined("Concat", features, f"{name}.conv5.in", axis=1)
    return _add_scaled_residual(graph, graph.conv(f"{name}.conv5", joined), x, name)


def _add_scaled_residual(graph: _Graph, branch: str, skip: str, name: str) -> str:
    scaled = graph.times(branch, 0.2, f"{name}.scaled", "residual_scale")
    return graph.joined("Add", [scaled, skip], f"{name}.sum")


def _add_compact(graph: _Graph, architecture: Compact, image: str) -> str:
    """Real-ESRGAN, realesrgan/archs/srvgg_arch.py. The skip from the input stays float32 in every precision."""
    x = image
    for conv in range(architecture.convs + 1):
        x = graph.conv(f"body.{2 * conv}", x)
        x = _add_activation(graph, architecture, f"body.{2 * conv + 1}", x)
    x = graph.conv(f"body.{2 * architecture.convs + 2}", x)
    x = graph.cast(x, _FLOAT32, "residual.cast")
    x = graph.node("DepthToSpace", [x], "residual", blocksize=architecture.scale, mode="CRD")
    return graph.node("Add", [x, graph.nearest(image, architecture.scale, "input.enlarged")], "sum")


def _add_activation(graph: _Graph, architecture: Compact, name: str, x: str) -> str:
    if architecture.activation == "relu":
        return graph.node("Relu", [x], f"{x}.active")
    if architecture.activation == "leakyrelu":
        return graph.leaky_relu(x, 0.1)
    return graph.prelu(x, name)

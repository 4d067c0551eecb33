"""Writes a network as an ONNX graph, straight from its arrays: no torch, no tracing.

Every graph has the input "input", float32 (N, 3, H, W), and the output "output", float32 (N, 3, H * scale, W * scale),
with N, H and W open. Opset 18 and IR version 8 (ONNX 1.13) load everywhere that matters, TensorRT among it.
"""

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import realesr
from realesr.architectures import RRDB, Compact, text_from_architecture
from realesr.engine import Precision
from realesr.errors import ModelError, UsageError
from realesr.weights import Weights
from realesr.zoo import cache_folder

_OPSET = 18
_IR_VERSION = 8
_GRAPH_NUMBER = 1
"""Raise it with every change of the graphs, so that cached ones are written anew."""


def onnx_bytes(weights: Weights, precision: Precision = "fp32") -> bytes:
    """Write a network as an ONNX file's bytes; the same weights give the same bytes.

    Args:
        weights: what `realesr.weights.read_weights` gave.
        precision: of the arithmetic between input and output, which are float32 in any case.

    Raises:
        UsageError: bf16, for which ONNX Runtime and TensorRT lack most operators.
    """
    if precision not in ("fp32", "fp16"):
        raise UsageError(f"{precision} is not for ONNX: expected fp32 or fp16 (bf16 needs the engine torch)")
    graph = _Graph(weights, np.dtype(np.float16 if precision == "fp16" else np.float32))
    if isinstance(weights.architecture, RRDB):
        _add_rrdb(graph, weights.architecture)
    else:
        _add_compact(graph, weights.architecture)
    return bytes(graph.model.SerializeToString(deterministic=True))


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
        _write_whole(path, content)
        _write_whole(_stamp_path(path), _stamp(content))
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


def _write_whole(path: Path, content: bytes) -> None:
    """Write under a temporary name, then rename: nobody ever sees half a file."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix="onnx-", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _empty_model(weights: Weights) -> onnx.ModelProto:
    """Input, output and the facts that engines read without the weights."""
    scale = weights.architecture.scale
    source = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, "h", "w"])
    result = helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", 3, f"{scale}*h", f"{scale}*w"])
    model = helper.make_model(
        helper.make_graph([], weights.name, [source], [result]),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
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
    helper.set_model_props(model, {f"realesr.{key}": value for key, value in facts.items()})
    return model


class _Graph:
    """A graph under construction. Each method adds one node, named after its output, and returns that name."""

    def __init__(self, weights: Weights, dtype: np.dtype[np.floating]) -> None:
        self.state = weights.state
        self.dtype = dtype
        self.model = _empty_model(weights)

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.model.graph.node.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, array: NDArray[np.floating]) -> str:
        self.model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def cast(self, x: str, output: str, dtype: np.dtype[np.floating]) -> str:
        """Between the float32 outside and the body; nothing where they are the same."""
        if self.dtype == np.float32:
            return x
        return self.node("Cast", [x], output, to=helper.np_dtype_to_tensor_dtype(dtype))

    def conv(self, name: str, x: str, output: str = "", weight: NDArray[np.floating] | None = None) -> str:
        weight = self.state[f"{name}.weight"] if weight is None else weight
        inputs = [
            x,
            self.constant(f"{name}.weight", weight.astype(self.dtype)),
            self.constant(f"{name}.bias", self.state[f"{name}.bias"].astype(self.dtype)),
        ]
        return self.node("Conv", inputs, output or f"{name}.out", kernel_shape=[3, 3], pads=[1, 1, 1, 1])

    def leaky_relu(self, x: str, slope: float) -> str:
        return self.node("LeakyRelu", [x], f"{x}.active", alpha=slope)

    def nearest(self, x: str, factor: int, output: str) -> str:
        """Repeat each pixel factor x factor times."""
        scales = self.constant(f"{output}.scales", np.array([1, 1, factor, factor], np.float32))
        modes = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
        return self.node("Resize", [x, "", scales], output, **modes)


def _add_rrdb(graph: _Graph, architecture: RRDB) -> None:
    """BasicSR, basicsr/archs/rrdbnet_arch.py: every leaky ReLU has the slope 0.2, every residual the scale 0.2."""
    first_weight = graph.state["conv_first.weight"]
    x = "input"
    if architecture.unshuffle > 1:
        x = graph.node("SpaceToDepth", [x], "unshuffled", blocksize=architecture.unshuffle)
        first_weight = _in_onnx_order(first_weight, architecture.unshuffle)
    x = graph.cast(x, "input.cast", graph.dtype)
    graph.constant("residual_scale", np.array(0.2, graph.dtype))

    first = graph.conv("conv_first", x, weight=first_weight)
    x = first
    for block in range(architecture.blocks):
        inner = x
        for rdb in (1, 2, 3):
            inner = _add_dense_block(graph, inner, f"body.{block}.rdb{rdb}")
        x = _add_scaled_residual(graph, inner, x, f"body.{block}")
    x = graph.node("Add", [graph.conv("conv_body", x), first], "body")

    for up in range(1, architecture.upsamplings + 1):
        x = graph.nearest(x, 2, f"conv_up{up}.in")
        x = graph.leaky_relu(graph.conv(f"conv_up{up}", x), 0.2)
    x = graph.leaky_relu(graph.conv("conv_hr", x), 0.2)
    is_body_float32 = graph.dtype == np.float32
    x = graph.conv("conv_last", x, "output" if is_body_float32 else "")
    graph.cast(x, "output", np.dtype(np.float32))


def _in_onnx_order(weight: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Reorder the first conv's inputs: torch unshuffles to channel, dy, dx; ONNX's SpaceToDepth to dy, dx, channel."""
    out, into, height, width = weight.shape
    by_place = weight.reshape(out, into // factor**2, factor, factor, height, width)
    return by_place.transpose(0, 2, 3, 1, 4, 5).reshape(weight.shape)


def _add_dense_block(graph: _Graph, x: str, name: str) -> str:
    features = [x]
    for conv in (1, 2, 3, 4):
        joined = graph.node("Concat", features, f"{name}.conv{conv}.in", axis=1) if conv > 1 else x
        features.append(graph.leaky_relu(graph.conv(f"{name}.conv{conv}", joined), 0.2))
    joined = graph.node("Concat", features, f"{name}.conv5.in", axis=1)
    return _add_scaled_residual(graph, graph.conv(f"{name}.conv5", joined), x, name)


def _add_scaled_residual(graph: _Graph, branch: str, skip: str, name: str) -> str:
    scaled = graph.node("Mul", [branch, "residual_scale"], f"{name}.scaled")
    return graph.node("Add", [scaled, skip], f"{name}.sum")


def _add_compact(graph: _Graph, architecture: Compact) -> None:
    """Real-ESRGAN, realesrgan/archs/srvgg_arch.py. The skip from the input stays float32 in every precision."""
    x = graph.cast("input", "input.cast", graph.dtype)
    for conv in range(architecture.convs + 1):
        x = graph.conv(f"body.{2 * conv}", x)
        x = _add_activation(graph, architecture, f"body.{2 * conv + 1}", x)
    x = graph.conv(f"body.{2 * architecture.convs + 2}", x)
    x = graph.cast(x, "residual.cast", np.dtype(np.float32))
    x = graph.node("DepthToSpace", [x], "residual", blocksize=architecture.scale, mode="CRD")
    graph.node("Add", [x, graph.nearest("input", architecture.scale, "input.enlarged")], "output")


def _add_activation(graph: _Graph, architecture: Compact, name: str, x: str) -> str:
    if architecture.activation == "relu":
        return graph.node("Relu", [x], f"{x}.active")
    if architecture.activation == "leakyrelu":
        return graph.leaky_relu(x, 0.1)
    slopes = graph.state[f"{name}.weight"].reshape(-1, 1, 1)
    return graph.node("PRelu", [x, graph.constant(f"{name}.weight", slopes.astype(graph.dtype))], f"{x}.active")

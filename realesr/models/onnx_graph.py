"""Writes a network as an ONNX graph, straight from its arrays and its list of layers: no torch, no tracing.

Every graph has the input "input", (N, 3, H, W), and the output "output", (N, 3, H * scale, W * scale): float32 in
[0, 1] with N, H and W open, unless `GraphOptions` say otherwise. Opset 18 and IR version 8 (ONNX 1.13) load everywhere
that matters, TensorRT among it.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

import realesr
from realesr.errors import ModelError, UsageError
from realesr.machine.whole_file import write_whole
from realesr.models.architecture import Architecture
from realesr.models.graph_options import GraphOptions
from realesr.models.layers import IMAGE
from realesr.models.onnx_layers import LayerWriter
from realesr.models.onnx_nodes import FLOAT32
from realesr.models.recognition import text_from_architecture
from realesr.models.weights import Weights
from realesr.models.zoo import cache_folder


def onnx_bytes(weights: Weights, precision: str = "fp32") -> bytes:
    """Write a network as an ONNX file's bytes, as `realesr upscale` runs it.

    Args:
        weights: what `realesr.models.weights.read_weights` gave.
        precision: of the arithmetic between input and output, which are float32 in any case.

    Raises:
        UsageError: bf16, for which ONNX Runtime and TensorRT lack most operators.
    """
    return graph_bytes(weights, GraphOptions(precision=precision))  # type: ignore[arg-type]  # it is checked there


def graph_bytes(weights: Weights, options: GraphOptions) -> bytes:
    """Write a network as an ONNX file's bytes; the same weights and options give the same bytes.

    Raises:
        UsageError: The options do not fit this network.
    """
    _check_fits(options, weights.architecture)
    graph = LayerWriter(_empty_model(weights, options), weights, options.precision, options.fp32_convs)
    graph.values[IMAGE] = _input_image(graph, options)
    for layer in weights.architecture.layers:
        graph.add(layer)
    _output_image(graph, graph.values[layer.name], options)
    return bytes(graph.model.SerializeToString(deterministic=True))


def conv_names(architecture: Architecture) -> tuple[str, ...]:
    """Return the name of every convolution in the order of use, as `GraphOptions.fp32_convs` accepts them."""
    return tuple(layer.name for layer in architecture.convolutions)


def _check_fits(options: GraphOptions, architecture: Architecture) -> None:
    """Raise UsageError where the options do not fit the network."""
    names = conv_names(architecture)
    unknown = sorted(set(options.fp32_convs) - set(names))
    if unknown:
        raise UsageError(
            f"a {architecture.title} has no convolution {unknown[0]}: expected names like {names[0]}, {names[-1]}"
        )
    multiple = architecture.multiple_of
    if options.shape_nhw is not None and any(side % multiple for side in options.shape_nhw[1:]):
        _, height, width = options.shape_nhw
        raise UsageError(f"got the shape {height} x {width}, expected sides that are multiples of {multiple} px")


def cached_onnx(weights: Weights, precision: str) -> Path:
    """Return the path of the network's ONNX file in the cache, for builders that read files.

    The graph is made anew each time (0.3 s for realesrgan-x4plus) and the file is compared with it: a hash beside the
    file could be replaced together with it.

    Raises:
        UsageError: As `onnx_bytes`.
        ModelError: The cache cannot be written.
    """
    # File systems take names of some 250 bytes; the hash tells apart what is cut off.
    path = cache_folder() / "onnx" / f"{weights.name[:40]}-{weights.sha256[:12]}-{precision}.onnx"
    content = onnx_bytes(weights, precision)
    if _holds(path, content):
        return path
    try:
        write_whole(path, content)
    except OSError as error:
        raise ModelError(
            f"{path} cannot be written ({error.strerror}): free some space, or set REALESR_CACHE to another folder"
        ) from error
    return path


def _holds(path: Path, content: bytes) -> bool:
    """Return whether the file has exactly this content."""
    try:
        return path.stat().st_size == len(content) and path.read_bytes() == content
    except OSError:
        return False


def _empty_model(weights: Weights, options: GraphOptions) -> onnx.ModelProto:
    """Return a model with an input, an output and the facts that engines read without the weights."""
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


def _input_image(graph: LayerWriter, options: GraphOptions) -> str:
    """Append the conversion of the input to float32 in [0, 1], and return that value's name."""
    graph.dtypes["input"] = np.dtype(np.uint8) if options.uint8 else FLOAT32
    if not options.uint8:
        return "input"
    levels = graph.cast("input", FLOAT32, "input.levels")
    return graph.node("Div", [levels, graph.constant("levels", np.array(255, np.float32))], "input.image")


def _output_image(graph: LayerWriter, x: str, options: GraphOptions) -> None:
    """Append the conversion of the last layer's result to the output that the options ask for."""
    if not options.uint8:
        graph.finish(x, "output")
        return
    x = graph.cast(x, FLOAT32, "output.image")
    x = graph.node("Mul", [x, graph.constant("levels", np.array(255, np.float32))], "output.levels")
    limits = [graph.constant("level.first", np.array(0, np.float32)), "levels"]
    x = graph.node("Clip", [graph.node("Round", [x], "output.rounded"), *limits], "output.limited")
    graph.cast(x, np.dtype(np.uint8), "output")

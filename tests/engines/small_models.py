"""Small networks: weights of ours under names of their own, and ONNX files that realesr did not write."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

from realesr.models.architecture import Architecture
from realesr.models.weights import Weights
from tests.models.small_networks import small_weights


def small_model(architecture: Architecture) -> Weights:
    """Random weights; the cache of ONNX files tells networks apart by name and hash."""
    weights: Weights = small_weights(architecture)
    return replace(weights, name="".join(filter(str.isalnum, repr(architecture))))


def write_nearest(
    path: Path,
    *,
    scale: int = 2,
    unshuffle: int = 1,
    shape: tuple[int | str, ...] = ("n", 3, "h", "w"),
    dtype: int = TensorProto.FLOAT,
    metadata: dict[str, str] | None = None,
) -> Path:
    """A network that repeats pixels; with `unshuffle` it takes only sides that are multiples of it."""
    modes = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
    nodes = [
        helper.make_node("SpaceToDepth", ["picture"], ["small"], blocksize=unshuffle),
        helper.make_node("DepthToSpace", ["small"], ["same"], blocksize=unshuffle),
        helper.make_node("Resize", ["same", "", "scales"], ["large"], **modes),
    ]
    scales = numpy_helper.from_array(np.array([1, 1, scale, scale], np.float32), "scales")
    source = helper.make_tensor_value_info("picture", dtype, shape)
    result = helper.make_tensor_value_info("large", dtype, ["n", shape[1], "H", "W"])
    graph = helper.make_graph(nodes, "nearest", [source], [result], [scales])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    helper.set_model_props(model, metadata or {})
    save(model, path)
    return path

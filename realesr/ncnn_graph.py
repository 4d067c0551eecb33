"""Writes a network as ncnn's pair of files: the graph as text (.param) and its numbers (.bin).

Layout: Tencent/ncnn src/modelbin.cpp and its format documents; the other way round of `realesr.ncnn_file`. The input
blob is "data", the output blob "output": one RGB image, channels first, float32.
"""

from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from realesr.architectures import RRDB, Compact
from realesr.weights import Weights

INPUT, OUTPUT = "data", "output"

_MAGIC = "7767517"
_TAG_FLOAT32 = b"\0\0\0\0"


@dataclass(frozen=True)
class _Layer:
    """One line of a .param file."""

    kind: str
    inputs: list[str]
    outputs: list[str]
    keys: str = ""

    @property
    def line(self) -> str:
        counts = f"{len(self.inputs)} {len(self.outputs)}"
        return " ".join([self.kind, self.outputs[0], counts, *self.inputs, *self.outputs, self.keys]).rstrip()


@dataclass
class _Graph:
    """A graph under construction. Each method adds one layer, named after its output, and returns that name."""

    state: dict[str, NDArray[np.float32]]
    layers: list[_Layer] = field(default_factory=list)
    numbers: list[bytes] = field(default_factory=list)

    def layer(self, kind: str, inputs: list[str], output: str, keys: str = "") -> str:
        self.layers.append(_Layer(kind, inputs, [output], keys))
        return output

    def conv(self, name: str, x: str, slope: float | None = None, output: str = "") -> str:
        """3x3, padding 1, bias; with a slope, a leaky ReLU besides. A tag goes before weights, none before biases."""
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        self.numbers += [_TAG_FLOAT32, weight.astype("<f4").tobytes(), bias.astype("<f4").tobytes()]
        active = "" if slope is None else f" 9=2 -23310=1,{slope:e}"
        keys = f"0={len(bias)} 1=3 4=1 5=1 6={weight.size}{active}"
        return self.layer("Convolution", [x], output or f"{name}.out", keys)

    def nearest(self, x: str, factor: int, output: str) -> str:
        return self.layer("Interp", [x], output, f"0=1 1={factor:e} 2={factor:e}")

    def scaled_sum(self, branch: str, skip: str, output: str) -> str:
        """0.2 * branch + skip."""
        return self.layer("Eltwise", [branch, skip], output, "0=1 -23301=2,2.000000e-01,1.000000e+00")


def ncnn_files(weights: Weights) -> tuple[str, bytes]:
    """The text of a network's .param file and the bytes of its .bin file, float32."""
    graph = _Graph(weights.state)
    graph.layer("Input", [], INPUT)
    if isinstance(weights.architecture, RRDB):
        _add_rrdb(graph, weights.architecture)
    else:
        _add_compact(graph, weights.architecture)
    layers = _with_splits(graph.layers)
    blobs = sum(len(layer.outputs) for layer in layers)
    lines = [_MAGIC, f"{len(layers)} {blobs}", *(layer.line for layer in layers)]
    return "\n".join(lines) + "\n", b"".join(graph.numbers)


def _add_rrdb(graph: _Graph, architecture: RRDB) -> None:
    """As `realesr.onnx_graph` has it; Reorg orders the channels as torch's pixel-unshuffle does."""
    x = INPUT
    if architecture.unshuffle > 1:
        x = graph.layer("Reorg", [x], "unshuffled", f"0={architecture.unshuffle}")
    first = graph.conv("conv_first", x)
    x = first
    for block in range(architecture.blocks):
        inner = x
        for rdb in (1, 2, 3):
            inner = _add_dense_block(graph, inner, f"body.{block}.rdb{rdb}")
        x = graph.scaled_sum(inner, x, f"body.{block}.sum")
    x = graph.layer("BinaryOp", [graph.conv("conv_body", x), first], "body")
    for up in range(1, architecture.upsamplings + 1):
        x = graph.conv(f"conv_up{up}", graph.nearest(x, 2, f"conv_up{up}.in"), 0.2)
    graph.conv("conv_last", graph.conv("conv_hr", x, 0.2), output=OUTPUT)


def _add_dense_block(graph: _Graph, x: str, name: str) -> str:
    features = [x]
    for conv in (1, 2, 3, 4):
        joined = graph.layer("Concat", list(features), f"{name}.conv{conv}.in") if conv > 1 else x
        features.append(graph.conv(f"{name}.conv{conv}", joined, 0.2))
    joined = graph.layer("Concat", features, f"{name}.conv5.in")
    return graph.scaled_sum(graph.conv(f"{name}.conv5", joined), x, f"{name}.sum")


def _add_compact(graph: _Graph, architecture: Compact) -> None:
    slope = architecture.slope
    x = INPUT
    for conv in range(architecture.convs + 1):
        x = graph.conv(f"body.{2 * conv}", x, slope)
        if slope is None:
            slopes = graph.state[f"body.{2 * conv + 1}.weight"]
            graph.numbers.append(slopes.astype("<f4").tobytes())
            x = graph.layer("PReLU", [x], f"body.{2 * conv + 1}.out", f"0={len(slopes)}")
    x = graph.conv(f"body.{2 * architecture.convs + 2}", x)
    x = graph.layer("PixelShuffle", [x], "residual", f"0={architecture.scale}")
    enlarged = graph.nearest(INPUT, architecture.scale, "enlarged")
    graph.layer("BinaryOp", [x, enlarged], OUTPUT)


def _with_splits(layers: list[_Layer]) -> list[_Layer]:
    """ncnn takes a blob away from whoever reads it: one that is read n times is split into n names first."""
    uses = Counter(name for layer in layers for name in layer.inputs)
    done: list[_Layer] = []
    taken: Counter[str] = Counter()
    for layer in layers:
        inputs = []
        for name in layer.inputs:
            inputs.append(f"{name}.{taken[name]}" if uses[name] > 1 else name)
            taken[name] += 1
        done.append(replace(layer, inputs=inputs))
        name = layer.outputs[0]
        if uses[name] > 1:
            done.append(_Layer("Split", [name], [f"{name}.{number}" for number in range(uses[name])]))
    return done

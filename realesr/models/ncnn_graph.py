"""Writes a network as ncnn's pair of files: the graph as text (.param) and its numbers (.bin).

Layout: Tencent/ncnn src/modelbin.cpp and its format documents; `ncnn_file.py` is the other way round. The input
blob is "data", the output blob "output": one RGB image, channels first, float32.
"""

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from realesr.models.layers import IMAGE, Activated, Convolution, Layer
from realesr.models.ncnn_operations import operations
from realesr.models.weights import Weights

INPUT, OUTPUT = "data", "output"

_MAGIC = "7767517"
_TAG_FLOAT32 = b"\0\0\0\0"


@dataclass(frozen=True)
class _Line:
    """One line of a .param file, named after its first output."""

    kind: str
    inputs: list[str]
    outputs: list[str]
    keys: str = ""

    @property
    def text(self) -> str:
        counts = f"{len(self.inputs)} {len(self.outputs)}"
        return " ".join([self.kind, self.outputs[0], counts, *self.inputs, *self.outputs, self.keys]).rstrip()


def ncnn_files(weights: Weights) -> tuple[str, bytes]:
    """Return the text of a network's .param file and the bytes of its .bin file, float32."""
    architecture = weights.architecture
    lines = [_Line("Input", [], [INPUT])]
    blobs = {IMAGE: INPUT}
    numbers = []
    for layer in architecture.layers:
        read = [blobs[source] for source in layer.sources]
        for operation in operations(layer, architecture.shapes):
            lines.append(_Line(operation.kind, read, [operation.blob], operation.keys))
            read = [operation.blob]
        blobs[layer.name] = operation.blob
        numbers += _numbers(layer, weights.state)
    lines[-1] = replace(lines[-1], outputs=[OUTPUT])
    return _text(_with_splits(lines)), b"".join(numbers)


def _numbers(layer: Layer, state: dict[str, NDArray[np.float32]]) -> list[bytes]:
    """Return the bytes of a layer's arrays in ncnn's order; only a convolution's weights have a tag before them."""
    keys, numbers = [], []
    if isinstance(layer, Convolution):
        keys, numbers = list(layer.arrays), [_TAG_FLOAT32]
    elif isinstance(layer, Activated) and layer.activation.kind == "prelu":
        keys = [layer.activation.slopes]
    return numbers + [state[key].astype("<f4").tobytes() for key in keys]


def _text(lines: list[_Line]) -> str:
    blobs = [name for line in lines for name in line.outputs]
    assert len(set(blobs)) == len(blobs), f"two layers have results of one name: {Counter(blobs).most_common(3)}"
    return "\n".join([_MAGIC, f"{len(lines)} {len(blobs)}", *(line.text for line in lines)]) + "\n"


def _with_splits(lines: list[_Line]) -> list[_Line]:
    """Return the lines with a Split behind each blob that is read more than once.

    ncnn takes a blob away from whoever reads it: one that is read n times is split into n names first.
    """
    uses = Counter(name for line in lines for name in line.inputs)
    done: list[_Line] = []
    taken: Counter[str] = Counter()
    for line in lines:
        inputs = []
        for name in line.inputs:
            inputs.append(f"{name}.{taken[name]}" if uses[name] > 1 else name)
            taken[name] += 1
        done.append(replace(line, inputs=inputs))
        name = line.outputs[0]
        if uses[name] > 1:
            done.append(_Line("Split", [name], [f"{name}.{number}" for number in range(uses[name])]))
    return done

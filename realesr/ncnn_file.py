"""Reads ncnn's pair of files, a graph in text (.param) and its numbers (.bin), back into a state dict.

Layout: Tencent/ncnn src/modelbin.cpp and its format documents; Real-ESRGAN's own conversion. Only the graphs that the
conversion of our two architectures gives are taken: a graph that differs in any layer would compute something else.
"""

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from realesr.architectures import RRDB, Architecture, Compact, detect
from realesr.errors import ModelError

Arrays = dict[str, NDArray[np.float32]]

_MAGIC = "7767517"
_TAG_FLOAT16 = 0x01306B47
_TAGS_FLOAT32 = (0x00000000, 0x0002C056)
_LEAKY_RELU = {"9": "2", "-23310": "1,0.2"}
_SUM_WITH_BRANCH_SCALED = {"0": "1", "-23301": "2,0.2,1"}


@dataclass(frozen=True)
class Layer:
    """One line of a .param file."""

    kind: str
    keys: dict[str, str]
    """Its parameters by number; floats in their shortest form."""


def read_ncnn(param: str, data: bytes) -> tuple[Architecture, Arrays]:
    """Read a network from the text of a .param file and the bytes of the .bin file beside it.

    Returns:
        The architecture and its state dict: modern names, torch's element order (the same as ncnn's), float32.

    Raises:
        ModelError: another graph than ours, a number format other than float16 and float32, or missing bytes.
    """
    layers = _parse(param)
    kinds = [layer.kind for layer in layers]
    arrays = _read_arrays(layers, data)
    names = _compact_names(kinds) if "PixelShuffle" in kinds else _rrdb_names(kinds)
    if len(names) != len(arrays):
        raise ModelError(f"the ncnn graph has {len(arrays)} arrays, expected {len(names)} for its kinds of layers")
    state = dict(zip(names, arrays, strict=True))
    architecture = detect(state)
    _check_graph(layers, architecture)
    return architecture, state


def _parse(param: str) -> list[Layer]:
    """Layers in file order, which is the order of execution; without Split, which only gives a blob more names."""
    lines = param.split("\n")
    if lines[0].strip() != _MAGIC:
        raise ModelError(f"an ncnn .param begins with {lines[0][:20]!r}, expected {_MAGIC}: is it the text form?")
    layers = []
    for line in lines[2:]:
        words = line.split()
        if not words:
            continue
        try:
            first_key = 4 + int(words[2]) + int(words[3])
            keys = dict(word.split("=", 1) for word in words[first_key:])
            layers.append(Layer(words[0], {key: _shortest(value) for key, value in keys.items()}))
        except (ValueError, IndexError):
            raise ModelError(f"an ncnn .param has the line {line[:60]!r}, expected a layer") from None
    expected = lines[1].split()[:1] if len(lines) > 1 else []
    if [str(len(layers))] != expected:
        raise ModelError(f"an ncnn .param announces {' '.join(expected)} layers but holds {len(layers)}: truncated?")
    return [layer for layer in layers if layer.kind not in ("Split", "Input")]


def _shortest(value: str) -> str:
    """2.000000e-01 -> 0.2, number by number."""
    return ",".join(f"{float(number):g}" if "e" in number or "." in number else number for number in value.split(","))


def _read_arrays(layers: list[Layer], data: bytes) -> list[NDArray[np.float32]]:
    """Weights, biases and slopes in file order; every byte must be used."""
    arrays = []
    offset = 0
    for layer in layers:
        if layer.kind == "Convolution":
            shape = _conv_shape(layer)
            weight, offset = _read_tagged(data, offset, shape)
            bias, offset = _read_floats(data, offset, shape[:1])
            arrays += [weight, bias]
        elif layer.kind == "PReLU":
            slopes, offset = _read_floats(data, offset, (_number(layer, "0"),))
            arrays.append(slopes)
    if offset != len(data):
        raise ModelError(f"an ncnn .bin has {len(data)} bytes, expected {offset} by its .param: not a pair?")
    return arrays


def _conv_shape(layer: Layer) -> tuple[int, ...]:
    """(out, in, 3, 3) of a convolution with kernel 3, padding 1, stride 1, no dilation, a bias and one group."""
    keys = {"1": "1", "2": "1", "3": "1", "4": "0", "5": "0"} | layer.keys
    out, weights = _number(layer, "0"), _number(layer, "6")
    if [keys[key] for key in "12345"] != ["3", "1", "1", "1", "1"] or out < 1 or weights % (9 * out) or weights < 1:
        raise ModelError(f"the ncnn graph has a convolution {layer.keys}: expected 3x3, stride 1, padding 1, bias")
    return out, weights // (9 * out), 3, 3


def _number(layer: Layer, key: str) -> int:
    try:
        return int(layer.keys[key])
    except (KeyError, ValueError):
        raise ModelError(f"the ncnn graph has a {layer.kind} without a number {key}") from None


def _read_tagged(data: bytes, offset: int, shape: tuple[int, ...]) -> tuple[NDArray[np.float32], int]:
    if offset + 4 > len(data):
        raise ModelError(f"an ncnn .bin ends after {len(data)} bytes, expected more: fetch it again")
    (tag,) = struct.unpack_from("<I", data, offset)
    if tag == _TAG_FLOAT16:
        array, end = _read_floats(data, offset + 4, shape, "<f2")
        return array, end + (end - offset) % 4
    if tag in _TAGS_FLOAT32:
        return _read_floats(data, offset + 4, shape)
    raise ModelError(f"an ncnn .bin has weights in format {tag:#010x}: expected float16 or float32, not quantised ones")


def _read_floats(
    data: bytes, offset: int, shape: tuple[int, ...], dtype: str = "<f4"
) -> tuple[NDArray[np.float32], int]:
    count = int(np.prod(shape, dtype=object))
    end = offset + count * np.dtype(dtype).itemsize
    if count < 0 or end > len(data):
        raise ModelError(f"an ncnn .bin ends after {len(data)} bytes, expected at least {end}: fetch it again")
    return np.frombuffer(data, dtype, count, offset).reshape(shape).astype(np.float32), end


def _compact_names(kinds: list[str]) -> list[str]:
    names = []
    for index, kind in enumerate(kind for kind in kinds if kind in ("Convolution", "PReLU")):
        names += [f"body.{index}.weight", f"body.{index}.bias"] if kind == "Convolution" else [f"body.{index}.weight"]
    return names


def _rrdb_names(kinds: list[str]) -> list[str]:
    """Keys in order of execution, for as many blocks as the number of convolutions gives."""
    upsamplings = kinds.count("Interp")
    blocks = (kinds.count("Convolution") - 4 - upsamplings) // 15
    if blocks < 1:
        count = kinds.count("Convolution")
        raise ModelError(f"the ncnn graph has {count} convolutions: expected those of RRDBNet or SRVGGNetCompact")
    return list(RRDB(scale=2**upsamplings, blocks=blocks, upsamplings=upsamplings).shapes)


def _check_graph(layers: list[Layer], architecture: Architecture) -> None:
    """Compare the graph, layer by layer, with the one that the architecture's conversion gives."""
    expected = _compact_graph(architecture) if isinstance(architecture, Compact) else _rrdb_graph(architecture)
    got = [Layer(layer.kind, _telling(layer)) for layer in layers]
    for number, (layer, wanted) in enumerate(zip(got, expected, strict=False)):
        if layer != wanted:
            raise ModelError(f"layer {number} of the ncnn graph is {_shown(layer)}, expected {_shown(wanted)}")
    if len(got) > len(expected):
        raise ModelError(
            f"the ncnn graph goes on with {_shown(got[len(expected)])} where the network ends: take the file of the "
            f"network itself (the one for scale {architecture.scale}) and --scale"
        )
    if len(got) < len(expected):
        raise ModelError(f"the ncnn graph ends before {_shown(expected[len(got)])}: is the .param complete?")


def _telling(layer: Layer) -> dict[str, str]:
    """The keys that the comparison needs; sizes are compared by `detect`."""
    wanted = {"Convolution": ("9", "-23310"), "Concat": ("0",), "PReLU": ()}.get(layer.kind)
    return {key: value for key, value in layer.keys.items() if wanted is None or key in wanted}


def _shown(layer: Layer) -> str:
    return " ".join([layer.kind, *(f"{key}={value}" for key, value in layer.keys.items())])


def _rrdb_graph(architecture: RRDB) -> list[Layer]:
    plain, active = Layer("Convolution", {}), Layer("Convolution", _LEAKY_RELU)
    scaled_sum = Layer("Eltwise", _SUM_WITH_BRANCH_SCALED)
    dense = [active, Layer("Concat", {})] * 4 + [plain, scaled_sum]
    up = [Layer("Interp", {"0": "1", "1": "2", "2": "2"}), active]
    blocks = (dense * 3 + [scaled_sum]) * architecture.blocks
    return [plain, *blocks, plain, Layer("BinaryOp", {}), *up * architecture.upsamplings, active, plain]


def _compact_graph(architecture: Compact) -> list[Layer]:
    scale = str(architecture.scale)
    chain = [Layer("Convolution", {}), Layer("PReLU", {})] * (architecture.convs + 1)
    shuffle, nearest = Layer("PixelShuffle", {"0": scale}), Layer("Interp", {"0": "1", "1": scale, "2": scale})
    return [*chain, Layer("Convolution", {}), shuffle, nearest, Layer("BinaryOp", {})]

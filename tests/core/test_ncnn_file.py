import struct

import numpy as np
import pytest

from realesr.architectures import RRDB, Compact
from realesr.errors import ModelError
from realesr.ncnn_file import read_ncnn
from realesr.weights import read_weights
from realesr.zoo import ZOO, find_file
from tests.core.small_networks import small_state

SMALL_RRDB = RRDB(scale=4, features=8, blocks=2, growth=4)
SMALL_COMPACT = Compact(scale=3, features=8, convs=2)
LEAKY = "9=2 -23310=1,2.000000e-01"


def _conv(shape, more=""):
    return f"Convolution c 1 1 a b 0={shape[0]} 1=3 4=1 5=1 6={np.prod(shape)} {more}"


def _rrdb_lines(architecture):
    """The layers that the official conversion gives, with their wiring left vague."""
    lines = ["Input i 0 1 data"]
    for key, shape in architecture.shapes.items():
        name = key.removesuffix(".weight")
        if key.endswith(".bias"):
            continue
        if name.startswith("conv_up"):
            lines.append("Interp r 1 1 a b 0=1 1=2.000000e+00 2=2.000000e+00")
        if "rdb" in name and not name.endswith("conv1"):
            lines.append(f"Concat k {name[-1]} 1 " + "a " * int(name[-1]) + "b")
        is_plain = name.endswith(("conv5", "conv_first", "conv_body", "conv_last"))
        lines.append(_conv(shape, "" if is_plain else LEAKY))
        lines += ["Split s 1 2 a b c"]
        lines += ["Eltwise e 2 1 a b c 0=1 -23301=2,2.000000e-01,1.000000e+00"] * (name.endswith("conv5"))
        lines += ["Eltwise e 2 1 a b c 0=1 -23301=2,2.000000e-01,1.000000e+00"] * (name.endswith("rdb3.conv5"))
        lines += ["BinaryOp b 2 1 a b c"] * (name == "conv_body")
    return lines


def _compact_lines(architecture):
    lines = ["Input i 0 1 data", "Split s 1 2 data a b"]
    for key, shape in architecture.shapes.items():
        if key.endswith(".weight"):
            lines.append(_conv(shape) if len(shape) == 4 else f"PReLU p 1 1 a b 0={shape[0]}")
    scale = f"{architecture.scale:e}"
    lines += [f"PixelShuffle d 1 1 a b 0={architecture.scale}", f"Interp r 1 1 a b 0=1 1={scale} 2={scale}"]
    return [*lines, "BinaryOp b 2 1 a b output"]


def _param(lines):
    return "\n".join(["7767517", f"{len(lines)} 99", *lines, ""])


def _bin(state, tag=0x01306B47):
    parts = []
    for array in state.values():
        if array.ndim == 4:
            weight = array.astype("<f2" if tag == 0x01306B47 else "<f4").tobytes()
            parts.append(struct.pack("<I", tag) + weight + b"\0" * (-len(weight) % 4))
        else:
            parts.append(array.astype("<f4").tobytes())
    return b"".join(parts)


def _lines(architecture):
    return _rrdb_lines(architecture) if isinstance(architecture, RRDB) else _compact_lines(architecture)


@pytest.mark.parametrize("tag", [0x01306B47, 0x00000000, 0x0002C056])
@pytest.mark.parametrize("architecture", [SMALL_RRDB, SMALL_COMPACT], ids=str)
def test_weights_come_back_from_both_float_formats(architecture, tag):
    state = small_state(architecture)
    found, read = read_ncnn(_param(_lines(architecture)), _bin(state, tag))
    assert found == architecture
    assert list(read) == list(architecture.shapes)
    for key, array in read.items():
        is_rounded = tag == 0x01306B47 and array.ndim == 4
        expected = state[key].astype(np.float16) if is_rounded else state[key]
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, expected.astype(np.float32))


def test_an_odd_number_of_float16_weights_is_padded_to_four_bytes():
    architecture = Compact(scale=1, features=1, convs=1)
    state = small_state(architecture)
    assert state["body.0.weight"].size % 2
    _, read = read_ncnn(_param(_lines(architecture)), _bin(state))
    np.testing.assert_array_equal(read["body.4.bias"], state["body.4.bias"])


@pytest.mark.parametrize("given", ["net.bin", "net.param"])
def test_either_of_the_two_paths_may_be_given(tmp_path, given):
    (tmp_path / "net.bin").write_bytes(_bin(small_state(SMALL_COMPACT)))
    (tmp_path / "net.param").write_text(_param(_lines(SMALL_COMPACT)))
    weights = read_weights(tmp_path / given)
    assert weights.name == "net"
    assert weights.architecture == SMALL_COMPACT


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda lines: lines.append("Interp r 1 1 a b 0=3 1=5.000000e-01 2=5.000000e-01"),
            "goes on with Interp 0=3 1=0.5",
        ),
        (lambda lines: lines.pop(), "ends before BinaryOp"),
        (lambda lines: lines.insert(3, "Sigmoid s 1 1 a b"), "layer 1 of the ncnn graph is Sigmoid, expected PReLU"),
        (lambda lines: lines.__setitem__(2, lines[2] + LEAKY), "layer 0 of the ncnn graph is Convolution 9=2"),
        (lambda lines: lines.__setitem__(2, lines[2].replace("1=3", "1=5")), "expected 3x3, stride 1"),
        (lambda lines: lines.__setitem__(2, lines[2] + "3=2"), "expected 3x3, stride 1"),
        (lambda lines: lines.__setitem__(2, lines[2].replace("5=1", "5=0")), "expected 3x3, stride 1"),
        (lambda lines: lines.__setitem__(3, "PReLU p 1 1 a b"), "a PReLU without a number 0"),
        (lambda lines: lines.__setitem__(3, "PReLU p one 1 a b"), "has the line 'PReLU p one"),
        (
            lambda lines: lines.__setitem__(-2, "Interp r 1 1 a b 0=2 1=3 2=3"),
            "is Interp 0=2 1=3 2=3, expected Interp 0=1",
        ),
        (lambda lines: lines.__setitem__(-1, "BinaryOp b 2 1 a b c 0=2"), "is BinaryOp 0=2, expected BinaryOp"),
    ],
)
def test_graphs_that_would_compute_something_else_are_refused(change, message):
    lines = _lines(SMALL_COMPACT)
    change(lines)
    with pytest.raises(ModelError, match=message):
        read_ncnn(_param(lines), _bin(small_state(SMALL_COMPACT)))


def test_other_residual_scales_are_refused():
    lines = [line.replace("2,2.000000e-01", "2,3.000000e-01") for line in _lines(SMALL_RRDB)]
    with pytest.raises(ModelError, match=r"is Eltwise 0=1 -23301=2,0.3,1, expected Eltwise 0=1 -23301=2,0.2,1"):
        read_ncnn(_param(lines), _bin(small_state(SMALL_RRDB)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda data: data[:-1], "ends after"),
        (lambda data: data[:2], "ends after 2 bytes"),
        (lambda data: b"", "ends after 0 bytes"),
        (lambda data: data + b"\0", "by its .param: not a pair"),
        (lambda data: struct.pack("<I", 0x000D4B38) + data[4:], "format 0x000d4b38: expected float16 or float32"),
    ],
)
def test_bytes_that_do_not_fit_the_graph_are_refused(content, message):
    with pytest.raises(ModelError, match=message):
        read_ncnn(_param(_lines(SMALL_COMPACT)), content(_bin(small_state(SMALL_COMPACT))))


@pytest.mark.parametrize(
    ("param", "message"),
    [
        ("", "begins with '', expected 7767517"),
        ("\0\1binary", "is it the text form"),
        ("7767517", "announces  layers"),
        ("7767517\n3 3\nInput i 0 1 data\n", "announces 3 layers but holds 1: truncated"),
        ("7767517\n1 1\nInput i 0 1 data\n", "0 convolutions"),
        ("7767517\n1 1\nConvolution c 1 1 a b 0=99999999999 1=3 4=1 5=1 6=899999999991\n", "ends after 0 bytes"),
    ],
)
def test_params_that_are_none_are_refused(param, message):
    with pytest.raises(ModelError, match=message):
        read_ncnn(param, b"")


@pytest.mark.weights
@pytest.mark.parametrize(
    ("name", "parameters"),
    [("realesrgan-x4plus", 16_697_987), ("realesrgan-x4plus-anime", 4_467_779), ("realesr-animevideov3", 621_424)],
)
def test_official_ncnn_files_are_read_whole(name, parameters):
    path = find_file(ZOO[name])
    assert path is not None
    weights = read_weights(path)
    assert weights.architecture == ZOO[name].architecture
    assert sum(array.size for array in weights.state.values()) == parameters
    assert all(np.isfinite(array).all() for array in weights.state.values())


@pytest.mark.weights
def test_the_x2_file_of_the_package_is_refused_with_the_way_out():
    path = find_file(ZOO["realesr-animevideov3"]).with_name("realesr-animevideov3-x2.param")
    with pytest.raises(ModelError, match=r"goes on with Interp 0=3 1=0.5 2=0.5 .* and --scale"):
        read_weights(path)

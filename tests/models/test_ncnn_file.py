import random
import struct
import time

import numpy as np
import pytest

from realesr.errors import ModelError
from realesr.models import ncnn_file
from realesr.models.compact import Compact
from realesr.models.layers import IMAGE, Activated, Activation, ChannelSlice, Concatenation, PixelShuffle, ScaledSum
from realesr.models.ncnn_file import read_ncnn
from realesr.models.ncnn_graph import ncnn_files
from realesr.models.rrdb import RRDB
from realesr.models.weights import read_weights
from realesr.models.zoo import ZOO, find_file
from tests.models.layer_lists import GATED, LAYER_LISTS, LayerList, conv
from tests.models.small_networks import SMALL, small_state, small_weights

SMALL_RRDB = RRDB(scale=4, features=8, blocks=2, growth=4)
SMALL_COMPACT = Compact(scale=3, features=8, convs=2)
LEAKY = "9=2 -23310=1,2.000000e-01"


def _conv(name, source, shape, more=""):
    return f"Convolution {name} 1 1 {source} {name} 0={shape[0]} 1=3 4=1 5=1 6={np.prod(shape)} {more}".rstrip()


def _rrdb_lines(architecture):
    """The layers that the official conversion gives, but for its Splits."""
    lines = ["Input i 0 1 data"]
    x = outer = "data"
    dense: list[str] = []
    for name in [layer.name for layer in architecture.convolutions]:
        block, _, number = name.rpartition(".conv")
        source = x
        if name.startswith("conv_up"):
            source = f"{name}.in"
            lines.append(f"Interp r 1 1 {x} {source} 0=1 1=2.000000e+00 2=2.000000e+00")
        if "rdb" in name:
            dense = [x] if number == "1" else [*dense, f"{block}.conv{int(number) - 1}"]
            source = f"{name}.in" if number > "1" else x
            lines += [f"Concat k {number} 1 {' '.join(dense)} {source}"] * (number > "1")
        is_plain = name.endswith(("conv5", "conv_first", "conv_body", "conv_last"))
        lines.append(_conv(name, source, architecture.shapes[f"{name}.weight"], "" if is_plain else LEAKY))
        if number == "5":
            lines.append(f"Eltwise e 2 1 {name} {x} {block} 0=1 -23301=2,2.000000e-01,1.000000e+00")
            outer = x if block.endswith("rdb1") else outer
            x = block
        if name.endswith("rdb3.conv5"):
            lines.append(f"Eltwise e 2 1 {x} {outer} {name}.sum 0=1 -23301=2,2.000000e-01,1.000000e+00")
            x = f"{name}.sum"
        if name == "conv_body":
            lines.append("BinaryOp b 2 1 conv_first conv_body body")
        if "rdb" not in name:
            x = "body" if name == "conv_body" else name
    return lines


def _compact_lines(architecture):
    lines = ["Input i 0 1 data", "Split s 1 2 data x image"]
    x = "x"
    for key, shape in architecture.shapes.items():
        if key.endswith(".weight"):
            lines.append(_conv(key, x, shape) if len(shape) == 4 else f"PReLU p 1 1 {x} {key} 0={shape[0]}")
            x = key
    scale = f"{architecture.scale:e}"
    lines.append(f"PixelShuffle d 1 1 {x} residual 0={architecture.scale}")
    lines.append(f"Interp r 1 1 image enlarged 0=1 1={scale} 2={scale}")
    return [*lines, "BinaryOp b 2 1 residual enlarged output"]


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


def _with_sigmoid(lines):
    lines.insert(3, "Sigmoid s 1 1 body.0.weight s")
    lines[4] = lines[4].replace(" body.0.weight ", " s ")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda lines: lines.append("Interp r 1 1 output small 0=3 1=5.000000e-01 2=5.000000e-01"),
            "goes on with Interp 0=3 1=0.5 2=0.5 where the network ends",
        ),
        (lambda lines: lines.pop(), "ends before BinaryOp"),
        (_with_sigmoid, "layer 1 of the ncnn graph is Sigmoid, expected PReLU"),
        (
            lambda lines: lines.__setitem__(2, f"{lines[2]} {LEAKY}"),
            "layer 0 of the ncnn graph is Convolution .*9=2 -23310=1,0.2, expected PReLU 0=8",
        ),
        (lambda lines: lines.__setitem__(2, lines[2].replace("1=3", "1=5")), "expected a square odd kernel, stride 1"),
        (lambda lines: lines.__setitem__(2, lines[2] + " 3=2"), "expected a square odd kernel, stride 1"),
        (lambda lines: lines.__setitem__(2, lines[2] + " 18=1.000000e+00"), "and a padding with zeros that keeps"),
        (
            lambda lines: lines.__setitem__(2, lines[2].replace("5=1", "5=0")),
            "is Convolution .* 5=0 .*, expected .* 5=1",
        ),
        (lambda lines: lines.__setitem__(2, lines[2] + " 9=3"), "none of the activations but ReLU"),
        (lambda lines: lines.__setitem__(3, "PReLU p 1 1 body.0.weight a"), "a PReLU without a number 0"),
        (lambda lines: lines.__setitem__(3, "PReLU p one 1 a b"), "has the line 'PReLU p one"),
        (
            lambda lines: lines.__setitem__(3, "Exp p 1 1 body.0.weight a"),
            "layer of the kind Exp, which realesr does not",
        ),
        (lambda lines: lines.__setitem__(3, "Softmax p 2 1 body.0.weight x a"), "layer of the kind Softmax, which"),
        (
            lambda lines: lines.__setitem__(-2, "Interp r 1 1 image enlarged 0=2 1=3 2=3"),
            "is Interp 0=2 1=3 2=3, expected Interp 0=1 1=3 2=3",
        ),
        (
            lambda lines: lines.__setitem__(-1, "BinaryOp b 2 1 residual enlarged output 0=2"),
            "is BinaryOp 0=2, expected BinaryOp",
        ),
        (lambda lines: lines.__setitem__(-1, "BinaryOp b 2 1 residual lost output"), "reads 'lost', which is not made"),
        (lambda lines: lines.insert(2, "Input i 0 1 more"), "expected one image, before all else"),
        (lambda lines: lines.insert(2, "Sigmoid s 1 1 x image"), "two results called 'image'"),
        (lambda lines: lines.__setitem__(-1, "Sigmoid b 2 1 residual enlarged output"), "expected one source"),
    ],
)
def test_graphs_that_would_compute_something_else_are_refused(change, message):
    lines = _lines(SMALL_COMPACT)
    change(lines)
    with pytest.raises(ModelError, match=message):
        read_ncnn(_param(lines), _bin(small_state(SMALL_COMPACT)))


def test_layers_that_are_joined_otherwise_are_refused():
    """A concatenation in another order."""
    lines = _lines(SMALL_RRDB)
    wrong = [
        line.replace("body.0.rdb1.conv1 body.0.rdb1.conv2 ", "body.0.rdb1.conv2 body.0.rdb1.conv1 ") for line in lines
    ]
    assert wrong != lines
    with pytest.raises(ModelError, match=r"layer 4 .* is Concat, expected Concat that reads other results"):
        read_ncnn(_param(wrong), _bin(small_state(SMALL_RRDB)))


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
        (_param(_lines(Compact(scale=1, features=99999999999, convs=0))), "ends after 0 bytes"),
    ],
)
def test_params_that_are_none_are_refused(param, message):
    with pytest.raises(ModelError, match=message):
        read_ncnn(param, b"")


@pytest.fixture
def only(monkeypatch):
    """Let the reader know one network alone."""
    return lambda architecture: monkeypatch.setattr(ncnn_file, "candidates", lambda shapes: [architecture])


def _assert_read(param, data, weights):
    found, state = read_ncnn(param, data)
    assert found == weights.architecture
    assert list(state) == list(found.shapes)
    assert all(np.array_equal(state[key], weights.state[key]) for key in state)


SLOPES = LayerList(
    title="slopes by themselves",
    layers=(
        conv("first", IMAGE, 3, 3),
        Activated(name="active", source="first", activation=Activation(kind="prelu", slopes="active.slopes")),
        ScaledSum(name="last", terms=(("active", 1.0), ("first", 1.0))),
    ),
)


@pytest.mark.parametrize("architecture", [*LAYER_LISTS, SLOPES], ids=str)
def test_every_kind_of_layer_is_read_back_to_the_last_bit(only, architecture):
    only(architecture)
    weights = small_weights(architecture)
    _assert_read(*ncnn_files(weights), weights)


def test_names_mean_nothing(only):
    """Every blob is called after its place in the file, as onnx2ncnn does."""
    only(GATED)
    weights = small_weights(GATED)
    param, data = ncnn_files(weights)
    names: dict[str, str] = {}
    lines = []
    for line in param.splitlines()[2:]:
        kind, _, inputs, outputs, *words = line.split()
        blobs = int(inputs) + int(outputs)
        renamed = [names.setdefault(word, str(len(names))) for word in words[:blobs]]
        lines.append(" ".join([kind, "x", inputs, outputs, *renamed, *words[blobs:]]))
    _assert_read(_param(lines), data, weights)


MEAN = np.array([0.4488, 0.4371, 0.4040], np.float32)


def _with_mean(weights, lines_of_the_image):
    """The official conversion of a gated network: a constant mean and a scalar before the first convolution."""
    param, data = ncnn_files(weights)
    lines = param.splitlines()[2:]
    assert lines[1].startswith("ConvolutionDepthWise shift.out 1 1 data shift.out")
    lines[1:2] = ["MemoryData m 0 1 mean 0=1 1=1 2=3", *lines_of_the_image]
    return _param(lines), MEAN.tobytes() + data[4 + 12 + 12 :]


@pytest.mark.parametrize(
    ("lines_of_the_image", "factor", "sign"),
    [
        (["BinaryOp s 2 1 data mean shift.out 0=1"], 1, -1),
        (["BinaryOp s 2 1 data mean centred 0=1", "BinaryOp m 1 1 centred shift.out 0=2 1=1 2=2.550000e+02"], 255, -1),
        (["BinaryOp s 2 1 mean data centred 0=1", "BinaryOp m 1 1 centred shift.out 0=2 1=1 2=-2.550000e+02"], 255, -1),
        (["BinaryOp s 2 1 mean data centred 0=7", "BinaryOp m 1 1 centred shift.out 0=3 1=1 2=5.000000e-01"], 2, -1),
        (["BinaryOp s 2 1 mean data shift.out"], 1, 1),
    ],
)
def test_a_constant_mean_and_a_scalar_are_a_convolution_of_each_channel_by_itself(
    only, lines_of_the_image, factor, sign
):
    only(GATED)
    weights = small_weights(GATED)
    found, state = read_ncnn(*_with_mean(weights, lines_of_the_image))
    assert found == GATED
    np.testing.assert_array_equal(state["shift.weight"], np.full((3, 1, 1, 1), factor, np.float32))
    np.testing.assert_array_equal(state["shift.bias"], (sign * factor * MEAN.astype(np.float64)).astype(np.float32))
    others = state.keys() - {"shift.weight", "shift.bias"}
    assert all(np.array_equal(state[key], weights.state[key]) for key in others)


@pytest.mark.parametrize(
    "lines_of_the_image",
    [
        ["MemoryData o 0 1 one 0=1", "BinaryOp s 2 1 data one shift.out 0=1"],
        ["BinaryOp s 2 1 data mean a0 0=1", "MemoryData o 0 1 two 0=1 1=1 2=2", "BinaryOp s 2 1 a0 two shift.out"],
    ],
)
def test_constants_that_are_not_one_for_each_channel_are_refused(only, lines_of_the_image):
    only(GATED)
    with pytest.raises(ModelError, match="expected one constant for each of 3 channels"):
        read_ncnn(*_with_mean(small_weights(GATED), lines_of_the_image))


SUMS = LayerList(
    title="sums",
    layers=(
        conv("first", IMAGE, 3, 8),
        Activated(name="active", source="first", activation=Activation(kind="relu")),
        ScaledSum(name="sum", terms=(("active", 0.2), ("first", 1.0)), offset=0.1),
        ChannelSlice(name="low", source="sum", first_channel=0, channels=4),
        ChannelSlice(name="high", source="sum", first_channel=4, channels=4),
        Concatenation(name="swapped", sources=("high", "low")),
        conv("last", "swapped", 8, 12, kind="leaky_relu"),
        PixelShuffle(name="large", source="last", factor=2),
    ),
)
TAIL = [
    "Crop c 1 1 sum low -23309=1,0 -23310=1,4 -23311=1,0",
    "Crop c 1 1 sum high -23309=1,4 -23310=1,-233 -23311=1,0",
    "Concat k 2 1 high low swapped 0=0",
    "Convolution c 1 1 swapped last 0=12 1=3 11=3 4=1 14=1 15=1 16=1 5=1 6=864 9=2 -23310=1,1.000000e-01",
    "PixelShuffle d 1 1 last output 0=2",
]
HEAD = ["Input i 0 1 data", "Convolution c 1 1 data first 0=8 1=3 4=1 5=1 6=216", "ReLU r 1 1 first active"]


@pytest.mark.parametrize(
    "sum_lines",
    [
        ["Eltwise e 2 1 active first a 0=1 -23301=2,0.2,1.0", "BinaryOp b 1 1 a sum 0=0 1=1 2=0.1"],
        ["Eltwise e 2 1 first active a 0=1 -23301=2,1.0,0.2", "BinaryOp b 1 1 a sum 0=1 1=1 2=-0.1"],
        ["BinaryOp b 1 1 active a 0=2 1=1 2=0.2", "BinaryOp b 1 1 a c 1=1 2=0.1", "BinaryOp b 2 1 c first sum"],
        ["BinaryOp b 1 1 active a 0=3 1=1 2=-5.0", "BinaryOp b 2 1 first a c 0=1", "BinaryOp b 1 1 c sum 1=1 2=0.1"],
        ["BinaryOp b 1 1 active a 0=2 1=1 2=-0.2", "BinaryOp b 2 1 a first c 0=7", "BinaryOp b 1 1 c sum 1=1 2=0.1"],
    ],
)
@pytest.mark.parametrize("cut", [TAIL[:2], ["Slice s 1 2 sum low high -23300=2,-233,-233 1=0"]])
def test_forms_of_a_graph_that_compute_the_same_are_read(only, sum_lines, cut):
    only(SUMS)
    weights = small_weights(SUMS)
    param = _param([*HEAD, *sum_lines, *cut, *TAIL[2:]])
    _assert_read(param, _bin(weights.state, 0), weights)


@pytest.mark.parametrize(
    ("sum_line", "message"),
    [
        ("BinaryOp b 2 1 active first sum 0=4", "layer 2 .* is BinaryOp 0=4, expected Eltwise 0=1 -23301=2,0.2,1"),
        ("Eltwise e 2 1 active first sum 0=2", "layer 2 .* is Eltwise 0=2, expected Eltwise 0=1 -23301=2,0.2,1"),
        (
            "Eltwise e 2 1 active first sum 0=1 -23301=2,0.2,1.0",
            "layer 3 .* is Crop .*, expected BinaryOp 0=0 1=1 2=0.1",
        ),
    ],
)
def test_forms_that_compute_something_else_are_refused(only, sum_line, message):
    only(SUMS)
    with pytest.raises(ModelError, match=message):
        read_ncnn(_param([*HEAD, sum_line, *TAIL]), _bin(small_state(SUMS), 0))


def test_convolutions_of_one_shape_that_read_the_same_are_told_apart_by_who_reads_them(only):
    layers = (conv("a", IMAGE, 3, 3), conv("b", IMAGE, 3, 3), Concatenation(name="all", sources=("b", "a")))
    twins = LayerList(title="twins", layers=(*layers, conv("last", "all", 6, 3)))
    only(twins)
    weights = small_weights(twins)
    param, data = ncnn_files(weights)
    _assert_read(param, data, weights)
    _, state = read_ncnn(param.replace("b.out a.out all", "a.out b.out all"), data)
    np.testing.assert_array_equal(state["a.weight"], weights.state["b.weight"])
    with pytest.raises(ModelError, match="has the layers of a twins, but joins them otherwise"):
        read_ncnn(param.replace("b.out a.out all", "a.out a.out all"), data)


def test_one_slope_for_all_channels_is_refused():
    lines, state = _lines(SMALL_COMPACT), small_state(SMALL_COMPACT)
    lines[3] = lines[3].replace("0=8", "0=1")
    state["body.1.weight"] = state["body.1.weight"][:1]
    with pytest.raises(ModelError, match=r"an array \(1,\), expected \(8,\) for body.1.weight"):
        read_ncnn(_param(lines), _bin(state))


def test_a_chain_of_thousands_of_layers_is_read_in_a_moment():
    architecture = Compact(scale=1, features=1, convs=3000)
    weights = small_weights(architecture)
    began = time.process_time()
    _assert_read(*ncnn_files(weights), weights)
    assert time.process_time() - began < 10


@pytest.mark.parametrize(
    "lines",
    [
        ["Input i 0 1 0", *(f"Concat k 2 1 {n} {n} {n + 1}" for n in range(20000))],
        ["Input i 0 1 0", *(f"BinaryOp b 2 1 {n} {n} {n + 1}" for n in range(20000))],
        ["Input i 0 1 0", *(f"Reorg r 1 1 {n} {n + 1} 0=64" for n in range(20000))],
        ["Input i 0 1 0", *(f"BinaryOp b 1 1 {n} {n + 1} 0=2 1=1 2=1.000000e+30" for n in range(20000))],
        ["Input i 0 1 0", *(f"Sigmoid s 1 1 0 {n + 1}" for n in range(20000))],
        ["Input i 0 1 0", f"Slice s 1 20000 0 {' '.join(map(str, range(1, 20001)))} -23300=20000{',-233' * 20000}"],
        ["Input i 0 1 0", f"Reorg r 1 1 0 1 0={'9' * 5000}"],
        ["Input i 0 1 0", f"Convolution c 1 1 0 1 0=1 1={'9' * 2000} 6=1"],
        ["Input i 0 1 0", "MemoryData m 0 1 m 0=1 1=1 2=999999999999999", "BinaryOp b 2 1 0 m o"],
    ],
)
def test_graphs_that_are_made_to_take_long_are_refused_in_a_moment(lines):
    began = time.process_time()
    with pytest.raises(ModelError):
        read_ncnn(_param(lines), b"")
    assert time.process_time() - began < 10


def test_texts_of_any_length_are_not_read():
    with pytest.raises(ModelError, match=r"has 16,777,217 characters: expected a network, at most 16,777,216"):
        read_ncnn(" " * ((1 << 24) + 1), b"")


@pytest.mark.parametrize("architecture", [SMALL[0], SMALL[6], GATED], ids=str)
def test_damaged_graphs_are_read_or_refused_but_never_crash(only, architecture):
    if isinstance(architecture, LayerList):
        only(architecture)
    param, data = ncnn_files(small_weights(architecture))
    words = param.split(" ")
    rng = random.Random(0)
    for _ in range(300):
        damaged = list(words)
        for _ in range(rng.choice((1, 1, 2, 5))):
            place = rng.randrange(3, len(damaged))
            damaged[place] = rng.choice(
                (
                    rng.choice(words),
                    "-1",
                    "0=0",
                    "1=-5",
                    "6=1e9",
                    "0=nan",
                    "2=inf",
                    "-23301=2,x",
                    "data",
                    "",
                    "0=999999999",
                )
            )
        try:
            found, _ = read_ncnn(" ".join(damaged), data)
        except ModelError:
            continue
        assert found == architecture


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
    with pytest.raises(ModelError, match=r"goes on with Interp 0=3 1=0.5 2=0.5 .* and resize what it gives"):
        read_weights(path)

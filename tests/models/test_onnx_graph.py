import hashlib
import os
import warnings

import numpy as np
import onnx
import pytest
import torch

from realesr import __version__
from realesr.errors import ModelError, UsageError
from realesr.models.compact import Compact
from realesr.models.graph_options import NEWEST_OPSET, OLDEST_OPSET, GraphOptions
from realesr.models.onnx_graph import cached_onnx, conv_names, graph_bytes, onnx_bytes
from realesr.models.recognition import architecture_from_text
from realesr.models.rrdb import RRDB
from realesr.models.weights import Weights
from realesr.models.zoo import load_model
from realesr.networks import build
from tests.models.small_networks import SMALL, small_weights


def _run(model, batch):
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"input": batch})[0]


def _module(weights):
    net = build(weights.architecture).eval()
    net.load_state_dict({key: torch.from_numpy(array) for key, array in weights.state.items()}, strict=True)
    return net


def _batch(architecture, count=2, height=5, width=7):
    rng = np.random.default_rng(1)
    multiple = architecture.multiple_of
    return rng.random((count, 3, height * multiple, width * multiple), np.float32)


@pytest.mark.parametrize("architecture", SMALL, ids=str)
def test_the_graph_computes_what_the_torch_module_computes(architecture):
    weights, batch = small_weights(architecture), _batch(architecture)
    with torch.no_grad():
        expected = _module(weights)(torch.from_numpy(batch)).numpy()
    got = _run(onnx_bytes(weights), batch)
    assert got.dtype == np.float32
    assert got.shape == (2, 3, batch.shape[2] * architecture.scale, batch.shape[3] * architecture.scale)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("architecture", [SMALL[0], SMALL[1], SMALL[6]], ids=str)
def test_the_graph_computes_what_torchs_own_export_computes(architecture, tmp_path):
    weights, batch = small_weights(architecture), _batch(architecture)
    dims = {0: torch.export.Dim("n"), 2: None, 3: None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about its own insides
        program = torch.onnx.export(
            _module(weights), (torch.from_numpy(batch),), dynamo=True, verbose=False, input_names=["input"],
            dynamic_shapes={"lr": dims},
        )  # fmt: skip
    program.save(tmp_path / "oracle.onnx", external_data=False)
    expected = _run((tmp_path / "oracle.onnx").read_bytes(), batch)
    np.testing.assert_allclose(_run(onnx_bytes(weights), batch), expected, atol=1e-5)


@pytest.mark.parametrize("architecture", [SMALL[0], SMALL[1], SMALL[6], SMALL[8]], ids=str)
def test_a_float16_body_keeps_float32_outside_and_differs_by_rounding_only(architecture):
    weights, batch = small_weights(architecture), _batch(architecture)
    model = onnx.load_model_from_string(onnx_bytes(weights, "fp16"))
    body = [tensor for tensor in model.graph.initializer if not tensor.name.endswith(".scales")]
    assert {tensor.data_type for tensor in body} == {onnx.TensorProto.FLOAT16}
    difference = np.abs(_run(onnx_bytes(weights, "fp16"), batch) - _run(onnx_bytes(weights), batch))
    assert 0 < difference.max() < 0.02


def test_a_sides_that_the_unshuffle_cannot_divide_are_refused():
    with pytest.raises(Exception, match=r"(?i)SpaceToDepth"):
        _run(onnx_bytes(small_weights(SMALL[1])), np.zeros((1, 3, 5, 6), np.float32))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("architecture", SMALL, ids=str)
def test_graphs_are_valid_onnx_of_opset_18_and_say_what_they_are(architecture, precision):
    weights = small_weights(architecture, seed=3)
    model = onnx.load_model_from_string(onnx_bytes(weights, precision))
    onnx.checker.check_model(model, full_check=True)
    assert [(item.domain, item.version) for item in model.opset_import] == [("", 18)]
    assert model.ir_version == 8
    facts = {item.key.removeprefix("realesr."): item.value for item in model.metadata_props}
    assert architecture_from_text(facts.pop("architecture")) == architecture
    assert facts.pop("precision", "fp32") == precision
    assert facts == {
        "scale": str(architecture.scale),
        "radius_px": str(architecture.radius_px),
        "multiple_of": str(architecture.multiple_of),
        "sha256": weights.sha256,
        "version": __version__,
    }


def test_the_same_weights_give_the_same_bytes():
    assert onnx_bytes(small_weights(SMALL[0])) == onnx_bytes(small_weights(SMALL[0]))


FORMS = [
    GraphOptions(opset=OLDEST_OPSET),
    GraphOptions(opset=OLDEST_OPSET, precision="fp16"),
    GraphOptions(opset=NEWEST_OPSET),
    GraphOptions(opset=NEWEST_OPSET, precision="fp16"),
    GraphOptions(shape_nhw=(2, 8, 12)),
    GraphOptions(uint8=True),
    GraphOptions(opset=OLDEST_OPSET, uint8=True, shape_nhw=(2, 8, 12), precision="fp16"),
]


@pytest.mark.parametrize("options", FORMS, ids=str)
@pytest.mark.parametrize("architecture", SMALL, ids=str)
def test_every_form_is_valid_has_the_same_bytes_twice_and_computes_the_same(architecture, options):
    weights, rng = small_weights(architecture), np.random.default_rng(2)
    model = graph_bytes(weights, options)
    assert model == graph_bytes(weights, options)
    proto = onnx.load_model_from_string(model)
    onnx.checker.check_model(proto, full_check=True)
    assert proto.opset_import[0].version == options.opset
    batch = rng.integers(0, 256, (2, 3, 8, 12)).astype(np.uint8)
    image = batch.astype(np.float32) / 255
    expected, got = _run(onnx_bytes(weights), image), _run(model, batch if options.uint8 else image)
    if options.uint8:
        assert got.dtype == np.uint8
        expected, got = np.rint(expected.clip(0, 1) * 255), got.astype(np.float32)
        assert np.ptp(expected) > 100
    tolerance = {"fp32": 1e-6, "fp16": 0.02}[options.precision] if not options.uint8 else 1
    np.testing.assert_allclose(got, expected, atol=tolerance)


def test_a_fixed_shape_stands_in_the_file_and_no_other_is_taken():
    model = graph_bytes(small_weights(SMALL[0]), GraphOptions(shape_nhw=(2, 8, 12)))
    graph = onnx.load_model_from_string(model).graph
    for value, shape in ((graph.input[0], [2, 3, 8, 12]), (graph.output[0], [2, 3, 32, 48])):
        assert [dim.dim_value for dim in value.type.tensor_type.shape.dim] == shape
    with pytest.raises(Exception, match=r"(?i)invalid dimensions"):
        _run(model, np.zeros((1, 3, 8, 12), np.float32))


def test_integers_are_converted_as_files_are():
    # With zero weights a compact network repeats its input's pixels.
    architecture = Compact(scale=2, features=4, convs=1)
    state = {key: np.zeros(shape, np.float32) for key, shape in architecture.shapes.items()}
    levels = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16).repeat(3, 1)
    got = _run(graph_bytes(Weights("zero", architecture, state, ""), GraphOptions(uint8=True)), levels)
    assert np.array_equal(got, levels.repeat(2, 2).repeat(2, 3))


@pytest.mark.parametrize("architecture", [SMALL[0], SMALL[1], SMALL[3], SMALL[6]], ids=str)
def test_any_convolution_may_stay_in_float32(architecture):
    weights, batch = small_weights(architecture), _batch(architecture)
    exact, coarse = _run(onnx_bytes(weights), batch), _run(onnx_bytes(weights, "fp16"), batch)
    names = conv_names(architecture)
    for name in {names[0], *names[1:-4:6], *names[-4:]}:  # of dense blocks one of each place
        model = graph_bytes(weights, GraphOptions(precision="fp16", fp32_convs=(name,)))
        proto = onnx.load_model_from_string(model)
        onnx.checker.check_model(proto, full_check=True)
        types = {tensor.name: tensor.data_type for tensor in proto.graph.initializer}
        wide = {key for key, kind in types.items() if kind == onnx.TensorProto.FLOAT and key in architecture.shapes}
        assert {f"{name}.weight", f"{name}.bias"} <= wide
        assert all(conv == name or f"{conv}.weight" not in wide for conv in conv_names(architecture))
        got = _run(model, batch)
        assert not np.array_equal(got, coarse)
        np.testing.assert_allclose(got, exact, atol=0.02)
    everywhere = GraphOptions(precision="fp16", fp32_convs=conv_names(architecture))
    np.testing.assert_allclose(_run(graph_bytes(weights, everywhere), batch), exact, atol=1e-6)


def test_values_between_two_float32_convolutions_may_leave_the_range_of_float16():
    architecture = Compact(scale=2, features=4, convs=1)
    weights = small_weights(architecture)
    weights.state["body.0.weight"] *= 1e6
    weights.state["body.2.weight"] *= 1e-6
    batch = _batch(architecture)
    exact = _run(onnx_bytes(weights), batch)
    assert not np.isfinite(_run(onnx_bytes(weights, "fp16"), batch)).all()
    both = GraphOptions(precision="fp16", fp32_convs=("body.0", "body.2"))
    np.testing.assert_allclose(_run(graph_bytes(weights, both), batch), exact, atol=0.02)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"opset": OLDEST_OPSET - 1}, "got the opset 12, expected 13 to 25"),
        ({"opset": NEWEST_OPSET + 1}, "got the opset 26, expected 13 to 25"),
        ({"shape_nhw": (1, 0, 8)}, r"got the shape \(1, 0, 8\), expected three numbers from 1"),
        ({"fp32_convs": ("conv_last",)}, "expected them with fp16"),
    ],
)
def test_options_that_make_no_sense_are_refused(fields, words):
    with pytest.raises(UsageError, match=words):
        GraphOptions(**fields)


def test_options_that_do_not_fit_the_network_are_refused():
    with pytest.raises(UsageError, match=r"RRDBNet x4: .* has no convolution body\.0: expected names like"):
        graph_bytes(small_weights(SMALL[0]), GraphOptions(precision="fp16", fp32_convs=("conv_last", "body.0")))
    with pytest.raises(UsageError, match="got the shape 8 x 9, expected sides that are multiples of 2 px"):
        graph_bytes(small_weights(SMALL[1]), GraphOptions(shape_nhw=(1, 8, 9)))


def test_bf16_is_refused_for_onnx():
    with pytest.raises(UsageError, match="bf16 is not for ONNX: expected fp32 or fp16"):
        onnx_bytes(small_weights(SMALL[0]), "bf16")


def test_graphs_have_these_nodes():
    kinds = []
    for architecture in (RRDB(scale=2, blocks=1, features=2, growth=2), Compact(scale=2, convs=0, features=2)):
        for precision in ("fp32", "fp16"):
            model = onnx.load_model_from_string(onnx_bytes(small_weights(architecture), precision))
            kinds.append(" ".join(node.op_type for node in model.graph.node))
    dense = ("Conv LeakyRelu " + "Concat Conv LeakyRelu " * 3 + "Concat Conv Mul Add ") * 3
    trunk = f"Conv {dense}Mul Add Conv Add Resize Conv LeakyRelu Resize Conv LeakyRelu Conv LeakyRelu Conv"
    assert kinds == [
        f"SpaceToDepth {trunk}",
        f"SpaceToDepth Cast {trunk} Cast",
        "Conv PRelu Conv DepthToSpace Resize Add",
        "Cast Conv PRelu Conv DepthToSpace Resize Cast Add",
    ]


FP32_FORMS = (GraphOptions(), GraphOptions(shape_nhw=(2, 8, 12)), GraphOptions(uint8=True))
FP16_FORMS = (
    GraphOptions(precision="fp16"),
    GraphOptions(precision="fp16", opset=OLDEST_OPSET, shape_nhw=(2, 8, 12), uint8=True),
)


def _digest(architecture, forms):
    """Return the first half of the SHA-256 of the graphs, without what the model around them says of versions."""
    state = {
        key: (np.arange(np.prod(shape)) % 251 / 251 - 0.5).reshape(shape).astype(np.float32)
        for key, shape in architecture.shapes.items()
    }
    digest = hashlib.sha256()
    for options in forms:
        model = onnx.load_model_from_string(graph_bytes(Weights("fixed", architecture, state, ""), options))
        digest.update(model.graph.SerializeToString(deterministic=True))
    return digest.hexdigest()[:32]


def test_graphs_keep_their_bytes():
    # An engine that was built of a graph is as good as a new one. Where a change is meant, paste here.
    digests = [(_digest(architecture, FP32_FORMS), _digest(architecture, FP16_FORMS)) for architecture in SMALL]
    assert digests == [
        ("ab753de977c4cde4bb14cf698834657a", "ca6fe56ea3bdda4fa5a809c3790d0f63"),
        ("293deef9694cd56ffba131560e2696a0", "592d78df04217c289dabaa608e522511"),
        ("3fe04a502e0b67062019d7fb5c9bd707", "2cdff5a85e94358f1d5b51690b26373a"),
        ("b80259df15dbf6895468362daf774106", "d802078594ce525a89dccc13bcaad7c0"),
        ("d7400a471fc3c43dcfb32c43c52236ff", "815beaa2462d3b1db27313236229a666"),
        ("433c0512a0872842e0faa3998fc8b218", "ffc26d9d0ae7a7904269141e13cdc961"),
        ("7989635027f683d71f45e229302bb8ba", "97cce3b53e9cb8be40c0ff425e7985ac"),
        ("e420aa30cae84e7a241da32d9334b141", "bf4cded9a90b7c1401db3210768ca526"),
        ("906d48db1a807f6e8c9e4156b287d47b", "6471681873f528b94c720182860f8ea3"),
        ("f638785bdeaded51bdef2563eb56deb1", "9fb6f11bf91b690113c3a0199825e232"),
    ]


def test_a_cached_file_is_written_once_and_anew_when_damaged(tmp_path, monkeypatch):
    monkeypatch.setenv("REALESR_CACHE", str(tmp_path))
    weights = small_weights(SMALL[0], seed=5)
    path = cached_onnx(weights, "fp32")
    assert path == tmp_path / "onnx" / "small-000000000000-fp32.onnx"
    assert path.read_bytes() == onnx_bytes(weights)
    written = path.stat().st_mtime_ns
    assert cached_onnx(weights, "fp32").stat().st_mtime_ns == written
    for damage in (b"", b"not onnx", path.read_bytes()[:-1], path.read_bytes()[:-9] + b"\0" * 9):
        path.write_bytes(damage)
        assert cached_onnx(weights, "fp32").read_bytes() == onnx_bytes(weights)
    path.write_bytes(onnx_bytes(small_weights(SMALL[0], seed=6)))
    assert cached_onnx(weights, "fp32").read_bytes() == onnx_bytes(weights)
    assert cached_onnx(weights, "fp16") != path
    assert [file.name for file in path.parent.iterdir() if file.suffix != ".onnx"] == []
    assert not list(tmp_path.rglob("*.part"))


def test_a_cached_file_of_another_version_is_written_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("REALESR_CACHE", str(tmp_path))
    weights = small_weights(SMALL[6])
    with monkeypatch.context() as older:
        older.setattr("realesr.__version__", "0.0.1")
        cached_onnx(weights, "fp32")
    assert cached_onnx(weights, "fp32").read_bytes() == onnx_bytes(weights)


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("REALESR_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelError, match=r"cannot be written .*REALESR_CACHE"):
        cached_onnx(small_weights(SMALL[6]), "fp32")


@pytest.mark.weights
def test_x4plus_keeps_a_flat_colour():
    batch = np.empty((1, 3, 16, 16), np.float32)
    batch[:] = np.array([0.80, 0.50, 0.20], np.float32)[None, :, None, None]
    weights = load_model("realesrgan-x4plus")
    assert isinstance(weights, Weights)
    colour = _run(onnx_bytes(weights), batch).mean((0, 2, 3))
    np.testing.assert_allclose(colour, [0.80, 0.50, 0.20], atol=0.02)

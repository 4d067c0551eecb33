"""Each kind of layer, as the operators that are written for it, against torch."""

import os
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from torch.nn import functional

from realesr.models.graph_options import DEFAULT_OPSET, NEWEST_OPSET, OLDEST_OPSET, GraphOptions
from realesr.models.layers import (
    IMAGE,
    Activated,
    Activation,
    ActivationKind,
    ChannelSlice,
    Concatenation,
    Convolution,
    NearestEnlargement,
    PixelShuffle,
    PixelUnshuffle,
    Product,
    ScaledSum,
)
from realesr.models.onnx_graph import conv_names, graph_bytes
from tests.models.layer_lists import LAYER_LISTS, LayerList, conv
from tests.models.small_networks import small_weights

KINDS: tuple[ActivationKind, ...] = ("relu", "leaky_relu", "prelu", "silu", "gelu", "sigmoid", "mish")


def _run(model, batch):
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"input": batch})[0]


def _activated(activation, x, state):
    match activation.kind:
        case "leaky_relu":
            return functional.leaky_relu(x, activation.slope)
        case "prelu":
            return functional.prelu(x, state[activation.slopes])
        case "sigmoid":
            return torch.sigmoid(x)
    return getattr(functional, activation.kind)(x)


def _result(layer, x, state):
    match layer:
        case Convolution():
            bias = state[f"{layer.name}.bias"] if layer.has_bias else None
            weight = state[f"{layer.name}.weight"]
            y = functional.conv2d(x[0], weight, bias, padding=layer.kernel // 2, groups=layer.groups)
            return _activated(layer.activation, y, state) if layer.activation else y
        case Activated():
            return _activated(layer.activation, x[0], state)
        case Concatenation():
            return torch.cat(x, 1)
        case ScaledSum():
            return sum(factor * y for (_, factor), y in zip(layer.terms, x, strict=True)) + layer.offset
        case Product():
            return x[0] * x[1]
        case PixelShuffle():
            return functional.pixel_shuffle(x[0], layer.factor)
        case PixelUnshuffle():
            return functional.pixel_unshuffle(x[0], layer.factor)
        case NearestEnlargement():
            return functional.interpolate(x[0], scale_factor=layer.factor, mode="nearest")
        case ChannelSlice():
            return x[0][:, layer.first_channel : layer.first_channel + layer.channels]
    raise AssertionError(layer)


def expected_of(weights, batch):
    """Return what torch makes of the layers, one after another."""
    state = {key: torch.from_numpy(array) for key, array in weights.state.items()}
    results = {IMAGE: torch.from_numpy(batch)}
    for layer in weights.architecture.layers:
        results[layer.name] = _result(layer, [results[source] for source in layer.sources], state)
    return results[layer.name].numpy()


def _network(*layers):
    return LayerList(title="one layer", layers=layers)


def _last(source, channels):
    """Return a convolution after which an image is left."""
    return conv("last", source, channels, 3, kernel=1)


ONE_KIND = {
    **{f"a convolution, then {kind}": [conv("c", IMAGE, 3, 8, kind=kind), _last("c", 8)] for kind in KINDS},
    **{
        f"{kind} of a result that another layer reads": [
            conv("c", IMAGE, 3, 3),
            Activated(name="active", source="c", activation=Activation(kind=kind, slope=0.3)),
            ScaledSum(name="sum", terms=(("active", 1.0), ("c", 1.0))),
        ]
        for kind in KINDS
        if kind != "prelu"
    },
    **{f"a kernel of {side}": [conv("c", IMAGE, 3, 3, kernel=side)] for side in (1, 3, 5, 7, 9)},
    "groups": [conv("a", IMAGE, 3, 6, groups=3), conv("b", "a", 6, 8, kernel=5, groups=2), _last("b", 8)],
    "no bias": [conv("c", IMAGE, 3, 3, has_bias=False)],
    "a concatenation": [
        conv("c", IMAGE, 3, 5),
        Concatenation(name="all", sources=("c", IMAGE, "c")),
        _last("all", 13),
    ],
    "a concatenation of one": [Concatenation(name="all", sources=(IMAGE,)), _last("all", 3)],
    "a sum of three, two of them scaled": [
        conv("c", IMAGE, 3, 3),
        conv("d", IMAGE, 3, 3),
        ScaledSum(name="sum", terms=(("c", 0.5), (IMAGE, 1.0), ("d", -2.0))),
    ],
    "a sum of three": [
        conv("c", IMAGE, 3, 3),
        ScaledSum(name="sum", terms=(("c", 1.0), (IMAGE, 1.0), ("c", 1.0))),
    ],
    "sums with one factor and another": [
        ScaledSum(name="first", terms=((IMAGE, 0.2), (IMAGE, 0.1))),
        ScaledSum(name="second", terms=(("first", 0.1), (IMAGE, 0.2))),
    ],
    "an offset": [conv("c", IMAGE, 3, 3), ScaledSum(name="sum", terms=(("c", 1.0),), offset=-0.5)],
    "a factor and an offset": [conv("c", IMAGE, 3, 3), ScaledSum(name="sum", terms=(("c", 3.0),), offset=0.5)],
    "a factor alone": [conv("c", IMAGE, 3, 3), ScaledSum(name="sum", terms=(("c", 3.0),))],
    "a sum of one": [conv("c", IMAGE, 3, 3), ScaledSum(name="sum", terms=(("c", 1.0),))],
    "a product": [conv("c", IMAGE, 3, 3), Product(name="product", sources=(IMAGE, "c"))],
    "a pixel-shuffle": [conv("c", IMAGE, 3, 27), PixelShuffle(name="shuffled", source="c", factor=3)],
    "a nearest-neighbour enlargement": [NearestEnlargement(name="large", source=IMAGE, factor=3), _last("large", 3)],
    "a slice": [
        conv("c", IMAGE, 3, 7),
        ChannelSlice(name="part", source="c", first_channel=2, channels=3),
        _last("part", 3),
    ],
    "a slice at the end": [conv("c", IMAGE, 3, 7), ChannelSlice(name="s", source="c", first_channel=4, channels=3)],
    "a pixel-unshuffle that a convolution reads": [
        PixelUnshuffle(name="blocks", source=IMAGE, factor=2),
        conv("c", "blocks", 12, 12),
        PixelShuffle(name="shuffled", source="c", factor=2),
    ],
    "a pixel-unshuffle that a grouped convolution reads": [
        PixelUnshuffle(name="blocks", source=IMAGE, factor=2),
        conv("c", "blocks", 12, 12, groups=4),
        PixelShuffle(name="shuffled", source="c", factor=2),
    ],
    "a pixel-unshuffle that a convolution and a sum read": [
        PixelUnshuffle(name="blocks", source=IMAGE, factor=2),
        conv("c", "blocks", 12, 12),
        ScaledSum(name="sum", terms=(("c", 1.0), ("blocks", 1.0))),
        PixelShuffle(name="shuffled", source="sum", factor=2),
    ],
    "a pixel-unshuffle that a shuffle takes back": [
        PixelUnshuffle(name="blocks", source=IMAGE, factor=4),
        PixelShuffle(name="shuffled", source="blocks", factor=4),
    ],
}
"""Name of a case -> its layers."""


NETWORKS = [*(replace(_network(*layers), title=title) for title, layers in ONE_KIND.items()), *LAYER_LISTS]


@pytest.mark.parametrize("opset", [OLDEST_OPSET, DEFAULT_OPSET, NEWEST_OPSET])
@pytest.mark.parametrize("architecture", NETWORKS, ids=str)
def test_every_layer_computes_what_torch_computes(architecture, opset):
    weights, rng = small_weights(architecture), np.random.default_rng(1)
    batch = rng.random((2, 3, 8, 12), np.float32)
    model = graph_bytes(weights, GraphOptions(opset=opset))
    onnx.checker.check_model(onnx.load_model_from_string(model), full_check=True)
    expected = expected_of(weights, batch)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(_run(model, batch), expected, atol=2e-6)


@pytest.mark.parametrize("opset", [OLDEST_OPSET, NEWEST_OPSET])
@pytest.mark.parametrize("architecture", NETWORKS, ids=str)
def test_every_layer_is_valid_in_float16_and_differs_by_rounding_only(architecture, opset):
    weights, rng = small_weights(architecture), np.random.default_rng(1)
    batch = rng.random((2, 3, 8, 12), np.float32)
    expected, names = expected_of(weights, batch), conv_names(architecture)
    for fp32_convs in {(), names[:1], names[-1:], names}:
        model = graph_bytes(weights, GraphOptions(opset=opset, precision="fp16", fp32_convs=fp32_convs))
        onnx.checker.check_model(onnx.load_model_from_string(model), full_check=True)
        np.testing.assert_allclose(_run(model, batch), expected, atol=0.02)


def test_what_comes_from_the_image_alone_stays_float32_in_a_float16_body():
    architecture = _network(
        NearestEnlargement(name="large", source=IMAGE, factor=2),
        ScaledSum(name="darker", terms=(("large", 0.3),), offset=0.123),
        conv("c", IMAGE, 3, 12),
        PixelShuffle(name="shuffled", source="c", factor=2),
        ScaledSum(name="sum", terms=(("shuffled", 1.0), ("darker", 1.0))),
    )
    weights = small_weights(architecture)
    for key in weights.state:
        weights.state[key][:] = 0
    batch = np.random.default_rng(1).random((1, 3, 4, 4), np.float32)
    got = _run(graph_bytes(weights, GraphOptions(precision="fp16")), batch)
    np.testing.assert_allclose(got, expected_of(weights, batch), atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_activations_hold_for_values_far_from_zero(kind):
    architecture = _network(conv("c", IMAGE, 3, 3, kernel=1, kind=kind))
    weights = small_weights(architecture)
    weights.state["c.weight"][:] = 60 * np.eye(3, dtype=np.float32)[:, :, None, None]
    weights.state["c.bias"][:] = -30
    batch = np.linspace(0, 1, 3 * 16 * 16, dtype=np.float32).reshape(1, 3, 16, 16)
    expected = expected_of(weights, batch)
    for options, tolerance in ((GraphOptions(), 1e-5), (GraphOptions(precision="fp16"), 0.05)):
        got = _run(graph_bytes(weights, options), batch)
        np.testing.assert_allclose(got, expected, atol=tolerance)

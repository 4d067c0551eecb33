"""Stateful graphs: valid, small, and the same function as the graphs for whole images."""

import itertools
import os
from collections import Counter
from dataclasses import replace
from fractions import Fraction

import numpy as np
import onnx
import pytest

from realesr.errors import UsageError
from realesr.models.layers import IMAGE, PixelUnshuffle
from realesr.models.onnx_graph import conv_names, onnx_bytes
from realesr.models.stateful_graph import StatefulGraph, stateful_graphs
from realesr.models.strip_plan import state_values_per_column
from realesr.runtime.rows import in_chunks
from realesr.runtime.strips import first_rows_px
from tests.models.layer_lists import GATED, LAYER_LISTS, UNSHUFFLED, WIDE, LayerList, conv
from tests.models.small_networks import SMALL, small_weights

EVERY = [*SMALL, *LAYER_LISTS]


def session(content: bytes):
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


class Stage:
    """One graph with its states, without binding."""

    def __init__(self, graph: StatefulGraph, width_px: int) -> None:
        self.graph, self.width_px, self.session = graph, width_px, session(graph.content)
        self.states = [state.zeros(width_px) for state in graph.states]

    def advance(self, rows, is_last: bool):
        feed = {self.graph.input: rows}
        feed |= {state.name: value for state, value in zip(self.graph.states, self.states, strict=True)}
        feed |= {border.name: border.zeros(self.width_px, more_rows=is_last) for border in self.graph.borders}
        result, *self.states = self.session.run(None, feed)
        return result


def in_strips(graphs, image, heights):
    stages = [Stage(graph, image.shape[3]) for graph in graphs]
    parts, top = [], 0
    for height in heights:
        rows = image[:, :, top : top + height]
        top += height
        for stage in stages:
            rows = stage.advance(rows, is_last=top == image.shape[2])
        parts.append(rows)
    return np.concatenate(parts, axis=2)


@pytest.mark.parametrize("architecture", EVERY, ids=str)
def test_strips_equal_the_whole_image_bit_by_bit(architecture):
    weights, multiple, first = small_weights(architecture), architecture.multiple_of, first_rows_px(architecture)
    image = np.random.default_rng(2).random((1, 3, first + 12 * multiple, 9 * multiple), np.float32)
    whole = session(onnx_bytes(weights)).run(None, {"input": image})[0]
    for heights in ([first, multiple, 5 * multiple, 6 * multiple], [first + 11 * multiple, multiple], [image.shape[2]]):
        got = in_strips(stateful_graphs(weights), image, heights)
        assert got.shape == whole.shape
        assert np.array_equal(got, whole), heights


@pytest.mark.parametrize("architecture", EVERY, ids=str)
def test_strips_in_float16_equal_one_strip_bit_by_bit_and_the_whole_image_but_for_rounding(architecture):
    # On a CPU without float16 the library leaves out roundings between layers, other ones in each graph.
    weights, multiple, first = small_weights(architecture), architecture.multiple_of, first_rows_px(architecture)
    image = np.random.default_rng(2).random((1, 3, first + 12 * multiple, 9 * multiple), np.float32)
    whole = session(onnx_bytes(weights, "fp16")).run(None, {"input": image})[0]
    graphs = stateful_graphs(weights, "fp16")
    got = in_strips(graphs, image, [first, multiple, 5 * multiple, 6 * multiple])
    assert np.array_equal(got, in_strips(graphs, image, [image.shape[2]]))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, whole, atol=0.004)


@pytest.mark.parametrize("architecture", EVERY, ids=str)
def test_an_image_lower_than_any_strip_is_one(architecture):
    weights, multiple = small_weights(architecture), architecture.multiple_of
    for rows in (1, 2, 3):
        image = np.random.default_rng(2).random((1, 3, rows * multiple, 9 * multiple), np.float32)
        whole = session(onnx_bytes(weights)).run(None, {"input": image})[0]
        assert np.array_equal(in_strips(stateful_graphs(weights), image, [image.shape[2]]), whole)


@pytest.mark.parametrize("architecture", [SMALL[0], SMALL[6], GATED, WIDE], ids=str)
def test_a_state_that_is_lost_shows_so_the_test_above_can_fail(architecture):
    weights, first = small_weights(architecture), first_rows_px(architecture)
    image = np.random.default_rng(2).random((1, 3, first + 12, 9), np.float32)
    stage = Stage(stateful_graphs(weights)[0], 9)
    complete = Stage(stateful_graphs(weights)[0], 9)
    for one in (stage, complete):
        one.advance(image[:, :, :first], is_last=False)
    stage.states[2] = np.zeros_like(stage.states[2])
    rows = [one.advance(image[:, :, first:], is_last=True) for one in (stage, complete)]
    assert not np.array_equal(*rows)


def with_convolutions_as_outputs(graph: StatefulGraph) -> tuple[StatefulGraph, list[str]]:
    model = onnx.load_model_from_string(graph.content)
    names = [node.output[0] for node in model.graph.node if node.op_type == "Conv" and node.output[0] != graph.output]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    return replace(graph, content=model.SerializeToString()), names


@pytest.mark.parametrize("architecture", EVERY, ids=str)
def test_every_convolution_computes_each_row_once(architecture):
    weights, multiple, first = small_weights(architecture), architecture.multiple_of, first_rows_px(architecture)
    image = np.random.default_rng(2).random((1, 3, first + 12 * multiple, 4 * multiple), np.float32)
    graphs, names = zip(*map(with_convolutions_as_outputs, stateful_graphs(weights)), strict=True)
    stages = [Stage(graph, image.shape[3]) for graph in graphs]
    computed: Counter[str] = Counter()
    for top, stop in itertools.pairwise([0, first, first + 4 * multiple, first + 8 * multiple, image.shape[2]]):
        rows = image[:, :, top:stop]
        for stage, convolutions in zip(stages, names, strict=True):
            rows = stage.advance(rows, is_last=stop == image.shape[2])
            layers = stage.states[-len(convolutions) :] if convolutions else []
            stage.states = stage.states[: len(stage.graph.states)]
            computed.update({name: layer.shape[2] for name, layer in zip(convolutions, layers, strict=True)})
    in_grid = image.shape[2] // multiple
    assert all(count % in_grid == 0 for count in computed.values())
    grids = {f"{name}.out": shape.grid * multiple for name, shape in architecture.map_shapes.items()}
    expected = {name: grids[name] for name in computed}
    assert {name: count // in_grid for name, count in computed.items()} == expected
    assert len(computed) >= len(conv_names(architecture)) - 1


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("architecture", EVERY, ids=str)
def test_graphs_are_valid_and_hold_each_weight_once(architecture, precision):
    weights = small_weights(architecture)
    graphs = stateful_graphs(weights, precision)
    assert len(graphs) == (2 if architecture.has_enlarged_convolutions and architecture is not WIDE else 1)
    held: list[str] = []
    for graph in graphs:
        model = onnx.load_model_from_string(graph.content)
        onnx.checker.check_model(model, full_check=True)
        held += [tensor.name for tensor in model.graph.initializer if not tensor.name.startswith("integers.")]
        inputs = [value.name for value in model.graph.input]
        assert inputs == [graph.input, *(item.name for item in (*graph.states, *graph.borders))]
        outputs = [value.name for value in model.graph.output]
        assert outputs == [graph.output, *(f"{state.name}.next" for state in graph.states)]
    assert len(held) == len(set(held))
    assert set(architecture.shapes) <= set(held)
    assert graphs[0].input == "input"
    assert graphs[-1].output == "output"
    assert [graph.input for graph in graphs[1:]] == [graph.output for graph in graphs[:-1]]


def values_per_column(architecture):
    """Return how many values the states hold after a first strip, for each column of the first convolution's grid."""
    width_px = 4 * architecture.multiple_of
    rows = np.zeros((1, 3, first_rows_px(architecture), width_px), np.float32)
    count = 0
    for graph in stateful_graphs(small_weights(architecture)):
        stage = Stage(graph, width_px)
        rows = stage.advance(rows, is_last=False)
        count += sum(state.size for state in stage.states)
    unit = architecture.map_shapes[architecture.convolutions[0].name].grid
    return count / (width_px * unit)


@pytest.mark.parametrize("architecture", EVERY, ids=str)
def test_the_graphs_keep_as_many_values_as_the_plan_counts(architecture):
    assert values_per_column(architecture) == state_values_per_column(architecture)


def test_an_enlargement_of_the_image_waits_as_the_image():
    graphs = stateful_graphs(small_weights(SMALL[6]))
    (waiting,) = (state for graph in graphs for state in graph.states if ".after" in state.name)
    assert (waiting.name, waiting.channels, waiting.width_scale) == ("input.after5.state", 3, Fraction(1))


def test_kernels_of_one_pixel_keep_nothing():
    architecture = LayerList(
        title="1x1", layers=(conv("a", IMAGE, 3, 8, kernel=1, kind="silu"), conv("b", "a", 8, 3, kernel=1))
    )
    weights = small_weights(architecture)
    (graph,) = stateful_graphs(weights)
    assert (graph.states, graph.borders) == ((), ())
    image = np.random.default_rng(2).random((1, 3, 9, 5), np.float32)
    whole = session(onnx_bytes(weights)).run(None, {"input": image})[0]
    assert np.array_equal(in_strips([graph], image, [1, 2, 6]), whole)


def test_pixels_of_a_result_that_lags_cannot_be_unshuffled():
    layers = (conv("a", IMAGE, 3, 3), PixelUnshuffle(name="b", source="a", factor=2), conv("c", "b", 12, 3))
    with pytest.raises(ValueError, match="b cannot be done in strips: what it reads lags 1 rows"):
        stateful_graphs(small_weights(LayerList(title="late unshuffle", layers=layers)))


def test_a_dense_block_keeps_no_rows_but_those_of_its_convolutions():
    states = [state.name for graph in stateful_graphs(small_weights(SMALL[1])) for state in graph.states]
    convolutions = [name for name in states if name.endswith(".out.state") or name == "output.state"]
    assert len(convolutions) == 15 + 6
    waiting = [name for name in states if ".after" in name]
    assert len(waiting) == 2, waiting  # the skip over a block, and the one over all of them


def test_the_same_weights_give_the_same_bytes():
    first, second = (stateful_graphs(small_weights(SMALL[0])) for _ in range(2))
    assert first == second


def test_bf16_is_refused_for_onnx():
    with pytest.raises(UsageError, match="bf16 is not for ONNX"):
        stateful_graphs(small_weights(SMALL[6]), "bf16")


@pytest.mark.parametrize("portion", [5, 6, 7, 22])
def test_a_second_stage_with_a_wider_kernel_takes_portions_too(portion):
    _, tail = stateful_graphs(small_weights(UNSHUFFLED))
    features = np.random.default_rng(3).random((1, 4, 23, 6), np.float32)
    whole, stage = Stage(tail, 12).advance(features, is_last=True), Stage(tail, 12)
    parts = [stage.advance(features[:, :, a:b], is_last=b == 23) for a, b in in_chunks(23, portion)]
    assert np.array_equal(np.concatenate(parts, axis=2), whole)


def test_portions_of_any_height_pass_the_second_stage():
    weights = small_weights(SMALL[0])
    _, tail = stateful_graphs(weights)
    features = np.random.default_rng(3).random((1, 8, 23, 6), np.float32)
    whole = Stage(tail, 6).advance(features, is_last=True)
    for portion in (3, 4, 7, 11, 22):
        stage = Stage(tail, 6)
        parts = [stage.advance(features[:, :, a:b], is_last=b == 23) for a, b in in_chunks(23, portion)]
        assert np.array_equal(np.concatenate(parts, axis=2), whole), portion

"""The second form of the graphs: valid, small, and the same function as the first form."""

import itertools
import os
from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import pytest

from realesr.architectures import Compact
from realesr.errors import UsageError
from realesr.onnx_graph import conv_names, onnx_bytes
from realesr.rows import in_chunks
from realesr.strip_graph import StripGraph, strip_graphs
from realesr.strips import first_rows_px
from tests.core.small_networks import SMALL, small_weights


def session(content: bytes):
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


class Stage:
    """One graph with its states, without binding."""

    def __init__(self, graph: StripGraph, width_px: int) -> None:
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


@pytest.mark.parametrize("architecture", SMALL, ids=str)
def test_strips_of_the_second_form_equal_the_first_form_bit_by_bit(architecture):
    weights, multiple, first = small_weights(architecture), architecture.multiple_of, first_rows_px(architecture)
    image = np.random.default_rng(2).random((1, 3, first + 12 * multiple, 9 * multiple), np.float32)
    whole = session(onnx_bytes(weights)).run(None, {"input": image})[0]
    for heights in ([first, multiple, 5 * multiple, 6 * multiple], [first + 11 * multiple, multiple], [image.shape[2]]):
        got = in_strips(strip_graphs(weights), image, heights)
        assert got.shape == whole.shape
        assert np.array_equal(got, whole), heights


@pytest.mark.parametrize("architecture", [SMALL[0], SMALL[6]], ids=str)
def test_a_state_that_is_lost_shows_so_the_test_above_can_fail(architecture):
    weights, first = small_weights(architecture), first_rows_px(architecture)
    image = np.random.default_rng(2).random((1, 3, first + 12, 9), np.float32)
    stage = Stage(strip_graphs(weights)[0], 9)
    complete = Stage(strip_graphs(weights)[0], 9)
    for one in (stage, complete):
        one.advance(image[:, :, :first], is_last=False)
    stage.states[2] = np.zeros_like(stage.states[2])
    rows = [one.advance(image[:, :, first:], is_last=True) for one in (stage, complete)]
    assert not np.array_equal(*rows)


def with_convolutions_as_outputs(graph: StripGraph) -> tuple[StripGraph, list[str]]:
    model = onnx.load_model_from_string(graph.content)
    names = [node.output[0] for node in model.graph.node if node.op_type == "Conv" and node.output[0] != graph.output]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    return replace(graph, content=model.SerializeToString()), names


@pytest.mark.parametrize("architecture", SMALL, ids=str)
def test_every_convolution_computes_each_row_once(architecture):
    weights, multiple, first = small_weights(architecture), architecture.multiple_of, first_rows_px(architecture)
    image = np.random.default_rng(2).random((1, 3, first + 12 * multiple, 4 * multiple), np.float32)
    graphs, names = zip(*map(with_convolutions_as_outputs, strip_graphs(weights)), strict=True)
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
    expected = {f"{name}.out": 1 for name in conv_names(architecture)}
    expected |= {f"conv_up{up}.out": 2**up for up in (1, 2, 3)}
    expected |= {f"{name}.out": 2**architecture.upsamplings for name in ("conv_hr",)} if len(graphs) == 2 else {}
    assert {name: count // in_grid for name, count in computed.items()} == {name: expected[name] for name in computed}
    assert len(computed) >= len(conv_names(architecture)) - 1


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("architecture", SMALL, ids=str)
def test_graphs_are_valid_and_hold_each_weight_once(architecture, precision):
    weights = small_weights(architecture)
    graphs = strip_graphs(weights, precision)
    assert len(graphs) == (1 if isinstance(architecture, Compact) else 2)
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


def test_a_dense_block_keeps_no_rows_but_those_of_its_convolutions():
    states = [state.name for graph in strip_graphs(small_weights(SMALL[1])) for state in graph.states]
    convolutions = [name for name in states if name.endswith(".out.state") or name == "output.state"]
    assert len(convolutions) == 15 + 6
    waiting = [name for name in states if ".after" in name]
    assert len(waiting) == 2, waiting  # the skip over a block, and the one over all of them


def test_the_same_weights_give_the_same_bytes():
    first, second = (strip_graphs(small_weights(SMALL[0])) for _ in range(2))
    assert first == second


def test_bf16_is_refused_for_onnx():
    with pytest.raises(UsageError, match="bf16 is not for ONNX"):
        strip_graphs(small_weights(SMALL[6]), "bf16")


def test_portions_of_any_height_pass_the_second_stage():
    weights = small_weights(SMALL[0])
    _, tail = strip_graphs(weights)
    features = np.random.default_rng(3).random((1, 8, 23, 6), np.float32)
    whole = Stage(tail, 6).advance(features, is_last=True)
    for portion in (3, 4, 7, 11, 22):
        stage = Stage(tail, 6)
        parts = [stage.advance(features[:, :, a:b], is_last=b == 23) for a, b in in_chunks(23, portion)]
        assert np.array_equal(np.concatenate(parts, axis=2), whole), portion

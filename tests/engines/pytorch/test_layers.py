"""The list of layers as engine torch computes it: against the written-out modules, and each kind by its formula."""

import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.utils import convert_conv2d_weight_memory_format

from realesr.engines.pytorch.layers import LayerNetwork, unread_after
from realesr.models.architecture import Architecture
from realesr.networks import build_with
from tests.engines.pytorch.layered_networks import LAYERED, SPAN_LIKE, Layered, written_out
from tests.models.small_networks import SMALL, small_state, small_weights


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads wait for one another far longer than these results take to compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def picture(architecture: Architecture, *, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    multiple = architecture.multiple_of
    generator = torch.Generator().manual_seed(1)
    return torch.rand((2, 3, 9 * multiple, 7 * multiple), generator=generator, dtype=dtype)


@pytest.mark.parametrize("architecture", SMALL, ids=lambda each: each.title)
def test_the_layers_compute_what_the_written_out_module_computes(architecture: Architecture) -> None:
    weights, lr = small_weights(architecture), picture(architecture)
    with torch.inference_mode():
        expected = build_with(weights).double()(lr)
        got = LayerNetwork(weights).double()(lr)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("architecture", LAYERED, ids=lambda each: each.title)
def test_each_kind_of_layer_is_computed_by_its_formula(architecture: Layered) -> None:
    lr = picture(architecture)
    before = lr.clone()
    with torch.inference_mode():
        got = LayerNetwork(small_weights(architecture)).double()(lr)
    torch.testing.assert_close(got, written_out(architecture, small_state(architecture), lr), rtol=0, atol=1e-12)
    assert torch.equal(lr, before)


@pytest.mark.parametrize("architecture", [*SMALL, *LAYERED], ids=lambda each: each.title)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 0.1)])
def test_channels_last_and_other_types_differ_by_their_rounding_only(
    architecture: Architecture, dtype: torch.dtype, tolerance: float
) -> None:
    network, lr = LayerNetwork(small_weights(architecture)), picture(architecture, dtype=torch.float32)
    with torch.inference_mode():
        expected = network.double()(lr.double())
        moved = convert_conv2d_weight_memory_format(network.to(dtype), torch.channels_last)
        got = moved(lr.to(dtype, memory_format=torch.channels_last))
    assert got.dtype == dtype
    assert float((got.double() - expected).norm() / expected.norm()) < tolerance * 10


def test_parameters_are_copies_of_the_weights() -> None:
    weights = small_weights(SPAN_LIKE)
    network = LayerNetwork(weights)
    assert sum(parameter.numel() for parameter in network.parameters()) == SPAN_LIKE.parameters
    assert not any(parameter.requires_grad for parameter in network.parameters())
    lr = picture(SPAN_LIKE, dtype=torch.float32)
    with torch.inference_mode():
        before = network(lr)
        for array in weights.state.values():
            array[:] = 0
        assert torch.equal(network(lr), before)


def test_what_is_unread_after_each_step_is_what_no_later_one_reads() -> None:
    assert unread_after([["a"], ["a", "b"], ["b", "b", "c"], []]) == [(), ("a",), ("b", "c"), ()]


def test_results_are_dropped_after_their_last_reader() -> None:
    network = LayerNetwork(small_weights(SPAN_LIKE))
    results: dict[str, weakref.ref[torch.Tensor]] = {}
    alive: dict[str, set[str]] = {}

    def watch(name: str) -> Any:
        def hook(_: Any, __: Any, result: torch.Tensor) -> None:
            results[name] = weakref.ref(result)
            alive[name] = {known for known, reference in results.items() if reference() is not None}

        return hook

    for layer, operation in zip(network.layers, network.operations, strict=True):
        operation.register_forward_hook(watch(layer.name))
    with torch.inference_mode():
        network(picture(SPAN_LIKE, dtype=torch.float32))
    assert alive["b"] == {"first", "a", "b"}
    assert alive["last"] == {"mixed", "last"}


@pytest.mark.parametrize("architecture", [SMALL[5], *LAYERED[-3:]], ids=lambda each: each.title)
def test_the_compiler_takes_the_network_as_one_graph(architecture: Architecture) -> None:
    network, lr = LayerNetwork(small_weights(architecture)), picture(architecture, dtype=torch.float32)
    compiled = torch.compile(network, backend="eager", fullgraph=True, dynamic=False)
    with torch.inference_mode():
        np.testing.assert_allclose(compiled(lr), network(lr), atol=1e-6)

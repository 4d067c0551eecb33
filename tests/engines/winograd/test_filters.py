"""The weights that winograd.c computes with: every layout against the definition in float64, and how they are made."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest

from realesr.engines.winograd import kernel as winograd_kernel
from realesr.engines.winograd.engine import open_winograd, proven_kernel
from realesr.engines.winograd.filters import filters_for, weights_memory
from realesr.engines.winograd.fusion import FusedConvolution
from realesr.engines.winograd.kernel import Kernel, aligned_parts, kernel_for
from realesr.engines.winograd.tiles import Workers
from realesr.errors import EngineError
from realesr.models.compact import Compact
from realesr.models.layers import Convolution
from realesr.models.rrdb import RRDB
from tests.engines.small_models import small_model

if not winograd_kernel.is_usable():
    pytest.skip("winograd.c was not compiled here, or not for this processor", allow_module_level=True)

G = np.array(
    [
        [1, 0, 0],
        [-2 / 9, -2 / 9, -2 / 9],
        [-2 / 9, 2 / 9, -2 / 9],
        [1 / 90, 2 / 90, 4 / 90],
        [1 / 90, -2 / 90, 4 / 90],
        [32 / 45, 16 / 45, 8 / 45],
        [32 / 45, -16 / 45, 8 / 45],
        [0, 0, 1],
    ]
)
"""The filter transform in one dimension. Source: as in winograd.c."""

ROUNDING = 4e-7
"""Of the largest filter: a few times what float32 rounds."""

LAYOUTS = [
    (3, (3,), 3),
    (64, (64,), 3),
    (32, (64, 32, 32), 3),
    (5, (12, 5, 17, 1), 3),
    (33, (31, 32, 33), 3),
    (1, (1,), 3),
    (12, (5,), 1),
    (48, (48, 48, 20), 1),
    (70, (1, 40), 1),
]
"""Channels out, channels of each input, side of the filters."""


def random_filters(channels_out: int, channels_in: int, side: int) -> np.ndarray:
    rng = np.random.default_rng(channels_out + channels_in)
    return rng.standard_normal((channels_out, channels_in, side, side), np.float32)


def defined_weights(kernel: Kernel, filters: np.ndarray, inputs: tuple[int, ...], factor: float) -> np.ndarray:
    """(64 or 1, channels out / unit, channels in, unit), padded with zeros: `weights` of `struct convolution`."""
    channels_out, _, side, _ = filters.shape
    unit = kernel.channel_unit
    padded = np.zeros((kernel.padded(channels_out), sum(map(kernel.padded, inputs)), side, side))
    first = place = 0
    for channels in inputs:
        padded[:channels_out, place : place + channels] = filters[:, first : first + channels]
        first, place = first + channels, place + kernel.padded(channels)
    padded *= np.float32(factor)
    points = np.einsum("py,qx,oiyx->pqoi", G, G, padded) if side == 3 else padded.transpose(2, 3, 0, 1)
    blocks = points.reshape(64 if side == 3 else 1, -1, unit, padded.shape[1])
    return blocks.swapaxes(2, 3)


@pytest.mark.parametrize("factor", [1.0, -0.2])
def test_every_layout_is_that_of_the_definition(any_simd_width: int, factor: float) -> None:
    kernel = kernel_for(any_simd_width)
    for channels_out, inputs, side in LAYOUTS:
        filters = random_filters(channels_out, sum(inputs), side)
        expected = defined_weights(kernel, filters, inputs, factor)
        count = kernel.weights_count(channels_out, inputs, is_1x1=side == 1)
        assert count == expected.size
        around = np.full(count + 64, np.nan, np.float32)
        start = 16 + -around.ctypes.data % 64 // 4
        kernel.prepare_weights(filters, inputs, factor, around[start : start + count])
        got = around[start : start + count].reshape(expected.shape)
        np.testing.assert_allclose(got, expected, rtol=0, atol=ROUNDING * np.abs(expected).max())
        assert np.array_equal(got == 0, expected == 0), "channels that fill up vectors have weights of 0"
        assert np.isnan(around[:start]).all() and np.isnan(around[start + count :]).all()


def test_filters_that_are_not_contiguous_are_read_as_they_are() -> None:
    kernel = proven_kernel()
    filters = random_filters(16, 8, 3).transpose(1, 0, 2, 3)
    (weights,) = aligned_parts([kernel.weights_count(8, (16,), is_1x1=False)])
    kernel.prepare_weights(filters, (16,), 1.0, weights)
    expected = defined_weights(kernel, filters, (16,), 1.0)
    np.testing.assert_allclose(weights.reshape(expected.shape), expected, atol=2e-6)


@pytest.mark.parametrize(
    ("groups", "inputs", "nearest_x2_input"),
    [(1, None, False), (3, None, False), (3, (6, 6), False), (1, None, True), (3, None, True)],
)
def test_a_1x1_convolution_is_that_of_the_definition(
    groups: int, inputs: tuple[int, ...] | None, nearest_x2_input: bool
) -> None:
    """In groups, and as the middle of 3x3 filters where its input is in the Winograd domain or enlarged."""
    kernel = proven_kernel()
    layer = Convolution(name="c", source="x", in_channels=12, out_channels=9, kernel=1, groups=groups)
    operation = FusedConvolution(name="c", layer=layer, source="x", factor=0.5, nearest_x2_input=nearest_x2_input)
    state = {"c.weight": random_filters(9, 12 // groups, 1), "c.bias": np.arange(9, dtype=np.float32)}
    (weights,) = weights_memory(kernel, [(operation, inputs)])
    filters = filters_for(kernel, operation, inputs, state, weights)
    dense = np.zeros((9, 12, 1, 1), np.float32)
    for out in range(9):
        first = out // (9 // groups) * (12 // groups)
        dense[out, first : first + 12 // groups] = state["c.weight"][out]
    assert filters.is_1x1 == (inputs is None and not nearest_x2_input)
    if not filters.is_1x1:
        dense = np.pad(dense, ((0, 0), (0, 0), (1, 1), (1, 1)))
    expected = defined_weights(kernel, dense, inputs or (12,), 0.5)
    np.testing.assert_allclose(filters.weights.reshape(expected.shape), expected, atol=2e-6)
    assert filters.bias.tolist() == [*(0.5 * state["c.bias"]), *[0] * (filters.channels - 9)]


def test_all_weights_of_a_stage_lie_in_one_array_from_cache_lines_on() -> None:
    with open_winograd(small_model(RRDB(scale=4, features=16, blocks=2, growth=16)), threads=3) as engine:
        for stage in engine._opened().stages:
            weights = [filters.weights for filters in stage.filters.values()]
            assert len({id(one.base) for one in weights}) == 1
            assert all(one.ctypes.data % 64 == 0 for one in weights)
            addresses = sorted((one.ctypes.data, one.nbytes) for one in weights)
            ends = [start + size for start, size in addresses]
            assert all(end <= start for end, (start, _) in zip(ends, addresses[1:], strict=False))


def test_parts_of_one_array_may_be_none_or_of_any_size() -> None:
    assert aligned_parts([]) == []
    parts = aligned_parts([1, 17, 16, 3])
    assert [part.size for part in parts] == [1, 17, 16, 3]
    assert all(part.ctypes.data % 64 == 0 for part in parts)
    for number, part in enumerate(parts):
        part[:] = number
    assert [set(part.tolist()) for part in parts] == [{0}, {1}, {2}, {3}]


def test_opening_leaves_blas_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its threads spin when they wait: beside other work, opening x4plus took 3 s of processor time for them."""

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("BLAS")

    for name in ("matmul", "dot", "tensordot", "inner", "vdot"):
        monkeypatch.setattr(np, name, fail)
    proven_kernel.cache_clear()
    for architecture in (RRDB(scale=4, features=16, blocks=1, growth=16), Compact(scale=2, features=8, convs=1)):
        open_winograd(small_model(architecture), threads=2).close()


def test_threads_share_items_and_each_is_taken_once() -> None:
    workers = Workers(proven_kernel(), threads=3)
    taken: list[int] = []
    names: set[str] = set()
    all_are_there = threading.Barrier(3, timeout=10)

    def take(item: int) -> None:
        if item < 3:
            all_are_there.wait()
        taken.append(item)
        names.add(threading.current_thread().name)

    workers.for_each(take, range(50))
    workers.for_each(take, [])
    workers.close()
    assert sorted(taken) == list(range(50))
    assert len(names) == 3


@pytest.mark.parametrize("threads", [1, 3])
def test_what_one_thread_raises_is_raised(threads: int) -> None:
    def fail(item: int) -> None:
        if item == 7:
            raise ValueError("seven")

    workers = Workers(proven_kernel(), threads=threads)
    with pytest.raises(ValueError, match="seven"):
        workers.for_each(fail, range(9))
    workers.close()


def test_a_library_of_another_version_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    library = SimpleNamespace(winograd_convolve_8=SimpleNamespace(), winograd_prepare_weights_8=SimpleNamespace())
    monkeypatch.setattr(winograd_kernel, "_library", lambda: library)
    with pytest.raises(EngineError, match=r"compiled for another version of realesr: install realesr again"):
        kernel_for(8)

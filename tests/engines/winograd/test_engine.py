"""What is winograd's own: every architecture and size against torch, long and short vectors, where it cannot run."""

import platform
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realesr.engines import (
    available_engines,
    choice,
    open_chosen_engine,
    open_engine,
)
from realesr.engines.winograd import engine as winograd_engine
from realesr.engines.winograd import kernel as winograd_kernel
from realesr.engines.winograd import maps as winograd_maps
from realesr.engines.winograd import network as winograd_network
from realesr.engines.winograd import tiles as winograd_tiles
from realesr.errors import EngineError, MissingDependency, OutOfMemory, RealesrError, UsageError
from realesr.models.architecture import Architecture
from realesr.models.compact import Compact
from realesr.models.rrdb import RRDB
from tests.engines.small_models import small_model, write_nearest
from tests.models.small_networks import SMALL

if not winograd_kernel.is_usable():
    pytest.skip("winograd.c was not compiled here, or not for this processor", allow_module_level=True)

COMPACT = small_model(Compact(scale=2, features=8, convs=1))
WIDE_BLOCKS = 1
WIDE = small_model(RRDB(scale=4, features=64, blocks=WIDE_BLOCKS, growth=32))


@pytest.fixture(autouse=True)
def fresh_kernel() -> Iterator[None]:
    """What is found of the kernel is kept for the process; these tests change it."""
    forget()
    yield
    forget()


def forget() -> None:
    winograd_kernel.load_kernel.cache_clear()
    winograd_engine.proven_kernel.cache_clear()


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((1, 3, height, width), dtype=np.float32)


def assert_as_torch(architecture: Architecture, batch: np.ndarray, *, threads: int = 2) -> None:
    weights = small_model(architecture)
    expected = open_engine(weights, engine="torch", device="cpu", precision="fp32", threads=1).run(batch)
    with open_engine(weights, engine="winograd", threads=threads) as engine:
        got = engine.run(batch)
    assert batch.size < 20 or np.ptp(expected) > 0.1, "a flat output proves nothing"
    np.testing.assert_allclose(got, expected, atol=4e-5)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("architecture", SMALL, ids=str)
def test_every_architecture_gives_what_torch_gives(architecture: Architecture, threads: int) -> None:
    assert_as_torch(architecture, picture(36, 52), threads=threads)


@settings(max_examples=40, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), architecture=st.sampled_from(SMALL))
def test_every_size_gives_what_torch_gives(height: int, width: int, architecture: Architecture) -> None:
    multiple = architecture.multiple_of
    assert_as_torch(architecture, picture(height * multiple, width * multiple, seed=height))


@pytest.mark.parametrize("architecture", [WIDE.architecture, Compact(scale=4, features=64, convs=2)], ids=str)
def test_real_widths_give_what_torch_gives(architecture: Architecture) -> None:
    assert_as_torch(architecture, picture(70, 50))


@pytest.mark.parametrize(("block", "blocks_a_chunk"), [(6, 1), (12, 2), (96, 1)])
def test_dense_blocks_in_small_parts_give_the_same(
    monkeypatch: pytest.MonkeyPatch, block: int, blocks_a_chunk: int
) -> None:
    """The order in which chunks are done, and the room that they share, must not show."""
    monkeypatch.setattr(winograd_tiles, "LARGEST_DENSE_BLOCK", block)
    monkeypatch.setattr(winograd_tiles, "BLOCKS_A_CHUNK", blocks_a_chunk)
    assert_as_torch(RRDB(scale=4, features=16, blocks=2, growth=16), picture(150, 23))


def test_a_tail_in_small_portions_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd_network, "PORTION_PX", 1)
    for architecture in SMALL:
        if isinstance(architecture, RRDB):
            assert_as_torch(architecture, picture(24, 16))


def test_sizes_may_change_and_come_back() -> None:
    for weights in (COMPACT, WIDE):
        with open_engine(weights, engine="winograd") as engine:
            before = engine.run(picture(20, 12))
            engine.run(picture(9, 11))
            assert np.array_equal(engine.run(picture(20, 12)), before)


@pytest.mark.parametrize("weights", [COMPACT, WIDE], ids=["compact", "rrdb"])
def test_nothing_is_left_of_an_image_before(weights: Any) -> None:
    """After one that is no picture, and whose tiles cover as much."""
    with open_engine(weights, engine="winograd") as used, open_engine(weights, engine="winograd") as fresh:
        for height, width in ((12, 9), (9, 12), (10, 11), (12, 12)):
            used.run(picture(12, 12) * np.float32("nan"))
            assert np.array_equal(used.run(picture(height, width)), fresh.run(picture(height, width)))


def test_vectors_of_any_length_give_what_torch_gives(any_simd_width: int) -> None:
    assert winograd_engine.proven_kernel().simd_width == any_simd_width
    for architecture in SMALL:
        assert_as_torch(architecture, picture(20, 28))
    assert_as_torch(WIDE.architecture, picture(20, 28))


def test_strips_hold_no_more_than_rows_that_are_needed() -> None:
    weights = small_model(Compact(scale=4, features=16, convs=3))
    with open_engine(weights, engine="winograd") as engine:
        strips = engine.open_strips(20, 4000, rows_px=16)
        for _ in range(200):
            strips.push(picture(16, 20)[0])
        network = engine._network  # type: ignore[attr-defined]
        assert isinstance(network, winograd_network.Network)
        assert network.strip_stages[0].buffers.largest_rows < 40


def test_what_the_last_strip_took_is_free_before_its_rows_are_handed_on() -> None:
    with open_engine(small_model(RRDB(scale=4, features=16, blocks=1, growth=16)), engine="winograd") as engine:
        strips = engine.open_strips(20, 64, rows_px=16)
        strips.push(picture(48, 20)[0])
        stages = engine._network.strip_stages  # type: ignore[attr-defined]
        memory = [weakref.ref(held.values.base) for stage in stages for held in stage.buffers._held.values()]
        assert memory and all(each() is not None for each in memory)
        strips.push(picture(16, 20)[0])
        assert all(each() is None for each in memory)


def test_it_is_the_first_choice_on_a_cpu() -> None:
    if platform.machine() not in choice.MEASURED_PROCESSORS:
        pytest.skip("not measured on such processors")
    with open_engine(COMPACT, device="cpu") as engine:
        assert (engine.spec.name, engine.spec.precision) == ("winograd", "fp32")


def test_where_it_was_not_compiled_the_next_engine_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd_kernel, "_path", lambda: None)
    with open_engine(COMPACT, device="cpu") as engine:
        assert engine.spec.name != "winograd"
    with pytest.raises(MissingDependency, match=r"was not compiled .*install GCC or Clang"):
        open_engine(COMPACT, engine="winograd")
    facts = next(one for one in available_engines() if one.name == "winograd")
    assert not facts.works and "not compiled" in facts.problem


def test_a_processor_without_such_vectors_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        @staticmethod
        def winograd_simd_width() -> int:
            return 0

    monkeypatch.setattr(winograd_kernel, "_library", lambda: Library)
    assert not winograd_kernel.is_usable()
    with pytest.raises(EngineError, match=r"AVX2 and FMA, or a 64-bit ARM: take another engine"):
        open_engine(COMPACT, engine="winograd")


def test_a_kernel_that_computes_something_else_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd_kernel.Kernel, "convolve", lambda *_: None)
    with pytest.raises(EngineError, match="computes wrong values on this processor"):
        open_engine(COMPACT, engine="winograd")
    if platform.machine() in choice.MEASURED_PROCESSORS:
        chosen = open_chosen_engine(COMPACT, device="cpu")
        with chosen.engine:
            assert "winograd on cpu did not start" in chosen.chosen_because


REFUSED: list[tuple[Callable[[Path], Any], type[RealesrError], str]] = [
    (
        lambda folder: open_engine(write_nearest(folder / "x.onnx"), engine="winograd"),
        UsageError,
        r"x.onnx, expected weights .*take engine onnxruntime",
    ),
    (lambda _: open_engine(COMPACT, engine="winograd", device="cuda"), EngineError, "device cuda, expected .*: cpu"),
    (lambda _: open_engine(COMPACT, engine="winograd", precision="fp16"), UsageError, "fp16, expected fp32"),
]


@pytest.mark.parametrize(("refused", "error", "words"), REFUSED)
def test_what_it_cannot_do_is_told(
    refused: Callable[[Path], Any], error: type[RealesrError], words: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=words):
        refused(tmp_path)


@pytest.mark.parametrize("weights", [COMPACT, WIDE], ids=["compact", "rrdb"])
def test_want_of_memory_is_told_and_the_engine_goes_on(monkeypatch: pytest.MonkeyPatch, weights: Any) -> None:
    def fail(_: Any) -> None:
        raise MemoryError

    with open_engine(weights, engine="winograd") as engine:
        with monkeypatch.context() as short, pytest.raises(OutOfMemory):
            short.setattr(winograd_maps, "aligned", fail)
            engine.run(picture(40, 40))
        assert engine.run(picture(8, 8)).shape[2] == 8 * engine.spec.scale


def test_progress_is_told_after_each_dense_block_the_trunk_and_each_portion_of_the_tail() -> None:
    shares: list[float] = []
    with open_engine(WIDE, engine="winograd") as engine:
        engine.run(picture(40, 40), shares.append)
    assert len(shares) == 3 * WIDE_BLOCKS + 2
    assert shares[-1] == 1
    assert len(set(shares)) == len(shares)


def test_a_closed_engine_says_so() -> None:
    engine = open_engine(COMPACT, engine="winograd")
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.run(picture(4, 4))
    with pytest.raises(EngineError, match="closed"):
        engine.open_strips(8, 8, rows_px=8)

"""What `realesr.engine.Engine.open_strips` promises, asked of every engine that has strips."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from realesr.engine import Engine, NearestEngine
from realesr.engines import open_engine
from realesr.errors import BadShape, EngineError
from realesr.models.architecture import Architecture
from realesr.models.compact import Compact
from realesr.models.rrdb import RRDB
from realesr.runtime.rows import Band
from realesr.runtime.strips import Strips
from realesr.runtime.tta import SelfEnsembleEngine
from tests.engines.small_models import small_model

NETWORKS: dict[str, Architecture] = {
    "rrdb x4": RRDB(scale=4, features=8, blocks=1, growth=4),
    "rrdb x2": RRDB(scale=2, features=8, blocks=1, growth=4),
    "rrdb x1": RRDB(scale=1, features=8, blocks=1, growth=4),
    "rrdb of two blocks": RRDB(scale=4, features=8, blocks=2, growth=4),
    "rrdb x2 without unshuffle": RRDB(scale=2, features=8, blocks=1, growth=4, upsamplings=1),
    "rrdb without tail": RRDB(scale=1, features=8, blocks=1, growth=4, upsamplings=0),
    "compact x4": Compact(scale=4, features=8, convs=3),
    "compact x3 relu": Compact(scale=3, features=8, convs=2, activation="relu"),
    "compact x1 leaky relu": Compact(scale=1, features=8, convs=1, activation="leakyrelu"),
}

ENGINES = {"onnxruntime": 0.0, "torch": 2e-6, "openvino": 2e-6, "winograd": 2e-5}
"""Largest difference to the whole image in float32, of values about 1. ONNX Runtime's kernels sum in the same order
whatever the height; torch's choose their blocks by it, and winograd's tiles of six rows lie elsewhere: both are
rounding in the last bits of a sum."""

Pair = tuple[Engine, float]


PAIRS = [
    (name, network) for name in ENGINES for network in NETWORKS if name != "openvino" or network.startswith("compact")
]


@pytest.fixture(params=PAIRS, ids=" ".join, scope="module")
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    name, network = request.param
    if name != "winograd":
        pytest.importorskip(name)
    # The cache of ONNX files tells networks apart by the beginning of their names.
    weights = replace(small_model(NETWORKS[network]), name=network)
    with open_engine(weights, engine=name, precision="fp32", threads=1) as engine:
        yield engine, ENGINES[name]


def photo(height: int, width: int, seed: int = 0) -> Band:
    return np.random.default_rng(seed).random((3, height, width), np.float32)


def pushed(strips: Strips, image: Band, heights: list[int]) -> Band:
    """The image in strips of these heights, the last of which goes on to the end."""
    parts, top = [], 0
    for height in [*heights, image.shape[1]]:
        if top < image.shape[1]:
            parts.append(strips.push(image[:, top : top + height]))
            top += height
    strips.finish()
    return np.concatenate(parts, axis=1)


def assert_equal(got: NDArray[np.float32], whole: NDArray[np.float32], tolerance: float) -> None:
    assert got.dtype == np.float32
    assert got.shape == whole.shape
    assert float(np.abs(got - whole).max(initial=0)) <= tolerance


@settings(max_examples=6, deadline=None)  # of each pair: 180 in all
@given(height=st.integers(1, 200), strip=st.integers(1, 70), width=st.integers(1, 9))
def test_strips_of_any_height_equal_the_whole_image(pair: Pair, height: int, strip: int, width: int) -> None:
    engine, tolerance = pair
    multiple = engine.spec.size.multiple_of
    image = photo(-(-height // multiple) * multiple, width * multiple, seed=height)
    strips = engine.open_strips(*image.shape[:0:-1], rows_px=strip)
    got = pushed(strips, image, [strip] * (image.shape[1] // strip))
    assert_equal(got, engine.run(image[None])[0], tolerance)


@settings(max_examples=5, deadline=None)
@given(heights=st.lists(st.integers(0, 40), max_size=12))
def test_heights_may_change_from_strip_to_strip(pair: Pair, heights: list[int]) -> None:
    engine, tolerance = pair
    image = photo(120, 16)
    got = pushed(engine.open_strips(16, 120, rows_px=8), image, heights)
    assert_equal(got, engine.run(image[None])[0], tolerance)


def test_rows_come_as_soon_as_the_network_can_know_them(pair: Pair) -> None:
    """Engine winograd waits for whole tiles of six rows in dense blocks, and in convolutions behind an enlargement."""
    engine, _ = pair
    first = engine.spec.first_rows_px
    assert first is not None
    multiple = engine.spec.size.multiple_of
    soon = first + 36 * multiple if engine.spec.name == "winograd" else first
    image = photo(soon + 40, 8)
    strips = engine.open_strips(8, soon + 40, rows_px=8)
    assert strips.push(image[:, : first - multiple]).shape[1] == 0
    assert strips.push(image[:, first - multiple : soon]).shape[1] > 0
    assert strips.push(image[:, soon : soon + 24]).shape[1] == 24 * engine.spec.scale


def test_two_images_under_way_do_not_disturb_each_other(pair: Pair) -> None:
    engine, tolerance = pair
    images = [photo(160, 8, seed) for seed in (1, 2)]
    both = [engine.open_strips(8, 160, rows_px=8) for _ in images]
    parts: list[list[Band]] = [[], []]
    for top in range(0, 160, 20):
        for strips, image, results in zip(both, images, parts, strict=True):
            results.append(strips.push(image[:, top : top + 20]))
    for image, results in zip(images, parts, strict=True):
        assert_equal(np.concatenate(results, axis=1), engine.run(image[None])[0], tolerance)


def test_results_belong_to_the_caller_and_inputs_stay(pair: Pair) -> None:
    engine, tolerance = pair
    image = photo(160, 8)
    image.flags.writeable = False
    strips = engine.open_strips(8, 160, rows_px=8)
    first = strips.push(image[:, :140])
    kept = first.copy()
    first[:] = -1
    second = strips.push(image[:, 140:])
    assert not np.shares_memory(first, second)
    assert_equal(np.concatenate([kept, second], axis=1), engine.run(image[None])[0], tolerance)


def test_wrong_rows_are_refused_in_one_line_and_change_nothing(pair: Pair) -> None:
    engine, tolerance = pair
    image = photo(120, 8)
    strips = engine.open_strips(8, 120, rows_px=8)
    start = strips.push(image[:, :100])
    doubles: Any = image[:, :20].astype(np.float64)
    for wrong in (photo(20, 9), photo(21, 8), doubles, image[:2, :20], image[None, :, :20]):
        with pytest.raises(BadShape, match=r"^the strips got .*expected") as caught:
            strips.push(wrong)
        assert "\n" not in str(caught.value)
    with pytest.raises(BadShape, match="got 100 rows, expected the image's 120"):
        strips.finish()
    got = np.concatenate([start, strips.push(image[:, 100:])], axis=1)
    assert_equal(got, engine.run(image[None])[0], tolerance)


def test_a_closed_engine_and_a_wrong_size_are_refused(pair: Pair) -> None:
    engine, _ = pair
    with pytest.raises(BadShape, match=r"got 0 x 4 px for strips"):
        engine.open_strips(0, 4, rows_px=8)


def opened(name: str, precision: str = "fp32") -> Engine:
    return open_engine(small_model(NETWORKS["compact x4"]), engine=name, precision=precision, threads=1)


@pytest.mark.parametrize("name", ENGINES)
def test_a_closed_engine_says_so(name: str) -> None:
    engine = opened(name)
    engine.close()
    with pytest.raises(EngineError, match="is closed"):
        engine.open_strips(8, 8, rows_px=8)


@pytest.mark.parametrize(
    ("name", "precision", "tolerance"),
    [("onnxruntime", "fp16", 2e-3), ("torch", "fp16", 2e-3), ("torch", "bf16", 2e-2)],
)
def test_lower_precisions_differ_by_their_rounding_only(name: str, precision: str, tolerance: float) -> None:
    image = photo(60, 12)
    with opened(name, precision) as engine:
        got = pushed(engine.open_strips(12, 60, rows_px=8), image, [20, 7, 20])
        np.testing.assert_allclose(got, engine.run(image[None])[0], atol=tolerance)


@pytest.mark.parametrize("open_one", [NearestEngine, lambda: SelfEnsembleEngine(opened("onnxruntime"))])
def test_an_engine_without_strips_says_so(open_one: Callable[[], Engine]) -> None:
    with open_one() as engine:
        assert engine.spec.first_rows_px is None
        with pytest.raises(EngineError, match=r"has no strips .*expected tiles"):
            engine.open_strips(8, 8, rows_px=8)


def test_another_run_goes_on_from_a_state_bit_for_bit(pair: Pair) -> None:
    engine, _ = pair
    height, width, step = 72, 24, 12
    image = photo(height, width)
    first = engine.open_strips(width, height, rows_px=step)
    for top in range(0, 36, step):
        first.push(image[:, top : top + step])
    saved = {name: array.copy() for name, array in first.state().items()}
    second = engine.open_strips(width, height, rows_px=step)
    second.restore(saved)
    for top in range(36, height, step):
        rows = image[:, top : top + step]
        np.testing.assert_array_equal(second.push(rows), first.push(rows))

"""The size of tiles and strips that follows from what engines say they take, never from the free memory."""

from types import SimpleNamespace

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from realesr.engine import PieceSizes, Precision
from realesr.models.architecture import Architecture
from realesr.models.compact import Compact
from realesr.models.facts import ModelFacts
from realesr.models.rrdb import RRDB
from realesr.models.zoo import DEFAULT_MODEL, ZOO
from realesr.options import NetworkOptions
from realesr.runtime.engine_pool import EnginePool
from realesr.runtime.strip_bands import strip_layout_for
from realesr.runtime.tile_size import (
    PIECE_LIMIT_BYTES,
    StripBudget,
    max_untiled_area_px_for,
    strip_budget,
    tile_px_for,
)
from realesr.runtime.tiled import plan_for
from realesr.runtime.tiling import tiling_for
from tests.engines.priced_engines import GpuEngine, ProportionalEngine, priced_engine

MB = 1 << 20
GB = 1 << 30

X4PLUS = RRDB(scale=4)
ANIME = RRDB(scale=4, blocks=6)
X2PLUS = RRDB(scale=2)
VIDEO = Compact(scale=4)
GENERAL = Compact(scale=4, convs=32)


def test_the_memory_of_the_largest_tile_is_asked_for_once_where_it_fits() -> None:
    asked: list[int] = []

    def bytes_for(_architecture: Architecture, height_px: int, _width_px: int) -> float:
        asked.append(height_px)
        return 1.0

    engine = SimpleNamespace(
        bytes_for=bytes_for, spec=SimpleNamespace(device_bytes=None, pieces=PieceSizes(largest_tile_px=960))
    )
    assert tile_px_for(X4PLUS, engine) == 960
    assert asked == [960]


MEASURED_MB = [
    ("onnxruntime", X4PLUS, 128, 235),
    ("onnxruntime", X4PLUS, 256, 1032),
    ("onnxruntime", ANIME, 256, 1056),
    ("onnxruntime", X2PLUS, 256, 243),
    ("onnxruntime", VIDEO, 256, 66),
    ("onnxruntime", VIDEO, 384, 130),
    ("onnxruntime", GENERAL, 384, 129),
    ("torch", X4PLUS, 256, 856),
    ("torch", ANIME, 256, 898),
    ("torch", X2PLUS, 256, 223),
    ("torch", VIDEO, 384, 95),
    ("torch", GENERAL, 384, 96),
    ("openvino", X4PLUS, 256, 726),
    ("openvino", ANIME, 256, 600),
    ("openvino", VIDEO, 384, 124),
    ("openvino", VIDEO, 512, 215),
    ("openvino", GENERAL, 384, 159),
    ("ncnn", X4PLUS, 128, 828),
    ("ncnn", X4PLUS, 256, 3099),
    ("ncnn", ANIME, 192, 2097),
    ("ncnn", X2PLUS, 256, 839),
    ("ncnn", VIDEO, 256, 197),
    ("ncnn", VIDEO, 512, 705),
    ("ncnn", GENERAL, 384, 413),
    ("winograd", X4PLUS, 256, 311),
    ("winograd", X4PLUS, 512, 677),
    ("winograd", X4PLUS, 960, 1574),
    ("winograd", ANIME, 960, 1573),
    ("winograd", X2PLUS, 960, 637),
    ("winograd", VIDEO, 256, 72),
    ("winograd", VIDEO, 512, 264),
    ("winograd", GENERAL, 512, 264),
]
"""From benchmarks/results: what one tile of that side took, in 1e6 bytes."""


@pytest.mark.parametrize(("engine", "architecture", "side_px", "measured"), MEASURED_MB)
def test_predicted_need_is_near_the_measured_one(
    engine: str, architecture: RRDB | Compact, side_px: int, measured: int
) -> None:
    predicted = priced_engine(engine, architecture).bytes_for(architecture, side_px, side_px) / 1e6
    assert measured <= predicted <= measured * 1.6


@given(bytes_per_px=st.floats(1, 1e6), largest=st.integers(2, 30))
def test_tiles_follow_what_the_engine_says(bytes_per_px: float, largest: int) -> None:
    engine = ProportionalEngine(bytes_per_px, PieceSizes(largest_tile_px=32 * largest))
    side = tile_px_for(VIDEO, engine)
    assert side % 32 == 0 and 64 <= side <= 32 * largest
    assert side == 64 or side**2 * bytes_per_px <= PIECE_LIMIT_BYTES
    assert side == 32 * largest or (side + 32) ** 2 * bytes_per_px > PIECE_LIMIT_BYTES


@pytest.mark.parametrize("engine", ["winograd", "onnxruntime", "openvino"])
@pytest.mark.parametrize("architecture", [X4PLUS, VIDEO], ids=lambda one: one.title)
def test_images_are_cut_alike_however_much_memory_is_free(
    engine: str, architecture: Architecture, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = ModelFacts(name="n", scale=4, radius_px=18, multiple_of=1, architecture=architecture)
    plans = []
    for free in (64 * GB, 100 * MB):
        monkeypatch.setattr(psutil, "virtual_memory", lambda free=free: SimpleNamespace(available=free, total=free))
        opened = priced_engine(engine, architecture)
        pool = EnginePool(opened, tiling=tiling_for(facts, NetworkOptions(), opened))
        plans.append([(strip_layout_for(pool, *size), plan_for(pool, *size)) for size in SIZES])
    assert plans[0] == plans[1]


def test_a_network_that_is_not_known_is_taken_for_the_one_that_needs_most() -> None:
    needs = {name: entry.architecture.largest_map_values_per_px for name, entry in ZOO.items()}
    assert needs[DEFAULT_MODEL] == max(needs.values())


def test_untiled_images_take_what_a_common_computer_has() -> None:
    engine = priced_engine("winograd", X4PLUS)
    side = round(max_untiled_area_px_for(X4PLUS, engine) ** 0.5)
    assert engine.bytes_for(X4PLUS, side, side) <= 2.2e9 < engine.bytes_for(X4PLUS, side + 1, side + 1)
    assert max_untiled_area_px_for(X2PLUS, engine) > 4_000_000


def test_tiles_of_the_networks() -> None:
    def side(architecture: Architecture, name: str, precision: Precision = "fp32") -> int:
        return tile_px_for(architecture, priced_engine(name, architecture, precision))

    assert side(X4PLUS, "onnxruntime") == 288
    assert side(X4PLUS, "onnxruntime", "fp16") == 256
    assert side(VIDEO, "onnxruntime") == 512
    assert side(VIDEO, "nearest") == 512
    assert side(X4PLUS, "openvino") == 384
    assert side(X4PLUS, "ncnn") == 192
    assert side(VIDEO, "ncnn") == 320
    assert side(X4PLUS, "winograd") == 960
    assert side(VIDEO, "winograd") == 256, "larger images go in strips"


@pytest.mark.parametrize(
    ("architecture", "precision", "gpu", "side"),
    [
        (X4PLUS, "fp16", 80 * GB, 1024),
        (X4PLUS, "fp16", 16 * GB, 992),
        (X4PLUS, "fp16", 8 * GB, 704),
        (X4PLUS, "fp32", 8 * GB, 480),
        (X4PLUS, "fp16", 1 * GB, 224),
        (X4PLUS, "fp16", 0, 64),
        (X2PLUS, "fp16", 16 * GB, 1984),
        (VIDEO, "fp16", 4 * GB, 1024),
    ],
)
def test_tiles_in_a_gpus_memory_follow_that(
    architecture: Architecture, precision: Precision, gpu: int, side: int
) -> None:
    assert tile_px_for(architecture, GpuEngine(precision, gpu)) == side


def test_a_network_of_half_the_features_needs_half_the_memory() -> None:
    engine = priced_engine("onnxruntime", X4PLUS)
    whole = engine.bytes_for(X4PLUS, 100, 100)
    assert engine.bytes_for(RRDB(scale=4, features=32), 100, 100) == whole / 2
    assert engine.bytes_for(X2PLUS, 100, 100) == whole / 4


def budget_of(architecture: Architecture, name: str, halo: int, precision: Precision = "fp32") -> StripBudget:
    return strip_budget(architecture, priced_engine(name, architecture, precision), halo)


SIZES = [(1, 1), (40, 3000), (384, 384), (1000, 1500), (3000, 4000), (10_000, 10_000), (100, 40_000)]


@pytest.mark.parametrize("architecture", [X4PLUS, ANIME, X2PLUS, VIDEO, GENERAL], ids=lambda one: one.title)
@pytest.mark.parametrize("engine", ["winograd", "onnxruntime", "openvino"])
def test_strips_cover_the_image_within_the_limit(architecture: Architecture, engine: str) -> None:
    budget = budget_of(architecture, engine, min(architecture.radius_px, 128))
    for height, width in SIZES:
        size = budget.size_for(height, width)
        if size is None:
            continue
        assert size.rows_px % architecture.multiple_of == size.columns_px % architecture.multiple_of == 0
        assert size.rows_px >= 16 * architecture.multiple_of
        assert size.columns_px == -(-width // architecture.multiple_of) * architecture.multiple_of or (
            size.columns_px >= 256 * architecture.multiple_of
        )


@pytest.mark.parametrize(("engine", "columns"), [("onnxruntime", 3334), ("openvino", 2500)])
def test_compact_networks_have_strips_and_wide_images_are_cut(engine: str, columns: int) -> None:
    for architecture in (VIDEO, GENERAL):
        budget = budget_of(architecture, engine, architecture.radius_px)
        large = [size for size in SIZES if engine == "onnxruntime" or size[0] * size[1] > 500_000]
        assert all(budget.size_for(*size) is not None for size in large)
        assert budget.size_for(10_000, 10_000).columns_px == columns


def test_a_photo_of_12_mp_goes_by_tiles_with_x4plus() -> None:
    assert budget_of(X4PLUS, "torch", 128).size_for(3000, 4000) is None
    assert budget_of(X4PLUS, "torch", 128).size_for(600, 900) is not None


def test_strips_are_whole_tiles_of_winograd() -> None:
    for architecture in (VIDEO, X4PLUS, X2PLUS):
        budget = budget_of(architecture, "winograd", 18)
        sizes = [budget.size_for(3000, width) for width in range(900, 3000, 14)]
        assert all(size is not None and size.rows_px % (6 * architecture.multiple_of) == 0 for size in sizes)


def test_small_images_are_not_worth_three_shapes_in_openvino() -> None:
    assert budget_of(VIDEO, "openvino", 18).size_for(600, 800) is None
    assert budget_of(VIDEO, "openvino", 18).size_for(800, 800) is not None


def test_networks_with_enlarged_convolutions_have_no_strips_in_openvino() -> None:
    facts = ModelFacts(name="x4plus", scale=4, radius_px=349, multiple_of=1, architecture=X4PLUS)
    assert tiling_for(facts, NetworkOptions(), priced_engine("openvino", X4PLUS)).strips is None
    facts = ModelFacts(name="video", scale=4, radius_px=18, multiple_of=1, architecture=VIDEO)
    assert tiling_for(facts, NetworkOptions(), priced_engine("openvino", VIDEO)).strips is not None


def test_half_precision_is_given_less_high_strips() -> None:
    sizes = [budget_of(X4PLUS, "torch", 128, precision).size_for(900, 900) for precision in ("fp32", "fp16")]
    assert sizes[0] is not None
    assert sizes[1] is None or sizes[1].rows_px < sizes[0].rows_px

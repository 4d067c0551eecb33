"""The size of tiles and strips that follows from the free memory and from what engines say they take."""

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
from realesr.runtime.tile_size import StripBudget, max_untiled_area_px_for, strip_budget, tile_px_for
from realesr.runtime.tiling import tiling_for
from tests.engines.priced_engines import GpuEngine, ProportionalEngine, priced_engine

MB = 1 << 20
GB = 1 << 30

X4PLUS = RRDB(scale=4)
ANIME = RRDB(scale=4, blocks=6)
X2PLUS = RRDB(scale=2)
VIDEO = Compact(scale=4)
GENERAL = Compact(scale=4, convs=32)


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
    ("winograd", X4PLUS, 256, 406),
    ("winograd", X4PLUS, 512, 763),
    ("winograd", X4PLUS, 960, 1627),
    ("winograd", ANIME, 960, 1628),
    ("winograd", X2PLUS, 960, 708),
    ("winograd", VIDEO, 256, 70),
    ("winograd", VIDEO, 512, 261),
    ("winograd", GENERAL, 512, 263),
]
"""From benchmarks/results: what one tile of that side took, in 1e6 bytes."""


@pytest.mark.parametrize(("engine", "architecture", "side_px", "measured"), MEASURED_MB)
def test_predicted_need_is_near_the_measured_one(
    engine: str, architecture: RRDB | Compact, side_px: int, measured: int
) -> None:
    predicted = priced_engine(engine, architecture).bytes_for(architecture, side_px, side_px) / 1e6
    assert measured <= predicted <= measured * 1.6


@pytest.mark.parametrize("architecture", [X4PLUS, ANIME, X2PLUS, VIDEO, GENERAL])
@given(free=st.integers(0, 1 << 42))
def test_tiles_fit_half_of_the_free_memory_and_the_next_size_would_not(architecture: RRDB | Compact, free: int) -> None:
    engine = priced_engine("onnxruntime", architecture)
    side = tile_px_for(architecture, engine, free)
    largest = {X4PLUS: 288, ANIME: 288, X2PLUS: 576, VIDEO: 512, GENERAL: 512}[architecture]
    assert side % 32 == 0
    assert 64 <= side <= largest
    assert side == 64 or engine.bytes_for(architecture, side, side) <= free / 2
    assert side == largest or engine.bytes_for(architecture, side + 32, side + 32) > free / 2


@given(free=st.integers(0, 1 << 42), bytes_per_px=st.floats(1, 1e6), largest=st.integers(2, 30))
def test_tiles_follow_what_the_engine_says(free: int, bytes_per_px: float, largest: int) -> None:
    engine = ProportionalEngine(bytes_per_px, PieceSizes(largest_tile_px=32 * largest))
    side = tile_px_for(VIDEO, engine, free)
    assert 64 <= side <= 32 * largest
    assert side == 64 or side**2 * bytes_per_px <= free / 2
    assert side == 32 * largest or (side + 32) ** 2 * bytes_per_px > free / 2


def test_a_network_that_is_not_known_is_taken_for_the_one_that_needs_most() -> None:
    needs = {name: entry.architecture.largest_map_values_per_px for name, entry in ZOO.items()}
    assert needs[DEFAULT_MODEL] == max(needs.values())


def test_untiled_images_take_half_of_the_free_memory_and_four_gigabytes_at_most() -> None:
    engine = priced_engine("winograd", X4PLUS)
    for free, limit in ((64 * GB, 4e9), (8 * GB, 4e9), (2 * GB, 1 * GB)):
        side = round(max_untiled_area_px_for(X4PLUS, engine, free) ** 0.5)
        assert engine.bytes_for(X4PLUS, side, side) <= limit < engine.bytes_for(X4PLUS, side + 1, side + 1)
    assert max_untiled_area_px_for(X4PLUS, engine, 20 * MB) == 0
    assert max_untiled_area_px_for(X2PLUS, engine, 64 * GB) > 9_000_000


def test_tiles_of_common_machines() -> None:
    def side(architecture: Architecture, name: str, free: int, precision: Precision = "fp32") -> int:
        return tile_px_for(architecture, priced_engine(name, architecture, precision), free)

    assert side(X4PLUS, "onnxruntime", 16 * GB) == 288
    assert side(X4PLUS, "onnxruntime", 1 * GB) == 160
    assert side(VIDEO, "onnxruntime", 1 * GB) == 512
    assert side(VIDEO, "torch", 200 * MB) == 320
    assert side(X4PLUS, "onnxruntime", 1 * GB, "fp16") == 128
    assert side(VIDEO, "nearest", 0) == 64
    assert side(VIDEO, "nearest", 1 * GB) == 512
    assert side(X4PLUS, "openvino", 16 * GB) == 384
    assert side(X4PLUS, "ncnn", 16 * GB) == 192
    assert side(X4PLUS, "ncnn", 1 * GB) == 96
    assert side(VIDEO, "ncnn", 16 * GB) == 320
    assert side(X4PLUS, "winograd", 16 * GB) == 960
    assert side(X4PLUS, "winograd", 2 * GB) == 672
    assert side(X4PLUS, "winograd", 100 * MB) == 64, "less than it takes for any tile"


@pytest.mark.parametrize(
    ("architecture", "precision", "gpu", "side"),
    [
        (X4PLUS, "fp16", 80 * GB, 1024),
        (X4PLUS, "fp16", 16 * GB, 1024),
        (X4PLUS, "fp16", 8 * GB, 768),
        (X4PLUS, "fp32", 8 * GB, 544),
        (X4PLUS, "fp16", 1 * GB, 256),
        (X4PLUS, "fp16", 0, 64),
        (X2PLUS, "fp16", 16 * GB, 2048),
        (VIDEO, "fp16", 4 * GB, 1024),
    ],
)
def test_tiles_in_a_gpus_memory_follow_that_and_not_the_hosts(
    architecture: Architecture, precision: Precision, gpu: int, side: int
) -> None:
    for host in (1 * GB, 64 * GB):
        assert tile_px_for(architecture, GpuEngine(precision, gpu), host) == side


def test_a_network_of_half_the_features_needs_half_the_memory() -> None:
    engine = priced_engine("onnxruntime", X4PLUS)
    whole = engine.bytes_for(X4PLUS, 100, 100)
    assert engine.bytes_for(RRDB(scale=4, features=32), 100, 100) == whole / 2
    assert engine.bytes_for(X2PLUS, 100, 100) == whole / 4


def budget_of(
    architecture: Architecture,
    name: str,
    free: int,
    halo: int,
    precision: Precision = "fp32",
    *,
    is_exact: bool = False,
) -> StripBudget:
    return strip_budget(architecture, priced_engine(name, architecture, precision), free, halo, is_exact=is_exact)


SIZES = [(1, 1), (40, 3000), (384, 384), (1000, 1500), (3000, 4000), (10_000, 10_000), (100, 40_000)]


@pytest.mark.parametrize("architecture", [X4PLUS, ANIME, X2PLUS, VIDEO, GENERAL], ids=lambda one: one.title)
@pytest.mark.parametrize("free", [GB, 4 * GB, 16 * GB, 64 * GB])
@pytest.mark.parametrize("engine", ["winograd", "onnxruntime", "openvino"])
def test_strips_cover_the_image_and_shrink_with_the_memory(architecture: Architecture, free: int, engine: str) -> None:
    budget = budget_of(architecture, engine, free, min(architecture.radius_px, 128))
    assert budget.limit_bytes <= free / 2
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
def test_compact_networks_have_strips_even_in_little_memory_and_wide_images_are_cut(engine: str, columns: int) -> None:
    for architecture in (VIDEO, GENERAL):
        budget = budget_of(architecture, engine, 2 * GB, architecture.radius_px)
        large = [size for size in SIZES if engine == "onnxruntime" or size[0] * size[1] > 500_000]
        assert all(budget.size_for(*size) is not None for size in large)
        assert budget.size_for(10_000, 10_000).columns_px == columns


def test_a_photo_of_12_mp_goes_by_tiles_with_x4plus_unless_it_must_be_exact() -> None:
    assert budget_of(X4PLUS, "torch", 64 * GB, 128).size_for(3000, 4000) is None
    assert budget_of(X4PLUS, "torch", 64 * GB, 128, is_exact=True).size_for(3000, 4000) is not None
    assert budget_of(X4PLUS, "torch", 64 * GB, 128).size_for(1000, 1500) is not None
    assert budget_of(X4PLUS, "torch", 2 * GB, 128).size_for(1000, 1500) is None


def test_strips_are_whole_tiles_of_winograd() -> None:
    sizes = [budget_of(VIDEO, "winograd", 8 * GB, 18).size_for(3000, width) for width in range(900, 3000, 7)]
    assert all(size is not None and size.rows_px % 4 == 0 for size in sizes)


def test_small_images_are_not_worth_three_shapes_in_openvino() -> None:
    assert budget_of(VIDEO, "openvino", 64 * GB, 18).size_for(600, 800) is None
    assert budget_of(VIDEO, "openvino", 64 * GB, 18).size_for(800, 800) is not None


def test_networks_with_enlarged_convolutions_have_no_strips_in_openvino() -> None:
    facts = ModelFacts(name="x4plus", scale=4, radius_px=349, multiple_of=1, architecture=X4PLUS)
    assert tiling_for(facts, NetworkOptions(), priced_engine("openvino", X4PLUS)).strips is None
    facts = ModelFacts(name="video", scale=4, radius_px=18, multiple_of=1, architecture=VIDEO)
    assert tiling_for(facts, NetworkOptions(), priced_engine("openvino", VIDEO)).strips is not None


def test_half_precision_is_given_less_high_strips() -> None:
    sizes = [budget_of(X4PLUS, "torch", 5 * GB, 128, precision).size_for(900, 900) for precision in ("fp32", "fp16")]
    assert sizes[0] is not None
    assert sizes[1] is None or sizes[1].rows_px < sizes[0].rows_px

"""Free and peak memory, checked against memory that is really taken, and the size of tiles that follows."""

import subprocess
import sys
from dataclasses import replace
from fractions import Fraction

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from realesr import memory
from realesr.architectures import RRDB, Architecture, Compact
from realesr.engine import Precision
from realesr.memory import (
    free_bytes,
    one_piece_px_for,
    peak_bytes,
    state_numbers_per_column,
    strip_budget,
    tile_base_bytes,
    tile_bytes_per_px,
    tile_px_for,
)
from realesr.strip_graph import strip_graphs
from tests.core.small_networks import small_weights

MB = 1 << 20
GB = 1 << 30

X4PLUS = RRDB(scale=4)
ANIME = RRDB(scale=4, blocks=6)
X2PLUS = RRDB(scale=2)
VIDEO = Compact(scale=4)
GENERAL = Compact(scale=4, convs=32)


def test_free_memory_is_some_of_what_the_machine_has() -> None:
    assert 0 < free_bytes() <= psutil.virtual_memory().total


@pytest.mark.parametrize(("left", "expected"), [(None, 8 * GB), (3 * GB, 3 * GB), (9 * GB, 8 * GB), (0, 0)])
def test_free_memory_is_lowered_by_the_container(
    monkeypatch: pytest.MonkeyPatch, left: int | None, expected: int
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 8 * GB}))
    monkeypatch.setattr(memory, "memory_left_bytes", lambda: left)
    assert free_bytes() == expected


def test_peak_memory_stays_after_the_memory_is_given_back() -> None:
    script = f"""
from realesr.memory import peak_bytes
before = peak_bytes()
block = bytearray(b"x") * {200 * MB}
del block
print(peak_bytes() - before)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert 190 * MB < int(run.stdout) < 220 * MB


def test_peak_memory_is_not_inherited_from_the_process_that_started_this_one() -> None:
    """As getrusage has it on Linux: a command started by a large program would report that program's peak."""
    script = f"""
import subprocess, sys
block = bytearray(b"x") * {300 * MB}
subprocess.run([sys.executable, "-c", "from realesr.memory import peak_bytes; print(peak_bytes())"], check=True)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 250 * MB


def test_peak_memory_is_at_least_what_is_held_now() -> None:
    assert peak_bytes() >= psutil.Process().memory_info().rss * 0.98


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
    ("winograd", X4PLUS, 256, 377),
    ("winograd", X4PLUS, 512, 723),
    ("winograd", X4PLUS, 960, 1595),
    ("winograd", ANIME, 960, 1595),
    ("winograd", X2PLUS, 960, 694),
    ("winograd", VIDEO, 256, 83),
    ("winograd", VIDEO, 512, 318),
    ("winograd", GENERAL, 512, 322),
]
"""From benchmarks/results: what one tile of that side took, in 1e6 bytes."""


@pytest.mark.parametrize(("engine", "architecture", "side_px", "measured"), MEASURED_MB)
def test_predicted_need_is_near_the_measured_one(
    engine: str, architecture: RRDB | Compact, side_px: int, measured: int
) -> None:
    predicted = (tile_base_bytes(architecture, engine) + tile_bytes_per_px(architecture, engine) * side_px**2) / 1e6
    assert measured <= predicted <= measured * 1.6


@pytest.mark.parametrize("architecture", [None, X4PLUS, ANIME, X2PLUS, VIDEO, GENERAL])
@given(free=st.integers(0, 1 << 42))
def test_tiles_fit_half_of_the_free_memory_and_the_next_size_would_not(
    architecture: RRDB | Compact | None, free: int
) -> None:
    side = tile_px_for(architecture, "onnxruntime", free)
    a_px = tile_bytes_per_px(architecture or X4PLUS)
    largest = {None: 288, X4PLUS: 288, ANIME: 288, X2PLUS: 576, VIDEO: 512, GENERAL: 512}[architecture]
    assert side % 32 == 0
    assert 64 <= side <= largest
    assert side == 64 or side**2 * a_px <= free / 2
    assert side == largest or (side + 32) ** 2 * a_px > free / 2


def test_images_in_one_piece_take_half_of_the_free_memory_and_four_gigabytes_at_most() -> None:
    for free, limit in ((64 * GB, 4e9), (8 * GB, 4e9), (2 * GB, 1 * GB)):
        area = one_piece_px_for(X4PLUS, "winograd", free)
        assert area == pytest.approx((limit - 360e6) / tile_bytes_per_px(X4PLUS, "winograd"), rel=1e-3)
    assert one_piece_px_for(X4PLUS, "winograd", 600 * MB) == 0
    assert one_piece_px_for(X2PLUS, "winograd", 64 * GB) > 9_000_000
    assert one_piece_px_for(VIDEO, "winograd", 64 * GB) == 0, "it has strips"


def test_tiles_of_common_machines() -> None:
    assert tile_px_for(X4PLUS, "onnxruntime", 16 * GB) == 288
    assert tile_px_for(X4PLUS, "onnxruntime", 1 * GB) == 160
    assert tile_px_for(VIDEO, "onnxruntime", 1 * GB) == 512
    assert tile_px_for(VIDEO, "torch", 200 * MB) == 320
    assert tile_px_for(X4PLUS, "onnxruntime", 1 * GB, "fp16") == 128
    assert tile_px_for(VIDEO, "nearest", 0) == 512
    assert tile_px_for(X4PLUS, "openvino", 16 * GB) == 384
    assert tile_px_for(X4PLUS, "ncnn", 16 * GB) == 192
    assert tile_px_for(X4PLUS, "ncnn", 1 * GB) == 96
    assert tile_px_for(VIDEO, "ncnn", 16 * GB) == 320
    assert tile_px_for(X4PLUS, "winograd", 16 * GB) == 960
    assert tile_px_for(X4PLUS, "winograd", 2 * GB) == 672
    assert tile_px_for(X4PLUS, "winograd", 600 * MB) == 64, "less than it takes for any tile"


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
        (None, "fp16", 16 * GB, 1024),
    ],
)
def test_tiles_in_a_gpus_memory_follow_that_and_not_the_hosts(
    architecture: Architecture | None, precision: Precision, gpu: int, side: int
) -> None:
    for host in (1 * GB, 64 * GB):
        assert tile_px_for(architecture, "torch", host, precision, gpu) == side


def test_a_network_of_half_the_features_needs_half_the_memory() -> None:
    assert tile_bytes_per_px(RRDB(scale=4, features=32)) == tile_bytes_per_px(X4PLUS) / 2
    assert tile_bytes_per_px(X2PLUS) == tile_bytes_per_px(X4PLUS) / 4


def test_memory_is_read_where_there_is_no_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform == "win32":
        pytest.skip("Windows has an answer of its own")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert peak_bytes() > 0


SIZES = [(1, 1), (40, 3000), (384, 384), (1000, 1500), (3000, 4000), (10_000, 10_000), (100, 40_000)]


@pytest.mark.parametrize("architecture", [X4PLUS, ANIME, X2PLUS, VIDEO, GENERAL], ids=lambda one: one.title)
@pytest.mark.parametrize("free", [GB, 4 * GB, 16 * GB, 64 * GB])
@pytest.mark.parametrize("engine", ["winograd", "onnxruntime", "openvino"])
def test_strips_cover_the_image_and_shrink_with_the_memory(architecture: Architecture, free: int, engine: str) -> None:
    budget = strip_budget(architecture, engine, free, min(architecture.radius_px, 128))
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
        budget = strip_budget(architecture, engine, 2 * GB, architecture.radius_px)
        large = [size for size in SIZES if engine == "onnxruntime" or size[0] * size[1] > 500_000]
        assert all(budget.size_for(*size) is not None for size in large)
        assert budget.size_for(10_000, 10_000).columns_px == columns


def test_a_photo_of_12_mp_goes_by_tiles_with_x4plus_unless_it_must_be_exact() -> None:
    assert strip_budget(X4PLUS, "torch", 64 * GB, 128).size_for(3000, 4000) is None
    assert strip_budget(X4PLUS, "torch", 64 * GB, 128, is_exact=True).size_for(3000, 4000) is not None
    assert strip_budget(X4PLUS, "torch", 64 * GB, 128).size_for(1000, 1500) is not None
    assert strip_budget(X4PLUS, "torch", 2 * GB, 128).size_for(1000, 1500) is None


def test_strips_are_whole_tiles_of_winograd() -> None:
    sizes = [strip_budget(VIDEO, "winograd", 8 * GB, 18).size_for(3000, width) for width in range(900, 3000, 7)]
    assert all(size is not None and size.rows_px % 4 == 0 for size in sizes)


def test_small_images_are_not_worth_three_shapes_in_openvino() -> None:
    assert strip_budget(VIDEO, "openvino", 64 * GB, 18).size_for(600, 800) is None
    assert strip_budget(VIDEO, "openvino", 64 * GB, 18).size_for(800, 800) is not None


def test_rrdb_networks_have_no_strips_in_openvino() -> None:
    assert all(strip_budget(X4PLUS, "openvino", 64 * GB, 128).size_for(*size) is None for size in SIZES)


def test_half_precision_is_given_less_high_strips() -> None:
    sizes = [strip_budget(X4PLUS, "torch", 5 * GB, 128, precision).size_for(900, 900) for precision in ("fp32", "fp16")]
    assert sizes[0] is not None
    assert sizes[1] is None or sizes[1].rows_px < sizes[0].rows_px


@pytest.mark.parametrize("architecture", [X4PLUS, ANIME, X2PLUS, VIDEO, GENERAL], ids=lambda one: one.title)
def test_states_are_counted_as_the_strip_graphs_have_them(architecture: Architecture) -> None:
    """One column of the first conv's grid, after a first strip; skips that wait are not in the graphs' own numbers."""
    small: Architecture
    if isinstance(architecture, RRDB):
        small = replace(architecture, features=4, growth=2)
    else:
        small = replace(architecture, features=4)
    weights = small_weights(small)
    waiting = 0
    columns = Fraction(small.multiple_of)
    for graph in strip_graphs(weights):
        waiting += sum(int(2 * state.channels * state.width_scale * columns) for state in graph.states if state.rows)
    if isinstance(small, RRDB):
        waiting += small.blocks * 15 * small.features + (15 * small.blocks + 1) * small.features
    else:
        waiting += 3 * small.radius_px
    assert state_numbers_per_column(small) == waiting

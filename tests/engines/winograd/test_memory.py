"""The memory that engine winograd computes from its schedule, against what was measured."""

from dataclasses import replace

import pytest

from realesr.engines.winograd.engine import DEEP_PIECES
from realesr.engines.winograd.memory import needed_bytes, state_bytes_per_column
from realesr.models.architecture import Architecture
from realesr.models.compact import Compact
from realesr.models.rrdb import RRDB
from realesr.models.strip_plan import state_values_per_column
from realesr.runtime.tile_size import StripBudget

X4PLUS = RRDB(scale=4)
VIDEO = Compact(scale=4)
GENERAL = Compact(scale=4, convs=32)

TILES_MB: list[tuple[Architecture, int, int]] = [
    (X4PLUS, 256, 300),
    (X4PLUS, 512, 672),
    (X4PLUS, 960, 1544),
    (RRDB(scale=4, blocks=6), 960, 1544),
    (RRDB(scale=2), 960, 635),
    (VIDEO, 256, 70),
    (VIDEO, 512, 260),
    (GENERAL, 512, 258),
]
"""Side of a tile -> what it took, in 1e6 bytes, with two threads and a SIMD width of 8."""

STRIPS_MB: list[tuple[Architecture, int, int, int]] = [
    (VIDEO, 30, 2000, 104),
    (VIDEO, 60, 1024, 87),
    (VIDEO, 18, 3600, 144),
    (GENERAL, 60, 1024, 111),
    (X4PLUS, 168, 1200, 1171),
    (X4PLUS, 168, 2000, 1728),
    (X4PLUS, 102, 3000, 2142),
    (X4PLUS, 48, 4000, 2487),
    (X4PLUS, 48, 6000, 3685),
    (X4PLUS, 48, 8000, 4172),
]
"""Rows and width of strips -> the same."""


def needed_mb(architecture: Architecture, height: int, width: int, *, in_strips: bool = False) -> float:
    return needed_bytes(architecture, height, width, in_strips=in_strips, channel_unit=16, threads=2) / 1e6


@pytest.mark.parametrize(("architecture", "side", "measured"), TILES_MB)
def test_tiles_need_what_was_measured_or_some_more(architecture: Architecture, side: int, measured: int) -> None:
    assert measured <= needed_mb(architecture, side, side) <= 1.6 * measured


@pytest.mark.parametrize(("architecture", "rows", "width", "measured"), STRIPS_MB)
def test_strips_need_what_was_measured_or_some_more(
    architecture: Architecture, rows: int, width: int, measured: int
) -> None:
    assert measured <= needed_mb(architecture, rows, width, in_strips=True) <= 1.6 * measured


@pytest.mark.parametrize(
    ("width", "rows", "columns"),
    [(1200, 168, 1), (3000, 60, 1), (4000, 48, 1), (6000, 48, 1), (8000, 48, 1), (12_000, 48, 3)],
)
def test_strips_of_x4plus_are_higher_where_they_are_narrow_and_cut_into_columns_where_they_are_wide(
    width: int, rows: int | None, columns: int | None
) -> None:
    budget = StripBudget(
        architecture=X4PLUS,
        strip_bytes=lambda rows_px, width_px: 1e6 * needed_mb(X4PLUS, rows_px, width_px, in_strips=True),
        halo_px=128,
        pieces=replace(DEEP_PIECES, strip_state_bytes=state_bytes_per_column(X4PLUS, 16)),
    )
    size = budget.size_for(3000, width)
    assert (size and size.rows_px, size and -(-width // size.columns_px)) == (rows, columns)


def test_a_column_keeps_less_than_rows_of_every_layer() -> None:
    assert 240e3 < state_bytes_per_column(X4PLUS, 16) < 300e3 < 3 * state_values_per_column(X4PLUS)


def test_more_threads_keep_more_of_a_dense_block() -> None:
    two, many = (
        needed_bytes(X4PLUS, 960, 960, in_strips=False, channel_unit=16, threads=threads) for threads in (2, 32)
    )
    assert many > two + 500e6

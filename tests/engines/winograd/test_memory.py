"""The memory that engine winograd computes from its schedule, against what was measured."""

import pytest

from realesr.engines.winograd.memory import needed_bytes
from realesr.models.architecture import Architecture
from realesr.models.compact import Compact
from realesr.models.rrdb import RRDB

X4PLUS = RRDB(scale=4)
VIDEO = Compact(scale=4)
GENERAL = Compact(scale=4, convs=32)

TILES_MB: list[tuple[Architecture, int, int]] = [
    (X4PLUS, 256, 389),
    (X4PLUS, 512, 692),
    (X4PLUS, 960, 1379),
    (RRDB(scale=4, blocks=6), 960, 1379),
    (RRDB(scale=2), 960, 639),
    (VIDEO, 256, 69),
    (VIDEO, 512, 258),
    (GENERAL, 512, 263),
]
"""Side of a tile -> what it took, in 1e6 bytes, with two threads and a SIMD width of 8."""

STRIPS_MB: list[tuple[Architecture, int, int, int]] = [
    (VIDEO, 32, 2000, 136),
    (VIDEO, 64, 1024, 114),
    (VIDEO, 16, 4000, 203),
    (GENERAL, 64, 1024, 130),
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


def test_more_threads_keep_more_of_a_dense_block() -> None:
    two, many = (
        needed_bytes(X4PLUS, 960, 960, in_strips=False, channel_unit=16, threads=threads) for threads in (2, 32)
    )
    assert many > two + 500e6

"""Geometry, for all small sizes and by property."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from realesr.errors import UsageError
from realesr.runtime.tiles import AxisPlan, fade_in, plan_tiles


def axis(length: int, tile: int, overlap: int, *, blend: bool = True, multiple: int = 1) -> AxisPlan:
    return plan_tiles(length, multiple, tile_px=tile, overlap_px=overlap, blend=blend, multiple_of=multiple).rows


def assert_axis_is_sound(plan: AxisPlan, length: int, tile: int, overlap: int, multiple: int, scale: int) -> None:
    total = np.zeros(length * scale)
    for part in plan.tiles:
        assert 0 <= part.start <= part.first < part.last <= part.start + plan.tile_px <= length
        assert part.start % multiple == 0
        total[part.first * scale : part.last * scale] += plan.weights(part, scale)
    np.testing.assert_allclose(total, 1, atol=1e-6)
    assert plan.tile_px % multiple == 0
    assert plan.tile_px <= tile + multiple + 2 * (overlap + multiple)


@pytest.mark.parametrize("tile", [1, 2, 7, 16])
@pytest.mark.parametrize("overlap", [0, 1, 5, 9])
@pytest.mark.parametrize("blend", [False, True])
def test_weights_of_all_tiles_sum_to_one_at_every_pixel(tile: int, overlap: int, blend: bool) -> None:
    for length in range(1, 65):
        assert_axis_is_sound(axis(length, tile, overlap, blend=blend), length, tile, overlap, 1, scale=2)


@given(
    units=st.integers(1, 500),
    multiple=st.sampled_from([1, 2, 4]),
    tile=st.integers(1, 200),
    overlap=st.integers(0, 60),
    blend=st.booleans(),
    scale=st.integers(1, 4),
)
def test_plans_are_sound_for_networks_with_a_pixel_unshuffle(
    units: int, multiple: int, tile: int, overlap: int, blend: bool, scale: int
) -> None:
    plan = axis(units * multiple, tile, overlap, blend=blend, multiple=multiple)
    assert_axis_is_sound(plan, units * multiple, tile, overlap, multiple, scale)


@given(length=st.integers(1, 600), tile=st.integers(1, 100), overlap=st.integers(0, 50))
def test_with_hard_cuts_every_pixel_is_overlap_px_away_from_the_border_of_its_tile(
    length: int, tile: int, overlap: int
) -> None:
    plan = axis(length, tile, overlap, blend=False)
    for part in plan.tiles:
        assert part.first - part.start >= overlap or part.start == 0
        assert part.start + plan.tile_px - part.last >= overlap or part.last == length


@given(length=st.integers(1, 600), tile=st.integers(1, 100), overlap=st.integers(0, 50))
def test_a_plan_has_the_fewest_tiles_that_answer_for_no_more_than_was_asked(
    length: int, tile: int, overlap: int
) -> None:
    plan = axis(length, tile, overlap)
    fewer = len(plan.tiles) - 1
    assert fewer == 0 or fewer * tile + 2 * overlap < length


@given(
    units=st.integers(1, 300),
    multiple=st.sampled_from([1, 2, 4]),
    fixed=st.integers(1, 60),
    tile=st.integers(1, 200),
    share=st.floats(0, 0.49),
    blend=st.booleans(),
)
def test_tiles_of_a_fixed_size_have_it_and_cover_the_image(
    units: int, multiple: int, fixed: int, tile: int, share: float, blend: bool
) -> None:
    overlap = max(0, int(fixed * share)) * multiple
    side, length = fixed * multiple, max(units, fixed) * multiple
    plan = plan_tiles(
        length, side, tile_px=tile, overlap_px=overlap, blend=blend, multiple_of=multiple, fixed_px=(side, side)
    )
    assert plan.tile_shape == (side, side)
    assert_axis_is_sound(plan.rows, length, side, overlap, multiple, scale=2)
    if not blend:
        for part in plan.rows.tiles:
            assert part.first - part.start >= overlap or part.start == 0
            assert part.start + side - part.last >= overlap or part.last == length


def test_an_overlap_that_leaves_nothing_of_a_fixed_size_is_refused() -> None:
    with pytest.raises(UsageError, match="an overlap of 8 px, expected less than half of the tile's fixed 16 px"):
        plan_tiles(40, 16, tile_px=16, overlap_px=8, fixed_px=(16, 16))


def test_an_image_that_fits_is_one_tile_with_no_fade() -> None:
    plan = plan_tiles(100, 120, tile_px=100, overlap_px=10)
    assert len(plan) == 1
    assert plan.tile_shape == (100, 120)
    assert plan.rows.blend_px == 0


def test_all_tiles_have_one_shape_and_slide_inward_at_the_end() -> None:
    plan = plan_tiles(100, 250, tile_px=64, overlap_px=8)
    height, width = plan.tile_shape
    ends = {(row.start + height, column.start + width) for row, column in plan}
    assert max(ends) == (100, 250)
    assert len(list(plan)) == len(plan) == 8


def test_a_fade_is_a_raised_cosine_that_its_mirror_image_completes() -> None:
    fade = fade_in(4, 2)
    assert len(fade) == 16
    np.testing.assert_allclose(fade + fade[::-1], 1, atol=1e-6)
    assert np.all(np.diff(fade) > 0)


def test_a_tile_of_nothing_is_refused_in_words() -> None:
    with pytest.raises(UsageError, match="tile of 0 px"):
        plan_tiles(10, 10, tile_px=0, overlap_px=2)

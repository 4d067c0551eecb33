"""`Strips` itself, with an engine's part that only writes down what it is given."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from realesr.engine import EngineSpec, SizeRule
from realesr.errors import BadShape
from realesr.models.compact import Compact
from realesr.models.rrdb import RRDB
from realesr.runtime.strips import Strips, check_strips, first_rows_px


class Repeating:
    """Gives every row twice, `lag_rows` rows later."""

    def __init__(self, lag_rows: int = 0) -> None:
        self.given: list[tuple[int, bool]] = []
        self._lag_rows = lag_rows
        self._waiting: NDArray[np.float32] | None = None

    def step(self, rows: NDArray[np.float32], *, is_last: bool) -> NDArray[np.float32]:
        assert rows.flags.c_contiguous
        self.given.append((rows.shape[2], is_last))
        rows = rows if self._waiting is None else np.concatenate([self._waiting, rows], axis=2)
        count = rows.shape[2] if is_last else max(0, rows.shape[2] - self._lag_rows)
        self._waiting = rows[:, :, count:]
        return rows[:, :, :count].repeat(2, axis=2).repeat(2, axis=3)

    def state(self) -> dict[str, NDArray[Any]]:
        return {}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        assert not state


def spec(first_rows: int, multiple: int = 1) -> EngineSpec:
    size = SizeRule(minimum_px=multiple, multiple_of=multiple)
    return EngineSpec(name="fake", scale=2, precision="fp32", device="cpu", size=size, first_rows_px=first_rows)


@given(
    height=st.integers(1, 60),
    multiple=st.sampled_from([1, 2, 4]),
    first=st.integers(1, 20),
    lag=st.integers(0, 9),
    heights=st.lists(st.integers(0, 15), max_size=20),
)
def test_rows_are_handed_on_as_the_network_can_take_them(
    height: int, multiple: int, first: int, lag: int, heights: list[int]
) -> None:
    height, first = height * multiple, first * multiple
    image = np.random.default_rng(height).random((3, height, 5), np.float32)
    run = Repeating(lag)
    strips = Strips(run, spec(first, multiple), width_px=5, height_px=height)
    parts, top = [], 0
    for rows in [*heights, height]:
        rows = min(rows, height - top)
        parts.append(strips.push(image[:, top : top + rows]))
        top += rows
    strips.finish()
    assert np.array_equal(np.concatenate(parts, axis=1), image.repeat(2, axis=1).repeat(2, axis=2))
    assert all(rows > 0 and rows % multiple == 0 for rows, _ in run.given)
    assert run.given[0][0] >= min(first, height)
    assert [is_last for _, is_last in run.given] == [False] * (len(run.given) - 1) + [True]


def test_rows_that_wait_are_copies() -> None:
    strips = Strips(Repeating(), spec(4), width_px=3, height_px=8)
    rows = np.ones((3, 3, 3), np.float32)
    assert strips.push(rows).shape == (3, 0, 6)
    rows[:] = 0
    assert strips.push(np.ones((3, 5, 3), np.float32)).min() == 1


@pytest.mark.parametrize(
    ("width", "height", "fits"), [(4, 8, True), (6, 8, False), (0, 4, False), (4, 0, False), (4, 6, False)]
)
def test_sizes_that_the_network_does_not_take_are_refused(width: int, height: int, fits: bool) -> None:
    if fits:
        check_strips(spec(1, 4), width, height)
    else:
        with pytest.raises(BadShape, match=rf"got {width} x {height} px for strips, expected .* multiples of 4"):
            check_strips(spec(1, 4), width, height)


@pytest.mark.parametrize(
    ("architecture", "rows"),
    [(RRDB(scale=4), 350), (RRDB(scale=2), 700), (RRDB(scale=1), 1400), (Compact(scale=4), 19)],
    ids=lambda value: str(value)[:12],
)
def test_first_strips_are_higher_than_the_radius(architecture: RRDB | Compact, rows: int) -> None:
    assert first_rows_px(architecture) == rows
    assert rows > architecture.radius_px

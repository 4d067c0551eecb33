import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from realesr.runtime.rows import Band, RowWindow, crop_bands, in_chunks, pad_bands, prefetch


def split(image: Band, heights: list[int]) -> Iterator[Band]:
    """The image in bands of these heights, again and again."""
    start, turn = 0, 0
    while start < image.shape[1]:
        height = heights[turn % len(heights)]
        yield image[:, start : start + height]
        start, turn = start + height, turn + 1


def numbered(rows: int, width: int = 3) -> Band:
    return np.arange(2 * rows * width, dtype=np.float32).reshape(2, rows, width)


@given(
    rows=st.integers(1, 60),
    heights=st.lists(st.integers(1, 20), min_size=1, max_size=5),
    steps=st.lists(st.tuples(st.integers(0, 10), st.integers(1, 15)), max_size=12),
)
def test_a_window_shows_the_rows_that_were_asked_for(
    rows: int, heights: list[int], steps: list[tuple[int, int]]
) -> None:
    image = numbered(rows)
    window = RowWindow(split(image, heights))
    start = 0
    for down, count in steps:
        start = min(start + down, rows - 1)
        stop = min(start + count, rows)
        np.testing.assert_array_equal(window.rows(start, stop), image[:, start:stop])


def test_a_window_neither_goes_back_nor_past_the_end() -> None:
    window = RowWindow(split(numbered(10), [4]))
    window.rows(5, 7)
    with pytest.raises(ValueError, match="row 2 was given up"):
        window.rows(2, 7)
    with pytest.raises(ValueError, match="ended at row 10, expected 11"):
        window.rows(5, 11)


def test_chunks_cover_every_row_once() -> None:
    assert list(in_chunks(7, 3)) == [(0, 3), (3, 6), (6, 7)]
    assert list(in_chunks(0)) == []


def test_padding_repeats_the_border_and_cropping_undoes_it() -> None:
    image = numbered(7)
    padded = np.concatenate(list(pad_bands(split(image, [3]), bottom_px=2, right_px=1)), axis=1)
    np.testing.assert_array_equal(padded, np.pad(image, ((0, 0), (0, 2), (0, 1)), mode="edge"))
    cropped = np.concatenate(list(crop_bands(split(padded, [4]), height_px=7, width_px=3)), axis=1)
    np.testing.assert_array_equal(cropped, image)


def test_prefetch_gives_the_same_items_in_order() -> None:
    assert list(prefetch(iter(range(20)))) == list(range(20))


def test_prefetch_raises_what_the_producer_raised_after_the_items_before_it() -> None:
    def produce() -> Iterator[int]:
        yield 1
        raise KeyError("broken")

    items = prefetch(produce())
    assert next(items) == 1
    with pytest.raises(KeyError, match="broken"):
        next(items)


def test_closing_prefetch_ends_its_thread_and_closes_the_producer() -> None:
    closed = threading.Event()

    def produce() -> Iterator[int]:
        try:
            while True:
                yield 0
        finally:
            closed.set()

    before = threading.active_count()
    items = prefetch(produce())
    next(items)
    items.close()
    assert closed.is_set()
    assert threading.active_count() == before


def test_prefetch_runs_no_further_ahead_than_it_was_told() -> None:
    made: list[int] = []

    def produce() -> Iterator[int]:
        for i in range(10):
            made.append(i)
            yield i

    items = prefetch(produce(), depth=2)
    assert next(items) == 0
    time.sleep(0.3)
    assert len(made) <= 4
    items.close()

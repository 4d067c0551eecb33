"""How long it will take, and what would be faster."""

import pytest

from realesr.cli.estimate import WORTH_MEASURING_PX, Estimate, duration_in_words, faster_advice, faster_network


class Clock:
    """Goes on only when it is told to."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def told(steps: list[tuple[float, int]], total: int = 1000) -> list[float]:
    """What is reported when `done` px are reached at `seconds` after the start."""
    clock = Clock()
    reports: list[float] = []
    estimate = Estimate(reports.append, clock)
    start = clock.seconds
    for seconds, done in steps:
        clock.seconds = start + seconds
        estimate(done, total)
    return reports


def test_the_second_step_tells_the_time_and_nothing_is_told_twice() -> None:
    assert told([(0, 0), (1, 100), (3, 200), (60, 900), (61, 1000)]) == [3 + 16]


def test_many_steps_within_a_second_are_not_enough() -> None:
    assert told([(0, 0), (0.5, 50), (0.75, 75), (1.25, 125)]) == []
    assert told([(0, 0), (0.5, 50), (0.75, 75), (1.75, 175)]) == [10]


def test_one_slow_step_is_enough() -> None:
    assert told([(0, 0), (13, 100)]) == [130]


def test_one_quick_step_is_not_enough() -> None:
    assert told([(0, 0), (1, 100)]) == []


def test_time_counts_from_the_first_step_and_not_from_opening_the_file() -> None:
    assert told([(50, 0), (60, 100)]) == [100]


def test_a_file_that_is_finished_needs_no_estimate() -> None:
    assert told([(0, 0), (10, 1000)]) == []


def measured(seconds_per_px: float | None, total: int) -> tuple[list[float], list[int]]:
    """What is reported before the first step, and the pixels for which the network was measured."""
    reports: list[float] = []
    asked: list[int] = []

    def measure() -> float | None:
        asked.append(total)
        return seconds_per_px

    clock = Clock()
    estimate = Estimate(reports.append, clock, measure)
    estimate(0, total)
    before = list(reports)
    for done in (1, 2, 3):
        clock.seconds += 20
        estimate(done * total // 10, total)
    assert len(reports) == 1
    return before, asked


def test_a_long_run_is_told_before_its_first_step_and_nothing_is_told_twice() -> None:
    before, asked = measured(1e-4, 12_000_000)
    assert before == [pytest.approx(1200)]
    assert len(asked) == 1


def test_a_short_run_is_told_after_its_first_steps() -> None:
    assert measured(1e-6, 12_000_000)[0] == []
    assert measured(None, 12_000_000)[0] == []


def test_small_images_are_not_measured() -> None:
    assert measured(1.0, WORTH_MEASURING_PX - 1) == ([], [])


def test_the_time_of_the_faster_network_follows_from_their_macs() -> None:
    assert faster_advice("realesrgan-x4plus", 7800) == (
        "-m realesr-general-x4v3 takes about 9 min (it comes with realesr)"
    )
    assert faster_advice("realesr-general-x4v3", 7800) is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "less than 1 s"),
        (1.2, "about 1 s"),
        (99.4, "about 99 s"),
        (99.6, "about 2 min"),
        (2460, "about 41 min"),
        (5990, "about 1 h 40 min"),
        (7770, "about 2 h 10 min"),
        (86400, "about 24 h 0 min"),
    ],
)
def test_times_are_said_as_people_say_them(seconds: float, words: str) -> None:
    assert duration_in_words(seconds) == words


COSTS = {"realesrgan-x4plus": 17.93e6, "realesr-general-x4v3": 1.209e6, "realesr-animevideov3": 0.619e6}


def faster(name: str, cost: float) -> tuple[str, float]:
    """The advice, its ratio rounded to two digits behind the point."""
    found = faster_network(name, cost, COSTS)
    assert found is not None
    return found[0], round(found[1], 2)


def test_the_faster_network_suits_the_same_kind_of_picture() -> None:
    assert faster("realesrgan-x4plus", 17.93e6) == ("realesr-general-x4v3", 14.83)
    assert faster("realesrgan-x4plus-anime", 5.71e6) == ("realesr-animevideov3", 9.22)


def test_nothing_is_named_where_nothing_is_faster_or_known() -> None:
    assert faster_network("realesr-general-x4v3", 1.209e6, COSTS) is None
    assert faster_network("own.onnx", None, COSTS) is None
    assert faster_network("realesrgan-x4plus", 17.93e6, {}) is None

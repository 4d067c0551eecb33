"""Seconds of the stages that one image goes through."""

from collections.abc import Iterator

import pytest

from realesr.runtime.stage_times import StageTimes


class Clock:
    """A clock that goes on only where it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 0.0
        monkeypatch.setattr("realesr.runtime.stage_times.time.monotonic", lambda: self.seconds)

    def items(self, seconds_each: float) -> Iterator[int]:
        for number in range(3):
            self.seconds += seconds_each
            yield number


def test_a_stage_is_what_its_items_take_less_what_it_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, times = Clock(monkeypatch), StageTimes()

    def network(decoded: Iterator[int]) -> Iterator[int]:
        for item in decoded:
            clock.seconds += 5
            yield item

    decoded = times.stage("decoding", clock.items(1))
    enlarged = times.stage("network", network(times.waiting("network", decoded)))
    with times.step("encoding"):
        for _ in times.waiting("encoding", enlarged):
            clock.seconds += 2
    assert times.in_words() == "decoding 3.0 s, network 15.0 s, encoding 6.0 s"


def test_closing_reaches_what_is_timed() -> None:
    closed = []

    def items() -> Iterator[int]:
        try:
            yield from range(9)
        finally:
            closed.append(True)

    timed = StageTimes().stage("network", items())
    assert next(timed) == 0
    timed.close()
    assert closed == [True]
    StageTimes().stage("network", iter([1])).close()

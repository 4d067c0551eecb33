"""Measures how long each stage of one image works: decoding, network, encoding. They run side by side, so no sum."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, Self, TypeVar

Item = TypeVar("Item")


class StageTimes:
    """Seconds of each stage of one image. Every stage is measured in one thread alone."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def stage(self, name: str, items: Iterable[Item]) -> "TimedItems[Item]":
        """Return the same items; the time that it takes to make them counts for the stage `name`."""
        return TimedItems(self, name, items, sign=1)

    def waiting(self, name: str, items: Iterable[Item]) -> "TimedItems[Item]":
        """Return the same items; the time that the stage `name` waits for them does not count for it."""
        return TimedItems(self, name, items, sign=-1)

    @contextmanager
    def step(self, name: str, sign: int = 1) -> Iterator[None]:
        """Count the time of the block for the stage `name`."""
        started = time.monotonic()
        try:
            yield
        finally:
            self._seconds[name] = self._seconds.get(name, 0.0) + sign * (time.monotonic() - started)

    def in_words(self) -> str:
        """Return the stages and their seconds: "decoding 0.1 s, network 12.0 s"."""
        return ", ".join(f"{name} {max(0.0, seconds):.1f} s" for name, seconds in self._seconds.items())


class TimedItems(Generic[Item]):
    """An iterator whose steps are timed; closing it closes what it iterates over."""

    def __init__(self, times: StageTimes, name: str, items: Iterable[Item], *, sign: int) -> None:
        self._times, self._name, self._sign = times, name, sign
        self._items = iter(items)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Item:
        with self._times.step(self._name, self._sign):
            return next(self._items)

    def close(self) -> None:
        """Close the iterator that is timed, if it can be closed."""
        close = getattr(self._items, "close", None)
        if close is not None:
            close()

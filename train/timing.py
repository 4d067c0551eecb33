"""Times the parts of training. On a GPU events are put between the kernels; only `seconds` waits for them."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

PARTS = ("data", "degrade", "G", "VGG", "D", "optimiser", "save")
"""Waiting for images; making the batch; the networks; the optimisers' steps; checkpoints and validation."""


class Stopwatch:
    """Adds up the seconds of each part."""

    def __init__(self, device: torch.device) -> None:
        self._is_cuda = device.type == "cuda"
        self._seconds: dict[str, float] = {}
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Count the time within the block as that of `part`. Parts within parts would be counted twice."""
        if self._is_cuda and part not in ("data", "save"):
            begin, end = _event(), _event()
            begin.record()
            try:
                yield
            finally:
                end.record()
                self._events.append((part, begin, end))
            return
        started = time.perf_counter()
        try:
            yield
        finally:
            self._add(part, time.perf_counter() - started)

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each part since the last call. Waits for the GPU."""
        if self._events:
            torch.cuda.synchronize()
        for part, begin, end in self._events:
            self._add(part, begin.elapsed_time(end) / 1000)
        self._events.clear()
        taken, self._seconds = self._seconds, {}
        return {part: taken[part] for part in PARTS if part in taken}

    def _add(self, part: str, seconds: float) -> None:
        self._seconds[part] = self._seconds.get(part, 0.0) + seconds


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]

"""Times a GPU: wall time, events, memory, torch's profiler. On a CPU the same calls serve as a rehearsal."""

import math
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch

from realesr.errors import UsageError

Row = dict[str, Any]


def whole_seconds(step: Callable[[], Any]) -> float:
    """Wall time of one run."""
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def median_seconds(step: Callable[[], Any], seconds: float) -> float:
    """Median wall time of the runs that fill this time, at least three."""
    times: list[float] = []
    while sum(times) < seconds or len(times) < 3:
        times.append(whole_seconds(step))
    return statistics.median(times)


def device_seconds(step: Callable[[], Any], device: str, seconds: float) -> float:
    """Median time between events before and after what `step` starts, after two runs to warm up; on a CPU wall time."""
    step(), step()
    if not device.startswith("cuda"):
        return median_seconds(step, seconds)
    times: list[float] = []
    while sum(times) < seconds or len(times) < 3:
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        before.record()
        step()
        after.record()
        after.synchronize()
        times.append(before.elapsed_time(after) / 1e3)
    return statistics.median(times)


class Memory:
    """GPU memory that was taken since this was made, in bytes; None on a CPU."""

    def __init__(self, device: str) -> None:
        self._is_gpu = device.startswith("cuda")
        if self._is_gpu:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            self._allocated, self._reserved = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
            torch.cuda.reset_peak_memory_stats()

    def peak(self) -> int | None:
        """Most that tensors took, beside what there was; the next answer begins anew."""
        if not self._is_gpu:
            return None
        peak = torch.cuda.max_memory_allocated() - self._allocated
        torch.cuda.reset_peak_memory_stats()
        return peak

    def reserved(self) -> int | None:
        """Return the bytes of GPU memory that torch has reserved: tensors, gaps between them, and memory of graphs."""
        return torch.cuda.memory_reserved() - self._reserved if self._is_gpu else None


_NO_KERNELS = ("Activity Buffer Request", "Buffer Flush")
"""Activities of torch's profiler itself."""


class Span(NamedTuple):
    """One kernel, or copy, on the GPU."""

    name: str
    start_us: float
    stop_us: float


def profiled(step: Callable[[], Any], device: str, top: int = 12) -> tuple[Row, list[Row]]:
    """Run twice to warm up, then once under torch's profiler; see `summed`. On a CPU operators are the kernels."""
    step(), step()
    is_gpu = device.startswith("cuda")
    activities = [torch.profiler.ProfilerActivity.CUDA if is_gpu else torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities) as profiler:
        whole_s = whole_seconds(step)
        if is_gpu:
            torch.cuda.synchronize()
    kind = "CUDA" if is_gpu else "CPU"
    spans = [
        Span(event.name, event.time_range.start, event.time_range.end)
        for event in profiler.events() or ()
        if event.device_type.name == kind and not event.cpu_children and event.name not in _NO_KERNELS
    ]
    if not spans and is_gpu:
        raise RuntimeError("torch's profiler saw no kernel: CUPTI may be missing, or in use by another profiler")
    if not spans:
        raise UsageError("torch's profiler sees only the thread that it is started in, unless a GPU does the work")
    summary, kernels = summed(spans, top)
    return {"whole_s": whole_s, **summary}, kernels


def summed(spans: list[Span], top: int) -> tuple[Row, list[Row]]:
    """All of it in one row, and the kernels that took the most time, one row each.

    `length_ms` is from the first one's start to the last one's end, `busy_ms` where any ran, `kernels_ms` their sum,
    which is more where they overlap.
    """
    length_us = max(span.stop_us for span in spans) - min(span.start_us for span in spans)
    by_name: dict[str, list[float]] = {}
    for span in spans:
        by_name.setdefault(span.name, []).append(span.stop_us - span.start_us)
    total_us = sum(map(sum, by_name.values()))
    largest = sorted(by_name.items(), key=lambda item: -sum(item[1]))[:top]
    busy = busy_us(spans)
    summary = {
        "launches": len(spans),
        "kernels_ms": total_us / 1e3,
        "busy_ms": busy / 1e3,
        "length_ms": length_us / 1e3,
        "gap_percent": (1 - busy / length_us) * 100,
    }
    kernels = [
        {"name": name[:120], "count": len(times), "ms": sum(times) / 1e3, "percent": sum(times) / total_us * 100}
        for name, times in largest
    ]
    return summary, kernels


def busy_us(spans: Iterable[Span]) -> float:
    """Time in which at least one of them ran."""
    busy, end = 0.0, -math.inf
    for span in sorted(spans, key=lambda span: span.start_us):
        busy += max(0.0, span.stop_us - max(span.start_us, end))
        end = max(end, span.stop_us)
    return busy

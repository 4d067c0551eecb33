"""Logs a run: a line of JSON for every record, TensorBoard where it is installed, one line for people."""

import json
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LOG = "log.jsonl"


class RunLog:
    """Appends records to the run's log."""

    def __init__(self, run: Path) -> None:
        self._file = (run / LOG).open("a", encoding="utf-8")
        self._board = _open_tensorboard(run)

    def write(self, kind: str, iteration: int, values: Mapping[str, Any]) -> None:
        """Append a record, and hand it to the system."""
        record = {"time": round(time.time(), 3), "kind": kind, "iteration": iteration, **values}
        self._file.write(json.dumps(record, default=str) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, int | float):
                    self._board.add_scalar(f"{kind}/{name}", value, iteration)

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._board is not None:
            self._board.close()


class Throughput:
    """Measures iterations a second over the last records, and estimates the time that is left."""

    def __init__(self, iterations: int) -> None:
        self._iterations = iterations
        self._marks: deque[tuple[int, float]] = deque(maxlen=20)

    def at(self, iteration: int) -> None:
        """Note that this iteration has been done."""
        self._marks.append((iteration, time.perf_counter()))

    @property
    def per_second(self) -> float:
        """Return iterations a second; 0 where they are not known yet."""
        if len(self._marks) < 2:
            return 0.0
        (first, began), (last, ended) = self._marks[0], self._marks[-1]
        return (last - first) / max(ended - began, 1e-9)

    @property
    def seconds_left(self) -> float:
        """Return the seconds until the last iteration; 0 where they are not known yet."""
        per_second = self.per_second
        return (self._iterations - self._marks[-1][0]) / per_second if per_second else 0.0


def status_line(
    iteration: int, iterations: int, losses: Mapping[str, float], throughput: Throughput, seconds: Mapping[str, float]
) -> str:
    """Return a line like "1200/3000  4.1 it/s  7 min left  l1 0.0312  |  data 1 % degrade 20 % G 79 %"."""
    parts = [f"{iteration}/{iterations}"]
    if throughput.per_second:
        parts.append(f"{throughput.per_second:.3g} it/s")
        parts.append(f"{words_of_time(throughput.seconds_left)} left")
    parts.append("  ".join(f"{name} {value:.4g}" for name, value in losses.items()))
    whole = sum(seconds.values())
    if whole:
        parts.append("| " + "  ".join(f"{part} {value / whole:.0%}" for part, value in seconds.items()))
    return "  ".join(parts)


def words_of_time(seconds: float) -> str:
    """Return a duration like "40 s", "7 min", "3.5 h" or "2.1 days"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"


def _open_tensorboard(run: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(run / "tensorboard"))

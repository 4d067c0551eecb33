"""Logs a run: a line of JSON for every record, TensorBoard where it is installed, one line for people."""

import errno
import json
import os
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from realesr.machine.whole_file import not_written
from realesr.progress import AmountCallback, MessageCallback

LOG = "log.jsonl"
_ADVICE = "make room and say the same command again"
_LONGEST_LINE_BYTES = 1 << 24
"""More than any record has."""


class RunLog:
    """Appends records to the run's log."""

    def __init__(self, run: Path, iteration: int) -> None:
        """Open the files; `iteration` have been done, and what TensorBoard has of later ones is hidden.

        Raises:
            OutputError: the log cannot be written.
        """
        self._path = run / LOG
        try:
            self._file = self._path.open("ab", buffering=0)
            _end_last_line(self._path)
        except OSError as error:
            raise not_written(self._path, error, _ADVICE) from error
        self._board = _open_tensorboard(run, iteration)

    def write(self, kind: str, iteration: int, values: Mapping[str, Any]) -> None:
        """Append a record, and hand it to the system.

        Raises:
            OutputError: the disk is full or cannot be written.
        """
        record = {"time": round(time.time(), 3), "kind": kind, "iteration": iteration, **values}
        line = f"{json.dumps(record, default=str)}\n".encode()
        try:
            if self._file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise not_written(self._path, error, _ADVICE) from error
        if self._board is not None and kind != "run":
            for name, value in _numbers(values, kind):
                self._board.add_scalar(name, value, iteration)

    def picture(self, name: str, iteration: int, pixels: NDArray[np.uint8]) -> None:
        """Show TensorBoard a picture, (H, W, 3) uint8 RGB; the log does not hold it."""
        if self._board is not None:
            self._board.add_image(name, pixels, iteration, dataformats="HWC")

    def text(self, name: str, iteration: int, values: Mapping[str, Any]) -> None:
        """Show TensorBoard a table as JSON."""
        if self._board is not None:
            self._board.add_text(name, f"```json\n{json.dumps(values, indent=2)}\n```", iteration)

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._board is not None:
            self._board.close()


class LossMeans:
    """Sums up losses from one record to the next. Nothing waits for the device."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Add the losses of an iteration; some have others, for example while only the discriminator learns."""
        for name, loss in losses.items():
            value = loss.detach().float()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def take(self) -> dict[str, Tensor]:
        """Return the mean of each loss over the iterations that have had it, and begin anew."""
        means = {name: value / self._counts[name] for name, value in self._sums.items()}
        self._sums, self._counts = {}, {}
        return means


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


def amount_shown(what: str, show: MessageCallback) -> AmountCallback:
    """Return a progress callback for a download, which shows a line like "fetching VGG19: 60 of 575 MB" now and then.

    The first bytes show one, then each twentieth of the file (where its size is unknown, each 10 MB).
    """
    steps_shown = -1

    def on_progress(done: int, total: int) -> None:
        nonlocal steps_shown
        steps = done * 20 // total if total else done // 10_000_000
        if steps > steps_shown:
            steps_shown = steps
            show(f"{what}: {done / 1e6:.0f}{f' of {total / 1e6:.0f}' if total else ''} MB")

    return on_progress


def _end_last_line(path: Path) -> None:
    """Remove a last line that was broken off, by a power cut or a full disk: every line of the log is a record."""
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _LONGEST_LINE_BYTES))
        broken_off = file.read().rpartition(b"\n")[2]
        file.truncate(size - len(broken_off))


def _numbers(values: Mapping[str, Any], where: str) -> Iterator[tuple[str, float]]:
    """Yield the numbers of nested tables by names like "losses/seconds/data"."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{where}/{name}")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{where}/{name}", value


def _open_tensorboard(run: Path, iteration: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(run / "tensorboard"), purge_step=iteration + 1 if iteration else None)

"""Says now and then how far a long piece of work is: in a log file as well as on a terminal."""

import time

from realesr.progress import MessageCallback
from realesr.train.log import Throughput, words_of_time

_SECONDS = 10.0
"""Seconds between lines."""


class ProgressLines:
    """An `AmountCallback` that turns into lines like "312/1000 pairs  3.1 a second  4 min left"."""

    def __init__(self, noun: str, show: MessageCallback) -> None:
        """Begin; `noun` is what is counted, `show` gets the lines."""
        self._noun, self._show = noun, show
        self._throughput: Throughput | None = None
        self._shown = float("-inf")

    def __call__(self, done: int, total: int) -> None:
        """Note that so much of all is done."""
        if self._throughput is None:
            self._throughput = Throughput(total)
        now = time.monotonic()
        if now - self._shown < _SECONDS and done < total:
            return
        self._shown = now
        self._throughput.at(done)
        self._show(self._line(done, total))

    def _line(self, done: int, total: int) -> str:
        line = f"{done}/{total} {self._noun}"
        if self._throughput is None or not self._throughput.per_second:
            return line
        left = words_of_time(self._throughput.seconds_left)
        return f"{line}  {self._throughput.per_second:.3g} a second  {left} left"

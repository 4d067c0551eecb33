"""Estimates how long a file will take, and names a faster network.

A network that needs minutes is measured on a small tile before it starts, for its first step may take minutes itself;
for any other the first progress callbacks tell.
"""

import functools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from realesr.models.weights import Weights

LONG_SECONDS = 5 * 60
"""With an estimate above this, a faster network is named."""
MEASURED_SECONDS = 1.0
"""Time that is measured after the first step."""
SLOW_STEP_SECONDS = 10.0
"""After a first step that takes longer, the estimate does not wait for another."""
WORTH_MEASURING_PX = 800_000
"""Pixels of input from which on the network is measured before it starts, which takes it less than 1 % of its time."""
WORTH_NAMING = 1.5
"""Least speed-up for which a faster network is named."""

FASTER_FOR_PHOTOS = "realesr-general-x4v3"
FASTER_FOR_ANIME = "realesr-animevideov3"


class Estimate:
    """A progress callback that calls `report(seconds)` once: before a long run, else once a few steps have been timed.

    The first step includes the engine's start, so the remaining time is estimated from the steps after it.
    """

    def __init__(
        self,
        report: Callable[[float], None],
        clock: Callable[[], float] = time.monotonic,
        seconds_per_px: Callable[[], float | None] = lambda: None,
    ) -> None:
        """Make the callback for one file.

        Args:
            report: called with the seconds that the file takes in all.
            clock: returns the time in seconds.
            seconds_per_px: measures the network; None where that tells nothing.
        """
        self._report: Callable[[float], None] | None = report
        self._clock = clock
        self._seconds_per_px = seconds_per_px
        self._start = clock()
        self._first: tuple[float, int] | None = None

    def __call__(self, done_px: int, total_px: int) -> None:
        """Record one step of progress, and report once there is an estimate; see `AmountCallback`."""
        if done_px == 0:
            self._report_long(total_px)
            self._start = self._clock()
        if self._report is None or done_px == 0 or done_px >= total_px:
            return
        seconds = self._clock() - self._start
        if self._first is None:
            self._first = seconds, done_px
            if seconds < SLOW_STEP_SECONDS:
                return
            seconds_a_px = seconds / done_px
        else:
            first_seconds, first_px = self._first
            if seconds - first_seconds < MEASURED_SECONDS:
                return
            seconds_a_px = (seconds - first_seconds) / (done_px - first_px)
        self._report(seconds + (total_px - done_px) * seconds_a_px)
        self._report = None

    def _report_long(self, total_px: int) -> None:
        """Measure the network, and report where it will take long."""
        if self._report is None or total_px < WORTH_MEASURING_PX:
            return
        seconds = total_px * (self._seconds_per_px() or 0.0)
        if seconds > LONG_SECONDS:
            self._report(seconds)
            self._report = None


def duration_in_words(seconds: float) -> str:
    """Return a duration in words: "less than 1 s", "about 12 s", "about 7 min", "about 2 h 10 min"."""
    if seconds < 1:
        return "less than 1 s"
    if seconds < 99.5:
        return f"about {seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"about {minutes} min"
    hours, tens = divmod(round(seconds / 600), 6)
    return f"about {hours} h {tens * 10} min"


@functools.cache
def facts_of(model: str | None) -> tuple[float, float | None]:
    """Return the scale of a network, None: the default one, and its MACs per input pixel where they are known."""
    from realesr.engines import model_facts
    from realesr.models.zoo import DEFAULT_MODEL, ZOO

    model = model or DEFAULT_MODEL
    if model in ZOO:
        architecture = ZOO[model].architecture
        return architecture.scale, architecture.macs_per_px
    facts = model_facts(loaded_model(model))
    return facts.scale, None if facts.architecture is None else facts.architecture.macs_per_px


@functools.lru_cache(maxsize=1)
def loaded_model(model: str) -> "Weights | Path":
    """Return the network of a file, which is read once for its facts and for the engine.

    Whoever has opened it calls `loaded_model.cache_clear()`: a later run reads the file as it is then.
    """
    from realesr.models.zoo import load_model

    return load_model(model)


def faster_advice(model: str | None, seconds: float) -> str | None:
    """Return words that name a faster network and its time; None where there is none.

    Args:
        model: name or path of the network in use; None is the default one.
        seconds: what it takes. The other's time is that by the ratio of their MACs.
    """
    from realesr.models.zoo import DEFAULT_MODEL, ZOO, find_file

    from .console import megabytes

    model = model or DEFAULT_MODEL
    costs = {name: entry.architecture.macs_per_px for name, entry in ZOO.items()}
    faster = faster_network(model, facts_of(model)[1], costs)
    if faster is None:
        return None
    name, ratio = faster
    size = ZOO[name].bytes
    if ZOO[name].bundled_sha256:
        where = "it comes with realesr"
    elif find_file(ZOO[name]) is not None:
        where = "it is on disk"
    else:
        where = "not on disk: fetched at its first use" + ("" if size is None else f", {megabytes(size)}")
    return f"-m {name} takes {duration_in_words(seconds / ratio)} ({where})"


def faster_network(model: str, cost: float | None, costs: Mapping[str, float]) -> tuple[str, float] | None:
    """Return a network for the same kind of picture with fewer MACs, and how many times fewer.

    Args:
        model: name or path of the network in use.
        cost: its MACs per input pixel; None where they are not known.
        costs: MACs per input pixel of every network of the zoo, by name.

    Returns:
        (name, ratio), or None where none is known to be faster.
    """
    name = FASTER_FOR_ANIME if "anime" in model else FASTER_FOR_PHOTOS
    if cost is None or name not in costs or cost < WORTH_NAMING * costs[name]:
        return None
    return name, cost / costs[name]

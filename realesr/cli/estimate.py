"""How long a file will take, measured on its first tiles or on the beginning of one, and which network would be faster.

Pure but for the clock.
"""

import time
from collections.abc import Callable, Mapping

LONG_SECONDS = 5 * 60
"""An estimate above this names a faster network."""
MEASURED_SECONDS = 1.0
"""From the first step on."""
SLOW_STEP_SECONDS = 10.0
"""A first step that takes longer is not waited for once more."""
WORTH_NAMING = 1.5
"""A network that is less than this many times faster is not worth a line."""

FASTER_FOR_PHOTOS = "realesr-general-x4v3"
FASTER_FOR_ANIME = "realesr-animevideov3"


class Estimate:
    """Calls `report(seconds)` once, as soon as a few steps have been timed; a progress callback itself.

    The first step also pays for starting the engine, so what remains is judged by those that follow it.
    """

    def __init__(self, report: Callable[[float], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._report: Callable[[float], None] | None = report
        self._clock = clock
        self._start = clock()
        self._first: tuple[float, int] | None = None

    def __call__(self, done_px: int, total_px: int) -> None:
        """Take one step of progress; see `realesr.api.Progress`."""
        if done_px == 0:
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


def words_of_time(seconds: float) -> str:
    """A duration as a person says it: "less than 1 s", "about 12 s", "about 7 min", "about 2 h 10 min"."""
    if seconds < 1:
        return "less than 1 s"
    if seconds < 99.5:
        return f"about {seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"about {minutes} min"
    hours, tens = divmod(round(seconds / 600), 6)
    return f"about {hours} h {tens * 10} min"


def faster_network(model: str, cost: float | None, costs: Mapping[str, float]) -> tuple[str, float] | None:
    """The network that does the same kind of picture with less arithmetic, and how many times less.

    Args:
        model: name or path of the network in use.
        cost: its multiply-accumulates per input pixel; None where they are not known.
        costs: the same of every network of the zoo, by name.

    Returns:
        (name, ratio), or None where none is known to be faster.
    """
    name = FASTER_FOR_ANIME if "anime" in model else FASTER_FOR_PHOTOS
    if cost is None or name not in costs or cost < WORTH_NAMING * costs[name]:
        return None
    return name, cost / costs[name]

"""Callbacks: two kinds of progress, and messages."""

from collections.abc import Callable

ProgressCallback = Callable[[float], None]
"""Called with the share of a run that is done, from 0 to 1, never less than before. What it raises ends the run."""

AmountCallback = Callable[[int, int], None]
"""Called with the amount that is done and the amount in all: pixels of an image, or bytes of a download (0 in all where
the server does not tell)."""

MessageCallback = Callable[[str], None]
"""Called with one line for people."""


def no_progress(_share: float) -> None:
    """Do nothing: the callback of a run that nobody watches."""

"""Counts the images that could not be read while a run goes on, and ends the run where they are too many."""

from collections.abc import Mapping

from realesr.errors import InputError

_NAMED = 5


class ReadFailures:
    """The images that could not be read so far, each once.

    Each reading of batches has its own; that of a run has those of all processes, and is the same in each.
    They are told and counted; which image replaces one does not depend on them (see `samples.images_in_turn`).
    """

    def __init__(self, most: int) -> None:
        """Begin without failures; `most` may be left out before the run ends."""
        self._most = most
        self._reasons: dict[str, str] = {}

    def __len__(self) -> int:
        """Return how many images could not be read."""
        return len(self._reasons)

    def add(self, reasons: Mapping[str, str]) -> dict[str, str]:
        """Note images that could not be read, by name with the reason; return those that are new.

        Raises:
            InputError: there are more than `most` now; the first are named.
        """
        new = {name: reason for name, reason in reasons.items() if name not in self._reasons}
        self._reasons.update(new)
        if len(self._reasons) > self._most:
            raise InputError(
                f"{_counted(len(self._reasons))} cannot be read, more than data.max_failures = {self._most} allows "
                f"({_listed(self._reasons)}): check that their disk is there, mend or remove them, or raise the limit"
            )
        return new


def nothing_readable(reasons: Mapping[str, str]) -> InputError:
    """Return the error of a run without a single image that can be read."""
    return InputError(
        f"no image is left that can be read ({_listed(reasons)}): check that their disk is there, and mend or replace "
        "them"
    )


def _counted(count: int) -> str:
    return "1 image" if count == 1 else f"{count:,} images"


def _listed(reasons: Mapping[str, str]) -> str:
    """Return the first reasons, each of which has the image's name."""
    more = len(reasons) - _NAMED
    return "; ".join([*list(reasons.values())[:_NAMED], *([f"and {more:,} more"] if more > 0 else [])])

"""Runs a network over an image strip by strip, with state between strips: nothing twice, and no seams.

`Strips` is what an engine's `open_strips` gives: it takes any number of rows at a time and hands on rows in the numbers
that the network can take to a `StripRun`, which is the engine's part of it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from realesr.engine import EngineSpec
from realesr.errors import BadShape
from realesr.models.architecture import Architecture
from realesr.runtime.rows import Band, in_chunks


class StripRun(Protocol):
    """One image under way in an engine, with the state of every layer."""

    def step(self, rows: NDArray[np.float32], *, is_last: bool) -> NDArray[np.float32]:
        """Enlarge the image's next rows.

        Args:
            rows: (1, 3, h, width_px) float32 RGB in [0, 1], C-contiguous, h a multiple of `spec.size.multiple_of`; the
                first are `first_rows_px` or more, unless they are the last too.
            is_last: whether the image ends with them.

        Returns:
            (1, 3, H, width_px * scale) float32 RGB, not clamped: the next rows of the result, all of them with the
            last.

        Raises:
            OutOfMemory: they do not fit. The image cannot be gone on with.
        """
        ...

    def state(self) -> dict[str, NDArray[Any]]:
        """Return what the next strip is computed from besides its rows, by name.

        The arrays are not to be changed, and hold other values once the next rows have come.
        """
        ...

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from a state that another run of the same network, over an image of the same width, has had.

        The arrays are this run's from then on, and hold other values once the next rows have come.
        """
        ...


class StagePass(Protocol):
    """One image under way in one stage of a network."""

    def advance(self, rows: Any, *, is_last: bool) -> Any:
        """Take the next rows, the third axis, and return the next rows of the stage's result."""
        ...


def through_stages(
    stages: Sequence[StagePass],
    rows: Any,
    *,
    portion_rows: int,
    is_last: bool,
    joined: Callable[[list[Any]], Any],
) -> Any:
    """Run rows through a network's stages; the later ones get the first one's result in portions.

    Args:
        stages: in order.
        rows: the image's next rows, an array or tensor (1, channels, h, width).
        portion_rows: rows of a portion.
        is_last: whether the image ends with them.
        joined: concatenates several results along the rows.
    """
    first, *later = stages
    result = first.advance(rows, is_last=is_last)
    for stage in later:
        count = result.shape[2]
        parts = [
            stage.advance(result[:, :, start:stop], is_last=is_last and stop == count)
            for start, stop in in_chunks(count, portion_rows)
        ]
        result = parts[0] if len(parts) == 1 else joined(parts)
    return result


def joined_states(states: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Return the states of several strips or stages as one; `state_of` has each of them again."""
    return {f"{number}.{name}": array for number, state in enumerate(states) for name, array in state.items()}


def state_of(number: int, joined: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return one of the states that `joined_states` has joined."""
    prefix = f"{number}."
    return {name.removeprefix(prefix): array for name, array in joined.items() if name.startswith(prefix)}


def first_rows_px(architecture: Architecture) -> int:
    """Return the fewest rows of a network's first strip: more than its receptive radius, in whole unshuffle blocks."""
    multiple = architecture.multiple_of
    return -(-(architecture.radius_px + 1) // multiple) * multiple


def check_strips(spec: EngineSpec, width_px: int, height_px: int) -> None:
    """Raise BadShape where an image of this size breaks `spec.size`."""
    if not spec.size.fits(height_px, width_px):
        raise BadShape(
            f"engine {spec.name} got {width_px} x {height_px} px for strips, expected sides of at least "
            f"{spec.size.minimum_px} px that are multiples of {spec.size.multiple_of}"
        )


class Strips:
    """One image, strip by strip. Not thread-safe.

    Args:
        run: the engine's part.
        spec: of the engine. Its `first_rows_px` rows wait for one another at the top of the image.
        width_px: width of the image. Likewise `height_px`; `check_strips` has passed both.
    """

    def __init__(self, run: StripRun, spec: EngineSpec, *, width_px: int, height_px: int) -> None:
        self._run = run
        self._spec = spec
        self._width_px, self._height_px = width_px, height_px
        self._first_rows_px = spec.first_rows_px or 1
        self._waiting: Band = np.empty((3, 0, width_px), np.float32)
        self._taken_px = 0
        """Rows that the engine has received, not counting those that wait."""

    def push(self, rows: Band) -> Band:
        """Enlarge the image's next rows.

        Args:
            rows: (3, h, width_px) float32 RGB in [0, 1]; any h.

        Returns:
            (3, H, width_px * scale) float32 RGB, not clamped: the next rows of the result, which may be none. With the
            image's last row come all that were left.

        Raises:
            OutOfMemory: they do not fit. The image cannot be gone on with: its states are half those of before.
            BadShape: other than that, or more rows than the image has; nothing has changed.
        """
        self._check(rows)
        waiting = np.concatenate([self._waiting, rows], axis=1) if self._waiting.shape[1] else rows
        count = waiting.shape[1]
        is_last = self._taken_px + count == self._height_px
        if not is_last:
            count -= count % self._spec.size.multiple_of
            if count < (self._first_rows_px if self._taken_px == 0 else 1):
                count = 0
        result = np.empty((3, 0, self._width_px * self._spec.scale), np.float32)
        if count:
            result = self._run.step(np.ascontiguousarray(waiting[None, :, :count]), is_last=is_last)[0]
        self._waiting = waiting[:, count:].copy()
        self._taken_px += count
        return result

    def state(self) -> dict[str, NDArray[Any]]:
        """Return what the next strip is computed from besides its rows, by name.

        The arrays are not to be changed, and hold other values once the next rows have come.
        """
        return {"waiting": self._waiting, "taken": np.array([self._taken_px]), **self._run.state()}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from `state`, which another image of the same size has had in an engine of the same kind.

        The arrays are this image's from then on; see `StripRun.restore`.
        """
        self._waiting, self._taken_px = state["waiting"], int(state["taken"][0])
        self._run.restore({name: array for name, array in state.items() if name not in ("waiting", "taken")})

    def finish(self) -> None:
        """Check that the image is complete.

        Raises:
            BadShape: there were fewer rows than the image has.
        """
        if self._taken_px != self._height_px:
            got = self._taken_px + self._waiting.shape[1]
            raise BadShape(f"the strips got {got} rows, expected the image's {self._height_px}: push the rest")

    def _check(self, rows: Band) -> None:
        left = self._height_px - self._taken_px - self._waiting.shape[1]
        is_fitting = rows.ndim == 3 and rows.shape[::2] == (3, self._width_px) and rows.shape[1] <= left
        if not is_fitting or rows.dtype != np.float32:
            raise BadShape(
                f"the strips got {rows.dtype} {rows.shape}, expected float32 (3, rows, {self._width_px}), "
                f"at most {left} rows"
            )

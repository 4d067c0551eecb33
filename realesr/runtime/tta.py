"""Test-time augmentation: the mean of a network's eight answers to the flips and transposes of its input."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from realesr.engine import Engine, EngineBase, ProgressCallback, no_progress
from realesr.errors import UsageError
from realesr.models.architecture import Architecture


class SelfEnsembleEngine(EngineBase):
    """Runs another engine eight times and gives the mean: slower by eight, a little cleaner.

    Source: Timofte et al., "Seven ways to improve example-based single image super resolution", CVPR 2016, section 3.
    """

    def __init__(self, engine: Engine) -> None:
        fixed = engine.spec.size.fixed_px
        if fixed is not None and fixed[0] != fixed[1]:
            raise UsageError(
                "the mean over flips and transposes turns tiles, but the network takes only "
                f"{fixed[1]} x {fixed[0]} px: expected a square shape, or no such mean"
            )
        # A strip cannot be turned, and the mean is taken of whole tiles.
        self.spec = replace(engine.spec, first_rows_px=None, joins_tiles=False)
        self._engine = engine

    def run(self, batch: NDArray[np.float32], on_progress: ProgressCallback | None = None) -> NDArray[np.float32]:
        """Enlarge a batch; see `Engine.run`."""
        total: NDArray[np.float32] | None = None
        for number, (transposed, flipped_axes) in enumerate(_symmetries()):
            view = batch.swapaxes(2, 3) if transposed else batch
            turned = np.ascontiguousarray(np.flip(view, flipped_axes))
            on_part = partial(_report, on_progress or no_progress, number)
            output = self._engine.run(turned, on_part)
            on_part(1.0)
            output = np.flip(output, flipped_axes)
            output = output.swapaxes(2, 3) if transposed else output
            total = output.copy() if total is None else np.add(total, output, out=total)
        assert total is not None
        return total / np.float32(8)

    def bytes_for(self, architecture: Architecture, height_px: int, width_px: int, *, in_strips: bool = False) -> float:
        """Return the memory of the engine inside, and of two results besides; see `Engine.bytes_for`."""
        results = 2 * 3.0 * 4 * height_px * width_px * self.spec.scale**2
        return self._engine.bytes_for(architecture, height_px, width_px, in_strips=in_strips) + results

    def close(self) -> None:
        """Close the engine inside."""
        self._engine.close()


def _report(on_progress: ProgressCallback, runs_before: int, share: float) -> None:
    on_progress((runs_before + share) / 8)


def _symmetries() -> Iterator[tuple[bool, tuple[int, ...]]]:
    """Return the eight symmetries of the square: whether to transpose, then which axes of (N, 3, h, w) to flip."""
    flips: tuple[tuple[int, ...], ...] = ((), (2,), (3,), (2, 3))
    return ((transposed, axes) for transposed in (False, True) for axes in flips)

"""Test-time augmentation: the mean of a network's eight answers to the flips and transposes of its input."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from realesr.engine import Engine, EngineBase, OnShare, not_told
from realesr.errors import UsageError


class SelfEnsembleEngine(EngineBase):
    """Runs another engine eight times and gives the mean: slower by eight, a little cleaner.

    Source: Timofte et al., "Seven ways to improve example-based single image super resolution", CVPR 2016, section 3.
    """

    def __init__(self, engine: Engine) -> None:
        fixed = engine.spec.size.fixed_px
        if fixed is not None and fixed[0] != fixed[1]:
            raise UsageError(
                f"got --tta, which turns tiles, but the network takes only {fixed[1]} x {fixed[0]} px: leave --tta out"
            )
        # A strip cannot be turned, and the mean is taken of whole tiles.
        self.spec = replace(engine.spec, first_rows_px=None, joins_tiles=False)
        self._engine = engine

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Enlarge a batch; see `Engine.run`."""
        return self.run_watched(batch, not_told)

    def run_watched(self, batch: NDArray[np.float32], on_share: OnShare) -> NDArray[np.float32]:
        """The same, and tell how far it is; see `Engine.run_watched`."""
        total: NDArray[np.float32] | None = None
        for number, (transposed, flipped_axes) in enumerate(_symmetries()):
            view = batch.swapaxes(2, 3) if transposed else batch
            turned = np.ascontiguousarray(np.flip(view, flipped_axes))
            tell = partial(_tell, on_share, number)
            output = self._engine.run_watched(turned, tell)
            tell(1.0)
            output = np.flip(output, flipped_axes)
            output = output.swapaxes(2, 3) if transposed else output
            total = output.copy() if total is None else np.add(total, output, out=total)
        assert total is not None
        return total / np.float32(8)

    def close(self) -> None:
        """Close the engine inside."""
        self._engine.close()


def _tell(on_share: OnShare, runs_before: int, share: float) -> None:
    on_share((runs_before + share) / 8)


def _symmetries() -> Iterator[tuple[bool, tuple[int, ...]]]:
    """The eight symmetries of the square: whether to transpose, then which axes of (N, 3, h, w) to flip."""
    flips: tuple[tuple[int, ...], ...] = ((), (2,), (3,), (2, 3))
    return ((transposed, axes) for transposed in (False, True) for axes in flips)

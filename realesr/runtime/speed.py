"""Measures how fast an open network is, on one small tile."""

import time

import numpy as np

from realesr.runtime.engine_pool import EnginePool

TILE_PX = 64
"""Side of the tile: realesrgan-x4plus takes it in half a second on two cores."""
QUICK_SECONDS = 1.0
"""A first run that is quicker is followed by another, which counts: the first one has the engine's start in it."""


def seconds_per_px(pool: EnginePool) -> float | None:
    """Return how long the network takes for one pixel of its input; None on a GPU, which a small tile does not fill.

    By a pixel, such a tile takes 80 to 100 % of the processor time of one of 192 px (engines winograd, onnxruntime and
    openvino, one thread, measured on 2026-11-27).

    Raises:
        EngineError: the engine failed.
    """
    spec = pool.spec
    if spec.device != "cpu":
        return None
    side = -(-max(TILE_PX, spec.size.minimum_px) // spec.size.multiple_of) * spec.size.multiple_of
    height, width = spec.size.fixed_px or (side, side)
    tile = np.full((1, 3, height, width), 0.5, np.float32)
    seconds = 0.0
    with pool.idle_engine() as idle:
        for _ in range(2):
            start = time.monotonic()
            idle.engine.run(tile)
            seconds = time.monotonic() - start
            if seconds > QUICK_SECONDS:
                break
    return seconds / (height * width)

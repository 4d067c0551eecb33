"""Open engines that are asked for the memory of networks larger than the one they hold."""

import functools
from dataclasses import replace

from realesr.engine import Engine, NearestEngine, PieceSizes, Precision
from realesr.engines import open_engine
from realesr.engines.memory_cost import GPU_COST, GPU_PIECES
from realesr.models.architecture import Architecture
from realesr.models.compact import Compact
from realesr.models.rrdb import RRDB
from tests.engines.small_models import small_model

ENLARGED = RRDB(scale=4, features=8, blocks=1, growth=4)
ONE_GRID = Compact(scale=4, features=8, convs=2)


@functools.cache
def priced_engine(name: str, architecture: Architecture, precision: Precision = "fp32") -> Engine:
    """Return an engine that is open for a small network which convolves on the same grids as `architecture`."""
    if name == "nearest":
        return NearestEngine()
    small = ENLARGED if architecture.has_enlarged_convolutions else ONE_GRID
    return open_engine(small_model(small), engine=name, device="cpu", precision=precision)


class GpuEngine(NearestEngine):
    """Engine torch as it would be on a GPU with so much free memory."""

    def __init__(self, precision: Precision, device_bytes: int, *, joins_tiles: bool = False) -> None:
        super().__init__()
        self.spec = replace(
            self.spec,
            name="torch",
            device="cuda:0",
            precision=precision,
            device_bytes=device_bytes,
            pieces=GPU_PIECES,
            joins_tiles=joins_tiles,
        )

    def bytes_for(self, architecture: Architecture, height_px: int, width_px: int, *, in_strips: bool = False) -> float:
        return GPU_COST.bytes_for(architecture, height_px, width_px, self.spec.precision)


class ProportionalEngine(NearestEngine):
    """Takes so many bytes a pixel, whatever the network."""

    def __init__(self, bytes_per_px: float, pieces: PieceSizes) -> None:
        super().__init__()
        self.bytes_per_px = bytes_per_px
        self.spec = replace(self.spec, pieces=pieces)

    def bytes_for(self, architecture: Architecture, height_px: int, width_px: int, *, in_strips: bool = False) -> float:
        return self.bytes_per_px * height_px * width_px

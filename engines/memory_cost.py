"""Memory that an engine takes for a piece of an image, in terms of the network's largest results.

A map is the largest result that a network's convolutions read or give. Each engine holds some maps at once, for its own
buffers, copies in other layouts and transformed inputs; how many was measured (benchmarks/bench_memory.py). Where
convolutions run behind an enlargement, maps are largest there and few layers make them, so the number is another one.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from realesr.engine import PieceSizes, Precision
from realesr.models.architecture import Architecture
from realesr.models.layers import Convolution, Layer
from realesr.models.strip_plan import stages, state_values_per_column

FLOAT32_BYTES = 4

PIECES = PieceSizes(largest_tile_px=512, largest_strip_px=65_536)
"""Pieces of most engines on a CPU, for networks all of whose convolutions run on one grid."""
ENLARGED_PIECES = PieceSizes(largest_tile_px=288, largest_strip_px=40_000)
"""The same for networks with convolutions behind an enlargement: they need sixteen times the memory a pixel, and 288 px
keep x4plus on a photo of 12 MP under 2.5 GB (benchmarks/results, memory and command-partial)."""
GPU_PIECES = PieceSizes(largest_tile_px=1024)
"""Tiles in a GPU's memory: a photo of 12 MP has 1.13 times its pixels computed, and 1.6 times with a CPU's 288 px."""


def piece_sizes(architecture: Architecture | None, *, on_gpu: bool) -> PieceSizes:
    """Return the sizes that were measured for most engines; a network that is not known is taken to need the most."""
    if on_gpu:
        return GPU_PIECES
    return PIECES if architecture is not None and not architecture.has_enlarged_convolutions else ENLARGED_PIECES


@dataclass(frozen=True, kw_only=True)
class MemoryCost:
    """Numbers of maps that one engine holds at once, in float32."""

    maps: float
    """Maps for a tile, where all convolutions run on one grid."""
    enlarged_maps: float
    """Maps for a tile, where convolutions run behind an enlargement."""
    strip_maps: float = 0.0
    """Maps for a strip, where all convolutions run on one grid."""
    trunk_strip_maps: float = 0.0
    """Maps for a strip in the convolutions before the enlargement; those behind it take `enlarged_maps`."""
    half_precision_factor: float = 2.0
    """Factor for fp16 and bf16: 2 on a CPU, where results are kept in both types."""

    def bytes_for(
        self,
        architecture: Architecture,
        height_px: int,
        width_px: int,
        precision: Precision = "fp32",
        *,
        in_strips: bool = False,
    ) -> float:
        """Return the memory for a tile or for strips; see `Engine.bytes_for`."""
        measure = self.strip_bytes if in_strips else self.tile_bytes
        return measure(architecture, height_px, width_px, precision)

    def tile_bytes(self, architecture: Architecture, height_px: int, width_px: int, precision: Precision) -> float:
        """Return the memory for a tile, beside the weights."""
        maps = self.enlarged_maps if architecture.has_enlarged_convolutions else self.maps
        values = maps * architecture.largest_map_values_per_px * height_px * width_px
        return values * FLOAT32_BYTES * self._factor(precision)

    def strip_bytes(self, architecture: Architecture, rows_px: int, width_px: int, precision: Precision) -> float:
        """Return the memory for strips of `rows_px` rows.

        The first one is higher by the receptive radius. States are held twice: those before a strip, those after it.
        """
        multiple = architecture.multiple_of
        rows, columns = -(-rows_px // multiple), -(-width_px // multiple)
        has_tail = len(stages(architecture)) > 1
        first_rows = rows + architecture.radius_px // multiple
        maps = self.trunk_strip_maps if has_tail else self.strip_maps
        largest = _largest_map_of_stages(architecture)
        values = maps * first_rows * columns * largest[0]
        if has_tail:
            values = max(values, self.enlarged_maps * rows * columns * largest[1])
        values += 2 * columns * state_values_per_column(architecture)
        return values * FLOAT32_BYTES * self._factor(precision)

    def _factor(self, precision: Precision) -> float:
        return 1.0 if precision == "fp32" else self.half_precision_factor


GPU_COST = MemoryCost(maps=5, enlarged_maps=5, strip_maps=9, trunk_strip_maps=4, half_precision_factor=0.5)
"""In a GPU's memory, in maps of the type that the network computes in. Measured in torch on an H100, fp16, 288 to
1024 px: 4.1 maps of x4plus and 3.5 of animevideov3 while cuDNN tries its algorithms, 3.1 and 2.3 later
(benchmarks/results, 2026-11-27-gpu-throughput). Strips are counted as on a CPU; theirs were not measured there."""


@functools.cache
def _largest_map_of_stages(architecture: Architecture) -> tuple[float, ...]:
    """Return the values of each stage's largest map for each pixel of the network's own grid."""
    return tuple(_largest_map(architecture, stage.layers) for stage in stages(architecture))


def _largest_map(architecture: Architecture, layers: Sequence[Layer]) -> float:
    """Return the values of the largest map of some layers for each pixel of the network's own grid."""
    names = {name for layer in layers if isinstance(layer, Convolution) for name in (layer.source, layer.name)}
    own_grid = architecture.map_shapes[architecture.convolutions[0].name].grid
    return max(architecture.map_shapes[name].values_per_px for name in names) / float(own_grid) ** 2

"""Memory: how much is free, how much this process has held, and how large tiles may be in it."""

import math
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

from realesr.architectures import RRDB, Architecture, Compact
from realesr.cgroup import memory_left_bytes
from realesr.engine import Precision

SMALLEST_TILE_PX = 64
TILE_STEP_PX = 32
LARGEST_TILE_PX = {RRDB: 288, Compact: 512}
"""In pixels of the first conv. The larger a tile, the less of it is overlap: RRDBNets need sixteen times the memory a
pixel, and 288 px keep x4plus on a photo of 12 MP under 2.5 GB (benchmarks/results, memory and command-partial)."""
LARGEST_TILE_PX_OF_ENGINE = {
    "winograd": {RRDB: 960, Compact: 512},
    "openvino": {RRDB: 384, Compact: 512},
    "ncnn": {RRDB: 192, Compact: 320},
}
"""Where an engine needs so much less or more that other sides take as much."""

SHARE_OF_FREE_MEMORY = 0.5

ONE_PIECE_LIMIT_BYTES = 4e9
"""Most for an image that goes through an RRDBNet in one piece, where tiles do as well: 2.4 MP of x4plus in winograd."""

MAPS_AT_ONCE = 4
"""Measured by benchmarks/bench_memory.py, 64 to 384 px: at most 3.9 maps in ONNX Runtime and 3.5 in torch, which takes
some 10 MB besides."""
MAPS_AT_ONCE_OF_ENGINE: dict[str, dict[type[Architecture], float]] = {
    "winograd": {RRDB: 0.36, Compact: 5.0},
    "openvino": {RRDB: 2.75, Compact: 4.25},
    "ncnn": {RRDB: 14, Compact: 12},
}
"""OpenVINO: 2.1 maps of RRDBNets and 3.9 of compact ones, and 2.6 times the weights while it compiles for a shape,
which is the rest at 256 px. ncnn transforms maps for Winograd's convolutions, and keeps what it has freed: at most
13.9 and 11.8 maps at 128 px and more. winograd: 0.34 maps of RRDBNets and 4.7 of compact ones, at 256 to 960 px."""

BASE_BYTES_OF_ENGINE: dict[str, dict[type[Architecture], float]] = {"winograd": {RRDB: 360e6}}
"""What a tile takes besides, whatever its side. winograd goes through dense blocks and the tail in parts, whose size
does not follow the tile's."""

BYTES_PER_NUMBER = 4

LARGEST_GPU_TILE_PX = 1024
"""In pixels of the first conv, of a tile that lies in a GPU's memory: of a photo of 12 MP 1.13 times the pixels are
computed, and 1.6 times with the 288 px of a CPU."""
SHARE_OF_GPU_MEMORY = 0.75
"""Of what was free when the network was open; the rest is for joined rows of tiles and for other programs."""
MAPS_AT_ONCE_ON_GPU = 5
"""Of the type that the network computes in. Measured in torch on an H100, fp16, 288 to 1024 px: 4.1 maps of x4plus and
3.5 of animevideov3 while cuDNN tries its algorithms, 3.1 and 2.3 later (benchmarks/results, 2026-11-27-gpu-throughput).
"""

MORE_IN_HALF_PRECISION = 2.0
"""On a CPU, fp16 and bf16 take more memory, not less, for results are kept in both types: 134 MB against 66 in ONNX
Runtime (animevideov3, 256 px), 414 against 258 (x4plus-anime, 128 px), 102 against 48 in torch (animevideov3, 256 px).
"""


def free_bytes() -> int:
    """Memory that this process can have without swapping: what the system has available, or its container if less."""
    available: int = psutil.virtual_memory().available
    left = memory_left_bytes()
    return available if left is None else min(available, left)


def peak_bytes() -> int:
    """Largest resident memory that this process has held since it started."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    if sys.platform == "linux":
        # Not getrusage: there a process starts with the peak of the one that started it.
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def tile_px_for(
    architecture: Architecture | None,
    engine_name: str,
    free_bytes: int,
    precision: Precision = "fp32",
    device_free_bytes: int | None = None,
) -> int:
    """Side of the largest tile that an engine should be given, with what it overlaps: a multiple of 32, in input px.

    Its need stays under half of the free memory, for images, bands and other programs want some of it too.

    Args:
        architecture: of the network; None is taken for the hungriest one known.
        engine_name: as in `EngineSpec.name`.
        free_bytes: what `free_bytes` gives when the network is open.
        precision: as in `EngineSpec.precision`. Likewise `device_free_bytes`, which alone counts where it is known.
    """
    architecture = architecture or RRDB(scale=4)
    if device_free_bytes is not None:
        return _gpu_tile_px(architecture, device_free_bytes, precision)
    largest_px = LARGEST_TILE_PX_OF_ENGINE.get(engine_name, LARGEST_TILE_PX)[type(architecture)]
    if isinstance(architecture, RRDB):
        largest_px *= architecture.unshuffle
    if engine_name == "nearest":
        return largest_px
    side_px = math.isqrt(_area_px_for(architecture, engine_name, free_bytes * SHARE_OF_FREE_MEMORY, precision))
    return min(max(side_px // TILE_STEP_PX * TILE_STEP_PX, SMALLEST_TILE_PX), largest_px)


def _gpu_tile_px(architecture: Architecture, device_free_bytes: int, precision: Precision) -> int:
    largest_px = LARGEST_GPU_TILE_PX * (architecture.unshuffle if isinstance(architecture, RRDB) else 1)
    number_bytes = BYTES_PER_NUMBER if precision == "fp32" else BYTES_PER_NUMBER / 2
    bytes_per_px = MAPS_AT_ONCE_ON_GPU * number_bytes * _numbers_per_map(architecture)
    side_px = math.isqrt(int(device_free_bytes * SHARE_OF_GPU_MEMORY / bytes_per_px))
    return min(max(side_px // TILE_STEP_PX * TILE_STEP_PX, SMALLEST_TILE_PX), largest_px)


def one_piece_px_for(
    architecture: Architecture, engine_name: str, free_bytes: int, precision: Precision = "fp32"
) -> int:
    """Area of the largest image that goes through an RRDBNet in one piece, in input px.

    Tiles would overlap, and differ a little where they meet. It may take more than tiles do: up to half of the free
    memory and ONE_PIECE_LIMIT_BYTES. The arguments are those of `tile_px_for`. Compact networks, which have strips or
    tiles that are exact, get 0.
    """
    if isinstance(architecture, Compact):
        return 0
    limit_bytes = min(free_bytes * SHARE_OF_FREE_MEMORY, ONE_PIECE_LIMIT_BYTES)
    return _area_px_for(architecture, engine_name, limit_bytes, precision)


def _area_px_for(architecture: Architecture, engine_name: str, limit_bytes: float, precision: Precision) -> int:
    """Of the largest tile that takes no more."""
    bytes_per_px = tile_bytes_per_px(architecture, engine_name) * (1 if precision == "fp32" else MORE_IN_HALF_PRECISION)
    return int(max(0, limit_bytes - tile_base_bytes(architecture, engine_name)) / bytes_per_px)


def tile_base_bytes(architecture: Architecture, engine_name: str) -> float:
    """Memory that a tile needs whatever its side, beside the weights."""
    return BASE_BYTES_OF_ENGINE.get(engine_name, {}).get(type(architecture), 0.0)


def tile_bytes_per_px(architecture: Architecture, engine_name: str = "onnxruntime") -> float:
    """Memory that one input pixel of a tile needs while the network runs in float32, beside the weights and the base.

    Engines hold some maps of all features at once, on the grid where those are largest: in the tail of an RRDBNet,
    after its doublings; anywhere in a compact network (or as many images as large as its output, if it is thin).
    """
    maps = MAPS_AT_ONCE_OF_ENGINE.get(engine_name, {}).get(type(architecture), MAPS_AT_ONCE)
    return maps * BYTES_PER_NUMBER * _numbers_per_map(architecture)


def _numbers_per_map(architecture: Architecture) -> float:
    """Values of one map of all features for each input pixel, on the grid where those are largest."""
    if isinstance(architecture, RRDB):
        return architecture.features * (2.0**architecture.upsamplings / architecture.unshuffle) ** 2
    return float(max(architecture.features, 3 * architecture.scale**2))


SMALLEST_STRIP_ROWS = 16
"""In rows of the first conv. Below, the two rows that every convolution reads again weigh."""
STRIP_ROWS_STEP = 4
"""Rows of a tile of Winograd's convolutions, which engine winograd does whole."""
LARGEST_STRIP_PX = {RRDB: 40_000, Compact: 65_536}
"""Rows times columns, in pixels of the first conv."""
LARGEST_STRIP_PX_OF_ENGINE = {"openvino": {RRDB: 0, Compact: 49_152}}
"""It keeps what every convolution reads until the strip's end: 130 kB a pixel of RRDBNets, which go by tiles."""
SMALLEST_IN_STRIPS_PX_OF_ENGINE = {"openvino": 500_000}
"""Below, tiles are faster: OpenVINO takes 0.45 s of CPU time for each of an image's three shapes of strips, and for one
of tiles, which read 7 to 15 % twice (realesr-animevideov3, 16 us a pixel)."""
SMALLEST_COLUMNS = 256
"""Least width that one strip answers for where an image is cut, in pixels of the first conv."""
STRIP_LIMIT_BYTES = 4e9
"""Most for strips where tiles do as well. States of x4plus are 540 kB a column: a photo of 12 MP would take 7 GB for
them and for its first strip; its tiles take 2."""

STRIP_MAPS_AT_ONCE = 9
"""Of all features of a compact network, in ONNX Runtime at 1024 x 64 to 10000 x 16 px: at most 2.3 kB a pixel with
64 features, states left out."""
STRIP_MAPS_AT_ONCE_OF_ENGINE = {"openvino": 25, "winograd": 7}
"""Measured with realesr-animevideov3: 6.2 kB a pixel in OpenVINO at 1024 x 48 px, 1.5 in winograd at 2000 x 32."""
STRIP_JOINED_AT_ONCE = 4
"""The same of what a dense block joins, in the trunk of an RRDBNet: at most 3.0 kB a pixel."""


@dataclass(frozen=True, kw_only=True)
class StripSize:
    """How an image is cut into strips, in input px."""

    rows_px: int
    columns_px: int
    """What one strip answers for: all of the image's width, or a part of it."""


@dataclass(frozen=True, kw_only=True)
class StripBudget:
    """What the strips of one network may take."""

    architecture: Architecture
    limit_bytes: float
    halo_px: int
    """What a strip reads beyond its columns on each side, where an image is cut."""
    largest_px: int
    """Rows times columns of a strip, in pixels of the first conv."""
    maps_at_once: int
    """Of all features of a compact network."""
    smallest_px: int = 0
    """Area of an image below which there are no strips."""
    precision_factor: float = 1.0
    """How much more memory the precision takes than float32."""

    def size_for(self, height_px: int, width_px: int) -> StripSize | None:
        """The largest strips that fit, over all of the width or over the fewest parts; none where none fit."""
        if height_px * width_px < self.smallest_px:
            return None
        multiple = self.architecture.multiple_of
        height, halo, width = (-(-length // multiple) for length in (height_px, self.halo_px, width_px))
        parts = 1
        while parts == 1 or width >= parts * SMALLEST_COLUMNS:
            columns = -(-width // parts)
            read = columns + (2 * halo if parts > 1 else 0)
            rows = self.largest_px // read // STRIP_ROWS_STEP * STRIP_ROWS_STEP
            while rows > SMALLEST_STRIP_ROWS and self._bytes(rows, read, parts, height) > self.limit_bytes:
                rows = max(rows // 2 // STRIP_ROWS_STEP * STRIP_ROWS_STEP, SMALLEST_STRIP_ROWS)
            if rows >= SMALLEST_STRIP_ROWS and self._bytes(rows, read, parts, height) <= self.limit_bytes:
                return StripSize(rows_px=rows * multiple, columns_px=columns * multiple)
            parts += 1
        return None

    def _bytes(self, rows: int, read: int, parts: int, height: int) -> float:
        """Memory of strips of `rows` rows that read `read` columns; all on the grid of the first conv.

        The first strip is higher by the receptive radius. States are kept for all parts, and twice for the one that
        runs: those before the strip and those after it.
        """
        architecture = self.architecture
        first = min(rows + architecture.radius_px // architecture.multiple_of, height)
        if isinstance(architecture, Compact):
            numbers = float(first * read * self.maps_at_once * architecture.features)
        else:
            trunk = first * read * STRIP_JOINED_AT_ONCE * (architecture.features + 4 * architecture.growth)
            tail = rows * read * MAPS_AT_ONCE * architecture.features * 4.0**architecture.upsamplings
            numbers = max(trunk, tail)
        numbers += (parts + 1) * read * state_numbers_per_column(architecture)
        return numbers * BYTES_PER_NUMBER * self.precision_factor


def state_numbers_per_column(architecture: Architecture) -> int:
    """What strips keep for each column of the first conv's grid: two rows for each convolution, and skips that wait."""
    if isinstance(architecture, Compact):
        return 2 * (3 + architecture.features * (architecture.convs + 1)) + 3 * architecture.radius_px
    features, growth = architecture.features, architecture.growth
    dense_block = 2 * (5 * features + 10 * growth)
    lag = 15 * architecture.blocks + 1  # of the skip over all blocks; each block has one over its own 15 convolutions
    finest = int(2**architecture.upsamplings)
    doublings = 2 * features * (2 * finest + 2 * finest - 2)  # conv_hr and conv_last; 2 + 4 + ... for the doublings
    trunk = (
        architecture.blocks * (3 * dense_block + 15 * features) + features * (lag + 2) + 2 * architecture.in_channels
    )
    return trunk + doublings


def strip_budget(
    architecture: Architecture,
    engine_name: str,
    free_bytes: int,
    halo_px: int,
    precision: Precision = "fp32",
    *,
    is_exact: bool = False,
) -> StripBudget:
    """Half of the free memory, as for tiles; at most STRIP_LIMIT_BYTES, unless the result must be exact."""
    free = free_bytes * SHARE_OF_FREE_MEMORY
    return StripBudget(
        architecture=architecture,
        limit_bytes=free if is_exact else min(free, STRIP_LIMIT_BYTES),
        halo_px=halo_px,
        largest_px=LARGEST_STRIP_PX_OF_ENGINE.get(engine_name, LARGEST_STRIP_PX)[type(architecture)],
        maps_at_once=STRIP_MAPS_AT_ONCE_OF_ENGINE.get(engine_name, STRIP_MAPS_AT_ONCE),
        smallest_px=SMALLEST_IN_STRIPS_PX_OF_ENGINE.get(engine_name, 0),
        precision_factor=1.0 if precision == "fp32" else MORE_IN_HALF_PRECISION,
    )

"""Memory: how much is free, how much this process has held, and how large tiles may be in it."""

import math
import sys
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

SHARE_OF_FREE_MEMORY = 0.5

MAPS_AT_ONCE = 4
"""Measured by benchmarks/bench_memory.py, 64 to 384 px: at most 3.9 maps in ONNX Runtime and 3.5 in torch, which takes
some 10 MB besides."""

BYTES_PER_NUMBER = 4

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
    architecture: Architecture | None, engine_name: str, free_bytes: int, precision: Precision = "fp32"
) -> int:
    """Side of the largest tile that an engine should be given, with what it overlaps: a multiple of 32, in input px.

    Its need stays under half of the free memory, for images, bands and other programs want some of it too. Memory of a
    GPU is not looked at: there `OutOfMemory` is raised in time, whereas Linux ends a process that has had too much.

    Args:
        architecture: of the network; None is taken for the hungriest one known.
        engine_name: as in `EngineSpec.name`.
        free_bytes: what `free_bytes` gives when the network is open.
        precision: as in `EngineSpec.precision`.
    """
    architecture = architecture or RRDB(scale=4)
    largest_px = LARGEST_TILE_PX[type(architecture)]
    if isinstance(architecture, RRDB):
        largest_px *= architecture.unshuffle
    if engine_name == "nearest":
        return largest_px
    bytes_per_px = tile_bytes_per_px(architecture) * (1 if precision == "fp32" else MORE_IN_HALF_PRECISION)
    side_px = math.isqrt(int(free_bytes * SHARE_OF_FREE_MEMORY / bytes_per_px))
    return min(max(side_px // TILE_STEP_PX * TILE_STEP_PX, SMALLEST_TILE_PX), largest_px)


def tile_bytes_per_px(architecture: Architecture) -> float:
    """Memory that one input pixel of a tile needs while the network runs in float32, beside the weights.

    Both engines hold up to four maps of all features at once, on the grid where those are largest: in the tail of an
    RRDBNet, after its doublings; anywhere in a compact network (or four images as large as its output, if it is thin).
    """
    if isinstance(architecture, RRDB):
        numbers = architecture.features * (2.0**architecture.upsamplings / architecture.unshuffle) ** 2
    else:
        numbers = float(max(architecture.features, 3 * architecture.scale**2))
    return MAPS_AT_ONCE * BYTES_PER_NUMBER * numbers

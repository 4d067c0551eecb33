"""Loads the convolutions of winograd.c, which are compiled where realesr is installed, if there is a compiler.

`Kernel` has the vectors of this processor; everything that it computes with has shapes made for them.
"""

import ctypes
import functools
from dataclasses import dataclass
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realesr.errors import EngineError, MissingDependency, RealesrError

TILE_PX = 4
"""Side of a tile of the output."""

_POINTS = 36

_ALIGNED_BYTES = 64
_APART = 48
"""Numbers between the points of a block, besides what they hold: at a power of two, all would share a cache line's
place."""

_TO_POINTS = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)
"""What a 3x3 filter's rows and columns become at the points 0, 1, -1, 2, -2 and infinity. Source: as in winograd.c."""

_BOTH_WAYS = np.kron(_TO_POINTS, _TO_POINTS).astype(np.float32)
"""(36, 9): the same of the whole filter."""


class Convolution(ctypes.Structure):
    """`struct convolution` of winograd.c, which says what each field is."""

    _fields_ = (
        ("input", ctypes.c_void_p),
        ("input_row", ctypes.c_ssize_t),
        ("input_channels", ctypes.c_int),
        ("doubled", ctypes.c_int),
        ("depth", ctypes.c_int),
        ("offset", ctypes.c_int),
        ("weights", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("slopes", ctypes.c_void_p),
        ("skip", ctypes.c_void_p),
        ("skip_scale", ctypes.c_float),
        ("outer", ctypes.c_void_p),
        ("output", ctypes.c_void_p),
        ("output_row", ctypes.c_ssize_t),
        ("output_channels", ctypes.c_int),
        ("height", ctypes.c_int),
        ("width", ctypes.c_int),
        ("tiles_across", ctypes.c_int),
    )


class Points:
    """Room for the 36 points of each channel of some tiles."""

    def __init__(self, tiles: int, channels: int) -> None:
        self._numbers = aligned((_POINTS, tiles * channels + _APART))
        self.address = self._numbers.ctypes.data
        self.step = self._numbers.shape[1]
        """Numbers from one point to the next."""


@dataclass(frozen=True)
class Kernel:
    """winograd.c for one width of vectors."""

    lanes: int
    """Numbers in a vector."""
    _convolve: Any

    def padded(self, channels: int) -> int:
        """The number of channels of a map that has room for so many."""
        unit = 2 * self.lanes
        return -(-channels // unit) * unit

    def weights(self, filters: NDArray[np.float32]) -> NDArray[np.float32]:
        """(out, in, 3, 3), both numbers padded, as winograd.c wants them."""
        count_out, count_in = filters.shape[:2]
        blocks = filters.reshape(count_out // (2 * self.lanes), 2 * self.lanes, count_in, 9)
        ordered = np.ascontiguousarray(blocks.transpose(3, 0, 2, 1)).reshape(9, -1)
        return np.matmul(_BOTH_WAYS, ordered, out=aligned((_POINTS, ordered.shape[1])))

    def convolve(self, convolution: Convolution, first: int, last: int, before: Points, after: Points) -> None:
        """The tiles from `first` to before `last`, with room for their points. Others may be done at the same time."""
        self._convolve(ctypes.byref(convolution), first, last, before.address, before.step, after.address, after.step)


def aligned(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Zeros that begin at a cache line."""
    count = int(np.prod(shape))
    room = np.zeros(count + _ALIGNED_BYTES // 4, np.float32)
    start = -room.ctypes.data % _ALIGNED_BYTES // 4
    return room[start : start + count].reshape(shape)


@functools.cache
def load_kernel() -> Kernel:
    """The kernel for this processor.

    Raises:
        MissingDependency: it was not compiled when realesr was installed.
        EngineError: this processor has no vectors that it is written for.
    """
    library = _library()
    library.winograd_lanes.restype = ctypes.c_int
    lanes = library.winograd_lanes()
    if lanes == 0:
        raise EngineError("engine winograd needs a processor with AVX2 and FMA, or a 64-bit ARM: take another --engine")
    return kernel_for(lanes)


def kernel_for(lanes: int) -> Kernel:
    """The kernel with vectors of so many numbers; the processor has to have them."""
    function = getattr(_library(), f"winograd_convolve_{lanes}")
    function.argtypes = (
        ctypes.POINTER(Convolution),
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_ssize_t,
        ctypes.c_void_p,
        ctypes.c_ssize_t,
    )
    function.restype = None
    return Kernel(lanes, function)


def is_usable() -> bool:
    """Whether there is a kernel for this processor; whether it computes rightly shows when an engine is opened."""
    try:
        load_kernel()
    except RealesrError:
        return False
    return True


def _library() -> ctypes.CDLL:
    path = _path()
    if path is None:
        raise MissingDependency(
            "engine winograd was not compiled when realesr was installed: install GCC or Clang, "
            "then realesr again as before, with pip's --force-reinstall --no-deps"
        )
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise EngineError(f"{path} does not load ({error}): install realesr again") from error


def _path() -> Path | None:
    """Beside this file, under one of the names that Python's extension modules have."""
    paths = (Path(__file__).with_name(f"_winograd{suffix}") for suffix in EXTENSION_SUFFIXES)
    return next((path for path in paths if path.exists()), None)

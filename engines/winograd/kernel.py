"""Loads the convolutions of winograd.c, which are compiled where realesr is installed, if there is a compiler.

`Kernel` has the SIMD width of this processor; everything that it computes with has shapes made for it.
"""

import ctypes
import functools
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.machinery import EXTENSION_SUFFIXES
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realesr.errors import EngineError, MissingDependency, RealesrError

TILE_PX = 6
"""Side of a tile of the output."""

NO_ACTIVATION, LEAKY_RELU, SILU, SIGMOID = range(4)
"""`enum activation` of winograd.c."""

POINTS = 64
"""Of a tile in the Winograd domain."""

TILES_AT_ONCE = 6
"""Tiles that are multiplied at once; in the Winograd domain they lie together."""

_ALIGNED_BYTES = 64
_POINT_PADDING = 48
"""Floats between two points of a workspace, besides what they hold: at a power of two, all points would fall into the
same set of a cache."""


class ConvolutionStruct(ctypes.Structure):
    """`struct convolution` of winograd.c, which says what each field is."""

    _fields_ = (
        ("input", ctypes.c_void_p),
        ("input_row", ctypes.c_ssize_t),
        ("input_channels", ctypes.c_int),
        ("nearest_x2_input", ctypes.c_int),
        ("depth", ctypes.c_int),
        ("offset", ctypes.c_int),
        ("is_1x1", ctypes.c_int),
        ("weights", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("activation", ctypes.c_int),
        ("slopes", ctypes.c_void_p),
        ("skip", ctypes.c_void_p),
        ("skip_scale", ctypes.c_float),
        ("outer", ctypes.c_void_p),
        ("outer_scale", ctypes.c_float),
        ("has_gate", ctypes.c_int),
        ("gate_offset", ctypes.c_float),
        ("output", ctypes.c_void_p),
        ("output_row", ctypes.c_ssize_t),
        ("output_channels", ctypes.c_int),
        ("height", ctypes.c_int),
        ("width", ctypes.c_int),
        ("tiles_across", ctypes.c_int),
    )


class WinogradWorkspace:
    """Memory for some tiles in the Winograd domain: 64 points of each channel."""

    def __init__(self, tiles: int, channels: int) -> None:
        self._values = aligned((POINTS, workspace_point_floats(tiles, channels)))
        self.address = self._values.ctypes.data
        self.point_stride = self._values.shape[1]
        """Floats from one point to the next."""


def workspace_point_floats(tiles: int, channels: int) -> int:
    """Return the floats that a workspace takes for each of its 64 points."""
    return -(-tiles // TILES_AT_ONCE) * TILES_AT_ONCE * channels + _POINT_PADDING


@dataclass(frozen=True)
class Kernel:
    """winograd.c for one SIMD width."""

    simd_width: int
    """In floats."""
    _convolve: Any
    _prepare_weights: Any

    @property
    def channel_unit(self) -> int:
        """Return what the channels of every map that a convolution reads or writes are a multiple of."""
        return 2 * self.simd_width

    def padded(self, channels: int) -> int:
        """Return the channels of a map that holds so many."""
        return -(-channels // self.channel_unit) * self.channel_unit

    def weights_count(self, channels_out: int, inputs: Sequence[int], *, is_1x1: bool) -> int:
        """Return the floats that `prepare_weights` writes; the inputs are as there."""
        return (1 if is_1x1 else POINTS) * self.padded(channels_out) * sum(map(self.padded, inputs))

    def prepare_weights(
        self, filters: NDArray[np.float32], inputs: Sequence[int], factor: float, weights: NDArray[np.float32]
    ) -> None:
        """Pad filters and order them for winograd.c, those of 3x3 in the Winograd domain.

        Threads may do different ones at a time.

        Args:
            filters: (out, in, 3, 3) or (out, in, 1, 1).
            inputs: channels of each of the maps that are joined to the input, `in` together.
            factor: what all filters are multiplied by.
            weights: where they are written: as many floats as `weights_count` says, from a cache line on.
        """
        channels_out, channels_in, side, _ = filters.shape
        is_1x1 = side == 1
        assert sum(inputs) == channels_in
        assert weights.size == self.weights_count(channels_out, inputs, is_1x1=is_1x1)
        values = np.ascontiguousarray(filters, np.float32)
        counts = (ctypes.c_int * len(inputs))(*inputs)
        self._prepare_weights(
            values.ctypes.data, channels_out, counts, len(inputs), is_1x1, factor, weights.ctypes.data
        )

    def convolve(
        self,
        convolution: ConvolutionStruct,
        first: int,
        last: int,
        inputs: WinogradWorkspace,
        outputs: WinogradWorkspace,
    ) -> None:
        """Compute the tiles (of 1x1 convolutions the rows) from `first` to before `last`; threads may share them.

        Args:
            convolution: what is computed.
            first: tile or row.
            last: likewise.
            inputs: workspace for the tiles that are read; 1x1 convolutions leave it alone.
            outputs: workspace for the result.
        """
        self._convolve(
            ctypes.byref(convolution),
            first,
            last,
            inputs.address,
            inputs.point_stride,
            outputs.address,
            outputs.point_stride,
        )


def aligned(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return zeros that begin at a cache line."""
    count = math.prod(shape)
    memory = np.zeros(count + _ALIGNED_BYTES // 4, np.float32)
    start = -memory.ctypes.data % _ALIGNED_BYTES // 4
    return memory[start : start + count].reshape(shape)


def aligned_parts(counts: Sequence[int]) -> list[NDArray[np.float32]]:
    """Return arrays of any values, (count,) each, which begin at cache lines and lie in one piece of memory.

    Of 4 MB and more NumPy asks Linux for huge pages. In pages of 4 kB the first touch of 260 MB (x4plus) takes longer
    than the transform of all its filters.
    """
    line = _ALIGNED_BYTES // 4
    ends = [line * end for end in accumulate(-(-count // line) for count in counts)]
    memory = np.empty((ends[-1] if ends else 0) + line, np.float32)
    start = -memory.ctypes.data % _ALIGNED_BYTES // 4
    return [memory[start + begin : start + begin + count] for begin, count in zip([0, *ends], counts, strict=False)]


@functools.cache
def load_kernel() -> Kernel:
    """Return the kernel for this processor.

    Raises:
        MissingDependency: It was not compiled when realesr was installed.
        EngineError: This processor has no vectors that it is written for.
    """
    library = _library()
    library.winograd_simd_width.restype = ctypes.c_int
    simd_width = library.winograd_simd_width()
    if simd_width == 0:
        raise EngineError("engine winograd needs a processor with AVX2 and FMA, or a 64-bit ARM: take another engine")
    return kernel_for(simd_width)


def kernel_for(simd_width: int) -> Kernel:
    """Return the kernel of this SIMD width, in floats; the processor has to have it."""
    library = _library()
    convolve = getattr(library, f"winograd_convolve_tiles_{simd_width}", None)
    prepare_weights = getattr(library, f"winograd_prepare_weights_{simd_width}", None)
    if convolve is None or prepare_weights is None:
        raise EngineError("engine winograd was compiled for another version of realesr: install realesr again")
    convolve.argtypes = (
        ctypes.POINTER(ConvolutionStruct),
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_ssize_t,
        ctypes.c_void_p,
        ctypes.c_ssize_t,
    )
    convolve.restype = None
    prepare_weights.argtypes = (
        ctypes.c_void_p,
        ctypes.c_int,
        ctypes.POINTER(ctypes.c_int),
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_float,
        ctypes.c_void_p,
    )
    prepare_weights.restype = None
    return Kernel(simd_width, convolve, prepare_weights)


def is_usable() -> bool:
    """Return whether there is a kernel for this processor; whether it is right shows when an engine is opened."""
    try:
        load_kernel()
    except RealesrError:
        return False
    return True


def _library() -> ctypes.CDLL:
    """Load the compiled winograd.c; see `load_kernel`."""
    path = _path()
    if path is None:
        raise MissingDependency(f"engine winograd was not compiled when realesr was installed: {_how_to_get_it()}")
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise EngineError(f"{path} does not load ({error}): install realesr again") from error


def _how_to_get_it() -> str:
    if sys.platform == "win32":
        return "take a wheel of realesr for Windows, which holds it; Visual C++ cannot compile it"
    return "install GCC or Clang, then realesr again as before, with pip's --force-reinstall --no-deps"


def _path() -> Path | None:
    """Return the library beside this file, under one of the names that Python's extension modules have."""
    paths = (Path(__file__).with_name(f"_winograd{suffix}") for suffix in EXTENSION_SUFFIXES)
    return next((path for path in paths if path.exists()), None)

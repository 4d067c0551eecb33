"""Reads ncnn's .bin of a network that is known already, without the graph in the .param beside it.

That is a tenth of the work of `ncnn_file.py`, which proves of any pair of files what they compute. Layout: as there.
"""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from realesr.errors import ModelError
from realesr.models.architecture import Shapes

_TAG = np.uint32(0x01306B47).tobytes()
"""Stands before a convolution's weights in float16; all other arrays are float32 without a tag."""

_TAG_BYTES = len(_TAG)


def read_numbers(path: Path, shapes: Shapes) -> dict[str, NDArray[np.float32]]:
    """Read a .bin that holds nothing but a network's arrays in the order of use, weights as float16.

    Args:
        path: of the .bin.
        shapes: of the network's arrays, by their keys; see `Architecture.shapes`.

    Returns:
        The network's state dict, float32; all arrays are parts of one.

    Raises:
        ModelError: the file cannot be read, or holds something else.
    """
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error
    numbers = np.empty(sum(map(math.prod, shapes.values())), np.float32)
    state, offset, first = {}, 0, 0
    for key, shape in shapes.items():
        count = math.prod(shape)
        dtype = "<f2" if len(shape) == 4 else "<f4"
        if dtype == "<f2":
            _check(data[offset : offset + _TAG_BYTES].tobytes() == _TAG, path)
            offset += _TAG_BYTES
        end = offset + count * np.dtype(dtype).itemsize
        _check(end <= len(data), path)
        array = numbers[first : first + count]
        array[:] = data[offset:end].view(dtype)
        state[key] = array.reshape(shape)
        first += count
        offset = end + end % 4  # arrays begin at multiples of four bytes
    _check(offset == len(data), path)
    return state


def _check(is_as_expected: bool, path: Path) -> None:
    if not is_as_expected:
        raise ModelError(f"{path} has other bytes than the released network: fetch it again")

"""Reads .safetensors files: a header in JSON, then the arrays' bytes.

The library's own reader for numpy lacks bfloat16, and leaves shapes unchecked that numpy has no room for. Format:
huggingface/safetensors, README.md, "Format": 8 bytes of the header's length, the header, and the arrays without holes.
"""

import json
import struct
from collections.abc import Mapping
from math import prod
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from realesr.errors import ModelError
from realesr.models.torch_file import float32_from_bfloat16

_MAX_HEADER_BYTES = 1 << 21
"""An array takes some 100 bytes: assumption, 20 times the arrays of the largest network. A header becomes up to 30
times as many bytes of Python's values."""

_MAX_DIMENSIONS = 16

_MAX_SIDE = 1 << 48
"""Size of a dimension, or place in the file: far beyond any file that is read."""

_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8"}

_OTHER_DTYPES = frozenset(
    {"BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "C64"}
    | {"F4", "F6_E2M3", "F6_E3M2", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"}
)


def read_safetensors(data: bytes) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Read a .safetensors file.

    Args:
        data: the whole file.

    Returns:
        The arrays by name, views of `data` (bfloat16 becomes float32, for numpy has none), and the metadata.

    Raises:
        ModelError: damaged or truncated, or an array is of a type that no network of ours has.
    """
    header, start = _header(data)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or any(type(value) is not str for value in metadata.values()):
        _fail("its metadata are no texts by name")
    content = memoryview(data)[start:]
    places = {name: _place(name, entry) for name, entry in header.items()}
    _check_places(places, len(content))
    return {name: _array(name, header[name], content[slice(*places[name])]) for name in header}, metadata


def _header(data: bytes) -> tuple[dict[str, Any], int]:
    """Return the header, and the first byte behind it."""
    if len(data) < 8:
        _fail(f"{len(data)} bytes, expected 8 at least")
    (size,) = struct.unpack_from("<Q", data)
    if size > min(len(data) - 8, _MAX_HEADER_BYTES):
        _fail(f"a header of {size:,} bytes in a file of {len(data):,}; expected at most {_MAX_HEADER_BYTES:,}")
    try:
        header = json.loads(
            data[8 : 8 + size].decode("utf-8"), object_pairs_hook=_without_duplicates, parse_constant=_no_number
        )
    except (ValueError, RecursionError) as error:
        _fail(f"a header that is no JSON: {' '.join(str(error)[:200].split())}")
    if not isinstance(header, dict):
        _fail("a header that is no JSON object")
    return header, 8 + size


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key stands twice")
    return made


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _place(name: str, entry: Any) -> tuple[int, int]:
    """Return the first byte and the end of an array in the content."""
    place = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not isinstance(place, list) or not _is_counts(place, 2) or len(place) != 2 or place[0] > place[1]:
        _fail(f"{name[:80]} has no place in the file")
    return place[0], place[1]


def _is_counts(values: list[Any], limit: int) -> bool:
    """Return whether values are whole numbers from 0, at most `limit` of them; true and 1.0 are none."""
    return len(values) <= limit and all(type(value) is int and 0 <= value <= _MAX_SIDE for value in values)


def _check_places(places: Mapping[str, tuple[int, int]], size: int) -> None:
    """Raise ModelError unless the arrays fill the content without holes, none over another."""
    end = 0
    for name, (start, stop) in sorted(places.items(), key=lambda item: item[1]):
        if start != end:
            _fail(f"{name[:80]} begins at byte {start}, where the array before it ends at {end}")
        end = stop
    if end != size:
        _fail(f"{size} bytes of arrays, of which {end} are announced")


def _array(name: str, entry: Mapping[str, Any], content: memoryview) -> NDArray[Any]:
    kind, shape = entry.get("dtype"), entry.get("shape")
    dtype = _DTYPES.get(kind) if isinstance(kind, str) else None
    if dtype is None:
        if isinstance(kind, str) and kind in _OTHER_DTYPES:
            raise ModelError(f"{name[:80]} is of {kind}: expected floating-point weights, not quantised ones")
        _fail(f"{name[:80]} is of an unknown type {str(kind)[:20]!r}" if isinstance(kind, str) else "a type is missing")
    if not isinstance(shape, list) or not _is_counts(shape, _MAX_DIMENSIONS):
        _fail(f"{name[:80]} has no shape of at most {_MAX_DIMENSIONS} whole numbers")
    if prod(shape) * np.dtype(dtype).itemsize != len(content):
        _fail(f"{name[:80]} has the shape {tuple(shape)} of {kind} in {len(content)} bytes")
    try:
        array = np.frombuffer(content, dtype).reshape(shape)
    except ValueError:  # without numbers, but with sides whose product is too large all the same
        _fail(f"{name[:80]} has the shape {tuple(shape)}, too large")
    return float32_from_bfloat16(array) if kind == "BF16" else array


def _fail(what: str) -> NoReturn:
    raise ModelError(f"is no readable .safetensors file ({what}): damaged or incomplete, fetch it again")

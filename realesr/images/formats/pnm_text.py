"""Reads the decimal numbers of PBM, PGM and PPM files in text form, block by block, without a loop over values.

Source of the layout: netpbm's pbm(5), pgm(5) and ppm(5); as netpbm's own reader does, comments are skipped anywhere.
"""

import re
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

_BLOCK_BYTES = 1 << 20
_MOST_DIGITS = 9
_COMMENT = re.compile(rb"#[^\r\n]*")
_IS_SPACE = np.zeros(256, bool)
_IS_SPACE[list(b" \t\n\v\f\r")] = True
_IS_DIGIT = np.zeros(256, bool)
_IS_DIGIT[list(b"0123456789")] = True


def read_numbers(file: BinaryIO, count: int, largest: int) -> tuple[NDArray[Any], bytes]:
    """Read up to `count` numbers from 0 to `largest`.

    Returns:
        The numbers before the file's end or the first word that is none, uint8 where `largest` is at most 255, else
        uint16; and what follows them, without whitespace in front: a few bytes, none at the file's end.
    """
    values = np.empty(count, np.uint8 if largest <= 255 else np.uint16)
    filled = 0
    for block in _blocks(file):
        numbers, ends = _numbers_of(block)
        wrong = np.flatnonzero((numbers < 0) | (numbers > largest))
        good = min(count - filled, int(wrong[0]) if wrong.size else numbers.size)
        values[filled : filled + good] = numbers[:good]
        filled += good
        if good < numbers.size or filled == count:
            begin = int(ends[good - 1]) if good else 0
            return values[:filled], block[begin:].lstrip()[:64]
    return values[:filled], b""


def read_digits(file: BinaryIO, count: int, largest: int = 1) -> tuple[NDArray[Any], bytes]:
    """Read up to `count` digits from 0 to `largest`, with or without whitespace between; returns as `read_numbers`."""
    values = np.empty(count, np.uint8)
    filled = 0
    for block in _blocks(file):
        stored = np.frombuffer(block, np.uint8)
        places = np.flatnonzero(~_IS_SPACE[stored])
        digits = stored[places] - np.uint8(ord("0"))  # below "0" it wraps around, above `largest`
        wrong = np.flatnonzero(digits > largest)
        good = min(count - filled, int(wrong[0]) if wrong.size else digits.size)
        values[filled : filled + good] = digits[:good]
        filled += good
        if good < digits.size or filled == count:
            begin = int(places[good - 1]) + 1 if good else 0
            return values[:filled], block[begin:].lstrip()[:64]
    return values[:filled], b""


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    """Yield the rest of a file in blocks that end between words, without comments."""
    rest, in_comment = b"", False
    while data := file.read(_BLOCK_BYTES):
        if in_comment:
            end = _line_end(data)
            if end < 0:
                continue
            data = data[end:]
        opening = data.rfind(b"#")
        in_comment = opening >= 0 and _line_end(data[opening:]) < 0
        data = _COMMENT.sub(b"\n", rest + data)
        cut = max(data.rfind(bytes((byte,))) for byte in b" \t\n\v\f\r") + 1
        if not cut and len(data) > _MOST_DIGITS:  # one endless word is no number
            cut = len(data)
        rest = data[cut:]
        if cut:
            yield data[:cut]
    if rest:
        yield rest


def _line_end(data: bytes) -> int:
    """Return the position of the first end of a line, or -1."""
    return min((end for end in (data.find(b"\n"), data.find(b"\r")) if end >= 0), default=-1)


def _numbers_of(block: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the words of a block as numbers, -1 where one is no number of at most nine digits, and their ends."""
    stored = np.frombuffer(block, np.uint8)
    inside = np.zeros(stored.size + 2, np.int8)
    inside[1:-1] = ~_IS_SPACE[stored]
    steps = np.diff(inside)
    starts, ends = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    lengths = ends - starts
    numbers = np.zeros(starts.size, np.int64)
    for place in range(min(int(lengths.max(initial=0)), _MOST_DIGITS)):
        has = lengths > place
        digits = np.where(has, stored[np.maximum(ends - 1 - place, 0)], ord("0"))
        numbers += (digits.astype(np.int64) - ord("0")) * 10**place
    others = np.flatnonzero(~_IS_DIGIT[stored] & ~_IS_SPACE[stored])
    numbers[np.searchsorted(starts, others, side="right") - 1] = -1
    numbers[lengths > _MOST_DIGITS] = -1
    return numbers, ends

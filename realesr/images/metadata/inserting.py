"""Inserts bytes into a file, in place and in bounded memory."""

from typing import BinaryIO

_PIECE_BYTES = 2**20


def insert_bytes(file: BinaryIO, at: int, data: bytes, *, instead_of: int = 0) -> None:
    """Write `data` at position `at` of an open file instead of the `instead_of` bytes there; the rest moves back.

    Raises:
        ValueError: `data` has fewer bytes than it replaces.
    """
    growth = len(data) - instead_of
    if growth < 0:
        raise ValueError(f"got {len(data)} bytes, expected at least the {instead_of} that they replace")
    start, end = at + instead_of, file.seek(0, 2)
    while growth and end > start:
        piece_at = max(start, end - _PIECE_BYTES)
        file.seek(piece_at)
        piece = file.read(end - piece_at)
        file.seek(piece_at + growth)
        file.write(piece)
        end = piece_at
    file.seek(at)
    file.write(data)

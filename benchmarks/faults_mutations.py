"""Changes bytes as damage and malice do: the source of bad inputs of every kind."""

import random
import struct

EXTREMES: dict[int, tuple[int, ...]] = {1: (0, 1, 0x7F, 0x80, 0xFF), 2: (0, 1, 0x7FFF, 0x8000, 0xFFFF)}
EXTREMES |= {4: (0, 1, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF), 8: (0, 1, 1 << 32, (1 << 63) - 1, (1 << 64) - 1)}
"""Size of a field in bytes -> values at which arithmetic breaks."""
_HEAD_BYTES = 64


def mutated(data: bytes, dice: random.Random, other: bytes = b"") -> tuple[str, bytes]:
    """Return the name of a mutation, and bytes that it was done to, once or a few times.

    Args:
        data: a whole file.
        dice: source of all choices.
        other: a second file, from which stretches are taken.
    """
    name = dice.choice(tuple(MUTATIONS))
    for _ in range(1 if name == "cut" else dice.choice((1, 1, 2, 4))):
        data = MUTATIONS[name](data, dice, other) if data else data
    return name, data


def cut(data: bytes, dice: random.Random, _: bytes = b"") -> bytes:
    """Leave out the end."""
    return data[: dice.randrange(len(data))]


def flipped(data: bytes, dice: random.Random, _: bytes = b"") -> bytes:
    """Change up to eight bytes."""
    changed = bytearray(data)
    for _time in range(dice.randint(1, 8)):
        changed[dice.randrange(len(data))] ^= dice.randint(1, 255)
    return bytes(changed)


def flipped_bit(data: bytes, dice: random.Random, _: bytes = b"") -> bytes:
    """Change one bit near the beginning, where the headers are."""
    changed = bytearray(data)
    changed[dice.randrange(min(len(data), 8 * _HEAD_BYTES))] ^= 1 << dice.randrange(8)
    return bytes(changed)


def with_extreme(data: bytes, dice: random.Random, _: bytes = b"") -> bytes:
    """Set a field of 1, 2, 4 or 8 bytes to an extreme value, in either byte order."""
    size = dice.choice((1, 2, 4, 8))
    end = min(len(data), dice.choice((_HEAD_BYTES, 8 * _HEAD_BYTES, len(data))))
    at, value = dice.randrange(end), dice.choice(EXTREMES[size])
    field = struct.pack(dice.choice("<>") + {1: "B", 2: "H", 4: "I", 8: "Q"}[size], value)
    return data[:at] + field + data[at + size :]


def without_stretch(data: bytes, dice: random.Random, _: bytes = b"") -> bytes:
    """Leave out a stretch."""
    start, end = _stretch(data, dice)
    return data[:start] + data[end:]


def with_stretch(data: bytes, dice: random.Random, other: bytes = b"") -> bytes:
    """Put a stretch of another file, or of noise, in between or over what was there."""
    start, end = _stretch(other, dice) if other else (0, 0)
    piece = other[start:end] or dice.randbytes(dice.randint(1, 40))
    at = dice.randrange(len(data))
    return data[:at] + piece + data[at + dice.choice((0, len(piece))) :]


def repeated(data: bytes, dice: random.Random, _: bytes = b"") -> bytes:
    """Repeat a stretch, a few times or many."""
    start, end = _stretch(data, dice)
    return data[:end] + data[start:end] * dice.choice((1, 2, 20)) + data[end:]


def swapped(data: bytes, dice: random.Random, _: bytes = b"") -> bytes:
    """Let two neighbouring stretches change places."""
    a, b, c = sorted(dice.randrange(len(data) + 1) for _ in range(3))
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def zeroed(data: bytes, dice: random.Random, _: bytes = b"") -> bytes:
    """Lose a stretch to zeros or ones, as disks do."""
    start, end = _stretch(data, dice)
    return data[:start] + dice.choice((b"\0", b"\xff")) * (end - start) + data[end:]


def _stretch(data: bytes, dice: random.Random) -> tuple[int, int]:
    """Return start and end of a stretch, mostly short."""
    start = dice.randrange(len(data))
    return start, min(len(data), start + dice.choice((1, 4, 16, 100, len(data) // 4)))


MUTATIONS = {
    "cut": cut,
    "bytes changed": flipped,
    "bit changed": flipped_bit,
    "field set to an extreme": with_extreme,
    "stretch left out": without_stretch,
    "stretch put in": with_stretch,
    "stretch repeated": repeated,
    "stretches swapped": swapped,
    "stretch zeroed": zeroed,
}

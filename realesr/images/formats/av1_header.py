"""Reads the colour description in the sequence header of an AV1 image.

Source: AV1 Bitstream & Decoding Process Specification 1.0.0 with errata 1, 5.3 (OBUs), 5.5 (sequence header), 5.5.2
(colour configuration).
"""

from dataclasses import dataclass

_SEQUENCE_HEADER = 1
_MOST_UNITS = 16
_IDENTITY_MATRIX = 0


@dataclass(frozen=True)
class Av1Colours:
    """Colour description of an AV1 image; code points of H.273."""

    primaries: int
    transfer: int
    is_full_range: bool


def av1_colours(data: bytes) -> Av1Colours | None:
    """Return what the first sequence header in a run of OBUs says about colours, or None where there is none."""
    try:
        header = _sequence_header(data)
        return None if header is None else _read_colours(_Bits(header))
    except ValueError:
        return None


class _Bits:
    """Bits of a header, read from the highest on."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def read(self, count: int) -> int:
        """Return the next `count` bits as a number; raise ValueError beyond the end."""
        if count > self._left:
            raise ValueError("the header ends too early")
        self._left -= count
        return self._value >> self._left & ((1 << count) - 1)

    def read_uvlc(self) -> int:
        """Return the next number of variable length. Source: 4.10.3."""
        zeros = 0
        while not self.read(1):
            zeros += 1
        return self.read(zeros) + (1 << zeros) - 1 if zeros < 32 else (1 << 32) - 1


def _sequence_header(data: bytes) -> bytes | None:
    """Return the content of the first sequence header OBU, at most 256 bytes of it."""
    at = 0
    for _ in range(_MOST_UNITS):
        if at + 2 > len(data):
            return None
        head = data[at]
        at += 2 if head & 4 else 1
        size = len(data) - at
        if head & 2:
            size, at = _leb128(data, at)
        if head >> 3 & 15 == _SEQUENCE_HEADER:
            return data[at : at + min(size, 256)]
        at += size
    return None


def _leb128(data: bytes, at: int) -> tuple[int, int]:
    """Return a little-endian base 128 number, and the offset after it. Source: 4.10.5."""
    value = 0
    for index in range(8):
        if at + index >= len(data):
            break
        value |= (data[at + index] & 127) << 7 * index
        if not data[at + index] & 128:
            return value, at + index + 1
    raise ValueError("a number without end")


def _read_colours(bits: _Bits) -> Av1Colours:
    """Return the colour configuration of a sequence header, past all that comes before it. Source: 5.5.1."""
    profile = bits.read(3)
    bits.read(1)
    is_reduced = bool(bits.read(1))
    if is_reduced:
        bits.read(5)
    else:
        _skip_timing(bits)
    width_bits, height_bits = bits.read(4) + 1, bits.read(4) + 1
    bits.read(width_bits + height_bits)
    if not is_reduced and bits.read(1):
        bits.read(7)
    bits.read(3)
    if not is_reduced:
        _skip_inter_tools(bits)
    bits.read(3)
    is_deep = bits.read(1)
    if profile == 2 and is_deep:
        bits.read(1)
    is_monochrome = profile != 1 and bits.read(1)
    primaries, transfer, matrix = (bits.read(8), bits.read(8), bits.read(8)) if bits.read(1) else (2, 2, 2)
    is_rgb = not is_monochrome and (primaries, transfer, matrix) == (1, 13, _IDENTITY_MATRIX)
    return Av1Colours(primaries, transfer, is_rgb or bool(bits.read(1)))


def _skip_timing(bits: _Bits) -> None:
    """Skip timing, decoder model and operating points. Source: 5.5.1, 5.5.3, 5.5.4, 5.5.5."""
    has_model, delay_bits = 0, 0
    if bits.read(1):
        bits.read(64)
        if bits.read(1):
            bits.read_uvlc()
        has_model = bits.read(1)
        if has_model:
            delay_bits = bits.read(5) + 1
            bits.read(42)
    has_display_delay = bits.read(1)
    for _ in range(bits.read(5) + 1):
        bits.read(12)
        if bits.read(5) > 7:
            bits.read(1)
        if has_model and bits.read(1):
            bits.read(2 * delay_bits + 1)
        if has_display_delay and bits.read(1):
            bits.read(4)


def _skip_inter_tools(bits: _Bits) -> None:
    """Skip the tools of coding between frames, and those of screen content. Source: 5.5.1."""
    bits.read(4)
    has_order_hint = bits.read(1)
    if has_order_hint:
        bits.read(2)
    forces_screen_content = 2 if bits.read(1) else bits.read(1)
    if forces_screen_content and not bits.read(1):
        bits.read(1)
    if has_order_hint:
        bits.read(3)

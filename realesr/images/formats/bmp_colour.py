"""Finds the colours that a BMP file states.

Source: Microsoft, Windows GDI: BITMAPV4HEADER, BITMAPV5HEADER; [MS-WMF], 2.1.1.14 (LogicalColorSpace).
"""

import struct
from pathlib import Path

from realesr.images.formats.bmp_header import FILE_HEADER_BYTES, BmpHeader
from realesr.images.profile_making import gamma_profile

_CALIBRATED, _LINKED, _EMBEDDED = 0, 0x4C494E4B, 0x4D424544
_V4_BYTES, _V5_BYTES = 108, 124
_MOST_PROFILE_BYTES = 1 << 25
_SRGB = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_SRGB_GAMMA = 2.2


def bmp_colour(path: Path, header: BmpHeader, *, is_grey: bool) -> tuple[bytes | None, tuple[str, ...]]:
    """Return the profile of a file's colours, None for sRGB, and notices for the user."""
    if len(header.dib) < _V4_BYTES:
        return None, ()
    kind = int.from_bytes(header.dib[56:60], "little")
    if kind == _CALIBRATED:
        return _calibrated(header.dib, is_grey=is_grey)
    if len(header.dib) == _V5_BYTES and kind == _LINKED:
        return None, ("the colour profile is another file, which is not read; colours are treated as sRGB",)
    if len(header.dib) == _V5_BYTES and kind == _EMBEDDED:
        at, length = struct.unpack("<II", header.dib[112:120])
        with path.open("rb") as file:
            file.seek(FILE_HEADER_BYTES + at)
            icc = file.read(min(length, _MOST_PROFILE_BYTES))
        if length and len(icc) == length:
            return icc, ()
        return None, ("the colour profile is damaged and was dropped; colours are treated as sRGB",)
    return None, ()


def _calibrated(dib: bytes, *, is_grey: bool) -> tuple[bytes | None, tuple[str, ...]]:
    """Return the profile of the end points and gammas of a header that has any, unless they are sRGB's."""
    ends = [number / 2**30 for number in struct.unpack("<9i", dib[60:96])]
    gammas = [number / 2**16 for number in struct.unpack("<3I", dib[96:108])]
    if not any(gammas):
        return None, ()
    primaries = _chromaticities(ends)
    is_srgb = is_grey or primaries is None or all(abs(a - b) < 0.002 for a, b in zip(primaries, _SRGB, strict=True))
    gamma = gammas[1]
    if is_srgb and all(abs(g - _SRGB_GAMMA) < 0.01 for g in gammas):
        return None, ()
    icc = None
    if max(gammas) - min(gammas) < 0.01:
        icc = gamma_profile(gamma, None if is_srgb else primaries, is_grey=is_grey)
    if icc is None:
        return None, ("the header states no colours that can be used; they are treated as sRGB",)
    return icc, ()


def _chromaticities(ends: list[float]) -> tuple[float, ...] | None:
    """Return x and y of white, red, green and blue from X, Y and Z of red, green and blue; None where all are 0.

    Where X, Y and Z of each add up to 1 they are chromaticities, which say nothing about white: it is taken as D65.
    """
    colours = [ends[i : i + 3] for i in (0, 3, 6)]
    sums = [sum(colour) for colour in colours]
    if not any(ends) or any(total <= 0 for total in sums):
        return None
    white = (_SRGB[0], _SRGB[1])
    if any(abs(total - 1) > 0.005 for total in sums):
        white = sum(ends[0::3]) / sum(sums), sum(ends[1::3]) / sum(sums)
    return (*white, *(part / total for colour, total in zip(colours, sums, strict=True) for part in colour[:2]))

"""Finds the colours that a PNG file states: cICP, then iCCP, then sRGB, then gAMA and cHRM.

Source: PNG specification, third edition, 4.3 (which comes first) and 11.3.2 (each chunk).
"""

import struct
from dataclasses import dataclass
from pathlib import Path

from realesr.errors import InputError
from realesr.images.formats.png_chunks import PngChunks, inflated
from realesr.images.profile_making import UNSPECIFIED, cicp_is_known, cicp_profile, gamma_profile

_SRGB_GAMA, _GAMA_TOLERANCE = 45455, 50
_SRGB_CHRM, _CHRM_TOLERANCE = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000), 100


@dataclass(frozen=True)
class PngColour:
    """The colours of a file."""

    icc: bytes | None = None
    """Profile; None is sRGB, or grey with sRGB's curve."""
    is_narrow: bool = False
    """Whether values have video's narrow range: black at 16/255, white at 235/255."""
    notices: tuple[str, ...] = ()


def png_colour(path: Path, chunks: PngChunks, *, is_grey: bool) -> PngColour:
    """Return the colours that the chunks state, from the first of them that can be used.

    Raises:
        InputError: the samples are no RGB.
    """
    notices: list[str] = []
    if (stated := _cicp(path, chunks, notices)) is not None:
        primaries, transfer, is_narrow = stated
        return PngColour(cicp_profile(primaries, transfer, is_grey=is_grey), is_narrow, tuple(notices))
    if (icc := _iccp(chunks, notices)) is not None:
        return PngColour(icc, notices=tuple(notices))
    if b"sRGB" in chunks.found:
        return PngColour(notices=tuple(notices))
    icc = gamma_colour(chunks.found.get(b"gAMA"), chunks.found.get(b"cHRM"), notices, is_grey=is_grey)
    return PngColour(icc, notices=tuple(notices))


def _cicp(path: Path, chunks: PngChunks, notices: list[str]) -> tuple[int, int, bool] | None:
    """Return primaries, transfer characteristics, and whether the range is narrow, of a cICP chunk; else None."""
    data = chunks.found.get(b"cICP")
    if data is None:
        return None
    if len(data) != 4 or data[3] > 1:
        notices.append("the cICP chunk is damaged and was left out")
        return None
    primaries, transfer, matrix, is_full = data
    if matrix:
        raise InputError(f"{path} has a cICP chunk of matrix coefficients {matrix}, which is not read: expected 0, RGB")
    if not cicp_is_known(primaries, transfer):
        notices.append(f"the cICP chunk names unknown colours ({primaries}, {transfer}) and was left out")
        return None
    if primaries == transfer == UNSPECIFIED and is_full:
        return None
    return primaries, transfer, not is_full


def _iccp(chunks: PngChunks, notices: list[str]) -> bytes | None:
    """Return the profile of an iCCP chunk; None where there is none or it is damaged."""
    data = chunks.found.get(b"iCCP")
    if data is None:
        return None
    icc = inflated(data.partition(b"\0")[2][1:])
    if not icc:
        notices.append("the colour profile (iCCP chunk) is damaged and was dropped")
    return icc or None


def gamma_colour(gama: bytes | None, chrm: bytes | None, notices: list[str], *, is_grey: bool) -> bytes | None:
    """Return the profile of the data of gAMA and cHRM chunks; None where they state sRGB, or nothing that makes sense.

    A gamma of 1/2.2 stands for sRGB's curve where the primaries are sRGB's or not stated, as browsers have it; and
    primaries without a gamma come with it.
    """
    try:
        gamma = struct.unpack(">I", gama)[0] if gama is not None else _SRGB_GAMA
        primaries = struct.unpack(">8I", chrm) if chrm is not None and not is_grey else _SRGB_CHRM
    except struct.error:
        notices.append("the gAMA or cHRM chunk is damaged; colours are treated as sRGB")
        return None
    has_srgb_primaries = all(abs(a - b) <= _CHRM_TOLERANCE for a, b in zip(primaries, _SRGB_CHRM, strict=True))
    if has_srgb_primaries and abs(gamma - _SRGB_GAMA) <= _GAMA_TOLERANCE:
        return None
    chromaticities = None if has_srgb_primaries else tuple(number / 100_000 for number in primaries)
    icc = gamma_profile(100_000 / gamma, chromaticities, is_grey=is_grey) if gamma else None
    if icc is None:
        notices.append("the gAMA and cHRM chunks state no possible colours; they are treated as sRGB")
    return icc

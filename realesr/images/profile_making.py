"""Makes ICC profiles of colours that a file describes without one: by code points of H.273, or by gamma and primaries.

The profiles are display profiles of version 4.4, a matrix and three curves, or one curve for grey. Their white is D50,
to which the colours are adapted by Bradford's matrix; the three columns sum up to it exactly, so that white stays
white. Uses no libraries.

Curves of cameras (BT.601, BT.709, BT.2020, and those of their kin) are made as sRGB's curve: nearly every file that
names one holds an image that was made for, and is looked at on, an sRGB display. Chromium decodes AVIF in the same way
(skia/ext/cicp.h, `prefer_srgb_trfn`). What no code point says is sRGB (MIAF, ISO/IEC 23000-22, 7.3.6.4).

PQ and HLG describe light above white, which sRGB does not have: here 1.0 is HDR reference white, 203 cd/m2 or 75 % of
HLG's signal (ITU-R BT.2408, 2.1), and what is brighter is clipped.

Sources: ITU-T H.273 (09/2023), tables 2 and 3; ICC.1:2022, 7.2 (header), 9.2.17 (cicp), 10 (types), annex E.3 (chad).
"""

import math
import struct
from collections.abc import Callable

Vector = tuple[float, float, float]
Matrix = tuple[Vector, Vector, Vector]

SRGB_PRIMARIES, SRGB_CURVE, UNSPECIFIED = 1, 13, 2
"""Code points of H.273."""
PQ, HLG = 16, 18
"""Code points of H.273 for the transfer characteristics of HDR."""

_D65, _C, _E, _DCI = (0.3127, 0.3290), (0.310, 0.316), (1 / 3, 1 / 3), (0.314, 0.351)
# White, red, green and blue as x, y each. Source: H.273, table 2.
_PRIMARIES: dict[int, tuple[str, tuple[float, ...]]] = {
    1: ("BT.709", (*_D65, 0.640, 0.330, 0.300, 0.600, 0.150, 0.060)),
    4: ("BT.470 M", (*_C, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08)),
    5: ("BT.601 625", (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06)),
    6: ("BT.601 525", (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070)),
    7: ("SMPTE 240M", (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070)),
    8: ("film", (*_C, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049)),
    9: ("BT.2020", (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046)),
    10: ("XYZ", (*_E, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0)),
    11: ("DCI-P3", (*_DCI, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)),
    12: ("Display P3", (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)),
    22: ("EBU 3213", (*_D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077)),
}
_TRANSFERS = {
    4: "gamma 2.2",
    5: "gamma 2.8",
    7: "SMPTE 240M",
    8: "linear",
    9: "logarithmic 100:1",
    10: "logarithmic 316:1",
    13: "sRGB",
    16: "PQ",
    17: "ST 428-1",
    18: "HLG",
}
_CAMERA_CURVES = (1, 6, 11, 12, 14, 15)

_D50: Vector = (0.9642, 1.0, 0.8249)
_BRADFORD: Matrix = ((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296))
_TABLE_ENTRIES = 4096
_REFERENCE_WHITE_CD_M2, _REFERENCE_WHITE_HLG = 203, 0.75
_HLG_SYSTEM_GAMMA = 1.2


def cicp_profile(primaries: int, transfer: int, *, is_grey: bool = False) -> bytes | None:
    """Return the profile of a file's colour primaries and transfer characteristics, numbered as in H.273.

    Unspecified (2) is as in sRGB. The profile of RGB has a `cicp` tag; of grey the primaries do not matter.

    Returns:
        None for sRGB, which needs no profile, and for numbers that are unknown (`cicp_is_known` tells).
    """
    primaries, transfer = _specified(primaries, transfer)
    if not cicp_is_known(primaries, transfer) or ((is_grey or primaries == SRGB_PRIMARIES) and transfer == SRGB_CURVE):
        return None
    curve = _transfer_curve(transfer)
    if is_grey:
        return _profile(b"GRAY", f"Grey, {_TRANSFERS[transfer]}", {b"kTRC": curve})
    tags = _matrix_tags(_PRIMARIES[primaries][1])
    if tags is None:
        return None
    cicp = b"cicp\0\0\0\0" + bytes((primaries, transfer, 0, 1))  # RGB itself, full range
    curves = {b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    return _profile(b"RGB ", cicp_name(primaries, transfer), tags | curves | {b"cicp": cicp})


def gamma_profile(gamma: float, chromaticities: tuple[float, ...] | None, *, is_grey: bool) -> bytes | None:
    """Return the profile of values that are linear light to the power of 1 / `gamma`.

    Args:
        gamma: exponent that decodes the values, such as 2.2.
        chromaticities: x and y of white, red, green and blue, eight numbers; None for sRGB's. Grey has none.
        is_grey: whether the profile is for grey.

    Returns:
        None where the numbers are no colours: a gamma outside [0.01, 100], or primaries without a triangle.
    """
    if not 0.01 <= gamma <= 100:
        return None
    curve, name = _parametric(0, gamma), f"gamma {gamma:.4g}"
    if is_grey:
        return _profile(b"GRAY", f"Grey, {name}", {b"kTRC": curve})
    tags = _matrix_tags(chromaticities or _PRIMARIES[SRGB_PRIMARIES][1])
    if tags is None:
        return None
    known = [title for title, values in _PRIMARIES.values() if chromaticities in (values, None)]
    title = f"{known[0] if known else 'RGB'}, {name}"
    return _profile(b"RGB ", title, tags | {b"rTRC": curve, b"gTRC": curve, b"bTRC": curve})


def cicp_is_known(primaries: int, transfer: int) -> bool:
    """Return whether H.273 says what these numbers mean; unspecified (2) counts as sRGB's."""
    primaries, transfer = _specified(primaries, transfer)
    return primaries in _PRIMARIES and transfer in _TRANSFERS


def cicp_name(primaries: int, transfer: int) -> str:
    """Return primaries and transfer characteristics in words: "Display P3", or "BT.2020, PQ"."""
    primaries, transfer = _specified(primaries, transfer)
    title = primaries_name(primaries)
    curve = _TRANSFERS.get(transfer, f"transfer {transfer}")
    return title if (primaries, transfer) == (12, SRGB_CURVE) else f"{title}, {curve}"


def primaries_name(primaries: int) -> str:
    """Return colour primaries in words, such as "BT.2020"."""
    return _PRIMARIES[primaries][0] if primaries in _PRIMARIES else f"primaries {primaries}"


def _specified(primaries: int, transfer: int) -> tuple[int, int]:
    """Return the numbers with sRGB's where they are unspecified, and where the curve is a camera's."""
    as_srgb = transfer == UNSPECIFIED or transfer in _CAMERA_CURVES
    return SRGB_PRIMARIES if primaries == UNSPECIFIED else primaries, SRGB_CURVE if as_srgb else transfer


def _transfer_curve(transfer: int) -> bytes:
    """Return the curve tag of known transfer characteristics. Source: H.273, table 3."""
    parametric = {
        4: (0, 2.2),
        5: (0, 2.8),
        7: (3, 1 / 0.45, 1 / 1.1115, 0.1115 / 1.1115, 1 / 4, 4 * 0.0228),
        8: (0, 1.0),
        SRGB_CURVE: (3, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045),
    }
    tables: dict[int, Callable[[float], float]] = {
        9: lambda x: 10 ** (2 * (x - 1)) if x else 0.0,
        10: lambda x: 10 ** (2.5 * (x - 1)) if x else 0.0,
        PQ: _pq_to_linear,
        17: lambda x: 52.37 / 48 * x**2.6,
        HLG: _hlg_to_linear,
    }
    if transfer in parametric:
        kind, *numbers = parametric[transfer]
        return _parametric(int(kind), *numbers)
    return _table(tables[transfer])


def _pq_to_linear(x: float) -> float:
    """Return light relative to HDR reference white of a PQ value in [0, 1]. Source: ITU-R BT.2100-2, table 4."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    power = x ** (1 / m2)
    return float(10_000 * (max(power - c1, 0.0) / (c2 - c3 * power)) ** (1 / m1)) / _REFERENCE_WHITE_CD_M2


def _hlg_to_linear(x: float) -> float:
    """Return light relative to HDR reference white of an HLG value in [0, 1], on a display of 1000 cd/m2.

    The system gamma is applied to each channel: exact for grey. Source: ITU-R BT.2100-2, table 5.
    """
    return math.pow(_hlg_scene(x) / _hlg_scene(_REFERENCE_WHITE_HLG), _HLG_SYSTEM_GAMMA)


def _hlg_scene(x: float) -> float:
    """Return the scene's light in [0, 1] of an HLG value. Source: ITU-R BT.2100-2, table 5."""
    a = 0.17883277
    b, c = 1 - 4 * a, 0.5 - a * math.log(4 * a)
    return x * x / 3 if x <= 0.5 else (math.exp((x - c) / a) + b) / 12


def _matrix_tags(chromaticities: tuple[float, ...]) -> dict[bytes, bytes] | None:
    """Return the tags of white, red, green and blue (x, y each), adapted to D50; None where they are no colours."""
    if len(chromaticities) != 8 or not all(map(math.isfinite, chromaticities)):
        return None
    white, red, green, blue = (
        (x, y, 1 - x - y) for x, y in zip(chromaticities[::2], chromaticities[1::2], strict=True)
    )
    inverse = _inverse(_transposed((red, green, blue)))
    if inverse is None or white[1] <= 0:
        return None
    light = _scaled(white, 1 / white[1])
    strengths = _times(inverse, light)
    adapted = _adaptation(light)
    if adapted is None:
        return None
    columns = [
        _times(adapted, _scaled(primary, strength))
        for primary, strength in zip((red, green, blue), strengths, strict=True)
    ]
    numbers = [*columns[0], *columns[1], *columns[2], *adapted[0], *adapted[1], *adapted[2]]
    if not all(abs(number) < 8 for number in numbers):
        return None
    d50 = [_fixed(v) for v in _D50]
    r, b = ([_fixed(v) for v in columns[i]] for i in (0, 2))
    g = [total - x - y for total, x, y in zip(d50, r, b, strict=True)]
    chad = b"sf32\0\0\0\0" + struct.pack(">9i", *(_fixed(v) for row in adapted for v in row))
    return {b"chad": chad, b"rXYZ": _xyz(r), b"gXYZ": _xyz(g), b"bXYZ": _xyz(b)}


def _adaptation(white: Vector) -> Matrix | None:
    """Return Bradford's adaptation from `white` (X, Y, Z) to D50. Source: ICC.1:2022, annex E.3."""
    back = _inverse(_BRADFORD)
    seen, wanted = _times(_BRADFORD, white), _times(_BRADFORD, _D50)
    if back is None or min(seen) <= 0:
        return None
    gains = [w / s for w, s in zip(wanted, seen, strict=True)]
    a, b, c = (_scaled(row, gain) for row, gain in zip(_BRADFORD, gains, strict=True))
    columns = [_times(back, column) for column in _transposed((a, b, c))]
    return _transposed((columns[0], columns[1], columns[2]))


def _profile(space: bytes, title: str, tags: dict[bytes, bytes]) -> bytes:
    """Return a display profile of colour space `space` with these tags and those that all have."""
    common = {
        b"desc": _text(title),
        b"cprt": _text("No copyright, use freely"),
        b"wtpt": _xyz([_fixed(v) for v in _D50]),
    }
    tags = common | tags
    table, values, first = b"", b"", 128 + 4 + 12 * len(tags)
    places: dict[bytes, int] = {}
    for name, data in tags.items():
        if data not in places:
            places[data] = first + len(values)
            values += data + b"\0" * (-len(data) % 4)
        table += name + struct.pack(">II", places[data], len(data))
    body = struct.pack(">I", len(tags)) + table + values
    head = struct.pack(">I4xI4s4s4s", 128 + len(body), 0x04400000, b"mntr", space, b"XYZ ")
    head += struct.pack(">6H", 2022, 1, 1, 0, 0, 0) + b"acsp" + b"\0" * 28
    head += struct.pack(">3i", *(_fixed(v) for v in _D50))
    return head.ljust(128, b"\0") + body


def _text(text: str) -> bytes:
    """Return a text in English as multiLocalizedUnicodeType. Source: ICC.1:2022, 10.15."""
    data = text.encode("utf-16-be")
    return b"mluc\0\0\0\0" + struct.pack(">II4sII", 1, 12, b"enUS", len(data), 28) + data


def _parametric(kind: int, *numbers: float) -> bytes:
    """Return a curve as parametricCurveType. Source: ICC.1:2022, 10.18."""
    return b"para\0\0\0\0" + struct.pack(f">HH{len(numbers)}i", kind, 0, *(_fixed(v) for v in numbers))


def _table(curve: Callable[[float], float]) -> bytes:
    """Return a curve from [0, 1] as curveType, clipped at 1. Source: ICC.1:2022, 10.6."""
    steps = (index / (_TABLE_ENTRIES - 1) for index in range(_TABLE_ENTRIES))
    values = (round(65535 * min(curve(x), 1.0)) for x in steps)
    return b"curv\0\0\0\0" + struct.pack(f">I{_TABLE_ENTRIES}H", _TABLE_ENTRIES, *values)


def _xyz(values: list[int]) -> bytes:
    """Return X, Y and Z, of s15Fixed16Number, as XYZType. Source: ICC.1:2022, 10.31."""
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *values)


def _fixed(value: float) -> int:
    """Return a number as s15Fixed16Number. Source: ICC.1:2022, 4.6."""
    return round(value * 65536)


def _times(matrix: Matrix, vector: Vector) -> Vector:
    """Return a matrix times a column."""
    a, b, c = (sum(m * v for m, v in zip(row, vector, strict=True)) for row in matrix)
    return a, b, c


def _scaled(vector: Vector, factor: float) -> Vector:
    """Return a vector times a number."""
    return vector[0] * factor, vector[1] * factor, vector[2] * factor


def _transposed(rows: Matrix) -> Matrix:
    """Return the matrix whose rows are this one's columns."""
    a, b, c = zip(*rows, strict=True)
    return a, b, c


def _inverse(rows: Matrix) -> Matrix | None:
    """Return the inverse of a matrix, or None where it has none worth using."""
    (a, b, c), (d, e, f), (g, h, i) = rows
    determinant = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
    if abs(determinant) < 1e-6:
        return None
    k = 1 / determinant
    return (
        ((e * i - f * h) * k, (c * h - b * i) * k, (b * f - c * e) * k),
        ((f * g - d * i) * k, (a * i - c * g) * k, (c * d - a * f) * k),
        ((d * h - e * g) * k, (b * g - a * h) * k, (a * e - b * d) * k),
    )

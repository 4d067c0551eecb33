"""Decides which colours a network processes, and which profile its output carries. Uses no pixels and no libraries.

The networks were trained on sRGB photographs, and they leave colour nearly as it is. So:

- RGB in a matrix profile whose tone curves are like a photo's (gamma 1.7 to 2.7: sRGB, Adobe RGB, Display P3,
  ProPhoto) goes to the network as it is, and the output carries the same profile. Nothing is converted, so nothing
  is clipped: a wide-gamut photo keeps its colours, and a network that sees slightly muted values handles them as it
  would a slightly muted photo.
- Grey in a grey profile: the same, whatever its curve (the dot gain profiles of photo editors are near gamma 1.5).
- Everything else is converted to sRGB, relative colorimetric, before the network, and the output carries an sRGB
  profile: linear or HDR curves and profiles by look-up table (whose values may look like nothing the network knows),
  CMYK (through the file's own profile, else libvips' generic one, with black point compensation, because ink's black is
  a dark grey), and Lab.
- HDR (PQ or HLG) is converted likewise, grey too: HDR reference white becomes white, what is brighter is clipped, and a
  notice says so.
- A profile that is damaged, or made for another kind of image (a grey one in an RGB file), is dropped with a notice:
  the values are treated as sRGB, as viewers do.

Files that describe their colours without a profile get one first: `profile_making` makes it of the code points of
H.273 (AVIF and HEIC's nclx, PNG's cICP), and of PNG's gAMA and cHRM. No description at all means sRGB.

Source of the profile's layout: ICC.1:2022, 7.2 (header), 9.2.17 (cicp), 10.6 (curveType), 10.18 (parametricCurveType).
"""

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from realesr.images.profile_making import HLG, PQ, primaries_name

ColourSpace = Literal["grey", "rgb", "cmyk", "lab"]
Curve = Callable[[float], float]
"""A tone curve: light of a value, both in [0, 1]."""
Treatment = Literal["as it is", "drop profile", "convert to sRGB"]

SRGB_COLUMNS = ((0.43604, 0.22248, 0.01392), (0.38511, 0.71691, 0.09707), (0.14305, 0.06061, 0.71391))
"""X, Y and Z of sRGB's red, green and blue, adapted to D50 by Bradford's matrix. Source: IEC 61966-2-1."""
LOWEST_GAMMA, HIGHEST_GAMMA = 1.7, 2.7
"""Tone curves of profiles that photos come in; ProPhoto has 1.8, eciRGB's L* is near 2.5. Linear is 1, PQ above 5."""

_TREATED = "colours are treated as sRGB"
_SIGNATURES: dict[bytes, ColourSpace] = {b"GRAY": "grey", b"RGB ": "rgb", b"CMYK": "cmyk", b"Lab ": "lab"}
_CLASSES = (b"scnr", b"mntr", b"prtr", b"spac")
_PROBES = (0.25, 0.5, 0.75)
_WHITE_OF_HDR = 0.8
"""Value that is white already in the curves of HDR: PQ's reference white is at 0.58, HLG's at 0.75."""
CURVE_ERRORS = (struct.error, ValueError, IndexError, OverflowError, ZeroDivisionError, TypeError)
"""What reading or evaluating a damaged curve raises; TypeError is for complex numbers."""


@dataclass(frozen=True)
class ColourPlan:
    """The treatment of an image's values and its profile."""

    treatment: Treatment
    notice: str | None = None
    """Notice for the user where something changes, in one line."""
    through_own: bool = False
    """Whether the conversion uses the file's own profile."""


def plan_colour(space: ColourSpace, icc: bytes | None, *, opens: bool = True) -> ColourPlan:
    """Decide how to treat an image of colour space `space` whose file holds the profile `icc`.

    Args:
        space: colour space of the pixels.
        icc: the file's profile; None where it has none.
        opens: whether a colour engine can use the profile for such an image: only it knows every tag.
    """
    found = profile_space(icc) if icc is not None and opens else None
    if space == "lab":
        return ColourPlan("convert to sRGB", "Lab was converted to sRGB")
    if space == "cmyk":
        own = found == "cmyk"
        through = "its own profile" if own else "a generic CMYK profile, as it has none that can be used"
        return ColourPlan("convert to sRGB", f"CMYK was converted to sRGB through {through}", own)
    if icc is None:
        return ColourPlan("as it is")
    if profile_space(icc) not in (None, space):
        kind = (profile_space(icc) or "").upper()
        return ColourPlan("drop profile", f"the colour profile is for {kind} images and was dropped; {_TREATED}")
    if found is None:
        return ColourPlan("drop profile", f"the colour profile is damaged and was dropped; {_TREATED}")
    hdr = _hdr_notice(icc)
    if hdr is not None:
        return ColourPlan("convert to sRGB", hdr, True)
    if space == "grey" or has_photo_curves(icc):
        return ColourPlan("as it is")
    return ColourPlan(
        "convert to sRGB", f"colours were converted to sRGB: the profile has {_describe_curves(icc)}", True
    )


def profile_space(icc: bytes) -> ColourSpace | None:
    """Return the colour space that a profile is for, or None where it is damaged or not for images."""
    if len(icc) < 132 or icc[36:40] != b"acsp" or int.from_bytes(icc[:4], "big") > len(icc):
        return None
    if icc[12:16] not in _CLASSES:
        return None
    tags = _tags(icc)
    if not tags or any(offset + size > len(icc) for offset, size in tags.values()):
        return None
    return _SIGNATURES.get(icc[16:20])


def has_photo_curves(icc: bytes) -> bool:
    """Return whether every channel's tone curve is one that photos have; False for pure look-up tables."""
    gammas = _gammas(icc)
    return gammas is not None and all(LOWEST_GAMMA <= gamma <= HIGHEST_GAMMA for gamma in gammas)


def is_srgb(icc: bytes) -> bool:
    """Return whether a profile means the same as none: sRGB's primaries and curve, or grey with sRGB's curve."""
    gammas = _gammas(icc)
    if gammas is None or profile_space(icc) not in ("rgb", "grey"):
        return False
    wanted = [math.log(srgb_to_linear(x)) / math.log(x) for x in _PROBES]
    if any(abs(gamma - want) > 0.02 for gamma, want in zip(gammas, wanted * (len(gammas) // 3), strict=True)):
        return False
    if profile_space(icc) == "grey":
        return True
    columns = [_xyz(icc, name) for name in (b"rXYZ", b"gXYZ", b"bXYZ")]
    pairs = zip(columns, SRGB_COLUMNS, strict=True)
    return all(abs(a - b) < 0.003 for got, want in pairs for a, b in zip(got, want, strict=True))


def matrix_model(icc: bytes) -> tuple[list[Curve], list[tuple[float, float, float]]] | None:
    """Return a profile's curves from values to light, and X, Y and Z of each channel at D50; of grey none.

    None where a look-up table counts before them (ICC.1:2022, 8.3.2), or something is damaged.
    """
    curves, tags = _curves(icc), _tags(icc)
    if curves is None or icc[20:24] != b"XYZ " or any(name[:3] in (b"A2B", b"D2B") for name in tags):
        return None
    try:
        columns = [_xyz(icc, name) for name in (b"rXYZ", b"gXYZ", b"bXYZ")] if len(curves) == 3 else []
        return [_read_curve(curve) for curve in curves], columns
    except (KeyError, *CURVE_ERRORS):
        return None


def srgb_to_linear(value: float) -> float:
    """Return the linear value of an sRGB one, both in [0, 1]. Source: IEC 61966-2-1."""
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


def _hdr_notice(icc: bytes) -> str | None:
    """Return the notice of a conversion from HDR, or None where a profile is not for HDR.

    An RGB profile says it in its cicp tag; a grey one has none (ICC.1:2022, 9.2.17), but a curve that clips.
    """
    offset, size = _tags(icc).get(b"cicp", (0, 0))
    cicp = icc[offset : offset + size]
    clips = "; what is brighter than white was clipped" if _clips(icc) else ""
    if len(cicp) >= 10 and cicp[9] in (PQ, HLG):
        transfer = "PQ" if cicp[9] == PQ else "HLG"
        return f"HDR ({transfer}, {primaries_name(cicp[8])}) was converted to sRGB{clips}"
    return f"HDR grey was converted to sRGB{clips}" if clips and icc[16:20] == b"GRAY" else None


def _clips(icc: bytes) -> bool:
    """Return whether the curves of a profile reach white long before their end, as those of HDR do."""
    curves = _curves(icc)
    try:
        return curves is not None and all(_curve_at(curve, _WHITE_OF_HDR) >= 1 for curve in curves)
    except CURVE_ERRORS:
        return False


def _gammas(icc: bytes) -> list[float] | None:
    """Return the exponent of each channel's curve at a quarter, half and three quarters; None without curves."""
    curves = _curves(icc)
    if curves is None:
        return None
    try:
        values = [_curve_at(curve, x) for curve in curves for x in _PROBES]
    except CURVE_ERRORS:
        return None
    return [math.log(y) / math.log(x) if 0 < y < 1 else 0.0 for y, x in zip(values, _PROBES * len(curves), strict=True)]


def _curves(icc: bytes) -> list[bytes] | None:
    """Return the curve tag of each channel, or None where one has none."""
    names = (b"kTRC",) if icc[16:20] == b"GRAY" else (b"rTRC", b"gTRC", b"bTRC")
    tags = _tags(icc)
    if any(name not in tags for name in names):
        return None
    return [icc[tags[name][0] :][: tags[name][1]] for name in names]


def _tags(icc: bytes) -> dict[bytes, tuple[int, int]]:
    """Return the tags of a profile: name -> (offset, size) in bytes."""
    count = int.from_bytes(icc[128:132], "big")
    table = icc[132 : 132 + 12 * count]
    if count > 100 or len(table) < 12 * count:
        return {}
    return {name: (offset, size) for name, offset, size in struct.iter_unpack(">4sII", table)}


def _xyz(icc: bytes, name: bytes) -> tuple[float, float, float]:
    """Return the X, Y and Z of a tag of type XYZType."""
    offset = _tags(icc)[name][0] + 8
    x, y, z = struct.unpack_from(">3i", icc, offset)
    return x / 65536, y / 65536, z / 65536


def _curve_at(curve: bytes, x: float) -> float:
    """Return the value of a curve tag at `x`, both in [0, 1]."""
    return _read_curve(curve)(x)


def _read_curve(curve: bytes) -> Curve:
    """Return a curve tag as a function from [0, 1]; raise one of `CURVE_ERRORS` where it is damaged."""
    if curve[:4] == b"para":
        return partial(_parametric_at, *_parameters(curve))
    if curve[:4] != b"curv":
        raise ValueError("not a curve")
    count = int.from_bytes(curve[8:12], "big")
    if count == 0:
        return float
    values = struct.unpack_from(f">{count}H", curve, 12)
    return partial(_power, values[0] / 256) if count == 1 else partial(_between, values)


def _power(exponent: float, x: float) -> float:
    """Return `x` to the power of `exponent`."""
    return float(x**exponent)


def _between(values: tuple[int, ...], x: float) -> float:
    """Return the value in [0, 1] at `x` of a table of 16-bit numbers, interpolated linearly."""
    position = x * (len(values) - 1)
    below = int(position)
    above = min(below + 1, len(values) - 1)
    return float(values[below] + (values[above] - values[below]) * (position - below)) / 65535


def _parameters(curve: bytes) -> tuple[int, list[float]]:
    """Return the function type and the seven parameters of a parametric curve; those that it lacks are 0."""
    kind = int.from_bytes(curve[8:10], "big")
    count = (1, 3, 4, 5, 7)[kind]
    return kind, [v / 65536 for v in struct.unpack_from(f">{count}i", curve, 12)] + [0.0] * (7 - count)


def _parametric_at(kind: int, parameters: list[float], x: float) -> float:
    """Return the value of a parametric curve at `x`, both in [0, 1]. Source: ICC.1:2022, table 68."""
    g, a, b, c, d, e, f = parameters
    if kind == 0:
        return float(x**g)
    if kind in (1, 2):
        return float((a * x + b) ** g + c) if x >= -b / a else c
    return float((a * x + b) ** g + e) if x >= d else c * x + f


def _describe_curves(icc: bytes) -> str:
    """Return a profile's tone curves in words, for a notice."""
    gammas = _gammas(icc)
    return "a look-up table" if gammas is None else f"tone curves of gamma {min(gammas):.1f} to {max(gammas):.1f}"

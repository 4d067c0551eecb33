"""Tells what the samples of a TIFF page mean by what its directory says, or refuses them by name.

Source: TIFF 6.0, sections 3 to 6 (grey, palette, RGB), 16 (CMYK), 18 (extra samples), 19 (formats), 21 (YCbCr) and 23
(Lab); names of later schemes: libtiff's tiff.h, DNG 1.7, TIFF/EP (ISO 12234-2).
"""

from dataclasses import dataclass
from typing import Literal

from realesr.errors import InputError
from realesr.images.formats.tiff_directory import (
    DNG_VERSION,
    EXTRA_SAMPLES,
    INDEXED,
    INK_NAMES,
    INK_SET,
    NUMBER_OF_INKS,
    PREDICTOR,
    SAMPLE_FORMAT,
    Page,
)

Colours = Literal["grey", "grey from white", "mask", "rgb", "palette", "cmyk", "ycbcr", "cielab", "icclab"]
"""What the colour channels are; "grey from white" has its white at 0, and "mask" tells which pixels belong."""

_COLOURS: dict[int, Colours] = {
    0: "grey from white",
    1: "grey",
    2: "rgb",
    3: "palette",
    4: "mask",
    5: "cmyk",
    6: "ycbcr",
    8: "cielab",
    9: "icclab",
}
_CHANNELS: dict[Colours, int] = {"rgb": 3, "cmyk": 4, "ycbcr": 3, "cielab": 3, "icclab": 3}
_CAMERA_RAW = {32803: "CFA: one colour each pixel", 34892: "linear raw"}
_NOT_READ = {10: "ITU Lab", 32844: "LogL", 32845: "LogLuv", 51177: "a depth map", 52527: "a photometric mask"}

JPEG = 7
_BYTE_CODECS = {1, 5, 8, 32773, 32946}
"""Uncompressed, LZW, Deflate (two numbers) and PackBits: they know bytes, not pixels."""
_PREDICTED = {5, 8, 32946}
_CODECS = {*_BYTE_CODECS, JPEG, 2, 3, 4, 32766, 32771, 32809, 32909, 50001}
"""What libvips' binary package decodes: also CCITT (2, 3, 4, 32771), NeXT, ThunderScan, PixarLog and WebP."""
_SCHEMES = {
    "JPEG of the old style (TIFF 6.0)": (6,),
    "JPEG of some other style": (99, 34892),
    "JBIG": (9, 10, 34661, 34715),
    "JPEG 2000": (33003, 33004, 33005, 34712),
    "JPEG XL": (50002, 52546),
    "JPEG XR": (22610, 34934),
    "LERC": (34887,),
    "LZMA": (34925,),
    "PNG": (34933,),
    "SGI LogLuv": (34676, 34677),
    "WebP": (34927,),
    "Zstandard": (34926, 50000),
    "a camera's raw scheme": (262, 32767, 32769, 32770, 32867, 34713, 65000, 65535),
    "Jetraw": (48124,),
    "Microsoft's document imaging scheme": (34718, 34719, 34720),
}
_FORMAT_WORDS = {(1, 32): "uint", (2, 8): "char", (2, 16): "short", (2, 32): "int", (3, 32): "float", (3, 64): "double"}
_FORMATS = {1: "unsigned", 2: "signed", 3: "float", 5: "complex", 6: "complex"}
_UNSIGNED = {1, 4}


@dataclass(frozen=True)
class Meaning:
    """What a page's samples are."""

    colours: Colours
    channels: int
    """Number of colour channels; they come first."""
    depth: int
    """Bits of each sample that is read, 1 to 16."""
    alpha: int | None = None
    """Index of the sample that is alpha."""
    is_associated: bool = False
    """Whether the colours have been multiplied by alpha."""
    notices: tuple[str, ...] = ()

    @property
    def wanted(self) -> tuple[int, ...]:
        """Return the indices of the samples that are read: colours, then alpha."""
        return (*range(self.channels), *(() if self.alpha is None else (self.alpha,)))


def meaning_of(page: Page) -> Meaning:
    """Return what the samples of a page mean.

    Raises:
        InputError: it does not say, or says what is not read; the message names it.
    """
    if page.width_px < 1 or page.height_px < 1 or not 1 <= page.samples <= 2**16:
        raise InputError(
            f"{page.path} is damaged: it has {page.width_px} x {page.height_px} px of {page.samples} samples; "
            "get a whole copy"
        )
    colours = _colours(page)
    _check_codec(page, colours)
    channels = _CHANNELS.get(colours, 1)
    if colours in ("cielab", "icclab") and page.samples == 1:
        channels = 1  # section 23: lightness alone
    if page.samples < channels:
        raise InputError(
            f"{page.path} says that it is {colours.upper()}, but has {page.samples} channel"
            f"{'s' * (page.samples > 1)}, expected at least {channels}; save it anew as RGB"
        )
    alpha, is_associated, notices = _extras(page, channels)
    if colours == "mask":
        notices = (*notices, "the page is a transparency mask, and was read as grey")
    read = (*range(channels), *(() if alpha is None else (alpha,)))
    return Meaning(colours, channels, _depth(page, colours, read), alpha, is_associated, notices)


def _colours(page: Page) -> Colours:
    """Return what the colour channels are; raise InputError where that is not known or not read."""
    photometric = page.photometric
    if photometric in _CAMERA_RAW:
        raise InputError(
            f"{page.path} is a camera's raw file ({_CAMERA_RAW[photometric]}): develop it to TIFF or JPEG first"
        )
    if photometric is None:
        raise InputError(
            f"{page.path} does not say what its samples mean (no PhotometricInterpretation); save it as RGB or grey"
        )
    if photometric not in _COLOURS:
        name = _NOT_READ.get(photometric, f"of PhotometricInterpretation {photometric}")
        raise InputError(f"{page.path} is {name}, which is not read: save it as RGB or grey first")
    colours = _COLOURS[photometric]
    if page.integer(INDEXED, 0) == 1 and colours != "palette":
        raise InputError(f"{page.path} has a palette of {colours.upper()}, which is not read: save it as RGB first")
    if colours == "cmyk":
        _check_inks(page)
    return colours


def _check_inks(page: Page) -> None:
    """Raise InputError where the separated inks are not cyan, magenta, yellow and black. Source: section 16."""
    stored = page.metadata(INK_NAMES) or b""
    names = [name.decode("utf-8", "replace").strip() for name in stored.split(b"\0") if name.strip()]
    count = page.integer(NUMBER_OF_INKS, 4)
    is_cmyk = page.integer(INK_SET, 1) == 1 or [name.lower()[:1] for name in names] in (list("cmyk"), list("cmyb"))
    if is_cmyk and count == 4 and page.samples >= 4:
        return
    listed = f" ({', '.join(names[:16])})" if names else ""
    inks = count if page.samples >= count else page.samples
    raise InputError(
        f"{page.path} is separated into {inks} inks{listed} other than CMYK's four, which is not read: "
        "convert it to CMYK or RGB first"
    )


def _check_codec(page: Page, colours: Colours) -> None:
    """Raise InputError where the page is compressed in a way that is not decoded."""
    names = [name for name, numbers in _SCHEMES.items() if page.compression in numbers]
    name = (*names, f"scheme {page.compression}")[0]
    if page.compression not in _CODECS:
        if DNG_VERSION in page.fields:
            raise InputError(f"{page.path} is a camera's raw file ({name}): develop it to TIFF or JPEG first")
        raise InputError(f"{page.path} is compressed with {name}, which is not read: save it with LZW or Deflate")
    if page.compression == JPEG and set(page.depths) != {8}:
        raise InputError(
            f"{page.path} is compressed with JPEG of {page.depths[0]} bit, which is not read: "
            "save it with LZW or Deflate"
        )
    if page.compression == JPEG and colours == "ycbcr" and not page.is_planar and page.samples != 3:
        raise InputError(
            f"{page.path} is compressed with JPEG in {page.samples} channels of YCbCr, which is not read: "
            "save it with LZW or Deflate"
        )
    predictor = page.integer(PREDICTOR, 1) if page.compression in _PREDICTED else 1
    whole_bytes = set(page.depths) in ({8}, {16})
    if predictor != 1 and not (predictor == 2 and whole_bytes) and not _is_float(page):
        raise InputError(
            f"{page.path} is compressed with predictor {predictor} of {page.depths[0]}-bit samples, which is not read: "
            "save it without a predictor"
        )


def _is_float(page: Page) -> bool:
    """Return whether the page's samples are floating-point numbers, which are refused for themselves."""
    return 3 in page.integers(SAMPLE_FORMAT, 1)


def is_packed(page: Page) -> bool:
    """Return whether samples share bytes in a way that libvips does not unpack."""
    depth = page.depths[0]
    alone = page.samples == 1 or page.is_planar
    return not (depth in (8, 16) or (alone and depth in (1, 2, 4)))


def _depth(page: Page, colours: Colours, read: tuple[int, ...]) -> int:
    """Return the bits of the samples that are read.

    Raises:
        InputError: they differ, or the samples are no whole numbers of 1 to 16 bit without a sign.
    """
    if len(page.depths) < page.samples:
        raise InputError(f"{page.path} states {len(page.depths)} depths for {page.samples} channels; save it anew")
    depth = page.depths[0]
    formats = page.integers(SAMPLE_FORMAT, 1)
    formats = formats * page.samples if len(formats) == 1 else formats[: page.samples]
    # Lab's a and b have a sign by their definition, whether or not the field says so.
    signs = [formats[i] for i in read if i < len(formats) and not (colours in ("cielab", "icclab") and i < 3)]
    odd = [kind for kind in signs if kind not in _UNSIGNED] or [1]
    if odd[0] not in _UNSIGNED or depth == 32:
        word = _FORMAT_WORDS.get((odd[0], depth)) or f"{depth}-bit {_FORMATS.get(odd[0], f'format {odd[0]}')}"
        word = "complex" if odd[0] in (5, 6) else word
        raise InputError(
            f"{page.path} has {word} pixels, whose range cannot be known, expected whole numbers of 8 or 16 bit; "
            "save it as a 16-bit TIFF first"
        )
    if len(set(page.depths)) > 1:
        listed = ", ".join(map(str, page.depths[:8]))
        raise InputError(
            f"{page.path} has channels of {listed} bit, expected one depth; save it as a 16-bit TIFF first"
        )
    if not 1 <= depth <= 16 or (colours in ("cielab", "icclab") and depth not in (8, 16)):
        raise InputError(f"{page.path} has {depth}-bit samples, expected 8 or 16; save it as a 16-bit TIFF first")
    if is_packed(page) and page.compression not in _BYTE_CODECS:
        raise InputError(
            f"{page.path} has {depth}-bit samples compressed with scheme {page.compression}, which is not read: "
            "save it as an 8-bit or 16-bit TIFF with LZW or Deflate"
        )
    return depth


def _extras(page: Page, channels: int) -> tuple[int | None, bool, tuple[str, ...]]:
    """Return the index of the alpha sample, whether it is associated, and a notice of what is left out.

    Only a sample that ExtraSamples calls alpha is alpha: 1 associated, 2 unassociated. Source: section 18.
    """
    extra = page.samples - channels
    stated = page.integers(EXTRA_SAMPLES)[:extra]
    found = [index for index, kind in enumerate(stated) if kind in (1, 2)]
    alpha = found[0] if found else None
    left_out = extra - (alpha is not None)
    is_one = left_out == 1
    dropped = f"{left_out} channel{'' if is_one else 's'} beyond colour"
    notices: tuple[str, ...] = ()
    if left_out and alpha is not None:
        notices = (f"{dropped} and alpha dropped",)
    elif left_out and stated:
        notices = (f"{dropped} dropped: the file does not call {'it' if is_one else 'any of them'} alpha",)
    elif left_out:
        notices = (f"{dropped} dropped: the file does not say what {'it is' if is_one else 'they are'}",)
    return (None if alpha is None else channels + alpha), alpha is not None and stated[alpha] == 1, notices

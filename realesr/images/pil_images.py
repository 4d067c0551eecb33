"""Tells what the values of a PIL image mean, as the formats' openers do for files, so that both give the same pixels.

What Pillow does not hand on cannot be kept: 16 bit of colour images, which it opens as 8 bit, and colours that a file
states without a profile, but for PNG's gAMA and cHRM.
"""

import struct
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from realesr.errors import InputError
from realesr.images.colour import ColourSpace
from realesr.images.decoded import Decoded, image_from_array, turned_resolution
from realesr.images.formats.grey_palette import can_be_grey, grey_profile_of, is_grey_table
from realesr.images.formats.png_colour import gamma_colour
from realesr.images.metadata.exif import ORIENTATION, orientation
from realesr.images.metadata.exif_block import FIRST, ExifBlock

if TYPE_CHECKING:
    from PIL import Image

_EXIF_MARK = b"Exif\0\0"
_CONVERTED = {"La": "LA", "RGBa": "RGBA", "RGBX": "RGB", "YCbCr": "RGB", "HSV": "RGB"}
"""PIL mode that is another form of grey or RGB -> mode that such an image is converted to first."""


def decoded_from_pil(image: "Image.Image") -> Decoded:
    """Return the pixels of a PIL image, upright, with what it says about them.

    Raises:
        InputError: it cannot be read, or its mode is not a picture's (32-bit integers or floats).
    """
    try:
        image.load()  # EXIF of PNG may stand behind the pixels; TIFF is turned upright here
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise InputError(f"got a PIL image that cannot be read ({error})") from error
    exif = _exif(image)
    turn = orientation(exif) if exif else 1
    values, space = _values(image)
    icc = _profile(image, space)
    if image.mode in ("P", "PA") and _is_grey_palette(image) and can_be_grey(icc):
        values, space, icc = values[:, :, [0, *range(3, values.shape[2])]], "grey", grey_profile_of(icc)
    colours = {"grey": 1, "rgb": 3, "cmyk": 4, "lab": 3}[space]
    xmp = image.info.get("xmp")
    decoded = image_from_array(_turned(values, turn), is_lab=space == "lab")
    return Decoded(
        image=decoded.copy(interpretation="cmyk") if space == "cmyk" else decoded,
        space=space,
        has_alpha=values.shape[2] > colours,
        bits=16 if values.dtype == np.uint16 else 8,
        icc=icc,
        exif=exif,
        xmp=xmp.encode() if isinstance(xmp, str) else xmp,
        pixels_per_mm=turned_resolution(_resolution(image), turn),
        was_turned=turn > 1,
    )


def _values(image: "Image.Image") -> tuple[NDArray[Any], ColourSpace]:
    """Return the values of an image, (H, W, C), alpha last, and the space of the others."""
    mode = image.mode
    if mode.startswith("I;16") or mode == "I":
        return _with_transparency(_16_bit(image), image), "grey"
    if mode in ("P", "PA"):
        return np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB")), "rgb"
    if mode == "CMYK":
        return np.asarray(image), "cmyk"
    if mode == "LAB":
        return _labs(np.asarray(image)), "lab"
    if mode == "1":
        return _with_transparency(np.asarray(image.convert("L"))[:, :, None], image), "grey"
    if mode in _CONVERTED:
        image = image.convert(_CONVERTED[mode])
    if image.mode not in ("L", "LA", "RGB", "RGBA"):
        raise InputError(
            f"got a PIL image of mode {mode}, expected grey, RGB, CMYK or a palette, with or without alpha"
        )
    values = np.atleast_3d(np.asarray(image))
    return _with_transparency(values, image), "grey" if values.shape[2] < 3 else "rgb"


def _16_bit(image: "Image.Image") -> NDArray[np.uint16]:
    """Return the values (H, W, 1) of a grey image of 16 bit, which Pillow also keeps as integers of 32 bit."""
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise InputError(
            f"got a PIL image of mode {image.mode} with values from {values.min()} to {values.max()}, "
            "expected 0 to 65535"
        )
    return values[:, :, None].astype(np.uint16)


def _with_transparency(values: NDArray[Any], image: "Image.Image") -> NDArray[Any]:
    """Return the values with alpha, 0 where the colour is the one that the image says is transparent."""
    transparent = image.info.get("transparency")
    if transparent is None or values.shape[2] not in (1, 3):
        return values
    if isinstance(transparent, bytes) or np.size(transparent) != values.shape[2]:
        return values  # of another mode, which the image had before
    wanted = np.reshape(np.asarray(transparent, np.int64), -1)
    if values.dtype == np.uint8 and wanted.max() > 255:  # of a file of 16 bit, whose high bytes Pillow keeps
        wanted >>= 8
    is_hole = (values == wanted).all(axis=2, keepdims=True)
    return np.concatenate((values, np.where(is_hole, 0, np.iinfo(values.dtype).max).astype(values.dtype)), axis=2)


def _labs(values: NDArray[np.uint8]) -> NDArray[np.int16]:
    """Return PIL's 8 bits of L*, a*, b*, of which a* and b* are signed, in libvips' 16-bit form.

    There L* of 100 is 32767, and a* and b* are multiplied by 256.
    """
    lightness = np.rint(values[:, :, :1] * (32767 / 255)).astype(np.int16)
    return np.concatenate((lightness, values[:, :, 1:].astype(np.int8).astype(np.int16) * 256), axis=2)


def _is_grey_palette(image: "Image.Image") -> bool:
    """Return whether a palette has greys alone."""
    palette = image.getpalette("RGB")
    return palette is not None and is_grey_table(bytes(palette))


def _profile(image: "Image.Image", space: ColourSpace) -> bytes | None:
    """Return the profile that an image has, or that its gamma and primaries make; None for sRGB."""
    icc = image.info.get("icc_profile")
    if icc or "srgb" in image.info:
        return icc or None
    gamma, chromaticity = image.info.get("gamma"), image.info.get("chromaticity")
    if image.format != "PNG" or (gamma is None and chromaticity is None):
        return None
    is_grey = space == "grey" or (image.mode in ("P", "PA") and _is_grey_palette(image))
    try:
        gama = None if gamma is None else struct.pack(">I", round(gamma * 100_000))
        chrm = None if chromaticity is None else struct.pack(">8I", *(round(c * 100_000) for c in chromaticity))
    except (struct.error, TypeError, ValueError):
        return None
    return gamma_colour(gama, chrm, [], is_grey=is_grey)


def _exif(image: "Image.Image") -> bytes | None:
    """Return an image's EXIF block from its TIFF header on; None where there is none that can be read."""
    exif = image.info.get("exif")
    if isinstance(exif, bytes):
        return exif.removeprefix(_EXIF_MARK) or None
    try:
        fields = image.getexif()
        exif = fields.tobytes().removeprefix(_EXIF_MARK) if fields else None
    except (ValueError, TypeError, LookupError, AttributeError, SyntaxError, OSError, struct.error):
        return None
    # Pillow takes an orientation from XMP where there is no other; files are not turned by that.
    return without_orientation(exif) if exif and "xmp" in image.info else exif


def without_orientation(exif: bytes) -> bytes | None:
    """Return the EXIF block without its orientation, which Pillow takes as one still to be applied; None if damaged."""
    try:
        block = ExifBlock(exif)
    except ValueError:
        return None
    block.remove(FIRST, lambda entry: entry.tag == ORIENTATION)
    return block.finished()


def _turned(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return the values turned upright. Source: CIPA DC-008 (Exif 3.0), 4.6.5.1 (Orientation)."""
    if orientation > 4:
        values = values.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    return values


def _resolution(image: "Image.Image") -> tuple[float, float] | None:
    """Return pixels per mm across and down, where the image states dots per inch."""
    try:
        across, down = (float(number) / 25.4 for number in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return (across, down) if across > 0 and down > 0 else None

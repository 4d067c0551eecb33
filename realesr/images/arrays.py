"""Converts PIL images and numpy arrays of the Python API to planes and back."""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from realesr.errors import InputError
from realesr.images.info import ImageInfo

if TYPE_CHECKING:
    from PIL import Image

LEVELS = {"uint8": 255, "uint16": 65535}
"""Largest level of each integer type; floats are in [0, 1]."""

PIL_MODES = {
    "1": "L",
    "P": "RGB",
    "PA": "RGBA",
    "La": "LA",
    "RGBa": "RGBA",
    "RGBX": "RGB",
    "YCbCr": "RGB",
    "HSV": "RGB",
    "LAB": "RGB",
}
"""PIL mode that is neither plain grey nor RGB -> mode that such an image is converted to first."""

Planes = NDArray[np.float32]
"""(channels, height, width) in [0, 1]."""


def planes_from_array(array: NDArray[Any]) -> tuple[Planes, ImageInfo]:
    """Convert an array to planes of float32.

    Args:
        array: (height, width) or (height, width, channels) with 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha)
            channels; uint8, uint16, or floats in [0, 1].

    Returns:
        The planes, (channels, height, width) float32 in [0, 1], and the facts about the image.

    Raises:
        InputError: the array has another shape or type, no pixels, or values that are not finite.
    """
    stacked = array[:, :, None] if array.ndim == 2 else array
    if stacked.ndim != 3 or not 1 <= stacked.shape[2] <= 4 or 0 in stacked.shape:
        raise InputError(f"got an array of shape {array.shape}, expected (height, width) or (height, width, 1 to 4)")
    if array.dtype.name not in LEVELS and array.dtype.kind != "f":
        raise InputError(f"got an array of {array.dtype}, expected uint8, uint16, or floats in [0, 1]")
    planes = np.ascontiguousarray(stacked.transpose(2, 0, 1), np.float32)
    if array.dtype.kind == "f" and not np.isfinite(planes).all():
        raise InputError("got an array with values that are not finite, expected floats in [0, 1]")
    channels, height, width = planes.shape
    bits: Literal[8, 16] = 8 if array.dtype == np.uint8 else 16
    info = ImageInfo(
        width_px=width,
        height_px=height,
        bits=bits,
        is_grey=channels <= 2,
        has_alpha=channels in (2, 4),
        format="array",
    )
    return planes / np.float32(LEVELS.get(array.dtype.name, 1)), info


def array_from_planes(planes: Planes, like: NDArray[Any]) -> NDArray[Any]:
    """Convert planes to an array with the axes and the float type of `like`, clamped to [0, 1]."""
    array = np.ascontiguousarray(np.clip(planes, 0, 1).transpose(1, 2, 0), like.dtype)
    return array[:, :, 0] if like.ndim == 2 else array


def array_from_pil(image: "Image.Image") -> NDArray[Any]:
    """Convert a PIL image to (height, width[, channels]) uint8 or uint16, upright; palettes become RGB, 1-bit grey.

    Raises:
        InputError: the mode is not a picture's (32-bit integers or floats).
    """
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    if image.mode == "CMYK":
        image = _srgb_from_cmyk(image)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode in PIL_MODES:
        image = image.convert(PIL_MODES[image.mode])
    if image.mode not in ("L", "LA", "RGB", "RGBA"):
        raise InputError(
            f"got a PIL image of mode {image.mode}, expected grey, RGB, CMYK or a palette, with or without alpha"
        )
    return np.asarray(image)


def pil_from_array(array: NDArray[Any], like: "Image.Image") -> "Image.Image":
    """Convert pixels to a PIL image, with the profile, resolution and EXIF of `like` that still hold."""
    from PIL import Image

    image = Image.fromarray(array)
    if like.mode != "CMYK" and "icc_profile" in like.info:
        image.info["icc_profile"] = like.info["icc_profile"]
    if "dpi" in like.info:
        image.info["dpi"] = like.info["dpi"]
    exif = like.getexif()
    if exif:
        exif.pop(0x0112, None)  # orientation: applied
        image.info["exif"] = exif.tobytes()
    return image


def _srgb_from_cmyk(image: "Image.Image") -> "Image.Image":
    """Convert a CMYK image to sRGB, through its own profile where it has one."""
    profile = image.info.get("icc_profile")
    if not profile:
        return image.convert("RGB")
    import io

    from PIL import ImageCms

    converted = ImageCms.profileToProfile(image, io.BytesIO(profile), ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert converted is not None
    return converted

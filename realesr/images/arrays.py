"""Converts PIL images and numpy arrays of the Python API to planes and back."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from realesr.errors import InputError
from realesr.images.colour_conversion import in_network_colours
from realesr.images.info import ImageInfo
from realesr.images.libvips import own_messages, pyvips, vips_message
from realesr.images.metadata.exif import with_resolution
from realesr.images.metadata.exif_correction import exif_enlarged
from realesr.images.metadata.xmp import xmp_resized
from realesr.images.pil_images import decoded_from_pil, without_orientation

if TYPE_CHECKING:
    from PIL import Image

LEVELS = {"uint8": 255, "uint16": 65535}
"""Largest level of each integer type; floats are in [0, 1]."""

_ROUNDING = 1e-3
"""How far floats may lie outside [0, 1]: what rounding leaves, a quarter of a level of 8 bit. They are clamped."""

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
        InputError: the array has another shape or type, no pixels, or floats that are not finite or outside [0, 1].
    """
    stacked = array[:, :, None] if array.ndim == 2 else array
    if stacked.ndim != 3 or not 1 <= stacked.shape[2] <= 4 or 0 in stacked.shape:
        raise InputError(f"got an array of shape {array.shape}, expected (height, width) or (height, width, 1 to 4)")
    if array.dtype.name not in LEVELS and array.dtype.kind != "f":
        raise InputError(f"got an array of {array.dtype}, expected uint8, uint16, or floats in [0, 1]")
    if array.dtype.kind == "f":
        _check_range(stacked)
    planes = np.ascontiguousarray(stacked.transpose(2, 0, 1), np.float32)
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
    if array.dtype.kind == "f":
        return np.clip(planes, 0, 1), info
    return planes / np.float32(LEVELS[array.dtype.name]), info


def _check_range(floats: NDArray[Any]) -> None:
    """Raise InputError where floats are not finite, or outside [0, 1] by more than rounding."""
    low, high = float(floats.min()), float(floats.max())
    if not np.isfinite(low) or not np.isfinite(high):
        raise InputError("got an array with values that are not finite, expected floats in [0, 1]")
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        raise InputError(
            f"got floats from {low:g} to {high:g}, expected [0, 1]: scale them to that, or clip what lies outside"
        )


def array_from_planes(planes: Planes, like: NDArray[Any]) -> NDArray[Any]:
    """Convert planes to an array with the axes and the float type of `like`, clamped to [0, 1]."""
    array = np.ascontiguousarray(np.clip(planes, 0, 1).transpose(1, 2, 0), like.dtype)
    return array[:, :, 0] if like.ndim == 2 else array


def pixels_from_pil(image: "Image.Image") -> tuple[NDArray[Any], ImageInfo]:
    """Convert a PIL image to the pixels that the same image has as a file: upright, in colours for the network.

    Palettes become RGB, or grey where all their entries are grey; 1 bit becomes grey; a transparent colour becomes an
    alpha channel; CMYK, Lab, and profiles that are unlike a photo's are converted to sRGB.

    Returns:
        (height, width[, channels]) uint8 or uint16, and the facts about them: `icc` is the profile of these pixels.

    Raises:
        InputError: it is no PIL image, cannot be read, or its mode is not a picture's (32-bit integers or floats).
    """
    _check_is_pil(image)
    decoded = decoded_from_pil(image)
    try:
        with own_messages():
            network = in_network_colours(decoded, "png")
            array = network.image.numpy()
    except pyvips.Error as error:
        raise InputError(f"got a PIL image whose colours cannot be converted ({vips_message(error)})") from error
    array = np.asarray(array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array)
    return array, replace(network.info, format="array")


def _check_is_pil(image: object) -> None:
    """Raise InputError where `image` is no PIL image."""
    from PIL import Image

    if isinstance(image, str | Path):
        raise InputError(
            f"got the path {str(image)!r}, expected a PIL image or a numpy array: open it with PIL.Image.open, "
            "or enlarge it with upscale_file"
        )
    if not isinstance(image, Image.Image):
        raise InputError(
            f"got a {type(image).__name__}, expected a PIL image or a numpy array: numpy.asarray makes one of lists"
        )


def pil_from_array(
    array: NDArray[Any], info: ImageInfo, pixels_per_mm: tuple[float, float] | None = None
) -> "Image.Image":
    """Convert enlarged pixels to a PIL image, with the profile, resolution, EXIF and XMP that still hold.

    Grey of 16 bit with alpha, which PIL does not have, becomes 8 bit.

    Args:
        array: (height, width[, channels]) uint8 or uint16, as they came out of the network.
        info: facts about the pixels that went in.
        pixels_per_mm: resolution across and down that the image shall state; None keeps the old one.
    """
    from PIL import Image

    if array.dtype == np.uint16 and array.ndim == 3:
        array = ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    image = Image.fromarray(array)
    if info.icc is not None:
        image.info["icc_profile"] = info.icc
    resolution = pixels_per_mm or info.pixels_per_mm
    if resolution is not None:
        image.info["dpi"] = tuple(round(number * 25.4, 4) for number in resolution)
    old = info.width_px, info.height_px
    exif = exif_enlarged(info.exif, old, image.size)[0] if info.exif else None
    if exif and pixels_per_mm:
        exif = with_resolution(exif, pixels_per_mm)
    if exif and (exif := without_orientation(exif)):
        image.info["exif"] = b"Exif\0\0" + exif
    is_new = pixels_per_mm is not None
    xmp = xmp_resized(info.xmp, old, image.size, has_new_resolution=is_new)[0] if info.xmp else None
    if xmp:
        image.info["xmp"] = xmp
    return image

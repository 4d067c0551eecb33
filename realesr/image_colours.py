"""From the file's colours to those that a network is given, as `colour.py` decides."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from realesr.colour import ColourSpace, plan_colour
from realesr.errors import InputError
from realesr.exif import upright
from realesr.image_decoding import Decoded
from realesr.image_info import ImageInfo
from realesr.image_library import pyvips, srgb_profile
from realesr.metadata import xmp_upright

_COLOUR_CHANNELS: dict[ColourSpace, int] = {"grey": 1, "rgb": 3, "cmyk": 4, "lab": 3}


@dataclass(frozen=True, kw_only=True)
class NetworkImage:
    """An image whose rows may be given to a network."""

    image: Any
    """A pyvips image that has not been read yet: uchar or ushort; grey or RGB, then alpha."""
    info: ImageInfo
    notices: tuple[str, ...]


def in_network_colours(path: Path, decoded: Decoded) -> NetworkImage:
    """Convert the image, or drop its profile, or keep both, and settle the facts.

    Raises:
        InputError: the pixels are not whole numbers of 8 or 16 bit.
    """
    space = _space_of(decoded.image)
    bits = _bits_of(path, decoded.image, space)
    plan = plan_colour(space, decoded.icc, opens=decoded.icc is not None and _opens(decoded.icc, space))
    colour = decoded.image.extract_band(0, n=_COLOUR_CHANNELS[space])
    alpha, notices = _alpha_of(decoded.image, space)
    icc = decoded.icc if plan.treatment == "as it is" else None
    if plan.treatment == "convert to sRGB":
        colour = _to_srgb(colour, space, decoded.icc if plan.through_own else None, bits)
        icc = srgb_profile()
    exif = upright(decoded.exif) if decoded.exif else None
    if decoded.exif and exif is None:
        notices.append("the EXIF block is damaged and was dropped")
    image = colour if alpha is None else colour.bandjoin(alpha)
    info = ImageInfo(
        width_px=image.width,
        height_px=image.height,
        bits=bits,
        is_grey=space == "grey",
        has_alpha=alpha is not None,
        format=decoded.kind,
        icc=icc,
        exif=exif,
        xmp=xmp_upright(decoded.xmp) if decoded.xmp else None,
        pixels_per_mm=decoded.pixels_per_mm,
    )
    image = image.cast("uchar" if bits == 8 else "ushort")
    return NetworkImage(image=image, info=info, notices=(*([plan.notice] if plan.notice else []), *notices))


def _space_of(image: Any) -> ColourSpace:
    if image.interpretation == "cmyk":
        return "cmyk"
    if image.interpretation in ("lab", "labs"):
        return "lab"
    return "grey" if image.bands < 3 else "rgb"


def _bits_of(path: Path, image: Any, space: ColourSpace) -> Literal[8, 16]:
    """Depth by the type of the file's pixels; libvips holds Lab of either depth as signed `short`."""
    if space == "lab" and image.format == "short":
        return 8 if image.get("bits-per-sample") == 8 else 16
    if image.format == "uchar":
        return 8
    if image.format == "ushort":
        return 16
    raise InputError(
        f"{path} has {image.format} pixels, whose range cannot be known, expected whole numbers of 8 or 16 bit; "
        "save it as a 16-bit TIFF first"
    )


def _alpha_of(image: Any, space: ColourSpace) -> tuple[Any | None, list[str]]:
    """The channel behind the colours, if any, and a notice about channels that are left out."""
    first = _COLOUR_CHANNELS[space]
    others = image.bands - first
    if others > 0 and space == "lab":
        return None, ["Lab's alpha channel was dropped"]
    if others > 1:
        return image[first], [f"{others - 1} channel{'s' * (others > 2)} beyond colour and alpha dropped"]
    return (image[first], []) if others else (None, [])


def _opens(icc: bytes, space: ColourSpace) -> bool:
    """Whether the colour engine can use a profile. Asked of Pillow: libvips takes another one without a word."""
    from PIL import ImageCms

    mode = {"grey": "L", "rgb": "RGB", "cmyk": "CMYK", "lab": "LAB"}[space]
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (OSError, ValueError, ImageCms.PyCMSError):
        return False
    return True


def _to_srgb(colour: Any, space: ColourSpace, icc: bytes | None, bits: int) -> Any:
    """sRGB in the depth `bits`, relative colorimetric."""
    if space == "lab":
        return colour.icc_export(output_profile="srgb", intent="relative", depth=bits)
    options = {"intent": "relative", "depth": bits, "black_point_compensation": space == "cmyk"}
    colour = colour.copy()
    if icc is None:
        colour.remove("icc-profile-data")
        return colour.icc_transform("srgb", input_profile="cmyk", **options)
    colour.set_type(pyvips.GValue.blob_type, "icc-profile-data", icc)
    return colour.icc_transform("srgb", embedded=True, **options)

"""Converts a file's colours to those that a network can process, as `colour.py` decides."""

import io
from dataclasses import dataclass
from typing import Any

from realesr.images.colour import ColourSpace, plan_colour
from realesr.images.decoded import COLOUR_CHANNELS, Decoded
from realesr.images.exif import upright
from realesr.images.info import ImageInfo
from realesr.images.kinds import ImageKind
from realesr.images.libvips import pyvips, srgb_profile
from realesr.images.xmp import xmp_upright


@dataclass(frozen=True, kw_only=True)
class NetworkImage:
    """An image in colours that a network can process."""

    image: Any
    """A pyvips image that has not been read yet: uchar or ushort; grey or RGB, then alpha."""
    info: ImageInfo
    notices: tuple[str, ...]
    """Notices for the user, one line each."""


def in_network_colours(decoded: Decoded, kind: ImageKind) -> NetworkImage:
    """Return the decoded image in colours for the network: converted, without its profile, or as it is."""
    space, bits = decoded.space, decoded.bits
    plan = plan_colour(space, decoded.icc, opens=decoded.icc is not None and _opens(decoded.icc, space))
    channels = COLOUR_CHANNELS[space]
    colour = decoded.image.extract_band(0, n=channels)
    notices = [plan.notice] if plan.notice else []
    icc = decoded.icc if plan.treatment == "as it is" else None
    if plan.treatment == "convert to sRGB":
        colour = _to_srgb(colour, space, decoded.icc if plan.through_own else None, bits)
        icc = srgb_profile()
    exif = upright(decoded.exif) if decoded.exif else None
    if decoded.exif and exif is None:
        notices.append("the EXIF block is damaged and was dropped")
    image = colour.bandjoin(decoded.image[channels]) if decoded.has_alpha else colour
    info = ImageInfo(
        width_px=image.width,
        height_px=image.height,
        bits=bits,
        is_grey=space == "grey",
        has_alpha=decoded.has_alpha,
        format=kind,
        icc=icc,
        exif=exif,
        xmp=xmp_upright(decoded.xmp) if decoded.xmp and decoded.was_turned else decoded.xmp,
        pixels_per_mm=decoded.pixels_per_mm,
    )
    image = image.cast("uchar" if bits == 8 else "ushort")
    return NetworkImage(image=image, info=info, notices=(*decoded.notices, *notices))


def _opens(icc: bytes, space: ColourSpace) -> bool:
    """Return whether the colour engine can use a profile. Pillow tests it: libvips silently uses another one."""
    from PIL import ImageCms

    mode = {"grey": "L", "rgb": "RGB", "cmyk": "CMYK", "lab": "LAB"}[space]
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (OSError, ValueError, ImageCms.PyCMSError):
        return False
    return True


def _to_srgb(colour: Any, space: ColourSpace, icc: bytes | None, bits: int) -> Any:
    """Convert colour to sRGB of `bits` bit, relative colorimetric; through the profile `icc`, else a generic one."""
    if space == "lab":
        return colour.icc_export(output_profile="srgb", intent="relative", depth=bits)
    options = {"intent": "relative", "depth": bits, "black_point_compensation": space == "cmyk"}
    colour = colour.copy()
    if icc is None:
        colour.remove("icc-profile-data")
        return colour.icc_transform("srgb", input_profile="cmyk", **options)
    colour.set_type(pyvips.GValue.blob_type, "icc-profile-data", icc)
    return colour.icc_transform("srgb", embedded=True, **options)

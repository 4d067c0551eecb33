"""Converts a file's colours to those that a network can process, as `colour.py` decides."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realesr.images.colour import CURVE_ERRORS, SRGB_COLUMNS, ColourSpace, Curve, matrix_model, plan_colour
from realesr.images.decoded import COLOUR_CHANNELS, Decoded
from realesr.images.info import ImageInfo
from realesr.images.kinds import ImageKind
from realesr.images.libvips import pyvips, srgb_profile
from realesr.images.metadata.exif import orientation, upright
from realesr.images.metadata.xmp import xmp_upright


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
    colour = decoded.image if decoded.image.bands == channels else decoded.image.extract_band(0, n=channels)
    notices = [plan.notice] if plan.notice else []
    icc = decoded.icc if plan.treatment == "as it is" else None
    if plan.treatment == "convert to sRGB":
        colour = to_srgb(colour, space, decoded.icc if plan.through_own else None, bits)
        icc = srgb_profile() if space != "grey" else None  # sRGB's curve is what grey without a profile has
    exif = upright(decoded.exif) if decoded.exif else None
    xmp = decoded.xmp
    if xmp is not None and decoded.was_turned:
        xmp = xmp_upright(xmp, orientation(decoded.exif) if decoded.exif else None)
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
        xmp=xmp,
        pixels_per_mm=decoded.pixels_per_mm,
    )
    form = "uchar" if bits == 8 else "ushort"
    image = image if image.format == form else image.cast(form)
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


def to_srgb(colour: Any, space: ColourSpace, icc: bytes | None, bits: int) -> Any:
    """Convert colour to sRGB of `bits` bit, relative colorimetric; through the profile `icc`, else a generic one.

    Grey comes out as one channel, with sRGB's curve. Profiles of a matrix and curves are computed here: LittleCMS puts
    16 bit through a coarse table of three dimensions, up to 38 levels of 255 off where the curves of HDR have a corner.
    """
    if space == "lab":
        return colour.icc_export(output_profile="srgb", intent="relative", depth=bits)
    options = {"intent": "relative", "depth": bits, "black_point_compensation": space == "cmyk"}
    computed = _through_model(colour, icc, bits) if icc is not None and space in ("rgb", "grey") else None
    if computed is not None:
        return computed
    colour = colour.copy()
    if icc is None:
        colour.remove("icc-profile-data")
        return colour.icc_transform("srgb", input_profile="cmyk", **options)
    colour.set_type(pyvips.GValue.blob_type, "icc-profile-data", icc)
    converted = colour.icc_transform("srgb", embedded=True, **options)
    return converted[0] if space == "grey" else converted


def _through_model(colour: Any, icc: bytes, bits: int) -> Any:
    """Convert colour to sRGB of `bits` bit through a profile's curves and matrix; grey through its curve only.

    Returns:
        None where the profile has no such model, or a damaged one.
    """
    model = matrix_model(icc)
    if model is None:
        return None
    curves, columns = model
    top = 2**bits - 1
    try:
        bands = [colour[index].maplut(_light_table(curve, top)) for index, curve in enumerate(curves)]
        to_srgb = np.linalg.inv(np.array(SRGB_COLUMNS).T) @ np.array(columns).T if columns else None
    except CURVE_ERRORS:
        return None
    light = bands[0].bandjoin(bands[1:]) if len(bands) > 1 else bands[0]
    if to_srgb is not None:
        light = light.recomb(_white_kept(to_srgb).tolist())
    signal = (_srgb_signal(light) * top).rint()
    grey, rgb = ("b-w", "srgb") if bits == 8 else ("grey16", "rgb16")
    return signal.cast("uchar" if bits == 8 else "ushort").copy(interpretation=rgb if columns else grey)


def _light_table(curve: Curve, top: int) -> Any:
    """Return the light of each value up to `top` as a pyvips image for `maplut`."""
    light = np.array([curve(value / top) for value in range(top + 1)], np.float32)
    return pyvips.Image.new_from_memory(light, top + 1, 1, 1, "float")


def _white_kept(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the matrix with rows that sum up to 1 where only rounding in the profile keeps white from being white."""
    sums = matrix.sum(axis=1, keepdims=True)
    return matrix / sums if np.abs(sums - 1).max() < 0.003 else matrix


def _srgb_signal(light: Any) -> Any:
    """Return the sRGB values in [0, 1] of light, which is clipped to [0, 1]. Source: IEC 61966-2-1."""
    light = (light < 0).ifthenelse(0, light)
    light = (light > 1).ifthenelse(1, light)
    return (light <= 0.0031308).ifthenelse(light * 12.92, light ** (1 / 2.4) * 1.055 - 0.055)

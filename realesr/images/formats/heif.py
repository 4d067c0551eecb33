"""Opens AVIF files with libvips, and HEIC files with pillow-heif where that is installed. Both are decoded whole.

What the images are is read from the file's boxes. The decoders expand limited range, but not that of grey, and return
10 and 12 bit in the upper bits of 16, and colours as they are stored where alpha is premultiplied. Cropping and turning
are done here: libheif (1.23) does it before chroma gets its full size, and moves chroma by a pixel where a side is odd.
"""

import math
import struct
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from realesr.errors import InputError
from realesr.images.decoded import (
    Decoded,
    ReadOptions,
    check_memory,
    check_page,
    field,
    image_from_array,
    turned_resolution,
)
from realesr.images.formats.by_pillow import pillow_errors
from realesr.images.formats.heif_items import TRANSFORMS, HeifImage, describe_item, exif_of, page_items, xmp_of
from realesr.images.formats.isobmff import Container, Item, file_of_one, read_container
from realesr.images.libvips import pyvips
from realesr.images.metadata.exif import pixels_per_mm
from realesr.images.profile_making import cicp_is_known, cicp_profile


def open_avif(path: Path, options: ReadOptions) -> Decoded:
    """Open an image of an AVIF or HEIC file, the primary one by default.

    Raises:
        InputError: damaged, too large, coded in a way that is not read, or there is no such image.
        pyvips.Error: damaged.
    """
    container = read_container(path)
    image = describe_item(path, container, _chosen(path, container, options.page))
    for size in image.sizes_px:
        options.check_size(path, *size)
    _check_memory(path, image)
    notices = []
    icc = image.icc
    if icc is None and image.cicp is not None:
        icc = cicp_profile(*image.cicp, is_grey=image.is_grey)
        if not cicp_is_known(*image.cicp):
            primaries, transfer = image.cicp
            notices.append(
                f"the colours' description (H.273 primaries {primaries}, transfer {transfer}) is not known; "
                "they are treated as sRGB"
            )
    exif = exif_of(container, image.item)
    resolution = pixels_per_mm(exif) if exif else None
    turns = sum(content[0] for kind, content in image.transforms if kind == b"irot" and content)
    return Decoded(
        image=_upright(path, _full_range(path, container, image, options), image.transforms),
        space="grey" if image.is_grey else "rgb",
        has_alpha=image.has_alpha,
        bits=_output_bits(image),
        icc=icc,
        exif=exif,
        xmp=xmp_of(container, image.item),
        pixels_per_mm=turned_resolution(resolution, 6 if turns % 2 else 1),
        was_turned=True,
        notices=tuple(notices),
    )


def open_heic(path: Path, options: ReadOptions) -> Decoded:
    """Open an image of a HEIC file, as `open_avif` does.

    Raises:
        InputError: pillow-heif is missing; else as `open_avif`.
        pyvips.Error: damaged.
    """
    _pillow_heif(path)
    return open_avif(path, options)


def _chosen(path: Path, container: Container, page: int | None) -> Item:
    """Return the primary item, or the one of a page; raise InputError where there is none."""
    pages = page_items(container)
    if not pages:
        raise InputError(f"{path} has no image that can be shown: it has {len(container.items)} items of other kinds")
    check_page(path, page, len(pages))
    if page is not None:
        return pages[page]
    primary = container.items.get(container.primary)
    if primary is None:
        raise InputError(
            f"{path} is damaged (its primary image, item {container.primary}, is missing); choose a page", option="page"
        )
    return primary


def _check_memory(path: Path, image: HeifImage) -> None:
    """Raise InputError where the image does not fit into memory: planes, RGB, and what is copied between.

    Measured in bytes per pixel: AVIF of 8 bit 15.8 (4:2:0) to 19.2 (4:4:4, alpha), of 10 and 12 bit 19.4 to 26.3;
    HEIC of 8 bit 4.8 (4:2:0) to 9.3 (4:4:4), and more with alpha, of 10 bit 9.3 to 24.4 (4:4:4, alpha). Copies that
    are turned fit into what the decoder has freed by then. Grids, which are decoded tile by tile, take less: AVIF of 8
    bit 4.5 (4:2:0). The file is held up to three times: 24.2 for noise of 1.7 bytes per pixel in the file.
    """
    name, shallow, deep = ("AVIF", 20, 27) if image.coding == b"av01" else ("HEIC", 12, 25)
    px_bytes = shallow if image.bits == 8 else deep
    if image.alpha is not None and image.alpha_bits != image.bits:  # decoded for itself
        px_bytes += shallow if image.alpha_bits == 8 else deep
    width_px, height_px = max(image.sizes_px, key=math.prod)
    needed = width_px * height_px * px_bytes + 3 * path.stat().st_size
    check_memory(path, width_px, height_px, needed, name, "save it as PNG or TIFF first")


def _output_bits(image: HeifImage) -> Any:
    """Return the depth of the output, 8 or 16, that keeps colours and alpha."""
    return 8 if image.bits == image.alpha_bits == 8 else 16


def _full_range(path: Path, container: Container, image: HeifImage, options: ReadOptions) -> Any:
    """Return the pyvips image of an item: colours, then straight alpha, over the full range of 8 or 16 bit."""
    colour, alpha = _decoded(path, container, image, options)
    top = 2 ** _output_bits(image) - 1
    if alpha is not None and image.is_premultiplied:
        colour = _stretched(colour, image.bits, 2**image.bits - 1, is_limited=image.is_limited_grey)
        result = _unmultiplied(colour, image.bits, alpha, image.alpha_bits, top)
    else:
        result = _stretched(colour, image.bits, top, is_limited=image.is_limited_grey)
    if alpha is not None:
        result = result.bandjoin(_stretched(alpha, image.alpha_bits, top))
    grey, rgb = ("b-w", "srgb") if top == 255 else ("grey16", "rgb16")
    return result.copy(interpretation=grey if image.is_grey else rgb)


def _upright(path: Path, image: Any, transforms: tuple[tuple[bytes, bytes], ...]) -> Any:
    """Return an image cropped, turned and mirrored, in the order of its properties.

    Source: ISO/IEC 23008-12, 6.5.9 (clap), 6.5.10 (irot, anticlockwise), 6.5.12 (imir; axis 0 swaps top and bottom).
    """
    for kind, content in transforms:
        if kind == b"clap":
            image = _cropped(path, image, content)
        elif kind == b"irot":
            turn = ("d0", "d270", "d180", "d90")[content[0] & 3 if content else 0]
            image = image.rot(turn)
        else:
            image = image.flip("horizontal" if content[:1] == b"\1" else "vertical")
    return image


def _cropped(path: Path, image: Any, content: bytes) -> Any:
    """Return the clean aperture of an image, in whole pixels. Source: ISO/IEC 14496-12, 12.1.4.

    Raises:
        InputError: there is none within the image.
    """
    try:
        numbers = struct.unpack(">IIIIiIiI", content[:32])
        width, height, across, down = (Fraction(*numbers[i : i + 2]) for i in (0, 2, 4, 6))
    except (struct.error, ZeroDivisionError):
        width = height = across = down = Fraction(0)
    left = max(0, math.floor(across + (image.width - width) / 2 + Fraction(1, 2)))
    top = max(0, math.floor(down + (image.height - height) / 2 + Fraction(1, 2)))
    columns, rows = min(int(width), image.width - left), min(int(height), image.height - top)
    if columns <= 0 or rows <= 0:
        raise InputError(f"{path} is damaged (it is cropped to nothing); get a whole copy")
    return image.crop(left, top, columns, rows)


def _stretched(codes: Any, bits: int, top: int, *, is_limited: bool = False) -> Any:
    """Return codes of `bits` bit over the range up to `top`, rounded.

    Limited range is from 16 to 235 in 8 bit. Source: ITU-T H.273, 8.3, equations 20 and 23.
    """
    most = 2**bits - 1
    if most == top and not is_limited:
        return codes
    low, high = (16 << (bits - 8), 235 << (bits - 8)) if is_limited else (0, most)
    values = np.clip(np.arange(most + 1, dtype=np.int64) - low, 0, high - low)
    table = (values * 2 * top + high - low) // (2 * (high - low))
    return codes.maplut(image_from_array(table.astype(np.uint8 if top == 255 else np.uint16)[None, :, None]))


def _unmultiplied(colour: Any, bits: int, alpha: Any, alpha_bits: int, top: int) -> Any:
    """Return colours that were multiplied by alpha without it, up to `top`; 0 where alpha is 0.

    One division of whole numbers that float64 holds exactly. Source: ISO/IEC 23000-22 (MIAF), 7.3.5.2.
    """
    whole = colour.cast("double") * float(top * (2**alpha_bits - 1))
    divided = whole / (alpha.cast("double") * float(2**bits - 1))  # libvips divides by 0 to 0
    return divided.rint().cast("uchar" if top == 255 else "ushort")


def _decoded(path: Path, container: Container, image: HeifImage, options: ReadOptions) -> tuple[Any, Any]:
    """Return the codes of colours, and of alpha or None, as pyvips images.

    Decoders fail, or convert, where alpha has another depth than the colours: then both are decoded for themselves.
    """
    channels = 1 if image.is_grey else 3
    if image.alpha is None or image.alpha_bits == image.bits:
        decoded = _codes(path, container, image, options, image.item, image.bits, with_auxiliary=True)
        if image.has_alpha != (decoded.bands in (2, 4)) or decoded.bands < channels:
            raise InputError(f"{path} has {decoded.bands} channels, not the {channels} and alpha that it states")
        return decoded.extract_band(0, n=channels), decoded[decoded.bands - 1] if image.has_alpha else None
    colour = _codes(path, container, image, options, image.item, image.bits, with_auxiliary=False)
    alpha = _codes(path, container, image, options, image.alpha, image.alpha_bits, with_auxiliary=False)
    if (alpha.width, alpha.height) != (colour.width, colour.height):
        raise InputError(
            f"{path} has alpha of {alpha.width} x {alpha.height} px and {image.alpha_bits} bit beside colours of "
            f"{colour.width} x {colour.height} px and {image.bits} bit, which is not read: convert it first"
        )
    return colour.extract_band(0, n=channels), alpha[0]


def _codes(
    path: Path,
    container: Container,
    image: HeifImage,
    options: ReadOptions,
    item: Item,
    bits: int,
    *,
    with_auxiliary: bool,
) -> Any:
    """Decode an item of an image, neither cropped nor turned, to a pyvips image of codes of `bits` bit."""
    try:
        file = file_of_one(
            container, item, with_auxiliary=with_auxiliary, without=TRANSFORMS, is_full_range=image.is_limited_grey
        )
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error})") from error
    if image.coding == b"av01":
        access = "random" if image.transforms else "sequential"
        codes = pyvips.Image.heifload_buffer(file, unlimited=True, fail_on="error", access=access)
        found = field(codes, "bits-per-sample")
        options.check_size(path, codes.width, codes.height)
    else:
        codes, found = _by_pillow_heif(path, file, options)
    if found != bits:
        raise InputError(f"{path} is damaged (it states {bits} bits per sample, and is coded in {found})")
    return codes if bits == 8 else codes >> (16 - bits)


def _by_pillow_heif(path: Path, file: bytes, options: ReadOptions) -> tuple[Any, int]:
    """Decode the primary item of a HEIC file; return the pyvips image and the bits per sample."""
    pillow_heif = _pillow_heif(path)
    with pillow_errors(path):
        found = pillow_heif.open_heif(BytesIO(file), convert_hdr_to_8bit=False)
        image = found[found.primary_index]
        options.check_size(path, *image.size)
        array = np.asarray(image)
    stacked = array[:, :, None] if array.ndim == 2 else array
    return image_from_array(stacked), int(image.info["bit_depth"])


def _pillow_heif(path: Path) -> Any:
    """Return the module pillow_heif; raise InputError where it is not installed."""
    try:
        import pillow_heif
    except ImportError:
        raise InputError(f"{path} is HEIC, which needs one more package: pip install pillow-heif") from None
    return pillow_heif

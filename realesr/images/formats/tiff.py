"""Opens pages of TIFF files: what the directory says that the samples mean decides, never their number.

tiff_directory   reads directories, and finds the page that is the picture
tiff_meaning     tells what its samples mean, or refuses them by name
tiff_sizes       compares strips and tiles with what the file can hold
tiff_samples     decodes the samples as they are stored
tiff_ycbcr       turns YCbCr into RGB
open_tiff        makes grey, RGB, CMYK or Lab over the full range of it, with straight alpha
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from realesr.errors import InputError
from realesr.images.colour import ColourSpace
from realesr.images.decoded import (
    Decoded,
    ReadOptions,
    check_memory,
    image_from_array,
    turned_bytes,
    turned_resolution,
    turned_upright,
)
from realesr.images.file_source import FileSource
from realesr.images.formats.tiff_directory import (
    COLOR_MAP,
    DOT_RANGE,
    ICC_PROFILE,
    RESOLUTION_UNIT,
    X_RESOLUTION,
    XMP,
    Y_RESOLUTION,
    Page,
    find_page,
)
from realesr.images.formats.tiff_meaning import JPEG, Meaning, meaning_of
from realesr.images.formats.tiff_samples import open_jpeg_rgb, open_samples
from realesr.images.formats.tiff_ycbcr import open_ycbcr
from realesr.images.libvips import pyvips
from realesr.images.metadata.exif import exif_from_tiff

_INTERPRETATIONS: dict[ColourSpace, tuple[str, str]] = {
    "grey": ("b-w", "grey16"),
    "rgb": ("srgb", "rgb16"),
    "cmyk": ("cmyk", "cmyk"),
    "lab": ("labs", "labs"),
}
"""libvips' names for 8 and 16 bit."""


def open_tiff(path: Path, options: ReadOptions) -> Decoded:
    """Open a page of a TIFF file; by default the first that is no reduced image and no mask.

    Raises:
        InputError: too large, there is no such page, or its samples or its compression are not read.
        pyvips.Error: damaged.
    """
    found = find_page(path, options.page)
    page = found.page
    meaning = meaning_of(page)
    options.check_size(path, page.width_px, page.height_px)
    image, sources = _open_stored(page, meaning, access="random" if page.orientation > 2 else "sequential")
    if page.orientation > 2 and sources:  # without sources, it has been decoded already
        check_memory(path, image.width, image.height, turned_bytes(image), "turned TIFF", "turn it first")
    image, space, has_alpha = _channels(image, page, meaning)
    alpha_notice = ["Lab's alpha channel was dropped"] if meaning.alpha is not None and not has_alpha else []
    exif = exif_from_tiff(path, found.number)
    if exif is None and options.page is None and found.number:
        exif = exif_from_tiff(path, 0)  # a photo's facts stay on the first page, also where that is its preview
    return Decoded(
        image=turned_upright(image, page.orientation),
        space=space,
        has_alpha=has_alpha,
        bits=8 if meaning.depth <= 8 else 16,
        icc=page.metadata(ICC_PROFILE),
        exif=exif,
        xmp=page.metadata(XMP),
        pixels_per_mm=turned_resolution(_pixels_per_mm(page), page.orientation),
        was_turned=page.orientation > 1,
        notices=(*([found.notice] if found.notice else []), *meaning.notices, *alpha_notice),
        sources=sources,
        check_rows=_row_check(path),
    )


def _row_check(path: Path) -> Callable[[bool, Exception | None], str | None]:
    """Return a check after each read of rows: libvips leaves tiles black that it cannot decode, and raises nothing."""

    def check(_at_end: bool, error: Exception | None) -> None:
        report = pyvips.ffi.string(pyvips.vips_lib.vips_error_buffer()).decode("utf-8", "replace")
        lost = [line for line in report.splitlines() if line.startswith("tiff2vips:")]
        if error is None and lost:
            raise InputError(f"{path} is truncated or damaged ({lost[0]}); get a whole copy")

    return check


def _open_stored(page: Page, meaning: Meaning, *, access: str) -> tuple[Any, tuple[FileSource, ...]]:
    """Open colours and alpha of a page as stored; YCbCr comes as RGB."""
    if meaning.colours != "ycbcr":
        return open_samples(page, meaning.wanted, access=access)
    if page.compression == JPEG and not page.is_planar:
        return open_jpeg_rgb(page, access=access)
    return open_ycbcr(page, meaning, access=access)


def _channels(image: Any, page: Page, meaning: Meaning) -> tuple[Any, ColourSpace, bool]:
    """Return stored samples as the channels of a colour space and straight alpha, and whether there is alpha."""
    if meaning.is_associated:
        image = _unpremultiplied(image, meaning)
    colour, space = _colours(image.extract_band(0, n=meaning.channels), page, meaning)
    has_alpha = meaning.alpha is not None and space != "lab"
    if has_alpha:
        colour = colour.bandjoin(_full_range(image[meaning.channels], meaning.depth))
    return colour.copy(interpretation=_INTERPRETATIONS[space][meaning.depth > 8]), space, has_alpha


def _colours(image: Any, page: Page, meaning: Meaning) -> tuple[Any, ColourSpace]:
    """Return the colour channels over the full range of their type, and their colour space."""
    if meaning.colours == "palette":
        return _through_palette(image, page, meaning.depth)
    if meaning.colours in ("cielab", "icclab"):
        return _lab(image, meaning), "lab"
    image = _full_range(image, meaning.depth)
    if meaning.colours == "grey from white":
        return image.invert(), "grey"
    if meaning.colours == "cmyk":
        return _from_dots(image, page, meaning.depth), "cmyk"
    return image, "grey" if meaning.colours in ("grey", "mask") else "rgb"


def _full_range(image: Any, depth: int) -> Any:
    """Return samples of `depth` bit over the full range of uchar or ushort, rounded to the nearest value."""
    if depth in (8, 16):
        return image
    top, full = 2**depth - 1, 255 if depth < 8 else 65535
    values = np.minimum(np.arange(256 if depth < 8 else 2**depth, dtype=np.uint64), top)
    table = (values * full + top // 2) // top
    return image.maplut(image_from_array(table.astype(np.uint8 if depth < 8 else np.uint16).reshape(1, -1, 1)))


def _through_palette(image: Any, page: Page, depth: int) -> tuple[Any, ColourSpace]:
    """Return the colours of palette indices of `depth` bit; a palette of greys makes grey.

    Colour maps hold 16 bits (section 5); some writers store 8, which shows in that no value is above 255.

    Raises:
        InputError: the colour map is missing or too short.
    """
    stored = page.array(COLOR_MAP)
    if len(stored) < 3 * 2**depth:
        raise InputError(
            f"{page.path} is damaged: its colour map has {len(stored)} values, expected {3 * 2**depth}; "
            "get a whole copy"
        )
    colours = stored[: 3 * 2**depth].reshape(3, -1).T.astype(np.uint16)
    if colours.max() < 256:
        colours = colours * 257
    table = (colours >> 8).astype(np.uint8) if depth <= 8 else colours
    is_grey = bool((colours == colours[:, :1]).all())
    if is_grey:
        table = table[:, :1]
    return image.maplut(image_from_array(table.reshape(1, len(table), -1))), "grey" if is_grey else "rgb"


def _lab(image: Any, meaning: Meaning) -> Any:
    """Return Lab of 8 or 16 bit as libvips' labs: L 0 to 32767 for 0 to 100, a and b in 1/256.

    CIELab has a and b with a sign, ICCLab has them 128 higher, and L = 100 at 0xFF00 in 16 bit. Source: TIFF 6.0,
    section 23; Adobe Photoshop TIFF Technical Notes (2002), Lab; ICC.1:2001-04, annex A (16 bit).
    """
    is_icc, is_deep = meaning.colours == "icclab", meaning.depth == 16
    white = 255 if not is_deep else 65280 if is_icc else 65535
    lightness = image[0].linear(32767 / white, 0).rint().cast("short")
    if meaning.channels == 1:
        return lightness.bandjoin([0, 0])
    chroma = image.extract_band(1, n=2)
    if is_icc:
        chroma = chroma.linear(1, -32768 if is_deep else -128)
    else:
        chroma = chroma.copy(format="short" if is_deep else "char")
    return lightness.bandjoin(chroma.linear(1 if is_deep else 256, 0).cast("short"))


def _from_dots(image: Any, page: Page, depth: int) -> Any:
    """Return inks whose full range is from no dot to a full one, as DotRange says. Source: section 16."""
    top = 2**depth - 1
    stated = page.integers(DOT_RANGE, 0, top)
    dots = (stated * 4)[:8] if len(stated) < 8 else stated[:8]
    none, widths = dots[::2], [full - none for none, full in zip(dots[::2], dots[1::2], strict=True)]
    if (set(none) == {0} and set(widths) in ({top}, {255})) or 0 in widths:  # 255 is 8 bit's, whatever the depth
        return image
    full_range = 255 if depth <= 8 else 65535
    offsets = [-start * full_range / width for start, width in zip(none, widths, strict=True)]
    return image.linear([top / width for width in widths], offsets).rint().cast(image.format)


def _unpremultiplied(image: Any, meaning: Meaning) -> Any:
    """Return colours divided by associated alpha, the last band; where alpha is 0 they are 0."""
    if meaning.colours == "palette":
        return image
    top = 2**meaning.depth - 1
    straight = image.unpremultiply(max_alpha=top, alpha_band=meaning.channels).rint()
    limited = (straight > top).ifthenelse(top, straight)
    return limited.cast(image.format)


def _pixels_per_mm(page: Page) -> tuple[float, float] | None:
    """Return the resolution across and down of the page as stored, where it states one."""
    mm = {2: 25.4, 3: 10.0}.get(page.integer(RESOLUTION_UNIT, 2))
    across, down = page.fractions(X_RESOLUTION), page.fractions(Y_RESOLUTION)
    if mm is None or not across or not down or min(across[0], down[0]) <= 0:
        return None
    return across[0] / mm, down[0] / mm

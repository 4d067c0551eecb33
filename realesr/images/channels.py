"""Separates the colour of a decoded image from its alpha, and finds its colour space and the depth of its samples."""

from pathlib import Path
from typing import Any, Literal

from realesr.errors import InputError
from realesr.images.colour import ColourSpace

COLOUR_CHANNELS: dict[ColourSpace, int] = {"grey": 1, "rgb": 3, "cmyk": 4, "lab": 3}


def colour_space(image: Any) -> ColourSpace:
    """Return the colour space of a pyvips image, by the interpretation that its file states and its channels."""
    if image.interpretation == "cmyk":
        return "cmyk"
    if image.interpretation in ("lab", "labs"):
        return "lab"
    return "grey" if image.bands < 3 else "rgb"


def colour_and_alpha(image: Any, space: ColourSpace) -> tuple[Any, Any | None, list[str]]:
    """Split a pyvips image into its colour channels and its alpha channel, the first one after them.

    Alpha is straight: where a TIFF file states that its colours are multiplied by alpha, libvips has divided them.

    Returns:
        Colour, alpha (None where there is none, or where the colours are Lab), and notices about dropped channels.
    """
    first = COLOUR_CHANNELS[space]
    colour, others = image.extract_band(0, n=first), image.bands - first
    if others <= 0:
        return colour, None, []
    if space == "lab":
        return colour, None, ["Lab's alpha channel was dropped"]
    dropped = others - 1
    notices = [f"{dropped} channel{'s' * (dropped > 1)} beyond colour and alpha dropped"] if dropped else []
    return colour, image[first], notices


def bits_per_sample(path: Path, image: Any, space: ColourSpace) -> Literal[8, 16]:
    """Return the depth of a file's samples by their type; libvips holds Lab of either depth as signed `short`.

    Raises:
        InputError: the samples are not whole numbers of 8 or 16 bit.
    """
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

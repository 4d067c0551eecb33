"""Adjusts XMP to an image that was turned upright or enlarged. Uses no libraries.

XMP is XML, but rewriting it through a parser would change prefixes and order that other programs put there; so single
properties are replaced in the text, in both forms that RDF allows (attribute and element). UTF-16 packets, which nobody
writes into images, are left alone.

Source of the properties: XMP specification, part 2 (tiff: and exif: namespaces; xmp:Thumbnails).
"""

import re

_SIZES = ("tiff:ImageWidth", "exif:PixelXDimension"), ("tiff:ImageLength", "exif:PixelYDimension")
_THUMBNAILS = re.compile(rb"<xmp:Thumbnails\b[^>]*?(/>|>.*?</xmp:Thumbnails\s*>)", re.DOTALL)


def xmp_upright(xmp: bytes) -> bytes:
    """Return the packet with tiff:Orientation, where it has one, set to 1."""
    return _with_property(xmp, "tiff:Orientation", 1)


def xmp_resized(xmp: bytes, width_px: int, height_px: int) -> bytes:
    """Return the packet with the sizes in it set to the image's, and without thumbnails."""
    for names, pixels in zip(_SIZES, (width_px, height_px), strict=True):
        for name in names:
            xmp = _with_property(xmp, name, pixels)
    return _THUMBNAILS.sub(b"", xmp)


def _with_property(xmp: bytes, name: str, value: int) -> bytes:
    """Return the packet with the value of `name` replaced wherever it occurs, as an attribute or an element."""
    word, number = re.escape(name.encode()), str(value).encode()
    xmp = re.sub(rb"(\b" + word + rb"""\s*=\s*)(["'])[^"'<>]*\2""", rb"\g<1>\g<2>" + number + rb"\g<2>", xmp)
    return re.sub(rb"(<" + word + rb"\s*>)[^<]*(</)", rb"\g<1>" + number + rb"\g<2>", xmp)

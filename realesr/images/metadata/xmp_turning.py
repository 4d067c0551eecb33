"""Turns places in an XMP packet with its image: regions of faces and things, and the size that they refer to.

They count from the upper left of the pixels as stored, before the orientation is applied, in parts of the sides.

Source of the properties: MWG 2.0, 5.9 (mwg-rs, stArea, stDim); Microsoft Photo 1.2, Regions; IPTC Photo Metadata
2023.2, Image Region; of the turns: CIPA DC-008 (Exif 3.0), 4.6.5, Orientation.
"""

import re

from realesr.images.metadata.xmp_text import Place

_AREA = b"http://ns.adobe.com/xmp/sType/Area#"
_DIMENSIONS = b"http://ns.adobe.com/xap/1.0/sType/Dimensions#"
_MICROSOFT = (b"http://ns.microsoft.com/photo/1.2/t/Region#", b"Rectangle")
_IPTC = b"http://iptc.org/std/Iptc4xmpExt/2008-02-29/"

_STORED = re.compile(rb"\s*[+-]?[0-9]{1,9}(?:\.[0-9]{1,20})?\s*")
Edits = list[tuple[int, int, bytes]]


def turned_edits(xmp: bytes, places: list[Place], turn: int) -> Edits:
    """Return the edits that turn the properties of one structure as EXIF orientation `turn`, 2 to 8, says."""
    simple = {place.name: place for place in places if place.is_simple}
    edits: Edits = []
    if turn > 4:
        edits += _exchanged(xmp, [simple.get((_DIMENSIONS, name)) for name in (b"w", b"h")])
    edits += _turned_box(xmp, [simple.get((_AREA, name)) for name in (b"x", b"y", b"w", b"h")], turn, centred=True)
    box = [simple.get((_IPTC, name)) for name in (b"rbX", b"rbY", b"rbW", b"rbH")]
    edits += _turned_box(xmp, box, turn, centred=False)
    rectangle = simple.get(_MICROSOFT)
    if rectangle is not None:
        numbers = _numbers(xmp[rectangle.value_start : rectangle.value_end].split(b","))
        if numbers is not None and len(numbers) == 4:
            text = ", ".join(f"{value:.6f}" for value in turned_rectangle(numbers, turn))
            edits.append((rectangle.value_start, rectangle.value_end, text.encode()))
    return edits


def turned_rectangle(rectangle: list[float], turn: int) -> list[float]:
    """Return a rectangle of a turned image: left, top, width and height in parts of the sides, before and after."""
    left, top, width, height = rectangle
    right, low = 1 - left - width, 1 - top - height
    corners = {2: (right, top), 3: (right, low), 4: (left, low), 5: (top, left), 6: (low, left), 7: (low, right)}
    across, down = corners.get(turn, (top, right))
    return [across, down, *((height, width) if turn > 4 else (width, height))]


def _turned_box(xmp: bytes, places: list[Place | None], turn: int, *, centred: bool) -> Edits:
    """Turn x, y, width and height, each a property; a place alone has neither width nor height."""
    known = [place for place in places if place is not None]
    if len(known) < 2 or places[0] is None or places[1] is None or (len(known) == 3):
        return []
    numbers = _numbers([xmp[place.value_start : place.value_end] for place in known])
    if numbers is None or max(numbers) > 1:
        return []  # in pixels: not turned, as the size is not known here
    x, y, width, height = (*numbers, 0.0, 0.0)[:4]
    half = 0.5 if centred else 0.0
    left, top, width, height = turned_rectangle([x - half * width, y - half * height, width, height], turn)
    turned = (left + half * width, top + half * height, width, height)
    return [(p.value_start, p.value_end, f"{v:.6f}".encode()) for p, v in zip(known, turned, strict=False)]


def _exchanged(xmp: bytes, places: list[Place | None]) -> Edits:
    """Exchange the values of two properties, where both are there."""
    a, b = places
    if a is None or b is None:
        return []
    first, second = xmp[a.value_start : a.value_end], xmp[b.value_start : b.value_end]
    return [(a.value_start, a.value_end, second), (b.value_start, b.value_end, first)]


def _numbers(texts: list[bytes]) -> list[float] | None:
    """Return decimals, or None where one of the texts is none."""
    return [float(text) for text in texts] if all(map(_STORED.fullmatch, texts)) else None

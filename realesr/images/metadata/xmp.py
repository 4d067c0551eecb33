"""Adjusts XMP to an image that was turned upright, or enlarged into another file. Uses no libraries.

What the new size makes false is corrected or taken out, and so is what points at parts of the old file that are not
carried: a motion photo's video, gain maps, depth maps, thumbnails, extended XMP. Every other byte stays. A packet that
cannot be edited (in UTF-16, longer than 16 MB, not well formed) and has such a property is left out as a whole.

Source of the properties: XMP specification, part 2 (tiff, exif, xmp, xmpNote); Google's Photo Sphere, Motion Photo,
Depthmap and Dynamic Depth metadata; Adobe's gain map specification; Apple's and DJI's files; MWG 2.0, 5.9; IPTC 2023.2.
"""

import re
from collections.abc import Callable
from fractions import Fraction

from realesr.images.metadata.xmp_text import Name, Place, UneditableError, find_structures, replaced
from realesr.images.metadata.xmp_turning import turned_edits

Size = tuple[int, int]
"""Width and height in px."""
Edit = Callable[[bytes], bytes | None]
"""Returns the new text of a property, or None where the property is taken out."""

_GOOGLE = b"http://ns.google.com/photos/1.0/"
_DYNAMIC_DEPTH = b"http://ns.google.com/photos/dd/1.0/"
_IPTC = b"http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_NAMESPACES = {
    b"tiff": b"http://ns.adobe.com/tiff/1.0/",
    b"exif": b"http://ns.adobe.com/exif/1.0/",
    b"xmp": b"http://ns.adobe.com/xap/1.0/",
    b"xap": b"http://ns.adobe.com/xap/1.0/",
    b"xmpNote": b"http://ns.adobe.com/xmp/note/",
    b"dc": b"http://purl.org/dc/elements/1.1/",
    b"hdrgm": b"http://ns.adobe.com/hdr-gain-map/1.0/",
    b"HDRGainMap": b"http://ns.apple.com/HDRGainMap/1.0/",
    b"apdi": b"http://ns.apple.com/pixeldatainfo/1.0/",
    b"depthData": b"http://ns.apple.com/depthData/1.0/",
    b"GCamera": _GOOGLE + b"camera/",
    b"Container": _GOOGLE + b"container/",
    b"GPano": _GOOGLE + b"panorama/",
    b"GDepth": _GOOGLE + b"depthmap/",
    b"GImage": _GOOGLE + b"image/",
    b"GAudio": _GOOGLE + b"audio/",
    b"Device": _DYNAMIC_DEPTH + b"device/",
    b"GSpherical": b"http://ns.google.com/videos/1.0/spherical/",
    b"OpCamera": b"http://ns.oplus.com/photos/1.0/camera/",
    b"MiCamera": b"http://ns.xiaomi.com/photos/1.0/camera/",
    b"drone-dji": b"http://www.dji.com/drone-dji/1.0/",
    b"stDim": b"http://ns.adobe.com/xap/1.0/sType/Dimensions#",
    b"stArea": b"http://ns.adobe.com/xmp/sType/Area#",
    b"Iptc4xmpExt": _IPTC,
}
"""Namespaces by their usual prefix."""

_PART_OF_NAMESPACE = {
    b"hdrgm": "gain map",
    b"HDRGainMap": "gain map",
    b"apdi": "gain map",
    b"Container": "attached files",
    b"GDepth": "depth map",
    b"depthData": "depth map",
    b"GImage": "image behind the depth map",
    b"GAudio": "sound",
}
_PARTS_BY_NAMESPACE = {_NAMESPACES[prefix]: part for prefix, part in _PART_OF_NAMESPACE.items()}
"""Namespaces whose every property is about a part of the old file, and what that is."""

_VIDEO_NAMES = (b"MicroVideo", b"MotionPhoto", b"OLivePhoto")
_ACROSS, _DOWN = 0, 1
_NUMBER = re.compile(rb"[+-]?[0-9]{1,20}(?:/0{0,9}[1-9][0-9]{0,9}|\.[0-9]{1,12})?")
_AXES = {
    b"GPano": ((b"FullPanoWidthPixels", b"CroppedAreaImageWidthPixels", b"CroppedAreaLeftPixels",
                b"LargestValidInteriorRectLeft", b"LargestValidInteriorRectWidth"),
               (b"FullPanoHeightPixels", b"CroppedAreaImageHeightPixels", b"CroppedAreaTopPixels",
                b"LargestValidInteriorRectTop", b"LargestValidInteriorRectHeight")),
    b"GSpherical": ((b"FullPanoWidthPixels", b"CroppedAreaImageWidthPixels", b"CroppedAreaLeftPixels"),
                    (b"FullPanoHeightPixels", b"CroppedAreaImageHeightPixels", b"CroppedAreaTopPixels")),
    b"exif": ((b"FocalPlaneXResolution",), (b"FocalPlaneYResolution",)),
    b"drone-dji": ((b"CalibratedFocalLength", b"CalibratedOpticalCenterX"), (b"CalibratedOpticalCenterY",)),
}  # fmt: skip
"""Properties in pixels, or in pixels per length, by their namespace's usual prefix: across, and down."""
_AXES_WITH_UNIT = {
    b"stDim": ((b"w",), (b"h",)),
    b"stArea": ((b"x", b"w", b"d"), (b"y", b"h")),
    b"Iptc4xmpExt": ((b"rbX", b"rbW", b"rbRx"), (b"rbY", b"rbH")),
}
"""The same, where their structure says that its unit is the pixel."""


def _names(axes: dict[bytes, tuple[tuple[bytes, ...], tuple[bytes, ...]]]) -> dict[Name, int]:
    return {
        (_NAMESPACES[prefix], local): axis
        for prefix, both in axes.items()
        for axis, locals_ in enumerate(both)
        for local in locals_
    }


_AXIS, _AXIS_WITH_UNIT = _names(_AXES), _names(_AXES_WITH_UNIT)
_UNITS = frozenset(
    ((_NAMESPACES[b"stDim"], b"unit"), (_NAMESPACES[b"stArea"], b"unit"), (_NAMESPACES[b"Iptc4xmpExt"], b"rbUnit"))
)
_ORIENTATION = (_NAMESPACES[b"tiff"], b"Orientation")
_TURNS = (b"2", b"3", b"4", b"5", b"6", b"7", b"8")
_FORMAT = (_NAMESPACES[b"dc"], b"format")
_SIZES = {
    (_NAMESPACES[b"tiff"], b"ImageWidth"): _ACROSS,
    (_NAMESPACES[b"exif"], b"PixelXDimension"): _ACROSS,
    (_NAMESPACES[b"tiff"], b"ImageLength"): _DOWN,
    (_NAMESPACES[b"exif"], b"PixelYDimension"): _DOWN,
}
_STORAGE = (b"BitsPerSample", b"Compression", b"PhotometricInterpretation", b"SamplesPerPixel", b"PlanarConfiguration",
            b"YCbCrSubSampling")  # fmt: skip
_RESOLUTION = tuple((_NAMESPACES[b"tiff"], local) for local in (b"XResolution", b"YResolution", b"ResolutionUnit"))
_SUBJECT = ((_NAMESPACES[b"exif"], b"SubjectArea"), (_NAMESPACES[b"exif"], b"SubjectLocation"))
_DROPPED = frozenset(
    (
        (_NAMESPACES[b"xmp"], b"Thumbnails"),
        (_NAMESPACES[b"xmpNote"], b"HasExtendedXMP"),
        *((_NAMESPACES[b"tiff"], local) for local in _STORAGE),
        *_SUBJECT,
        (_NAMESPACES[b"OpCamera"], b"VideoLength"),
        (_NAMESPACES[b"MiCamera"], b"XMPMeta"),
        (_NAMESPACES[b"drone-dji"], b"DewarpData"),
    )
)
_WORDS = frozenset(
    (
        *(uri for uri in (*_PARTS_BY_NAMESPACE, _DYNAMIC_DEPTH)),
        *(local for _, local in (*_AXIS, *_SIZES, *_DROPPED, _ORIENTATION)),
        *_VIDEO_NAMES,
        _FORMAT[1],
    )
)
"""Words without which a packet says nothing that may have become false."""


def xmp_upright(xmp: bytes, orientation: int | None = None) -> bytes:
    """Return the packet of an image that was turned: with tiff:Orientation, where it has one, set to 1.

    Regions, and the size that they refer to, turn with the image. A packet that cannot be edited is returned as it is;
    `xmp_resized` leaves it out.

    Args:
        xmp: the packet.
        orientation: 1 to 8, by which the image was turned; None for the one that the packet itself states.
    """
    structures: list[list[Place]] = []
    try:
        find_structures(xmp, _NAMESPACES, structures.append)
    except UneditableError:
        return xmp
    edits = []
    for place in (place for places in structures for place in places if place.name == _ORIENTATION and place.is_simple):
        stated = xmp[place.value_start : place.value_end].strip()
        if orientation is None and stated in _TURNS:
            orientation = int(stated)
        edits.append((place.value_start, place.value_end, b"1"))
    if orientation is not None and orientation > 1:
        edits += [edit for places in structures for edit in turned_edits(xmp, places, orientation)]
    return replaced(xmp, edits)


def xmp_resized(
    xmp: bytes, old: Size, new: Size, media_type: str | None = None, *, has_new_resolution: bool = False
) -> tuple[bytes | None, tuple[str, ...]]:
    """Return the packet of an image that went from one size to another in a new file, and notices of what is lost.

    Args:
        xmp: the packet.
        old: width and height in px of the upright image as it was.
        new: those of the new image.
        media_type: of the new file, such as "image/png", for dc:format; None leaves it.
        has_new_resolution: whether the new file states another resolution, so that the one in the packet is taken out.

    Returns:
        The packet; None where it cannot be edited and may say something that is false now.
    """
    if not _may_be_false(xmp) and not (has_new_resolution and b"Resolution" in xmp.replace(b"\0", b"")):
        return xmp, ()
    lost: dict[str, None] = {}

    def edit_for(name: Name, in_pixels: bool) -> Edit | None:
        part = _part_of(name)
        if part is not None:
            lost[part] = None
            return _out
        if name in _DROPPED or (has_new_resolution and name in _RESOLUTION):
            return _out
        if name in _SIZES:
            return lambda _: str(new[_SIZES[name]]).encode()
        if name == _FORMAT and media_type is not None:
            return lambda text: media_type.encode() if text.strip().startswith(b"image/") else text
        axis = _AXIS.get(name, _AXIS_WITH_UNIT.get(name) if in_pixels else None)
        return None if axis is None else _scaled(Fraction(new[axis], old[axis]))

    try:
        edited = _edited(xmp, edit_for)
    except UneditableError as error:
        return None, (f"the XMP packet {error}; it cannot be corrected and was left out",)
    notices = (f"parts of the file that are not carried over ({', '.join(lost)}) were left out of the XMP",)
    return edited, notices if lost else ()


def _may_be_false(xmp: bytes) -> bool:
    """Return whether a packet, in UTF-8 or UTF-16, has a property that another size or file can make false."""
    text = xmp.replace(b"\0", b"")
    return any(word in text for word in _WORDS)


def _edited(xmp: bytes, edit_for: Callable[[Name, bool], Edit | None]) -> bytes:
    """Return the packet with those properties edited for which `edit_for` returns an edit.

    `edit_for` is called with a property's name and whether its structure says that the unit is the pixel.
    """
    edits: list[tuple[int, int, bytes]] = []

    def visit(places: list[Place]) -> None:
        units = [xmp[place.value_start : place.value_end] for place in places if place.name in _UNITS]
        in_pixels = bool(units) and units[0].strip().startswith(b"pixel")
        for place in places:
            edit = edit_for(place.name, in_pixels)
            if edit is None:
                continue
            value = edit(xmp[place.value_start : place.value_end]) if place.is_simple else None
            if value is None:
                edits.append((place.start, place.end, b""))
            else:
                edits.append((place.value_start, place.value_end, value))

    find_structures(xmp, _NAMESPACES, visit)
    return replaced(xmp, edits)


def _part_of(name: Name) -> str | None:
    """Return which part of the old file a property is about, where that part is not carried into the new one."""
    namespace, local = name
    if local.startswith(_VIDEO_NAMES) and namespace.startswith(b"http://ns."):
        return "video"
    if namespace.startswith(_DYNAMIC_DEPTH):
        return "depth map"
    return _PARTS_BY_NAMESPACE.get(namespace)


def _out(_: bytes) -> None:
    """Take a property out."""
    return None


def _scaled(factor: Fraction) -> Edit:
    """Return an edit that multiplies a number: an integer, a ratio "a/b", or a decimal; others are taken out."""

    def edit(text: bytes) -> bytes | None:
        number = text.strip()
        if _NUMBER.fullmatch(number) is None:
            return None
        value = Fraction(number.decode("ascii")) * factor
        if b"/" in number:
            return f"{value.numerator}/{value.denominator}".encode()
        decimals = len(number.partition(b".")[2])
        return f"{float(value):.{decimals}f}".encode() if decimals else str(round(value)).encode()

    return edit

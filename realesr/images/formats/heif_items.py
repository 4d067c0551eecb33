"""Says what the image items of a HEIF file are: their pages, coding, depth, colours, alpha and metadata.

Sources: ISO/IEC 23008-12:2022, 6 (items, derived images, auxiliary images, properties); ISO/IEC 23000-22 (MIAF), 7.3;
AV1 Codec ISO Media File Format Binding 1.2, 2.3.3 (av1C); ISO/IEC 14496-15, 8.3.2 (hvcC).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from realesr.errors import InputError
from realesr.images.formats.av1_header import av1_colours
from realesr.images.formats.isobmff import FULL_RANGE, Container, Item

_CODINGS = {
    b"av01": "AV1",
    b"hvc1": "HEVC",
    b"hev1": "HEVC",
    b"lhv1": "layered HEVC",
    b"avc1": "AVC (H.264)",
    b"vvc1": "VVC (H.266)",
    b"evc1": "EVC",
    b"jpeg": "JPEG",
    b"j2k1": "JPEG 2000",
    b"unci": "uncompressed samples",
    b"mski": "a mask",
    b"jxs1": "JPEG XS",
}
_DERIVED = (b"grid", b"iden", b"iovl")
_READ = (b"av01", b"hvc1")
TRANSFORMS = (b"clap", b"irot", b"imir")
"""Types of the properties that crop, turn and mirror an image. Source: ISO/IEC 23008-12, 6.5.9, 6.5.10, 6.5.12."""
_ALPHA_URNS = (
    b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha",
    b"urn:mpeg:hevc:2015:auxid:1",
    b"urn:mpeg:avc:2015:auxid:1",
)
_DEEPEST_DERIVATION = 8


@dataclass(frozen=True, kw_only=True)
class HeifImage:
    """What a file says about one of its images."""

    item: Item
    coding: bytes
    """Type of the coded items that it consists of: b"av01" or b"hvc1"."""
    sizes_px: tuple[tuple[int, int], ...]
    """Width and height that the file states for it, as a whole, as a grid and of each part, before it is cropped and
    turned. At least one."""
    bits: int
    """Bits per sample: 8, 10 or 12."""
    is_grey: bool
    alpha: Item | None
    """Item that holds the alpha of the whole image."""
    alpha_bits: int
    has_alpha: bool
    """Whether there is alpha, of the whole image or of a grid's tiles."""
    is_premultiplied: bool
    icc: bytes | None
    cicp: tuple[int, int] | None
    """Colour primaries and transfer characteristics, numbered as in H.273."""
    is_limited_grey: bool
    """Whether it is coded without colour and in limited range: 16 to 235 in 8 bit."""
    transforms: tuple[tuple[bytes, bytes], ...]
    """Type and content of the properties that crop, turn and mirror it, in the order in which they apply."""


def page_items(container: Container) -> list[Item]:
    """Return the images that a file shows, by rising ID, as decoders count them.

    Thumbnails, alpha, depth and gain maps, the tiles of grids, and recipes for tone mapping are none.
    """
    parts = {target for kind, source, to in container.references if _is_grid(container, kind, source) for target in to}
    belonging = {source for kind, source, _ in container.references if kind in (b"thmb", b"auxl")}
    found = [
        item
        for item in container.items.values()
        if _is_image(item) and not item.is_hidden and item.id not in belonging | parts
    ]
    primary = container.items.get(container.primary)
    if primary is not None and primary not in found:
        found.append(primary)
    return sorted(found, key=lambda item: item.id)


def describe_item(path: Path, container: Container, item: Item) -> HeifImage:
    """Return what the file says about one of its images.

    Raises:
        InputError: it is coded in a way that is not read, or parts of it are missing.
    """
    parts = _coded_parts(path, container, item)
    kinds = {part.kind for part in parts}
    if len(kinds) > 1 or not kinds <= set(_READ):
        names = " and ".join(_CODINGS.get(kind, repr(kind.decode("latin-1"))) for kind in sorted(kinds - set(_READ)))
        raise InputError(
            f"{path} holds an image coded as {names or 'AV1 and HEVC'}, which is not read: convert it first"
        )
    alphas = [found for part in (item, *parts) if (found := _alpha(container, part)) is not None]
    alpha = _alpha(container, item)
    needed = [*parts, *alphas, *(each for found in alphas for each in _coded_parts(path, container, found))]
    for part in (item, *needed):
        if not part.extents and part.kind != b"iden":
            raise InputError(f"{path} is damaged (image item {part.id} has no data that can be found)")
        if part.kind != b"iden" and container.lacks_data(part):
            raise InputError(f"{path} is truncated (it ends within image item {part.id}); get a whole copy")
    colours = _colour_properties(item) or _colour_properties(parts[0])
    cicp, is_full_range = _description(container, colours, parts[0])
    sizes = (_size(item), _grid_size(container, item), *(_size(part) for part in needed))
    return HeifImage(
        item=item,
        coding=b"av01" if kinds == {b"av01"} else b"hvc1",
        sizes_px=tuple(size for size in sizes if size is not None) or ((0, 0),),
        bits=_depth(path, parts),
        is_grey=all(_is_monochrome(part) for part in parts),
        alpha=alpha,
        alpha_bits=_depth(path, _coded_parts(path, container, alphas[0])) if alphas else 8,
        has_alpha=bool(alphas),
        is_premultiplied=any(container.targets(b"prem", part.id) for part in (item, *parts)),
        icc=next((data[4:] for data in colours if data[:4] in (b"prof", b"rICC")), None),
        cicp=cicp,
        is_limited_grey=not is_full_range and all(_is_coded_monochrome(part) for part in parts),
        transforms=tuple(each for each in item.properties if each[0] in TRANSFORMS),
    )


def exif_of(container: Container, item: Item) -> bytes | None:
    """Return the EXIF block of an image, from its TIFF header on. Source: ISO/IEC 23008-12, A.2.1."""
    for found in _metadata(container, item):
        if found.kind == b"Exif":
            data = container.data(found)
            start = 4 + int.from_bytes(data[:4], "big")
            return data[start:] or None
    return None


def xmp_of(container: Container, item: Item) -> bytes | None:
    """Return the XMP packet of an image. Source: ISO/IEC 23008-12, A.3."""
    for found in _metadata(container, item):
        if found.kind == b"mime" and found.content_type == b"application/rdf+xml":
            return container.data(found) or None
    return None


def _metadata(container: Container, item: Item) -> Iterator[Item]:
    """Yield the items that describe an image; those that describe none in particular count for all."""
    own = container.sources(b"cdsc", item.id)
    bound = {source for kind, source, _ in container.references if kind == b"cdsc"}
    for found in container.items.values():
        if found.kind in (b"Exif", b"mime") and (found.id in own or found.id not in bound):
            yield found


def _is_image(item: Item) -> bool:
    return item.kind in _CODINGS or item.kind in _DERIVED


def _is_grid(container: Container, kind: bytes, source: int) -> bool:
    """Return whether a reference is the one of a grid to its tiles."""
    return kind == b"dimg" and source in container.items and container.items[source].kind == b"grid"


def _coded_parts(path: Path, container: Container, item: Item) -> list[Item]:
    """Return the coded items that an image is made of: itself, or those that it is derived from."""
    level, seen = [item], {item.id}
    for _ in range(_DEEPEST_DERIVATION):
        if level and all(part.kind not in _DERIVED for part in level):
            return level
        following: list[Item] = []
        for part in level:
            if part.kind not in _DERIVED:
                following.append(part)
                continue
            ids = container.targets(b"dimg", part.id)
            if not ids or any(each not in container.items for each in ids):
                raise InputError(f"{path} is damaged (image item {part.id} lacks parts); get a whole copy")
            following += [container.items[each] for each in ids if each not in seen]
            seen.update(ids)
        level = following
    raise InputError(f"{path} is damaged (image item {item.id} is derived more than {_DEEPEST_DERIVATION} times)")


def _alpha(container: Container, item: Item) -> Item | None:
    """Return the item that holds the alpha of an image, or None."""
    for source in container.sources(b"auxl", item.id):
        found = container.items.get(source)
        auxiliary = found.property(b"auxC") if found else None
        if auxiliary is not None and auxiliary[4:].split(b"\0")[0] in _ALPHA_URNS:
            return found
    return None


def _colour_properties(item: Item) -> list[bytes]:
    """Return the contents of an item's colour information properties. Source: ISO/IEC 14496-12, 12.1.5."""
    return [content for name, content in item.properties if name == b"colr"]


def _description(container: Container, colours: list[bytes], part: Item) -> tuple[tuple[int, int] | None, bool]:
    """Return primaries and transfer characteristics, where stated, and whether the range is full.

    The item's description counts before the one that AV1 itself has (ISO/IEC 23008-12, 6.5.5).
    """
    for data in colours:
        if data[:4] == b"nclx" and len(data) >= 11:
            primaries, transfer = struct.unpack(">HH", data[4:8])
            return (primaries, transfer), bool(data[10] & FULL_RANGE)
    if part.kind == b"av01":
        coded = av1_colours((part.property(b"av1C") or b"")[4:]) or av1_colours(container.data(part))
        if coded is not None:
            return (coded.primaries, coded.transfer), coded.is_full_range
    return None, True


def _size(item: Item) -> tuple[int, int] | None:
    """Return the width and height that the spatial extents property states. Source: ISO/IEC 23008-12, 6.5.3."""
    content = item.property(b"ispe") or b""
    return struct.unpack(">II", content[4:12]) if len(content) >= 12 else None


def _grid_size(container: Container, item: Item) -> tuple[int, int] | None:
    """Return the width and height of a grid's canvas, which need not be what its property states.

    Source: ISO/IEC 23008-12, 6.6.2.3.2.
    """
    if item.kind != b"grid":
        return None
    data = container.data(item)
    form = ">II" if data[1:2] and data[1] & 1 else ">HH"
    try:
        width, height = struct.unpack_from(form, data, 4)
    except struct.error:
        return None
    return width, height


def _depth(path: Path, parts: list[Item]) -> int:
    """Return the bits per sample that the coded parts agree on; raise InputError where they do not."""
    depths = {depth for part in parts for depth in _depths(part)}
    if len(depths) != 1 or not depths <= {8, 10, 12}:
        found = ", ".join(map(str, sorted(depths))) or "no stated number of"
        raise InputError(f"{path} has an image of {found} bits per sample: 8, 10 or 12, the same everywhere, are read")
    return depths.pop()


def _depths(item: Item) -> set[int]:
    """Return the bits per sample of luma and chroma in an item's decoder configuration."""
    av1, hevc = item.property(b"av1C") or b"", item.property(b"hvcC") or b""
    if len(av1) >= 4:
        return {(8, 10, 8, 12)[(av1[2] >> 6 & 1) | (av1[2] >> 5 & 1) << 1]}
    if len(hevc) >= 23:
        luma, chroma = (8 + (byte & 7) for byte in hevc[17:19])
        return {luma} if _is_coded_monochrome(item) else {luma, chroma}
    return set()


def _is_monochrome(item: Item) -> bool:
    """Return whether an item has no colour: by its coding, or as it states one channel (ISO/IEC 23008-12, 6.5.6)."""
    channels = item.property(b"pixi") or b""
    return channels[4:5] == b"\1" or _is_coded_monochrome(item)


def _is_coded_monochrome(item: Item) -> bool:
    """Return whether an item's decoder configuration says that it is coded without colour."""
    av1, hevc = item.property(b"av1C") or b"", item.property(b"hvcC") or b""
    return (len(av1) >= 4 and bool(av1[2] >> 4 & 1)) or (len(hevc) >= 23 and hevc[16] & 3 == 0)

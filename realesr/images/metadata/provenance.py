"""Writes into XMP that a network has enlarged an image: which one, by what factor, and by which software.

A packet that the image has keeps every byte but the properties that are set here; an image without one gets a small
packet. No time is written, so that a repeated or resumed job gives the same bytes.

Source of the properties: XMP specification, part 1, 7.4 and part 2, 1.2.2.1 (xmp:CreatorTool), 1.2.4 (xmpMM:History,
stEvt); IPTC Photo Metadata 2023.2, Digital Source Type, and IPTC's NewsCodes of that name.
"""

import re
from dataclasses import dataclass
from html import escape, unescape

from realesr.images.info import OutputFormat
from realesr.images.metadata.chunks import MOST_XMP_BYTES_IN_JPEG
from realesr.images.metadata.xmp_text import Name, Place, UneditableError, find_structures, replaced

Edit = tuple[int, int, bytes]
"""Start, end and new text."""

_RDF = b"http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_XMP = b"http://ns.adobe.com/xap/1.0/"
_MEDIA_MANAGEMENT = b"http://ns.adobe.com/xap/1.0/mm/"
_EVENT = b"http://ns.adobe.com/xap/1.0/sType/ResourceEvent#"
_IPTC = b"http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_USUAL_PREFIXES = {
    b"rdf": _RDF,
    b"xmp": _XMP,
    b"xap": _XMP,
    b"xmpMM": _MEDIA_MANAGEMENT,
    b"xapMM": _MEDIA_MANAGEMENT,
    b"Iptc4xmpExt": _IPTC,
}

ENLARGED_BY_A_NETWORK = b"http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
_SAYS_MORE = re.compile(r"(?:.*[/:])?(?:trainedAlgorithmicMedia|compositeWithTrainedAlgorithmicMedia)/?")
"""Source types that stay: a picture that a network made as a whole is that still when another one has enlarged it.

Programs write them as IPTC's address, by https too, as a code ("digsrctype:..."), or by their name alone.
"""

_ROOT: Name = (_RDF, b"RDF")
_DESCRIPTION: Name = (_RDF, b"Description")
_CREATOR_TOOL: Name = (_XMP, b"CreatorTool")
_HISTORY: Name = (_MEDIA_MANAGEMENT, b"History")
_LISTS = ((_RDF, b"Seq"), (_RDF, b"Bag"))
"""Forms of a history: XMP has the first one; what a program has written as the other one stays, too."""
_SOURCE_TYPE: Name = (_IPTC, b"DigitalSourceType")

_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Source: XML 1.0, 2.2."""

_NEW_PACKET = (
    b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/">\n<rdf:RDF xmlns:rdf="' + _RDF + b'">\n</rdf:RDF>\n</x:xmpmeta>\n'
    b'<?xpacket end="w"?>'
)


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What an enlarged image says about itself."""

    software: str
    """Name and version, such as "realesr 0.1.0"."""
    network: str
    """Name of the network."""
    scale: float
    """Output pixels per input pixel and side."""

    @property
    def summary(self) -> str:
        """Return all three in one line: "realesr 0.1.0 (realesrgan-x4plus, x4)"."""
        return f"{self.software} ({self._by})"

    @property
    def _by(self) -> str:
        return f"{self.network}, x{self.scale:.4g}"

    def parameters(self, former_tool: bytes | None) -> bytes:
        """Return network, scale and the program that the image named before, as XML text."""
        former = b"" if former_tool is None else b"; xmp:CreatorTool was: " + _as_element(former_tool)
        return _xml_text(self._by) + former


def xmp_with_provenance(
    xmp: bytes | None, provenance: Provenance, fmt: OutputFormat
) -> tuple[bytes | None, tuple[str, ...]]:
    """Return an XMP packet that tells how the image was enlarged, and notices.

    Sets xmp:CreatorTool and Iptc4xmpExt:DigitalSourceType, and appends an event to xmpMM:History.

    Args:
        xmp: the packet that the image has; None where it has none.
        provenance: what is written.
        fmt: format of the file that the packet goes into; JPEG bounds its length.

    Returns:
        The packet: a new one where JPEG cannot hold the one that was given; that one where it cannot be edited or would
        not fit any more, even without the spaces at its end.
    """
    if fmt == "jpeg" and xmp is not None and len(xmp) > MOST_XMP_BYTES_IN_JPEG:
        xmp = None  # JPEG cannot hold it, as `realesr.images.output_format.check_output` says
    try:
        told = _told(_NEW_PACKET if xmp is None else xmp, provenance)
    except UneditableError as error:
        return xmp, (f"the XMP packet {error}: that the image was enlarged by a network is not written into it",)
    if fmt == "jpeg" and len(told) > MOST_XMP_BYTES_IN_JPEG:
        told = _without_padding(told)
    if fmt == "jpeg" and len(told) > MOST_XMP_BYTES_IN_JPEG:
        full = "the XMP is as long as JPEG allows: that the image was enlarged by a network is not written into it"
        return xmp, (full,)
    return told, ()


def _told(xmp: bytes, provenance: Provenance) -> bytes:
    """Return the packet with the properties set.

    Raises:
        UneditableError: the packet is not in UTF-8, too long, not well formed, or has no rdf:RDF.
    """
    places: list[Place] = []
    find_structures(xmp, _USUAL_PREFIXES, places.extend)
    parents = _parents(places)
    root = next((place for place in places if place.name == _ROOT), None)
    if root is None:
        raise UneditableError("has no rdf:RDF")
    if root.value_end == root.end:  # "<rdf:RDF .../>"
        return _told(_with_end_tag(xmp, root), provenance)
    top = [place for place in places if _is_top_level(place, parents)]
    tool = next((place for place in top if place.name == _CREATOR_TOOL and place.is_simple), None)
    former = None if tool is None else xmp[tool.value_start : tool.value_end].strip() or None
    event = _event(provenance, former)
    properties = [b"<xmp:CreatorTool>" + _xml_text(provenance.summary) + b"</xmp:CreatorTool>"]
    edits: list[Edit] = [(place.start, place.end, b"") for place in top if place.name == _CREATOR_TOOL]
    types = [place for place in places if _is_source_type(place, parents)]
    if not any(_says_more(xmp[place.value_start : place.value_end]) for place in types):
        edits += [(place.start, place.end, b"") for place in top if place.name == _SOURCE_TYPE]
        source_type = ENLARGED_BY_A_NETWORK
        properties.append(b"<Iptc4xmpExt:DigitalSourceType>" + source_type + b"</Iptc4xmpExt:DigitalSourceType>")
    events_end = _end_of_history(places, parents, top)
    if events_end is None:
        edits += [(place.start, place.end, b"") for place in top if place.name == _HISTORY]
        properties.append(b"<xmpMM:History><rdf:Seq>" + event + b"</rdf:Seq></xmpMM:History>")
    else:
        edits.append((events_end, events_end, event))
    edits.append((root.value_end, root.value_end, _description(_about(xmp, places, parents), properties)))
    return replaced(xmp, edits)


def _without_padding(xmp: bytes) -> bytes:
    """Return the packet without the spaces before its end, which are there for programs that edit it in its file."""
    end = xmp.rfind(b"<?xpacket end")
    return xmp if end < 0 else xmp[:end].rstrip() + b"\n" + xmp[end:]


def _with_end_tag(xmp: bytes, place: Place) -> bytes:
    """Return the packet with "<a:b></a:b>" instead of the "<a:b/>" of a place."""
    qualified = re.split(rb"[\s/]", xmp[place.start + 1 : place.end], maxsplit=1)[0]
    return xmp[: place.end - 2] + b"></" + qualified + b">" + xmp[place.end :]


def _parents(places: list[Place]) -> dict[int, Place]:
    """Return the innermost place around each place, by the place's start; none for the outermost."""
    parents: dict[int, Place] = {}
    around: list[Place] = []
    for place in sorted(places, key=lambda each: (each.start, -each.end)):
        while around and around[-1].end <= place.start:
            around.pop()
        if around:
            parents[place.start] = around[-1]
        around.append(place)
    return parents


def _is_top_level(place: Place, parents: dict[int, Place]) -> bool:
    """Return whether a place is a property of the image itself, not of a structure in its metadata."""
    description = parents.get(place.start)
    root = None if description is None else parents.get(description.start)
    return description is not None and description.name == _DESCRIPTION and root is not None and root.name == _ROOT


def _end_of_history(places: list[Place], parents: dict[int, Place], top: list[Place]) -> int | None:
    """Return where an event is appended to the history; None where there is no history with events."""
    histories = {place.start for place in top if place.name == _HISTORY}
    for place in places:
        parent = parents.get(place.start)
        is_list = place.name in _LISTS and place.value_end < place.end
        if is_list and parent is not None and parent.start in histories:
            return place.value_end
    return None


def _is_source_type(place: Place, parents: dict[int, Place]) -> bool:
    """Return whether a place is the image's source type, or its rdf:resource, where an address may stand as well."""
    if place.name == (_RDF, b"resource") and place.start in parents:
        place = parents[place.start]
    return place.name == _SOURCE_TYPE and _is_top_level(place, parents)


def _says_more(value: bytes) -> bool:
    """Return whether a source type says already that a network made the picture or a part of it."""
    return _SAYS_MORE.fullmatch(unescape(value.decode("utf-8", "replace")).strip()) is not None


def _about(xmp: bytes, places: list[Place], parents: dict[int, Place]) -> bytes:
    """Return the rdf:about of the packet's descriptions, which all of them share."""
    for place in places:
        parent = parents.get(place.start)
        if place.name == (_RDF, b"about") and parent is not None and parent.name == _DESCRIPTION:
            return xmp[place.value_start : place.value_end].replace(b'"', b"&quot;")
    return b""


def _description(about: bytes, properties: list[bytes]) -> bytes:
    """Return a description of the image with these properties, which declares all its prefixes itself."""
    namespaces = {b"rdf": _RDF, b"xmp": _XMP, b"xmpMM": _MEDIA_MANAGEMENT, b"Iptc4xmpExt": _IPTC}
    declared = b"".join(b' xmlns:%s="%s"' % item for item in namespaces.items())
    return b'<rdf:Description rdf:about="%s"%s>%s</rdf:Description>\n' % (about, declared, b"".join(properties))


def _event(provenance: Provenance, former_tool: bytes | None) -> bytes:
    """Return an entry of the history."""
    action = b"filtered" if provenance.scale == 1 else b"resized"
    return (
        b'<rdf:li xmlns:rdf="%s" xmlns:stEvt="%s" rdf:parseType="Resource"><stEvt:action>%s</stEvt:action>'
        b"<stEvt:softwareAgent>%s</stEvt:softwareAgent><stEvt:parameters>%s</stEvt:parameters></rdf:li>"
    ) % (_RDF, _EVENT, action, _xml_text(provenance.software), provenance.parameters(former_tool))


def _xml_text(text: str) -> bytes:
    """Return text as it stands in an XML element, without the characters that XML cannot hold."""
    return escape(_NOT_IN_XML.sub("", text), quote=False).encode()


def _as_element(value: bytes) -> bytes:
    """Return a value of an element or an attribute as an element may have it: "]]>" only where that ends a CDATA."""
    return value if b"<" in value else value.replace(b">", b"&gt;")

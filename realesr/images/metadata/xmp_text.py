"""Edits properties in the text of an XMP packet; every other byte stays. Uses no libraries.

XMP is XML, but writing it through a parser would change prefixes and order that other programs put there. So the text
is scanned once, from front to back, in time and memory proportional to its length; prefixes are resolved to
namespaces, and the places of properties noted, in both forms that RDF allows (attribute and element).

Source of the syntax: XML 1.0, sections 2 and 3; Namespaces in XML 1.0; ISO 16684-1 (XMP), 7.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Name = tuple[bytes, bytes]
"""Namespace and local name."""

MOST_BYTES = 2**24
MOST_PROPERTIES = 300_000
"""Most elements and attributes, an assumption: editing programs write tens of thousands for brush strokes."""

_TAG = re.compile(rb"""</?+([^\s<>/="'!?][^\s<>/="']*+)((?:[^<>"'/]++|"[^"<]*+"|'[^'<]*+'|/(?!>))*+)(/?+)>""")
_ATTRIBUTE = re.compile(rb"""\s++([^\s<>/="']++)\s*+=\s*+(?:"([^"<]*+)"|'([^'<]*+)')""")
_SKIPPED = {b"<!--": b"-->", b"<![CDATA[": b"]]>", b"<?": b"?>"}


class UneditableError(ValueError):
    """The packet is not in a form in which single properties can be edited; the message says why."""


@dataclass
class Place:
    """One property in the text: all of it, and its value."""

    name: Name
    start: int
    value_start: int
    value_end: int
    end: int
    is_simple: bool = True
    """Whether the value is text, not a structure."""


@dataclass
class _Open:
    """An element whose end was not reached yet."""

    qualified: bytes
    name: Name
    start: int
    content_start: int
    prefixes: list[bytes]
    has_children: bool = False
    inside: list[Place] = field(default_factory=list)
    """Properties that it has as a structure: as attributes, and as elements in it."""


def find_structures(xmp: bytes, conventional: Mapping[bytes, bytes], visit: Callable[[list[Place]], None]) -> None:
    """Call `visit` with the properties of each structure of a packet in UTF-8, the innermost first.

    Args:
        xmp: the packet.
        conventional: namespaces by prefix, for prefixes that the packet does not declare.
        visit: called once for each element that has properties.

    Raises:
        UneditableError: the packet is too long, or not well formed.
    """
    if len(xmp) > MOST_BYTES:
        raise UneditableError(f"has {len(xmp):,} bytes, more than {MOST_BYTES:,}")
    if b"\0" in xmp.rstrip(b"\0"):  # some programs pad packets with zeros, or end them as strings of C
        raise UneditableError("is not in UTF-8")
    namespaces: dict[bytes, list[bytes]] = {prefix: [uri] for prefix, uri in conventional.items()}
    root = _Open(b"", (b"", b""), 0, 0, [])
    path = [root]
    at = count = 0
    while (at := xmp.find(b"<", at)) >= 0:
        tag = _TAG.match(xmp, at)
        if tag is None:
            at = _behind_skipped(xmp, at)
            continue
        at = tag.end()
        if xmp[tag.start() + 1] == ord("/"):
            _close(path, namespaces, tag, visit)
            continue
        count += 1 + _open(path, namespaces, tag, xmp, MOST_PROPERTIES - count)
        if count > MOST_PROPERTIES:
            raise UneditableError(f"has more than {MOST_PROPERTIES:,} properties")
        if tag[3]:
            _end(path, namespaces, tag.end(), tag.end(), visit)
    if len(path) > 1:
        raise UneditableError("is not well formed: it ends inside an element")
    visit(root.inside)


def _behind_skipped(xmp: bytes, at: int) -> int:
    """Return the position behind the comment, character data or instruction that begins at `at`."""
    mark = next((mark for mark in _SKIPPED if xmp.startswith(mark, at)), None)
    end = xmp.find(_SKIPPED[mark], at + len(mark)) if mark else -1
    if mark is None or end < 0:
        raise UneditableError(f"is not well formed near byte {at}")
    return end + len(_SKIPPED[mark])


def _open(path: list[_Open], namespaces: dict[bytes, list[bytes]], tag: re.Match[bytes], xmp: bytes, most: int) -> int:
    """Add an element to the path, with its attributes as properties of its own; return how many it has.

    Attributes are read up to `most`.
    """
    attributes: list[re.Match[bytes]] = []
    at = tag.start(2)
    while len(attributes) <= most and (found := _ATTRIBUTE.match(xmp, at, tag.end(2))):
        attributes.append(found)
        at = found.end()
    if len(attributes) <= most and xmp[at : tag.end(2)].strip():
        raise UneditableError(f"is not well formed near byte {at}")
    prefixes = []
    for found in attributes:
        if found[1] == b"xmlns" or found[1].startswith(b"xmlns:"):
            prefix = found[1][6:]
            namespaces.setdefault(prefix, []).append(found[2] if found[3] is None else found[3])
            prefixes.append(prefix)
    path[-1].has_children = True
    path.append(_Open(tag[1], _resolve(tag[1], namespaces), tag.start(), tag.end(), prefixes))
    for found in attributes:
        if b":" in found[1] and not found[1].startswith((b"xmlns", b"xml:")):
            group = 2 if found[3] is None else 3
            name = _resolve(found[1], namespaces)
            path[-1].inside.append(Place(name, found.start(), found.start(group), found.end(group), found.end()))
    return len(attributes)


def _close(
    path: list[_Open],
    namespaces: dict[bytes, list[bytes]],
    tag: re.Match[bytes],
    visit: Callable[[list[Place]], None],
) -> None:
    """End the last element of the path at its end tag."""
    if tag[1] != path[-1].qualified or len(path) == 1 or tag[2].strip():
        raise UneditableError(f"is not well formed near byte {tag.start()}")
    _end(path, namespaces, tag.start(), tag.end(), visit)


def _end(
    path: list[_Open],
    namespaces: dict[bytes, list[bytes]],
    content_end: int,
    end: int,
    visit: Callable[[list[Place]], None],
) -> None:
    """Take the last element off the path, and note it as a property of the one around it."""
    element = path.pop()
    for prefix in element.prefixes:
        namespaces[prefix].pop()
    if element.inside:
        visit(element.inside)
    simple = not element.has_children and content_end != end
    path[-1].inside.append(Place(element.name, element.start, element.content_start, content_end, end, simple))


def _resolve(qualified: bytes, namespaces: dict[bytes, list[bytes]]) -> Name:
    """Return namespace and local name of a qualified name; the namespace is empty where the prefix is unknown."""
    prefix, _, local = qualified.rpartition(b":")
    known = namespaces.get(prefix)
    return (known[-1].strip() if known else b"", local)


def replaced(xmp: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    """Return the text with parts replaced, each (start, end, new text); of nested parts the outermost counts."""
    parts, at = [], 0
    for start, end, text in sorted(edits, key=lambda edit: (edit[0], -edit[1])):
        if start >= at:
            parts += [xmp[at:start], text]
            at = end
    return b"".join([*parts, xmp[at:]])

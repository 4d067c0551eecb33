"""Makes names that clients send harmless: for display, for downloads and inside ZIP files. They never become paths."""

import itertools
import re
import unicodedata
from collections.abc import Sequence
from urllib.parse import quote

NAMELESS = "image"
MOST_CHARS = 120

_FORBIDDEN = re.compile(r'[/\\<>:"|?*%]')
_EDGE = re.compile(r"^[\s.]+|[\s.]+$")
"""White space of any kind and dots, with which no name may begin or end."""
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
"""Names of devices, with any suffix. Source: Win32's "Naming Files, Paths, and Namespaces"."""


def harmless_name(sent: str) -> str:
    """Return the last part of a name that a client has sent, as one that every system takes for a file.

    Controls, marks that turn the direction of writing, and what a system forbids are left out or become `_`.
    """
    last = re.split(r"[/\\]", unicodedata.normalize("NFC", sent))[-1]
    seen = "".join(char for char in last if unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp"))
    name = _EDGE.sub("", _FORBIDDEN.sub("_", seen))
    if _DEVICE.match(name):
        name = f"_{name}"
    stem, dot, suffix = name.rpartition(".")
    if len(name) > MOST_CHARS and dot and len(suffix) <= 8:
        return f"{stem[: MOST_CHARS - len(suffix) - 1]}.{suffix}"
    return _EDGE.sub("", name[:MOST_CHARS]) or NAMELESS


def attachment(name: str) -> str:
    """Return the header Content-Disposition that offers a download under a name. Source: RFC 6266, 4.3, appendix D."""
    plain = name.encode("ascii", "replace").decode().replace("?", "_")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def numbered(names: Sequence[str]) -> list[str]:
    """Return names of which no two are the same, also where case does not count: a.png, a (2).png, a (3).png."""
    taken: set[str] = set()
    different = []
    for name in names:
        stem, dot, suffix = name.rpartition(".") if "." in name else (name, "", "")
        candidates = (f"{stem} ({number}){dot}{suffix}" for number in itertools.count(2))
        while name.lower() in taken:
            name = next(candidates)
        taken.add(name.lower())
        different.append(name)
    return different

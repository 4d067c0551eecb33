"""A public list of networks: reads it, searches it, and finds one network in it by its name.

The list is that of OpenModelDB (https://openmodeldb.info), which is under the GPL and is therefore read when it is
asked for, never shipped. Its layout: OpenModelDB/open-model-database, src/lib/schema.ts (the fields of an entry) and
scripts/generate-api.ts (one JSON object, name -> entry). Anybody may put anything into such a list: whatever a field
holds that it should not counts as missing, and an entry that cannot be understood is kept with the reason.
"""

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from realesr.errors import ModelError, UsageError
from realesr.models.addresses import is_web_address
from realesr.models.licences import is_permissive
from realesr.models.torch_file import printable

OPENMODELDB = "https://openmodeldb.info/api/v1/models.json"
"""Address of OpenModelDB's own list: 1.4 MB or more, with 671 networks in August 2026."""

FAMILY_OF: Mapping[str, str] = {"esrgan": "rrdb", "compact": "compact", "span": "span"}
"""Architecture as the list has it -> family of `realesr.models.recognition.FAMILIES`. Variants of other layers, such as
"esrgan+" and "esrgan-2c2", are none of ours."""

MOST_LIST_BYTES = 32_000_000
"""Most bytes of a list: some twenty times OpenModelDB's."""

_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,98}[A-Za-z0-9_-])?")
"""Names that are safe as names of files and in messages. OpenModelDB's own (ModelIdPattern) are stricter."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_MOST_DESCRIPTION_CHARACTERS = 5000
_MOST_NAMED = 3
"""Most names that a message proposes."""


@dataclass(frozen=True, kw_only=True)
class CatalogueFile:
    """One of the files in which a network of the list is published."""

    type: str
    """Kind of file: "pth", "safetensors", "onnx", ..."""
    bytes: int | None
    """Its size, where the list tells."""
    sha256: str | None
    """Its SHA-256: 64 hexadecimal digits in lower case, where the list tells."""
    urls: tuple[str, ...]
    """Addresses as the list has them: of the file, of a page that leads to it, or of no use."""


@dataclass(frozen=True, kw_only=True)
class CatalogueEntry:
    """One network of the list. Texts are one line each, without characters that a terminal would obey."""

    name: str
    """Name by which it is pulled, and used afterwards: a letter, digit or "_", then also "-" and "."."""
    title: str
    """Name as its author wrote it."""
    author: str
    """All authors, with commas; empty where none is named."""
    licence: str | None
    """SPDX expression; None where none is stated."""
    architecture: str
    """Architecture as the list has it, in lower case."""
    scale: int | None
    """Output pixels per input pixel and side."""
    channels: tuple[int | None, int | None]
    """Channels that it takes and gives."""
    tags: tuple[str, ...]
    description: str
    files: tuple[CatalogueFile, ...]

    @property
    def is_ours(self) -> bool:
        """Return whether its architecture is one that realesr runs."""
        return self.architecture in FAMILY_OF

    @property
    def is_permissive(self) -> bool:
        """Return whether its licence is permissive; see `realesr.models.licences`."""
        return is_permissive(self.licence)


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """A list of networks that has been read."""

    source: str
    """Address or file of the list."""
    entries: Mapping[str, CatalogueEntry]
    """Networks by name, in the order of the list."""
    faults: Mapping[str, str]
    """What is wrong with the entries that cannot be used, by the name that the list has for them."""


def read_catalogue(source: str | Path = OPENMODELDB) -> Catalogue:
    """Read a list of networks.

    Args:
        source: an address of http or https, or a file.

    Raises:
        UsageError: an address of another kind.
        ModelError: there is no such file or no connection, the list has more than `MOST_LIST_BYTES`, is no JSON, or is
            JSON of another layout.
    """
    text = str(source)
    data = _downloaded(text) if "://" in text else _file_bytes(Path(source).expanduser())
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        detail = printable(" ".join(str(error)[:100].split()))
        raise ModelError(
            f"{printable(text)} is no list of networks: expected JSON, got something else ({detail})"
        ) from error
    return _catalogue(text, found)


def find(catalogue: Catalogue, name: str) -> CatalogueEntry:
    """Return the network of this name, or of this title where only one has it; capitals do not matter.

    Raises:
        ModelError: there is none, or its entry cannot be used; the message says why, or has similar names.
    """
    if name in catalogue.entries:
        return catalogue.entries[name]
    if name in catalogue.faults:
        raise ModelError(f"{printable(name)} is in the list, but cannot be used: {catalogue.faults[name]}")
    wanted = name.casefold()
    found = [entry for entry in catalogue.entries.values() if entry.name.casefold() == wanted]
    found = found or [entry for entry in catalogue.entries.values() if entry.title.casefold() == wanted]
    if len(found) == 1:
        return found[0]
    near = [entry.name for entry in found[:_MOST_NAMED]] or _near_names(catalogue, wanted)
    advice = f"did you mean {', '.join(near)}?" if near else "search the list for words of its name"
    raise ModelError(f"no network of {printable(catalogue.source)} is called {printable(name)}: {advice}")


def search(catalogue: Catalogue, words: Iterable[str]) -> list[CatalogueEntry]:
    """Return the networks that have every word in name, title, author, tags or description, in the list's order.

    Args:
        words: parts of words count, capitals do not; none at all finds every network.
    """
    wanted = [word.casefold() for word in words]
    return [entry for entry in catalogue.entries.values() if all(word in _searched(entry) for word in wanted)]


def is_safe_name(name: str) -> bool:
    """Return whether a network may have this name: it is a file's name, too."""
    return _NAME.fullmatch(name) is not None


def _searched(entry: CatalogueEntry) -> str:
    return "\n".join((entry.name, entry.title, entry.author, *entry.tags, entry.description)).casefold()


def _near_names(catalogue: Catalogue, wanted: str) -> list[str]:
    names = {name.casefold(): name for name in catalogue.entries}
    return [names[near] for near in difflib.get_close_matches(wanted, names, n=_MOST_NAMED, cutoff=0.6)]


def _file_bytes(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise ModelError(f"{path} is no file: expected a list of networks, as JSON")
        size = path.stat().st_size
        if size > MOST_LIST_BYTES:
            raise _too_large(str(path), size)
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error


def _downloaded(url: str) -> bytes:
    """Return what is at an address; raises ModelError where it cannot be had, or is too much for a list."""
    if not is_web_address(url):
        raise UsageError(f"got {printable(url)} as the list: expected an address of http or https, or a file")
    # A list in a file need not wait for the import of requests.
    from realesr.models.http_pieces import BrokenError, RefusedError, received

    content = bytearray()
    try:
        with closing(received(url, 0)) as pieces:
            for piece in pieces:
                content += piece.content
                size = max(len(content), piece.total or 0)
                if size > MOST_LIST_BYTES:
                    raise _too_large(url, size)
    except (BrokenError, RefusedError) as error:
        raise ModelError(
            f"the list of networks at {url} cannot be had ({error}): check the connection, or save the list as a file "
            "elsewhere and give that file"
        ) from error
    return bytes(content)


def _too_large(source: str, size: int) -> ModelError:
    return ModelError(
        f"{source} has {size:,} bytes or more: expected a list of networks, at most {MOST_LIST_BYTES:,} bytes"
    )


def _catalogue(source: str, found: Any) -> Catalogue:
    entries, faults = {}, {}
    for name, value in found.items() if isinstance(found, dict) else ():
        fault = _fault(name, value)
        if fault is None:
            entries[name] = _entry(name, value)
        else:
            faults[name] = fault
    if not entries:
        raise ModelError(
            f"{printable(source)} is no list of networks: expected one JSON object with an object for each network, by "
            f"name, as OpenModelDB has it"
        )
    return Catalogue(source=source, entries=entries, faults=faults)


def _fault(name: str, value: Any) -> str | None:
    if not is_safe_name(name):
        return "its name is no safe name of a file: expected letters, digits, '-', '_' and '.', at most 100 of them"
    if not isinstance(value, dict) or not isinstance(value.get("architecture"), str):
        return "it has no architecture: expected an object with the fields of OpenModelDB"
    return None


def _entry(name: str, value: Mapping[str, Any]) -> CatalogueEntry:
    files = value.get("resources")
    return CatalogueEntry(
        name=name,
        title=_text(value.get("name")) or name,
        author=", ".join(_texts(value.get("author"))),
        licence=_text(value.get("license")) or None,
        architecture=_text(value["architecture"]).lower(),
        scale=_count(value.get("scale")),
        channels=(_count(value.get("inputChannels")), _count(value.get("outputChannels"))),
        tags=tuple(_texts(value.get("tags"))),
        description=_description(value.get("description")),
        files=tuple(_file(file) for file in files if isinstance(file, dict)) if isinstance(files, list) else (),
    )


def _file(value: Mapping[str, Any]) -> CatalogueFile:
    sha256 = _text(value.get("sha256")).lower()
    urls = value.get("urls")
    return CatalogueFile(
        type=_text(value.get("type")).lower(),
        bytes=_count(value.get("size")),
        sha256=sha256 if _SHA256.fullmatch(sha256) else None,
        urls=tuple(url for url in urls if isinstance(url, str)) if isinstance(urls, list) else (),
    )


def _text(value: Any) -> str:
    """Return a text as one printable line; an empty one where the value is none."""
    return printable(" ".join(value.split())) if isinstance(value, str) else ""


def _texts(value: Any) -> list[str]:
    """Return the texts of a list, or of one text alone, that are not empty."""
    values = value if isinstance(value, list) else [value]
    return [text for text in map(_text, values) if text]


def _description(value: Any) -> str:
    words = value[:_MOST_DESCRIPTION_CHARACTERS].split() if isinstance(value, str) else ()
    return "".join(char if char.isprintable() else "?" for char in " ".join(words))


def _count(value: Any) -> int | None:
    """Return a whole number of 1 to 64 bit, or None where the value is none; true is none."""
    return value if type(value) is int and 0 < value < 2**64 else None

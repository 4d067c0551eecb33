"""Shows names of files in messages: quoted and escaped where a terminal must not get them as they are.

A name may hold anything but "/" and NUL: line breaks, escape sequences, marks that turn the direction of writing, and
bytes that are no text, which Python holds as surrogates.
"""

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

_UNSAFE_CATEGORIES = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
"""Controls, formats, surrogates, separators of lines and paragraphs. Source: Unicode, chapter 4.5."""

_JOINERS = "\u200c\u200d"
"""Parts of ordinary words and emoji, which are formats, too, but do nothing to the text around them."""

_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t", "\\": r"\\", "'": r"\'"}


def is_printable(text: str) -> bool:
    """Return whether a terminal shows `text` as it is, in one line."""
    return not any(map(_is_unsafe, text))


def shown(name: str | Path) -> str:
    """Return a name as messages show it: as it is where that is printable, else quoted, with escapes as in Python."""
    text = str(name)
    if is_printable(text):
        return text
    return "'" + "".join(_escape(char) if _is_unsafe(char) or char in "\\'" else char for char in text) + "'"


def escaped(text: str, *, keeps: str = "") -> str:
    """Return text with escapes for everything that a terminal would obey, but for the characters in `keeps`."""
    return "".join(_escape(char) if _is_unsafe(char) and char not in keeps else char for char in text)


def one_line(text: str) -> str:
    """Return text of several lines as one, with escapes; spaces within a line stay."""
    return escaped(re.sub(r"\s*\n\s*", " ", text.strip()))


def quoted_names(text: str, paths: Iterable[Path]) -> str:
    """Return text in which these paths, their folders and names stand as `shown` returns them."""
    names = {name for path in paths for name in (str(path), path.name, *map(str, path.parents))}
    unsafe = sorted((name for name in names if not is_printable(name)), key=len, reverse=True)
    if not unsafe:
        return text
    return re.sub("|".join(map(re.escape, unsafe)), lambda found: shown(found[0]), text)


def _is_unsafe(char: str) -> bool:
    return unicodedata.category(char) in _UNSAFE_CATEGORIES and char not in _JOINERS


def _escape(char: str) -> str:
    r"""Return the escape of a character; a byte that is no text as \xe9."""
    if char in _SHORT:
        return _SHORT[char]
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # surrogateescape, PEP 383
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

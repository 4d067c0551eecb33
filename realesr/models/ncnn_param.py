"""Parses the text half of ncnn's pair of files: the lines of a .param file and their numbered parameters.

Source: Tencent/ncnn, docs/developer-guide/param-and-model-file-structure.md.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NoReturn

from realesr.errors import ModelError

_MAGIC = "7767517"

_MAX_CHARACTERS = 1 << 24
"""Longest .param file that is read. Assumption: 100 times the largest released network's, which has 999 layers."""

_MAX_LINES, _MAX_WORDS, _MAX_WORD_CHARACTERS = 1 << 14, 1 << 10, 1 << 12
"""Lines of a file, words of a line, and characters of a word that are read: a few characters become a word or a number
of some 50 bytes, a line becomes a layer of some thousand."""

_LARGEST = 1 << 62
"""Largest integer parameter that is read."""


@dataclass(frozen=True)
class Line:
    """One line of a .param file: a layer in ncnn's words. Blob is ncnn's word for a result."""

    kind: str
    inputs: tuple[str, ...]
    """Blobs that it reads."""
    outputs: tuple[str, ...]
    """Blobs that it produces."""
    keys: dict[str, str]
    """Parameter number -> value; floats in their shortest form."""

    @cached_property
    def text(self) -> str:
        """Return the kind and the parameters, for people."""
        return " ".join([self.kind[:60], *(f"{key[:20]}={value[:60]}" for key, value in self.keys.items())])

    def fail(self, expected: str) -> NoReturn:
        """Raise ModelError about this line."""
        raise ModelError(f"the ncnn graph has a layer {self.text[:200]}: expected {expected}")

    def integer(self, key: str, default: int | None = None) -> int:
        """Return an integer parameter.

        Raises:
            ModelError: It is missing and has no default, is no integer, or is larger than any layer needs.
        """
        if key not in self.keys and default is not None:
            return default
        try:
            value = int(self.keys[key])
        except (KeyError, ValueError):
            raise ModelError(f"the ncnn graph has a {self.kind[:60]} without a number {key}") from None
        return value if abs(value) <= _LARGEST else self.fail(f"a number {key} of at most {_LARGEST}")

    def floats(self, number: int) -> tuple[float, ...]:
        """Return the elements of an array parameter; empty where the line has none.

        Its key in the file is -23300 - number, and its first word is its length.

        Raises:
            ModelError: An element is no number, or there are more or fewer than the length says.
        """
        words = self.keys.get(str(-23300 - number), "0").split(",")
        try:
            values = tuple(float(word) for word in words[1:])
            if len(values) == int(words[0]):
                return values
        except ValueError:
            pass
        self.fail(f"as many numbers in array {number} as it announces")

    def scalar(self, key: str) -> float:
        """Return a floating-point parameter; 0 where the line has none.

        Raises:
            ModelError: It is no number.
        """
        try:
            return float(self.keys.get(key, "0"))
        except ValueError:
            self.fail(f"a number {key}")


def parse_param(param: str) -> list[Line]:
    """Parse the text of a .param file; the lines stand in the order of execution.

    Raises:
        ModelError: It is no .param file in text form, or lines are missing or malformed.
    """
    if len(param) > _MAX_CHARACTERS:
        raise ModelError(
            f"an ncnn .param has {len(param):,} characters: expected a network, at most {_MAX_CHARACTERS:,}"
        )
    line_count = param.count("\n")
    if line_count > _MAX_LINES:
        raise ModelError(f"an ncnn .param has {line_count:,} lines: expected a network, at most {_MAX_LINES:,}")
    lines = param.split("\n")
    if lines[0].strip() != _MAGIC:
        raise ModelError(f"an ncnn .param begins with {lines[0][:20]!r}, expected {_MAGIC}: is it the text form?")
    parsed = [_parse_line(line) for line in lines[2:] if line.strip()]
    expected = lines[1][:100].split()[:1] if len(lines) > 1 else []
    if [str(len(parsed))] != expected:
        raise ModelError(f"an ncnn .param announces {' '.join(expected)} layers but holds {len(parsed)}: truncated?")
    return parsed


def _parse_line(line: str) -> Line:
    words = line.split(maxsplit=_MAX_WORDS)
    try:
        if len(words) > _MAX_WORDS or len(max(words, key=len)) > _MAX_WORD_CHARACTERS:
            raise ValueError
        first_output, first_key = 4 + int(words[2]), 4 + int(words[2]) + int(words[3])
        keys = dict(word.split("=", 1) for word in words[first_key:])
        keys = {key: shortest(value) for key, value in keys.items()}
        if not 4 <= first_output <= first_key <= len(words):
            raise ValueError
    except (ValueError, IndexError):
        raise ModelError(f"an ncnn .param has the line {line[:60]!r}, expected a layer") from None
    return Line(words[0], tuple(words[4:first_output]), tuple(words[first_output:first_key]), keys)


def shortest(value: str) -> str:
    """Return a parameter's value with each float in its shortest form: 2.000000e-01 becomes 0.2."""
    return ",".join(_shortest_number(word) if "e" in word or "." in word else word for word in value.split(","))


def _shortest_number(word: str) -> str:
    """Return a number in as few digits as float32 allows."""
    value = float(word)
    return text if float(text := f"{value:g}") == value else f"{value:.9g}"

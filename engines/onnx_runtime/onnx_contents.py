"""Reads what an ONNX file consists of before any library parses it: its operators, their number, and its metadata.

A parser makes some hundred bytes of two, and an operator with a body (Loop, Scan, If) can run for ever. So the file's
fields are walked here, without a copy of its weights, and what no network for images needs is refused by name. What a
graph of harmless operators can still do, `first_run.py` bounds.

Field numbers: onnx/onnx.proto. Encoding: protobuf.dev/programming-guides/encoding.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from realesr.errors import ModelError

_MAX_FILE_BYTES = (1 << 31) - 1
"""What protobuf can read; larger networks keep their weights in files beside the graph."""

_MAX_FIELDS, _MAX_NODES = 1 << 19, 1 << 16
"""Assumption: ten times the largest network for images, a transformer in single operators."""

_MAX_TEXT_BYTES = 1 << 16

_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""Sets of operators that ONNX Runtime has by itself."""

_MODEL_GRAPH, _MODEL_METADATA, _MODEL_FUNCTION = 7, 14, 25
_GRAPH_NODE, _GRAPH_INITIALIZER = 1, 5
_FUNCTION_NODE, _FUNCTION_DOMAIN = 7, 10
_NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN = 4, 5, 7
_ATTRIBUTE_GRAPHS = frozenset({6, 11})
_TENSOR_EXTERNAL = 13
_ENTRY_KEY, _ENTRY_VALUE = 1, 2


@dataclass
class OnnxContents:
    """What is in a file."""

    operators: Counter[str] = field(default_factory=Counter)
    """How often each operator occurs; those of other sets than ONNX's have the set's name before them."""
    metadata: dict[str, str] = field(default_factory=dict)
    stored_bytes: int = 0
    """Size of the file and of those beside it that hold its weights."""


def read_contents(path: Path) -> OnnxContents:
    """Read what an ONNX file consists of.

    Raises:
        ModelError: It is damaged, too large, or has operators with bodies or of sets that ONNX Runtime lacks.
    """
    size = path.stat().st_size
    if size > _MAX_FILE_BYTES:
        raise ModelError(f"{path} has {size:,} bytes, expected at most {_MAX_FILE_BYTES:,}: keep its weights beside it")
    try:
        with path.open("rb") as file:
            return _Scan(path, file).contents(size)
    except (_Damaged, UnicodeDecodeError) as error:
        raise ModelError(
            f"{path} cannot be opened as an ONNX network: it is damaged, incomplete or none; fetch or export it again"
        ) from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error


class _Damaged(Exception):  # noqa: N818
    """The bytes are no fields."""


@dataclass(frozen=True)
class _Span:
    """A field's content: its number, first byte and end."""

    number: int
    start: int
    end: int


class _Scan:
    """One walk through a file."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path = path
        self._file = file
        self._fields_left = _MAX_FIELDS
        self._found = OnnxContents()
        self._domains = set(_DOMAINS)
        self._beside: set[str] = set()

    def contents(self, size: int) -> OnnxContents:
        spans = list(self._spans(_Span(0, 0, size), {_MODEL_GRAPH, _MODEL_METADATA, _MODEL_FUNCTION}))
        if not any(span.number == _MODEL_GRAPH for span in spans):
            raise _Damaged
        for span in spans:
            if span.number == _MODEL_METADATA:
                key, value = self._entry(span)
                self._found.metadata[key] = value
            elif span.number == _MODEL_FUNCTION:
                self._domains |= {self._text(part) for part in self._spans(span, {_FUNCTION_DOMAIN})}
        for span in spans:
            self._read_nodes(span)
        folder = self._path.parent
        beside = [folder / name for name in self._beside]
        self._found.stored_bytes = size + sum(file.stat().st_size for file in beside if file.is_file())
        return self._found

    def _read_nodes(self, graph: _Span) -> None:
        """Count the operators of the graph, or of a function."""
        wanted = {_MODEL_GRAPH: {_GRAPH_NODE, _GRAPH_INITIALIZER}, _MODEL_FUNCTION: {_FUNCTION_NODE}}
        for span in self._spans(graph, wanted.get(graph.number, set())):
            if graph.number == _MODEL_GRAPH and span.number == _GRAPH_INITIALIZER:
                self._read_initializer(span)
            else:
                self._read_node(span)

    def _read_node(self, node: _Span) -> None:
        name = domain = ""
        has_body = False
        for span in self._spans(node, {_NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN}):
            if span.number == _NODE_OPERATOR:
                name = self._text(span)
            elif span.number == _NODE_DOMAIN:
                domain = self._text(span)
            else:
                has_body = has_body or any(True for _ in self._spans(span, _ATTRIBUTE_GRAPHS))
        if has_body:
            raise ModelError(
                f"{self._path} has the operator {_shown(name)}, whose body may run without end: expected a network "
                "without If, Loop or Scan; export it again without control flow"
            )
        if domain not in self._domains:
            raise ModelError(
                f"{self._path} needs the operator {_shown(name)} of {_shown(domain)}: expected those of ONNX alone; "
                "export it again without custom operators"
            )
        self._found.operators[name if domain in ("", "ai.onnx") else f"{domain}.{name}"] += 1
        if self._found.operators.total() > _MAX_NODES:
            raise ModelError(f"{self._path} has more than {_MAX_NODES:,} operators: expected a network for images")

    def _read_initializer(self, tensor: _Span) -> None:
        """Note the file beside this one that holds the numbers of a tensor, if any."""
        for span in self._spans(tensor, {_TENSOR_EXTERNAL}):
            key, value = self._entry(span)
            if key == "location":
                self._beside.add(value)

    def _entry(self, entry: _Span) -> tuple[str, str]:
        texts = {span.number: self._text(span) for span in self._spans(entry, {_ENTRY_KEY, _ENTRY_VALUE})}
        return texts.get(_ENTRY_KEY, ""), texts.get(_ENTRY_VALUE, "")

    def _text(self, span: _Span) -> str:
        """Return a text; one that is longer than any that is needed as if it were empty."""
        if span.end - span.start > _MAX_TEXT_BYTES:
            return ""
        self._file.seek(span.start)
        return self._file.read(span.end - span.start).decode("utf-8")

    def _spans(self, message: _Span, wanted: set[int] | frozenset[int]) -> Iterator[_Span]:
        """Yield the fields of a message that have these numbers and a length of their own."""
        at = message.start
        while at < message.end:
            self._fields_left -= 1
            if self._fields_left < 0:
                raise ModelError(f"{self._path} has more than {_MAX_FIELDS:,} fields: expected a network for images")
            tag, at = self._varint(at)
            match tag & 7:
                case 0:
                    _, end = self._varint(at)
                case 1:
                    end = at + 8
                case 2:
                    length, at = self._varint(at)
                    end = at + length
                case 5:
                    end = at + 4
                case _:
                    raise _Damaged
            if end > message.end:
                raise _Damaged
            if tag & 7 == 2 and tag >> 3 in wanted:
                yield _Span(tag >> 3, at, end)
            at = end

    def _varint(self, at: int) -> tuple[int, int]:
        """Return the number at a byte, and the byte behind it."""
        self._file.seek(at)
        number = 0
        for place, byte in enumerate(self._file.read(10)):
            number |= (byte & 0x7F) << 7 * place
            if byte < 0x80:
                return number, at + place + 1
        raise _Damaged


def _shown(name: str) -> str:
    """Return a name from the file, safe to print."""
    return repr(name[:60]) if not name.isprintable() or not name else name[:60]

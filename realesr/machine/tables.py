"""Makes frozen dataclasses out of TOML and JSON, and collects everything that is wrong with them before it gives up."""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from realesr.errors import ModelError, UsageError

T = TypeVar("T")

_MOST_LEVELS = 16
"""Tables and lists within each other that are read; what is made of them has three."""
_LINES_SHOWN = 8

_NOUN, _KINDS = "noun of the tables", "kinds of the tables"
"""Keys of a field's metadata; see `one_of_tables`."""

_UNUSABLE: Any = object()
"""Stands for a value that something is wrong with, so that the search goes on without it."""


class TableError(UsageError):
    """All that is wrong with a table; `lines` has one problem a line."""

    def __init__(self, what: str, lines: Sequence[str]) -> None:
        self.lines = tuple(lines)
        count = "one problem" if len(lines) == 1 else f"{len(lines)} problems"
        more = f"; and {len(lines) - _LINES_SHOWN} more" if len(lines) > _LINES_SHOWN else ""
        super().__init__(f"{what} has {count}: {'; '.join(lines[:_LINES_SHOWN])}{more}")


def one_of_tables(noun: str, kinds: Mapping[str, type]) -> dict[str, Any]:
    """Return the metadata of a field whose value is one of several tables: [name] is read as `kinds[name]`.

    Args:
        noun: what the field is, for messages: "got no network or two".
        kinds: name of each table -> the dataclass that is made of it.
    """
    return {_NOUN: noun, _KINDS: kinds}


def read_toml(text: str, what: str) -> dict[str, Any]:
    """Parse TOML that a person wrote.

    Raises:
        UsageError: it is no TOML, or nothing that anybody wants to read: nested too deeply, numbers of 5,000 digits.
    """
    import tomllib

    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{what} is no TOML: {_printable(str(error))}") from None
    except (ValueError, RecursionError):
        raise UsageError(f"{what} has too many digits or levels: expected numbers and tables of a sane size") from None
    _check_levels(table, what)
    return table


def range_problems(options: object, ranges: Mapping[str, tuple[float, float]]) -> Iterator[str]:
    """Yield a line for each field of `options` that is outside its range (both ends are inside); None is no value."""
    for name, (least, most) in ranges.items():
        value = getattr(options, name)
        if value is not None and not least <= value <= most:
            yield f"got {name} = {_shown(value)}, expected {least:,} to {most:,}"


def read_table(kind: type[T], table: Mapping[str, Any], where: str, problems: list[str], base: T | None = None) -> T:
    """Make a dataclass from a table that a person wrote.

    What is wrong with some keys hides nothing: the dataclass is made of the others all the same, so that its own checks
    are made. Where one that it cannot be made without is missing or wrong, RANGES is checked, if the class has it: name
    of a field -> least and most.

    Args:
        kind: a dataclass; fields without default must be in the table, unless there is a `base`.
        table: key -> value, as tomllib gives them; tables within it become dataclasses within the dataclass. The word
            "none" stands for None.
        where: the table's name in the file, like "stage1"; empty for the file itself.
        problems: what is wrong is added here, a line each.
        base: values of the keys that the table does not have.

    Returns:
        The value; where problems were found, something that must not be used, so that the search can go on.
    """
    made = _Reader(problems, is_record=False).table(kind, table, where, base)
    return typing.cast(T, base if made is _UNUSABLE else made)


def read_record(kind: type[T], record: object, what: str) -> T:
    """Make a dataclass from what `dataclasses.asdict` made of it, also after a round trip through JSON text.

    Args:
        kind: a dataclass. Every field must be in the record, and nothing else.
        record: an object of JSON.
        what: what it is called in the error, like "the parameters".

    Raises:
        TableError: all that is wrong with it.
    """
    if not isinstance(record, Mapping):
        raise TableError(what, [f"got {record!r:.80}, expected an object with keys"])
    problems: list[str] = []
    made: T = _Reader(problems, is_record=True).table(kind, record, "", None)
    if problems:
        raise TableError(what, problems)
    return made


def set_key(table: dict[str, Any], assignment: str) -> None:
    """Apply "stage1.batch=4" to a table; the value is written as in TOML, and bare words are texts.

    Raises:
        UsageError: there is no "=", or a key leads through something that is no table.
    """
    path, equals, text = assignment.partition("=")
    *folders, key = [part.strip() for part in path.split(".")]
    shown = _printable(assignment)
    if not equals or not all([*folders, key]) or len(folders) > _MOST_LEVELS:
        raise UsageError(f"got the change {shown}, expected key=value, like stage1.batch=4")
    for folder in folders:
        table = table.setdefault(folder, {})
        if not isinstance(table, dict):
            raise UsageError(f"got the change {shown}, but {_printable(folder)} is a value and has no keys")
    table[key] = _value_of(text, shown)


def _value_of(text: str, shown: str) -> Any:
    """Return the one value of TOML that a text is; else the text itself."""
    import tomllib

    try:
        table = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text.strip()
    except (ValueError, RecursionError):
        raise UsageError(f"the change {shown} has too many digits or levels") from None
    _check_levels(table, f"the change {shown}")
    return table["value"] if len(table) == 1 else text.strip()


def _check_levels(table: object, what: str) -> None:
    """Raise UsageError where tables and lists are nested more deeply than anything that recurses over them may go."""
    level = [table]
    for _ in range(_MOST_LEVELS):
        level = [inner for outer in level for inner in _inner(outer)]
    if level:
        raise UsageError(f"{what} has tables or lists within each other, more than {_MOST_LEVELS} deep")


def _inner(value: object) -> Iterator[object]:
    values = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return (each for each in values if isinstance(each, Mapping | list | tuple))


def _shown(value: object) -> str:
    """Return a value for a message: in one line, cut, without control characters."""
    try:
        return f"{value!r:.80}"
    except ValueError:  # Python writes no integers of more than 4,300 digits
        return "a number of thousands of digits"


def _printable(text: str) -> str:
    """Return a text of somebody else's for a message, cut, without control characters."""
    text = text if len(text) <= 80 else f"{text[:80]}..."
    return text if text.isprintable() else ascii(text)


@dataclass(frozen=True)
class _Entry:
    """A key that a table may have."""

    field: "dataclasses.Field[Any]"
    hint: Any
    """Type of its value."""
    noun: str = ""
    """Noun for the field in messages, where the key is one of the tables that it can be made from."""


class _Reader:
    """Reads the tables of one file."""

    def __init__(self, problems: list[str], *, is_record: bool) -> None:
        self._problems, self._is_record = problems, is_record

    def table(self, kind: type[T], table: Mapping[str, Any], where: str, base: T | None) -> Any:
        """Return the dataclass, or _UNUSABLE; see `read_table`."""
        entries = _entries(kind)
        values: dict[str, Any] = {}
        for key, value in table.items():
            name = _printable(str(key))
            place = f"{where}.{name}" if where else name
            entry = entries.get(key)
            if entry is None:
                self._problems.append(f"{place} = {_shown(value)} is no key here: {_nearest(name, entries)}")
            elif not entry.noun or not _is_none(value):
                inner = None if base is None else getattr(base, entry.field.name)
                if inner is None and entry.field.default is not dataclasses.MISSING:
                    inner = entry.field.default
                values[entry.field.name] = self._value(entry.hint, value, place, inner)
        if base is None:
            self._problems.extend(self._missing(entries, table, where or "the file"))
        return self._made(kind, {name: value for name, value in values.items() if value is not _UNUSABLE}, where, base)

    def _made(self, kind: type[T], values: Mapping[str, Any], where: str, base: T | None) -> Any:
        """Make the dataclass of values of the right types; note what it, or a range of its own, says against them."""
        prefix = f"{where}: " if where else ""
        if base is None and any(_is_required(each) and each.name not in values for each in dataclasses.fields(kind)):  # type: ignore[arg-type]
            ranges = {name: both for name, both in getattr(kind, "RANGES", {}).items() if name in values}
            self._problems.extend(prefix + line for line in range_problems(types.SimpleNamespace(**values), ranges))
            return _UNUSABLE
        try:
            return kind(**values) if base is None else dataclasses.replace(base, **values)  # type: ignore[type-var]
        except (UsageError, ModelError) as error:
            self._problems.append(f"{prefix}{error}")
            return _UNUSABLE

    def _missing(self, entries: Mapping[str, _Entry], table: Mapping[str, Any], where: str) -> Iterator[str]:
        """Yield what is wrong with a table that lacks keys."""
        choices: dict[str, list[str]] = {}
        for key, entry in entries.items():
            if entry.noun:
                choices.setdefault(entry.noun, []).append(key)
            elif key not in table and (self._is_record or _is_required(entry.field)):
                yield f"{where} lacks {key}, expected {_words(entry.hint)}"
        for noun, keys in choices.items():
            if sum(not _is_none(table.get(key)) for key in keys) != 1:
                yield f"got no {noun} or two, expected one table of {', '.join(f'[{key}]' for key in keys)}"

    def _value(self, hint: Any, value: Any, place: str, inner: Any) -> Any:
        """Return the value as its field wants it; note a problem where it is of another type."""
        if isinstance(hint, type) and dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
            return self.table(hint, value, place, inner)
        if typing.get_origin(hint) in (types.UnionType, typing.Union):
            return self._optional(hint, value, place, inner)
        if typing.get_origin(hint) is tuple:
            return self._tuple(hint, value, place)
        if _fits(hint, value):
            number = _float(value) if hint is float else value
            # A record may hold an infinite PSNR; what a person sets is finite, and integers have 64 bits in TOML.
            if (
                self._is_record
                or type(number) not in (int, float)
                or abs(number) < 2**63
                or (type(number) is float and math.isfinite(number))
            ):
                return number
        self._problems.append(f"{place} = {_shown(value)}: expected {_words(hint)}")
        return _UNUSABLE

    def _optional(self, hint: Any, value: Any, place: str, inner: Any) -> Any:
        kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
        if len(kinds) < len(typing.get_args(hint)) and (value is None if self._is_record else _is_none(value)):
            return None
        kind = next((kind for kind in kinds if _fits(kind, value)), kinds[0])
        return self._value(kind, value, place, inner)

    def _tuple(self, hint: Any, value: Any, place: str) -> Any:
        kinds = typing.get_args(hint)
        is_list = isinstance(value, list | tuple)
        if not is_list or (kinds[-1] is not Ellipsis and len(value) != len(kinds)):
            self._problems.append(f"{place} = {_shown(value)}: expected {_words(hint)}")
            return _UNUSABLE
        each = [kinds[0]] * len(value) if kinds[-1] is Ellipsis else kinds
        items = tuple(
            self._value(kind, item, f"{place}[{at}]", None)
            for at, (kind, item) in enumerate(zip(each, value, strict=True))
        )
        return _UNUSABLE if any(item is _UNUSABLE for item in items) else items


def _float(value: float) -> float:
    """Return a number as float; infinity where it is an integer that no float reaches."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _entries(kind: type) -> dict[str, _Entry]:
    """Return the keys that a dataclass's table may have."""
    hints = typing.get_type_hints(kind)
    entries: dict[str, _Entry] = {}
    for field in dataclasses.fields(kind):
        kinds = field.metadata.get(_KINDS)
        if kinds is None:
            entries[field.name] = _Entry(field, hints[field.name])
        else:
            entries |= {name: _Entry(field, each, field.metadata[_NOUN]) for name, each in kinds.items()}
    return entries


def _is_required(field: "dataclasses.Field[Any]") -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _is_none(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value == "none")


def _nearest(key: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}"


def _fits(hint: Any, value: Any) -> bool:
    """Return whether a value is of a plain type; whole numbers are numbers, and truth values are neither."""
    if hint is Any:
        return True
    if typing.get_origin(hint) is Literal:
        return any(value == option and type(value) is type(option) for option in typing.get_args(hint))
    if isinstance(typing.get_origin(hint), type) and issubclass(typing.get_origin(hint), Mapping):
        key_kind, kind = typing.get_args(hint)
        return isinstance(value, Mapping) and all(_fits(key_kind, key) and _fits(kind, value[key]) for key in value)
    if typing.get_origin(hint) is not None:
        return False
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, int | float) if hint is float else isinstance(value, hint)


def _words(hint: Any) -> str:
    """Describe a type in words, for messages."""
    if typing.get_origin(hint) is Literal:
        return " or ".join(repr(option) for option in typing.get_args(hint))
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        kinds = typing.get_args(hint)
        none = ', or "none"' if type(None) in kinds else ""
        return " or ".join(_words(option) for option in kinds if option is not type(None)) + none
    if typing.get_origin(hint) is tuple:
        kinds = typing.get_args(hint)
        return f"a list, each {_words(kinds[0])}" if kinds[-1] is Ellipsis else f"a list of {len(kinds)} numbers"
    if dataclasses.is_dataclass(hint) or typing.get_origin(hint) is not None:
        return "a table"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    return names.get(hint, str(hint))

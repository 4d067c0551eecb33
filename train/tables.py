"""Makes frozen dataclasses out of TOML's tables, and collects everything that is wrong with them before it gives up."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

from realesr.errors import ModelError, UsageError

T = TypeVar("T")


class RecipeError(UsageError):
    """All that is wrong with a recipe; `lines` has one problem a line."""

    def __init__(self, what: str, lines: Sequence[str]) -> None:
        self.lines = tuple(lines)
        count = "one problem" if len(lines) == 1 else f"{len(lines)} problems"
        super().__init__(f"{what} has {count}: {'; '.join(lines)}")


def read_table(kind: type[T], table: Mapping[str, Any], where: str, problems: list[str], base: T | None = None) -> T:
    """Make a dataclass from a table.

    Args:
        kind: a dataclass; fields without default must be in the table, unless there is a `base`.
        table: key -> value, as tomllib gives them; tables within it become dataclasses within the dataclass.
        where: the table's name in the file, like "stage1"; empty for the file itself.
        problems: what is wrong is added here, a line each.
        base: values of the keys that the table does not have.

    Returns:
        The value; where problems were found, something that must not be used, so that the search can go on.
    """
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    before = len(problems)
    values: dict[str, Any] = {}
    for key, value in table.items():
        place = f"{where}.{key}" if where else key
        if key not in fields:
            problems.append(f"{place} = {value!r} is no key here: {_nearest(key, fields)}")
            continue
        inner = None if base is None else getattr(base, key)
        if inner is None and fields[key].default is not dataclasses.MISSING:
            inner = fields[key].default
        values[key] = _converted(hints[key], value, place, problems, inner)
    missing = [name for name, field in fields.items() if name not in table and base is None and _is_required(field)]
    problems.extend(f"{where or 'the file'} lacks {name}, expected {_words(hints[name])}" for name in missing)
    if len(problems) > before:
        return typing.cast(T, base)
    try:
        return kind(**values) if base is None else dataclasses.replace(base, **values)  # type: ignore[type-var]
    except (UsageError, ModelError) as error:
        problems.append(f"{where}: {error}" if where else str(error))
        return typing.cast(T, base)


def set_key(table: dict[str, Any], assignment: str) -> None:
    """Apply "stage1.batch=4" to a table; the value is written as in TOML, and bare words are texts.

    Raises:
        UsageError: there is no "=", or a key leads through something that is no table.
    """
    import tomllib

    path, equals, text = assignment.partition("=")
    if not equals or not path.strip():
        raise UsageError(f"got --set {assignment}, expected key=value, like --set stage1.batch=4")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    *folders, key = path.strip().split(".")
    for folder in folders:
        table = table.setdefault(folder, {})
        if not isinstance(table, dict):
            raise UsageError(f"got --set {assignment}, but {folder} is a value and has no keys")
    table[key] = value


def _is_required(field: "dataclasses.Field[Any]") -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _nearest(key: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}"


def _converted(hint: Any, value: Any, place: str, problems: list[str], inner: Any) -> Any:
    """The value as its field wants it; a problem is noted where it is of another type."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return read_table(hint, value, place, problems, inner)
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        option = next(kind for kind in typing.get_args(hint) if kind is not type(None))
        return None if value in (None, "none") else _converted(option, value, place, problems, inner)
    if typing.get_origin(hint) is tuple:
        return _converted_tuple(hint, value, place, problems)
    if _fits(hint, value):
        return float(value) if hint is float else value
    problems.append(f"{place} = {value!r}: expected {_words(hint)}")
    return inner


def _fits(hint: Any, value: Any) -> bool:
    """Whether a value is of a plain type; whole numbers are numbers, and truth values are neither."""
    if typing.get_origin(hint) is Literal:
        return value in typing.get_args(hint)
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, int | float) if hint is float else isinstance(value, hint)


def _converted_tuple(hint: Any, value: Any, place: str, problems: list[str]) -> Any:
    kinds = typing.get_args(hint)
    is_list = isinstance(value, list | tuple)
    if not is_list or (kinds[-1] is not Ellipsis and len(value) != len(kinds)):
        problems.append(f"{place} = {value!r}: expected {_words(hint)}")
        return ()
    each = [kinds[0]] * len(value) if kinds[-1] is Ellipsis else kinds
    return tuple(
        _converted(kind, item, f"{place}[{at}]", problems, None)
        for at, (kind, item) in enumerate(zip(each, value, strict=True))
    )


def _words(hint: Any) -> str:
    """A type for people."""
    if typing.get_origin(hint) is Literal:
        return " or ".join(repr(option) for option in typing.get_args(hint))
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        kinds = typing.get_args(hint)
        return " or ".join(_words(option) for option in kinds if option is not type(None)) + ', or "none"'
    if typing.get_origin(hint) is tuple:
        kinds = typing.get_args(hint)
        return f"a list of {_words(kinds[0])}s" if kinds[-1] is Ellipsis else f"a list of {len(kinds)} numbers"
    if dataclasses.is_dataclass(hint):
        return "a table"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    return names.get(hint, str(hint))

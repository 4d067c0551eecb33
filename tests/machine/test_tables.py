"""Checks that tables become dataclasses, or that all that is wrong with them is reported."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

import pytest

from realesr.errors import UsageError
from realesr.machine.tables import TableError, one_of_tables, read_record, read_table, set_key


@dataclass(frozen=True, kw_only=True)
class Inner:
    low: float = 0.5
    steps: tuple[int, ...] = ()

    def __post_init__(self):
        if not 0 <= self.low <= 1:
            raise UsageError(f"got low = {self.low}, expected 0 to 1")


@dataclass(frozen=True, kw_only=True)
class Outer:
    count: int
    name: str = ""
    kind: Literal["a", "b"] = "a"
    limit: float | None = None
    span: tuple[float, float] = (0.0, 1.0)
    on: bool = True
    inner: Inner = Inner()


def read(table, base=None):
    problems: list[str] = []
    return read_table(Outer, table, "", problems, base), problems


def test_values_of_the_right_types_are_taken():
    table = {"count": 3, "kind": "b", "limit": 2, "span": [1, 2.5], "on": False, "inner": {"low": 1, "steps": [1, 2]}}
    value, problems = read(table)
    assert problems == []
    assert value == Outer(count=3, kind="b", limit=2.0, span=(1.0, 2.5), on=False, inner=Inner(low=1.0, steps=(1, 2)))
    assert isinstance(value.span[0], float)


def test_none_is_a_word_in_toml():
    assert read({"count": 1, "limit": "none"})[0].limit is None


def test_what_a_table_does_not_name_is_taken_from_its_base():
    base = Outer(count=7, inner=Inner(low=0.25))
    value, _ = read({"inner": {"steps": [4]}}, base)
    assert (value.count, value.inner) == (7, Inner(low=0.25, steps=(4,)))


def test_everything_wrong_is_told_at_once_with_its_place():
    table = {"coumt": 1, "kind": "c", "on": 1, "span": [1], "inner": {"low": 2, "stepz": [1]}}
    _, problems = read(table)
    assert problems == [
        "coumt = 1 is no key here: did you mean count?",
        "kind = 'c': expected 'a' or 'b'",
        "on = 1: expected true or false",
        "span = [1]: expected a list of 2 numbers",
        "inner.stepz = [1] is no key here: did you mean steps?",
        "inner: got low = 2.0, expected 0 to 1",
        "the file lacks count, expected a whole number",
    ]


def test_a_value_out_of_range_is_told_with_the_range():
    _, problems = read({"count": 1, "inner": {"low": 2}})
    assert problems == ["inner: got low = 2.0, expected 0 to 1"]


def test_a_key_that_is_unknown_or_of_another_type_hides_no_range():
    assert read({"count": 1, "inner": {"low": 2, "lows": 1}})[1] == [
        "inner.lows = 1 is no key here: did you mean low?",
        "inner: got low = 2.0, expected 0 to 1",
    ]
    assert read({"count": 1, "inner": {"low": 2, "steps": "x"}})[1] == [
        "inner.steps = 'x': expected a list, each a whole number",
        "inner: got low = 2.0, expected 0 to 1",
    ]


@dataclass(frozen=True, kw_only=True)
class Book:
    RANGES: ClassVar = {"pages": (1, 100), "year": (0, 3000)}
    inner: Inner
    pages: int
    year: int = 0


def test_ranges_are_checked_where_what_must_be_there_is_wrong_or_missing():
    problems: list[str] = []
    read_table(Book, {"inner": {"low": 2}, "pages": 0, "year": -1}, "book", problems)
    assert problems == [
        "book.inner: got low = 2.0, expected 0 to 1",
        "book: got pages = 0, expected 1 to 100",
        "book: got year = -1, expected 0 to 3,000",
    ]


def test_true_is_no_number():
    _, problems = read({"count": True, "limit": False})
    assert problems == ["count = True: expected a whole number", "limit = False: expected a number"]


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("a=1", {"a": 1}),
        ("b.c=[1, 2]", {"b": {"c": [1, 2]}}),
        ("b.d = word", {"b": {"d": "word"}}),
        ("e=1e-3", {"e": 0.001}),
    ],
)
def test_a_key_is_set_by_a_word_of_the_command_line(assignment, expected):
    table: dict = {}
    set_key(table, assignment)
    assert table == expected


@pytest.mark.parametrize("assignment", ["a", "=1", "a.b=1"])
def test_words_that_set_nothing_are_refused(assignment):
    with pytest.raises(UsageError, match="got the change"):
        set_key({"a": 1}, assignment)


@dataclass(frozen=True, kw_only=True)
class Disc:
    radius: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Square:
    side: int

    def __post_init__(self):
        if self.side < 1:
            raise UsageError(f"got side = {self.side}, expected 1 or more")


@dataclass(frozen=True, kw_only=True)
class Drawing:
    shape: Disc | Square = field(metadata=one_of_tables("shape", {"disc": Disc, "square": Square}))
    title: str = ""


def drawing(table):
    problems: list[str] = []
    return read_table(Drawing, table, "", problems), problems


def test_one_of_several_tables_becomes_its_dataclass():
    assert drawing({"disc": {}}) == (Drawing(shape=Disc()), [])
    assert drawing({"square": {"side": 3}, "title": "a"}) == (Drawing(shape=Square(side=3), title="a"), [])
    assert drawing({"square": {"side": 3}, "disc": None})[0] == Drawing(shape=Square(side=3))
    assert drawing({"disc": {"radius": 2}, "square": "none"})[0] == Drawing(shape=Disc(radius=2.0))


@pytest.mark.parametrize("table", [{}, {"disc": {}, "square": {"side": 1}}, {"disc": None}])
def test_no_table_or_two_where_one_is_wanted_are_told_beside_the_rest(table):
    assert drawing({**table, "title": 1})[1] == [
        "title = 1: expected a text",
        "got no shape or two, expected one table of [disc], [square]",
    ]


def test_the_name_of_a_table_is_a_key_like_others_but_its_field_is_none():
    assert drawing({"squares": {"side": 1}})[1][0] == "squares = {'side': 1} is no key here: did you mean square?"
    assert "shape = {} is no key here" in drawing({"shape": {}})[1][0]
    assert drawing({"square": {"side": 0}})[1] == ["square: got side = 0, expected 1 or more"]
    assert drawing({"disc": 3})[1] == ["disc = 3: expected a table"]


@dataclass(frozen=True, kw_only=True)
class Record:
    count: int
    kind: Literal["a", "b", 1] = "a"
    limit: float | None = None
    label: str | None = None
    pair: tuple[int, int] = (0, 0)
    inner: Inner | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    proof: dict[str, Any] | str = ""


WHOLE = Record(count=1, limit=2.0, label="none", inner=Inner(steps=(1,)), options={"a": "b"}, proof={"rows": [1.5]})


@pytest.mark.parametrize("value", [WHOLE, Record(count=2, proof="in words")])
def test_a_record_comes_back_from_json(value):
    assert read_record(Record, json.loads(json.dumps(asdict(value))), "the record") == value


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"count": True}, "count = True: expected a whole number"),
        ({"kind": True}, "kind = True: expected 'a' or 'b' or 1"),
        ({"pair": [1]}, r"pair = \[1\]: expected a list of 2 numbers"),
        ({"inner": []}, r"inner = \[\]: expected a table"),
        ({"inner": {"low": 0.5}}, "inner lacks steps, expected a list, each a whole number"),
        ({"options": {"a": 1}}, "options = {'a': 1}: expected a table"),
        ({"proof": 3}, "proof = 3: expected a table"),
        ({"more": 1}, "more = 1 is no key here"),
    ],
)
def test_a_record_has_every_key_of_the_right_type_and_no_other(change, problem):
    with pytest.raises(TableError, match=f"the record has one problem: {problem}"):
        read_record(Record, asdict(WHOLE) | change, "the record")


def test_all_that_a_record_lacks_is_told_at_once():
    with pytest.raises(TableError, match="has 7 problems: the file lacks kind"):
        read_record(Record, {"count": 1}, "the record")


@pytest.mark.parametrize("record", [None, [], "text", 1])
def test_what_has_no_keys_is_no_record(record):
    with pytest.raises(TableError, match="expected an object with keys"):
        read_record(Record, record, "the record")

"""Tables of TOML become dataclasses, or all that is wrong with them is told."""

from dataclasses import dataclass
from typing import Literal

import pytest

from realesr.errors import UsageError
from realesr.train.tables import read_table, set_key


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
        "the file lacks count, expected a whole number",
    ]


def test_a_value_out_of_range_is_told_with_the_range():
    _, problems = read({"count": 1, "inner": {"low": 2}})
    assert problems == ["inner: got low = 2.0, expected 0 to 1"]


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
    with pytest.raises(UsageError, match="got --set"):
        set_key({"a": 1}, assignment)

"""Names of files in messages: never sent to a terminal as they are where they are not printable."""

import os
from pathlib import Path

import pytest

from realesr.cli.names import escaped, is_printable, one_line, quoted_names, shown


@pytest.mark.parametrize(
    "name",
    [
        "photo.jpg",
        "two  spaces.jpg",
        "it's.jpg",
        "back\\slash.jpg",
        "日本.png",
        "Ж.png",
        "\U0001f468\u200d\U0001f469.png",
    ],
)
def test_printable_names_stand_as_they_are(name: str) -> None:
    assert shown(name) == name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"a\nb.jpg", r"'a\nb.jpg'"),
        (b"a\tb.jpg", r"'a\tb.jpg'"),
        (b"\x1b[31mred\x1b[0m.jpg", r"'\x1b[31mred\x1b[0m.jpg'"),
        (b"caf\xe9.jpg", r"'caf\xe9.jpg'"),
        ("rtl\u202egpj.exe".encode(), r"'rtl\u202egpj.exe'"),
        ("c1\x9b31m.jpg".encode(), r"'c1\x9b31m.jpg'"),
        ("line\u2028.jpg".encode(), r"'line\u2028.jpg'"),
        (b"it's a \x07 and \\.jpg", r"'it\'s a \x07 and \\.jpg'"),
    ],
)
def test_other_names_are_quoted_with_escapes(name: bytes, expected: str) -> None:
    text = os.fsdecode(name)
    assert shown(Path(text)) == expected
    assert is_printable(expected)
    assert not is_printable(text)


def test_within_a_message_names_and_folders_are_quoted_whole() -> None:
    path = Path("new\nline/deep/\x1bred.jpg")
    assert quoted_names(f"{path} is empty", [path]) == r"'new\nline/deep/\x1bred.jpg' is empty"
    assert quoted_names(f"{path.parent} is full", [path]) == r"'new\nline/deep' is full"
    assert quoted_names(f"{path.name}: {path.parent.parent}", [path]) == r"'\x1bred.jpg': 'new\nline'"
    assert quoted_names("a.jpg is empty", [Path("a.jpg")]) == "a.jpg is empty"


def test_what_is_left_of_controls_in_a_message_is_escaped() -> None:
    assert escaped("title\n") == "title\\n"
    assert escaped("title \x1b]0;x\x07\nnext", keeps="\n") == "title \\x1b]0;x\\x07\nnext"
    assert one_line("first\n   second  with spaces \x1b\n") == "first second  with spaces \\x1b"

"""Collects the inputs that a command line names: paths, `-` for stdin, and lists of paths."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from realesr.errors import InputError, UsageError

STREAM = "-"
"""What stands for stdin among the inputs, and for stdout as the output; a file of this name is ./-."""


@dataclass(frozen=True)
class Inputs:
    """What is to be read."""

    paths: tuple[Path, ...] = ()
    """Images, and folders with images; empty where stdin is the image."""
    is_stdin: bool = False

    @property
    def are_many(self) -> bool:
        """Return whether there may be more than one image."""
        return len(self.paths) > 1 or any(map(os.path.isdir, self.paths))


def check_named(words: Sequence[str], list_name: str | None) -> None:
    """Raise typer's usage error where a command line names no input at all."""
    if not words and list_name is None:
        raise typer.BadParameter(
            "expected images or folders, - for stdin, or a list by --files-from", param_hint="PATHS"
        )


def inputs_from(words: Sequence[str], list_name: str | None, *, is_null_separated: bool) -> Inputs:
    """Return the inputs: those that are named one by one, then those of a list.

    Args:
        words: paths, or `-` for stdin.
        list_name: path of a file with a path on each line, or `-` where stdin has them.
        is_null_separated: whether a NUL ends each path of the list, not a line break.

    Raises:
        UsageError: stdin beside other inputs, an empty path, or a list that is not there.
        InputError: a list without a path in it.
    """
    if is_null_separated and list_name is None:
        raise UsageError("got -0 without --files-from: name the list that has a NUL after each path")
    if "" in words:  # Path takes it for the current folder
        raise UsageError("got an empty path, expected an image or a folder; the current folder is .")
    if STREAM not in words:
        listed = () if list_name is None else _listed_paths(list_name, is_null_separated=is_null_separated)
        return Inputs((*map(Path, words), *listed))
    if len(words) > 1 or list_name is not None:
        raise UsageError("got -, which is stdin, beside other inputs: name it alone (a file of that name is ./-)")
    return Inputs(is_stdin=True)


def _listed_paths(list_name: str, *, is_null_separated: bool) -> list[Path]:
    """Return the paths of a list, whatever bytes they have; relative ones are meant from the current folder."""
    content = _content(list_name)
    if is_null_separated:
        names = content.split(b"\0")
    else:
        names = [line.removesuffix(b"\r") if os.name == "nt" else line for line in content.split(b"\n")]
    paths = [Path(os.fsdecode(name)) for name in names if name]
    if not paths:
        unit = "a NUL" if is_null_separated else "a line"
        raise InputError(f"{_shown_list(list_name)} is empty: expected one path {unit}")
    return paths


def _content(list_name: str) -> bytes:
    """Return the bytes of a list; raise UsageError where they cannot be read."""
    try:
        if list_name != STREAM:
            return Path(list_name).read_bytes()
        return b"" if sys.stdin is None else sys.stdin.buffer.read()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"got --files-from {list_name}, which cannot be read ({reason}): name a file") from error


def _shown_list(list_name: str) -> str:
    return "the list on stdin" if list_name == STREAM else f"the list {list_name}"

"""Errors of the library name options in words; the command line adds the flag that sets the one that would help."""

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from realesr.cli.advice import ADVICE, message_with_advice
from realesr.errors import OutputExists, RealesrError
from realesr.export.request import ExportOptions
from realesr.options import FileOptions, ImageOptions, NetworkOptions
from realesr.server.settings import ServerSettings
from realesr.target_size import TargetSize
from realesr.train.distill.run import Distillation
from realesr.train.request import Request

from .conftest import Command

ROOT = Path(__file__).parents[2]
LIBRARY = [
    file
    for folder in ("realesr", "engines", "export", "train")
    for file in sorted((ROOT / folder).rglob("*.py"))
    if not file.is_relative_to(ROOT / "realesr" / "cli")
]
FLAG = re.compile(r"[ '`(\"]--[a-z]|['`]realesr [a-z]+")
FLAG_OF_PIP = re.compile(r"pip('s| install) --?[a-z].*")


def messages(source: str) -> Iterator[str]:
    """Yield the texts of a module that are not docstrings."""
    tree = ast.parse(source)
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def named_options(source: str) -> Iterator[str]:
    """Yield the literals of the argument `option` in calls."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.keyword) and node.arg == "option" and isinstance(node.value, ast.Constant):
            yield str(node.value.value)


def test_the_advice_follows_the_message_in_one_line() -> None:
    error = OutputExists("a.png is\nthere already", option="overwrite")
    assert message_with_advice(error) == "a.png is there already; --overwrite replaces it"
    assert message_with_advice(RealesrError("nothing helps")) == "nothing helps"


def test_all_advice_is_about_an_option_that_exists() -> None:
    kinds = (
        NetworkOptions,
        ImageOptions,
        TargetSize,
        FileOptions,
        ExportOptions,
        ServerSettings,
        Request,
        Distillation,
    )
    of_dataclasses = {field.name for kind in kinds for field in fields(kind)}
    of_commands = {"fp16", "gpus"}  # of `export` and `train`
    assert set(ADVICE) - of_dataclasses == of_commands


def test_every_option_that_an_error_names_has_advice() -> None:
    named = {option for file in LIBRARY for option in named_options(file.read_text(encoding="utf-8"))}
    assert {"overwrite", "format", "max_pixels", "device"} <= named
    assert named <= set(ADVICE)


@pytest.mark.parametrize("flag", sorted(set(re.findall(r"--[a-z0-9-]+", " ".join(ADVICE.values())))))
def test_every_flag_that_advice_names_exists(flag: str, realesr: Command) -> None:
    commands = (("upscale",), ("export",), ("serve",), ("train", "stage2"), ("train", "distill"))
    assert any(re.search(rf"{flag}\b", realesr(*command, "--help").stdout) for command in commands)


@pytest.mark.parametrize("file", LIBRARY, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_message_of_the_library_quotes_a_flag_or_a_command(file: Path) -> None:
    texts = messages(file.read_text(encoding="utf-8"))
    found = [text for text in texts if FLAG.search(FLAG_OF_PIP.sub("", text))]
    assert found == []

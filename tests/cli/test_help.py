"""Every `--help`: all there, readable at 80 columns, with examples that are understood."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from realesr.cli.app import build_app

from .conftest import Command

COMMANDS = [
    (),
    ("upscale",),
    ("compare",),
    ("score",),
    ("serve",),
    ("models",),
    ("models", "fetch"),
    ("models", "info"),
    ("models", "search"),
    ("models", "pull"),
    ("models", "export"),
    ("models", "import"),
    ("export",),
    ("train",),
    ("train", "stage1"),
    ("train", "stage2"),
    ("train", "resume"),
    ("train", "recipes"),
    ("data",),
    ("data", "check"),
    ("data", "prepare"),
    ("degrade",),
    ("tune",),
    ("doctor",),
]


def command_at(*names: str) -> Any:
    command: Any = typer.main.get_command(build_app())
    for name in names:
        command = command.commands[name]
    return command


def examples(command: Any) -> Iterator[list[str]]:
    for line in command.epilog.splitlines():
        parts = [part.strip() for part in re.split(r"[|<>]", line)]
        yield shlex.split(next(part for part in parts if part.startswith("realesr")), comments=True)


@pytest.mark.parametrize("names", COMMANDS)
@pytest.mark.parametrize("columns", [80, 100])
def test_help_fits_into_the_terminal(
    realesr: Command, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    result = realesr(*names, "--help")
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= columns
    assert "..." not in result.stdout.partition("Commands:")[2]  # no summary is cut short
    assert "Examples:\n  realesr" in result.stdout


@pytest.mark.parametrize("names", COMMANDS)
def test_every_option_has_help_and_an_example(names: tuple[str, ...]) -> None:
    command = command_at(*names)
    words = {word for example in examples(command) for word in example}
    for parameter in command.params:
        if parameter.param_type_name == "option":
            assert parameter.help, parameter.name
            assert words & set(parameter.opts) or parameter.name == "debug", f"no example of {parameter.opts}"


@pytest.mark.parametrize("names", COMMANDS)
def test_every_example_is_understood(names: tuple[str, ...]) -> None:
    for program, *arguments in examples(command_at(*names)):
        assert program == "realesr"
        command = command_at()
        while arguments and arguments[0] in getattr(command, "commands", {}):
            command = command.commands[arguments.pop(0)]
        if not {"--help", "--version"} & set(arguments):
            command.make_context("realesr", arguments)


def test_the_options_of_upscale_stand_in_panels(realesr: Command) -> None:
    text = realesr("upscale", "--help").stdout
    places = [text.index(f"\n{name}:\n") for name in ("Output", "Image", "Network", "Speed and memory", "Messages")]
    assert places == sorted(places)


def test_the_version_is_the_packages(realesr: Command) -> None:
    from importlib.metadata import version

    assert realesr("--version").stdout == f"realesr {version('realesr')}\n"


def test_help_loads_nothing_heavy() -> None:
    script = "import sys, realesr.cli.app as app; app.build_app(); print(*sys.modules)"
    modules = set(
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    )
    assert "realesr.cli.upscale" in modules
    heavy = {"numpy", "rich", "onnx", "onnxruntime", "pyvips", "PIL", "torch", "platformdirs", "requests", "psutil"}
    assert not modules & heavy


def test_the_module_is_the_command() -> None:
    command = [sys.executable, "-m", "realesr", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"COLUMNS": "80"})
    assert result.stdout.startswith("Usage: realesr ")

"""How the command starts and ends, beside what its subcommands do."""

import os
import subprocess
import sys

import pytest

from realesr.cli.app import COMMANDS, YOUNG_OBJECTS, named_command


@pytest.mark.parametrize(
    ("words", "commands"),
    [
        (["upscale", "a.jpg"], ["upscale"]),
        (["models"], ["models"]),
        ([], COMMANDS),
        (["--help"], COMMANDS),
        (["upscal", "a.jpg"], COMMANDS),
        (["a.jpg", "upscale"], COMMANDS),
    ],
)
def test_only_the_command_that_is_named_is_imported(words: list[str], commands: list[str]) -> None:
    assert list(named_command(words)) == list(commands)


def test_a_command_that_does_not_exist_is_told_with_those_that_do() -> None:
    command = [sys.executable, "-m", "realesr", "upscal"]
    result = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "80"})
    assert result.returncode == 2
    assert "No such command 'upscal'" in result.stderr
    assert "upscale" in result.stderr.replace("'upscal'", "")


def test_garbage_is_looked_for_seldom_and_not_at_the_end() -> None:
    program = (
        "import gc, sys; from realesr.cli import main\n"
        "sys.argv = ['realesr', 'models', '--help']\n"
        "try: main()\n"
        "except SystemExit: print(gc.get_threshold()[0], gc.get_freeze_count() > 0)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == f"{YOUNG_OBJECTS} True"

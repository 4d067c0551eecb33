"""The command `realesr`: its subcommands, its version, and how it ends."""

import gc
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated

import typer

from realesr.machine.heap import return_large_memory, share_one_heap

from . import stopping, streams
from .help import CommandHelp, GroupHelp

COMMANDS = ("upscale", "compare", "score", "serve", "models", "export", "train", "data", "degrade", "tune", "doctor")
"""Every command, in the order of `--help`: in the module of its name a function with EXAMPLES, or a group."""

EXAMPLES = """\
realesr upscale photo.jpg              # four times the size: photo_x4.jpg
realesr upscale holiday -o large -s 2  # every image of a folder, twice
realesr upscale --help                 # all options, each with an example
realesr export --fp16                  # a network as an ONNX file
realesr compare photo.jpg              # which network suits it?
realesr serve --open                   # a page in the browser
realesr models                         # the networks, and which are on disk
realesr doctor                         # what works on this machine
realesr --version"""

YOUNG_OBJECTS = 10_000
"""New objects after which Python looks for garbage. Its default, 700, costs a twentieth of the time of a start; a start
makes hardly any garbage."""

_STOPPED = 128 + signal.SIGINT
SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def print_version(wanted: bool) -> None:
    """Print the version and exit, on `--version`."""
    if wanted:
        from importlib.metadata import version

        typer.echo(f"realesr {version('realesr')}")
        raise typer.Exit


def root(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Enlarge real photos with Real-ESRGAN networks.

    Exit codes: 0 all done, 1 something failed, 2 wrong usage, 130 stopped by Ctrl-C.
    """


def build_app(commands: Sequence[str] = COMMANDS) -> typer.Typer:
    """Return the app with all commands, or with some of them."""
    app = typer.Typer(
        cls=GroupHelp,
        rich_markup_mode=None,  # rich takes 0.25 s to import, and `--help` must be instant
        pretty_exceptions_enable=False,
        context_settings=SETTINGS,
        no_args_is_help=True,
        add_completion=False,
    )
    app.callback(epilog=EXAMPLES)(root)
    for name in commands:
        module = import_module(f".{name}", __package__)
        command = getattr(module, name)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(cls=CommandHelp, epilog=module.EXAMPLES)(command)
    return app


def main() -> None:
    """Run the command line; the entry point of the console script."""
    try:
        _run()
    except SystemExit as end:
        stopping.leave(end.code)
        raise
    except KeyboardInterrupt:  # before or behind the command, which reports its own
        stopping.leave(_STOPPED)
        sys.exit(_STOPPED)
    except OSError as error:  # of help and version; commands report their own
        streams.discard(sys.stdout)
        sys.exit(f"error: stdout cannot be written ({error.strerror or error})")


def named_command(words: Sequence[str]) -> Sequence[str]:
    """Return the command that a command line begins with; all of them where that is none.

    To import the others, and to describe them to typer, takes 0.06 s.
    """
    return words[:1] if words and words[0] in COMMANDS else COMMANDS


def _run() -> None:
    """Run the command. Signals stop it; once it has ended, they are ignored."""
    stopping.listen()
    try:
        streams.prepare()
        share_one_heap()
        return_large_memory()
        gc.set_threshold(YOUNG_OBJECTS)
        build_app(named_command(sys.argv[1:]))(prog_name="realesr")
    finally:
        stopping.end()
        gc.freeze()  # what is left goes with the process: Python need not spend 0.08 s on looking for garbage in it

"""The command `realesr`: its subcommands, its version, and how it ends."""

import signal
import sys
from typing import Annotated

import typer

from realesr.machine.heap import share_one_heap

from . import stopping, streams
from .compare import EXAMPLES as COMPARE_EXAMPLES
from .compare import compare
from .data import data
from .degrade import EXAMPLES as DEGRADE_EXAMPLES
from .degrade import degrade
from .doctor import EXAMPLES as DOCTOR_EXAMPLES
from .doctor import doctor
from .export import EXAMPLES as EXPORT_EXAMPLES
from .export import export
from .help import CommandHelp, GroupHelp
from .models import models
from .score import EXAMPLES as SCORE_EXAMPLES
from .score import score
from .serve import EXAMPLES as SERVE_EXAMPLES
from .serve import serve
from .train import train
from .tune import EXAMPLES as TUNE_EXAMPLES
from .tune import tune
from .upscale import EXAMPLES as UPSCALE_EXAMPLES
from .upscale import upscale

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


def build_app() -> typer.Typer:
    """Return the app with all commands, in the order of `--help`."""
    app = typer.Typer(
        cls=GroupHelp,
        rich_markup_mode=None,  # rich takes 0.25 s to import, and `--help` must be instant
        pretty_exceptions_enable=False,
        context_settings=SETTINGS,
        no_args_is_help=True,
        add_completion=False,
    )
    app.callback(epilog=EXAMPLES)(root)
    app.command(cls=CommandHelp, epilog=UPSCALE_EXAMPLES)(upscale)
    app.command(cls=CommandHelp, epilog=COMPARE_EXAMPLES)(compare)
    app.command(cls=CommandHelp, epilog=SCORE_EXAMPLES)(score)
    app.command(cls=CommandHelp, epilog=SERVE_EXAMPLES)(serve)
    app.add_typer(models, name="models")
    app.command(cls=CommandHelp, epilog=EXPORT_EXAMPLES)(export)
    app.add_typer(train, name="train")
    app.add_typer(data, name="data")
    app.command(cls=CommandHelp, epilog=DEGRADE_EXAMPLES)(degrade)
    app.command(cls=CommandHelp, epilog=TUNE_EXAMPLES)(tune)
    app.command(cls=CommandHelp, epilog=DOCTOR_EXAMPLES)(doctor)
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


def _run() -> None:
    """Run the command. Signals stop it; once it has ended, they are ignored."""
    stopping.listen()
    try:
        streams.prepare()
        share_one_heap()
        build_app()(prog_name="realesr")
    finally:
        stopping.end()

"""Lets a run read stdin and write stdout, by way of files in a private folder.

    stdin -> spooled to a file -> UpscaleRun -> a whole file -> stdout

Files, because an image is read several times, and because stdout gets an image that is complete or nothing at all.
"""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

from realesr.cli.files import Output
from realesr.cli.streams import write_content
from realesr.errors import InputError, OutputError, UsageError
from realesr.images.info import OutputFormat
from realesr.images.kinds import find_kind
from realesr.images.output_format import output_format, suffix_for
from realesr.machine.private_folder import private_folder

from .inputs import STREAM, Inputs
from .reports import Reports
from .run import UpscaleRequest, UpscaleRun

if TYPE_CHECKING:
    from realesr.cli.console import Messages

PREFIX = "realesr-pipe-"
"""Beginning of the names of the folders that hold what comes and goes through pipes."""

BYTES_A_PIXEL = 8
"""Of uncompressed pixels of four channels of 16 bits: hardly any image file takes more."""
METADATA_BYTES = 64 << 20
"""Room for metadata beside the pixels."""
_BLOCK_BYTES = 1 << 20


class Pipes(NamedTuple):
    """Which of the standard streams carry an image."""

    stdin: bool
    stdout: bool


def pipes_for(inputs: Inputs, output_name: str | None, *, json: bool, excluded: Sequence[tuple[str, object]]) -> Pipes:
    """Return the streams that carry an image: what comes from stdin goes to stdout unless `-o` names a file.

    Args:
        inputs: what is to be read.
        output_name: value of `-o`.
        json: whether `--json` is given.
        excluded: options that make no sense where a stream has no name, each with its value.

    Raises:
        UsageError: a terminal at one of them, JSON on the same stdout, more than one image for it, or an excluded
            option.
        OutputError: stdout is closed.
    """
    pipes = Pipes(stdin=inputs.is_stdin, stdout=output_name == STREAM or (inputs.is_stdin and output_name is None))
    for option, value in excluded:
        if any(pipes) and value:
            raise UsageError(f"got {option} with -, a stream, which has no name: leave one of them out")
    if pipes.stdin and sys.stdin is not None and sys.stdin.isatty():
        raise UsageError("got -, but stdin is a terminal: expected an image, as in 'realesr upscale - < photo.jpg'")
    if pipes.stdout:
        _check_stdout(inputs, json=json)
    return pipes


def _check_stdout(inputs: Inputs, *, json: bool) -> None:
    """Raise where stdout cannot take the output."""
    if json:
        raise UsageError("got --json while the image goes to stdout, which takes one of them: name a file by -o")
    if inputs.are_many:
        raise UsageError("got -o -, which is stdout and takes one image, for many inputs: name a folder by -o")
    if sys.stdout is None:
        raise OutputError("the image cannot be written to stdout, which is closed")
    if sys.stdout.isatty():
        raise UsageError("stdout is a terminal, expected a file or a pipe: redirect it by '>', or name a file by -o")


def run_piped(request: UpscaleRequest, pipes: Pipes, messages: "Messages") -> int:
    """Enlarge one image that comes from stdin, goes to stdout, or both; return the exit code.

    Raises:
        UsageError: a folder as the output of stdin.
        BrokenPipeError: the reader of stdout has gone.
        OutputError: stdout takes no more, or there is no room for temporary files.
    """
    if pipes.stdin and not pipes.stdout and request.output.is_folder:
        raise UsageError(f"got -o {request.output.path}, a folder, for stdin, which has no name: name a file")
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(private_folder(PREFIX))
        except OSError as error:
            raise OutputError(f"temporary files cannot be made ({error.strerror or error}): set TMPDIR") from error
        source = folder / "stdin" if pipes.stdin else request.paths[0]
        try:
            if pipes.stdin:
                messages.show_as(source, "stdin")
                _spool_stdin(source, request.file.max_pixels)
            fmt = output_format(find_kind(source), None, request.output.format) if pipes.stdout else None
        except InputError as error:
            Reports(messages, json=request.json).failed(source, error)
            return 1
        request = replace(request, paths=(source,))
        if fmt is None:
            return UpscaleRun(request, messages).run()
        target = folder / f"stdout{suffix_for(fmt, source)}"
        messages.show_as(target, "stdout")
        return _run_into_stdout(request, target, fmt, messages)


def _run_into_stdout(request: UpscaleRequest, target: Path, fmt: OutputFormat, messages: "Messages") -> int:
    """Enlarge into the file `target`, and write that to stdout; return the exit code."""
    request = replace(
        request,
        output=Output(target, is_folder=False, format=fmt),
        file=replace(request.file, resume=False),
        prints_targets=False,
    )
    code = UpscaleRun(request, messages).run()
    if code == 0 and not target.exists():
        raise OutputError("nothing was written to stdout, for the image was skipped")
    if code == 0:
        write_content(target)
    return code


def _spool_stdin(target: Path, max_pixels: int | None) -> None:
    """Write what stdin holds to a file.

    Raises:
        InputError: it holds nothing, cannot be read, or holds more than an image of so many pixels.
        OutputError: there is no room for it.
    """
    from realesr.images.decoded import MAX_PIXELS

    most_bytes = METADATA_BYTES + BYTES_A_PIXEL * (max_pixels or MAX_PIXELS)
    spooled_bytes = 0
    try:
        with target.open("wb") as file:
            while block := _next_block():
                spooled_bytes += len(block)
                if spooled_bytes > most_bytes:
                    raise InputError(f"stdin holds more than {most_bytes:,} bytes: expected one image")
                file.write(block)
    except OSError as error:
        raise OutputError(
            f"stdin cannot be kept in {target.parent.parent} ({error.strerror or error}): "
            "free some space, or set TMPDIR to another folder"
        ) from error
    if not spooled_bytes:
        raise InputError("stdin is empty (0 bytes): expected an image")


def _next_block() -> bytes:
    """Return the next bytes of stdin, none at its end; raise InputError where it cannot be read."""
    try:
        stream: IO[bytes] | None = None if sys.stdin is None else sys.stdin.buffer
        return b"" if stream is None else stream.read(_BLOCK_BYTES)
    except OSError as error:
        raise InputError(f"stdin cannot be read ({error.strerror or error})") from error

"""Prints results on stdout, and messages and progress on stderr.

With `progress_bar.py` this is the only file that uses rich, which takes 0.05 s to import: only where there may be a
terminal.
"""

import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import typer

from realesr.errors import RealesrError
from realesr.progress import AmountCallback

from .advice import message_with_advice
from .names import escaped, quoted_names, shown
from .names import one_line as in_one_line
from .streams import Stderr, discard, write_result

if TYPE_CHECKING:
    from rich.console import Console

STOPPED = 130
"""Exit code after Ctrl-C: 128 + SIGINT, as in shells."""

_TERMINAL_VARIABLES = frozenset({"FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"})
"""Variables of the environment by which rich may take any stream for a terminal."""


class Messages:
    """The messages of a command on stderr: lines, errors, tables and progress."""

    def __init__(self, *, quiet: bool = False, verbose: bool = False, debug: bool = False) -> None:
        self._stderr = Stderr()
        self._quiet = quiet
        self._verbose = verbose
        self._debug = debug
        self._shown_as: dict[str, str] = {}

    @cached_property
    def _console(self) -> "Console":
        from rich.console import Console

        return Console(file=cast(IO[str], self._stderr), highlight=False, soft_wrap=True)

    @property
    def _is_terminal(self) -> bool:
        """Return whether stderr is a terminal, or is to be treated as one."""
        return self._needs_rich and self._console.is_terminal

    @property
    def _needs_rich(self) -> bool:
        return "_console" in vars(self) or may_be_terminal(self._stderr)

    def _print(self, text: str, style: str = "") -> None:
        """Print a line, or several; the style is for terminals alone."""
        if not self._needs_rich:
            self._stderr.write(f"{text}\n")
            self._stderr.flush()
            return
        from rich.text import Text

        self._console.print(Text(text, style=style))

    def show_as(self, path: Path, name: str) -> None:
        """Show a temporary file under another name from now on."""
        self._shown_as[str(path)] = name

    def renamed(self, text: str) -> str:
        """Return text in which temporary files have the names that `show_as` was given."""
        for path, name in self._shown_as.items():
            text = text.replace(path, name)
        return text

    def renamed_in(self, value: object) -> object:
        """Return a value of a record with such names; a path becomes `-`, for it was a stream that was named."""
        if isinstance(value, Path):
            return Path("-") if str(value) in self._shown_as else value
        if isinstance(value, tuple):
            return tuple(self.renamed_in(item) for item in value)
        return self.renamed(value) if isinstance(value, str) else value

    def say(self, text: str) -> None:
        """Print one line: a summary, a notice, an estimate."""
        if not self._quiet:
            self._print(escaped(self.renamed(text)))

    def detail(self, text: str) -> None:
        """Print one line with `--verbose`: how a result came about."""
        if self._verbose:
            self._print(escaped(self.renamed(text)), "dim")

    @contextmanager
    def log_shown(self) -> Iterator[None]:
        """Show the library's log as details while the block runs, with `--verbose`."""
        if not self._verbose:
            yield
            return
        log = logging.getLogger("realesr")
        level = log.level
        log.setLevel(logging.DEBUG)
        try:
            with handled("realesr", Details(self)):
                yield
        finally:
            log.setLevel(level)

    def error(self, error: BaseException, about: Iterable[Path] = ()) -> None:
        """Print an error as one red line, and its traceback with `--debug`.

        Args:
            error: the error; the type is named, too, unless it is a RealesrError.
            about: files that the error may name; the first is named in any case.
        """
        about = list(about)
        text = self.renamed(one_line(error, about))
        if about and self.renamed(shown(about[0].name)) not in text and shown(about[0]) not in text:
            text = f"{shown(about[0].name)}: {text}"
        self._print(f"error: {text}", "red")
        if self._debug:
            self._print(escaped("".join(traceback.format_exception(error)), keeps="\n"), "dim")

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table that is not a result."""
        if self._quiet:
            return
        from rich.box import SIMPLE_HEAD
        from rich.table import Column, Table
        from rich.text import Text

        grid = Table(columns[0], *(Column(name, justify="right") for name in columns[1:]), title=title)
        grid.title_justify, grid.box = "left", SIMPLE_HEAD
        for row in rows:
            grid.add_row(*(Text(cell) for cell in row))
        self._console.print(grid)

    @contextmanager
    def progress(self, title: str, unit: str = "px") -> Iterator[AmountCallback]:
        """Show a progress bar where stderr is a terminal, nothing elsewhere; yields the callback, in px or bytes."""
        if self._quiet or not self._is_terminal:
            yield lambda done, total: None
            return
        from .progress_bar import progress_bar

        with progress_bar(title, unit, self._console) as show_progress:
            yield show_progress

    @contextmanager
    def status(self) -> Iterator[Callable[[str], None]]:
        """Yield a function that replaces a line where stderr is a terminal, and prints a new line elsewhere."""
        if self._quiet or not self._is_terminal:
            yield self.say
            return
        from rich.live import Live
        from rich.text import Text

        with Live(console=self._console, transient=True, auto_refresh=False) as live:
            yield lambda text: live.update(Text(text, overflow="ellipsis", no_wrap=True), refresh=True)

    @contextmanager
    def download(self, name: str) -> Iterator[AmountCallback]:
        """Show the progress of a download from its first bytes on; nothing where the file is on disk already."""
        with ExitStack() as stack:
            show_progress: AmountCallback | None = None

            def on_progress(done: int, total: int) -> None:
                nonlocal show_progress
                if show_progress is None:
                    self.say(f"fetching {name}" + (f", {megabytes(total)}" if total else ""))
                    show_progress = stack.enter_context(self.progress(name, unit="bytes"))
                show_progress(done, total)

            yield on_progress


class Details(logging.Handler):
    """Hands the library's log to the messages of a command."""

    def __init__(self, messages: Messages) -> None:
        super().__init__()
        self._messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        """Show one line of the log; called by logging."""
        self._messages.detail(record.getMessage())


@contextmanager
def handled(logger: str, handler: logging.Handler) -> Iterator[None]:
    """Let a handler have what a logger is told while the block runs."""
    logging.getLogger(logger).addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger(logger).removeHandler(handler)


def may_be_terminal(stream: Any) -> bool:
    """Return whether rich may take a stream for a terminal: it is one, or a variable of the environment is set."""
    try:
        is_terminal = bool(stream.isatty())
    except ValueError:  # it was closed
        is_terminal = False
    return is_terminal or not _TERMINAL_VARIABLES.isdisjoint(os.environ)


def one_line(error: BaseException, about: Iterable[Path] = ()) -> str:
    """Return an error as one line: with advice for a RealesrError, with its type for any other.

    Names of the files in `about` are quoted where they are not printable.
    """
    if isinstance(error, RealesrError):
        return message_with_advice(error, about)
    text = in_one_line(quoted_names(str(error), about))
    if isinstance(error, MemoryError) or "can't start new thread" in text:
        return f"out of memory ({text}): close other programs, or use smaller tiles (--tile) or a smaller network"
    return f"unexpected {type(error).__name__}: {text} (--debug shows where)"


@contextmanager
def errors_reported(messages: Messages) -> Iterator[None]:
    """Print an error that ends the command, and exit with its code."""
    try:
        yield
    except BrokenPipeError:
        # The reader of the results has gone; the interpreter must not write to the pipe again when it ends.
        discard(sys.stdout)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        messages.say("stopped: no half file is left; the same command goes on from here")
        raise typer.Exit(STOPPED) from None
    except RealesrError as error:
        messages.error(error)
        raise typer.Exit(error.exit_code) from None
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:
        messages.error(error)
        raise typer.Exit(1) from None


def result(line: str | Path) -> None:
    """Write one line of results, or a path, to stdout; errors are those of `streams.write_result`."""
    write_result(line)


def json_line(record: Mapping[str, Any]) -> None:
    """Write one JSON object to stdout; types that JSON does not have are written as text."""
    result(json.dumps(record, default=str))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a table to stdout where that is a terminal, else tab-separated lines without a heading.

    The first column is never cut: it has the names that other commands accept.
    """
    console = _results_console()
    if console is None:
        for row in rows:
            result("\t".join(row))
        return
    from rich.box import SIMPLE_HEAD
    from rich.table import Column, Table
    from rich.text import Text

    grid = Table(Column(columns[0], no_wrap=True), *columns[1:], title=title, title_justify="left", box=SIMPLE_HEAD)
    for row in rows:
        grid.add_row(*(Text(cell) for cell in row))
    console.print(grid)


def _results_console() -> "Console | None":
    """Return rich's console for stdout; None where that is no terminal."""
    if sys.stdout is not None and not may_be_terminal(sys.stdout):
        return None
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else None


def facts(values: Mapping[str, str]) -> None:
    """Write names and values to stdout, one pair per line, the values in one column."""
    width = max(map(len, values))
    for name, value in values.items():
        result(f"{name:<{width}}  {value}")


def megabytes(size: float) -> str:
    """Return a size in bytes as "1.9 GB" or "67 MB" (decimal units)."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"

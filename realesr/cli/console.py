"""What the command line says: results on stdout, words and progress on stderr. The one module that knows rich."""

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from realesr.errors import RealesrError

STOPPED = 130
"""Exit code after Ctrl-C: 128 + SIGINT, as shells have it."""

Advance = Callable[[int, int], None]
"""Called with what is done and the whole, both in px or both in bytes."""


class Words:
    """What a command says on stderr."""

    def __init__(self, *, quiet: bool = False, debug: bool = False) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._quiet = quiet
        self._debug = debug

    def say(self, text: str) -> None:
        """One line: a summary, a notice, an estimate."""
        if not self._quiet:
            self._console.print(Text(text))

    def error(self, error: BaseException, about: str | None = None) -> None:
        """One red line for an error, and its traceback with `--debug`.

        Args:
            error: what went wrong; of errors that are not ours the type is named, too.
            about: the file that it happened to, named where the message does not do so itself.
        """
        text = one_line(error)
        if about is not None and about not in text:
            text = f"{about}: {text}"
        self._console.print(Text(f"error: {text}", style="red"))
        if self._debug:
            self._console.print(Text("".join(traceback.format_exception(error)), style="dim"))

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Figures that are no result: a table between the words."""
        if self._quiet:
            return
        grid = Table(columns[0], *(Column(name, justify="right") for name in columns[1:]), title=title)
        grid.title_justify, grid.box = "left", SIMPLE_HEAD
        for row in rows:
            grid.add_row(*(Text(cell) for cell in row))
        self._console.print(grid)

    @contextmanager
    def progress(self, title: str, unit: str = "px") -> Iterator[Advance]:
        """A bar while stderr is a terminal, and nothing that moves where it is not."""
        if self._quiet or not self._console.is_terminal:
            yield lambda done, total: None
            return
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), Amount(unit), TimeRemainingColumn())
        # A slow network finishes a tile in ten seconds and more: speed is taken over two minutes.
        with Progress(*columns, console=self._console, transient=True, speed_estimate_period=120) as bar:
            task = bar.add_task(title, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total or None)

    @contextmanager
    def status(self) -> Iterator[Callable[[str], None]]:
        """One line that changes while stderr is a terminal, and a line a change where it is not."""
        if self._quiet or not self._console.is_terminal:
            yield self.say
            return
        with Live(console=self._console, transient=True, auto_refresh=False) as live:
            yield lambda text: live.update(Text(text, overflow="ellipsis", no_wrap=True), refresh=True)

    @contextmanager
    def download(self, name: str) -> Iterator[Advance]:
        """Like `progress` in bytes, but nothing is said before the first byte has come: mostly the file is there."""
        with ExitStack() as stack:
            advance: Advance | None = None

            def on_progress(done: int, total: int) -> None:
                nonlocal advance
                if advance is None:
                    self.say(f"fetching {name}" + (f", {megabytes(total)}" if total else ""))
                    advance = stack.enter_context(self.progress(name, unit="bytes"))
                advance(done, total)

            yield on_progress


class Amount(ProgressColumn):
    """ "1.2/12.0 MP  0.35 MP/s"."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._name = {"px": "MP", "bytes": "MB"}[unit]

    def render(self, task: Task) -> Text:
        """What is done, the whole, the speed; called by rich."""
        if task.total is None:
            return Text("starting")
        speed = task.finished_speed or task.speed
        pace = "" if not speed else f"  {speed / 1e6:.3g} {self._name}/s"
        return Text(f"{task.completed / 1e6:.1f}/{task.total / 1e6:.1f} {self._name}{pace}")


def one_line(error: BaseException) -> str:
    """An error as one line; of one that is not ours the type is named, and where to learn more."""
    text = " ".join(str(error).split())
    if isinstance(error, RealesrError):
        return text
    return f"unexpected {type(error).__name__}: {text} (--debug shows where)"


@contextmanager
def errors_reported(words: Words) -> Iterator[None]:
    """Turn an error that ends the command into its red line and its exit code."""
    try:
        yield
    except BrokenPipeError:
        # Whoever read the results has gone; the interpreter must not trip over the pipe again when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        words.say("stopped: nothing half-written is left")
        raise typer.Exit(STOPPED) from None
    except RealesrError as error:
        words.error(error)
        raise typer.Exit(error.exit_code) from None
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:
        words.error(error)
        raise typer.Exit(1) from None


def result(text: str) -> None:
    """One line of results on stdout, at once, so that a reader at the other end of a pipe can begin."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def json_line(record: Mapping[str, Any]) -> None:
    """One JSON object on stdout; what JSON does not know is written as text."""
    result(json.dumps(record, default=str))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout where that is a terminal, else tab-separated lines without a heading.

    The first column is never cut: it has the names that other commands take.
    """
    console = Console(highlight=False)
    if not console.is_terminal:
        for row in rows:
            result("\t".join(row))
        return
    grid = Table(Column(columns[0], no_wrap=True), *columns[1:], title=title, title_justify="left", box=SIMPLE_HEAD)
    for row in rows:
        grid.add_row(*(Text(cell) for cell in row))
    console.print(grid)


def facts(values: Mapping[str, str]) -> None:
    """Names and values on stdout, one pair a line, the values in one column."""
    width = max(map(len, values))
    for name, value in values.items():
        result(f"{name:<{width}}  {value}")


def megabytes(size: float) -> str:
    """A size in bytes as "1.9 GB" or "67 MB" (decimal units)."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"

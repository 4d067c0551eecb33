"""Draws a progress bar in the unit of what is done, by rich."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from realesr.progress import AmountCallback


@contextmanager
def progress_bar(title: str, unit: str, console: Console) -> Iterator[AmountCallback]:
    """Show a bar while the block runs; yields the callback with what is done and the total, in px or bytes."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), Amount(unit), TimeRemainingColumn())
    # A slow network needs ten seconds and more for a tile: the speed is averaged over two minutes.
    redirect: Any = {"redirect_stdout": sys.stdout is not None, "redirect_stderr": sys.stderr is not None}
    with Progress(*columns, console=console, transient=True, speed_estimate_period=120, **redirect) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)


class Amount(ProgressColumn):
    """The column of a progress bar with the amount and the speed: "1.2/12.0 MP  0.35 MP/s"."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._name = {"px": "MP", "bytes": "MB"}[unit]

    def render(self, task: Task) -> Text:
        """Return the amount done, the total and the speed; called by rich."""
        if task.total is None:
            return Text("starting")
        speed = task.finished_speed or task.speed
        pace = "" if not speed else f"  {speed / 1e6:.3g} {self._name}/s"
        return Text(f"{task.completed / 1e6:.1f}/{task.total / 1e6:.1f} {self._name}{pace}")

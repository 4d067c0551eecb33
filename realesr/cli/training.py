"""Has what the commands that train share: who speaks, how warnings are told, and what is said at the end."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from realesr.errors import MissingDependency

if TYPE_CHECKING:
    from .console import Messages


def messages_of_process(*, quiet: bool, debug: bool) -> "Messages":
    """Return the messages of this process; of several that train together the first speaks, the others tell errors."""
    from . import console

    return console.Messages(quiet=quiet or os.environ.get("RANK", "0") != "0", debug=debug)


def tell_network(network: Path | None, messages: "Messages") -> None:
    """Write the path of the network to stdout, and say how it is used; processes that have none say nothing."""
    from . import console

    if network is not None:
        messages.say(f"to use it: realesr upscale photo.jpg -m {network.parent}")
        console.result(str(network))


@contextmanager
def warnings_in_lines(messages: "Messages") -> Iterator[None]:
    """Tell warnings of torch and others in a line each, and each once, without its place in their code."""
    told: set[str] = set()

    def tell(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        line = f"{category.__name__}: {' '.join(str(message).split())}"
        if line not in told:
            told.add(line)
            messages.say(line)

    with warnings.catch_warnings():
        warnings.showwarning = tell
        yield


@contextmanager
def torch_needed(what: str = "training") -> Iterator[None]:
    """Raise MissingDependency, with the line that installs torch, where torch is missing; `what` needs it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != "torch":
            raise
        raise MissingDependency(f"{what} needs the package torch: run 'pip install \"realesr[train]\"'") from error

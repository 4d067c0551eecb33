"""Has what the openers share that decode with Pillow."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from realesr.errors import InputError


@contextmanager
def pillow_errors(path: Path) -> Iterator[None]:
    """Turn errors of Pillow and pillow-heif about the file at `path` into InputError."""
    try:
        yield
    except (OSError, ValueError, SyntaxError, RuntimeError, EOFError, IndexError) as error:
        reason = str(error).split("\n")[0].rstrip(".") or type(error).__name__
        raise InputError(f"{path} is truncated or damaged ({reason}); get a whole copy") from error

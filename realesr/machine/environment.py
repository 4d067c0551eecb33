"""Gives an environment variable a value for as long as a library that reads it is imported."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def default_variable(name: str, value: str) -> Iterator[None]:
    """Set a variable inside the block, unless the user has set it; what others find in it stays as it was."""
    was_set = name in os.environ
    os.environ.setdefault(name, value)
    try:
        yield
    finally:
        if not was_set:
            del os.environ[name]

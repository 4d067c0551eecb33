"""Calls engines' libraries, in one place: translates their errors into ours, and keeps out while Python ends."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from realesr.errors import EngineError, OutOfMemory, RealesrError
from realesr.machine.leaving import native_call

_LONGEST_MESSAGE = 300


def is_runtime_error(error: Exception) -> bool:
    """Return whether an error is one that libraries bound to Python raise for all that fails inside."""
    return isinstance(error, RuntimeError)


@contextmanager
def translated(
    what: str,
    *,
    out_of_memory: tuple[str, ...] = (),
    is_foreign: Callable[[Exception], bool] = is_runtime_error,
    error_type: type[RealesrError] = EngineError,
) -> Iterator[None]:
    """Be inside a library, see `native_call`, and raise our errors in place of the library's.

    Args:
        what: what failed, for the message: the engine and its device, or a file that cannot be opened.
        out_of_memory: parts of messages that mean OutOfMemory; Python's own MemoryError always does.
        is_foreign: whether an error comes from the library; others pass.
        error_type: class of the error that is raised for all else.
    """
    try:
        with native_call():
            yield
    except MemoryError as error:
        raise OutOfMemory(f"{what}: out of memory; expected a smaller tile") from error
    except Exception as error:
        if isinstance(error, RealesrError) or not is_foreign(error):
            raise
        message = " ".join(str(error).split())
        if any(part in message for part in out_of_memory):
            raise OutOfMemory(f"{what}: out of memory; expected a smaller tile ({shortened(message)})") from error
        raise error_type(f"{what}: {shortened(message)}") from error


def shortened(message: str) -> str:
    """Return a message of at most some 300 characters; the end of a long one says more than its middle."""
    return message if len(message) <= _LONGEST_MESSAGE else f"{message[:120]} ... {message[-170:]}"

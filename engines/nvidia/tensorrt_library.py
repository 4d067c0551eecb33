"""Imports TensorRT, or TensorRT for RTX: one API under two names, and no other file imports them."""

import collections
import importlib
import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

from realesr.engines.installed import is_installed
from realesr.errors import EngineError, MissingDependency

Library = Literal["tensorrt", "tensorrt-rtx"]

LIBRARIES: tuple[Library, ...] = get_args(Library)
"""tensorrt builds for the GPU of the machine that it runs on; tensorrt-rtx for any kind of GPU it knows, anywhere."""

TENSORRT_MODULES: Mapping[Library, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}

INSTALL: dict[Library, str] = {
    "tensorrt": "pip install tensorrt cuda-bindings",
    "tensorrt-rtx": "pip install tensorrt-rtx-cu13 cuda-bindings",
}

OUT_OF_MEMORY = ("out of memory", "OutOfMemory", "cudaErrorMemoryAllocation", "FAILED_ALLOCATION", "cudaError 2)")
"""Parts of TensorRT's messages where a GPU's memory is short: calls only return False or None."""

_NO_TARGETS = ("NONE", "CURRENT")
_WARNING = 2
"""ILogger.Severity: 0 internal error, 1 error, 2 warning, 3 info, 4 verbose."""


def installed() -> tuple[Library, ...]:
    """Return the libraries of LIBRARIES that are installed."""
    return tuple(library for library in LIBRARIES if is_installed(TENSORRT_MODULES[library]))


def require(library: Library) -> None:
    """Raise MissingDependency where the library is not installed."""
    if library not in installed():
        raise MissingDependency(f"{library} is not installed: run '{INSTALL[library]}'")


def load(library: Library) -> Any:
    """Import a library, and return its module.

    Raises:
        MissingDependency: it is not installed.
        EngineError: it is, but does not load.
    """
    require(library)
    try:
        return importlib.import_module(TENSORRT_MODULES[library])
    except (ImportError, OSError) as error:
        message = " ".join(str(error).split())
        raise EngineError(f"{library} is installed but does not load ({message}): reinstall it") from error


def targets(trt: Any) -> tuple[str, ...]:
    """Return the compute capabilities that it builds for ahead of time, like "sm89"; none with `tensorrt`."""
    known = getattr(trt, "ComputeCapability", None)
    if known is None:
        return ()
    return tuple(sorted((name.lower() for name in known.__members__ if name not in _NO_TARGETS), key=_number))


def new_log(trt: Any) -> Any:
    """Make a logger that keeps the last warnings and errors, for `last_words`, and prints nothing."""

    class MessageLog(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.messages: collections.deque[tuple[int, str]] = collections.deque(maxlen=20)

        def log(self, severity: Any, msg: str) -> None:
            if severity.value <= _WARNING:
                self.messages.append((severity.value, one_line(msg)))

    return MessageLog()


def last_words(log: Any) -> str:
    """Return the first of the last errors, which names the cause; "no message" where there is none.

    Every error without a GPU is followed by one of the CUDA runtime about the missing driver, which hides the cause.
    """
    errors = [text for severity, text in log.messages if severity < _WARNING]
    causes = [text for text in errors if "catchCudaError" not in text]
    return next(iter(causes or errors), "no message")


def one_line(message: str) -> str:
    """Return a message without line breaks, and without its place in TensorRT's own source."""
    return re.sub(r"\s*(\(In|In) \S+ at /\S+?:\d+\)?", "", " ".join(message.split()))[:300]


def _number(target: str) -> int:
    return int(target.removeprefix("sm"))

"""Every error that realesr raises on purpose, as one tree. Each class carries the exit code of the command line.

RealesrError                  1   base class: never raised itself
├── UsageError                2   an option or argument makes no sense: the message says what would
├── InputError                1   an input cannot be read
├── OutputError               1   an output cannot be written, or its format cannot hold the image
│   └── OutputExists          1   the output exists, and it may not be overwritten
├── LargeEnough               1   the image has the size that was asked for, or a larger one: nothing is written
├── ModelError                1   weights that are unknown, damaged or of no known architecture
├── EngineError               1   an engine cannot be opened or failed while running
│   ├── OutOfMemory           1   the batch does not fit; a smaller one may
│   ├── BadShape              1   the batch breaks the engine's size rule
│   └── NotFinite             1   the network's output has values that are not numbers, even in float32
├── ExportError               1   an exported file does not compute what its network does
├── TrainingError             1   training came to a loss that is not finite
└── MissingDependency         1   an optional package is needed: the message has the line that installs it

A message is one line: what was got, what was expected, what to do. It names options in words, never as command-line
flags: an error carries the name of the option that would help, and the command line adds which flag sets it.
"""


class RealesrError(Exception):
    """Base of all errors that realesr raises on purpose.

    Args:
        message: one line.
        option: field of an options dataclass, such as "overwrite", that would help.
    """

    exit_code = 1

    def __init__(self, message: str = "", *, option: str | None = None) -> None:
        super().__init__(message)
        self.option = option


class UsageError(RealesrError, ValueError):
    """An option or argument makes no sense; nothing was started."""

    exit_code = 2


class InputError(RealesrError):
    """An input is missing, empty, truncated, too large or of an unknown kind."""


class OutputError(RealesrError):
    """An output cannot be written, or its format cannot hold the image."""


class OutputExists(OutputError):  # noqa: N818
    """The output exists already, and it may not be overwritten."""


class LargeEnough(RealesrError):  # noqa: N818
    """The image has the size that was asked for, or a larger one; nothing was written."""


class ModelError(RealesrError):
    """A network is unknown, its file is damaged, or its architecture is not known."""


class EngineError(RealesrError):
    """An engine cannot be opened, or failed while running."""


class OutOfMemory(EngineError):  # noqa: N818 - the field's own term
    """A batch does not fit into the device's memory; a smaller one may."""


class BadShape(EngineError):  # noqa: N818
    """A batch breaks the engine's size rule."""


class NotFinite(EngineError):  # noqa: N818
    """The network's output has values that are not finite, even in float32."""


class ExportError(RealesrError):
    """An exported file does not compute what its network does; it was not moved into place."""


class TrainingError(RealesrError):
    """Training came to a loss that is not finite."""


class MissingDependency(RealesrError):  # noqa: N818
    """An optional package is needed; the message has the line that installs it."""

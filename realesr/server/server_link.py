"""A child process's side of the line to the server: requests come on stdin, answers go to stdout.

See `realesr.server.child` for the lines. A thread reads them, so that a job learns that it was cancelled while it runs.
"""

import json
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from realesr.errors import OutOfMemory, OutputError, RealesrError

Request = dict[str, Any]
Handler = Callable[[Request], dict[str, Any]]

END_SECONDS = 2.0
"""How long the request at hand may go on once the server has gone."""


class Cancelled(RealesrError):  # noqa: N818
    """The server has cancelled the request that is at hand, or has gone."""


class ServerLink:
    """The line to the server. One request is at hand at a time."""

    def __init__(self) -> None:
        """Take stdin and stdout for the line; what libraries print goes to stderr."""
        self._requests_in = os.fdopen(os.dup(0), "rb")
        self._answers_out = os.fdopen(os.dup(1), "wb", buffering=0)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(2, 1)
        sys.stdout = sys.stderr
        self._requests: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._writing = threading.Lock()
        self._at_hand = 0
        self._last_cancelled = 0
        """Id of the last request that was cancelled; all before it are over."""
        self._is_ended = False

    def serve(self, handlers: Mapping[str, Handler]) -> None:
        """Answer requests by the handler that "do" names, until the server closes the line or is gone."""
        threading.Thread(target=self._read, name="realesr-requests", daemon=True).start()
        while (request := self._requests.get()) is not None:
            self._at_hand = request["id"]
            try:
                answer = {"done": handlers[request["do"]](request)}
            except Exception as error:  # whatever fails, the server learns why, and the next request is answered
                answer = _failure(error)
            self.say(answer)

    def say(self, answer: Mapping[str, Any]) -> None:
        """Send one answer to the request at hand, from any thread; where the server is gone, end this process."""
        line = json.dumps({**answer, "id": self._at_hand}).encode() + b"\n"
        with self._writing:
            try:
                while line:
                    line = line[self._answers_out.write(line) :]
            except OSError:
                os._exit(1)

    def check(self) -> None:
        """Raise Cancelled, in whichever thread calls this, where the request at hand is wanted no more."""
        if self._is_ended or self._at_hand <= self._last_cancelled:
            raise Cancelled("cancelled")

    def _read(self) -> None:
        """Queue requests, and note which are cancelled; runs in a thread of its own, to the end of the line."""
        for line in self._requests_in:
            request = json.loads(line)
            if request["do"] == "cancel":
                self._last_cancelled = request["id"]
            else:
                self._requests.put(request)
        self._is_ended = True
        self._requests.put(None)
        time.sleep(END_SECONDS)
        os._exit(1)


def _public_class(error: RealesrError) -> str:
    """Return the name of the class in `realesr.errors` that an error is one of: the server knows no other."""
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == RealesrError.__module__)


def _failure(error: Exception) -> dict[str, Any]:
    """Return the answer that tells why a request failed."""
    if isinstance(error, MemoryError):
        error = OutOfMemory("there is not enough memory for this image: try it at a smaller scale")
    elif isinstance(error, OSError):
        error = OutputError(f"the server's files cannot be read or written ({error.strerror or error}): try again")
    if isinstance(error, RealesrError):
        return {"failed": str(error), "kind": _public_class(error), "option": error.option}
    traceback.print_exception(error, file=sys.stderr)
    return {"failed": f"realesr failed ({type(error).__name__}: {error})", "kind": "EngineError"}

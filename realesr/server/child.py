"""A child process that answers requests: one line of JSON each way, over its stdin and stdout.

    request  {"id": 7, "do": "upscale", ...}
    answers  {"id": 7, "progress": [40, 100]}, and at last
             {"id": 7, "done": {...}} or {"id": 7, "failed": "why", "kind": "InputError"}
    cancel   {"id": 7, "do": "cancel"}

A child that dies is started anew by the next request. It ends when its stdin does, however this process ends.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from realesr.errors import EngineError

Answer = dict[str, Any]

LONGEST_LINE_BYTES = 1 << 20
STDERR_BYTES = 2048
"""End of what a child writes to stderr, which tells why it died."""
END_SECONDS = 3.0
"""How long a child may take to end by itself."""


class ChildDied(EngineError):  # noqa: N818
    """The process that was at work has ended without an answer."""


class Child:
    """A child process, started when it is first needed. It does one request at a time; others wait for their turn."""

    def __init__(
        self,
        module: str,
        arguments: tuple[str, ...] = (),
        *,
        purpose: str,
        variables: Mapping[str, str] | None = None,
        on_start: Callable[[], None] = lambda: None,
    ) -> None:
        """Describe the process; nothing is started yet.

        Args:
            module: run by `python -m`.
            arguments: its command line.
            purpose: what it does, for messages: "runs the networks".
            variables: environment variables, besides those of this process.
            on_start: called before each start.
        """
        self._command = [sys.executable, "-P", "-m", module, *arguments]
        self._purpose, self._variables, self._on_start = purpose, dict(variables or {}), on_start
        self._process: Process | None = None
        self._stderr = b""
        self._stderr_read: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._number = 0
        self._is_ended = False
        self.starts = 0
        """How often the process has been started."""

    @property
    def pid(self) -> int | None:
        """Return the process's id; None while there is none."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def ask(self, request: Mapping[str, Any], most_seconds: float | None = None) -> AsyncGenerator[Answer]:
        """Send a request, and yield the answers up to the last one, which has "done" or "failed" in it.

        Whoever stops listening before that ends the process.

        Args:
            request: what is asked, but for its id.
            most_seconds: how long the process may take for each answer; none sets no limit.

        Raises:
            ChildDied: the process ended before its last answer, took too long for it, or cannot be started.
        """
        async with self._turn:
            process = await self._running()
            self._number += 1
            is_answered = False
            try:
                self._send({**request, "id": self._number})
                while not is_answered:
                    answer = await asyncio.wait_for(self._next_answer(process), most_seconds)
                    if answer.pop("id", None) == self._number:
                        is_answered = "done" in answer or "failed" in answer
                        yield answer
            except TimeoutError:
                raise ChildDied(f"the process that {self._purpose} took more than {most_seconds:g} s") from None
            finally:
                if not is_answered:
                    await self._bury(process)

    def cancel(self) -> None:
        """Ask the process to give up the request that it is at; it answers "failed" as soon as it has."""
        if self._process and self._process.returncode is None:
            self._send({"do": "cancel", "id": self._number})

    def kill(self) -> None:
        """End the process, and what it has started, at once."""
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                if os.name == "posix":
                    os.killpg(self.pid, signal.SIGKILL)
                else:
                    self._process.kill()  # type: ignore[union-attr]

    async def start(self) -> None:
        """Start the process if there is none; raises ChildDied where that cannot be done."""
        async with self._turn:
            await self._running()

    async def end(self) -> None:
        """Let the process end, and kill it where it does not within a few seconds; it is not started again."""
        self._is_ended = True
        process = self._process
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), END_SECONDS)
        await self._bury(process)

    async def _bury(self, process: Process) -> None:
        """Kill a process, and read the last of what it wrote to stderr; a process that it has started may keep that."""
        if process is not self._process:
            return
        self.kill()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), END_SECONDS)
        if self._stderr_read:
            await asyncio.wait([self._stderr_read], timeout=END_SECONDS)
            self._stderr_read.cancel()
        self._process = None

    async def _running(self) -> Process:
        """Return the process, started if there is none."""
        if self._process is not None and self._process.returncode is None:
            return self._process
        if self._is_ended:
            raise ChildDied(f"the process that {self._purpose} has ended with the server")
        self._on_start()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                limit=LONGEST_LINE_BYTES,
                env={**os.environ, **self._variables},
                start_new_session=True,  # Ctrl-C in the terminal is for the server alone, which gives jobs their time
            )
        except OSError as error:
            raise ChildDied(f"the process that {self._purpose} cannot be started ({error.strerror})") from error
        self.starts += 1
        self._stderr = b""
        self._stderr_read = asyncio.create_task(self._read_stderr(self._process))
        return self._process

    async def _read_stderr(self, process: Process) -> None:
        """Keep the end of what the process writes to stderr."""
        assert process.stderr is not None
        while part := await process.stderr.read(4096):
            self._stderr = (self._stderr + part)[-STDERR_BYTES:]

    def _send(self, message: Answer) -> None:
        """Write one line; that the process is gone shows when its answer is read."""
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")

    async def _next_answer(self, process: Process) -> Answer:
        """Return the next answer; raise ChildDied where there is none."""
        assert process.stdout is not None
        try:
            line = await process.stdout.readline()
            answer = json.loads(line) if line.endswith(b"\n") else None
        except (ValueError, ConnectionError):  # too long, or cut, or no JSON
            answer = None
        if isinstance(answer, dict):
            return answer
        await self._bury(process)
        raise ChildDied(self._why_dead(process.returncode or 0))

    def _why_dead(self, code: int) -> str:
        """Return why the process has ended, in words, with its last line of stderr."""
        if code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            why = f"was ended by {name}"
            if name == "SIGKILL":
                why += ", as the system does when memory runs out"
        else:
            why = f"ended with code {code}"
        lines = self._stderr.decode("utf-8", "replace").strip().splitlines()
        said = f" ({lines[-1][:200]})" if lines else ""
        return f"the process that {self._purpose} {why}{said}; it is started anew for the next image"

"""Runs a server from the first connection to the end: socket, queue, uvicorn, signals."""

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import quote

from uvicorn import Config, Server

from realesr.errors import UsageError

from .app import build_app
from .http_protocol import MOST_HEADER_BYTES, PatientProtocol
from .job_queue import JobQueue, open_queue
from .settings import ServerSettings

MOST_CONNECTIONS = 500
LEAST_FAREWELL_SECONDS = 2.0
"""How long answers may still be sent once all jobs are over, however short the time for jobs is."""

_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Address that stands for all of this machine's -> one that reaches it from here."""
_log = logging.getLogger(__name__)


def serve(settings: ServerSettings, on_ready: Callable[[str], None]) -> None:
    """Serve until a signal ends it: SIGTERM, SIGINT or SIGHUP; a second one does not wait for running jobs.

    Args:
        settings: where, for whom and how much.
        on_ready: called with the link to the page once the server takes jobs.

    Raises:
        UsageError: the address cannot be bound.
        OutputError: temporary files cannot be written.
        ChildDied: a process that is needed cannot be started.
    """
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # what clients do wrong is no news
    with bound_socket(settings) as bound:
        asyncio.run(_serve(settings, bound, on_ready))


def bound_socket(settings: ServerSettings) -> socket.socket:
    """Return a socket at the address of the settings.

    Raises:
        UsageError: there is no such address here, or it is in use.
    """
    where = f"{settings.host} port {settings.port}"
    try:
        family, _, _, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{where} cannot be listened at ({reason})", option="host") from error
    both = settings.host == "::" and socket.has_dualstack_ipv6()  # the link may have an address of IPv4
    try:
        return socket.create_server(address[:2], family=family, backlog=MOST_CONNECTIONS, dualstack_ipv6=both)
    except OSError as error:
        option = "host" if error.errno == errno.EADDRNOTAVAIL else "port"
        reason = os.strerror(error.errno) if error.errno else error
        raise UsageError(f"{where} cannot be listened at ({reason})", option=option) from error


def link(settings: ServerSettings, port: int, *, from_here: bool = False) -> str:
    """Return the address of the page, with the token where there is one.

    Args:
        settings: of the server.
        port: that it has been bound to.
        from_here: whether the link shall work on this machine; else, where possible, on others.
    """
    host = settings.host
    if host in _EVERY_ADDRESS:
        host = _EVERY_ADDRESS[host] if from_here else own_address() or socket.gethostname()
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/" + (f"?token={quote(settings.token, safe='')}" if settings.token else "")


def own_address() -> str | None:
    """Return the address of this machine in its network, or None; nothing is sent.

    The address asked about is one that is set aside for documents (RFC 5737): it only chooses the network card.
    """
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])
    return None


async def _serve(settings: ServerSettings, bound: socket.socket, on_ready: Callable[[str], None]) -> None:
    """Serve on a socket until a signal comes, and until all is tidied up."""
    with signals_told() as signals:
        async with open_queue(settings) as queue:
            server = OwnSignalsServer(configuration(settings, queue))
            serving = asyncio.create_task(server.serve(sockets=[bound]))
            on_ready(link(settings, bound.getsockname()[1]))
            await _signal_or_end(signals, serving)
            await _end(server, queue, signals)
            server.force_exit = await _signal_or_end(signals, serving)
            await serving


async def _end(server: Server, queue: JobQueue, signals: "asyncio.Queue[int]") -> None:
    """Let running jobs end, and tell the server to end once their clients have the answers."""
    begun, grace = time.monotonic(), queue.settings.grace_seconds
    _log.info("ending: images that run have %g s", grace)
    closing = asyncio.create_task(queue.close(grace))
    if await _signal_or_end(signals, closing):
        grace = 0.0
        closing.cancel()
        await asyncio.gather(closing, return_exceptions=True)
        await queue.close(0)
    left = grace - (time.monotonic() - begun)
    server.config.timeout_graceful_shutdown = round(max(left, LEAST_FAREWELL_SECONDS))
    server.should_exit = True


async def _signal_or_end(signals: "asyncio.Queue[int]", task: "asyncio.Task[None]") -> bool:
    """Wait for a signal or the end of a task, whose error is raised; return whether it was the signal."""
    signalled = asyncio.create_task(signals.get())
    await asyncio.wait((signalled, task), return_when=asyncio.FIRST_COMPLETED)
    if not task.done():
        return True
    signalled.cancel()
    task.result()
    return False


class OwnSignalsServer(Server):
    """A server that leaves signals to `serve`: uvicorn would end by the signal itself, not by 0."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing; called by uvicorn."""
        yield


def configuration(settings: ServerSettings, queue: JobQueue) -> Config:
    """Return the settings of uvicorn."""
    return Config(
        build_app(settings, queue),
        http=PatientProtocol,
        ws="none",
        lifespan="off",
        loop="asyncio",
        log_config=None,
        log_level=logging.ERROR,  # what clients do wrong is no news
        access_log=False,
        server_header=False,
        limit_concurrency=MOST_CONNECTIONS,
        h11_max_incomplete_event_size=MOST_HEADER_BYTES,
    )


@contextmanager
def signals_told() -> Iterator["asyncio.Queue[int]"]:
    """Yield a queue that gets the number of each signal that asks this process to end, while the block runs."""
    told: asyncio.Queue[int] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    former = {}
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
        number = getattr(signal, name, None)
        # A shell's background job is not for Ctrl-C, and one under nohup stays when the terminal goes.
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            former[number] = signal.signal(number, lambda got, _: loop.call_soon_threadsafe(told.put_nowait, got))
    try:
        yield told
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)

"""`realesr serve`: its options, and what it says when it starts and ends."""

import logging
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from realesr.errors import MissingDependency, UsageError

from . import options as opt
from .quantities import bytes_from, seconds_from

if TYPE_CHECKING:
    from realesr.server.settings import ServerSettings

    from .console import Messages

ADDRESS = "Address and access"
LIMITS = "Limits"

LEAST_TOKEN_CHARS = 16
TOKEN_VARIABLE = "REALESR_TOKEN"

EXAMPLES = """\
realesr serve --open                   # the page in the browser
realesr serve --port 9000 --keep 10min
realesr serve --host 0.0.0.0           # for others, by a link with a token
realesr serve --host 0.0.0.0 --token correct-horse-battery
realesr serve --allow-host photos.example  # behind a reverse proxy
realesr serve --host 10.0.0.7 --no-auth    # whoever reaches it may use it
realesr serve --queue 16 --max-upload 50MB --max-pixels 40000000
realesr serve --device cuda:0,1 --engine torch --precision fp16
realesr serve --threads 4 --grace 2min -v
realesr serve --port 0 --quiet > link.txt"""

Host = Annotated[
    str,
    typer.Option(
        metavar="ADDRESS",
        rich_help_panel=ADDRESS,
        help="Address to listen at; 0.0.0.0 is every one of this machine. All but 127.0.0.1 need a token: one is made "
        "unless --token names it.",
    ),
]
Port = Annotated[int, typer.Option(metavar="N", rich_help_panel=ADDRESS, help="Port; 0 takes a free one.")]
Open = Annotated[bool, typer.Option("--open", rich_help_panel=ADDRESS, help="Open the page in the browser.")]
Token = Annotated[
    str | None,
    typer.Option(
        "--token",
        metavar="TEXT",
        envvar=TOKEN_VARIABLE,
        show_default=False,
        show_envvar=False,
        rich_help_panel=ADDRESS,
        help="What a request must have, 16 characters or more; better set as the variable REALESR_TOKEN, for others on "
        "this machine can read command lines.",
    ),
]
NoAuth = Annotated[
    bool, typer.Option("--no-auth", rich_help_panel=ADDRESS, help="No token: whoever reaches the server may use it.")
]
AllowHost = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-host",
        metavar="NAME",
        show_default=False,
        rich_help_panel=ADDRESS,
        help="A name by which requests may ask for this server, such as a reverse proxy's; may be given several times. "
        "A token is then needed at 127.0.0.1, too, for others come in by that name.",
    ),
]
Queue = Annotated[
    int, typer.Option("--queue", metavar="N", rich_help_panel=LIMITS, help="Most images that wait for their turn.")
]
MaxUpload = Annotated[
    str, typer.Option("--max-upload", metavar="SIZE", rich_help_panel=LIMITS, help="Largest file that is taken.")
]
MaxPixels = Annotated[
    int,
    typer.Option(metavar="PIXELS", rich_help_panel=LIMITS, help="Largest image that is taken, width times height."),
]
Keep = Annotated[
    str, typer.Option("--keep", metavar="TIME", rich_help_panel=LIMITS, help="How long results can be fetched.")
]
Grace = Annotated[
    str,
    typer.Option(
        "--grace",
        metavar="TIME",
        rich_help_panel=LIMITS,
        help="How long images that run may go on once the server is asked to end, by Ctrl-C or SIGTERM.",
    ),
]
Verbose = Annotated[
    bool, typer.Option("-v", "--verbose", rich_help_panel=opt.MESSAGES, help="Say on stderr how each request ended.")
]


def serve(
    host: Host = "127.0.0.1",
    port: Port = 8765,
    open: Open = False,
    token: Token = None,
    no_auth: NoAuth = False,
    allow_host: AllowHost = None,
    queue: Queue = 64,
    max_upload: MaxUpload = "200MB",
    max_pixels: MaxPixels = 100_000_000,
    keep: Keep = "1h",
    grace: Grace = "30s",
    engine: opt.EngineName = "auto",
    device: opt.Device = "auto",
    precision: opt.PrecisionName = "auto",
    threads: opt.Threads = None,
    quiet: opt.Quiet = False,
    verbose: Verbose = False,
    debug: opt.Debug = False,
) -> None:
    """Enlarge photos on a page in the browser, and by an HTTP API.

    Everything stays on this machine. The link to the page goes to stdout; the API is described at /openapi.json there.

    Exit codes: 0 ended by Ctrl-C or a signal, 1 something failed, 2 wrong usage.
    """
    from .console import Messages, errors_reported

    messages = Messages(quiet=quiet, verbose=verbose, debug=debug)
    with errors_reported(messages):
        check_installed()
        from realesr.options import NetworkOptions
        from realesr.server.settings import LOCAL_HOSTS, ServerSettings

        host = host.strip("[]")  # an address of IPv6 may be given as in links
        settings = ServerSettings(
            host=host,
            port=port,
            token=checked_token(token, is_local=host in LOCAL_HOSTS and not allow_host, no_auth=no_auth),
            allowed_hosts=tuple(allow_host or ()),
            queue_length=queue,
            most_upload_bytes=bytes_from(max_upload, "--max-upload"),
            most_pixels=max_pixels,
            keep_seconds=seconds_from(keep, "--keep"),
            grace_seconds=seconds_from(grace, "--grace"),
            devices=NetworkOptions(device=device).devices,
            engine=checked_engine(engine),
            precision=precision,
            threads=threads,
        )
        run(settings, messages, open_page=open, verbose=verbose)


def check_installed() -> None:
    """Raise MissingDependency where a package is missing that only the server needs."""
    from importlib.util import find_spec

    missing = [name for name in ("starlette", "uvicorn", "python_multipart") if find_spec(name) is None]
    if missing:
        raise MissingDependency(f"the server needs {', '.join(missing)}: pip install 'realesr[serve]'")


def checked_token(token: str | None, *, is_local: bool, no_auth: bool) -> str | None:
    """Return the token that requests must have: the one given, or a new one where others can reach the server.

    Args:
        token: what was given.
        is_local: whether only this machine can reach the server.
        no_auth: whether there shall be none.

    Raises:
        UsageError: the token is too short, or there shall be none.
    """
    import secrets

    if token and no_auth:
        raise UsageError(f"got a token, by --token or {TOKEN_VARIABLE}, and --no-auth: expected one of them")
    if token and not (len(token) >= LEAST_TOKEN_CHARS and token.isascii() and token.isprintable() and " " not in token):
        raise UsageError(
            f"got a token of {len(token)} characters, expected {LEAST_TOKEN_CHARS} or more, of ASCII and without spaces"
        )
    return token or (None if no_auth or is_local else secrets.token_urlsafe(24))


def checked_engine(name: str) -> str:
    """Return the name of an engine; raise UsageError where there is none of this name, and each job would fail."""
    if name != "auto":
        from realesr.engines import ENGINE_NAMES

        if name not in ENGINE_NAMES:
            raise UsageError(f"got engine {name!r}, expected auto, {', '.join(ENGINE_NAMES)}", option="engine")
    return name


def run(settings: "ServerSettings", messages: "Messages", *, open_page: bool, verbose: bool) -> None:
    """Serve until a signal comes, and say so."""
    import os
    import threading
    import webbrowser
    from urllib.parse import urlsplit

    from realesr.server.serving import link, serve

    from .console import handled, result

    def on_ready(address: str) -> None:
        result(address)
        messages.say("serving; Ctrl-C ends it")
        if settings.token is None and (settings.allowed_hosts or not settings.is_local):
            messages.say("no token is asked for: whoever reaches this address may use it")
        if open_page:
            here = link(settings, urlsplit(address).port or settings.port, from_here=True)
            threading.Thread(target=webbrowser.open, args=(here,), daemon=True).start()

    os.environ.pop(TOKEN_VARIABLE, None)  # the processes that read images need not know it
    with ExitStack() as shown:
        shown.enter_context(handled("uvicorn", Faults(messages)))
        if not verbose:  # then the whole log is shown
            shown.enter_context(handled("realesr", Warnings(messages)))
        shown.enter_context(messages.log_shown())
        serve(settings, on_ready)
    messages.say("ended")


class Warnings(logging.Handler):
    """Shows what those who run the server should know of, such as jobs that failed."""

    def __init__(self, messages: "Messages") -> None:
        super().__init__(logging.WARNING)
        self._messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        """Show a warning; called by logging."""
        self._messages.say(record.getMessage())


class Faults(logging.Handler):
    """Shows faults of the server itself; what clients do wrong is no news."""

    def __init__(self, messages: "Messages") -> None:
        super().__init__()
        self._messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        """Show an exception; called by logging."""
        if record.exc_info and isinstance(record.exc_info[1], Exception):
            self._messages.error(record.exc_info[1])
        else:
            self._messages.detail(record.getMessage())

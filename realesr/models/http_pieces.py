"""Asks a server for the bytes of a file, trusts nothing that it states, and never waits for it without end.

The answer comes through a thread of its own: a server that sends a byte a minute outlives every timeout between two
packets, in its headers as well as in its content. Redirects are followed here, for requests would read the content of
each answer on the way, however long.
"""

import http.client
import queue
import re
import threading
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

SLOWEST_BYTES_PER_SECOND = 1000
"""Pace below which a connection counts as broken."""
_WINDOW_SECONDS = 90.0
"""Time over which the pace is measured: more than both timeouts together, whose errors say more."""
_TIMEOUTS_SECONDS = (15, 60)
"""Timeouts of connecting and between two packets."""
_MOST_REDIRECTS = 5
_PIECE_BYTES = 1 << 16
_PIECES_AHEAD = 16
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class BrokenError(Exception):
    """A connection that ended early, or a server that may recover: another attempt may help."""


class RefusedError(Exception):
    """An answer that no other attempt would make better."""


class CannotResumeError(Exception):
    """The server does not give the bytes from the offset on; `total` is what it states of the whole file."""

    def __init__(self, total: int | None) -> None:
        self.total = total
        super().__init__("the server does not continue the file where it was asked to")


@dataclass(frozen=True)
class Piece:
    """Some bytes of a file, from `offset` on; `total` is how many the server states that there are in all."""

    offset: int
    total: int | None
    content: bytes


_Ready = queue.Queue[Piece | Exception | None]


def received(url: str, offset: int, answer_seconds: float | None = None) -> Generator[Piece, None, None]:
    """Yield the bytes of a file from `offset` on, or from 0 on where the server knows no ranges.

    The first piece is empty: it tells where the content begins before any of it is read. An iterator that is left
    early must be closed. The answer must begin within `answer_seconds`, names looked up and redirects followed; None
    leaves each of these its own timeout.

    Raises:
        BrokenError: the connection broke off or is too slow, or the server has trouble.
        CannotResumeError: the server does not begin at `offset`.
        RefusedError: the server does not give the file, or sends on to where nobody should follow.
    """
    ready: _Ready = queue.Queue(_PIECES_AHEAD)
    unwanted = threading.Event()
    threading.Thread(target=_send, args=(url, offset, ready, unwanted), daemon=True).start()
    pace = _Pace()
    try:
        while True:
            try:
                found = ready.get(timeout=pace.seconds_left if answer_seconds is None else answer_seconds)
            except queue.Empty:
                if answer_seconds is not None:
                    raise BrokenError(f"no answer within {answer_seconds:g} s") from None
                pace.add(0)
                continue
            answer_seconds = None
            if isinstance(found, Exception):
                raise found
            if found is None:
                return
            yield found
            pace.add(len(found.content))
    finally:
        unwanted.set()


class _Pace:
    """Measures how many bytes come in each window of time."""

    def __init__(self) -> None:
        self._begin()

    @property
    def seconds_left(self) -> float:
        """Return the rest of the window."""
        return max(self._end - time.monotonic(), 0)

    def add(self, count: int) -> None:
        """Count bytes.

        Raises:
            BrokenError: a window has passed in which too few came.
        """
        self._bytes += count
        if self.seconds_left:
            return
        if self._bytes < SLOWEST_BYTES_PER_SECOND * _WINDOW_SECONDS:
            raise BrokenError(f"the server sends fewer than {SLOWEST_BYTES_PER_SECOND} bytes a second")
        self._begin()

    def _begin(self) -> None:
        self._end, self._bytes = time.monotonic() + _WINDOW_SECONDS, 0


def _send(url: str, offset: int, ready: _Ready, unwanted: threading.Event) -> None:
    """Put the pieces into the queue, then None or the error that ended them, for as long as somebody wants them."""
    end = None
    try:
        with closing(_pieces(url, offset)) as pieces:
            for piece in pieces:
                _put(piece, ready, unwanted)
                if unwanted.is_set():
                    return
    except Exception as error:  # it is raised where the pieces are wanted
        end = error
    _put(end, ready, unwanted)


def _put(item: Piece | Exception | None, ready: _Ready, unwanted: threading.Event) -> None:
    while not unwanted.is_set():
        try:
            return ready.put(item, timeout=0.1)
        except queue.Full:
            continue


class _Session(requests.Session):
    """A session that leaves redirects to us."""

    def get_redirect_target(self, _: requests.Response) -> None:
        """Return that there is none."""


def _pieces(url: str, offset: int) -> Generator[Piece, None, None]:
    try:
        with _Session() as session, _answer(session, url, offset) as answer:
            start, total = _extent(answer, offset)
            yield Piece(start, total, b"")
            # Not iter_content, which unpacks, and reads chunks with lines and sizes that have no bounds.
            while content := answer.raw.read1(_PIECE_BYTES, decode_content=False):
                yield Piece(start, total, content)
                start += len(content)
    # Several errors of requests are both: those of addresses and headers that nobody can read are a ValueError.
    except ValueError as error:
        raise RefusedError(f"the server's answer cannot be read ({type(error).__name__})") from error
    except (OSError, urllib3.exceptions.HTTPError, http.client.HTTPException) as error:
        raise BrokenError(_why(error)) from error


def _answer(session: requests.Session, url: str, offset: int) -> requests.Response:
    """Return the answer with the file, its content unread."""
    # Compression would make the bytes that arrive other than those that Range counts.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={offset}-"} if offset else {})
    for _ in range(_MOST_REDIRECTS + 1):
        answer = session.get(url, headers=headers, stream=True, timeout=_TIMEOUTS_SECONDS)
        if answer.status_code not in _REDIRECTS:
            return answer
        answer.close()
        url = _redirected(url, answer.headers.get("Location", ""))
    raise RefusedError(f"the server sends on more than {_MOST_REDIRECTS} times")


def _redirected(url: str, location: str) -> str:
    """Return the address that a Location header means (RFC 9110, 10.2.2).

    Raises:
        RefusedError: it is none of http or https, or leaves https.
    """
    try:
        target = urljoin(url, location.encode("latin-1").decode("utf-8"))
        parts = urlsplit(target)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not (location and is_address and target.isprintable()):
        raise RefusedError(f"the server sends on to {location[:80]!a}, expected an address of http or https")
    if urlsplit(url).scheme == "https" and parts.scheme != "https":
        raise RefusedError(f"the server sends on from https to {target[:80]!a}, which anybody could alter")
    return target


def _extent(answer: requests.Response, asked: int) -> tuple[int, int | None]:
    """Return the offset of the content's first byte and the size of the whole file, where the server states it."""
    status = answer.status_code
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        stated = re.fullmatch(r"bytes \*/([0-9]{1,18})", answer.headers.get("Content-Range", ""))
        raise CannotResumeError(int(stated[1]) if stated else None)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS:
        raise BrokenError(f"the server says {_status_text(status)}")
    if status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        raise RefusedError(f"the server says {_status_text(status)}")
    packed = answer.headers.get("Content-Encoding", "identity").strip().lower()
    if packed not in ("identity", ""):
        raise RefusedError(f"the server packs the file ({packed[:40]!a}), although it was asked not to")
    if status == HTTPStatus.PARTIAL_CONTENT:
        return asked, _total_of_range(answer.headers.get("Content-Range", ""), asked)
    length = answer.headers.get("Content-Length", "").strip()
    # What is no number is left aside: the content ends where it ends, and its hash says whether it is whole.
    return 0, int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None


def _total_of_range(stated: str, asked: int) -> int | None:
    """Return the file's size from a Content-Range header (RFC 9110, 14.4); None where it states none."""
    found = re.fullmatch(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)", stated)
    if not found or int(found[1]) != asked or int(found[2]) < asked:
        raise CannotResumeError(None)
    if found[3] == "*":
        return None
    if int(found[3]) <= int(found[2]):
        raise CannotResumeError(None)
    return int(found[3])


def _status_text(status: int) -> str:
    """Return a status in our words: the server's own could hold anything."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _why(error: Exception) -> str:
    """Describe a network error in a few words; the library's own message shows several lines of its internals."""
    if isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)):
        return "the server does not answer"
    if isinstance(error, requests.exceptions.SSLError):
        return "the server's certificate is not trusted"
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy does not answer"
    if isinstance(error, urllib3.exceptions.ProtocolError):
        return "the connection broke off"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return type(error).__name__

"""Servers that lie, stall or never end: each gives the right file or one error, in bounded time and space."""

import contextlib
import hashlib
import os
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import pytest

from realesr.errors import ModelError
from realesr.models import download as module
from realesr.models import http_pieces
from realesr.models.download import download

CONTENT = bytes(range(256)) * 40
SIZE = len(CONTENT)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
HALF = SIZE // 2

Answer = Callable[[int, str], bytes | Iterable[bytes]]
"""What a server sends to a request for the bytes from an offset on; its own address is given too."""


class _Server(socketserver.ThreadingTCPServer):
    """Sends what `answer` gives, byte for byte."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests = 0
        self.answer: Answer = _honest

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        offset = 0
        while line := self.rfile.readline().strip():
            if line.lower().startswith(b"range: bytes="):
                offset = int(line.partition(b"=")[2].rstrip(b"-"))
        self.server.requests += 1
        parts = self.server.answer(offset, self.server.url)
        with contextlib.suppress(OSError):
            for part in [parts] if isinstance(parts, bytes) else parts:
                self.wfile.write(part)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(module, "_SECONDS_BEFORE_NEXT_ATTEMPT", 0)
    monkeypatch.setattr(module, "_VAIN_ATTEMPTS", 2)
    monkeypatch.setattr(module, "LARGEST_UNKNOWN_BYTES", 2 * SIZE)
    monkeypatch.setattr(http_pieces, "_TIMEOUTS_SECONDS", (1, 0.2))
    monkeypatch.setattr(http_pieces, "_WINDOW_SECONDS", 0.25)
    with _Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def _reply(status: str, *headers: str, content: bytes = b"") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode("latin-1") + content


def _honest(offset: int, _: str) -> bytes:
    if not offset:
        return _reply("200 OK", f"Content-Length: {SIZE}", content=CONTENT)
    return _reply("206 Partial Content", f"Content-Range: bytes {offset}-{SIZE - 1}/{SIZE}", content=CONTENT[offset:])


def _with_headers(*headers: str, content: bytes = CONTENT, status: str = "200 OK") -> Answer:
    return lambda *_: _reply(status, *headers, content=content)


def _sending_on(location: str) -> Answer:
    return _with_headers(location, content=b"", status="302 Found")


def _endless(start: bytes, more: bytes, pause_s: float = 0.0) -> Answer:
    def parts(*_: object) -> Iterator[bytes]:
        yield start
        for part in repeat(more):
            time.sleep(pause_s)
            yield part

    return parts


def _ranged(stated: str, content: bytes = b"") -> Answer:
    """Answer a Range with something odd, and other requests honestly."""
    partial = _reply("206 Partial Content", f"Content-Range: {stated}", content=content)
    return lambda offset, url: partial if offset else _honest(0, url)


RIGHT = "right"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A server, and what comes of it."""

    answer: Answer
    outcome: str
    """RIGHT, or a pattern of the error."""
    left: bytes | None = None
    """Content of the unfinished file before."""
    sizes: tuple[int | None, ...] = (SIZE, None)
    """What the client knows of the size."""


CHUNKED = "Transfer-Encoding: chunked"
CASES = {
    "honest": Case(answer=_honest, outcome=RIGHT),
    "honest, resumed": Case(answer=_honest, left=CONTENT[:HALF], outcome=RIGHT),
    "length negative": Case(answer=_with_headers("Content-Length: -5"), outcome=RIGHT),
    "length no number": Case(answer=_with_headers("Content-Length: many"), outcome=RIGHT),
    "length superscript": Case(answer=_with_headers("Content-Length: ²"), outcome=RIGHT),
    "length empty": Case(answer=_with_headers("Content-Length:"), outcome=RIGHT),
    "length of 5,000 digits": Case(answer=_with_headers(f"Content-Length: {'9' * 5000}"), outcome=RIGHT),
    "length twice, the same": Case(
        answer=_with_headers(f"Content-Length: {SIZE}", f"Content-Length: {SIZE}"), outcome=RIGHT
    ),
    "length twice, differing": Case(
        answer=_with_headers(f"Content-Length: {SIZE}", "Content-Length: 7"), outcome="cannot be read"
    ),
    "length too small, size known": Case(
        answer=_with_headers("Content-Length: 100"), outcome="has 100 bytes, expected 10,240", sizes=(SIZE,)
    ),
    "length too small": Case(
        answer=_with_headers("Content-Length: 100"), outcome="gave a file with SHA-256", sizes=(None,)
    ),
    "length too large": Case(
        answer=_with_headers(f"Content-Length: {SIZE + 9}"), outcome=r"expected 10,240|broke off", sizes=(SIZE, None)
    ),
    "length beyond the bound": Case(
        answer=_with_headers("Content-Length: 99999999999"), outcome="has 99,999,999,999 bytes, expected"
    ),
    "no length and no end": Case(
        answer=_endless(_reply("200 OK"), b"x" * 4096), outcome="has more than the .* bytes that|SHA-256"
    ),
    "no length, the rest never comes": Case(
        answer=_endless(_reply("200 OK", content=CONTENT), b"", 0.05), outcome=RIGHT, sizes=(SIZE,)
    ),
    "chunked": Case(answer=_with_headers(CHUNKED, content=b"2800\r\n" + CONTENT + b"\r\n0\r\n\r\n"), outcome=RIGHT),
    "chunks without end": Case(
        answer=_endless(_reply("200 OK", CHUNKED), b"400\r\n" + b"x" * 1024 + b"\r\n"), outcome="has more than|SHA-256"
    ),
    "chunk of odd length": Case(answer=_with_headers(CHUNKED, content=b"zz\r\n"), outcome="cannot be"),
    "chunk of negative length": Case(answer=_with_headers(CHUNKED, content=b"-5\r\nabc"), outcome="cannot be"),
    "chunk of length -1": Case(
        answer=_endless(_reply("200 OK", CHUNKED, content=b"-1\r\n"), b"x" * 4096), outcome="has more than|SHA-256"
    ),
    "chunk's length without end": Case(answer=_endless(_reply("200 OK", CHUNKED), b"0" * 4096), outcome="cannot be"),
    "trailers without end": Case(
        answer=_endless(_reply("200 OK", CHUNKED, content=b"0\r\n"), b"a: b\r\n", 0.001), outcome="cannot be"
    ),
    "packed": Case(
        answer=_with_headers("Content-Encoding: gzip", f"Content-Length: {SIZE}"), outcome="packs the file .'gzip'"
    ),
    "a byte now and then": Case(
        answer=_endless(_reply("200 OK"), b"x", 0.02), outcome="fewer than 1000 bytes a second"
    ),
    "a header now and then": Case(
        answer=_endless(b"HTTP/1.1 200 OK\r\n", b"a", 0.02), outcome="fewer than 1000 bytes a second"
    ),
    "asked to continue without end": Case(
        answer=_endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.001), outcome="fewer than 1000 bytes a second"
    ),
    "nothing": Case(answer=lambda *_: b"", outcome="cannot be fetched"),
    "silent": Case(answer=_endless(b"", b"", 0.05), outcome="the server does not answer"),
    "no HTTP": Case(answer=lambda *_: b"\x1b[31m\0" * 99, outcome="cannot be fetched"),
    "too many headers": Case(answer=_with_headers(*["a: b"] * 200), outcome="cannot be fetched"),
    "a status of its own": Case(answer=_with_headers(status="299 \x1b[31mOdd"), outcome="the server says 299;"),
    "not modified": Case(answer=_with_headers(status="304 Not Modified"), outcome="says 304 Not Modified"),
    "sent on to itself": Case(answer=lambda _, url: _sending_on(f"Location: {url}/again")(0, url), outcome="5 times"),
    "sent on to nowhere": Case(answer=_sending_on("Location:"), outcome="sends on to ''"),
    "sent on without address": Case(answer=_sending_on("X: y"), outcome="sends on to ''"),
    "sent on to a file": Case(answer=_sending_on("Location: file:///etc/passwd"), outcome="sends on to 'file:"),
    "sent on to ftp": Case(answer=_sending_on("Location: ftp://127.0.0.1/a"), outcome="sends on to 'ftp:"),
    "sent on to half an address": Case(answer=_sending_on("Location: http://[::1"), outcome="sends on to"),
    "sent on to an odd port": Case(answer=_sending_on("Location: http://127.0.0.1:99999/"), outcome="sends on to"),
    "sent on to a long name": Case(
        answer=_sending_on(f"Location: http://{'a' * 300}.test/"), outcome="cannot be|not to"
    ),
    "sent on with control characters": Case(answer=_sending_on("Location: http://a\x1b[31m/"), outcome="sends on to"),
    "sent on with an endless answer": Case(
        answer=lambda start, url: _endless(_reply("302 Found", f"Location: {url}/x"), b"x" * 4096)(start, url),
        outcome="5 times",
    ),
    "range of another place": Case(
        answer=_ranged(f"bytes 5-{SIZE - 1}/{SIZE}", CONTENT[5:]), left=CONTENT[:HALF], outcome=RIGHT
    ),
    "range of another total": Case(
        answer=_ranged(f"bytes {HALF}-{SIZE - 1}/{SIZE + 5}", CONTENT[HALF:]),
        left=CONTENT[:HALF],
        outcome="expected 10,240",
        sizes=(SIZE,),
    ),
    "range backwards": Case(answer=_ranged(f"bytes {HALF}-3/{SIZE}"), left=CONTENT[:HALF], outcome=RIGHT),
    "range in superscripts": Case(answer=_ranged("bytes ²-³/⁹".encode().decode("latin-1")), left=b"ab", outcome=RIGHT),
    "range without total": Case(
        answer=_ranged(f"bytes {HALF}-{SIZE - 1}/*", CONTENT[HALF:]), left=CONTENT[:HALF], outcome=RIGHT
    ),
    "range not stated": Case(
        answer=_with_headers(status="206 Partial Content"), left=CONTENT[:HALF], outcome="does not continue"
    ),
    "range that ends early": Case(
        answer=lambda offset, url: _reply(
            "206 P", f"Content-Range: bytes {offset}-{offset + 1023}/{SIZE}", content=CONTENT[offset : offset + 1024]
        ),
        outcome=RIGHT,
    ),
    "range ignored": Case(answer=lambda _, url: _honest(0, url), left=CONTENT[:HALF], outcome=RIGHT),
    "416 always": Case(
        answer=_with_headers("Content-Range: bytes */0", content=b"", status="416 Range"), outcome="does not continue"
    ),
    "416 that agrees with rubbish": Case(
        answer=lambda offset, url: _reply("416 R", f"Content-Range: bytes */{offset}") if offset else _honest(0, url),
        left=b"rubbish",
        outcome=RIGHT,
    ),
    "416 of odd size": Case(
        answer=lambda offset, url: _reply("416 R", "Content-Range: bytes */-1") if offset else _honest(0, url),
        left=b"rubbish",
        outcome=RIGHT,
    ),
    "breaks off at one place": Case(answer=lambda _, url: _honest(0, url)[:-9], outcome="broke off"),
}


@pytest.mark.parametrize(("name", "size"), [(name, size) for name, case in CASES.items() for size in case.sizes])
def test_a_hostile_server_gives_the_right_file_or_one_error(
    server: _Server, tmp_path: Path, name: str, size: int | None
) -> None:
    case = CASES[name]
    server.answer = case.answer
    target = tmp_path / "net.pth"
    if case.left is not None:
        (tmp_path / "net.pth.part").write_bytes(case.left)
    began = time.monotonic()
    if case.outcome == RIGHT:
        download(f"{server.url}/net.pth", target, sha256=SHA256, size=size)
        assert target.read_bytes() == CONTENT
        assert [path.name for path in tmp_path.iterdir()] == ["net.pth"]
    else:
        with pytest.raises(ModelError, match=case.outcome) as caught:
            download(f"{server.url}/net.pth", target, sha256=SHA256, size=size)
        assert str(caught.value).isprintable()
        assert not target.exists()
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 2 * SIZE
    assert time.monotonic() - began < 5


def test_a_server_that_breaks_off_after_each_byte_is_given_up(
    server: _Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SECONDS_BEFORE_NEXT_ATTEMPT", 0.01)
    server.answer = lambda offset, url: _honest(offset, url)[: offset + 1 - SIZE]
    with pytest.raises(ModelError, match="cannot be fetched"):
        download(server.url, tmp_path / "net.pth", sha256=SHA256, size=SIZE)
    assert server.requests <= 4


def test_https_is_never_left() -> None:
    assert http_pieces._redirected("https://a.test/x", "//b.test/y") == "https://b.test/y"
    assert http_pieces._redirected("http://a.test/x", "https://b.test/y") == "https://b.test/y"
    with pytest.raises(http_pieces.RefusedError, match=r"from https to 'http://b\.test"):
        http_pieces._redirected("https://a.test/x", "http://b.test/y")


def _link(part: Path, elsewhere: Path) -> None:
    part.symlink_to(elsewhere)


def _second_name(part: Path, elsewhere: Path) -> None:
    part.hardlink_to(elsewhere)


def _pipe(part: Path, _: Path) -> None:
    os.mkfifo(part)


@pytest.mark.skipif(sys.platform == "win32", reason="no such files here")
@pytest.mark.parametrize("make", [_link, _second_name, _pipe])
def test_what_lies_in_place_of_the_unfinished_file_is_never_written_to(
    server: _Server, tmp_path: Path, make: Callable[[Path, Path], None]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"mine")
    target = tmp_path / "models" / "net.pth"
    target.parent.mkdir()
    make(target.with_name("net.pth.part"), elsewhere)
    download(server.url, target, sha256=SHA256, size=SIZE)
    assert target.read_bytes() == CONTENT
    assert elsewhere.read_bytes() == b"mine"


@pytest.mark.skipif(sys.platform == "win32", reason="no locks")
@pytest.mark.parametrize("make", [_link, _pipe])
def test_a_lock_that_is_no_file_is_told(server: _Server, tmp_path: Path, make: Callable[[Path, Path], None]) -> None:
    make(tmp_path / "net.pth.lock", tmp_path / "elsewhere")
    with pytest.raises(ModelError, match=r"net\.pth\.lock cannot be written"):
        download(server.url, tmp_path / "net.pth", sha256=SHA256)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("name", ["net.pth.part", "net.pth.lock", "net.pth"])
def test_a_folder_in_place_of_a_file_is_told(server: _Server, tmp_path: Path, name: str) -> None:
    (tmp_path / name / "mine").mkdir(parents=True)
    with pytest.raises(ModelError, match=rf"{name}\S* cannot be written: .*REALESR_CACHE"):
        download(server.url, tmp_path / "net.pth", sha256=SHA256)
    assert (tmp_path / name / "mine").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_told_and_not_kept_full(
    server: _Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net.pth.part").write_bytes(CONTENT[:1000])
    monkeypatch.setattr(module, "_opened", lambda *_: os.fdopen(os.open("/dev/full", os.O_WRONLY), "wb"))
    with pytest.raises(ModelError, match="cannot be written: No space left on device"):
        download(server.url, tmp_path / "net.pth", sha256=SHA256)
    assert list(tmp_path.iterdir()) == []


DOWNLOAD = """
import sys
from pathlib import Path
from realesr.models.download import download
download(sys.argv[1], Path(sys.argv[2]), sha256=sys.argv[3])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no locks")
def test_of_several_processes_one_fetches_it(server: _Server, tmp_path: Path) -> None:
    def slowly(*_: object) -> Iterator[bytes]:
        yield _reply("200 OK", f"Content-Length: {SIZE}")
        for start in range(0, SIZE, 512):
            time.sleep(0.1)
            yield CONTENT[start : start + 512]

    server.answer = slowly
    command = [sys.executable, "-c", DOWNLOAD, server.url, str(tmp_path / "net.pth"), SHA256]
    for process in [subprocess.Popen(command) for _ in range(3)]:
        assert process.wait(30) == 0
    assert (tmp_path / "net.pth").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["net.pth"]
    assert server.requests == 1

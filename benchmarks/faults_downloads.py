"""Downloads one file from a hostile server of random lies, stalls and rubbish.

    python benchmarks/faults_downloads.py --child     downloads once for each line of stdin (JSON)

Right is the file whose hash was promised, under its name; a refusal leaves nothing there. Time limits of the
downloader are a tenth of the ordinary ones, so that a server that stalls costs a second.
"""

import contextlib
import hashlib
import json
import random
import socketserver
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from faults_children import AnsweringChild, answer_lines
from faults_verdicts import HALF, LEFTOVER, REFUSED, RIGHT, Tally, judged_message

TRIALS = 500
CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SIZE = len(CONTENT)
_STATUSES = (
    *("200 OK", "200 OK", "206 Partial Content", "204 None", "302 Found", "301 Moved", "304 Same", "404 Lost"),
    *("416 Range", "429 Slower", "500 Oops", "503 Later", "99 Odd", "2000 Many", "abc", ""),
)
_NUMBERS = ("0", "-1", "7", str(SIZE), str(SIZE - 1), str(SIZE + 1), "9" * 30, "9" * 5000, "1e3", "0x10", "\u00b2", "")

_ODD_HEADERS = ("a: b", "no colon", ": ", "\x1b[31m: x", "A" * 9000, "Content-Encoding: gzip", "Transfer-Encoding: x")
_PLACES = (
    *("", "/", "//", "file:///etc/passwd", "ftp://127.0.0.1/", "http://[::1", "http://127.0.0.1:99999/", "data:,x"),
    *("http://a\x1b[31m/", f"http://127.0.0.1/{'a' * 9000}"),
)


def inject(tally: Tally, trials: int, seed: int, folder: Path) -> None:
    """Download `trials` times, each from another liar, in a child process."""
    dice = random.Random(seed)
    child = AnsweringChild(Path(__file__))
    try:
        with _Server() as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            for number in range(trials):
                server.seed = dice.randrange(1 << 40)
                target = folder / f"{number}" / "net.pth"
                size = dice.choice((SIZE, None))
                if dice.random() < 0.3:
                    target.parent.mkdir()
                    left = dice.choice((CONTENT[: SIZE // 2], b"rubbish", CONTENT + b"more", b""))
                    target.with_name("net.pth.part").write_bytes(left)
                verdict, text = child.ask(json.dumps([server.url, str(target), size]))
                tally.add(_Liar(server.seed).subject, verdict, f"server of seed {server.seed}, size {size}: {text}")
            server.shutdown()
            thread.join()
    finally:
        child.close()


class _Server(socketserver.ThreadingTCPServer):
    """Answers every request as the liar of `seed` does."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seed = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/net.pth"


class _Handler(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        """Read a request, and send what the liar makes of it, until the client goes."""
        offset, liar = 0, _Liar(self.server.seed)
        with contextlib.suppress(OSError, ValueError):
            while line := self.rfile.readline().strip():
                if line.lower().startswith(b"range: bytes="):
                    offset = int(line.partition(b"=")[2].rstrip(b"-"))
            for part in liar.parts(offset, self.server.url):
                self.wfile.write(part)


class _Liar:
    """What a seed answers with: the same for every request of a download."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)
        self.subject = self._dice.choice(("headers", "lengths", "ranges", "chunks", "redirects", "content", "stalls"))

    def parts(self, offset: int, url: str) -> Iterator[bytes]:
        """Yield the answer to a request for the bytes from `offset` on."""
        dice = self._dice
        status, headers, content = "200 OK", [f"Content-Length: {SIZE}"], CONTENT
        if offset:
            status, content = "206 Partial Content", CONTENT[offset:]
            headers = [f"Content-Length: {len(content)}", f"Content-Range: bytes {offset}-{SIZE - 1}/{SIZE}"]
        if self.subject == "headers":
            status = dice.choice(_STATUSES)
            headers = [dice.choice((*headers, *_ODD_HEADERS))]
            headers *= dice.choice((0, 1, 2, 150))
        elif self.subject == "lengths":
            headers = [f"Content-Length: {dice.choice(_NUMBERS)}" for _ in range(dice.choice((1, 1, 2)))]
        elif self.subject == "ranges":
            first, last, total = (dice.choice((str(offset), *_NUMBERS)) for _ in range(3))
            status = dice.choice((status, "206 Partial Content", "416 Range"))
            stated = dice.choice((f"bytes {first}-{last}/{total}", f"bytes */{total}", "bytes", ""))
            headers = [f"Content-Range: {stated}"]
        elif self.subject == "chunks":
            headers, content = ["Transfer-Encoding: chunked"], self._chunks(content)
        elif self.subject == "redirects":
            status = dice.choice(("301 Moved", "302 Found", "307 There", "308 There"))
            headers = [f"Location: {dice.choice((url, f'{url}/and/on', *_PLACES))}"]
            content = dice.choice((b"", b"x" * 5000))
        elif self.subject == "content":
            content = self._other_content(content)
            headers = dice.choice((headers, [], [f"Content-Length: {len(content)}"]))
        yield "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode("latin-1", "replace")
        yield from self._stalled(content) if self.subject == "stalls" else [content]
        if dice.random() < 0.05:
            yield from self._endless()

    def _chunks(self, content: bytes) -> bytes:
        dice, body = self._dice, b""
        while content:
            size = dice.choice((1000, 5000, len(content)))
            stated = dice.choice((f"{size:x}",) * 8 + ("zz", "-1", "", "f" * 40, f"{size:x};a=b", f"{size + 1:x}"))
            body += stated.encode() + b"\r\n" + content[:size] + dice.choice((b"\r\n",) * 9 + (b"",))
            content = content[size:]
        return body + dice.choice((b"0\r\n\r\n", b"0\r\n", b"", b"0\r\na: b\r\n\r\n", b"-0\r\n\r\n"))

    def _other_content(self, content: bytes) -> bytes:
        dice = self._dice
        at = dice.randrange(max(1, len(content)))
        more = content + dice.randbytes(dice.choice((1, 5000)))
        return dice.choice((b"", content[:at], content[:at] + b"?" + content[at + 1 :], more, content[:-1], content))

    def _stalled(self, content: bytes) -> Iterator[bytes]:
        at = self._dice.choice((0, 1, len(content) // 2, max(0, len(content) - 1)))
        yield content[:at]
        for byte in content[at : at + self._dice.choice((0, 3, 100))]:
            time.sleep(0.03)
            yield bytes([byte])
        time.sleep(self._dice.choice((0.0, 0.5)))
        if self._dice.random() < 0.3:
            yield content[at:]

    def _endless(self) -> Iterator[bytes]:
        while True:
            yield self._dice.choice((b"x" * 4096, b"400\r\n" + b"x" * 1024 + b"\r\n"))


def _judge(line: str) -> tuple[str, str]:
    from realesr.errors import ModelError
    from realesr.models.download import download

    url, name, size = json.loads(line)
    target = Path(name)
    try:
        download(url, target, sha256=SHA256, size=size)
        verdict, text = RIGHT, ""
    except ModelError as error:
        verdict, text = judged_message(str(error))
    if target.exists() and target.read_bytes() != CONTENT:
        return HALF, f"other bytes are under the final name; {text}"
    if target.exists() != (verdict == RIGHT):
        return HALF, f"the file is there: {target.exists()}; {text}"
    names = sorted(path.name for path in target.parent.iterdir()) if target.parent.exists() else []
    held = sum(path.stat().st_size for path in target.parent.iterdir()) if names else 0
    allowed = [target.name] if verdict == RIGHT else ["net.pth.lock", "net.pth.part"]
    if (verdict in (RIGHT, REFUSED) and not set(names) <= set(allowed)) or held > 3 * SIZE:
        return LEFTOVER, f"{names} hold {held} bytes; {text}"
    return verdict, text


def _hurry() -> None:
    """Set the downloader's time limits to a tenth, and its size limit to twice the file."""
    from realesr.models import download as module
    from realesr.models import http_pieces

    module._SECONDS_BEFORE_NEXT_ATTEMPT, module._VAIN_ATTEMPTS = 0.0, 2
    module.LARGEST_UNKNOWN_BYTES = 2 * SIZE
    http_pieces._TIMEOUTS_SECONDS = (1, 0.2)  # type: ignore[assignment]
    http_pieces._WINDOW_SECONDS = 0.25


if __name__ == "__main__":
    _hurry()
    answer_lines(_judge)

"""Makes hostile requests: bytes to send over a socket, and what a server may answer to them.

Each maker takes a source of random numbers, and returns one request; the same seed gives the same requests. `CLOSED`
among the answers stands for a connection that is closed without any.
"""

import random
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

from faults_image_files import photo, saved
from PIL import Image
from server_child import COMPACT, form

TOKEN = "bench-token-bench-token"
MOST_UPLOAD_BYTES = 1_000_000
MOST_PIXELS = 4_000_000
SERVER_OPTIONS = (
    *("--engine", "nearest", "--token", TOKEN),
    *("--max-upload", str(MOST_UPLOAD_BYTES), "--max-pixels", str(MOST_PIXELS)),
)
"""Of the server that requests are made for."""

CLOSED = 0
_REFUSED = (400, 404, 405, 413, 415, 422, 431)
_JOBS, _IMAGES = "/api/jobs", "/v1/images/upscale"
_SLOW_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Hostile:
    """One hostile request."""

    subject: str
    pieces: Sequence[bytes]
    answers: Sequence[int]
    """HTTP statuses of the first answer, and CLOSED, that are right."""
    pause_seconds: float = 0.0
    """Between the pieces."""
    ends: bool = False
    """Whether the client closes its side once it has sent all: for requests that are not whole."""
    limit_seconds: float = 10.0
    """Within which it must be answered, or closed."""


Maker = Callable[[random.Random], Hostile]


def hostile_requests(count: int, seed: int) -> list[Hostile]:
    """Return so many requests, of every kind in turn."""
    dice = random.Random(seed)
    return [MAKERS[number % len(MAKERS)](dice) for number in range(count)]


def head(method: str, path: str, *lines: str, host: str = "127.0.0.1", token: str | None = TOKEN) -> bytes:
    """Return the head of a request, up to the empty line."""
    own = [f"Host: {host}"] if host else []
    own += [f"Authorization: Bearer {token}"] if token else []
    own += ["Connection: close"]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *own, *lines, "", ""]).encode("utf-8", "surrogateescape")


def post(content: bytes, name: str = "photo.png", path: str = _IMAGES, **fields: str) -> bytes:
    """Return a whole request that sends an image."""
    media_type, body = form(content, name, {"model": COMPACT, **fields})
    return head("POST", path, f"Content-Type: {media_type}", f"Content-Length: {len(body)}") + body


def png(width: int = 6, height: int = 4) -> bytes:
    """Return a small picture."""
    return saved(Image.fromarray(photo(height, width)), "PNG")


def _path(dice: random.Random) -> str:
    return dice.choice((_JOBS, _IMAGES))


# Bodies that are not what they are said to be


def _truncated(dice: random.Random) -> Hostile:
    whole = post(png(40, 30), path=_path(dice))
    return Hostile(
        subject="truncated body", pieces=[whole[: dice.randrange(200, len(whole))]], answers=(400, CLOSED), ends=True
    )


def _wrong_length(dice: random.Random) -> Hostile:
    whole = post(png(), path=_path(dice))
    start, _, body = whole.partition(b"\r\n\r\n")
    said = dice.choice(
        (b"-1", b"+5", b"abc", b"", b"1e3", b"0x10", b"99999999999999999999999", b"5, 7", b"7", b"1000000", b"\xb2")
    )
    lines = [
        b"Content-Length: " + said if line.startswith(b"Content-Length") else line for line in start.split(b"\r\n")
    ]
    pieces = [b"\r\n".join(lines) + b"\r\n\r\n" + body]
    return Hostile(subject="wrong Content-Length", pieces=pieces, answers=(400, 413, CLOSED), ends=True)


def _two_lengths(dice: random.Random) -> Hostile:
    lines = ["Content-Type: multipart/form-data; boundary=b", "Content-Length: 5"]
    lines.append(dice.choice(("Content-Length: 6", "Transfer-Encoding: chunked", "Transfer-Encoding: gzip, chunked")))
    pieces = [head("POST", _path(dice), *lines) + b"0\r\n\r\nGET /metrics HTTP/1.1\r\n\r\n"]
    return Hostile(subject="two lengths (request smuggling)", pieces=pieces, answers=(400, 501, CLOSED), ends=True)


def _chunks(dice: random.Random) -> Hostile:
    start = head("POST", _path(dice), "Content-Type: multipart/form-data; boundary=b", "Transfer-Encoding: chunked")
    nonsense = [b"zz\r\n", b"-5\r\nabc\r\n", b"5\r\nabc", b"ffffffffffffffffff\r\n", b"5\r\nabcdefgh\r\n0\r\n\r\n"]
    nonsense += [b"5;" + b"x" * 100_000 + b"\r\n", b"3\r\nabc\r\n0\r\nX: " + b"y" * 100_000, b"\r\n\r\n", b"0\r\n\r\n"]
    return Hostile(
        subject="chunked nonsense", pieces=[start + dice.choice(nonsense)], answers=(400, 431, CLOSED), ends=True
    )


def _form_nonsense(dice: random.Random) -> Hostile:
    part = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    bodies = (
        dice.randbytes(2000),
        b"--b--\r\n",
        b"--b\r\n" + b"X: y\r\n" * 5000,
        b"--b\r\n\r\nno disposition\r\n--b--\r\n",
        part * 50 + b"--b--\r\n",
        part + png() + b"\r\n--b\r\n",
        b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\nas text\r\n--b--\r\n',
        b"--b\r\nContent-Disposition: " + b"x" * 60_000 + b"\r\n\r\n\r\n--b--\r\n",
        part.replace(b"filename", b"filename*") + png() + b"\r\n--b--\r\n",
    )
    body = dice.choice(bodies)
    boundary = dice.choice(("b", "b", "b", "", "x" * 71, "c"))
    start = head("POST", _path(dice), f"Content-Type: multipart/form-data; boundary={boundary}", *_length(body))
    return Hostile(subject="malformed form", pieces=[start + body], answers=(400, 413))


def _media_type(dice: random.Random) -> Hostile:
    said = dice.choice(
        ("application/json", "image/png", "text/plain", "multipart/mixed; boundary=b", "\x7f", "", "a" * 9000)
    )
    body = png()
    pieces = [head("POST", _path(dice), f"Content-Type: {said}", *_length(body)) + body]
    return Hostile(subject="wrong Content-Type", pieces=pieces, answers=(400, 415))


def _many_fields(dice: random.Random) -> Hostile:
    count = dice.choice((12, 500, 20_000))
    names = [dice.choice(("scale", "quality", f"field{number}", "__proto__")) for number in range(count)]
    parts = [f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n1\r\n' for name in names]
    body = "".join(parts).encode() + b"--b--\r\n"
    start = head("POST", _path(dice), "Content-Type: multipart/form-data; boundary=b", *_length(body))
    return Hostile(subject="many fields", pieces=[start + body], answers=(400, 413))


def _values(dice: random.Random) -> Hostile:
    values = (
        *(
            {"scale": text}
            for text in ("nan", "inf", "-1", "0", "1e999", "999999999999", "\u0664", "0x4", "4; rm -rf /")
        ),
        *({"quality": text} for text in ("0", "101", "9" * 200, "ninety")),
        *({"strength": text} for text in ("2", "-0.1", "NaN")),
        *({"format": text} for text in ("gif", "../png", "png\x00", "svg", "x" * 300)),
        *(
            {"width": "99999999999"},
            {"megapixels": "100000"},
            {"width": "1", "scale": "2"},
            {"format": "png", "quality": "5"},
        ),
    )
    pieces = [post(png(), path=_path(dice), **dice.choice(values))]
    return Hostile(subject="senseless values", pieces=pieces, answers=(400, 422))


def _models(dice: random.Random) -> Hostile:
    names = ["unknown", "../../etc/passwd", "/etc/passwd", "https://evil.example/a.pth", "a b", "\u202ex", "x" * 5000]
    names += ["realesr-general-x4v3.pth", "..", "file:///etc/passwd", "realesr-general-x4v3\x00", "$(id)", "%00", "CON"]
    pieces = [post(png(), path=_path(dice), model=dice.choice(names))]
    return Hostile(subject="unknown networks", pieces=pieces, answers=(400,))


def _large(dice: random.Random) -> Hostile:
    body = bytes(MOST_UPLOAD_BYTES * dice.choice((2, 20)))
    announced = _length(body) if dice.random() < 0.5 else ["Transfer-Encoding: chunked"]
    start = head("POST", _path(dice), "Content-Type: multipart/form-data; boundary=b", *announced)
    part = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    sent = body if len(announced[0]) < 24 else b"%x\r\n" % (len(part) + len(body)) + part + body
    return Hostile(subject="too large", pieces=[start + sent], answers=(400, 413, CLOSED))


# Files that are not what they seem


def _names(dice: random.Random) -> Hostile:
    names = [
        "../../../etc/passwd",
        "/etc/passwd",
        "..\\..\\boot.ini",
        "a\x00.png",
        "CON.png",
        "%2e%2e%2f",
        "\u202egnp.exe",
    ]
    names += ["." * 300, "x" * 5000, "-rf", "$(reboot).png", "`id`", "a;b|c.png", "a'b\\\"c.png", "\udcff\udcfe", " "]
    names += ["\U0001f600" * 99, "\r\nX-Evil: 1", "a\r\n\r\n<script>"]
    name = dice.choice(names)
    media_type, body = form(png(), "NAME", {"model": COMPACT})
    body = body.replace(b"NAME", name.encode("utf-8", "surrogateescape").replace(b'"', b"%22"))
    start = head("POST", _IMAGES, f"Content-Type: {media_type}", *_length(body))
    return Hostile(subject="path names as file names", pieces=[start + body], answers=(200, 400))


def _scripts(dice: random.Random) -> Hostile:
    contents = (
        b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
        b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><svg>&e;</svg>",
        b"%PDF-1.7\n1 0 obj<</OpenAction<</S/JavaScript>>>>endobj\n",
        b"%!PS-Adobe-3.0\n(/etc/passwd) (r) file\n",
        b"push graphic-context\nviewbox 0 0 640 480\nfill 'url(https://evil.example/|ls \"-la)'\npop graphic-context\n",
        b"<image><read filename='/etc/passwd'/></image>",
        b"# comment\n/etc/passwd\n",
        b"<html><script>alert(1)</script></html>",
        b"MZ" + bytes(500),
        b"\x7fELF" + bytes(500),
        b"PK\x03\x04" + bytes(500),
        b"\x89HDF\r\n\x1a\n" + bytes(500),
        b"SIMPLE  =                    T" + bytes(3000),
        b"\x76\x2f\x31\x01" + bytes(500),
        b"",
        dice.randbytes(3000),
    )
    pieces = [post(dice.choice(contents), dice.choice(("a.png", "a.svg", "msl:a.msl", "ephemeral:a.png")), _path(dice))]
    return Hostile(subject="SVG, PDF, MVG and others", pieces=pieces, answers=(422,))


def _damaged(dice: random.Random) -> Hostile:
    kind = dice.choice(("PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP"))
    content = bytearray(saved(Image.fromarray(photo(40, 60)), kind))
    for _ in range(dice.randint(1, 30)):
        content[dice.randrange(len(content))] = dice.randrange(256)
    pieces = [post(bytes(content), f"a.{kind.lower()}")]
    return Hostile(subject="damaged images", pieces=pieces, answers=(200, 422))


def _bombs(dice: random.Random) -> Hostile:
    wide = dice.choice((20_000, 65_000, 2**31 - 1))
    bombs = (
        _png_of(wide, wide, zlib.compress(bytes(10_000))),
        _png_of(8, 8, _bomb()),
        _png_of(8, 8, zlib.compress(bytes(200), 9), (b"iCCP", b"p\x00\x00" + _bomb())),
        _png_of(8, 8, zlib.compress(bytes(200), 9), (b"zTXt", b"k\x00\x00" + _bomb())),
        b"BM" + struct.pack("<IHHIIiiHH", 100, 0, 0, 54, 40, wide, wide % 65_536, 1, 24) + bytes(24),
        b"P6 %d %d 255\n" % (wide, wide),
        b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + b"\x80\x00\x00" + bytes(6) + b"\x2c" + bytes(20),
        b"RIFF\x24\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff" + bytes(10),
    )
    pieces = [post(dice.choice(bombs), "a.png")]
    return Hostile(subject="decompression bombs", pieces=pieces, answers=(200, 422))


@cache
def _bomb() -> bytes:
    """Return 200 kB that become 200 MB."""
    return zlib.compress(bytes(200_000_000))


def _png_of(width: int, height: int, data: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """Return a PNG file with these compressed pixels (ISO/IEC 15948, 5.3)."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", data), (b"IEND", b"")]
    written = [
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(written)


# Who asks


def _tokens(dice: random.Random) -> Hostile:
    wrong = dice.choice((None, "", TOKEN[:-1], TOKEN.upper(), TOKEN + "x", "\u00fc" * 20, "x" * 30_000, f"{TOKEN}\x00"))
    target = dice.choice(
        ("GET /api/jobs", "GET /", "POST /api/jobs", "GET /metrics", "DELETE /api/jobs/x", "GET /?token=wrong")
    )
    method, path = target.split()
    pieces = [head(method, path, token=wrong)]
    return Hostile(subject="wrong tokens", pieces=pieces, answers=(400, 401))


def _hosts(dice: random.Random) -> Hostile:
    host = dice.choice(
        ("evil.example", "", "localhost.evil.example", "127.0.0.1.evil.example", "127.0.0.1, evil.example")
    )
    host = dice.choice((host, "evil.example:8765", "user@127.0.0.1", "127.0.0.1/../", "[::1", "0x7f000001", "\u0131p"))
    more = dice.choice(((), (), ("Host: 127.0.0.1",), ("X-Forwarded-Host: 127.0.0.1",)))
    pieces = [head(dice.choice(("GET", "POST")), dice.choice(("/", "/api/models")), *more, host=host)]
    return Hostile(subject="foreign Host", pieces=pieces, answers=(400, 403))


def _origins(dice: random.Random) -> Hostile:
    origin = dice.choice(
        ("https://evil.example", "null", "http://127.0.0.1.evil.example", "http://127.0.0.1:1", "file://")
    )
    line = dice.choice((f"Origin: {origin}", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site"))
    media_type, body = form(png(), "a.png", {"model": COMPACT})
    start = head("POST", _path(dice), line, f"Content-Type: {media_type}", *_length(body))
    return Hostile(subject="foreign Origin", pieces=[start + body], answers=(403,))


# What is no HTTP, or not what is meant by it


def _garbage(dice: random.Random) -> Hostile:
    garbage = dice.choice(
        (
            dice.randbytes(dice.randrange(1, 5000)),
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20,
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
            b"GET / HTTP/9.9\r\nHost: 127.0.0.1\r\n\r\n",
            b"GET\t/\tHTTP/1.1\r\n\r\n",
            b"\r\n" * 5000,
            b"SSH-2.0-OpenSSH_9.6\r\n",
            b"*1\r\n$4\r\nPING\r\n",
        )
    )
    return Hostile(subject="no HTTP, TLS, HTTP/2", pieces=[garbage], answers=(400, 403, 401, CLOSED), ends=True)


def _pipelined(dice: random.Random) -> Hostile:
    good = dice.choice((head("GET", "/healthz"), head("GET", "/api/models"), post(png()))).replace(
        b"Connection: close", b"A: b"
    )
    behind = dice.choice(
        (dice.randbytes(3000), b"\x00" * 100, b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n" * 50, b"POST")
    )
    return Hostile(subject="pipelined garbage", pieces=[good + behind], answers=(200, 400, CLOSED), ends=True)


def _headers(dice: random.Random) -> Hostile:
    lines = dice.choice(
        (
            [f"X: {'y' * 500_000}"],
            ["X: y"] * 100_000,
            [f"Cookie: {'a=b; ' * 30_000}"],
            [" folded", "X: y"],
            ["X y"],
            ["X\x00: y"],
            ["X: y\r"],
            [": empty"],
        )
    )
    pieces = [head("GET", "/healthz", *lines)]
    return Hostile(subject="enormous and broken headers", pieces=pieces, answers=(200, 400, 431, CLOSED))


def _methods(dice: random.Random) -> Hostile:
    method = dice.choice(
        ("TRACE", "CONNECT", "PUT", "PATCH", "OPTIONS", "PROPFIND", "get", "X" * 100, "DELETE", "HEAD")
    )
    path = dice.choice(
        ("/", "/api/jobs", "/v1/images/upscale", "127.0.0.1:22", "http://evil.example/", "*", "/metrics")
    )
    if method == "HEAD" and path in ("/", "/metrics", "/api/jobs"):
        method = "PUT"
    pieces = [head(method, path)]
    return Hostile(subject="TRACE, CONNECT and others", pieces=pieces, answers=(400, 404, 405))


def _ids(dice: random.Random) -> Hostile:
    id = dice.choice(
        ("..", "%2e%2e", "..%2f..%2fetc%2fpasswd", "....//", "%00", "a" * 3000, "%ff%fe", "'%20or%201=1", "x")
    )
    end = dice.choice(("", "/result", "/events", "/thumbnail", "/source", "/preview", "/tiles/result/0/0_0.jpg"))
    path = dice.choice((f"/api/jobs/{id}{end}", f"/static/{id}", f"/static/{id}/app.py", f"/api/archive?ids={id}"))
    method = dice.choice(("GET", "GET", "DELETE")) if path.startswith("/api/jobs") else "GET"
    answers = (307, 400, 404, 405)
    return Hostile(subject="ids and paths that climb", pieces=[head(method, path)], answers=answers)


def _ranges(dice: random.Random) -> Hostile:
    said = dice.choice(
        ("bytes=99999999-", "bytes=-0", "bytes=5-2", "bytes=a-b", "lines=1-2", "bytes=" + "0-1," * 9000, "bytes=")
    )
    path = dice.choice(("/static/main.js", "/static/style.css", "/"))
    pieces = [head("GET", path, f"Range: {said}")]
    return Hostile(subject="senseless ranges", pieces=pieces, answers=(200, 206, 400, 416))


def _tiles(dice: random.Random) -> Hostile:
    level = dice.choice(("-1", "99999999999999999999", "9" * 5000, "0.5", "0x0", "%20"))
    pieces = [head("GET", f"/api/jobs/x/tiles/{dice.choice(('result', '..'))}/{level}/0_0.jpg")]
    return Hostile(subject="senseless tiles", pieces=pieces, answers=(404,))


# Who takes their time


def _slow(dice: random.Random) -> Hostile:
    whole = post(png(200, 200), path=_path(dice))
    end = whole.index(b"\r\n\r\n") + 4
    if dice.random() < 0.5:  # never all headers
        pieces = [whole[at : at + 1] for at in range(end - 3)]
        return Hostile(
            subject="slow headers",
            pieces=pieces,
            answers=(CLOSED, 400, 408),
            pause_seconds=0.3,
            limit_seconds=_SLOW_SECONDS,
        )
    pieces = [whole[:end], *(whole[at : at + 5] for at in range(end, end + 1500, 5))]
    return Hostile(subject="slow body", pieces=pieces, answers=(408,), pause_seconds=0.2, limit_seconds=_SLOW_SECONDS)


def _stalled(dice: random.Random) -> Hostile:
    """Send a part, and then nothing: like `_slow`, for those that never go on."""
    whole = post(png(200, 200))
    return replace(_truncated(dice), subject="left in the middle", pieces=[whole[: dice.randrange(1, len(whole))]])


def _length(body: bytes) -> list[str]:
    return [f"Content-Length: {len(body)}"]


MAKERS: tuple[Maker, ...] = (
    *(_truncated, _wrong_length, _two_lengths, _chunks, _form_nonsense, _media_type, _many_fields, _values, _models),
    *(_large, _names, _scripts, _damaged, _bombs, _tokens, _hosts, _origins, _garbage, _pipelined, _headers, _methods),
    *(_ids, _ranges, _tiles, _stalled, _slow),
)
"""The slow ones, which take half a minute, come last: so that fewer trials than there are makers have none."""

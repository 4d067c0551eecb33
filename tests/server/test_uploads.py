"""Uploads: forms in any pieces, limits of size and time, and names."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect, Request

from realesr.server import uploads
from realesr.server.early_answers import EarlyAnswers
from realesr.server.file_names import attachment, harmless_name, numbered
from realesr.server.forms import Form
from realesr.server.refusals import Refusal
from realesr.server.uploads import MOST_FORM_BYTES, Upload, read_upload

BOUNDARY = b"----boundary"
PHOTO = bytes(range(256)) * 20 + b"\r\n------boundar\r\n--" + BOUNDARY[:-1]


def part(name: str, content: bytes, file_name: str | None = None) -> bytes:
    file = "" if file_name is None else f'; filename="{file_name}"'
    head = f'Content-Disposition: form-data; name="{name}"{file}\r\n\r\n'
    return b"--" + BOUNDARY + b"\r\n" + head.encode() + content + b"\r\n"


END = b"--" + BOUNDARY + b"--\r\n"
WHOLE = part("scale", b"2") + part("image", PHOTO, "photo.jpg") + part("format", b"png") + END


def request_of(
    chunks: Sequence[bytes], *, pause_s: float = 0.0, leaves: bool = False, headers: dict[str, str] | None = None
) -> Request:
    """A request whose body comes in these chunks."""
    sending = body(chunks, pause_s, leaves)

    async def receive() -> Any:
        return await anext(sending)

    raw = {"content-type": f"multipart/form-data; boundary={BOUNDARY.decode()}", **(headers or {})}
    pairs = [(name.encode(), value.encode()) for name, value in raw.items()]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": pairs}, receive)


async def body(chunks: Sequence[bytes], pause_s: float, leaves: bool) -> AsyncIterator[dict[str, Any]]:
    for chunk in chunks:
        await asyncio.sleep(pause_s)
        yield {"type": "http.request", "body": chunk, "more_body": True}
    yield {"type": "http.disconnect"} if leaves else {"type": "http.request", "body": b"", "more_body": False}


def read(target: Path, chunks: Sequence[bytes], most_bytes: int = 1_000_000, **options: Any) -> Upload:
    return asyncio.run(read_upload(request_of(chunks, **options), target, most_bytes))


def refused(target: Path, chunks: Sequence[bytes], most_bytes: int = 1_000_000, **options: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        read(target, chunks, most_bytes, **options)
    return caught.value


def test_an_upload_is_written_and_its_fields_are_returned(tmp_path: Path) -> None:
    upload = read(tmp_path / "source", [WHOLE])
    assert upload == Upload(name="photo.jpg", fields={"scale": "2", "format": "png"}, file_bytes=len(PHOTO))
    assert (tmp_path / "source").read_bytes() == PHOTO


@given(cuts=st.lists(st.integers(0, len(WHOLE)), max_size=12))
def test_a_form_is_the_same_in_any_pieces(cuts: list[int]) -> None:
    form = Form(BOUNDARY, 1_000_000)
    edges = [0, *sorted(cuts), len(WHOLE)]
    content = b"".join(form.feed(WHOLE[a:b]) for a, b in itertools.pairwise(edges))
    form.check_complete()
    assert (content, form.fields) == (PHOTO, {"scale": "2", "format": "png"})


@given(junk=st.binary(max_size=300), at=st.integers(0, len(WHOLE)))
def test_any_bytes_are_parsed_or_refused(junk: bytes, at: int) -> None:
    form = Form(BOUNDARY, 1_000_000)
    try:
        form.feed(WHOLE[:at] + junk + WHOLE[at:])
        form.check_complete()
    except Refusal as refusal:
        assert refusal.status in (400, 413, 422)


def test_a_large_upload_is_written_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo = bytes(5_000_000)
    pieces: list[int] = []
    real = asyncio.to_thread

    async def noted(function: Any, data: bytes) -> Any:
        pieces.append(len(data))
        return await real(function, data)

    monkeypatch.setattr(asyncio, "to_thread", noted)
    whole = part("image", photo, "a.png") + END
    chunks = [whole[at : at + 65_536] for at in range(0, len(whole), 65_536)]
    assert read(tmp_path / "source", chunks, 10_000_000).file_bytes == len(photo)
    assert (tmp_path / "source").read_bytes() == photo
    assert max(pieces) < 1_200_000


@pytest.mark.parametrize("cut", [0, 10, 200, len(WHOLE) - len(END), len(WHOLE) - 6])
def test_a_form_that_ends_too_early_is_refused(tmp_path: Path, cut: int) -> None:
    assert refused(tmp_path / "source", [WHOLE[:cut]]).status == 400


def test_a_client_that_leaves_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(ClientDisconnect):
        read(tmp_path / "source", [WHOLE[:1000]], leaves=True)


@pytest.mark.parametrize(
    ("form", "status", "words"),
    [
        (part("image", PHOTO, "a") + part("image", PHOTO, "b") + END, 400, "image twice"),
        (part("scale", b"2") + part("scale", b"3") + END, 400, "scale twice"),
        (part("scale", b"2", "a.txt") + END, 400, "scale"),
        (part("image", b"text") + END, 400, "expected a file"),
        (part("other", b"x") + END, 400, "'other'"),
        (part("", b"x") + END, 400, "''"),
        (part("scale", b"2") + END, 400, "without a file"),
        (part("scale", b"2" * 300) + END, 400, "more than 256 bytes"),
        (part("image", b"", "a.png") + END, 422, "0 bytes"),
        (b"no form at all", 400, "malformed"),
        (b"--" + BOUNDARY + b"\r\nno header\r\n\r\nx\r\n" + END, 400, "malformed"),
        (b"--" + BOUNDARY + b"\r\n" + b"a: b\r\n" * 50 + b"\r\nx\r\n" + END, 400, "malformed"),
        (b"--" + BOUNDARY + b"\r\na: " + b"b" * 10_000 + b"\r\n\r\nx\r\n" + END, 400, "malformed"),
        (END, 400, ""),
    ],
)
def test_a_form_that_is_not_as_it_should_be_is_refused(tmp_path: Path, form: bytes, status: int, words: str) -> None:
    refusal = refused(tmp_path / "source", [form])
    assert refusal.status == status
    assert words in str(refusal)


@pytest.mark.parametrize(
    ("media_type", "status"),
    [
        ("application/json", 415),
        ("application/x-www-form-urlencoded", 415),
        ("", 415),
        ("multipart/mixed; boundary=b", 415),
        ("multipart/form-data", 400),
        ("multipart/form-data; boundary=", 400),
        (f"multipart/form-data; boundary={'b' * 71}", 400),
    ],
)
def test_a_body_of_another_kind_is_refused_unread(tmp_path: Path, media_type: str, status: int) -> None:
    assert refused(tmp_path / "source", [WHOLE], headers={"content-type": media_type}).status == status
    assert not (tmp_path / "source").exists()


def test_a_length_above_the_cap_is_refused_unread(tmp_path: Path) -> None:
    headers = {"content-length": str(1000 + MOST_FORM_BYTES + 1)}
    assert refused(tmp_path / "source", [WHOLE], 1000, headers=headers).status == 413
    assert not (tmp_path / "source").exists()


def test_a_file_above_the_cap_is_refused_whatever_length_was_announced(tmp_path: Path) -> None:
    assert refused(tmp_path / "source", [WHOLE], len(PHOTO) - 1, headers={"content-length": "10"}).status == 413
    assert read(tmp_path / "other", [WHOLE], len(PHOTO)).file_bytes == len(PHOTO)


def test_a_form_that_is_large_beside_its_file_is_refused(tmp_path: Path) -> None:
    chunks = [b"x" * 60_000, b"x" * 60_000]  # before the first boundary, or behind the last one
    assert refused(tmp_path / "source", [WHOLE, *chunks]).status == 413


def test_a_slow_upload_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "PATIENCE_S", 0.2)
    monkeypatch.setattr(uploads, "LEAST_BYTES_PER_S", 1000.0)
    drops = [WHOLE[at : at + 1] for at in range(len(WHOLE))]
    refusal = refused(tmp_path / "source", drops, pause_s=0.01)
    assert refusal.status == 408
    assert (tmp_path / "source").exists()  # the caller removes the folder
    steady = [WHOLE[at : at + 500] for at in range(0, len(WHOLE), 500)]
    assert read(tmp_path / "other", steady, pause_s=0.03).file_bytes == len(PHOTO)


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(asyncio, "to_thread", full)
    refusal = refused(tmp_path / "source", [WHOLE])
    assert (refusal.status, refusal.kind) == (507, "OutputError")
    assert str(tmp_path) not in str(refusal)


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ("photo.jpg", "photo.jpg"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\photo.jpg", "photo.jpg"),
        ("..", "image"),
        ("", "image"),
        ("a/", "image"),
        (".hidden", "hidden"),
        ("a\0b\r\nc.png", "abc.png"),
        ("\u202egpj.exe", "gpj.exe"),
        ('a"b<c>d|e?f*g:h%i.png', "a_b_c_d_e_f_g_h_i.png"),
        ("NUL.png", "_NUL.png"),
        ("com1", "_com1"),
        ("Fu\u0308r Oma.jpg", "Für Oma.jpg"),
        ("写真.png", "写真.png"),
        ("x" * 500 + ".png", "x" * 116 + ".png"),
        ("x" * 500, "x" * 120),
        ("\xa0", "image"),
        ("\u2003 a.png \xa0", "a.png"),
        ("a" * 119 + " b", "a" * 119),
    ],
)
def test_names_are_made_harmless(sent: str, name: str) -> None:
    assert harmless_name(sent) == name


@given(st.text())
def test_any_name_is_harmless(sent: str) -> None:
    name = harmless_name(sent)
    assert 1 <= len(name) <= 121
    assert name not in (".", "..") and not set(name) & set('/\\"\r\n\0:') and name == name.strip()


@given(st.text())
def test_any_name_makes_a_header_of_one_line_of_ascii(sent: str) -> None:
    header = attachment(harmless_name(sent))
    assert header.isascii() and header.isprintable() and header.count('"') == 2


def test_names_in_one_archive_are_different() -> None:
    assert numbered(["a.png", "A.png", "a.png", "a (2).png", "b"]) == [
        "a.png",
        "A (2).png",
        "a (3).png",
        "a (2) (2).png",
        "b",
    ]


@pytest.mark.parametrize("reads", [True, False])
def test_a_connection_is_closed_after_an_early_answer_and_after_no_other(reads: bool) -> None:
    sent: list[Any] = []
    asked: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while reads and (await receive())["more_body"]:
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    async def receive() -> Any:
        asked.append(1)
        return {"type": "http.request", "body": b"x", "more_body": len(asked) < 4}

    async def send(message: Any) -> None:
        sent.append((len(asked), message))

    scope = {"type": "http", "headers": [(b"content-length", b"4")]}
    asyncio.run(EarlyAnswers(app)(scope, receive, send))
    assert ((b"connection", b"close") in sent[0][1]["headers"]) == (not reads)
    assert len(asked) == 4
    if not reads:
        before = [message for count, message in sent if count == 0]
        assert b"".join(message.get("body", b"") for message in before) == b"ok"
    assert not sent[-1][1].get("more_body", False)


def test_a_body_that_never_ends_is_not_read_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("realesr.server.early_answers.LONGEST_S", 0.1)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 503, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> Any:
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def send(_: Any) -> None:
        pass

    scope = {"type": "http", "headers": [(b"transfer-encoding", b"chunked")]}
    asyncio.run(asyncio.wait_for(EarlyAnswers(app)(scope, receive, send), 2))

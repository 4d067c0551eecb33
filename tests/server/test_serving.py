"""A real server in a process of its own, with a real network's file and engine nearest: sockets, signals, processes."""

import asyncio
import contextlib
import io
import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from PIL import Image

from realesr.server import http_protocol, serving
from realesr.server.guard import TOKEN_COOKIE
from realesr.server.settings import ServerSettings

from .server_process import ServerProcess, killed_at_the_end
from .test_app import png, upload

NETWORK = {"model": "realesr-general-x4v3"}
START = """
import json, logging, sys
from realesr.server import http_protocol
from realesr.server.serving import serve
from realesr.server.settings import ServerSettings
logging.getLogger("realesr").addHandler(logging.NullHandler())
http_protocol.HEADER_SECONDS = 1.0
serve(ServerSettings(**json.loads(sys.argv[1])), lambda link: print(link, flush=True))
"""


class Running(ServerProcess):
    """A server that runs."""

    end_seconds = 20.0

    def __init__(self, temporary: Path, **settings: Any) -> None:
        values = {"port": 0, "engine": "nearest", "grace_seconds": 5, **settings}
        super().__init__(temporary, "-c", START, json.dumps(values))
        self.url = httpx.URL(self.link)
        self.port = self.url.port or 0

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=20, trust_env=False)

    def said(self, request: bytes, *, seconds: float = 5.0, then_end: bool = False) -> bytes:
        """What is answered to some bytes, until the server closes the connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as connection:
            received = b""
            with contextlib.suppress(OSError):  # closed, reset, or too long
                connection.sendall(request)
                if then_end:
                    connection.shutdown(socket.SHUT_WR)
                while part := connection.recv(65_536):
                    received += part
            return received

    @property
    def folder(self) -> Path:
        (folder,) = self.temporary.glob("realesr-serve-*")
        return folder

    @property
    def job_folders(self) -> list[str]:
        return [path.name for path in self.folder.glob("job-*")]

    def soon(self, condition: Any, seconds: float = 5.0) -> bool:
        """Whether a condition comes true."""
        end = time.monotonic() + seconds
        while not condition() and time.monotonic() < end:
            time.sleep(0.02)
        return bool(condition())


@contextlib.contextmanager
def running(temporary: Path, **settings: Any) -> Iterator[Running]:
    with killed_at_the_end(Running(temporary, **settings)) as server:
        yield server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("server"), most_upload_bytes=300_000) as server:
        yield server
        code, stderr = server.ended()
        assert (code, stderr) == (0, "")
        assert list(server.temporary.iterdir()) == []


def test_an_image_is_enlarged_and_nothing_is_left(server: Running) -> None:
    with server.client() as client:
        answer = client.post("/v1/images/upscale", files=upload(), data={**NETWORK, "format": "jpeg", "scale": "2"})
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "image/jpeg"
        assert Image.open(io.BytesIO(answer.content)).size == (12, 8)
    assert server.soon(lambda: server.job_folders == [])


def test_a_photo_goes_all_the_way_of_the_page(server: Running) -> None:
    with server.client() as client:
        client.get("/")
        job = client.post("/api/jobs", files=upload("my photo.png"), data=NETWORK).json()
        with client.stream("GET", f"/api/jobs/{job['id']}/events") as events:
            data = [line.removeprefix("data: ") for line in events.iter_lines() if line.startswith("data: ")]
        assert json.loads(data[-1])["state"] == "done"
        address = f"/api/jobs/{job['id']}"
        for end, size in {"thumbnail": (6, 4), "preview": (24, 16), "tiles/result/0/0_0.jpg": (24, 16)}.items():
            picture = client.get(f"{address}/{end}")
            assert (picture.status_code, Image.open(io.BytesIO(picture.content)).size) == (200, size)
        assert client.get(f"{address}/tiles/result/0/1_0.jpg").status_code == 400
        assert client.get(f"{address}/result", headers={"Range": "bytes=0-7"}).content == b"\x89PNG\r\n\x1a\n"
        assert client.get("/api/archive", params={"ids": job["id"]}).status_code == 200
        client.delete(address)
    assert server.job_folders == []


@pytest.mark.parametrize("model", ["/etc/passwd", "https://evil.example/net.pth", "unknown-network", "../net"])
def test_no_request_names_a_network_that_is_not_listed(server: Running, model: str) -> None:
    with server.client() as client:
        answer = client.post("/api/jobs", files=upload(), data={"model": model})
    assert (answer.status_code, answer.json()["error"]["kind"]) == (400, "UsageError")


@pytest.mark.parametrize(
    "content",
    [
        b"%!PS-Adobe-3.0\n",
        b"%PDF-1.7\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"SIMPLE  =   T",
        b"#?RADIANCE\n",
    ],
)
def test_files_for_loaders_that_are_not_trusted_are_refused(server: Running, content: bytes) -> None:
    with server.client() as client:
        answer = client.post("/api/jobs", files=upload("photo.png", content.ljust(3000)), data=NETWORK)
    assert answer.status_code == 422
    assert "photo.png" in answer.json()["error"]["message"]
    assert str(server.temporary) not in answer.text


def test_an_upload_above_the_cap_is_refused_before_it_is_sent(server: Running) -> None:
    head = b"POST /api/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    begun = time.monotonic()
    answer = server.said(head + b"Expect: 100-continue\r\nContent-Length: 500000000\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"100 Continue" not in answer
    assert time.monotonic() - begun < 1


def test_a_refused_upload_gets_its_answer_though_it_is_still_being_sent(server: Running) -> None:
    head = b"POST /api/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    answer = server.said(head + b"Content-Length: 20000000\r\n\r\n" + bytes(20_000_000))
    assert answer.startswith(b"HTTP/1.1 413")


HOSTILE = {
    "a form with another boundary": b"POST /api/jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    b"Content-Type: multipart/form-data; boundary=c\r\nContent-Length: 20\r\n\r\n--b\r\n" + b"x" * 15,
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20,
    "garbage behind a request": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n\x00\xff\xfe garbage\r\n\r\n",
    "a negative length": b"POST /api/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    "two lengths": b"POST /api/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
    "length and chunks": b"POST /api/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    "a wrong chunk": b"POST /api/jobs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "endless headers": b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 50_000,
    "a long address": b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a folded header": b"GET / HTTP/1.1\r\nHost: localhost\r\n folded\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "a path": b"GET /static/../../../../etc/passwd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "an encoded path": b"GET /static/%2e%2e%2f%2e%2e%2fpyproject.toml HTTP/1.1\r\nHost: localhost\r\n"
    b"Connection: close\r\n\r\n",
    "a NUL": b"GET /static/%00 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "no UTF-8": b"GET /api/jobs/%ff%fe HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "another scheme": b"CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a proxy request": b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
}


@pytest.mark.parametrize("request_bytes", HOSTILE.values(), ids=HOSTILE)
def test_what_is_hostile_is_refused_and_the_server_goes_on(server: Running, request_bytes: bytes) -> None:
    answer = server.said(request_bytes, then_end=b"Connection: close" not in request_bytes)
    assert b"passwd:" not in answer and b"root:" not in answer and b"[project]" not in answer
    statuses = {line.split()[1] for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1.1")}
    assert b"500" not in statuses
    with server.client() as client:
        assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize("begun", [b"", b"GET / HTTP/1.1\r\nHost: local"])
def test_who_does_not_finish_headers_is_dropped(server: Running, begun: bytes) -> None:
    started = time.monotonic()
    server.said(begun, seconds=8)
    assert time.monotonic() - started < 4


def test_who_does_not_read_the_answer_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()

    async def answer(_: Any, __: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(100):
            await send({"type": "http.response.body", "body": bytes(1_000_000), "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        ended.set()

    async def run() -> None:
        server = uvicorn.Server(
            uvicorn.Config(answer, http=http_protocol.PatientProtocol, ws="none", lifespan="off", log_config=None)
        )
        listening = socket.create_server(("127.0.0.1", 0))
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        with socket.create_connection(listening.getsockname()) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert await asyncio.to_thread(ended.wait, 10)
        server.should_exit = True
        await serving

    monkeypatch.setattr(http_protocol, "READ_SECONDS", 0.3)
    asyncio.run(run())


def test_a_truncated_upload_leaves_nothing(server: Running) -> None:
    body = b"--b\r\n" + b'Content-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n' + bytes(5000)
    head = b"POST /api/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    server.said(head + b"Content-Length: 20000\r\n\r\n" + body, then_end=True)
    assert server.soon(lambda: server.job_folders == [])


def test_small_answers_do_not_wait_for_acknowledgements(server: Running) -> None:
    with server.client() as client:
        client.get("/healthz")
        times = []
        for _ in range(10):
            begun = time.monotonic()
            client.get("/healthz")
            times.append(time.monotonic() - begun)
    assert min(times) < 0.02


def test_many_clients_at_once_are_all_answered(server: Running) -> None:
    statuses: list[int] = []

    def ask() -> None:
        with server.client() as client:
            statuses.append(client.post("/v1/images/upscale", files=upload(), data=NETWORK).status_code)

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 12
    assert server.soon(lambda: server.job_folders == [])


def test_a_server_for_others_is_entered_by_its_link_alone(tmp_path: Path) -> None:
    token = "correct-horse-battery-staple"
    with running(tmp_path / "server", host="0.0.0.0", token=token) as server:
        assert server.link.endswith(f"/?token={token}")
        with server.client() as client:
            assert client.get("/").status_code == 401
            assert client.post("/api/jobs", files=upload()).status_code == 401
            assert client.get("/?token=wrong").status_code == 401
            assert TOKEN_COOKIE not in client.cookies
            assert client.get("/", params={"token": token}).headers["refresh"] == "0; url=./"
            assert client.get("/").status_code == 200
            assert client.get("/api/jobs").status_code == 200
            assert client.get("/", headers={"Host": "evil.example"}).status_code == 403
        code, stderr = server.ended(signal.SIGINT)
        assert (code, token in stderr) == (0, False)


def test_a_signal_gives_running_jobs_their_time_and_ends_by_0(tmp_path: Path) -> None:
    with running(tmp_path / "server", engine="auto", grace_seconds=30) as server, server.client() as client:
        answers: list[httpx.Response] = []
        files, data = upload(content=png(200, 150)), {**NETWORK, "format": "png"}

        def ask() -> None:
            with server.client() as other:
                answers.append(other.post("/v1/images/upscale", files=files, data=data))

        asking = threading.Thread(target=ask)
        asking.start()
        assert server.soon(lambda: "realesr_jobs_running 1" in client.get("/metrics").text, 20)
        server.process.send_signal(signal.SIGTERM)
        assert server.soon(lambda: client.get("/readyz").status_code == 503 or answers)
        asking.join()
        assert answers[0].status_code == 200
        assert Image.open(io.BytesIO(answers[0].content)).size == (800, 600)
        _, stderr = server.process.communicate(timeout=20)
        assert (server.process.returncode, stderr) == (0, "")
        assert list(server.temporary.iterdir()) == []


def test_who_sends_slowly_is_not_waited_for_after_a_second_signal(tmp_path: Path) -> None:
    with running(tmp_path, grace_seconds=60) as server:
        begun = f"POST /api/jobs HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Length: 1000\r\n"
        begun += "Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n"
        with socket.create_connection(("127.0.0.1", server.port)) as connection, server.client() as client:
            connection.sendall(begun.encode())
            assert server.soon(lambda: "realesr_jobs_uploading 1" in client.get("/metrics").text)
            server.process.send_signal(signal.SIGTERM)
            with pytest.raises(subprocess.TimeoutExpired):
                server.process.wait(2)
            assert server.ended()[0] == 0
        assert list(tmp_path.iterdir()) == []


def test_jobs_that_outlast_the_grace_are_cancelled_and_say_so(tmp_path: Path) -> None:
    with running(tmp_path / "server", engine="auto", grace_seconds=0.2) as server, server.client() as client:
        answers: list[httpx.Response] = []
        files = upload(content=png(1500, 1500))

        def ask() -> None:
            with server.client() as other:
                answers.append(other.post("/v1/images/upscale", files=files, data=NETWORK))

        asking = threading.Thread(target=ask)
        asking.start()
        assert server.soon(lambda: "realesr_jobs_running 1" in client.get("/metrics").text, 20)
        begun = time.monotonic()
        code, _ = server.ended()
        asking.join()
        assert code == 0
        assert time.monotonic() - begun < 15
        assert (answers[0].status_code, "ended" in answers[0].json()["error"]["message"]) == (503, True)
        assert list(server.temporary.iterdir()) == []


def test_a_client_that_hangs_up_cancels_its_job(tmp_path: Path) -> None:
    with running(tmp_path / "server", engine="auto") as server, server.client() as client:
        with contextlib.suppress(httpx.ReadTimeout), httpx.Client(timeout=3, trust_env=False) as other:
            other.post(
                f"http://127.0.0.1:{server.port}/v1/images/upscale", files=upload(content=png(1500, 1500)), data=NETWORK
            )
        assert server.soon(lambda: "realesr_jobs_cancelled_total 1" in client.get("/metrics").text)
        assert server.soon(lambda: server.job_folders == [], 15)


def test_an_address_that_is_in_use_is_told(tmp_path: Path, server: Running) -> None:
    with pytest.raises(Exception, match=rf"127\.0\.0\.1 port {server.port} cannot be listened at") as caught:
        serving.bound_socket(ServerSettings(port=server.port))
    assert getattr(caught.value, "option", None) == "port"
    for host, reason in (("203.0.113.7", "Cannot assign requested address"), ("", "Name or service not known")):
        with pytest.raises(Exception, match=rf"{host} port 8765 cannot be listened at \({reason}\)") as caught:
            serving.bound_socket(ServerSettings(host=host))
        assert getattr(caught.value, "option", None) == "host"


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_every_address_is_those_of_ipv4_too() -> None:
    with serving.bound_socket(ServerSettings(host="::", port=0)) as bound:
        port = bound.getsockname()[1]
        for address in ("127.0.0.1", "::1"):
            socket.create_connection((address, port), timeout=5).close()


@pytest.mark.parametrize(
    ("host", "from_here", "expected"),
    [
        ("127.0.0.1", False, "http://127.0.0.1:80/"),
        ("::1", False, "http://[::1]:80/"),
        ("0.0.0.0", True, "http://127.0.0.1:80/?token=a%26b"),
        ("::", True, "http://[::1]:80/?token=a%26b"),
    ],
)
def test_links_can_be_followed(host: str, from_here: bool, expected: str) -> None:
    token = "a&b" if "token" in expected else None
    assert serving.link(ServerSettings(host=host, token=token), 80, from_here=from_here) == expected

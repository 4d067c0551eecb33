"""Networks that a server fetches: progress, failures, cancelling; and that it fetches nothing else."""

import contextlib
import hashlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from safetensors.numpy import save

from realesr.models.compact import Compact
from realesr.models.zoo import BUNDLED_MODEL, DEFAULT_MODEL
from realesr.options import NetworkOptions
from realesr.server import worker
from realesr.server.worker import OpenNetworks
from tests.models.small_networks import small_state

from .test_app import png, upload
from .test_serving import Running, running

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a disk is made small, and locks are asked for")

NETWORK = Compact(scale=4, features=64, convs=6)
FILE = save(small_state(NETWORK))
NAME = "realesr-animevideov3"
QUICK_BYTES = 150_000
"""Where a slow server becomes slow."""
SOON = 30.0
"""Seconds after which what should be there soon never comes."""

SITE = """
import json, os
from dataclasses import replace
from realesr.models import download, zoo
from realesr.models.compact import Compact
from realesr.server import processes

download._SECONDS_BEFORE_NEXT_ATTEMPT = 0.05
processes.CANCEL_SECONDS = 1.0
given = json.loads(os.environ["STAND_IN"])
for name in given.pop("names"):
    zoo.ZOO[name] = replace(zoo.ZOO[name], architecture=Compact(scale=4, features=64, convs=6), ncnn=None, **given)
"""
"""Runs at the start of each of a server's processes: two networks of the zoo lie at the stand-in."""


class StandIn(ThreadingHTTPServer):
    """Stands in for the host of the released networks, and serves FILE as slowly as a test wants."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, str | None]] = []
        """Path and range of each request."""
        self.status = 200
        self.is_slow = False
        self.is_silent = False
        """Whether requests are taken, and not answered."""
        self.url = f"http://127.0.0.1:{self.server_port}/net.safetensors"


class _Handler(BaseHTTPRequestHandler):
    server: StandIn

    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        self.server.asked.append((self.path, wanted))
        while self.server.is_silent:
            time.sleep(0.05)
        if self.server.status != 200:
            return self.send_error(self.server.status)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(FILE) - 1}/{len(FILE)}")
        self.send_header("Content-Length", str(len(FILE) - start))
        self.end_headers()
        with contextlib.suppress(OSError):  # the client has hung up
            while start < len(FILE):
                count = 1 if self.server.is_slow and start > QUICK_BYTES else 20_000
                start += self.wfile.write(FILE[start : start + count])
                time.sleep(0.02 if count == 1 else 0)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    with StandIn() as stand_in:
        given = {"url": stand_in.url, "sha256": hashlib.sha256(FILE).hexdigest(), "bytes": len(FILE)}
        given |= {"file": "net.safetensors", "names": [NAME, DEFAULT_MODEL]}
        site = tmp_path / "site"
        site.mkdir()
        (site / "sitecustomize.py").write_text(SITE)
        (tmp_path / "cache").mkdir()
        monkeypatch.setenv("STAND_IN", json.dumps(given))
        monkeypatch.setenv("PYTHONPATH", str(site))
        monkeypatch.setenv("REALESR_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        threading.Thread(target=stand_in.serve_forever, args=(0.05,), daemon=True).start()
        yield stand_in
        stand_in.is_slow = stand_in.is_silent = False
        stand_in.shutdown()


@contextlib.contextmanager
def serving(tmp_path: Path, **settings: Any) -> Iterator[tuple[Running, httpx.Client]]:
    """A server that may fetch, and a client of it."""
    values = {"engine": "onnxruntime", "devices": ["cpu"], "threads": 1, **settings}
    with running(tmp_path / "server", **values) as server, server.client() as client:
        yield server, client


def submitted(client: httpx.Client, model: str | None = NAME) -> str:
    """The address of a new job."""
    answer = client.post("/api/jobs", files=upload(content=png(8, 6)), data={"model": model} if model else {})
    assert answer.status_code == 202, answer.text
    return str(answer.headers["location"])


def events(client: httpx.Client, address: str) -> list[dict[str, Any]]:
    """All that is told of a job, to its end."""
    with client.stream("GET", f"{address}/events") as told:
        return [json.loads(line.removeprefix("data: ")) for line in told.iter_lines() if line.startswith("data: ")]


def test_a_network_that_is_not_on_disk_is_fetched_and_that_is_seen(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.is_slow = True
    with serving(tmp_path) as (server, client):
        address = submitted(client)
        second = submitted(client)

        def fetching() -> dict[str, Any]:
            return client.get(address).json()["fetching"] or {}

        assert server.soon(lambda: fetching().get("done", 0) > 0, SOON)
        assert fetching()["model"] == NAME
        assert 0 < fetching()["done"] < fetching()["total"] == len(FILE)
        assert client.get(second).json()["place"] == 1
        assert not on_disk(client)
        threading.Timer(0.5, setattr, (stand_in, "is_slow", False)).start()
        told = events(client, address)
        shares = [job["fetching"]["done"] for job in told if job["fetching"]]
        assert shares == sorted(shares)
        assert (told[0]["state"], told[-1]["state"], told[-1]["fetching"]) == ("running", "done", None)
        assert (told[-1]["output"]["width"], told[-1]["model"]) == (32, NAME)
        assert events(client, second)[-1]["state"] == "done"
        assert stand_in.asked == [("/net.safetensors", None)]
        assert server.soon(lambda: on_disk(client), SOON)
        assert server.ended() == (0, "")


def on_disk(client: httpx.Client) -> bool:
    """Whether the list of networks says that this one need not be fetched."""
    return any(model["name"] == NAME and model["on_disk"] for model in client.get("/api/models").json()["models"])


def test_two_workers_that_need_the_same_network_fetch_it_once(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.is_slow = True
    with serving(tmp_path, devices=["cpu", "auto"]) as (server, client):
        addresses = [submitted(client) for _ in range(2)]
        assert server.soon(lambda: all(client.get(address).json()["fetching"] for address in addresses), SOON)
        stand_in.is_slow = False
        assert [events(client, address)[-1]["state"] for address in addresses] == ["done", "done"]
    assert len(stand_in.asked) == 1


def test_a_download_that_fails_fails_its_job_and_the_next_one_runs(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.status = 404
    with serving(tmp_path) as (server, client):
        failed = events(client, submitted(client))[-1]
        assert (failed["state"], failed["error"]["kind"], failed["fetching"]) == ("failed", "ModelError", None)
        message = failed["error"]["message"]
        assert "/net.safetensors is not to be had: the server says 404 Not Found; " in message
        assert "REALESR_MODELS" in message and str(tmp_path) not in message
        answer = client.post("/v1/images/upscale", files=upload(), data={"model": NAME})
        assert (answer.status_code, answer.json()["error"]["kind"]) == (503, "ModelError")
        assert events(client, submitted(client, BUNDLED_MODEL))[-1]["state"] == "done"
        stand_in.status = 200
        assert events(client, submitted(client))[-1]["state"] == "done"
        assert server.ended() == (0, "")


def test_without_a_network_the_reason_is_told_and_the_default_network_is_stood_in_for(
    stand_in: StandIn, tmp_path: Path
) -> None:
    with serving(tmp_path) as (_, client):
        stand_in.socket.close()
        failed = events(client, submitted(client))[-1]
        assert "cannot be fetched (no connection)" in failed["error"]["message"]
        for _ in range(2):
            done = events(client, submitted(client, None))[-1]
            assert (done["state"], done["model"]) == ("done", BUNDLED_MODEL)
            (notice,) = [notice for notice in done["notices"] if "is used instead" in notice]
            assert f"{DEFAULT_MODEL} is not on disk and cannot be fetched (no connection)" in notice


def test_a_download_can_be_cancelled_and_goes_on_where_it_was(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.is_slow = True
    with serving(tmp_path) as (server, client):
        address = submitted(client)
        assert server.soon(lambda: (client.get(address).json()["fetching"] or {}).get("done", 0) > 65_536, SOON)
        assert client.delete(address).json()["state"] == "cancelled"
        assert server.soon(lambda: "realesr_jobs_running 0" in client.get("/metrics").text, SOON)
        assert "realesr_worker_restarts_total 0" in client.get("/metrics").text
        assert server.job_folders == []
        stand_in.is_slow = False
        assert events(client, submitted(client))[-1]["state"] == "done"
        assert len(stand_in.asked) == 2
        assert stand_in.asked[1][1] is not None  # a range


def test_a_host_that_does_not_answer_is_seen_and_need_not_be_waited_for(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.is_silent = True
    with serving(tmp_path) as (server, client):
        address = submitted(client)
        fetching = {"model": NAME, "done": 0, "total": len(FILE)}
        assert server.soon(lambda: client.get(address).json()["fetching"] == fetching, SOON)
        assert client.delete(address).json()["state"] == "cancelled"
        assert events(client, submitted(client, BUNDLED_MODEL))[-1]["state"] == "done"
        assert "realesr_worker_restarts_total 1" in client.get("/metrics").text
        assert server.ended() == (0, "")


def test_a_full_disk_fails_the_job_whose_network_is_fetched(stand_in: StandIn, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", cache], capture_output=True).returncode:
        pytest.skip("no small disk can be made here")
    try:
        with serving(tmp_path) as (server, client):
            failed = events(client, submitted(client))[-1]
            assert (failed["state"], failed["error"]["kind"]) == ("failed", "ModelError")
            assert "No space left on device" in failed["error"]["message"]
            assert str(tmp_path) not in failed["error"]["message"]
            assert events(client, submitted(client, BUNDLED_MODEL))[-1]["state"] == "done"
            assert server.ended() == (0, "")
    finally:
        subprocess.run(["umount", cache], check=True)


MODELS = [
    "{url}",
    "//{host}/net.safetensors",
    "{host}",
    "file:///etc/passwd",
    "../../net",
    "hf:{host}/net",
    "net\n{url}",
]


@pytest.mark.parametrize("content", ["{url}", "<svg xmlns='http://www.w3.org/2000/svg'><image href='{url}'/></svg>"])
def test_no_request_makes_the_server_fetch_anything_else(stand_in: StandIn, tmp_path: Path, content: str) -> None:
    host = stand_in.url.split("/")[2]
    with serving(tmp_path) as (server, client):
        for model in MODELS:
            data = {"model": model.format(url=stand_in.url, host=host)}
            for path in ("/api/jobs", "/v1/images/upscale"):
                assert client.post(path, files=upload(), data=data).status_code == 400
        sent = content.format(url=stand_in.url).encode()
        assert client.post("/api/jobs", files=upload(stand_in.url, sent), data={"model": NAME}).status_code == 422
        assert client.post("/api/jobs", data={"image": stand_in.url}).status_code in (400, 415)
        assert server.said(f"GET {stand_in.url} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        assert server.ended() == (0, "")
    assert stand_in.asked == []


class FakeUpscaler:
    """Stands in for the default network as long as a test says so."""

    is_offline = True
    opened = 0

    def __init__(self) -> None:
        self.substitution = "another is used" if FakeUpscaler.is_offline else ""
        FakeUpscaler.opened += 1

    def close(self) -> None:
        """Do nothing."""


def test_a_network_that_could_not_be_fetched_is_tried_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("realesr.api.Upscaler.from_options", lambda *_: FakeUpscaler())
    monkeypatch.setattr("realesr.server.worker.time.monotonic", lambda: now)
    networks = OpenNetworks(NetworkOptions(engine="nearest"))

    def substitution() -> str:
        return networks.get(None, lambda *_: None).substitution

    assert substitution() and substitution() and FakeUpscaler.opened == 1
    FakeUpscaler.is_offline = False
    now += worker.SECONDS_BEFORE_NEXT_FETCH - 1
    assert substitution()
    now += 1
    assert not substitution() and not substitution()
    assert FakeUpscaler.opened == 2

import hashlib
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from realesr.errors import ModelError
from realesr.models import download as module
from realesr.models import http_pieces
from realesr.models.download import DownloadError, _alone, download

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class _Server(ThreadingHTTPServer):
    """Serves CONTENT, as badly as a test wants."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = CONTENT
        self.statuses: list[int] = []
        """Answers for the next requests, before the file is given."""
        self.breaks_after: list[int] = []
        """Bytes after which the next answers break off."""
        self.knows_range = True
        self.tells_length = True
        self.ranges: list[str | None] = []
        """Range of each request."""

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/file.pth"


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    seconds_before_content = 0.0

    def do_GET(self):
        server = self.server
        wanted = self.headers["Range"]
        server.ranges.append(wanted)
        if server.statuses:
            return self.send_error(server.statuses.pop(0))
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and server.knows_range else 0
        size = len(server.content)
        if start >= size:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{size}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        if server.tells_length:
            self.send_header("Content-Length", str(size - start))
        self.end_headers()
        time.sleep(self.seconds_before_content)
        end = start + server.breaks_after.pop(0) if server.breaks_after else size
        self.wfile.write(server.content[start:end])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(module, "_SECONDS_BEFORE_NEXT_ATTEMPT", 0)
    monkeypatch.setattr(http_pieces, "_PIECE_BYTES", 1000)
    with _Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def target(tmp_path):
    return tmp_path / "models" / "file.pth"


def _files(target):
    return sorted(path.name for path in target.parent.iterdir())


def test_a_file_arrives_whole_and_progress_is_told(server, target):
    steps = []
    download(server.url, target, sha256=SHA256, on_progress=lambda done, total: steps.append((done, total)))
    assert target.read_bytes() == CONTENT
    assert _files(target) == ["file.pth"]
    assert steps[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in steps] == sorted({done for done, _ in steps})


def test_after_a_break_the_rest_is_asked_for(server, target):
    server.breaks_after = [300_000, 1_000]
    steps = []
    download(server.url, target, sha256=SHA256, on_progress=lambda *step: steps.append(step))
    assert target.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=300000-", "bytes=301000-"]
    assert {total for _, total in steps} == {len(CONTENT)}


def test_a_later_run_goes_on_where_an_earlier_one_ended(server, target):
    server.breaks_after = [100_000, 0, 0, 0, 0]
    with pytest.raises(ModelError, match=r"cannot be fetched \(the connection broke off\): check the connection"):
        download(server.url, target, sha256=SHA256)
    assert _files(target) == ["file.pth.part"]
    server.ranges.clear()
    download(server.url, target, sha256=SHA256)
    assert server.ranges == ["bytes=100000-"]
    assert target.read_bytes() == CONTENT


def test_many_breaks_do_no_harm_while_something_arrives(server, target):
    server.breaks_after = [20_000] * 40
    download(server.url, target, sha256=SHA256)
    assert target.read_bytes() == CONTENT
    assert len(server.ranges) == 41


def test_a_server_that_ignores_range_gives_the_file_from_its_beginning(server, target):
    server.breaks_after = [300_000]
    server.knows_range = False
    download(server.url, target, sha256=SHA256)
    assert target.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=300000-"]


def test_a_shorter_answer_without_length_is_noticed_by_the_known_size(server, target):
    server.tells_length = False
    server.breaks_after = [300_000]
    download(server.url, target, sha256=SHA256, size=len(CONTENT))
    assert target.read_bytes() == CONTENT


def test_other_bytes_than_promised_are_deleted(server, target):
    server.content = CONTENT[:-1] + b"?"
    with pytest.raises(
        ModelError, match=r"gave a file with SHA-256 .*, expected .*; it was deleted: try again"
    ) as caught:
        download(server.url, target, sha256=SHA256)
    assert str(target) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert _files(target) == []


def test_an_old_file_stays_until_the_new_one_is_right(server, target):
    target.parent.mkdir()
    target.write_bytes(b"old")
    server.content = b"wrong"
    with pytest.raises(ModelError, match="it was deleted"):
        download(server.url, target, sha256=SHA256)
    assert target.read_bytes() == b"old"


@pytest.mark.parametrize("left", [b"rubbish", CONTENT[:-1] + b"?", CONTENT + b"more", CONTENT, b""])
def test_what_an_earlier_run_left_does_no_harm(server, target, left):
    target.parent.mkdir()
    target.with_name("file.pth.part").write_bytes(left)
    download(server.url, target, sha256=SHA256)
    assert target.read_bytes() == CONTENT
    assert _files(target) == ["file.pth"]


def test_a_missing_file_is_told_at_once(server, target):
    server.statuses = [404]
    with pytest.raises(
        ModelError, match=r"is not to be had: the server says 404 Not Found; .*put it at .*file\.pth"
    ) as caught:
        download(server.url, target, sha256=SHA256)
    assert len(server.ranges) == 1
    assert server.url in str(caught.value)


def test_trouble_of_the_server_is_tried_again(server, target):
    server.statuses = [503, 429]
    download(server.url, target, sha256=SHA256)
    assert target.read_bytes() == CONTENT
    server.statuses = [500] * 4
    with pytest.raises(ModelError, match=r"cannot be fetched \(the server says 500 Internal Server Error\)"):
        download(server.url, target, sha256=SHA256)


def test_without_a_network_one_line_says_what_to_do(server, target):
    url = server.url
    server.server_close()
    with pytest.raises(ModelError, match=r"cannot be fetched \(no connection\): .*REALESR_MODELS") as caught:
        download(url, target, sha256=SHA256)
    assert url in str(caught.value)
    assert f"put it at {target}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_interrupted_download_can_go_on(server, target):
    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(server.url, target, sha256=SHA256, on_progress=interrupt)
    assert 0 < target.with_name("file.pth.part").stat().st_size < len(CONTENT)
    download(server.url, target, sha256=SHA256)
    assert server.ranges[-1] is not None
    assert target.read_bytes() == CONTENT


def test_the_first_digits_of_a_hash_are_enough_where_no_more_are_published(server, target):
    download(server.url, target, sha256=SHA256[:8])
    assert target.read_bytes() == CONTENT
    target.unlink()
    server.content = b"wrong"
    with pytest.raises(ModelError, match=rf"expected {SHA256[:8]}\.\.\.; it was deleted"):
        download(server.url, target, sha256=SHA256[:8])
    for digits in (0, 7):
        with pytest.raises(ValueError, match="expected 8 to 64"):
            download(server.url, target, sha256=SHA256[:digits])


@pytest.fixture
def crowd(server, monkeypatch):
    """Lets the server's first answer wait until so many downloads have begun."""
    begun = threading.Semaphore(0)
    alone, received = module._alone, http_pieces.received

    def counted(lock):
        begun.release()
        return alone(lock)

    def waiting_for(count):
        def receive_later(*arguments):
            while server.ranges == [] and begun._value < count:
                time.sleep(0.001)
            return received(*arguments)

        monkeypatch.setattr(module, "received", receive_later)

    monkeypatch.setattr(module, "_alone", counted)
    return waiting_for


@pytest.mark.skipif(sys.platform == "win32", reason="no locks")
def test_of_several_at_once_one_fetches_it(server, target, crowd):
    crowd(8)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: download(server.url, target, sha256=SHA256), range(8)))
    assert target.read_bytes() == CONTENT
    assert server.ranges == [None]
    assert _files(target) == ["file.pth"]


@pytest.mark.skipif(sys.platform == "win32", reason="no locks")
def test_the_lock_is_held_by_one_and_may_vanish_at_any_moment(tmp_path):
    holders = []

    def hold_often():
        for _ in range(200):
            with _alone(tmp_path / "lock"):
                holders.append(1)
                assert len(holders) == 1
                holders.pop()

    with ThreadPoolExecutor(8) as pool:
        for one in [pool.submit(hold_often) for _ in range(8)]:
            one.result()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no locks")
def test_where_one_fails_the_next_tries(server, target, crowd):
    crowd(4)
    server.content = b"wrong"

    def outcome(_):
        try:
            download(server.url, target, sha256=SHA256)
        except ModelError:
            server.content = CONTENT
            return "failed"
        return "done"

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(outcome, range(4))) == ["done"] * 3 + ["failed"]
    assert target.read_bytes() == CONTENT
    assert _files(target) == ["file.pth"]


def test_the_advice_is_the_callers(server, target):
    for statuses in ([404], [500] * 4):
        server.statuses = statuses
        with pytest.raises(ModelError, match=r"[;,] (or )?ask a friend$"):
            download(server.url, target, sha256=SHA256, advice="ask a friend")


def test_a_place_that_cannot_be_written_is_named(server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match=r"cannot be written: .*REALESR_CACHE"):
        download(server.url, tmp_path / "file" / "net.pth", sha256=SHA256)


# ---- files that the caller can do without


def test_an_optional_file_is_fetched_as_any_other_and_resumed(server, target):
    server.breaks_after = [len(CONTENT) // 2]
    download(server.url, target, sha256=SHA256, is_optional=True)
    assert target.read_bytes() == CONTENT
    assert len(server.ranges) == 2


def test_an_optional_file_is_given_up_after_one_attempt_in_vain(server, target, monkeypatch):
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=lambda _: pytest.fail("waited"))
    monkeypatch.setattr(module, "time", clock)  # not time.sleep, in which a server of an earlier test may still be
    server.statuses = [503, 503]
    with pytest.raises(DownloadError, match="cannot be fetched") as caught:
        download(server.url, target, sha256=SHA256, is_optional=True)
    assert caught.value.reason == "the server says 503 Service Unavailable"
    assert len(server.ranges) == 1


def test_an_optional_file_is_not_waited_for_where_nothing_answers(target, monkeypatch):
    """A server that takes connections and says nothing: a computer behind a firewall sees no more."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(module, "_OPTIONAL_ANSWER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(DownloadError) as caught:
            download(f"http://127.0.0.1:{silent.getsockname()[1]}/", target, sha256=SHA256, is_optional=True)
    assert caught.value.reason == "no answer within 0.2 s"
    assert time.monotonic() - began < 5
    assert not target.exists()


def test_a_slow_answer_may_take_its_time_once_it_has_begun(server, target, monkeypatch):
    monkeypatch.setattr(module, "_OPTIONAL_ANSWER_SECONDS", 1.0)
    monkeypatch.setattr(_Handler, "seconds_before_content", 1.2)
    download(server.url, target, sha256=SHA256, is_optional=True)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("statuses", "content", "reason"),
    [([404], CONTENT, "the server says 404 Not Found"), ([], b"wrong", "the server gives another file")],
)
def test_errors_have_their_reason_in_a_few_words(server, target, statuses, content, reason):
    server.statuses, server.content = statuses, content
    with pytest.raises(DownloadError) as caught:
        download(server.url, target, sha256=SHA256)
    assert caught.value.reason == reason

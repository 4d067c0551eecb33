"""The routes: what each address answers, to whom, and what is left behind."""

import asyncio
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from realesr.server.jobs import Job

from .queues import MODEL, Site, visited


def png(width: int = 6, height: int = 4) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (90, 120, 30)).save(file, "PNG")
    return file.getvalue()


def upload(name: str = "photo.png", content: bytes | None = None) -> dict[str, Any]:
    return {"image": (name, png() if content is None else content)}


async def sent(client: httpx.AsyncClient, name: str = "photo.png", **fields: str) -> dict[str, Any]:
    """The job of an upload."""
    answer = await client.post("/api/jobs", files=upload(name), data=fields)
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


async def ended(site: Site, job: dict[str, Any]) -> Job:
    """A job that is over."""
    found = site.queue.get(job["id"])
    assert found is not None
    await found.over.wait()
    return found


async def sent_and_done(site: Site, client: httpx.AsyncClient, name: str = "photo.png") -> str:
    job = await sent(client, name)
    assert (await ended(site, job)).state == "done"
    return str(job["id"])


def kind(answer: httpx.Response) -> str:
    return str(answer.json()["error"]["kind"])


def test_an_upload_becomes_a_job_whose_result_is_fetched(tmp_path: Path) -> None:
    async def visit(site: Site) -> None:
        async with site.browser() as client:
            answer = await client.post("/api/jobs", files=upload("Föto.png"), data={"scale": "4", "format": "png"})
            assert answer.status_code == 202
            job = answer.json()
            assert answer.headers["location"] == f"/api/jobs/{job['id']}"
            assert job["name"] == "Föto.png"
            await ended(site, job)
            now = (await client.get(answer.headers["location"])).json()
            assert (now["state"], now["output"]["width"], now["output"]["height"]) == ("done", 24, 16)
            result = await client.get(f"/api/jobs/{job['id']}/result")
            assert result.headers["content-type"] == "image/png"
            assert "filename*=UTF-8''F%C3%B6to_x4.png" in result.headers["content-disposition"]
            assert Image.open(io.BytesIO(result.content)).size == (24, 16)

    visited(tmp_path, visit)


def test_the_image_itself_is_answered_and_nothing_of_it_is_kept(tmp_path: Path) -> None:
    async def visit(site: Site) -> None:
        async with site.client() as client:
            answer = await client.post("/v1/images/upscale", files=upload())
            assert answer.status_code == 200
            assert Image.open(io.BytesIO(answer.content)).size == (24, 16)
            assert site.folders == []
            assert site.queue.counts["kept"] == 0

    visited(tmp_path, visit)


def test_who_prefers_not_to_wait_gets_a_job(tmp_path: Path) -> None:
    async def visit(site: Site) -> None:
        async with site.client() as client:
            headers = {"Prefer": "wait=5, Respond-Async"}
            answer = await client.post("/v1/images/upscale", files=upload(), headers=headers)
            assert answer.status_code == 202
            assert answer.headers["preference-applied"] == "respond-async"
            assert (await client.get(answer.headers["location"])).status_code == 200

    visited(tmp_path, visit, is_open=False)


def test_a_job_that_fails_is_answered_by_its_reason(tmp_path: Path) -> None:
    async def visit(site: Site) -> None:
        site.worker.failure = {"failed": "the network is broken", "kind": "ModelError"}
        async with site.client() as client:
            answer = await client.post("/v1/images/upscale", files=upload())
            assert (answer.status_code, kind(answer)) == (503, "ModelError")
            assert answer.json()["error"]["message"] == "the network is broken"
            assert site.folders == []

    visited(tmp_path, visit)


@pytest.mark.parametrize(("option", "status"), [("format", 422), ("output", 507)])
def test_a_format_that_cannot_hold_the_image_is_no_full_disk(tmp_path: Path, option: str, status: int) -> None:
    async def visit(site: Site) -> None:
        site.worker.failure = {"failed": "it does not fit", "kind": "OutputError", "option": option}
        async with site.client() as client:
            answer = await client.post("/v1/images/upscale", files=upload())
            assert (answer.status_code, kind(answer)) == (status, "OutputError")
            job = await sent(client)
            await ended(site, job)
            assert (await client.get(f"/api/jobs/{job['id']}/result")).status_code == status

    visited(tmp_path, visit)


def test_an_image_comes_with_its_network_and_its_notices(tmp_path: Path) -> None:
    async def visit(site: Site) -> None:
        site.worker.notices = ["größer als gedacht", "the first of 3 pages"]
        async with site.client() as client:
            for answer in (
                await client.post("/v1/images/upscale", files=upload()),
                await client.get(f"/api/jobs/{await sent_and_done(site, client)}/result"),
            ):
                assert answer.headers["realesr-model"] == "net"
                assert json.loads(answer.headers["realesr-notices"]) == site.worker.notices
            site.worker.notices = []
            assert "realesr-notices" not in (await client.post("/v1/images/upscale", files=upload())).headers

    visited(tmp_path, visit)


def test_a_server_whose_folder_is_gone_says_so(tmp_path: Path) -> None:
    async def visit(site: Site) -> None:
        async with site.client() as client:
            site.storage.folder.rmdir()
            for path in ("/api/jobs", "/v1/images/upscale"):
                answer = await client.post(path, files=upload())
                assert (answer.status_code, kind(answer)) == (507, "OutputError")
                assert "is gone" in answer.json()["error"]["message"]
            assert (await client.get("/readyz")).status_code == 503

    (tmp_path / "server").mkdir()
    visited(tmp_path / "server", visit)


def test_a_client_that_leaves_cancels_its_job(tmp_path: Path) -> None:
    async def visit(site: Site) -> None:
        async with site.client() as client:
            asking = asyncio.create_task(client.post("/v1/images/upscale", files=upload()))
            while not site.queue.counts["running"]:
                await asyncio.sleep(0.01)
            asking.cancel()
            while site.queue.counts["running"]:
                await asyncio.sleep(0.01)
        assert site.queue.counts["cancelled_total"] == 1
        assert site.folders == []

    visited(tmp_path, visit, is_open=False)


def test_jobs_of_a_browser_are_seen_by_that_browser_alone(tmp_path: Path) -> None:
    async def visit(site: Site) -> None:
        async with site.browser() as mine, site.browser() as others, site.client() as program:
            id = await sent_and_done(site, mine)
            assert [job["id"] for job in (await mine.get("/api/jobs")).json()["jobs"]] == [id]
            addresses = [
                f"/api/jobs/{id}{end}" for end in ("", "/result", "/thumbnail", "/source", "/preview", "/events")
            ]
            addresses += [f"/api/jobs/{id}/tiles/result/0/0_0.jpg", f"/api/archive?ids={id}"]
            for stranger in (others, program):
                assert (await stranger.get("/api/jobs")).json()["jobs"] == []
                assert {(await stranger.get(address)).status_code for address in addresses} == {404}
                assert (await stranger.delete(f"/api/jobs/{id}")).status_code == 404
            assert {(await mine.get(address)).status_code for address in addresses} == {200}

    visited(tmp_path, visit)


def test_of_a_program_the_id_of_the_job_is_enough(tmp_path: Path) -> None:
    async def visit(site: Site) -> None:
        async with site.client() as program, site.browser() as browser:
            id = await sent_and_done(site, program)
            assert (await program.get(f"/api/jobs/{id}/result")).status_code == 200
            assert (await browser.get(f"/api/jobs/{id}")).status_code == 200
            assert (await program.get("/api/jobs")).json()["jobs"] == []

    visited(tmp_path, visit)


def test_a_full_queue_says_no_before_the_upload_is_read(tmp_path: Path) -> None:
    async def visit(site: Site) -> None:
        read: list[int] = []

        async def body() -> Any:
            read.append(1)
            yield b"x" * 1000

        async with site.client() as client:
            await sent(client)
            while not site.queue.counts["running"]:
                await asyncio.sleep(0.01)
            await sent(client)
            headers = {"Content-Type": "multipart/form-data; boundary=b", "Content-Length": "100000000"}
            for path in ("/api/jobs", "/v1/images/upscale"):
                request = client.build_request("POST", path, content=body(), headers=headers)
                received = Received(site, request)
                await received.answer()
                assert received.status == 503
                assert int(received.headers["retry-after"]) >= 1
                assert received.body_parts_before_answer == 0
            assert site.queue.counts["refused_total"] == 2

    visited(tmp_path, visit, is_open=False, queue_length=1)


class Received:
    """The answer to a request whose body is only given to a server that asks for it."""

    def __init__(self, site: Site, request: httpx.Request) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body_parts_before_answer = 0
        self._site, self._request = site, request

    async def answer(self) -> None:
        url = self._request.url
        scope = {
            "type": "http",
            "method": "POST",
            "path": url.path,
            "raw_path": url.raw_path,
            "query_string": b"",
            "headers": [(name.lower(), value) for name, value in self._request.headers.raw],
            "scheme": "http",
            "http_version": "1.1",
        }
        await self._site.app(scope, self.receive, self.send)  # type: ignore[arg-type]

    async def receive(self) -> dict[str, Any]:
        self.body_parts_before_answer += not self.status
        return {"type": "http.request", "body": b"x", "more_body": self.body_parts_before_answer > 5}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}


@pytest.mark.parametrize(("size", "status"), [(5_000, 202), (20_000, 413)])
def test_a_file_above_the_cap_is_refused(tmp_path: Path, size: int, status: int) -> None:
    async def visit(site: Site) -> None:
        async with site.client() as client:
            answer = await client.post("/api/jobs", files=upload(content=png() + bytes(size)))
            assert answer.status_code == status
            assert len(site.folders) == (status == 202)

    visited(tmp_path, visit, is_open=False, most_upload_bytes=10_000)


@pytest.mark.parametrize(
    ("fields", "files", "status", "kind_of_error"),
    [
        ({"scale": "17"}, upload(), 400, "UsageError"),
        ({"scale": "two"}, upload(), 400, "UsageError"),
        ({"model": "../../etc/passwd"}, upload(), 400, "UsageError"),
        ({"model": "https://evil.example/net.pth"}, upload(), 400, "UsageError"),
        ({"format": "exe"}, upload(), 400, "UsageError"),
        ({"colour": "red"}, upload(), 400, "UsageError"),
        ({}, {"file": ("photo.png", png())}, 400, "UsageError"),
        ({}, {"image": (None, "text")}, 400, "UsageError"),
        ({}, upload(content=b""), 422, "InputError"),
        ({}, upload(content=b"no image"), 422, "InputError"),
    ],
)
def test_what_cannot_be_done_is_refused_and_nothing_is_left(
    tmp_path: Path, fields: dict[str, str], files: dict[str, Any], status: int, kind_of_error: str
) -> None:
    async def visit(site: Site) -> None:
        async with site.client() as client:
            answer = await client.post("/api/jobs", files=files, data=fields)
            assert (answer.status_code, kind(answer)) == (status, kind_of_error)
            assert str(tmp_path) not in answer.text
            assert site.folders == []

    visited(tmp_path, visit)


@pytest.mark.parametrize("address", ["/api/jobs", "/v1/images/upscale"])
def test_an_unknown_network_is_refused_before_the_file_is_read(tmp_path: Path, address: str) -> None:
    read: list[str] = []

    async def form() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nunknown\r\n--b\r\n'
        read.append("file")
        yield b'Content-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n' + png() + b"\r\n--b--\r\n"

    async def visit(site: Site) -> None:
        async with site.client() as client:
            headers = {"Content-Type": "multipart/form-data; boundary=b"}
            asked: list[int] = []
            monkeyed = site.inspector.check_model

            async def check_model(name: str) -> None:
                asked.append(len(read))
                await monkeyed(name)

            site.inspector.check_model = check_model  # type: ignore[method-assign]
            answer = await client.post(address, content=form(), headers=headers)
            assert (answer.status_code, kind(answer)) == (400, "UsageError")
            assert answer.json()["error"]["message"] == "got model 'unknown', expected one of net"
            assert asked == [0]
            assert site.folders == []
            answer = await client.post("/api/jobs", files=upload(), data={"model": "pulled"})
            assert answer.status_code == 202

    visited(tmp_path, visit)


@pytest.mark.parametrize("name", ["../../../etc/passwd", "/etc/passwd", "..\\..\\boot.ini", "a/b", "..", "con", "x\0y"])
def test_a_name_never_becomes_a_path(tmp_path: Path, name: str) -> None:
    async def visit(site: Site) -> None:
        async with site.client() as client:
            id = await sent_and_done(site, client, name)
            answer = await client.get(f"/api/jobs/{id}/result")
            disposition = answer.headers["content-disposition"]
            assert ".." not in disposition and "/" not in disposition and "\\" not in disposition
            archive = zipfile.ZipFile(io.BytesIO((await client.get(f"/api/archive?ids={id}")).content))
            assert "/" not in archive.namelist()[0] and not archive.namelist()[0].startswith(".")
        (folder,) = tmp_path.iterdir()
        assert {path.name for path in folder.iterdir()} == {"source", "result"}

    visited(tmp_path, visit)


def test_results_are_fetched_together_as_one_zip_file(tmp_path: Path) -> None:
    async def visit(site: Site) -> None:
        async with site.browser() as client:
            ids = [await sent_and_done(site, client, name) for name in ("a.png", "A.png", "b.png")]
            answer = await client.get("/api/archive", params={"ids": ",".join(ids)})
            assert answer.headers["content-type"] == "application/zip"
            archive = zipfile.ZipFile(io.BytesIO(answer.content))
            assert archive.testzip() is None
            assert archive.namelist() == ["a_x4.png", "A_x4 (2).png", "b_x4.png"]
            assert {each.compress_type for each in archive.infolist()} == {zipfile.ZIP_STORED}
            assert archive.read("b_x4.png") == (await client.get(f"/api/jobs/{ids[2]}/result")).content

    visited(tmp_path, visit)


def test_a_zip_file_of_what_is_not_done_is_refused(tmp_path: Path) -> None:
    async def visit(site: Site) -> None:
        async with site.browser() as client:
            job = await sent(client)
            assert (await client.get(f"/api/archive?ids={job['id']}")).status_code == 409
            assert (await client.get("/api/archive?ids=unknown")).status_code == 404
            assert (await client.get("/api/archive?ids=")).status_code == 400
            assert (
                await client.get("/api/archive", params={"ids": ",".join(map(str, range(2000)))})
            ).status_code == 400

    visited(tmp_path, visit, is_open=False)


def test_a_running_job_is_cancelled_and_a_finished_one_is_deleted(tmp_path: Path) -> None:
    async def visit(site: Site) -> None:
        async with site.browser() as client:
            job = await sent(client)
            while not site.queue.counts["running"]:
                await asyncio.sleep(0.01)
            address = f"/api/jobs/{job['id']}"
            assert (await client.get(f"{address}/result")).status_code == 409
            answer = await client.delete(address)
            assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
            assert (await client.get(f"{address}/result")).status_code == 409
            assert (await client.get(f"{address}/thumbnail")).status_code == 409
            assert (await client.delete(address)).status_code == 200
            assert (await client.get(address)).status_code == 404
            site.worker.gate.set()
            id = await sent_and_done(site, client)
            assert (await client.delete(f"/api/jobs/{id}")).json()["state"] == "done"
            assert (await client.get(f"/api/jobs/{id}/result")).status_code == 404
        assert site.folders == []

    visited(tmp_path, visit, is_open=False)


def test_events_tell_each_change_and_end_with_the_last(tmp_path: Path) -> None:
    async def visit(site: Site) -> None:
        async with site.browser() as client:
            job = await sent(client)
            asyncio.get_running_loop().call_later(0.5, site.worker.gate.set)
            answer = await client.get(f"/api/jobs/{job['id']}/events")
            assert answer.headers["content-type"].startswith("text/event-stream")
            events = [part.split("\n") for part in answer.text.split("\n\n") if part.startswith("event: job")]
            records = [json.loads(data.removeprefix("data: ")) for _, data in events]
            assert records[-1]["state"] == "done"
            assert [record["share"] for record in records] == sorted(record["share"] for record in records)
            assert "running" in {record["state"] for record in records}

    visited(tmp_path, visit, is_open=False)


def test_a_comment_keeps_a_connection_on_which_nothing_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def visit(site: Site) -> None:
        async with site.browser() as client:
            job = await sent(client)
            asyncio.get_running_loop().call_later(0.5, site.worker.gate.set)
            assert "\n\n: still here\n\n" in (await client.get(f"/api/jobs/{job['id']}/events")).text

    monkeypatch.setattr("realesr.server.events.SECONDS_BETWEEN_COMMENTS", 0.05)
    visited(tmp_path, visit, is_open=False)


def test_a_result_is_fetched_in_parts_and_not_twice(tmp_path: Path) -> None:
    async def visit(site: Site) -> None:
        async with site.client() as client:
            address = f"/api/jobs/{await sent_and_done(site, client)}/result"
            whole = await client.get(address)

            async def asked(**headers: str) -> httpx.Response:
                return await client.get(
                    address, headers={name.replace("_", "-"): text for name, text in headers.items()}
                )

            part = await asked(range="bytes=1-3")
            assert (part.status_code, part.content) == (206, whole.content[1:4])
            assert (await asked(range="bytes=99999-")).status_code == 416
            for nonsense in ("lines=1-2", "bytes=a-b", "bytes=", "1-2", "bytes=1"):
                answer = await asked(range=nonsense)
                assert (answer.status_code, answer.content) == (200, whole.content)
            known = await asked(if_none_match=f'"other", W/{whole.headers["etag"]}')
            assert (known.status_code, known.content) == (304, b"")
            assert (await asked(if_none_match='"other"')).status_code == 200
            assert (await client.head(address)).headers["content-length"] == str(len(whole.content))
            next(site.storage.folder.glob("job-*/result")).unlink()
            assert kind(await client.get(address)) == "NotFound"

    visited(tmp_path, visit)


def test_pictures_are_asked_of_the_inspector(tmp_path: Path) -> None:
    async def visit(site: Site) -> None:
        async with site.browser() as client:
            address = f"/api/jobs/{await sent_and_done(site, client)}"
            ends = ("thumbnail", "source", "preview", "tiles/source/1/2_3.jpg", "tiles/result/0/0_0.jpg")
            answers = [await client.get(f"{address}/{end}") for end in ends]
            assert {answer.headers["content-type"] for answer in answers} == {"image/jpeg"}
            assert {"private" in answer.headers["cache-control"] for answer in answers} == {True}
            assert site.inspector.asked == [
                ("thumbnail",),
                ("preview", "source"),
                ("preview", "result"),
                ("tile", "source", 1, 2, 3),
                ("tile", "result", 0, 0, 0),
            ]
            for end in (
                "tiles/other/0/0_0.jpg",
                "tiles/source/x/0_0.jpg",
                "tiles/source/0/-1_0.jpg",
                "tiles/source/0/0.jpg",
                f"tiles/source/{'9' * 5000}/0_0.jpg",  # more digits than Python turns into a number
                f"tiles/source/0/0_{'9' * 5000}.jpg",
            ):
                assert (await client.get(f"{address}/{end}")).status_code == 404

    visited(tmp_path, visit)


@pytest.mark.parametrize(("address", "methods"), [("/api/jobs", {"GET", "POST"}), ("/api/jobs/x", {"GET", "DELETE"})])
def test_a_wrong_method_is_told_which_ones_there_are(tmp_path: Path, address: str, methods: set[str]) -> None:
    async def visit(site: Site) -> None:
        async with site.client() as client:
            answer = await client.put(address)
            assert (answer.status_code, kind(answer)) == (405, "WrongMethod")
            assert set(answer.headers["allow"].split(", ")) == methods | {"HEAD"}

    visited(tmp_path, visit)


@pytest.mark.parametrize("address", ["/api/jobs/", "/api/models/", "/static", "/healthz/"])
def test_an_address_with_another_ending_is_none_and_leads_nowhere(tmp_path: Path, address: str) -> None:
    async def visit(site: Site) -> None:
        async with site.client() as client:
            answer = await client.get(address)
            assert (answer.status_code, kind(answer)) == (404, "NotFound")

    visited(tmp_path, visit)


def test_networks_formats_and_limits_are_listed(tmp_path: Path) -> None:
    async def visit(site: Site) -> None:
        async with site.client() as client:
            listing = (await client.get("/api/models")).json()
            assert listing["models"] == [MODEL]
            assert listing["formats"] == ["png", "jpeg", "tiff", "webp", "avif"]
            assert listing["limits"] == {"upload_bytes": 1000, "pixels": 100_000_000, "scale": 16}

    visited(tmp_path, visit, most_upload_bytes=1000)


def test_a_server_that_ends_is_up_but_not_ready(tmp_path: Path) -> None:
    async def visit(site: Site) -> None:
        async with site.client() as client:
            assert (await client.get("/readyz")).status_code == 200
            await site.queue.close(0)
            assert (await client.get("/readyz")).status_code == 503
            assert (await client.get("/healthz")).status_code == 200
            answer = await client.post("/api/jobs", files=upload())
            assert (answer.status_code, kind(answer)) == (503, "QueueFull")

    visited(tmp_path, visit)


def test_figures_count_jobs_and_answers(tmp_path: Path) -> None:
    async def visit(site: Site) -> None:
        async with site.client() as client:
            await sent_and_done(site, client)
            await client.get("/nothing")
            answer = await client.get("/metrics")
            assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
            lines = answer.text.splitlines()
            assert "realesr_jobs_done_total 1" in lines
            assert 'realesr_http_answers_total{status="404"} 1' in lines
            names = [line.split()[2] for line in lines if line.startswith("# TYPE")]
            assert len(names) == len(set(names))

    visited(tmp_path, visit)


def test_errors_are_json_in_our_words(tmp_path: Path) -> None:
    async def visit(site: Site) -> None:
        async with site.client() as client:
            assert kind(await client.get("/nothing")) == "NotFound"
            assert kind(await client.put("/api/jobs")) == "WrongMethod"
            assert kind(await client.get("/static/../app.py")) == "NotFound"
            assert kind(await client.get("/static/%2e%2e/app.py")) == "NotFound"
            answer = await client.post("/api/jobs", json={})
            assert (answer.status_code, kind(answer)) == (415, "UsageError")

    visited(tmp_path, visit)


def test_errors_tell_no_control_characters_that_were_sent(tmp_path: Path) -> None:
    async def visit(site: Site) -> None:
        async with site.client() as client:
            for answer in (
                await client.get("/static/%00%1b[31m"),
                await client.post("/api/jobs", content=b"x", headers={"Content-Type": "\x7f"}),
            ):
                assert answer.json()["error"]["message"].isprintable()

    visited(tmp_path, visit)


@pytest.mark.parametrize("is_deleted_while", ["made", "sent"])
def test_what_is_being_fetched_comes_whole_though_its_job_is_deleted(tmp_path: Path, is_deleted_while: str) -> None:
    async def visit(site: Site) -> None:
        async with site.browser() as client:
            id = await sent_and_done(site, client)
            address = f"/api/jobs/{id}"
            made = site.inspector.thumbnail

            async def thumbnail(job: Job) -> Path:
                if is_deleted_while == "made":
                    await client.delete(address)
                path = await made(job)
                if is_deleted_while == "sent":
                    await client.delete(address)
                return path

            site.inspector.thumbnail = thumbnail  # type: ignore[method-assign]
            answer = await client.get(f"{address}/thumbnail")
            assert (answer.status_code, Image.open(io.BytesIO(answer.content)).size) == (200, (8, 8))
            assert (await client.get(address)).status_code == 404
            assert site.folders == []

    visited(tmp_path, visit)


def test_a_fault_of_the_server_tells_nothing_of_its_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def visit(site: Site) -> None:
        async with site.client() as client:
            monkeypatch.setattr(site.queue, "jobs_of", lambda _: 1 / 0)
            answer = await client.get("/api/jobs")
            assert (answer.status_code, kind(answer)) == (500, "ServerFault")
            assert "division" not in answer.text
            assert 'realesr_http_answers_total{status="500"} 1' in (await client.get("/metrics")).text

    visited(tmp_path, visit)


def test_the_page_needs_nothing_from_another_host_and_has_no_inline_script(tmp_path: Path) -> None:
    async def visit(site: Site) -> None:
        async with site.client() as client:
            text = (await client.get("/")).text
            assert "<script>" not in text and " style=" not in text and "<style" not in text and " onclick=" not in text
            assert "http://" not in text and "https://" not in text

    visited(tmp_path, visit)


def test_the_server_process_loads_neither_pixels_nor_networks() -> None:
    code = "import sys, realesr.server.serving; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "pyvips", "PIL", "onnx", "onnxruntime", "torch", "requests", "rich"} & set(loaded)

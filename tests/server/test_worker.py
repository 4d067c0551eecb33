"""The process that runs networks: results, cancelling, death, a full disk."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import aclosing
from pathlib import Path
from typing import Any, ClassVar

import pytest
from PIL import Image

from realesr.errors import ModelError, OutOfMemory, UsageError
from realesr.options import NetworkOptions
from realesr.server.child import Child, ChildDied
from realesr.server.job_queue import JobQueue
from realesr.server.jobs import Job
from realesr.server.run_progress import RunProgress
from realesr.server.worker import OpenNetworks

from .core_queues import is_alive, large_ppm, png, real_queue, run, submitted, temporary, until

__all__ = ["temporary"]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks /proc about processes")


def pid_of(queue: JobQueue) -> int:
    """Return the id of the worker's process."""
    pid = queue.workers[0].child.pid
    assert pid is not None
    return pid


def test_an_image_comes_out_enlarged_and_nothing_is_left(temporary: Path) -> None:
    async def test() -> None:
        async with real_queue() as queue:
            job = await submitted(queue, "a.png", content=png(30, 20), scale=3.0, format="webp")
            assert job.input_px == (30, 20)
            await job.over.wait()
            assert job.state == "done"
            assert job.error is None
            assert job.model == "realesrgan-x4plus"
            assert (job.output.width_px, job.output.height_px, job.output.format) == (90, 60, "webp")
            assert job.output.bytes == job.result.stat().st_size
            with Image.open(job.result) as image:
                assert (image.size, image.format) == ((90, 60), "WEBP")
            assert queue.counts["done_total"] == 1
            assert list(temporary.iterdir()) == [queue.storage.folder]
            pids = [pid_of(queue), queue.inspector.child.pid]
        assert not any(is_alive(pid) for pid in pids if pid)

    run(test())
    assert list(temporary.iterdir()) == []


def test_a_quality_for_the_format_of_the_input_is_used_where_that_has_one(temporary: Path) -> None:
    async def test() -> None:
        async with real_queue() as queue:
            job = await submitted(queue, "a.png", content=png(8, 8), quality=50)
            await job.over.wait()
            assert (job.state, job.output.format) == ("done", "png")

    run(test())


def test_an_unknown_network_is_refused_at_once(temporary: Path) -> None:
    async def test() -> None:
        async with real_queue() as queue:
            with pytest.raises(UsageError, match="expected one of"):
                await submitted(queue, "a.png", content=png(8, 8), model="realesrgan-x5")
            assert queue.counts["kept"] == 0

    run(test())


def test_a_job_is_estimated_by_the_networks_measured_speed(temporary: Path) -> None:
    async def test() -> None:
        async with real_queue() as queue:
            await (await submitted(queue, "a.png", content=png(8, 8))).over.wait()
            job = await submitted(queue, "b.png", content=png(80, 80))
            assert job.work_px == 6400
            assert job.estimate_seconds is not None
            assert 0 < job.estimate_seconds < 1

    run(test())


def test_a_running_job_is_cancelled_within_a_second_and_the_next_one_runs(temporary: Path) -> None:
    async def test() -> None:
        async with real_queue() as queue:
            pid = pid_of(queue)
            job = await submitted(queue, "large.ppm", content=large_ppm())
            after = await submitted(queue, "after.png", content=png(8, 8))
            await until(lambda: job.pixels_done > 0)
            begun = time.monotonic()
            await queue.cancel(job)
            assert job.state == "cancelled"
            await job.given_up.wait()
            assert time.monotonic() - begun < 5  # a second, were the machine idle
            await after.over.wait()
            assert after.state == "done"
            assert pid_of(queue) == pid  # the process goes on, with its network open
            assert not job.folder.exists()

    run(test())


def test_a_job_is_cancelled_while_the_worker_is_being_started(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with real_queue() as queue:
            child = queue.workers[0].child
            os.kill(pid_of(queue), signal.SIGKILL)
            await until(lambda: child.pid is None)
            answers: list[dict[str, Any]] = []
            note = queue._note

            def noted(job: Job, progress: RunProgress, answer: dict[str, Any]) -> None:
                answers.append(answer)
                note(job, progress, answer)

            def cancel_all() -> None:
                for job in queue._running:
                    queue._cancel(job, None)

            monkeypatch.setattr(queue, "_note", noted)
            monkeypatch.setattr(child, "_on_start", cancel_all)
            job = await submitted(queue, "large.ppm", content=large_ppm())
            await job.given_up.wait()
            assert "failed" in answers[-1]  # it was told, neither killed nor left to go on
            assert (job.state, child.starts) == ("cancelled", 2)

    run(test())


LINK = """
import time
from realesr.server.server_link import ServerLink
link = ServerLink()

def work(request):
    time.sleep(0.3)  # until the lines behind have been read
    if request["id"] > 1:
        link.check()
    return {}

link.serve({"work": work})
"""


def test_a_request_that_is_cancelled_before_it_is_begun_is_cancelled() -> None:
    sent = [{"id": 1, "do": "work"}, {"id": 2, "do": "cancel"}, {"id": 2, "do": "work"}, {"id": 3, "do": "work"}]
    with subprocess.Popen([sys.executable, "-c", LINK], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"".join(json.dumps(message).encode() + b"\n" for message in sent))
        process.stdin.flush()
        answers = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.stdin.close()
    assert ["failed" in answer for answer in answers] == [False, True, False]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_worker_that_dies_fails_its_job_with_a_reason_and_the_next_one_runs(
    temporary: Path, number: signal.Signals
) -> None:
    async def test() -> None:
        async with real_queue() as queue:
            job = await submitted(queue, "large.ppm", content=large_ppm())
            after = await submitted(queue, "after.png", content=png(8, 8))
            await until(lambda: job.pixels_done > 0)
            (queue.storage.folder / "worker-0" / "libvips-left-this").write_bytes(b"x")
            os.kill(pid_of(queue), number)
            await job.over.wait()
            assert job.state == "failed"
            assert job.error.kind == "ChildDied"
            assert f"was ended by {number.name}" in job.error.message
            await after.over.wait()
            assert after.state == "done"
            assert queue.counts["worker_restarts"] == 1
            assert list((queue.storage.folder / "worker-0").iterdir()) == []

    run(test())
    assert list(temporary.iterdir()) == []


def test_a_worker_that_dies_while_nothing_runs_is_started_anew(temporary: Path) -> None:
    async def test() -> None:
        async with real_queue() as queue:
            pid = pid_of(queue)
            os.kill(pid, signal.SIGKILL)
            await until(lambda: queue.workers[0].child.pid is None)
            job = await submitted(queue, "a.png", content=png(8, 8))
            await job.over.wait()
            assert job.state == "done"

    run(test())


def test_a_disk_that_fills_up_fails_the_job_in_words_and_the_next_one_runs(temporary: Path) -> None:
    import resource

    async def test() -> None:
        async with real_queue() as queue:
            resource.prlimit(pid_of(queue), resource.RLIMIT_FSIZE, (100_000, 100_000))
            job = await submitted(queue, "photo.png", content=png(300, 300))
            await job.over.wait()
            assert job.state == "failed"
            assert job.error.kind == "OutputError"
            assert "the result" in job.error.message
            assert str(temporary) not in job.error.message
            assert sorted(path.name for path in job.folder.iterdir()) == ["source"]
            after = await submitted(queue, "small.png", content=png(8, 8))
            await after.over.wait()
            assert after.state == "done"

    run(test())


def test_a_disk_without_room_is_named(temporary: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("no small disk can be made here")
    try:
        run(_on_a_small_disk(disk))
    finally:
        subprocess.run(["umount", disk], check=True)


async def _on_a_small_disk(disk: Path) -> None:
    async with real_queue() as queue:
        queue.storage.folder = disk
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("realesr.server.job_queue.LEAST_FREE_BYTES", 0)
            job = await submitted(queue, "photo.png", content=png(250, 250))
            patch.undo()
            await job.over.wait()
        assert job.state == "failed"
        assert "disk is full" in job.error.message
        assert "MB free" in job.error.message
        queue.storage.remove(job.folder)


def test_processes_end_with_a_server_that_is_killed(temporary: Path) -> None:
    code = (
        "import asyncio, os, signal\n"
        "from realesr.server.job_queue import open_queue\n"
        "from realesr.server.settings import ServerSettings\n"
        "async def main():\n"
        "    async with open_queue(ServerSettings(engine='nearest')) as queue:\n"
        "        print(queue.workers[0].child.pid, queue.inspector.child.pid, flush=True)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    environment = {**os.environ, "TMPDIR": str(temporary)}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)
    pids = [int(word) for word in ran.stdout.split()]
    assert len(pids) == 2
    deadline = time.monotonic() + 10
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_alive, pids))

    async def next_server() -> None:
        async with real_queue() as queue:
            assert list(temporary.iterdir()) == [queue.storage.folder]

    run(next_server())


def child(code: str) -> Child:
    """Return a child that runs this code."""
    made = Child("none", purpose="tests")
    made._command = [sys.executable, "-c", code]
    return made


async def answers(made: Child, most_seconds: float | None = None) -> list[dict[str, Any]]:
    """Return all that a child answers to a request."""
    async with aclosing(made.ask({"do": "x"}, most_seconds)) as found:
        return [answer async for answer in found]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import sys; sys.exit('no such library')", r"ended with code 1 \(no such library\)"),
        ("print('no JSON', flush=True); input(); input()", "was ended by SIGKILL"),
        ("print('[1]', flush=True); input(); input()", "was ended by SIGKILL"),
        ("print('x' * 2_000_000, flush=True); input(); input()", "was ended by SIGKILL"),
        ("import os; os.abort()", "was ended by SIGABRT"),
    ],
)
def test_a_child_that_gives_no_answer_is_reported_dead(code: str, reason: str) -> None:
    async def test() -> None:
        made = child(code)
        with pytest.raises(ChildDied, match=reason):
            await answers(made)
        assert made.pid is None
        await made.end()

    run(test())


def test_a_child_that_hangs_is_killed() -> None:
    async def test() -> None:
        made = child("import time; time.sleep(100)")
        with pytest.raises(ChildDied, match=r"took more than 0\.3 s"):
            await answers(made, 0.3)
        assert made.pid is None

    run(test())


ECHO = """
import json
while True:
    request = json.loads(input())
    print(json.dumps({"id": request["id"], "progress": [1, 2]}), flush=True)
    if not request.get("hang"):
        print(json.dumps({"id": request["id"], "done": {}}), flush=True)
"""


def test_an_abandoned_request_ends_the_process_and_the_next_one_gets_another() -> None:
    async def test() -> None:
        made = child(ECHO)
        async with aclosing(made.ask({"do": "x", "hang": True})) as found:
            assert await anext(found) == {"progress": [1, 2]}
            first = made.pid
        assert await answers(made) == [{"progress": [1, 2]}, {"done": {}}]
        assert made.pid != first
        assert made.starts == 2
        await made.end()
        with pytest.raises(ChildDied, match="ended with the server"):
            await answers(made)

    run(test())


def test_requests_of_one_child_wait_for_one_another() -> None:
    async def test() -> None:
        made = child(ECHO)
        found = await asyncio.gather(*(answers(made) for _ in range(20)))
        assert found == [[{"progress": [1, 2]}, {"done": {}}]] * 20
        assert made.starts == 1
        await made.end()

    run(test())


class FakeUpscaler:
    """Opens like a network, where there is memory for one."""

    are_open: ClassVar[list[str | None]] = []
    substitution = ""

    def __init__(self, options: NetworkOptions) -> None:
        if options.model == "unknown":
            raise ModelError("unknown")
        if self.are_open:
            raise OutOfMemory("full")
        self.model = options.model
        self.are_open.append(self.model)

    def close(self) -> None:
        """Free the memory."""
        self.are_open.remove(self.model)


def test_networks_stay_open_until_another_needs_their_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("realesr.api.Upscaler.from_options", lambda options, _: FakeUpscaler(options))
    networks = OpenNetworks(NetworkOptions())
    first = networks.get("a", lambda *_: None)
    assert networks.get("a", lambda *_: None) is first
    networks.get("b", lambda *_: None)
    assert FakeUpscaler.are_open == ["b"]
    with pytest.raises(ModelError):
        networks.get("unknown", lambda *_: None)
    networks.close()
    assert FakeUpscaler.are_open == []
    assert not networks.close_others("a")

"""The queue: order, bounds, owners, ends; without processes."""

import asyncio
import itertools
import os
import time
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from realesr.server import job_queue, jobs
from realesr.server.job_options import JobOptions
from realesr.server.job_queue import QueueFull
from realesr.server.settings import ServerSettings

from .core_queues import fake_queue, run, submitted, temporary, until

__all__ = ["temporary"]


def folders(temporary: Path) -> list[str]:
    """Return the folders of jobs that are there."""
    return sorted(path.name for path in temporary.glob("realesr-serve-*/job-*"))


def test_first_come_first_served_where_no_speed_is_known(temporary: Path) -> None:
    async def test() -> None:
        async with fake_queue() as (queue, (worker,)):
            sent = [await submitted(queue, f"{name} {px}") for name, px in zip("abcd", (90, 5, 70, 1), strict=True)]
            await until(lambda: worker.begun)
            assert [job.place for job in sent] == [None, 1, 2, 3]
            for job in sent:
                worker.finish.set()
                await job.over.wait()
            assert [name[0] for name in worker.begun] == ["a", "b", "c", "d"]

    run(test())


def test_short_jobs_go_before_longer_ones_that_have_not_started(temporary: Path) -> None:
    async def test() -> None:
        async with fake_queue() as (queue, (worker,)):
            worker.speed = 0.1  # so that 99 px are short, 100 are not
            first = await submitted(queue, "first 1000")
            await until(lambda: first.estimate_seconds == 100)
            names = ("long 100", "short 99", "longer 5000", "shortest 1")
            sent = [await submitted(queue, name) for name in names]
            assert [job.place for job in sent] == [3, 1, 4, 2]
            assert [job.estimate_seconds for job in sent] == pytest.approx([10, 9.9, 500, 0.1])
            for _ in range(5):
                await until(lambda: queue.counts["running"])
                done = queue.counts["done_total"]
                worker.finish.set()
                await until(lambda before=done: queue.counts["done_total"] > before)
            assert [name.split()[0] for name in worker.begun] == ["first", "short", "shortest", "long", "longer"]

    run(test())


def test_jobs_are_reordered_when_the_speed_becomes_known(temporary: Path) -> None:
    async def test() -> None:
        async with fake_queue(workers=0) as (queue, _):
            long, short = await submitted(queue, "long 5000"), await submitted(queue, "short 5")
            assert (long.place, short.place) == (1, 2)
            queue._learn(long, 0.1)
            assert (long.place, short.place) == (2, 1)

    run(test())


def test_a_long_job_does_not_wait_for_short_ones_that_come_a_minute_after_it(temporary: Path) -> None:
    async def test() -> None:
        async with fake_queue(workers=0) as (queue, _):
            early, later = await submitted(queue, "early 5000"), await submitted(queue, "later 5000")
            early.queued_s -= job_queue.HEAD_START_SECONDS + 1
            queue._learn(early, 0.1)
            short = [await submitted(queue, f"short {px}") for px in (5, 6, 7)]
            assert [job.place for job in (early, *short, later)] == [1, 2, 3, 4, 5]

    run(test())


def test_where_a_worker_measures_nothing_the_last_job_tells_the_speed(temporary: Path) -> None:
    async def test() -> None:
        async with fake_queue() as (queue, (worker,)):
            worker.finish.set()
            await (await submitted(queue, "first 1000")).over.wait()
            second = await submitted(queue, "second 500")
            assert second.estimate_seconds == pytest.approx(0.05)

    run(test())


def test_each_worker_runs_a_job(temporary: Path) -> None:
    async def test() -> None:
        async with fake_queue(workers=2, devices=("cpu", "cuda")) as (queue, workers):
            for name in ("a 1", "b 1", "c 1"):
                await submitted(queue, name)
            await until(lambda: queue.counts["running"] == 2)
            assert queue.counts["queued"] == 1
            assert [len(worker.begun) for worker in workers] == [1, 1]

    run(test())


def test_a_full_queue_refuses_before_the_upload_and_says_when_to_try_again(temporary: Path) -> None:
    async def test() -> None:
        async with fake_queue(queue_length=2) as (queue, (worker,)):
            running = await submitted(queue, "running 1")
            await until(lambda: worker.begun)
            await submitted(queue, "waiting 1")
            with queue.reserve():  # an upload that is being read has a place, too
                assert queue.is_full
                with pytest.raises(QueueFull, match="2 images wait already") as error, queue.reserve():
                    pass
                assert error.value.retry_seconds == job_queue.RETRY_SECONDS
            assert not queue.is_full
            running.seconds_left = 3.2
            with pytest.raises(QueueFull) as error, queue.reserve(), queue.reserve():
                pass
            assert error.value.retry_seconds == 3
            running.seconds_left, running.estimate_seconds = None, 5.4  # before the first progress
            with pytest.raises(QueueFull) as error, queue.reserve(), queue.reserve():
                pass
            assert error.value.retry_seconds == 5
            assert queue.counts["refused_total"] == 3

    run(test())


def test_an_upload_that_is_not_submitted_leaves_nothing(temporary: Path) -> None:
    async def test() -> None:
        async with fake_queue() as (queue, _):
            with pytest.raises(ConnectionError), queue.reserve() as job:
                job.source.write_bytes(b"half")
                assert len(folders(temporary)) == 1
                raise ConnectionError
            assert folders(temporary) == []

    run(test())


def test_a_full_disk_refuses_uploads(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with fake_queue() as (queue, _):
            monkeypatch.setattr(type(queue.storage), "free_bytes", 1000)
            with pytest.raises(QueueFull, match="disk is full"), queue.reserve():
                pass

    run(test())


def test_files_that_are_being_read_stay_until_the_last_reader_has_ended(temporary: Path) -> None:
    async def test() -> None:
        async with fake_queue(workers=0) as (queue, _):
            for end in (queue.cancel, queue.remove):
                job = await submitted(queue, "a 1")
                async with queue.reading(job):
                    async with queue.reading(job):
                        await end(job)
                    queue._sweep()
                    assert job.source.exists()
                assert folders(temporary) == []

    run(test())


def test_two_owners_do_not_see_each_others_jobs(temporary: Path) -> None:
    async def test() -> None:
        async with fake_queue() as (queue, _):
            mine, yours = await submitted(queue, "a 1", "me"), await submitted(queue, "b 1", "you")
            nobodys = await submitted(queue, "c 1", "")
            assert queue.jobs_of("me") == [mine]
            assert queue.jobs_of("you") == [yours]
            assert queue.jobs_of("") == []
            assert queue.get(mine.id, "you") is None
            assert queue.get(mine.id, "me") is mine
            assert queue.get(nobodys.id) is nobodys
            assert queue.get("unknown") is None

    run(test())


def test_ids_cannot_be_guessed() -> None:
    assert len({jobs.new_id() for _ in range(1000)}) == 1000
    assert all(len(jobs.new_id()) == 22 for _ in range(100))


def test_what_is_told_has_no_path_and_no_owner(temporary: Path) -> None:
    async def test() -> None:
        async with fake_queue() as (queue, (worker,)):
            worker.finish.set()
            job = await submitted(queue, "holiday.png 1", "owner-of-it")
            await job.over.wait()
            text = str(job.to_json())
            assert str(temporary) not in text
            assert "owner-of-it" not in text
            assert job.notices == ("holiday.png 1 is small",)

    run(test())


def test_changes_come_at_once_and_at_most_five_times_a_second_and_end_with_the_last(temporary: Path) -> None:
    async def test() -> None:
        async with fake_queue() as (queue, (worker,)):
            job = await submitted(queue, "a 1000")
            seen: list[tuple[float, str]] = []

            async def watch() -> None:
                async with aclosing(queue.changes(job)) as changes:
                    async for change in changes:
                        seen.append((time.monotonic(), change["state"]))

            watcher = asyncio.create_task(watch())
            await until(lambda: worker.begun)
            for done in range(200):
                job.pixels_done = done
                job.mark_changed()
                await asyncio.sleep(0.005)
            worker.finish.set()
            await job.over.wait()
            ended = time.monotonic()
            await watcher
            times = [moment for moment, _ in seen]
            gaps = [after - before for before, after in itertools.pairwise(times)]
            assert all(gap > 0.15 for gap in gaps[:-1])
            assert 4 <= len(seen) <= 10
            assert seen[0][1] != "done"
            assert seen[-1][1] == "done"
            assert seen[-1][0] - ended < 0.15  # the end does not wait

    run(test())


def test_a_waiting_job_is_cancelled_and_its_place_is_the_next_ones(temporary: Path) -> None:
    async def test() -> None:
        async with fake_queue() as (queue, (worker,)):
            sent = [await submitted(queue, f"{name} 1") for name in "abc"]
            await until(lambda: worker.begun)
            await queue.cancel(sent[1])
            assert sent[1].state == "cancelled"
            assert sent[1].is_over
            assert sent[2].place == 1
            assert len(folders(temporary)) == 2
            await queue.cancel(sent[1])
            assert queue.counts["cancelled_total"] == 1

    run(test())


def test_a_running_job_is_cancelled_and_its_files_go_once_the_worker_has_given_it_up(temporary: Path) -> None:
    async def test() -> None:
        async with fake_queue() as (queue, (worker,)):
            job, after = await submitted(queue, "a 1"), await submitted(queue, "b 1")
            await until(lambda: worker.begun)
            await queue.cancel(job)
            assert job.state == "cancelled"
            await until(lambda: len(worker.begun) == 2)
            assert folders(temporary) == [after.folder.name]

    run(test())


def test_removing_a_job_forgets_it_with_its_files(temporary: Path) -> None:
    async def test() -> None:
        async with fake_queue() as (queue, (worker,)):
            worker.finish.set()
            job = await submitted(queue, "a 1")
            await job.over.wait()
            await until(lambda: not queue.counts["running"])
            running = await submitted(queue, "b 1")
            await until(lambda: len(worker.begun) == 2)
            await queue.remove(job)
            await queue.remove(running)
            await until(lambda: not folders(temporary))
            assert queue.get(job.id) is queue.get(running.id) is None

    run(test())


def test_a_clock_that_is_set_deletes_nothing(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_queue, "_EXPIRY_SECONDS", 0.01)

    async def test() -> None:
        async with fake_queue() as (queue, (worker,)):
            worker.finish.set()
            job = await submitted(queue, "a 1")
            await job.over.wait()
            now = time.time()
            monkeypatch.setattr("time.time", lambda: now + 1e6)
            await asyncio.sleep(0.2)
            assert queue.get(job.id) is job

    run(test())


def test_jobs_that_are_over_expire_and_others_stay(temporary: Path) -> None:
    async def test() -> None:
        async with fake_queue(keep_seconds=0.2) as (queue, (worker,)):
            worker.finish.set()
            job = await submitted(queue, "a 1")
            running, waiting = await submitted(queue, "b 1"), await submitted(queue, "c 1")
            (queue.storage.folder / "job-left-behind").mkdir()
            await job.over.wait()
            assert job.result.exists()
            await until(lambda: queue.get(job.id) is None)
            await until(lambda: len(folders(temporary)) == 2)
            await asyncio.sleep(0.3)
            assert queue.get(running.id) is running
            assert queue.get(waiting.id) is waiting

    run(test())


def test_at_the_end_running_jobs_get_their_time_and_waiting_ones_are_told(temporary: Path) -> None:
    async def test() -> None:
        async with fake_queue(grace_seconds=5) as (queue, (worker,)):
            running, waiting = await submitted(queue, "a 1"), await submitted(queue, "b 1")
            await until(lambda: worker.begun)
            closing = asyncio.create_task(queue.close())
            await waiting.over.wait()
            assert waiting.state == "cancelled"
            assert waiting.error is not None
            assert "ended" in waiting.error.message
            with pytest.raises(QueueFull, match="starting or ending"), queue.reserve():
                pass
            await asyncio.sleep(0.1)
            assert running.state == "running"
            worker.finish.set()
            await closing
            assert running.output is not None

    run(test())


def test_after_the_grace_running_jobs_are_cancelled_with_a_reason(temporary: Path) -> None:
    async def test() -> None:
        async with fake_queue() as (queue, (worker,)):
            running = await submitted(queue, "a 1")
            await until(lambda: worker.begun)
            await queue.close(0.1)
            assert running.state == "cancelled"
            assert running.error is not None
            assert "ended" in running.error.message

    run(test())
    assert list(temporary.iterdir()) == []


def test_a_killed_servers_files_are_deleted_by_the_next_one(temporary: Path) -> None:
    left = temporary / "realesr-serve-killed"
    (left / "job-x").mkdir(parents=True)
    (left / "job-x" / "source").write_bytes(b"photo")

    async def test() -> None:
        async with fake_queue():
            assert not left.exists()
            (folder,) = temporary.iterdir()
            assert os.stat(folder).st_mode & 0o077 == 0  # nobody else may look

    run(test())


def test_what_breaks_in_the_server_fails_its_job_is_logged_and_the_next_one_runs(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        async with fake_queue() as (queue, (worker,)):
            upscale = worker.upscale

            def broken(job):
                monkeypatch.setattr(worker, "upscale", upscale)
                raise ZeroDivisionError("oops")

            monkeypatch.setattr(worker, "upscale", broken)
            worker.finish.set()
            first, second = await submitted(queue, "a 1"), await submitted(queue, "b 1")
            await first.over.wait()
            await second.over.wait()
            assert first.state == "failed"
            assert "oops" in first.error.message
            (record,) = (record for record in caplog.records if record.name == job_queue.__name__)
            assert record.levelname == "WARNING"
            assert first.id in record.getMessage() and "oops" in record.getMessage()
            assert second.state == "done"

    run(test())


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("cat.jpg", {}, "cat_x4.png"),
        ("cat", {"scale": 2.5}, "cat_x2.5.png"),
        ("a.b.tif", {"scale": 3.0}, "a.b_x3.png"),
    ],
)
def test_a_result_is_called_after_its_upload(name: str, options: dict[str, Any], expected: str) -> None:
    output = jobs.Output(width_px=40, height_px=40, format="png", bytes=1)
    job = jobs.Job(owner="", folder=Path("x"), name=name, options=JobOptions(**options))
    job.input_px, job.output = (10, 10), output
    assert job.download_name == expected


@pytest.mark.parametrize(
    "wrong",
    [
        {"port": 70_000},
        {"queue_length": 0},
        {"allowed_hosts": ("https://photos.example",)},
        {"allowed_hosts": ("photos.example:443",)},
        {"allowed_hosts": ("",)},
        {"keep_seconds": -1},
        {"keep_seconds": float("nan")},
        {"devices": ()},
        {"precision": "fp8"},
        {"threads": 0},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="got "):
        ServerSettings(**wrong)  # type: ignore[arg-type]

"""Several commands on one folder: each output is made once, whoever is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from realesr.cli.files import Job
from realesr.cli.upscaling import claims
from realesr.cli.upscaling.claims import claim_path, claimed, is_done_by_another
from realesr.machine.held_file import take_lock

from .conftest import Command, FakeUpscaler, write
from .test_batch import Run, run

__all__ = ["run"]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no locks")

REALESR = [sys.executable, "-m", "realesr", "upscale", "-m", "own.safetensors", "--engine", "nearest"]
FILES = 30


def photos(folder: Path, side_px: int) -> list[str]:
    """Make the images of a batch, and return their names."""
    folder.mkdir()
    names = [f"{number:02}.png" for number in range(FILES)]
    for name in names:
        Image.new("RGB", (side_px, side_px), (10, 200, 30)).save(folder / name)
    return names


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    command = [*REALESR, "in", "-o", "out", "--json", *options]
    environment = os.environ | {"NO_COLOR": "1"}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen[str]) -> tuple[list[str], list[str]]:
    """Wait for a command, and return the names of the sources that it has done, and of those that it skipped."""
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and "Traceback" not in err, err
    found = [json.loads(line) for line in out.splitlines()]
    return (
        [Path(record["source"]).name for record in found if "output_px" in record],
        [Path(record["source"]).name for record in found if "skipped" in record],
    )


def last_states(folder: Path) -> dict[str, str]:
    """What the manifest says of each source."""
    lines = (folder / "realesr-manifest.jsonl").read_text().splitlines()
    return {record["source"]: record["state"] for record in map(json.loads, lines)}


@pytest.mark.parametrize("options", [[], ["--overwrite"]])
def test_several_commands_make_each_output_once(tmp_path: Path, run: Run, options: list[str]) -> None:
    names = photos(tmp_path / "in", 300)
    if options:
        assert run("in", "-o", "out").returncode == 0
    processes = [start(tmp_path, *options) for _ in range(3)]
    results = [finish(process) for process in processes]
    assert Counter(name for done, _ in results for name in done) == Counter(names)
    for done, skipped in results:
        assert sorted([*done, *skipped]) == names
    left = {path.name for path in (tmp_path / "out").iterdir() if path.suffix != ".png"}
    assert left == {"realesr-manifest.jsonl"}


def test_when_one_is_killed_the_other_does_what_is_left_and_its_traces_go(tmp_path: Path, run: Run) -> None:
    names = photos(tmp_path / "in", 400)
    killed, other = start(tmp_path), start(tmp_path)
    deadline = time.monotonic() + 30
    while not list((tmp_path / "out").glob(".*.claim")) and time.monotonic() < deadline:
        time.sleep(0.001)
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=10)
    finish(other)
    made = tmp_path / "out"
    assert sorted(path.name for path in made.glob("*.png")) == [f"{name[:-4]}_x2.png" for name in names]
    assert run("in", "-o", "out").stdout == b""
    assert last_states(made) == {f"../in/{name}": "done" for name in names}
    assert list(made.glob(".*.claim")) == []


def test_a_killed_command_is_taken_up_by_the_next(tmp_path: Path, run: Run) -> None:
    names = photos(tmp_path / "in", 400)
    killed = start(tmp_path)
    assert killed.stdout is not None and "output_px" in killed.stdout.readline()
    killed.kill()
    before = 1 + killed.communicate(timeout=10)[0].count("output_px")
    (tmp_path / "out" / claim_path(Path("killed")).name).touch()
    again = run("in", "-o", "out").stdout.splitlines()
    assert FILES - before - 1 <= len(again) <= FILES - before
    assert len(list((tmp_path / "out").glob("*_x2.png"))) == len(names)
    assert [path.name for path in (tmp_path / "out").iterdir() if path.name.startswith(".")] == []
    lines = (tmp_path / "out/realesr-manifest.jsonl").read_text().splitlines()
    assert last_states(tmp_path / "out") == {f"../in/{name}": "done" for name in names}
    assert sum('"pending"' in line for line in lines) == FILES


def test_a_claimed_target_is_waited_for_and_then_skipped(
    realesr: Command, fake: FakeUpscaler, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, "a.jpg", "b.jpg")
    claim = take_lock(claim_path(folder / "a_x4.jpg"))
    assert claim is not None

    def other_ends(_seconds: float) -> None:
        assert [source.name for source, *_ in fake.asked] == ["b.jpg"]
        (folder / "a_x4.jpg").write_bytes(b"by another")
        claim.release()

    monkeypatch.setattr(claims, "sleep", other_ends)
    result = realesr("upscale", "a.jpg", "b.jpg", "--json")
    assert result.exit_code == 0 and len(fake.asked) == 1
    assert "waiting for another process, which enlarges the last one\n" in result.stderr
    assert "a_x4.jpg is done by another process: skipped\n" in result.stderr
    record = {"source": "a.jpg", "target": "a_x4.jpg", "skipped": "a_x4.jpg is done by another process: skipped"}
    assert json.loads(result.stdout.splitlines()[-1]) == record
    assert (folder / "a_x4.jpg").read_bytes() == b"by another"


def test_a_claim_that_is_lost_without_an_output_is_taken_over(
    realesr: Command, fake: FakeUpscaler, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, "a.jpg")
    claim = take_lock(claim_path(folder / "out.jpg"))
    assert claim is not None
    polls: list[float] = []

    def poll(seconds: float) -> None:
        polls.append(seconds)
        if len(polls) == 3:
            claim.release()

    monkeypatch.setattr(claims, "sleep", poll)
    result = realesr("upscale", "a.jpg", "-o", "out.jpg")
    assert (result.exit_code, result.stdout, polls) == (0, "out.jpg\n", [1.0, 1.0, 1.0])
    assert result.stderr.count("waiting for") == 1
    assert sorted(path.name for path in folder.iterdir()) == ["a.jpg", "out.jpg"]


def test_a_signal_ends_the_wait(folder: Path) -> None:
    write(folder, "a.jpg")
    jobs = claimed([Job(folder / "a.jpg", folder / "a_x4.jpg")], lambda _: None)
    claim = take_lock(claim_path(folder / "a_x4.jpg"))
    assert claim is not None
    with claim, pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("realesr.cli.stopping._signals", [signal.SIGINT])
        next(jobs)


@pytest.mark.parametrize("options", [[], ["--retry-failed"]])
def test_what_another_process_could_not_read_meanwhile_is_not_tried_again(
    realesr: Command, fake: FakeUpscaler, folder: Path, options: list[str]
) -> None:
    write(folder, "in/a.jpg", "in/broken.jpg")
    realesr("upscale", "in/broken.jpg", "-o", "out/", *options)
    (folder / "in/broken.jpg").write_bytes(b"another copy")

    def other_fails() -> None:
        fake.before_step = lambda: None
        realesr("upscale", "in/broken.jpg", "-o", "out/", *options)

    fake.before_step = other_fails
    result = realesr("upscale", "in", "-o", "out", *options)
    assert [source.name for source, *_ in fake.asked] == ["broken.jpg", "a.jpg", "broken.jpg"]
    assert "failed before: in/broken.jpg is truncated" in result.stderr
    assert result.stderr.splitlines()[-1] == "1 done, 1 failed, 0 skipped"


def test_what_was_written_before_the_run_began_is_overwritten_and_later_files_are_not(tmp_path: Path) -> None:
    job = Job(tmp_path / "a.jpg", tmp_path / "a_x4.jpg")
    job.target.write_bytes(b"old")
    time.sleep(0.1)
    started_ns = time.monotonic_ns()

    def is_left() -> dict[bool, bool]:
        with take_lock(claim_path(job.target)) or pytest.fail("nobody holds it") as claim:
            age_ns = time.monotonic_ns() - started_ns
            return {may: is_done_by_another(job, claim, overwrite=may, age_ns=age_ns) for may in (True, False)}

    assert is_left() == {True: False, False: True}
    time.sleep(0.1)
    (tmp_path / "part").write_bytes(b"old, too, but renamed now")
    os.utime(tmp_path / "part", (0, 0))
    (tmp_path / "part").rename(job.target)
    assert is_left() == {True: True, False: True}
    job.target.unlink()
    assert is_left() == {True: False, False: False}


def test_where_there_are_no_locks_all_is_as_without_them(
    realesr: Command, fake: FakeUpscaler, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    write(folder, "in/a.jpg", "in/b.jpg")
    for _ in range(2):
        assert realesr("upscale", "in", "-o", "out", "--overwrite").stdout == "out/a_x4.jpg\nout/b_x4.jpg\n"
    assert sorted(path.name for path in (folder / "out").iterdir()) == [
        "a_x4.jpg",
        "b_x4.jpg",
        "realesr-manifest.jsonl",
    ]

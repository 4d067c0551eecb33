"""What a manifest remembers of a folder, and what a later run makes of it."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from realesr.cli.files import Job
from realesr.cli.upscaling.manifest import Manifest, SourceFacts, lies_in_the_input, manifest_folder, manifest_name
from realesr.cli.upscaling.shard import Shard
from realesr.errors import EngineError, InputError, OutputError

from .conftest import Command, FakeUpscaler, write

NAME = "realesr-manifest.jsonl"


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def states(path: Path) -> list[tuple[str, str]]:
    return [(record["source"], record["state"]) for record in records(path)]


def test_what_became_of_each_source_is_in_the_output_folder(realesr: Command, fake: FakeUpscaler, folder: Path) -> None:
    write(folder, "in/a.jpg", "in/broken.jpg")
    assert realesr("upscale", "in", "-o", "out").exit_code == 1
    pending, _, done, failed = records(folder / "out" / NAME)
    assert states(folder / "out" / NAME) == [
        ("../in/a.jpg", "pending"),
        ("../in/broken.jpg", "pending"),
        ("../in/a.jpg", "done"),
        ("../in/broken.jpg", "failed"),
    ]
    facts = (folder / "in/a.jpg").stat()
    assert (done["size"], done["mtime_ns"]) == (facts.st_size, facts.st_mtime_ns)
    assert (done["target"], done["seconds"]) == ("a_x4.jpg", 12.34)
    assert pending["time"].endswith("+00:00")
    assert failed["reason"] == "in/broken.jpg is truncated: expected 100 bytes, got 7"


def test_without_an_output_folder_it_lies_in_the_folder_that_was_named(
    realesr: Command, fake: FakeUpscaler, folder: Path
) -> None:
    write(folder, "one/a.jpg", "two/deeper/b.jpg", "c.jpg")
    assert realesr("upscale", "one", "two", "c.jpg", "--recursive").exit_code == 0
    assert states(folder / "one" / NAME) == [("a.jpg", "pending"), ("a.jpg", "done")]
    assert states(folder / "two" / NAME) == [("deeper/b.jpg", "pending"), ("deeper/b.jpg", "done")]
    assert not (folder / NAME).exists()


def test_each_share_has_its_own(realesr: Command, fake: FakeUpscaler, folder: Path) -> None:
    write(folder, "in/1.jpg", "in/2.jpg", "in/3.jpg", "in/4.jpg")
    for share in ("1/2", "2/2"):
        assert realesr("upscale", "in", "-o", "out", "--shard", share).exit_code == 0
    assert {path.name for path in (folder / "out").glob("*.jsonl")} == {
        "realesr-manifest.1-of-2.jsonl",
        "realesr-manifest.2-of-2.jsonl",
    }
    assert manifest_name(Shard()) == NAME


def test_a_second_run_adds_nothing_where_all_is_done(realesr: Command, fake: FakeUpscaler, folder: Path) -> None:
    write(folder, "in/a.jpg")
    realesr("upscale", "in", "-o", "out")
    before = (folder / "out" / NAME).read_bytes()
    assert realesr("upscale", "in", "-o", "out").exit_code == 0
    assert (folder / "out" / NAME).read_bytes() == before


def test_a_command_that_cannot_start_leaves_no_manifest(realesr: Command, folder: Path) -> None:
    write(folder, "in/a.jpg")
    assert realesr("upscale", "in", "-o", "out", "-m", "missing.pth").exit_code == 1
    assert not (folder / "out").exists()


def test_a_file_that_failed_is_tried_again_once_it_has_changed(
    realesr: Command, fake: FakeUpscaler, folder: Path
) -> None:
    write(folder, "in/a.jpg", "in/broken.jpg")
    realesr("upscale", "in", "-o", "out")
    again = realesr("upscale", "in", "-o", "out", "--json")
    words = "failed before: in/broken.jpg is truncated: expected 100 bytes, got 7; --retry-failed tries it again"
    assert (again.exit_code, len(fake.asked), fake.opened) == (1, 2, 1)
    assert f"error: {words}\n" in again.stderr
    assert json.loads(again.stdout.splitlines()[-1]) == {"source": "in/broken.jpg", "error": words}
    assert again.stderr.splitlines()[-1] == "0 done, 1 failed, 1 skipped"
    (folder / "in/broken.jpg").write_bytes(b"a new copy")
    realesr("upscale", "in", "-o", "out")
    assert len(fake.asked) == 3


def test_retry_failed_and_other_options_of_reading_try_it_again(
    realesr: Command, fake: FakeUpscaler, folder: Path
) -> None:
    write(folder, "in/broken.jpg")
    tried = []
    for options in ([], ["--retry-failed"], ["--allow-damaged"], ["--allow-damaged"], ["--page", "1"], ["--overwrite"]):
        realesr("upscale", "in", "-o", "out", *options)
        tried.append(len(fake.asked))
    assert tried == [1, 2, 3, 3, 4, 5]
    assert realesr("upscale", "in", "-o", "out").exit_code == 1
    assert len(fake.asked) == 5


def test_what_does_not_lie_in_the_input_is_tried_again(realesr: Command, fake: FakeUpscaler, folder: Path) -> None:
    write(folder, "in/surprise.jpg")
    for _ in range(2):
        assert realesr("upscale", "in", "-o", "out").exit_code == 1
    assert len(fake.asked) == 2


def raised_from(error: Exception, cause: Exception | None) -> Exception:
    try:
        raise error from cause
    except Exception as raised:
        return raised


def raised_within(error: Exception, outer: Exception) -> Exception:
    try:
        raise outer
    except Exception:
        return raised_from(error, None)


@pytest.mark.parametrize(
    ("error", "is_lasting"),
    [
        (InputError("truncated"), True),
        (raised_from(InputError("damaged"), ValueError("no such tag")), True),
        (raised_from(InputError("damaged"), OSError("broken data stream")), True),  # of Pillow: no error of the system
        (raised_from(InputError("may not be read"), PermissionError(13, "Permission denied")), False),
        (raised_within(InputError("may not be read"), PermissionError(13, "Permission denied")), False),
        (raised_from(InputError("too large for the free memory"), MemoryError()), False),
        (OutputError("the disk is full"), False),
        (EngineError("lost"), False),
        (RuntimeError("a defect"), False),
    ],
)
def test_only_what_a_later_run_would_find_again_is_remembered(error: Exception, is_lasting: bool) -> None:
    assert lies_in_the_input(error) == is_lasting


DAMAGE = [
    b"",
    b"\n\n\x00\x00\x00\n",
    b'{"source": "../in/a.jpg", "state": "fai',
    b"no JSON\n[]\n1\nnull\n" + b"[" * 100_000 + b"\n" + b"9" * 10_000 + b"\n" + b"x" * 1_000_000 + b"\n",
    b'{"source": 1, "state": "failed"}\n{"state": "failed"}\n{"source": "../in/a.jpg", "state": "other"}\n',
    b'{"source": "../in/a.jpg", "state": "failed", "retry": false}\n',
    b'{"source": "../in/a.jpg", "state": "failed", "retry": false, "reason": "x", "size": "5", "mtime_ns": []}\n',
    b'\xff\xfe{"source": "../in/a.jpg", "state": "done"}\n',
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_manifest_is_read_as_far_as_that_goes(
    realesr: Command, fake: FakeUpscaler, folder: Path, damage: bytes
) -> None:
    write(folder, "in/a.jpg", "in/broken.jpg")
    realesr("upscale", "in/broken.jpg", "-o", "out/")
    path = folder / "out" / NAME
    path.write_bytes(path.read_bytes() + damage)
    result = realesr("upscale", "in", "-o", "out")
    assert result.stdout == "out/a_x4.jpg\n"
    assert "failed before" in result.stderr and "Traceback" not in result.stderr
    assert json.loads(path.read_bytes().splitlines()[-1])["state"] == "done"  # not behind the line that was cut


def test_an_output_that_is_there_although_its_process_was_killed_is_done(
    realesr: Command, fake: FakeUpscaler, folder: Path
) -> None:
    write(folder, "in/a.jpg", "in/b.jpg")
    realesr("upscale", "in", "-o", "out")
    path = folder / "out" / NAME
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    (folder / "out/b_x4.jpg").unlink()
    assert realesr("upscale", "in", "-o", "out").stdout == "out/b_x4.jpg\n"
    assert states(path)[2:] == [("../in/a.jpg", "done"), ("../in/b.jpg", "done")]


@pytest.mark.skipif(sys.platform == "win32", reason="no links, pipes or modes")
@pytest.mark.parametrize("what", ["link", "pipe", "folder"])
def test_a_manifest_that_cannot_be_written_is_one_line_and_the_job_goes_on(
    realesr: Command, fake: FakeUpscaler, folder: Path, what: str
) -> None:
    write(folder, "in/a.jpg", "in/b.jpg", "precious.txt")
    (folder / "out").mkdir()
    path = folder / "out" / NAME
    if what == "link":
        path.symlink_to(folder / "precious.txt")
    elif what == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    result = realesr("upscale", "in", "-o", "out")
    assert result.exit_code == 0
    assert result.stderr.count("out/realesr-manifest.jsonl cannot be written (") == 1
    assert (folder / "precious.txt").read_bytes() == b"image"


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EACCES])
def test_a_disk_that_takes_no_manifest_is_named_once(
    realesr: Command, fake: FakeUpscaler, folder: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    write(folder, "in/a.jpg", "in/broken.jpg")
    monkeypatch.setattr("realesr.cli.upscaling.manifest._append", refuse)
    result = realesr("upscale", "in", "-o", "out")
    assert (result.exit_code, result.stdout) == (1, "out/a_x4.jpg\n")
    words = f"out/realesr-manifest.jsonl cannot be written ({os.strerror(number)}): "
    assert result.stderr.startswith(words) and result.stderr.count("manifest") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere file names are text")
def test_names_that_are_no_text_are_found_again(realesr: Command, fake: FakeUpscaler, folder: Path) -> None:
    write(folder, os.fsdecode(b"in/broken caf\xe9.jpg"))
    realesr("upscale", "in", "-o", "out")
    assert os.fsencode(records(folder / "out" / NAME)[-1]["source"]) == b"../in/broken caf\xe9.jpg"
    assert r"failed before: 'in/broken caf\xe9.jpg' is truncated" in realesr("upscale", "in", "-o", "out").stderr


def test_paths_are_relative_where_more_than_the_root_is_shared(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path / NAME, print)
    manifest.begin([Job(tmp_path / "a.jpg", tmp_path / "a_x4.jpg"), Job(Path("/a.jpg"), tmp_path / "b")])
    assert [source for source, _ in states(tmp_path / NAME)] == ["a.jpg", os.path.abspath("/a.jpg")]


def test_the_nearest_folder_that_was_named_has_the_manifest() -> None:
    named = {Path("a"), Path("a/b")}
    assert manifest_folder(Path("a/b/c/x.jpg"), None, named) == Path("a/b")
    assert manifest_folder(Path("a/x.jpg"), None, named) == Path("a")
    assert manifest_folder(Path("x.jpg"), None, named) is None
    assert manifest_folder(Path("a/x.jpg"), Path("out"), named) == Path("out")


def test_pending_is_written_once_and_not_over_what_another_process_has_done_meanwhile(tmp_path: Path) -> None:
    jobs = [Job(tmp_path / name, tmp_path / f"{name}_x4") for name in ("a", "b")]
    first, second = Manifest(tmp_path / NAME, print), Manifest(tmp_path / NAME, print)
    first.begin(jobs)
    first.add_done(jobs[0], SourceFacts(1, 2), 0.5)
    second.begin(jobs)
    Manifest(tmp_path / NAME, print).begin(jobs[1:])
    assert states(tmp_path / NAME) == [("a", "pending"), ("b", "pending"), ("a", "done")]


WRITER = """
import sys
from pathlib import Path
from realesr.cli.files import Job
from realesr.cli.upscaling.manifest import Manifest, SourceFacts
manifest = Manifest(Path("realesr-manifest.jsonl"), print)
manifest.begin([])
for number in range(100):
    source = Path(f"{sys.argv[1]}-{number}")
    manifest.add_done(Job(source, source), SourceFacts(1, 2), 0.5)
"""


def test_two_processes_write_whole_lines_into_one_file(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER]
    processes = [subprocess.Popen([*command, name], cwd=tmp_path) for name in "ab"]
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    assert sorted(states(tmp_path / NAME)) == sorted((f"{name}-{n}", "done") for name in "ab" for n in range(100))

"""Temporary files of living processes stay, those of killed ones go."""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from realesr.machine.held_file import HeldFile, locked, remove_abandoned, take_lock

fcntl = pytest.importorskip("fcntl", reason="Windows has no such locks")

HOLDER = """
import sys
from pathlib import Path
from realesr.machine.held_file import HeldFile
held = HeldFile(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_stays_while_its_process_lives_and_goes_when_it_was_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "a.part")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        remove_abandoned(tmp_path, "*.part")
        assert names(tmp_path) == ["a.part"]
        process.kill()
        process.wait(timeout=10)
    remove_abandoned(tmp_path, "*.part")
    assert names(tmp_path) == []


def test_a_file_is_held_under_another_name_too_until_it_is_released(tmp_path: Path) -> None:
    held = HeldFile(tmp_path / "a.part")
    (tmp_path / "a.part").rename(tmp_path / "b.part")
    remove_abandoned(tmp_path, "*.part")
    assert names(tmp_path) == ["b.part"]
    held.release()
    held.release()
    remove_abandoned(tmp_path, "*.part")
    assert names(tmp_path) == []


def test_only_files_that_match_go_and_neither_links_nor_folders(tmp_path: Path) -> None:
    (tmp_path / "photo.png").touch()
    (tmp_path / "link.part").symlink_to(tmp_path / "photo.png")
    (tmp_path / "folder.part").mkdir()
    remove_abandoned(tmp_path, "*.part")
    assert names(tmp_path) == ["folder.part", "link.part", "photo.png"]


def test_an_existing_file_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "a.part").write_text("mine")
    with pytest.raises(FileExistsError):
        HeldFile(tmp_path / "a.part")
    assert (tmp_path / "a.part").read_text() == "mine"


LOCKER = """
import sys
from pathlib import Path
from realesr.machine.held_file import take_lock
lock = take_lock(Path(sys.argv[1]))
print("busy" if lock is None else "taken", flush=True)
sys.stdin.read()
"""


def test_a_lock_is_held_by_one_process_and_ends_with_it_however_that_ends(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", LOCKER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "taken\n"
        assert take_lock(path) is None
        process.kill()
        process.wait(timeout=10)
    assert names(tmp_path) == ["lock"]
    with take_lock(path) or pytest.fail("nobody holds it") as lock:
        assert lock.taken_ns is not None and abs(lock.taken_ns - time.time_ns()) < 60e9
        assert take_lock(path) is None
    assert names(tmp_path) == []
    assert take_lock(path) is not None


def test_a_lock_that_was_released_while_it_was_opened_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = take_lock(tmp_path / "lock")
    assert first is not None
    flock = fcntl.flock

    def release_first(descriptor: int, operation: int) -> None:
        first.release()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", release_first)
    second = take_lock(tmp_path / "lock")
    assert second is not None and second.taken_ns is not None and names(tmp_path) == ["lock"]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_a_disk_without_locks_gives_one_that_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with take_lock(tmp_path / "lock") or pytest.fail("nobody holds it") as lock:
        assert lock.taken_ns is None and names(tmp_path) == []
    with open(tmp_path / "file", "wb") as file, locked(file.fileno()):
        file.write(b"written all the same")


def test_where_no_file_can_be_made_there_is_a_lock_that_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for path in (tmp_path / "missing" / "lock", tmp_path / "link"):
        lock = take_lock(path)
        assert lock is not None and lock.taken_ns is None
        lock.release()
    assert names(tmp_path) == ["link"]

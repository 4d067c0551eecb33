"""Checks that what is written is whole or not there, and that nothing temporary is left."""

import errno
import os
from pathlib import Path

import pytest

from realesr.machine.whole_file import (
    file_sha256,
    folder_beside,
    not_written,
    put_in_place,
    remove_unfinished,
    temporary_path,
    whole_file,
    whole_folder,
    write_whole,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the files that are seen onto the disk."""
    calls: list[int] = []
    monkeypatch.setattr(os, "fsync", calls.append)
    return calls


def test_a_file_gets_its_name_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    with whole_file(target) as part:
        assert part.parent == target.parent
        part.write_bytes(b"half")
        assert not target.exists()
        part.write_bytes(b"whole")
    assert target.read_bytes() == b"whole"
    assert names(tmp_path) == ["file.bin"]


@pytest.mark.parametrize("error", [ValueError("bug"), OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_any_error_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")
    with pytest.raises(type(error)), whole_file(target) as part:
        part.write_bytes(b"ne")
        raise error
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_rename_that_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError), whole_file(tmp_path / "taken") as part:
        part.write_bytes(b"new")
    assert names(tmp_path) == ["taken"]


def test_a_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    for durable in (True, False):
        with pytest.raises(FileNotFoundError), whole_file(tmp_path / "file", durable=durable):
            pass
    assert names(tmp_path) == []


def test_bytes_are_written_and_folders_made(tmp_path: Path) -> None:
    write_whole(tmp_path / "a" / "b" / "file", b"content")
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"content"
    assert names(tmp_path / "a" / "b") == ["file"]
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "c" / "file") as part:
        part.write_bytes(b"content")


def test_a_file_has_the_permissions_of_any_other(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    write_whole(tmp_path / "whole", b"")
    assert (tmp_path / "whole").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_only_durable_files_are_flushed_to_the_disk(tmp_path: Path, flushed: list[int]) -> None:
    write_whole(tmp_path / "file", b"content", durable=False)
    assert len(flushed) == 0
    write_whole(tmp_path / "file", b"content")
    assert len(flushed) == 1
    with whole_folder(tmp_path / "folder", durable=False) as folder:
        (folder / "a").touch()
    assert len(flushed) == 1
    with whole_folder(tmp_path / "folder") as folder:
        (folder / "a").touch()
        (folder / "in").mkdir()
        (folder / "in" / "b").touch()
    assert len(flushed) == 3


def test_a_folder_replaces_the_old_one_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "made" / "folder"
    for content in ("first", "second"):
        with whole_folder(target) as folder:
            (folder / content).touch()
    assert names(target) == ["second"]
    assert names(target.parent) == ["folder"]


def test_a_folder_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(RuntimeError), whole_folder(target) as folder:
        (folder / "new").touch()
        raise RuntimeError("full")
    assert names(tmp_path) == ["folder"]
    assert names(target) == ["old"]


def test_a_folder_beside_is_gone_once_its_files_are_in_place(tmp_path: Path) -> None:
    target = tmp_path / "made" / "file"
    with folder_beside(target) as folder:
        (folder / "one").write_bytes(b"1")
        (folder / "two").write_bytes(b"2")
        put_in_place(folder / "one", target)
    assert target.read_bytes() == b"1"
    assert names(target.parent) == ["file"]


def test_temporary_names_are_hidden_and_never_the_same(tmp_path: Path) -> None:
    paths = {temporary_path(tmp_path / "file.png") for _ in range(100)}
    assert len(paths) == 100
    assert all(path.name.startswith(".realesr-") and path.suffix == ".part" for path in paths)


def test_what_killed_processes_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "kept.part").touch()
    temporary_path(tmp_path / "x").touch()
    left = temporary_path(tmp_path / "x")
    left.mkdir()
    (left / "file").touch()
    remove_unfinished(tmp_path)
    assert names(tmp_path) == ["kept.part"]


def test_the_error_for_people_says_why_and_what_to_do() -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    error = not_written(Path("a.png"), full, "free some space")
    assert str(error) == "a.png cannot be written (No space left on device): free some space"
    assert str(not_written(Path("a.png"), OSError("odd"), "try again")) == "a.png cannot be written (odd): try again"


def test_the_hash_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert file_sha256(tmp_path / "abc").startswith("ba7816bf8f01cfea")

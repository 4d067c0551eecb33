"""Temporary files of living processes stay, those of killed ones go."""

import subprocess
import sys
from pathlib import Path

import pytest

from realesr.machine.held_file import HeldFile, remove_abandoned

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no locks")

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

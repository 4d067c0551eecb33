"""Folders for temporary files that nobody else can enter, and that are gone afterwards."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from realesr.machine.private_folder import private_folder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no locks and no such permissions")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_is_private_and_is_deleted_with_all_in_it(place: Path) -> None:
    with pytest.raises(KeyboardInterrupt), private_folder("test-") as folder:
        assert folder.parent == place
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "photo").write_bytes(b"image")
        raise KeyboardInterrupt
    assert list(place.iterdir()) == []


def test_what_a_killed_process_has_left_is_deleted_and_what_a_living_one_holds_stays(place: Path) -> None:
    script = (
        "import sys, os; from realesr.machine.private_folder import private_folder\n"
        "with private_folder('test-') as folder:\n"
        "    (folder / 'photo').write_bytes(b'image'); print('there', flush=True)\n"
        "    sys.stdin.read(); os._exit(1)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"TMPDIR": str(place)},
    )
    assert process.stdout is not None
    assert process.stdin is not None
    process.stdout.readline()
    with private_folder("test-"):
        assert len(list(place.glob("test-*/photo"))) == 1
    process.kill()
    process.communicate()
    assert len(list(place.glob("test-*/photo"))) == 1
    with private_folder("test-"):
        assert list(place.glob("test-*/photo")) == []


def test_other_files_and_links_of_that_name_stay(place: Path) -> None:
    (place / "test-file").write_bytes(b"")
    (place / "elsewhere").mkdir()
    (place / "test-link").symlink_to("elsewhere")
    with private_folder("test-"):
        pass
    assert {item.name for item in place.iterdir()} == {"test-file", "elsewhere", "test-link"}


def test_folders_side_by_side_in_one_process_do_not_delete_each_other() -> None:
    with private_folder("test-") as one, private_folder("test-") as other:
        assert one.is_dir()
        assert other.is_dir()
        assert one != other

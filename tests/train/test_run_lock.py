"""Two runs never train in one folder."""

import os
import socket
import subprocess
import sys

import pytest

from realesr.errors import OutputError, UsageError
from realesr.train.run_lock import run_lock

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no locks")

HOLD = """
import sys, time
from pathlib import Path
from realesr.train.run_lock import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_says_who_has_the_folder(tmp_path):
    run = tmp_path / "runs" / "net"
    with run_lock(run), pytest.raises(UsageError, match="is in use") as caught, run_lock(run):
        pass
    assert f"process {os.getpid()} on {socket.gethostname()} trains there" in str(caught.value)
    with run_lock(run):
        pass


def test_a_process_that_is_killed_leaves_no_lock(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match=f"process {holder.pid} on"), run_lock(tmp_path):
            pass
        holder.kill()
        holder.wait()
        with run_lock(tmp_path):
            pass


def test_a_lock_is_no_link_and_what_it_says_is_never_shown_as_it_is(tmp_path):
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="lock cannot be written"), run_lock(tmp_path):
        pass
    assert not (tmp_path / "elsewhere").exists()
    (tmp_path / "lock").unlink()
    with run_lock(tmp_path):
        (tmp_path / "lock").write_text("process \x1b[31m")
        with pytest.raises(UsageError, match="in use: another process trains there"), run_lock(tmp_path):
            pass


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot be written \(.*\): choose"), run_lock(tmp_path / "file"):
        pass

"""Starts several processes on this machine: signals are handed on, and nothing returns before all have ended."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from realesr.train import distributed
from realesr.train.distributed import World, merged_of_all, run_together

SAVING = """
import os, pathlib, signal, time
folder = pathlib.Path({folder!r})
signals = []
signal.signal(signal.SIGINT, lambda *_: signals.append(1))
(folder / ("ready" + os.environ["RANK"])).touch()
for _ in range(600):
    if signals:
        break
    time.sleep(0.05)
time.sleep(0.5)
(folder / ("saved" + os.environ["RANK"])).write_text(" ".join(map(str, signals)))
raise SystemExit(130)
"""

FAILING = """
import os, pathlib, sys, time
if os.environ["RANK"] == "1":
    sys.exit(3)
time.sleep(60)
"""


def interrupt_when_ready(folder: Path, count: int) -> threading.Thread:
    """Send this process SIGINT, as a terminal does, once all processes are there."""

    def wait() -> None:
        while len(list(folder.glob("ready*"))) < count:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_ctrl_c_waits_until_all_processes_have_saved(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    thread = interrupt_when_ready(tmp_path, 2)
    assert run_together(2, [sys.executable, "-c", SAVING.format(folder=str(tmp_path))]) == 130
    assert [(tmp_path / f"saved{rank}").read_text() for rank in (0, 1)] == ["1", "1"]  # each was told once
    assert signal.getsignal(signal.SIGINT) == before
    thread.join()


def test_once_a_process_fails_the_others_do_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "_SECONDS_AFTER_FAILURE", 0.2)
    began = time.monotonic()
    assert run_together(2, [sys.executable, "-c", FAILING]) == 3
    assert time.monotonic() - began < 30


def test_processes_share_the_cores_that_the_container_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(distributed, "usable_cores", lambda: 6)
    script = "import os, sys; open(sys.argv[1] + os.environ['RANK'], 'w').write(os.environ['OMP_NUM_THREADS'])"
    assert run_together(2, [sys.executable, "-c", script, str(tmp_path / "threads")]) == 0
    assert [(tmp_path / f"threads{rank}").read_text() for rank in (0, 1)] == ["3", "3"]


def test_one_process_has_all_that_the_processes_have() -> None:
    alone = World(rank=0, size=1, device=torch.device("cpu"))
    assert merged_of_all({"a.png": "gone"}, alone) == {"a.png": "gone"}


GATHERING = """
import sys, torch
from realesr.train.distributed import greatest_of_all, is_of_lost_process, join_world, leave_world, merged_of_all
world = join_world("cpu")
found = merged_of_all({{"both": str(world.rank), str(world.rank): "own"}}, world)
assert found == {{"both": "0", "0": "own", "1": "own"}}, found
assert greatest_of_all(1 - world.rank, world) == 1
assert greatest_of_all(2 if world.rank else False, world) == 2
if world.rank:
    leave_world()
    sys.exit(0)
try:
    greatest_of_all(0, world)
except RuntimeError as error:
    assert is_of_lost_process(error), error
else:
    raise AssertionError("the other process has left")
open({folder!r} + "/done", "w").close()
"""


def test_processes_share_what_they_have_and_tell_when_one_has_left(tmp_path: Path) -> None:
    assert run_together(2, [sys.executable, "-c", GATHERING.format(folder=str(tmp_path))]) == 0
    assert (tmp_path / "done").exists()

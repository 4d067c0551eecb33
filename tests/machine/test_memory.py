"""Free and peak memory, checked against memory that is really taken."""

import subprocess
import sys

import psutil
import pytest

from realesr.machine import memory
from realesr.machine.memory import free_bytes, peak_bytes

MB = 1 << 20
GB = 1 << 30


def test_free_memory_is_some_of_what_the_machine_has() -> None:
    assert 0 < free_bytes() <= psutil.virtual_memory().total


@pytest.mark.parametrize(("left", "expected"), [(None, 8 * GB), (3 * GB, 3 * GB), (9 * GB, 8 * GB), (0, 0)])
def test_free_memory_is_lowered_by_the_container(
    monkeypatch: pytest.MonkeyPatch, left: int | None, expected: int
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 8 * GB}))
    monkeypatch.setattr(memory, "memory_left_bytes", lambda: left)
    assert free_bytes() == expected


def test_peak_memory_stays_after_the_memory_is_given_back() -> None:
    script = f"""
from realesr.machine.memory import peak_bytes
before = peak_bytes()
block = bytearray(b"x") * {200 * MB}
del block
print(peak_bytes() - before)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert 190 * MB < int(run.stdout) < 220 * MB


def test_peak_memory_is_not_inherited_from_the_process_that_started_this_one() -> None:
    """As getrusage has it on Linux: a command started by a large program would report that program's peak."""
    script = f"""
import subprocess, sys
block = bytearray(b"x") * {300 * MB}
subprocess.run([sys.executable, "-c", "from realesr.machine.memory import peak_bytes; print(peak_bytes())"], check=True)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 250 * MB


def test_peak_memory_is_at_least_what_is_held_now() -> None:
    assert peak_bytes() >= psutil.Process().memory_info().rss * 0.98


def test_memory_is_read_where_there_is_no_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform == "win32":
        pytest.skip("Windows has an answer of its own")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert peak_bytes() > 0


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel states a process's sizes on Linux alone")
@pytest.mark.parametrize("limit", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_free_memory_is_lowered_by_the_processs_own_limit(limit: str) -> None:
    script = f"""
import resource
from realesr.machine.memory import free_bytes
resource.setrlimit(resource.{limit}, ({4 * GB},) * 2)
before = free_bytes()
block = bytearray({500 * MB})
print(before, before - free_bytes())
try:
    bytearray(free_bytes() + {50 * MB})
except MemoryError:
    print("more is refused")
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    before, taken = map(int, run.stdout.splitlines()[0].split())
    assert before < 4 * GB
    assert 499 * MB < taken < 510 * MB
    assert "more is refused" in run.stdout

"""Reads the free memory, and the most that this process has held."""

import sys
from pathlib import Path

import psutil

from realesr.machine.cgroup import memory_left_bytes


def free_bytes() -> int:
    """Return the memory that this process can have without swapping: the system's, or its container's if less."""
    available: int = psutil.virtual_memory().available
    left = memory_left_bytes()
    return available if left is None else min(available, left)


def peak_bytes() -> int:
    """Return the largest resident memory in bytes that this process has held since it started."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    if sys.platform == "linux":
        # Not getrusage: there a process starts with the peak of the one that started it.
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

"""Reads the free memory, and the most that this process has held.

Source of the limits: getrlimit(2); of the sizes they are compared with: proc(5), /proc/PID/status.
"""

import sys
from pathlib import Path

import psutil

from realesr.errors import OutOfMemory
from realesr.machine.cgroup import memory_left_bytes


def free_bytes() -> int:
    """Return the memory that this process can have without swapping: the system's, its container's or its own limit."""
    available: int = psutil.virtual_memory().available
    left = [left for left in (memory_left_bytes(), _left_of_own_limits()) if left is not None]
    return min([available, *left])


def check_addresses(needed_bytes: float, what: str) -> None:
    """Raise OutOfMemory where a limit of this process leaves fewer addresses than loading something takes.

    Libraries that run out of addresses while they are loaded or start threads may end the process.
    """
    left = _left_of_own_limits()
    if left is not None and left < needed_bytes:
        raise OutOfMemory(
            f"{what} takes {needed_bytes / 1e6:,.0f} MB of addresses, and the limit of this process (ulimit -v or -d) "
            f"leaves {left / 1e6:,.0f} MB: expected a higher limit"
        )


def _left_of_own_limits() -> int | None:
    """Return the bytes that the process may still map by RLIMIT_AS and RLIMIT_DATA (`ulimit -v` and `-d`), or None."""
    if sys.platform != "linux":
        return None
    import resource

    held = _status_bytes("VmSize", "VmData")
    limits = (resource.getrlimit(resource.RLIMIT_AS)[0], resource.getrlimit(resource.RLIMIT_DATA)[0])
    left = [max(0, limit - size) for limit, size in zip(limits, held, strict=True) if limit != resource.RLIM_INFINITY]
    return min(left, default=None)


def _status_bytes(*names: str) -> list[int]:
    """Return sizes that the kernel states of this process, in bytes; 0 for one that is missing."""
    lines = Path("/proc/self/status").read_text().splitlines()
    stated = dict(line.split(":", 1) for line in lines if ":" in line)
    return [int(stated.get(name, "0").split()[0]) * 1024 for name in names]


def peak_bytes() -> int:
    """Return the largest resident memory in bytes that this process has held since it started."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    if sys.platform == "linux":
        # Not getrusage: there a process starts with the peak of the one that started it.
        peak = _status_bytes("VmHWM")[0]
        if peak:
            return peak
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

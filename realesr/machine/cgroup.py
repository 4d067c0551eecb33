"""Reads the limits that a container sets to this process: Linux control groups, version 2 or 1.

Elsewhere, and where no limit is set, the answers are None. Source of the files' names and meanings: Linux kernel,
Documentation/admin-guide/cgroup-v2.rst (memory, cpu) and cgroup-v1/memory.rst, scheduler/sched-bwc.rst.
"""

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_MEMBERSHIP = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Return the cores that this process may keep busy: its affinity, lowered by the group's quota; at least 1."""
    if sys.platform == "linux":
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota = core_quota()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def core_quota() -> float | None:
    """Return the CPU quota of this process's groups, in cores, or None."""
    quotas = [_quota_v2(folder) for folder in _folders("")] + [_quota_v1(folder) for folder in _folders("cpu")]
    return min((quota for quota in quotas if quota is not None), default=None)


def memory_left_bytes() -> int | None:
    """Return the bytes that the groups of this process allow beyond what they use, or None.

    Cached files that have not been used of late do not count as use: the kernel drops them before it refuses memory.
    """
    left = [_left(folder, "memory.max", "memory.current", "inactive_file") for folder in _folders("")]
    left += [
        _left(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        for folder in _folders("memory")
    ]
    return min((number for number in left if number is not None), default=None)


def _folders(controller: str) -> Iterator[Path]:
    """Yield the group's folder and those above it; `controller` is empty for version 2.

    In a container the path may be the host's, of which only the end of the way up exists; files that are missing are
    no limits.
    """
    for line in _text(_MEMBERSHIP).splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            mount = _MOUNT / controller
            inside = PurePosixPath(path.lstrip("/"))
            yield from dict.fromkeys(mount / folder for folder in (inside, *inside.parents))


def _quota_v2(folder: Path) -> float | None:
    quota, _, period = _text(folder / "cpu.max").partition(" ")
    return int(quota) / int(period) if quota.isdigit() and int(quota) else None


def _quota_v1(folder: Path) -> float | None:
    quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
    return int(quota) / int(period) if quota.isdigit() and int(quota) else None


def _left(folder: Path, limit_file: str, usage_file: str, reclaimable_key: str) -> int | None:
    limit, usage = _text(folder / limit_file), _text(folder / usage_file)
    if not (limit.isdigit() and usage.isdigit()):
        return None
    stat = dict(line.split(" ", 1) for line in _text(folder / "memory.stat").splitlines())
    return max(0, int(limit) - int(usage) + int(stat.get(reclaimable_key, "0")))


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""

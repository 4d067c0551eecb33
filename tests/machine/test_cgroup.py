"""Limits of containers, read from folders made up like the kernel's."""

import os
import sys
from pathlib import Path

import pytest

from realesr.machine import cgroup

GB = 1 << 30


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty /sys/fs/cgroup."""
    monkeypatch.setattr(cgroup, "_MOUNT", tmp_path)
    monkeypatch.setattr(cgroup, "_MEMBERSHIP", tmp_path / "membership")
    return tmp_path


def write(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")


def test_no_groups_are_no_limits(kernel: Path) -> None:
    assert cgroup.memory_left_bytes() is None
    assert cgroup.core_quota() is None
    assert cgroup.usable_cores() >= 1


def test_version_2_takes_the_narrowest_group_on_the_way_up(kernel: Path) -> None:
    write(kernel, membership="0::/pods/mine")
    write(kernel / "pods", memory__max=4 * GB, memory__current=3 * GB, cpu__max="300000 100000")
    write(kernel / "pods" / "mine", memory__max=8 * GB, memory__current=1 * GB, cpu__max="max 100000")
    assert cgroup.memory_left_bytes() == 1 * GB
    assert cgroup.core_quota() == 3.0


def test_cached_files_that_lie_idle_do_not_count_as_use(kernel: Path) -> None:
    write(kernel, membership="0::/")
    stat = f"anon {GB}\ninactive_file {2 * GB}\nactive_file 7"
    write(kernel, memory__max=4 * GB, memory__current=3 * GB, memory__stat=stat)
    assert cgroup.memory_left_bytes() == 3 * GB


def test_no_limit_is_written_as_max(kernel: Path) -> None:
    write(kernel, membership="0::/", memory__max="max", memory__current=GB, cpu__max="max 100000")
    assert cgroup.memory_left_bytes() is None
    assert cgroup.core_quota() is None


def test_version_1_has_a_tree_for_each_controller(kernel: Path) -> None:
    """The path is the host's, which a container does not see: the root of the mount is its own group."""
    write(kernel, membership="5:cpu,cpuacct:/docker/abc\n3:memory:/docker/abc\n1:name=systemd:/x")
    write(kernel / "memory", memory__limit_in_bytes=2 * GB, memory__usage_in_bytes=3 * GB, memory__stat="cache 1")
    write(kernel / "cpu", cpu__cfs_quota_us=150000, cpu__cfs_period_us=100000)
    assert cgroup.memory_left_bytes() == 0
    assert cgroup.core_quota() == 1.5


def test_an_unlimited_version_1_has_a_quota_of_minus_one(kernel: Path) -> None:
    write(kernel, membership="5:cpu:/")
    write(kernel / "cpu", cpu__cfs_quota_us=-1, cpu__cfs_period_us=100000)
    assert cgroup.core_quota() is None


@pytest.mark.parametrize(
    ("cores", "quota", "expected"), [(8, None, 8), (8, "250000 100000", 3), (2, "900000 100000", 2), (4, "1 100000", 1)]
)
def test_cores_are_those_of_the_affinity_lowered_by_the_quota(
    kernel: Path, monkeypatch: pytest.MonkeyPatch, cores: int, quota: str | None, expected: int
) -> None:
    write(kernel, membership="0::/")
    if quota:
        write(kernel, cpu__max=quota)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert cgroup.usable_cores() == expected

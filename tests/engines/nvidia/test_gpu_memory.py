"""Memory of a GPU as NVIDIA's driver tells it; the driver is a fake."""

import ctypes
from typing import Any

import pytest

from realesr.engines.nvidia.gpu_memory import gpu_memory_bytes

ALL_BYTES = 80 << 30


class FakeDriver:
    """Of the CUDA Driver API what is asked for; the names are the driver's own."""

    def __init__(self, fails: str = "") -> None:
        self.fails = fails

    def _code(self, name: str) -> int:
        return 101 if name == self.fails else 0

    def cuInit(self, flags: int) -> int:  # noqa: N802
        assert flags == 0
        return self._code("cuInit")

    def cuDeviceGet(self, device: Any, number: int) -> int:  # noqa: N802
        device._obj.value = number + 10  # a handle is not the number
        return self._code("cuDeviceGet")

    def cuDeviceTotalMem_v2(self, total: Any, device: Any) -> int:  # noqa: N802
        assert device.value == 11
        total._obj.value = ALL_BYTES
        return self._code("cuDeviceTotalMem_v2")


def test_memory_is_all_of_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: FakeDriver())
    assert gpu_memory_bytes(1) == ALL_BYTES


@pytest.mark.parametrize("fails", ["cuInit", "cuDeviceGet", "cuDeviceTotalMem_v2"])
def test_what_the_driver_does_not_tell_is_none(fails: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: FakeDriver(fails))
    assert gpu_memory_bytes(1) is None


def test_without_a_driver_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> None:
        raise OSError("libcuda.so.1: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert gpu_memory_bytes(0) is None


@pytest.mark.cuda
def test_a_real_gpu_has_memory() -> None:
    memory = gpu_memory_bytes(0)
    if memory is None:
        pytest.skip("there is no GPU")
    assert 1 << 30 < memory < 1 << 42

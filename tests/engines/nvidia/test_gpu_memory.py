"""Free memory of a GPU as NVIDIA's driver tells it; the driver is a fake."""

import ctypes
from typing import Any

import pytest

from realesr.engines.nvidia.gpu_memory import gpu_free_bytes

FREE_BYTES, ALL_BYTES = 70 << 30, 80 << 30


class FakeDriver:
    """Of the CUDA Driver API what is asked for; the names are the driver's own."""

    def __init__(self, fails: str = "") -> None:
        self.fails = fails
        self.retained: list[int] = []
        self.stack: list[int] = []

    def _code(self, name: str) -> int:
        return 101 if name == self.fails else 0

    def cuInit(self, flags: int) -> int:  # noqa: N802
        assert flags == 0
        return self._code("cuInit")

    def cuDeviceGet(self, device: Any, number: int) -> int:  # noqa: N802
        device._obj.value = number + 10  # a handle is not the number
        return self._code("cuDeviceGet")

    def cuDevicePrimaryCtxRetain(self, context: Any, device: Any) -> int:  # noqa: N802
        if code := self._code("cuDevicePrimaryCtxRetain"):
            return code
        self.retained.append(device.value)
        context._obj.value = 1 << 40 | device.value  # an address does not fit an int
        return 0

    def cuCtxPushCurrent_v2(self, context: Any) -> int:  # noqa: N802
        if code := self._code("cuCtxPushCurrent_v2"):
            return code
        self.stack.append(context.value)
        return 0

    def cuMemGetInfo_v2(self, free: Any, total: Any) -> int:  # noqa: N802
        assert self.stack == [1 << 40 | device for device in self.retained]
        free._obj.value, total._obj.value = FREE_BYTES, ALL_BYTES
        return self._code("cuMemGetInfo_v2")

    def cuCtxPopCurrent_v2(self, context: Any) -> int:  # noqa: N802
        context._obj.value = self.stack.pop()
        return 0

    def cuDevicePrimaryCtxRelease_v2(self, device: Any) -> int:  # noqa: N802
        self.retained.remove(device.value)
        return 0


def test_free_bytes_are_those_of_the_gpu_and_no_context_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = FakeDriver()
    monkeypatch.setattr(ctypes, "CDLL", lambda _: driver)
    assert gpu_free_bytes(1) == FREE_BYTES
    assert (driver.retained, driver.stack) == ([], [])


@pytest.mark.parametrize(
    "fails", ["cuInit", "cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuCtxPushCurrent_v2", "cuMemGetInfo_v2"]
)
def test_what_the_driver_does_not_tell_is_none_and_no_context_stays(
    fails: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = FakeDriver(fails)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: driver)
    assert gpu_free_bytes(0) is None
    assert (driver.retained, driver.stack) == ([], [])


def test_without_a_driver_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> None:
        raise OSError("libcuda.so.1: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert gpu_free_bytes(0) is None


@pytest.mark.cuda
def test_a_real_gpu_has_free_memory() -> None:
    free = gpu_free_bytes(0)
    if free is None:
        pytest.skip("there is no GPU")
    assert 1 << 20 < free < 1 << 42

"""GPUs as NVIDIA's driver tells them; the driver is a fake."""

import ctypes
from collections.abc import Iterator
from typing import Any

import pytest

from realesr.machine import nvidia_driver


class FakeDriver:
    """The functions of the CUDA Driver API that are called; the names are the driver's own."""

    def __init__(self, names: tuple[bytes, ...], init_result: int = 0, name_result: int = 0) -> None:
        self._names, self._init_result, self._name_result = names, init_result, name_result

    def cuInit(self, flags: int) -> int:  # noqa: N802
        assert flags == 0
        return self._init_result

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = len(self._names)
        return 0

    def cuDeviceGet(self, device: Any, number: int) -> int:  # noqa: N802
        device._obj.value = number + 10  # a handle is not the number
        return 0

    def cuDeviceGetName(self, name: Any, length: int, device: Any) -> int:  # noqa: N802
        assert length == len(name)
        if self._name_result == 0:
            name.value = self._names[device.value - 10]
        return self._name_result


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    nvidia_driver.gpu_names.cache_clear()
    yield
    nvidia_driver.gpu_names.cache_clear()


def test_each_gpu_has_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: FakeDriver((b"NVIDIA H100 80GB HBM3", b"NVIDIA L4")))
    assert nvidia_driver.gpu_names() == ("NVIDIA H100 80GB HBM3", "NVIDIA L4")


def test_a_gpu_whose_name_is_not_told_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: FakeDriver((b"", b""), name_result=101))
    assert nvidia_driver.gpu_names() == ("unknown", "unknown")


def test_a_driver_without_a_gpu_has_no_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: FakeDriver((), init_result=100))  # CUDA_ERROR_NO_DEVICE
    assert nvidia_driver.gpu_names() == ()


def test_no_driver_no_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> None:
        raise OSError("libcuda.so.1: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert nvidia_driver.gpu_names() == ()

"""A GPU's memory by NVIDIA's bindings and by pycuda: fakes with the same functions stand in for both."""

import ctypes
import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from realesr.engines.nvidia.cuda_memory import (
    LIBRARIES,
    CudaMemory,
    GpuFacts,
    device_number,
    driver_text,
    gpu_facts,
    open_cuda,
)
from realesr.errors import EngineError, MissingDependency, OutOfMemory, UsageError

ROOT = Path(__file__).parents[3]


class FakeDriver:
    """The driver's functions as cuda-bindings has them, on the memory of this process; copies are done at once."""

    def __init__(self, *, gpus: int = 2) -> None:
        self.driver = pytest.importorskip("cuda.bindings.driver")
        self.gpus = gpus
        self.calls: list[str] = []
        self.contexts: list[Any] = []
        self.blocks: dict[int, Any] = {}
        self.fail: dict[str, str] = {}  # function -> name of the code that it gives

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cu") or name.startswith("cuda"):
            return getattr(self.driver, name)  # the enumerations are the real ones
        assert hasattr(self.driver, name), f"{name} is no function of the driver"
        work = getattr(self, f"_{name}", lambda *_: ())

        def function(*arguments: Any) -> tuple[Any, ...]:
            self.calls.append(name)
            if name in self.fail:
                return (getattr(self.driver.CUresult, self.fail[name]), *((None,) if name in _WITH_RESULT else ()))
            return (self.driver.CUresult.CUDA_SUCCESS, *work(*arguments))

        function.__name__ = name
        return function

    def _cuDeviceGetCount(self):  # noqa: N802 - the driver's names, here and below
        return (self.gpus,)

    def _cuDeviceGet(self, number):  # noqa: N802
        return (f"device {number}",)

    def _cuDeviceGetName(self, length, device):  # noqa: N802
        return (b"NVIDIA L4".ljust(length, b"\0"),)

    def _cuDeviceGetAttribute(self, which, device):  # noqa: N802
        return (8 if which.name.endswith("MAJOR") else 9,)

    def _cuDriverGetVersion(self):  # noqa: N802
        return (13000,)

    def _cuDevicePrimaryCtxRetain(self, device):  # noqa: N802
        return (f"context of {device}",)

    def _cuCtxPushCurrent(self, context):  # noqa: N802
        self.contexts.append(context)
        return ()

    def _cuCtxPopCurrent(self):  # noqa: N802
        return (self.contexts.pop(),)

    def _cuStreamCreate(self, flags):  # noqa: N802
        assert flags == 1
        return (77,)

    def _cuEventCreate(self, flags):  # noqa: N802
        assert flags == 2
        return ("event",)

    def _cuMemAlloc(self, nbytes):  # noqa: N802
        block = (ctypes.c_byte * nbytes)()
        self.blocks[ctypes.addressof(block)] = block
        return (ctypes.addressof(block),)

    _cuMemAllocHost = _cuMemAlloc  # noqa: N815

    def _cuMemFree(self, address):  # noqa: N802
        del self.blocks[address]
        return ()

    _cuMemFreeHost = _cuMemFree  # noqa: N815

    def _cuMemcpyHtoDAsync(self, target, source, nbytes, stream):  # noqa: N802
        ctypes.memmove(target, source, nbytes)
        return ()

    _cuMemcpyDtoHAsync = _cuMemcpyHtoDAsync  # noqa: N815

    def _cuStreamEndCapture(self, stream):  # noqa: N802
        return ("graph",)

    def _cuGraphInstantiate(self, graph, flags):  # noqa: N802
        return (f"executable {graph}",)


_WITH_RESULT = ("cuMemAlloc", "cuMemAllocHost", "cuDeviceGetCount", "cuStreamEndCapture", "cuGraphInstantiate")


def by_bindings(driver: FakeDriver, number: int = 0) -> CudaMemory:
    from realesr.engines.nvidia.cuda_bindings_memory import open_bindings

    return open_bindings(number, driver)


class _Devices:
    """pycuda.driver.Device: a class with a static method."""

    def __init__(self, driver: "FakePycuda") -> None:
        self.count = lambda: driver.gpus
        self._driver = driver

    def __call__(self, number: int) -> Any:
        return SimpleNamespace(
            name=lambda: "NVIDIA L4",
            compute_capability=lambda: (8, 9),
            retain_primary_context=lambda: _PrimaryContext(self._driver.stack),
        )


class _PrimaryContext:
    """A primary context of pycuda 2026.1: src/cpp/cuda.hpp, `context` and `primary_context`."""

    def __init__(self, stack: list[str]) -> None:
        self._stack = stack

    def push(self) -> None:
        self._stack.append("context")

    def __del__(self) -> None:
        """Push and release: nothing pops it, for cuDevicePrimaryCtxRelease does not, unlike cuCtxDetach."""
        self._stack.append("left by the destructor")


class FakePycuda(ModuleType):
    """pycuda.driver, as much of it as is used."""

    class Error(Exception):
        pass

    class MemoryError(Error):
        pass

    class LogicError(Error):
        pass

    def __init__(self) -> None:
        super().__init__("pycuda.driver")
        self.stack: list[str] = []
        self.blocks: dict[int, Any] = {}
        self.gpus = 1
        self.out_of_memory = False
        self.init = lambda: None
        self.get_driver_version = lambda: 12080
        self.event_flags = SimpleNamespace(DISABLE_TIMING=2)
        self.Context = SimpleNamespace(pop=self.stack.pop)
        self.Device = _Devices(self)

    def mem_alloc(self, nbytes: int) -> Any:
        if self.out_of_memory:
            raise self.MemoryError("cuMemAlloc failed: out of memory")
        block = (ctypes.c_byte * nbytes)()
        address = ctypes.addressof(block)
        self.blocks[address] = block

        class Allocation(int):
            def free(allocation) -> None:  # noqa: N805
                del self.blocks[allocation]

        return Allocation(address)

    def pagelocked_empty(self, shape: Any, dtype: Any) -> Any:
        owner = np.zeros(shape, dtype)

        class Owned(np.ndarray):
            base = SimpleNamespace(free=lambda: self.blocks.pop(owner.ctypes.data))  # type: ignore[assignment]

        self.blocks[owner.ctypes.data] = owner
        return owner.view(Owned)

    def memcpy_htod_async(self, address: int, array: Any, stream: Any) -> None:
        assert self.stack
        ctypes.memmove(address, array.ctypes.data, array.nbytes)

    def memcpy_dtoh_async(self, array: Any, address: int, stream: Any) -> None:
        assert self.stack
        ctypes.memmove(array.ctypes.data, address, array.nbytes)

    def Stream(self, flags: int) -> Any:  # noqa: N802
        assert flags == 1
        return SimpleNamespace(handle=77, synchronize=lambda: None)

    def fail(self, *_: Any) -> Any:
        """What every call gives once the GPU has failed."""
        raise self.LogicError("cuStreamSynchronize failed: an illegal memory access was encountered")


@pytest.fixture
def pycuda(monkeypatch: pytest.MonkeyPatch) -> FakePycuda:
    driver = FakePycuda()
    package = ModuleType("pycuda")
    package.driver = driver  # type: ignore[attr-defined]
    package.__spec__ = importlib.machinery.ModuleSpec("pycuda", None)
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
    monkeypatch.delitem(sys.modules, "realesr.engines.nvidia.pycuda_memory", raising=False)
    return driver


def move_there_and_back(memory: CudaMemory) -> None:
    with memory.active():
        stream = memory.new_stream()
        assert memory.handle(stream) == 77
        address = memory.allocate(24)
        for dtype, shape in ((np.float32, (1, 2, 3)), (np.uint8, (4, 6))):
            source, target = memory.pinned(shape, dtype), memory.pinned(shape, dtype)
            assert source.shape == shape
            assert source.dtype == np.dtype(dtype)
            assert source.nbytes == 24
            source[...] = np.arange(source.size).reshape(shape)
            target[...] = 0
            memory.upload(address, source, stream)
            memory.download(target, address, stream)
            memory.finish(stream)
            np.testing.assert_array_equal(target, np.arange(source.size).reshape(shape))
            for array in (source, target):
                memory.free_pinned(array)
            del source, target, array
        memory.free(address)


def test_bindings_move_arrays_to_the_gpu_and_back_and_leave_nothing() -> None:
    driver = FakeDriver()
    memory = by_bindings(driver, 1)
    assert memory.facts == GpuFacts(name="NVIDIA L4", compute_capability=(8, 9), driver=driver_text(13000))
    assert memory.facts.target == "sm89"
    move_there_and_back(memory)
    assert driver.blocks == {}
    memory.close()
    memory.close()
    assert driver.contexts == []
    assert driver.calls.count("cuDevicePrimaryCtxRetain") == driver.calls.count("cuDevicePrimaryCtxRelease") == 1
    assert driver.calls.count("cuStreamDestroy") == 1


def test_pycuda_moves_arrays_to_the_gpu_and_back_and_leaves_nothing(pycuda: FakePycuda) -> None:
    memory = open_cuda(0, "pycuda")
    assert memory.facts == GpuFacts(name="NVIDIA L4", compute_capability=(8, 9), driver=driver_text(12080))
    assert not memory.can_capture
    move_there_and_back(memory)
    assert pycuda.blocks == {}
    assert pycuda.stack == []
    memory.close()
    memory.close()
    with pytest.raises(EngineError, match="closed"), memory.active():
        pass


def test_pycuda_leaves_no_context_current_however_often_a_gpu_is_opened(pycuda: FakePycuda) -> None:
    for _ in range(3):
        memory = open_cuda(0, "pycuda")
        with memory.active():
            assert pycuda.stack == ["context"]
        memory.close()
        del memory
        assert pycuda.stack == []


def test_the_context_is_popped_after_an_error() -> None:
    driver = FakeDriver()
    memory = by_bindings(driver)
    with pytest.raises(KeyError), memory.active():
        assert driver.contexts == ["context of device 0"]
        raise KeyError
    assert driver.contexts == []


def test_pycudas_context_is_popped_after_an_error(pycuda: FakePycuda) -> None:
    memory = open_cuda(0, "pycuda")
    with pytest.raises(KeyError), memory.active():
        raise KeyError
    assert pycuda.stack == []


def test_pycudas_errors_are_ours_where_they_are_raised(pycuda: FakePycuda) -> None:
    """Who gives memory back after a failure passes over EngineErrors, inside `with memory.active():`."""
    memory = open_cuda(0, "pycuda")
    failing = SimpleNamespace(
        synchronize=pycuda.fail, record=pycuda.fail, wait_for_event=pycuda.fail, free=pycuda.fail, base=None
    )
    failing.base = failing
    with memory.active():
        address, array = memory.allocate(8), np.zeros(2, np.float32)
        memory._buffers[address] = failing  # type: ignore[attr-defined]
        for name in ("mem_alloc", "pagelocked_empty", "memcpy_htod_async", "memcpy_dtoh_async", "Stream", "Event"):
            setattr(pycuda, name, pycuda.fail)
        calls: list[Callable[[], Any]] = [
            memory.new_stream,
            lambda: memory.finish(failing),
            memory.new_event,
            lambda: memory.record(failing, failing),
            lambda: memory.wait_on_stream(failing, failing),
            lambda: memory.wait_here(failing),
            lambda: memory.allocate(8),
            lambda: memory.free(address),
            lambda: memory.pinned((2,), np.float32),
            lambda: memory.free_pinned(failing),  # type: ignore[arg-type]
            lambda: memory.upload(address, array, failing),
            lambda: memory.download(array, address, failing),
        ]
        for call in calls:
            with pytest.raises(EngineError, match="illegal memory access"):
                call()


@pytest.mark.parametrize("function", ["cuMemAlloc", "cuMemAllocHost", "cuGraphInstantiate"])
def test_out_of_memory_is_told_by_the_drivers_code(function: str) -> None:
    driver = FakeDriver()
    memory = by_bindings(driver)
    driver.fail[function] = "CUDA_ERROR_OUT_OF_MEMORY"
    calls = {
        "cuMemAlloc": lambda: memory.allocate(8),
        "cuMemAllocHost": lambda: memory.pinned((2,), np.float32),
        "cuGraphInstantiate": lambda: memory.capture(77, lambda: None),
    }
    with memory.active(), pytest.raises(OutOfMemory, match="expected a smaller tile"):
        calls[function]()


def test_out_of_memory_is_told_by_pycudas_type(pycuda: FakePycuda) -> None:
    memory = open_cuda(0, "pycuda")
    pycuda.out_of_memory = True
    with memory.active(), pytest.raises(OutOfMemory, match="expected a smaller tile"):
        memory.allocate(8)


def test_any_other_code_is_an_error_that_names_function_and_code() -> None:
    driver = FakeDriver()
    memory = by_bindings(driver)
    driver.fail["cuEventSynchronize"] = "CUDA_ERROR_ILLEGAL_ADDRESS"
    with memory.active(), pytest.raises(EngineError, match="cuEventSynchronize gave CUDA_ERROR_ILLEGAL_ADDRESS"):
        memory.wait_here(memory.new_event())


def test_a_graph_is_what_the_work_gave_and_capture_ends_where_the_work_fails() -> None:
    driver = FakeDriver()
    memory = by_bindings(driver)
    with memory.active():
        assert memory.capture(77, lambda: driver.calls.append("work")) == "executable graph"
        order = ["cuStreamBeginCapture", "work", "cuStreamEndCapture", "cuGraphInstantiate", "cuGraphDestroy"]
        assert driver.calls[-5:] == order
        with pytest.raises(ZeroDivisionError):
            memory.capture(77, lambda: 1 / 0)  # type: ignore[arg-type,return-value]
    assert driver.calls[-2] == "cuStreamEndCapture"


def test_every_function_of_the_driver_that_is_used_exists() -> None:
    driver = pytest.importorskip("cuda.bindings.driver")
    source = (ROOT / "engines/nvidia/cuda_bindings_memory.py").read_text()
    names = set(re.findall(r"\bcu[A-Z]\w+", source))
    assert len(names) > 25
    assert [name for name in names if not hasattr(driver, name)] == []
    assert hasattr(driver.CUstreamCaptureMode, "CU_STREAM_CAPTURE_MODE_THREAD_LOCAL")


@pytest.mark.parametrize(
    ("gpus", "fail", "message"),
    [
        (0, {}, "no NVIDIA GPU can be used here"),
        (2, {}, "got the device cuda:2, expected one that there is: cuda:0 to cuda:1"),
        (2, {"cuInit": "CUDA_ERROR_NO_DEVICE"}, r"no NVIDIA GPU can be used here \(CUDA_ERROR_NO_DEVICE\)"),
        (2, {"cuInit": "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"}, "install NVIDIA's driver"),
    ],
)
def test_a_gpu_that_is_not_there_is_one_line(gpus: int, fail: dict[str, str], message: str) -> None:
    driver = FakeDriver(gpus=gpus)
    driver.fail |= fail
    with pytest.raises(EngineError, match=message) as caught:
        by_bindings(driver, 2)
    assert "\n" not in str(caught.value)


def test_a_driver_without_a_function_is_one_line() -> None:
    driver = FakeDriver()

    def missing(*_: Any) -> Any:
        raise RuntimeError('Function "cuInit" not found')

    driver.cuInit = missing  # type: ignore[attr-defined]
    with pytest.raises(EngineError, match=r"cuInit.*install NVIDIA's driver"):
        by_bindings(driver)


def test_a_closed_gpu_says_so() -> None:
    memory = by_bindings(FakeDriver())
    memory.close()
    with pytest.raises(EngineError, match="closed"), memory.active():
        pass


def without_bindings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    monkeypatch.delitem(sys.modules, "realesr.engines.nvidia.cuda_bindings_memory", raising=False)


def write_broken_pycuda(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pycuda as it is where CUDA's libraries are not on the loader's path: its message, without them, was this."""
    (folder / "pycuda").mkdir()
    (folder / "pycuda/__init__.py").touch()
    message = "libcurand.so.10: cannot open shared object file: No such file or directory"
    (folder / "pycuda/driver.py").write_text(f"raise ImportError({message!r})\n")
    monkeypatch.syspath_prepend(folder)
    for name in ("pycuda", "pycuda.driver", "realesr.engines.nvidia.pycuda_memory"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def test_without_a_package_for_memory_the_line_that_installs_one_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    without_bindings(monkeypatch)
    with pytest.raises(MissingDependency, match="pip install cuda-bindings"):
        open_cuda(0)


def test_a_library_that_was_asked_for_and_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycuda", None)
    with pytest.raises(MissingDependency, match="pycuda for a GPU's memory: run 'pip install pycuda'"):
        open_cuda(0, "pycuda")
    without_bindings(monkeypatch)
    with pytest.raises(MissingDependency, match="cuda-bindings for a GPU's memory: run 'pip install cuda-bindings'"):
        open_cuda(0, "cuda-bindings")


def test_bindings_are_taken_where_both_are_installed_for_they_have_graphs(
    pycuda: FakePycuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    bindings = pytest.importorskip("realesr.engines.nvidia.cuda_bindings_memory")
    monkeypatch.setattr(bindings, "open_bindings", lambda number: f"bindings {number}")
    assert open_cuda(1) == open_cuda(1, "cuda-bindings") == "bindings 1"  # type: ignore[comparison-overlap]
    assert not open_cuda(0, "pycuda").can_capture


def test_pycuda_is_taken_where_it_is_alone(pycuda: FakePycuda, monkeypatch: pytest.MonkeyPatch) -> None:
    without_bindings(monkeypatch)
    assert open_cuda(0).facts.driver == driver_text(12080)


@pytest.mark.parametrize("library", [None, "pycuda"])
def test_a_pycuda_that_does_not_load_is_one_line(
    library: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_bindings(monkeypatch)
    write_broken_pycuda(tmp_path, monkeypatch)
    with pytest.raises(EngineError, match=r"pycuda is installed but does not load \(libcurand\.so\.10: ") as caught:
        open_cuda(0, library)
    assert "\n" not in str(caught.value)
    if library is None:
        with pytest.raises(EngineError, match="does not load"):
            gpu_facts(0)


def test_bindings_that_do_not_load_leave_pycuda(pycuda: FakePycuda, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cuda.bindings.driver")
    monkeypatch.delitem(sys.modules, "realesr.engines.nvidia.cuda_bindings_memory", raising=False)
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", None)
    monkeypatch.delattr("cuda.bindings.driver")
    assert not open_cuda(0).can_capture
    with pytest.raises(EngineError, match="cuda-bindings is installed but does not load"):
        open_cuda(0, "cuda-bindings")


@pytest.mark.parametrize(("device", "number"), [("auto", 0), ("cuda", 0), ("cuda:0", 0), ("CUDA:3", 3)])
def test_the_number_of_a_device(device: str, number: int) -> None:
    assert device_number(device) == number


def test_other_devices_are_refused() -> None:
    with pytest.raises(EngineError, match="got the device cpu, expected an NVIDIA GPU"):
        device_number("cpu")
    with pytest.raises(UsageError, match="got the device cuda:x"):
        device_number("cuda:x")


@pytest.mark.cuda
@pytest.mark.parametrize("library", LIBRARIES)
def test_a_real_gpu_moves_arrays_there_and_back(library: str) -> None:
    try:
        memory = open_cuda(0, library)
    except (EngineError, MissingDependency) as error:
        pytest.skip(str(error))
    assert gpu_facts(0) == memory.facts
    with memory.active():
        stream, event = memory.new_stream(), memory.new_event()
        source, target = memory.pinned((3, 100, 100), np.float32), memory.pinned((3, 100, 100), np.float32)
        source[...] = np.random.default_rng(0).random(source.shape)
        target[...] = 0
        address = memory.allocate(source.nbytes)
        memory.upload(address, source, stream)
        memory.download(target, address, stream)
        memory.record(event, stream)
        memory.wait_here(event)
        np.testing.assert_array_equal(source, target)
        with pytest.raises(OutOfMemory):
            memory.allocate(1 << 50)
        memory.free(address)
    memory.close()

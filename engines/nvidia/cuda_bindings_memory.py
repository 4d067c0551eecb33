"""A GPU's memory, streams and graphs by NVIDIA's cuda-bindings: the driver's own functions, under their own names.

Not by cuda-core, which needs cuda-bindings anyway: here errors have codes, and contexts are pushed and popped.
"""

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from cuda.bindings import driver
from numpy.typing import DTypeLike, NDArray

from realesr.engines.nvidia.cuda_memory import CudaMemory, GpuFacts, check_number, driver_text, no_driver
from realesr.errors import EngineError, OutOfMemory


def open_bindings(number: int, cuda: Any = driver) -> CudaMemory:
    """Open the GPU of this number; `cuda` has the driver's functions. Raises as `open_cuda`."""
    return _BindingsMemory(cuda, number)


class _BindingsMemory:
    """`CudaMemory` by the driver's functions as cuda-bindings has them: each gives (code, results...)."""

    can_capture = True

    def __init__(self, driver: Any, number: int) -> None:
        self._cuda = driver
        self._streams: list[Any] = []
        self._events: list[Any] = []
        self._call(driver.cuInit, 0)
        check_number(number, self._call(driver.cuDeviceGetCount))
        self._device = self._call(driver.cuDeviceGet, number)
        self.facts = self._facts()
        self._context = self._call(driver.cuDevicePrimaryCtxRetain, self._device)

    def _facts(self) -> GpuFacts:
        cuda = self._cuda
        attribute = cuda.CUdevice_attribute
        major, minor = (
            int(self._call(cuda.cuDeviceGetAttribute, which, self._device))
            for which in (
                attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
                attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
            )
        )
        name = self._call(cuda.cuDeviceGetName, 256, self._device).split(b"\0")[0].decode(errors="replace")
        driver = driver_text(self._call(cuda.cuDriverGetVersion))
        return GpuFacts(name=name, compute_capability=(major, minor), driver=driver)

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call the driver: the one place where its codes become our errors."""
        try:
            code, *results = function(*arguments)
        except RuntimeError as error:
            # There is no library of the driver, which cuda-pathfinder says at length; or it lacks the function.
            is_missing = type(error).__name__ == "DynamicLibNotFoundError"
            raise no_driver("the driver was not found" if is_missing else str(error)) from error
        codes = self._cuda.CUresult
        if code == codes.CUDA_SUCCESS:
            return results[0] if results else None
        name = code.name
        if code == codes.CUDA_ERROR_OUT_OF_MEMORY:
            raise OutOfMemory(f"the GPU has not enough free memory ({name}); expected a smaller tile")
        if code in (codes.CUDA_ERROR_NO_DEVICE, codes.CUDA_ERROR_SYSTEM_DRIVER_MISMATCH):
            raise no_driver(name)
        raise EngineError(
            f"the NVIDIA driver's {function.__name__} gave {name}: try again, or another engine", option="engine"
        )

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Push and pop the context; for this and what follows see `CudaMemory`."""
        if self._context is None:
            raise EngineError("this GPU is closed: open it again")
        self._call(self._cuda.cuCtxPushCurrent, self._context)
        try:
            yield
        finally:
            self._call(self._cuda.cuCtxPopCurrent)

    def new_stream(self) -> Any:
        stream = self._call(self._cuda.cuStreamCreate, self._cuda.CUstream_flags.CU_STREAM_NON_BLOCKING.value)
        self._streams.append(stream)
        return stream

    def handle(self, stream: Any) -> int:
        return int(stream)

    def finish(self, stream: Any) -> None:
        self._call(self._cuda.cuStreamSynchronize, stream)

    def new_event(self) -> Any:
        event = self._call(self._cuda.cuEventCreate, self._cuda.CUevent_flags.CU_EVENT_DISABLE_TIMING.value)
        self._events.append(event)
        return event

    def record(self, event: Any, stream: Any) -> None:
        self._call(self._cuda.cuEventRecord, event, stream)

    def wait_on_stream(self, stream: Any, event: Any) -> None:
        self._call(self._cuda.cuStreamWaitEvent, stream, event, 0)

    def wait_here(self, event: Any) -> None:
        self._call(self._cuda.cuEventSynchronize, event)

    def allocate(self, nbytes: int) -> int:
        return int(self._call(self._cuda.cuMemAlloc, nbytes))

    def free(self, address: int) -> None:
        self._call(self._cuda.cuMemFree, address)

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        address = int(self._call(self._cuda.cuMemAllocHost, nbytes))
        block = (ctypes.c_byte * nbytes).from_address(address)
        array: NDArray[Any] = np.ctypeslib.as_array(block).view(dtype).reshape(shape)
        return array

    def free_pinned(self, array: NDArray[Any]) -> None:
        self._call(self._cuda.cuMemFreeHost, array.ctypes.data)

    def upload(self, address: int, array: NDArray[Any], stream: Any) -> None:
        self._call(self._cuda.cuMemcpyHtoDAsync, address, array.ctypes.data, array.nbytes, stream)

    def download(self, array: NDArray[Any], address: int, stream: Any) -> None:
        self._call(self._cuda.cuMemcpyDtoHAsync, array.ctypes.data, address, array.nbytes, stream)

    def capture(self, stream: Any, work: Callable[[], None]) -> Any:
        cuda = self._cuda
        self._call(cuda.cuStreamBeginCapture, stream, cuda.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
        try:
            work()
        except BaseException:
            cuda.cuStreamEndCapture(stream)  # whatever it gives: the stream must not stay in capture
            raise
        graph = self._call(cuda.cuStreamEndCapture, stream)
        try:
            return self._call(cuda.cuGraphInstantiate, graph, 0)
        finally:
            self._call(cuda.cuGraphDestroy, graph)

    def launch(self, graph: Any, stream: Any) -> None:
        self._call(self._cuda.cuGraphLaunch, graph, stream)

    def free_graph(self, graph: Any) -> None:
        self._call(self._cuda.cuGraphExecDestroy, graph)

    def close(self) -> None:
        if self._context is None:
            return
        try:
            with self.active():
                for event in self._events:
                    self._call(self._cuda.cuEventDestroy, event)
                for stream in self._streams:
                    self._call(self._cuda.cuStreamDestroy, stream)
        finally:
            self._context, self._events, self._streams = None, [], []
            self._call(self._cuda.cuDevicePrimaryCtxRelease, self._device)

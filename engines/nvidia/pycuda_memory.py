"""A GPU's memory and streams by pycuda. It has no CUDA graphs."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import pycuda.driver
from numpy.typing import DTypeLike, NDArray

from realesr.engines.nvidia.cuda_memory import CudaMemory, GpuFacts, check_number, driver_text, no_driver
from realesr.errors import EngineError, OutOfMemory


def open_pycuda(number: int, cuda: Any = pycuda.driver) -> CudaMemory:
    """Open the GPU of this number; `cuda` is pycuda's module `driver`. Raises as `open_cuda`."""
    return _PycudaMemory(cuda, number)


@functools.cache
def _primary_context(cuda: Any, number: int) -> Any:
    """Retain a GPU's primary context, once and until the process ends.

    pycuda cannot give one back: its destructor and `detach` push the context, release it and leave it pushed, for they
    expect the release to pop it; and in another thread they release nothing (pycuda 2026.1, src/cpp/cuda.hpp:
    `context::detach`, `primary_context::detach_internal`). It costs nothing: CUDA's runtime, which TensorRT uses,
    keeps the same context until the process ends.
    """
    return cuda.Device(number).retain_primary_context()


class _PycudaMemory:
    """`CudaMemory` by pycuda, whose objects free themselves: they are kept by address until they are to be freed."""

    can_capture = False

    def __init__(self, driver: Any, number: int) -> None:
        self._cuda = driver
        self._buffers: dict[int, Any] = {}
        self._call(driver.init)
        check_number(number, self._call(driver.Device.count))
        self.facts: GpuFacts = self._call(self._facts, number)
        self._context: Any = self._call(_primary_context, driver, number)

    def _facts(self, number: int) -> GpuFacts:
        device = self._cuda.Device(number)
        return GpuFacts(
            name=device.name(),
            compute_capability=device.compute_capability(),
            driver=driver_text(self._cuda.get_driver_version()),
        )

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call pycuda: the one place where its errors become ours."""
        try:
            return function(*arguments)
        except self._cuda.MemoryError as error:
            raise OutOfMemory(f"the GPU has not enough free memory ({error}); expected a smaller tile") from error
        except self._cuda.Error as error:
            if "no device" in str(error) or "no CUDA-capable device" in str(error):
                raise no_driver(str(error)) from error
            raise EngineError(
                f"the NVIDIA driver says: {error}: try again, or another engine", option="engine"
            ) from error

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Push and pop the context; for this and what follows see `CudaMemory`."""
        if self._context is None:
            raise EngineError("this GPU is closed: open it again")
        self._call(self._context.push)
        try:
            yield
        finally:
            self._call(self._cuda.Context.pop)

    def new_stream(self) -> Any:
        return self._call(self._cuda.Stream, 1)  # CU_STREAM_NON_BLOCKING

    def handle(self, stream: Any) -> int:
        return int(stream.handle)

    def finish(self, stream: Any) -> None:
        self._call(stream.synchronize)

    def new_event(self) -> Any:
        return self._call(self._cuda.Event, self._cuda.event_flags.DISABLE_TIMING)

    def record(self, event: Any, stream: Any) -> None:
        self._call(event.record, stream)

    def wait_on_stream(self, stream: Any, event: Any) -> None:
        self._call(stream.wait_for_event, event)

    def wait_here(self, event: Any) -> None:
        self._call(event.synchronize)

    def allocate(self, nbytes: int) -> int:
        buffer = self._call(self._cuda.mem_alloc, nbytes)
        self._buffers[int(buffer)] = buffer
        return int(buffer)

    def free(self, address: int) -> None:
        self._call(self._buffers.pop(address).free)

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        array: NDArray[Any] = self._call(self._cuda.pagelocked_empty, shape, dtype)
        return array

    def free_pinned(self, array: NDArray[Any]) -> None:
        owner: Any = array.base
        self._call(owner.free)

    def upload(self, address: int, array: NDArray[Any], stream: Any) -> None:
        self._call(self._cuda.memcpy_htod_async, address, array, stream)

    def download(self, array: NDArray[Any], address: int, stream: Any) -> None:
        self._call(self._cuda.memcpy_dtoh_async, array, address, stream)

    def capture(self, stream: Any, work: Callable[[], None]) -> Any:
        raise EngineError("pycuda has no CUDA graphs: expected a look at can_capture first")

    def launch(self, graph: Any, stream: Any) -> None:
        raise EngineError("pycuda has no CUDA graphs")

    def free_graph(self, graph: Any) -> None:
        raise EngineError("pycuda has no CUDA graphs")

    def close(self) -> None:
        self._context = None  # streams and events free themselves

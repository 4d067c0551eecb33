"""A GPU's memory and streams by pycuda. It has no CUDA graphs."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pycuda.driver
from numpy.typing import DTypeLike, NDArray

from realesr.engines.cuda_memory import CudaMemory, GpuFacts, check_number, driver_text, no_driver
from realesr.errors import EngineError, OutOfMemory


def open_pycuda(number: int, cuda: Any = pycuda.driver) -> CudaMemory:
    """Open the GPU of this number; `cuda` is pycuda's module `driver`. Raises as `open_cuda`."""
    return _PycudaMemory(cuda, number)


class _PycudaMemory:
    """By pycuda, whose objects free themselves; here they are kept by address, to be freed when they are told to."""

    can_capture = False

    def __init__(self, driver: Any, number: int) -> None:
        self._cuda = driver
        self._buffers: dict[int, Any] = {}
        with self._translated():
            driver.init()
            check_number(number, driver.Device.count())
            device = driver.Device(number)
            self.facts = GpuFacts(
                name=device.name(),
                compute_capability=device.compute_capability(),
                driver=driver_text(driver.get_driver_version()),
            )
            self._context: Any = device.retain_primary_context()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """The one seam at which pycuda's errors become ours."""
        try:
            yield
        except self._cuda.MemoryError as error:
            raise OutOfMemory(f"the GPU has not enough free memory ({error}); expected a smaller tile") from error
        except self._cuda.Error as error:
            if "no device" in str(error) or "no CUDA-capable device" in str(error):
                raise no_driver(str(error)) from error
            raise EngineError(f"the NVIDIA driver says: {error}: try again, or another --engine") from error

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """See `CudaMemory`, here and below."""
        if self._context is None:
            raise EngineError("this GPU is closed: open it again")
        with self._translated():
            self._context.push()
            try:
                yield
            finally:
                self._cuda.Context.pop()

    def new_stream(self) -> Any:
        return self._cuda.Stream(1)  # CU_STREAM_NON_BLOCKING

    def handle(self, stream: Any) -> int:
        return int(stream.handle)

    def finish(self, stream: Any) -> None:
        stream.synchronize()

    def new_event(self) -> Any:
        return self._cuda.Event(self._cuda.event_flags.DISABLE_TIMING)

    def record(self, event: Any, stream: Any) -> None:
        event.record(stream)

    def wait_on_stream(self, stream: Any, event: Any) -> None:
        stream.wait_for_event(event)

    def wait_here(self, event: Any) -> None:
        event.synchronize()

    def allocate(self, nbytes: int) -> int:
        with self._translated():
            buffer = self._cuda.mem_alloc(nbytes)
        self._buffers[int(buffer)] = buffer
        return int(buffer)

    def free(self, address: int) -> None:
        self._buffers.pop(address).free()

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        with self._translated():
            array: NDArray[Any] = self._cuda.pagelocked_empty(shape, dtype)
        return array

    def free_pinned(self, array: NDArray[Any]) -> None:
        owner: Any = array.base
        owner.free()

    def upload(self, address: int, array: NDArray[Any], stream: Any) -> None:
        self._cuda.memcpy_htod_async(address, array, stream)

    def download(self, array: NDArray[Any], address: int, stream: Any) -> None:
        self._cuda.memcpy_dtoh_async(array, address, stream)

    def capture(self, stream: Any, work: Callable[[], None]) -> Any:
        raise EngineError("pycuda has no CUDA graphs: expected a look at can_capture first")

    def launch(self, graph: Any, stream: Any) -> None:
        raise EngineError("pycuda has no CUDA graphs")

    def free_graph(self, graph: Any) -> None:
        raise EngineError("pycuda has no CUDA graphs")

    def close(self) -> None:
        self._context = None  # its destructor releases the primary context

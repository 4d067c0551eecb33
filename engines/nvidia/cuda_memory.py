"""Memory, streams and graphs of one NVIDIA GPU: by NVIDIA's cuda-bindings where they are installed, else by pycuda.

Both sit behind `CudaMemory`, a dozen functions. Neither is imported before `open_cuda`, and no context is made or left
current by importing: `open_cuda` retains the device's primary context (the one that torch and ONNX Runtime use as well)
and everything else happens inside `with memory.active():`, which pushes and pops it.
"""

import contextlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import DTypeLike, NDArray

from realesr.engines.installed import is_installed
from realesr.errors import EngineError, MissingDependency, UsageError

CUDA_MEMORY_MODULES: Mapping[str, str] = {"cuda-bindings": "cuda.bindings", "pycuda": "pycuda"}
"""Library that `open_cuda` can use -> its module, the better first: pycuda has no graphs, and needs nvcc to install."""

LIBRARIES = tuple(CUDA_MEMORY_MODULES)


@dataclass(frozen=True, kw_only=True)
class GpuFacts:
    """Facts that tell one GPU and its driver from another."""

    name: str
    compute_capability: tuple[int, int]
    driver: str
    """CUDA version that the driver offers, then its own where the system tells that: "13.0 (580.65.06)"."""

    @property
    def target(self) -> str:
        """Return the compute capability as builders of engines name it: "sm89"."""
        return "sm{}{}".format(*self.compute_capability)


class CudaMemory(Protocol):
    """One GPU. Everything but `facts` and `active` is called inside `with memory.active():`.

    Streams, events and graphs are whatever the library has; buffers on the GPU are addresses, pinned ones are arrays.
    All raise OutOfMemory where memory is short and EngineError for all else.
    """

    facts: GpuFacts
    can_capture: bool
    """Whether `capture` works: pycuda has no graphs."""

    def active(self) -> AbstractContextManager[None]:
        """Push the context; pop it at the end."""
        ...

    def new_stream(self) -> Any:
        """Make a stream that does not wait for the default one."""
        ...

    def handle(self, stream: Any) -> int:
        """Return the stream as TensorRT takes it."""
        ...

    def finish(self, stream: Any) -> None:
        """Wait until all that was given to the stream is done."""
        ...

    def new_event(self) -> Any:
        """Make an event without timing."""
        ...

    def record(self, event: Any, stream: Any) -> None:
        """Let the event happen when all that was given to the stream so far is done."""
        ...

    def wait_on_stream(self, stream: Any, event: Any) -> None:
        """Let all that is given to the stream from now on wait for the event."""
        ...

    def wait_here(self, event: Any) -> None:
        """Wait for the event in this thread."""
        ...

    def allocate(self, nbytes: int) -> int:
        """Allocate memory on the GPU, and return its address."""
        ...

    def free(self, address: int) -> None:
        """Free memory that `allocate` gave."""
        ...

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Make an array in page-locked memory, which copies run from and to while the GPU computes."""
        ...

    def free_pinned(self, array: NDArray[Any]) -> None:
        """Free an array that `pinned` gave; it must not be touched any more."""
        ...

    def upload(self, address: int, array: NDArray[Any], stream: Any) -> None:
        """Copy a whole pinned array to the GPU, later, on the stream."""
        ...

    def download(self, array: NDArray[Any], address: int, stream: Any) -> None:
        """Fill a whole pinned array from the GPU, later, on the stream."""
        ...

    def capture(self, stream: Any, work: Callable[[], None]) -> Any:
        """Record all that `work` gives to the stream as a graph, without running it."""
        ...

    def launch(self, graph: Any, stream: Any) -> None:
        """Launch a graph on the stream."""
        ...

    def free_graph(self, graph: Any) -> None:
        """Free a graph that `capture` gave."""
        ...

    def close(self) -> None:
        """Release streams, events and the context; closing twice is allowed. Outside `active`."""
        ...


def device_number(device: str) -> int:
    """Return the number of a GPU: "cuda:1" -> 1; "auto" and "cuda" are the first one.

    Raises:
        EngineError: the device is no NVIDIA GPU.
        UsageError: the number is none.
    """
    name, colon, number = device.lower().partition(":")
    if name not in ("auto", "cuda"):
        raise EngineError(f"engine tensorrt got the device {device}, expected an NVIDIA GPU: cuda, cuda:1, ...")
    if colon and not number.isdigit():
        raise UsageError(f"got the device {device}, expected cuda:0, cuda:1, ...")
    return int(number or 0)


def open_cuda(number: int = 0, library: str | None = None) -> CudaMemory:
    """Open the GPU of this number, as the driver counts them.

    Args:
        number: of the GPU.
        library: one of LIBRARIES; none is the first that is installed and loads.

    Raises:
        EngineError: there is no driver, the driver is too old for the library, or there is no such GPU; or the library
            is installed but does not load.
        MissingDependency: the library is not installed; where none was asked for, neither is.
    """
    return _opener(LIBRARIES if library is None else (library,))(number)


def _opener(libraries: Sequence[str]) -> Callable[[int], CudaMemory]:
    """Import the first of these libraries that loads, and return its function that opens a GPU."""
    problems = []
    for library in libraries:
        if not is_installed(CUDA_MEMORY_MODULES[library]):
            continue
        try:
            if library == "pycuda":
                from realesr.engines.nvidia.pycuda_memory import open_pycuda

                return open_pycuda
            from realesr.engines.nvidia.cuda_bindings_memory import open_bindings

            return open_bindings
        except (ImportError, OSError) as error:  # a library of CUDA's is not on the loader's path
            problems.append(f"{library} is installed but does not load ({' '.join(str(error).split())[:160]})")
    if problems:
        raise EngineError(f"{'; '.join(problems)}: install what it names, or take another engine", option="engine")
    raise MissingDependency(
        f"engine tensorrt needs {' or '.join(libraries)} for a GPU's memory: run 'pip install {libraries[0]}'"
    )


def gpu_facts(number: int = 0) -> GpuFacts:
    """Return the name, compute capability and driver of a GPU; raise as `open_cuda`."""
    memory = open_cuda(number)
    try:
        return memory.facts
    finally:
        memory.close()


def driver_text(cuda_version: int) -> str:
    """Return a driver in words: 13000 -> "13.0 (580.65.06)"; the second number only where Linux tells it."""
    text = f"{cuda_version // 1000}.{cuda_version % 1000 // 10}"
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            found = re.search(r"\b\d{3}\.\d+(\.\d+)?\b", Path("/proc/driver/nvidia/version").read_text())
            text += f" ({found[0]})" if found else ""
    return text


def check_number(number: int, count: int) -> None:
    """Raise EngineError where there is no GPU of this number."""
    if count == 0:
        raise no_driver("the driver shows no GPU to this process")
    if number >= count:
        raise EngineError(f"got the device cuda:{number}, expected one that there is: cuda:0 to cuda:{count - 1}")


def no_driver(reason: str) -> EngineError:
    """Return the error for machines where no GPU can be used at all."""
    return EngineError(
        f"no NVIDIA GPU can be used here ({' '.join(reason.split())[:160]}): install NVIDIA's driver, or take another "
        "engine",
        option="engine",
    )

"""Memory, streams and graphs of one NVIDIA GPU: by NVIDIA's cuda-bindings where they are installed, else by pycuda.

Both sit behind `CudaMemory`, a dozen functions. Neither is imported before `open_cuda`, and no context is made or left
current by importing: `open_cuda` retains the device's primary context (the one that torch and ONNX Runtime use as well)
and everything else happens inside `with memory.active():`, which pushes and pops it.
"""

import contextlib
import importlib.util
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import DTypeLike, NDArray

from realesr.errors import EngineError, MissingDependency, UsageError

LIBRARIES = ("cuda-bindings", "pycuda")
"""What `open_cuda` can use, the better first: pycuda has no graphs, and is compiled on the spot with nvcc."""

_MODULES = {"cuda-bindings": "cuda.bindings", "pycuda": "pycuda"}


@dataclass(frozen=True, kw_only=True)
class GpuFacts:
    """What tells one GPU and its driver from another."""

    name: str
    compute_capability: tuple[int, int]
    driver: str
    """CUDA version that the driver offers, then the driver's own where the system tells it: "13.0 (580.65.06)"."""

    @property
    def target(self) -> str:
        """As in `--for`: "sm89"."""
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
        """A stream that does not wait for the default one."""
        ...

    def handle(self, stream: Any) -> int:
        """The stream as TensorRT takes it."""
        ...

    def finish(self, stream: Any) -> None:
        """Wait until all that was given to the stream is done."""
        ...

    def new_event(self) -> Any:
        """An event without a clock."""
        ...

    def record(self, event: Any, stream: Any) -> None:
        """The event happens when all that was given to the stream so far is done."""
        ...

    def wait_on_stream(self, stream: Any, event: Any) -> None:
        """What is given to the stream from now on waits for the event."""
        ...

    def wait_here(self, event: Any) -> None:
        """This thread waits for the event."""
        ...

    def allocate(self, nbytes: int) -> int:
        """Address of new memory on the GPU."""
        ...

    def free(self, address: int) -> None:
        """Give back what `allocate` gave."""
        ...

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An array in page-locked memory, which copies run from and to while the GPU computes."""
        ...

    def free_pinned(self, array: NDArray[Any]) -> None:
        """Give back what `pinned` gave; the array must not be touched any more."""
        ...

    def upload(self, address: int, array: NDArray[Any], stream: Any) -> None:
        """Copy a whole pinned array to the GPU, later, on the stream."""
        ...

    def download(self, array: NDArray[Any], address: int, stream: Any) -> None:
        """Fill a whole pinned array from the GPU, later, on the stream."""
        ...

    def capture(self, stream: Any, work: Callable[[], None]) -> Any:
        """Record what `work` gives to the stream, without running it, as a graph."""
        ...

    def launch(self, graph: Any, stream: Any) -> None:
        """Give a graph to the stream."""
        ...

    def free_graph(self, graph: Any) -> None:
        """Give back what `capture` gave."""
        ...

    def close(self) -> None:
        """Give up streams, events and the context; closing twice is allowed. Outside `active`."""
        ...


def device_number(device: str) -> int:
    """ "cuda:1" -> 1; "auto" and "cuda" are the first one.

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
    """Return what opens a GPU, of the first of these libraries that loads. The one seam at which they are imported."""
    problems = []
    for library in libraries:
        if not _is_installed(_MODULES[library]):
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
        raise EngineError(f"{'; '.join(problems)}: install what it names, or take another engine")
    raise MissingDependency(
        f"engine tensorrt needs {' or '.join(libraries)} for a GPU's memory: run 'pip install {libraries[0]}'"
    )


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # the package above it is missing
        return False


def gpu_facts(number: int = 0) -> GpuFacts:
    """Name, compute capability and driver of a GPU; raises as `open_cuda`."""
    memory = open_cuda(number)
    try:
        return memory.facts
    finally:
        memory.close()


def driver_text(cuda_version: int) -> str:
    """13000 -> "13.0 (580.65.06)"; the second number only where Linux tells it."""
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
    """What to say where no GPU can be used at all."""
    return EngineError(
        f"no NVIDIA GPU can be used here ({' '.join(reason.split())[:160]}): install NVIDIA's driver, or take another "
        "engine",
        option="engine",
    )

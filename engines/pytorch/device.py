"""Devices of engine torch: a thread for each, streams, copies there and back, and torch's errors as ours."""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from realesr.errors import EngineError, OutOfMemory
from realesr.machine.leaving import native_call
from realesr.machine.worker_threads import WorkerThreads

_OUT_OF_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "bad_alloc",
    "bad allocation",
    "unable to find an engine",
    "ALLOC_FAILED",
    "ALLOCATION_FAILED",
)
"""Parts of messages: the CPU allocator's on Linux and on Windows, MPS's, C++'s, then CUDA's libraries'. Only CUDA's own
allocator has a type for it. cuDNN finds no engine where none gets its workspace ("FIND was unable to find an engine to
execute this computation"; pytorch/pytorch, issue 108645); cuBLAS says CUBLAS_STATUS_ALLOC_FAILED, cuDNN 9
CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED and the like."""

Result = TypeVar("Result")

Stream = Any
"""A torch.cuda.Stream, or None on devices that have no streams."""


@functools.cache
def thread_of(device: str) -> WorkerThreads:
    """Return the one thread in which this process gives work to a device.

    torch keeps cuDNN's choice of algorithms for each thread apart (pytorch/pytorch, pull request 191744): a new thread
    for each image would search again, tens of milliseconds for each shape of each convolution.
    """
    return WorkerThreads(1, f"realesr-{device}")


def in_thread_of(device: torch.device, work: Callable[..., Result], *arguments: Any) -> Result:
    """Do work in the device's thread and wait for it; on a CPU in this thread, as nothing is gained there."""
    if device.type != "cuda":
        return _natively(work, *arguments)
    result: Result = thread_of(str(device)).submit(_natively, work, *arguments).result()
    return result


def _natively(work: Callable[..., Result], *arguments: Any) -> Result:
    """Do work inside a native call: to free a tensor is one too, and its locals may be freed late."""
    with native_call():
        return work(*arguments)


@dataclass(frozen=True, kw_only=True)
class ProcessSettings:
    """What torch keeps for the whole process, as an engine needs it while it calculates."""

    threads: int
    """Of the CPU."""
    tries_algorithms: bool | None = None
    """Whether cuDNN tries its algorithms once for each shape; none leaves that as it is, as the next one does."""
    allows_tf32: bool | None = None
    """Whether cuDNN may round convolutions in fp32 to TF32, whose 10 bits of mantissa are those of fp16."""

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Set these; when the last thread that is in here leaves, set what the first one found."""
        with _setting:
            if not _found:
                _found.append(_settings_now())
            _users.append(self)
            self._apply()
        try:
            yield
        finally:
            with _setting:
                _users.remove(self)
                _found[0]._apply()  # in each thread: torch counts a thread's CPU threads apart
                if _users:
                    _users[-1]._apply_to_gpu()
                else:
                    _found.clear()

    def _apply(self) -> None:
        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        self._apply_to_gpu()

    def _apply_to_gpu(self) -> None:
        # The newer name of the second switch (torch.backends.cudnn.conv.fp32_precision) makes some releases of torch
        # raise where anything reads the older one.
        if self.tries_algorithms is not None:
            torch.backends.cudnn.benchmark = self.tries_algorithms
        if self.allows_tf32 is not None:
            torch.backends.cudnn.allow_tf32 = self.allows_tf32


_setting = threading.Lock()
_found: list[ProcessSettings] = []
"""What the first thread found, while any is in `ProcessSettings.applied`."""
_users: list[ProcessSettings] = []


def _settings_now() -> ProcessSettings:
    cudnn = torch.backends.cudnn
    tf32: bool | None = None
    with contextlib.suppress(RuntimeError):  # set by its newer name
        tf32 = cudnn.allow_tf32
    return ProcessSettings(threads=torch.get_num_threads(), tries_algorithms=cudnn.benchmark, allows_tf32=tf32)


def new_streams(device: torch.device, count: int) -> list[Stream]:
    """Make streams of a GPU's own; the default one belongs to everybody in the process, and graphs refuse it."""
    if device.type != "cuda":
        return [None] * count
    return [torch.cuda.Stream(device) for _ in range(count)]  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def working_on(device: torch.device, stream: Stream) -> Iterator[None]:
    """Make a device and a stream the current ones, without gradients, and its errors ours."""
    with translated(device), contextlib.ExitStack() as stack:
        if device.type == "cuda":
            stack.enter_context(torch.cuda.device(device))
            stack.enter_context(torch.cuda.stream(stream))
        stack.enter_context(torch.inference_mode())
        yield


@contextlib.contextmanager
def translated(device: torch.device) -> Iterator[None]:
    """Be inside torch, see `native_call`, and turn its errors into ours: the one place where that happens."""
    try:
        with native_call():
            yield
    except (RuntimeError, MemoryError) as error:
        message = " ".join(str(error).split())
        what = f"engine torch on {device}"
        is_text_about_memory = any(part in message for part in _OUT_OF_MEMORY)
        if isinstance(error, torch.OutOfMemoryError | MemoryError) or is_text_about_memory:
            if device.type == "cuda":
                torch.cuda.empty_cache()
            raise OutOfMemory(f"{what}: out of memory; expected a smaller tile ({message[:200]})") from error
        raise EngineError(f"{what}: {message[:300]}") from error


def on_device(batch: NDArray[np.float32], device: torch.device) -> torch.Tensor:
    """Copy a batch into the device's memory; a GPU reads it by itself, from page-locked memory."""
    if device.type != "cuda":
        return torch.tensor(batch).to(device)
    locked = torch.empty(batch.shape, pin_memory=True)  # torch keeps such blocks for the next time
    locked.numpy()[...] = batch
    return locked.to(device, non_blocking=True)


def on_host(sr: torch.Tensor) -> NDArray[np.float32]:
    """Copy an output into an array of its own; it becomes float32 on the device, where that costs nothing."""
    values = sr.to(torch.float32).contiguous()
    if values.device.type != "cuda":
        return np.array(values.to("cpu").numpy())  # a copy: nobody outside torch's calls shall free a tensor
    locked = torch.empty(values.shape, pin_memory=True)
    locked.copy_(values, non_blocking=True)
    torch.cuda.current_stream().synchronize()
    output: NDArray[np.float32] = locked.numpy()
    return output

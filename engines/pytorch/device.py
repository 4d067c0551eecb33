"""Devices of engine torch: a thread for each, streams, copies there and back, and torch's errors as ours."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from realesr.errors import EngineError, OutOfMemory

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
def thread_of(device: str) -> ThreadPoolExecutor:
    """Return the one thread in which this process gives work to a device.

    torch keeps cuDNN's choice of algorithms for each thread apart (pytorch/pytorch, pull request 191744): a new thread
    for each image would search again, tens of milliseconds for each shape of each convolution.
    """
    return ThreadPoolExecutor(1, f"realesr-{device}")


def in_thread_of(device: torch.device, work: Callable[..., Result], *arguments: Any) -> Result:
    """Do work in the device's thread and wait for it; on a CPU in this thread, as nothing is gained there."""
    if device.type != "cuda":
        return work(*arguments)
    return thread_of(str(device)).submit(work, *arguments).result()


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
    """Turn torch's errors into ours: the one place where that happens."""
    try:
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
        array: NDArray[np.float32] = values.to("cpu").numpy()
        return array
    locked = torch.empty(values.shape, pin_memory=True)
    locked.copy_(values, non_blocking=True)
    torch.cuda.current_stream().synchronize()
    output: NDArray[np.float32] = locked.numpy()
    return output

"""Moves batches through a TensorRT context in parts, on two streams.

While one part computes, the copy stream brings the next one's input and takes the last one's output; this thread
meanwhile fills and empties page-locked arrays:

    copy      up 0 | up 1 |  down 0 | up 2  |  down 1 | up 3 ...
    compute        |   part 0   |   part 1   |   part 2 ...

Each of two slots has input and output on the GPU; part i uses slot i % 2. On the copy stream its upload comes after the
download of part i - 2, which waited until that part was computed: so the slot's input is free by then, and its output
when the upload is done, for which the computing waits.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from realesr.engine import IoDtype
from realesr.engines.nvidia.cuda_memory import CudaMemory
from realesr.errors import EngineError, OutOfMemory

_SLOTS = 2

Shape = tuple[int, int, int, int]


@dataclass
class _Slot:
    """Memory on the GPU for one part."""

    input: int
    output: int
    has_run: bool = False
    """Whether it has run at this shape: TensorRT wants one ordinary run before its work is captured."""
    graph: Any = None


@dataclass
class _Part:
    """Page-locked arrays for one part of a batch, and the events that end its three steps."""

    input: NDArray[Any]
    output: NDArray[Any]
    uploaded: Any
    computed: Any
    downloaded: Any


class Pipeline:
    """Streams and buffers for one context. Everything is called inside `with memory.active():`.

    Args:
        memory: of the GPU.
        context: a TensorRT context without memory of its own between layers.
        names: of the context's input and output.
        scale: output pixels per input pixel and side.
        io_dtype: of input and output on the GPU.
        captures: whether to run from CUDA graphs made here.
        failure: makes the error for a call of the context that gave False, from words for what it did not do.
    """

    def __init__(
        self,
        memory: CudaMemory,
        context: Any,
        *,
        names: tuple[str, str],
        scale: int,
        io_dtype: IoDtype,
        captures: bool,
        failure: Callable[[str], EngineError],
    ) -> None:
        self._memory, self._context, self._failure = memory, context, failure
        self._input, self._output = names
        self._scale = scale
        self._dtype: DTypeLike = np.uint8 if io_dtype == "uint8" else np.float32
        self._captures = captures and memory.can_capture
        self._copy, self._compute = memory.new_stream(), memory.new_stream()
        self._events: list[Any] = []
        self._forget()

    def _forget(self) -> None:
        self._shape: Shape | None = None
        self._slots: list[_Slot] = []
        self._parts: list[_Part] = []
        self._addresses: list[int] = []
        self._pinned: list[NDArray[Any]] = []

    def run(self, batch: NDArray[np.float32], each: int) -> NDArray[np.float32]:
        """Enlarge a batch in parts of `each` images, which divides it; (N, 3, h, w) float32 in [0, 1] in and out.

        Raises:
            OutOfMemory: it does not fit; everything is given back, for a smaller one to fit.
            EngineError: the GPU failed.
        """
        count, channels, height, width = batch.shape
        output = np.empty((count, channels, height * self._scale, width * self._scale), np.float32)
        try:
            self._prepare((each, channels, height, width), count // each)
            self._send(batch, each)
            for index, part in enumerate(self._parts[: count // each]):
                self._memory.wait_here(part.downloaded)
                _empty(part.output, output[index * each : (index + 1) * each])
        except BaseException:
            # Also after Ctrl-C: nothing may still be copied from or to arrays that are then given back.
            self.release()
            raise
        return output

    def release(self) -> None:
        """Free all memory, once nothing uses it any more; the next run allocates it anew."""
        memory = self._memory
        for stream in (self._compute, self._copy):
            with contextlib.suppress(EngineError):  # what has failed on it has been told already
                memory.finish(stream)
        graphs = [slot.graph for slot in self._slots if slot.graph is not None]
        addresses, pinned = self._addresses, self._pinned
        self._forget()
        for graph in graphs:
            memory.free_graph(graph)
        for address in addresses:
            memory.free(address)
        for array in pinned:
            memory.free_pinned(array)

    def _prepare(self, shape: Shape, parts: int) -> None:
        """Allocate buffers for parts of this shape, unless the last run had the same."""
        large = (*shape[:2], shape[2] * self._scale, shape[3] * self._scale)
        if shape != self._shape:
            self.release()
            self._set_shape(shape)
            itemsize = np.dtype(self._dtype).itemsize
            self._slots = [
                _Slot(
                    input=self._allocate(int(np.prod(shape)) * itemsize),
                    output=self._allocate(int(np.prod(large)) * itemsize),
                )
                for _ in range(_SLOTS)
            ]
            self._shape = shape
        while len(self._parts) < parts:
            uploaded, computed, downloaded = self._events_of(len(self._parts))
            self._parts.append(
                _Part(
                    input=self._allocate_pinned(shape),
                    output=self._allocate_pinned(large),
                    uploaded=uploaded,
                    computed=computed,
                    downloaded=downloaded,
                )
            )

    def _set_shape(self, shape: Shape) -> None:
        """Set the context's shape, and give it the memory between layers that this shape takes and no more."""
        if not self._context.set_input_shape(self._input, shape):
            raise self._failure(f"refuses the shape {shape}")
        nbytes = self._context.update_device_memory_size_for_shapes()
        if nbytes:
            self._context.set_device_memory(self._allocate(nbytes), nbytes)

    def _allocate(self, nbytes: int) -> int:
        address = self._memory.allocate(nbytes)
        self._addresses.append(address)
        return address

    def _allocate_pinned(self, shape: tuple[int, ...]) -> NDArray[Any]:
        array = self._memory.pinned(shape, self._dtype)
        self._pinned.append(array)
        return array

    def _events_of(self, part: int) -> list[Any]:
        """Return the three events of a part; they are used again whatever the shape."""
        while len(self._events) < 3 * part + 3:
            self._events.append(self._memory.new_event())
        return self._events[3 * part : 3 * part + 3]

    def _send(self, batch: NDArray[np.float32], each: int) -> None:
        """Give all parts to the streams; nothing here waits for the GPU."""
        memory, parts = self._memory, self._parts[: len(batch) // each]
        for index, part in enumerate(parts):
            slot = self._slots[index % _SLOTS]
            _fill(part.input, batch[index * each : (index + 1) * each])
            memory.upload(slot.input, part.input, self._copy)
            memory.record(part.uploaded, self._copy)
            if index:
                self._download(index - 1)
            memory.wait_on_stream(self._compute, part.uploaded)
            self._launch(slot)
            memory.record(part.computed, self._compute)
        self._download(len(parts) - 1)

    def _download(self, index: int) -> None:
        part, slot, memory = self._parts[index], self._slots[index % _SLOTS], self._memory
        memory.wait_on_stream(self._copy, part.computed)
        memory.download(part.output, slot.output, self._copy)
        memory.record(part.downloaded, self._copy)

    def _launch(self, slot: _Slot) -> None:
        """Launch the network on the compute stream: as a graph from a slot's second run at one shape on."""
        if slot.graph is None and slot.has_run and self._captures:
            slot.graph = self._captured(slot)
        if slot.graph is not None:
            self._memory.launch(slot.graph, self._compute)
        else:
            self._enqueue(slot)
        slot.has_run = True

    def _captured(self, slot: _Slot) -> Any:
        """Capture a graph; return None, from then on, where the network cannot be captured: graphs only save time."""
        try:
            return self._memory.capture(self._compute, lambda: self._enqueue(slot))
        except OutOfMemory:
            raise
        except EngineError:
            self._captures = False
            return None

    def _enqueue(self, slot: _Slot) -> None:
        for name, address in ((self._input, slot.input), (self._output, slot.output)):
            if not self._context.set_tensor_address(name, address):
                raise self._failure(f"refuses memory for {name}")
        if not self._context.execute_async_v3(self._memory.handle(self._compute)):
            raise self._failure("did not run")


def _fill(pinned: NDArray[Any], batch: NDArray[np.float32]) -> None:
    if pinned.dtype == np.uint8:
        np.rint(np.clip(batch, 0, 1) * 255, out=pinned, casting="unsafe")
    else:
        pinned[...] = batch


def _empty(pinned: NDArray[Any], output: NDArray[np.float32]) -> None:
    if pinned.dtype == np.uint8:
        np.divide(pinned, np.float32(255), out=output, casting="same_kind")
    else:
        output[...] = pinned

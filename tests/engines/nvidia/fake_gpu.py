"""A GPU that is none: streams that run late and in any order that is allowed, memory that tells misuse, a TensorRT."""

import contextlib
import random
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from realesr.engines.nvidia.cuda_memory import GpuFacts
from realesr.engines.nvidia.tensorrt_sidecar import ShapeProfile, Sidecar
from realesr.errors import EngineError, OutOfMemory
from realesr.models.compact import Compact
from realesr.models.recognition import text_from_architecture

RTX_4090 = GpuFacts(name="NVIDIA GeForce RTX 4090", compute_capability=(8, 9), driver="13.0 (580.65.06)")
H100 = GpuFacts(name="NVIDIA H100 80GB HBM3", compute_capability=(9, 0), driver="13.0 (580.65.06)")


class FakeStream:
    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.waiting: list[tuple[str, Callable[[], None] | None, Any]] = []


class FakeMemory:
    """A `CudaMemory`. Nothing given to a stream is done before somebody waits; then in a random order that streams and
    events allow, so that whatever is missing from the order shows as wrong pixels sooner or later.
    """

    def __init__(
        self, *, seed: int = 0, can_capture: bool = True, total_bytes: int = 1 << 40, facts: GpuFacts = RTX_4090
    ):
        self.facts, self.can_capture, self.total_bytes = facts, can_capture, total_bytes
        self.calls: list[str] = []
        self.depth = 0
        self.is_closed = False
        self.buffers: dict[int, NDArray[np.uint8]] = {}
        self.pinned_arrays: list[NDArray[Any]] = []
        self.graphs: list[Any] = []
        self.capture_error: EngineError | None = None
        self.on_wait: Callable[[], None] = lambda: None
        self._random = random.Random(seed)
        self._streams: list[FakeStream] = []
        self._recorded: dict[int, int] = {}  # event -> how often it was recorded
        self._happened: dict[int, int] = {}
        self._next = 4096
        self._capturing: FakeStream | None = None

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        assert not self.is_closed
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1

    def _call(self, name: str) -> None:
        assert self.depth > 0, f"{name} without a context"
        self.calls.append(name)

    def new_stream(self) -> FakeStream:
        self._call("new_stream")
        self._streams.append(FakeStream(len(self._streams) + 1))
        return self._streams[-1]

    def handle(self, stream: FakeStream) -> int:
        return stream.handle

    def finish(self, stream: FakeStream) -> None:
        self._call("finish")
        self._run_while(lambda: bool(stream.waiting))

    def new_event(self) -> int:
        self._call("new_event")
        self._recorded[len(self._recorded)] = 0
        return len(self._recorded) - 1

    def record(self, event: int, stream: FakeStream) -> None:
        self._call(f"record on {stream.handle}")
        self._recorded[event] += 1
        number = self._recorded[event]
        stream.waiting.append(("record", lambda: self._happened.__setitem__(event, number), None))

    def wait_on_stream(self, stream: FakeStream, event: int) -> None:
        self._call(f"wait on {stream.handle}")
        stream.waiting.append(("wait", None, (event, self._recorded[event])))

    def wait_here(self, event: int) -> None:
        self._call("wait here")
        self.on_wait()
        number = self._recorded[event]
        self._run_while(lambda: self._happened.get(event, 0) < number)

    def _run_while(self, unfinished: Callable[[], bool]) -> None:
        while unfinished():
            ready = [stream for stream in self._streams if stream.waiting and self._may_go(stream.waiting[0])]
            assert ready, "the streams wait for one another for ever"
            _, work, _ = self._random.choice(ready).waiting.pop(0)
            if work is not None:
                work()

    def _may_go(self, step: tuple[str, Any, Any]) -> bool:
        return step[0] != "wait" or self._happened.get(step[2][0], 0) >= step[2][1]

    def give(self, handle: int, work: Callable[[], None]) -> None:
        """What a fake context does: its work goes to the stream, or into the graph that is being captured."""
        (stream,) = [stream for stream in self._streams if stream.handle == handle]
        if self._capturing is stream:
            self.graphs[-1].append(work)
        else:
            stream.waiting.append(("work", work, None))

    def allocate(self, nbytes: int) -> int:
        self._call("allocate")
        if sum(len(buffer) for buffer in self.buffers.values()) + nbytes > self.total_bytes:
            raise OutOfMemory("the GPU has not enough free memory; expected a smaller tile")
        self._next += 1 << 20
        self.buffers[self._next] = np.full(nbytes, 255, np.uint8)  # NaN, as float32
        return self._next

    def free(self, address: int) -> None:
        self._call("free")
        assert not any(stream.waiting for stream in self._streams), "freed while the GPU uses it"
        del self.buffers[address]

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        self._call("pinned")
        array = np.zeros(shape, dtype)
        self.pinned_arrays.append(array)
        return array

    def free_pinned(self, array: NDArray[Any]) -> None:
        self._call("free_pinned")
        assert not any(stream.waiting for stream in self._streams), "freed while the GPU uses it"
        self.pinned_arrays = [other for other in self.pinned_arrays if other is not array]

    def upload(self, address: int, array: NDArray[Any], stream: FakeStream) -> None:
        self._call("upload")
        stream.waiting.append(("upload", lambda: self._copy(self.buffers[address], array.view(np.uint8)), None))

    def download(self, array: NDArray[Any], address: int, stream: FakeStream) -> None:
        self._call("download")
        stream.waiting.append(("download", lambda: self._copy(array.view(np.uint8), self.buffers[address]), None))

    @staticmethod
    def _copy(target: NDArray[np.uint8], source: NDArray[np.uint8]) -> None:
        assert target.size == source.size
        target.reshape(-1)[:] = source.reshape(-1)

    def capture(self, stream: FakeStream, work: Callable[[], None]) -> list[Callable[[], None]]:
        self._call("capture")
        if self.capture_error is not None:
            raise self.capture_error
        self.graphs.append([])
        self._capturing = stream
        work()
        self._capturing = None
        graph: list[Callable[[], None]] = self.graphs[-1]
        return graph

    def launch(self, graph: list[Callable[[], None]], stream: FakeStream) -> None:
        self._call("launch")
        stream.waiting.append(("graph", lambda: [work() for work in graph].clear(), None))

    def free_graph(self, graph: Any) -> None:
        self._call("free_graph")
        self.graphs.remove(graph)

    def close(self) -> None:
        self.is_closed = True


class FakeContext:
    """A TensorRT context that repeats pixels. Without its scratch memory it does not run."""

    def __init__(self, memory: FakeMemory, log: Any, scale: int, dtype: DTypeLike = np.float32) -> None:
        self.memory, self.log, self.scale, self.dtype = memory, log, scale, np.dtype(dtype)
        self.shape: tuple[int, ...] = ()
        self.addresses: dict[str, int] = {}
        self.scratch: tuple[int, int] = (0, 0)
        self.error = ""

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.memory._call("set_input_shape")
        assert name == "input"
        self.shape, self.scratch = shape, (0, 0)
        return True

    def update_device_memory_size_for_shapes(self) -> int:
        return 16 * int(np.prod(self.shape))

    def set_device_memory(self, address: int, nbytes: int) -> None:
        assert len(self.memory.buffers[address]) == nbytes
        self.scratch = (address, nbytes)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, handle: int) -> bool:
        self.memory._call("execute")
        if self.error:
            self.log.messages.append((1, self.error))
            return False
        assert self.scratch[1] == 16 * int(np.prod(self.shape)), "no memory between layers"
        shape, addresses = self.shape, dict(self.addresses)

        def work() -> None:
            assert self.scratch[0] in self.memory.buffers
            batch = self.memory.buffers[addresses["input"]].view(self.dtype).reshape(shape)
            large = batch.repeat(self.scale, 2).repeat(self.scale, 3)
            self.memory.buffers[addresses["output"]].view(self.dtype)[:] = large.reshape(-1)

        self.memory.give(handle, work)
        return True


class _Logger:
    """As trt.ILogger: to be subclassed."""


def fake_log() -> Any:
    return SimpleNamespace(messages=[])


class FakeTrt:
    """As much of `tensorrt` and `tensorrt_rtx` as the engine uses; `context` is what engines give."""

    __version__ = "1.7.1.116"
    ILogger = _Logger
    ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="user managed")
    CudaGraphStrategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole graph")

    def __init__(self, memory: FakeMemory, scale: int, dtype: DTypeLike = np.float32) -> None:
        self.memory, self.scale, self.dtype = memory, scale, dtype
        self.refuses = ""
        self.loaded: list[bytes] = []
        self.contexts: list[FakeContext] = []
        self.asked: Any = None
        self.compiled = b""

    def Runtime(self, log: Any) -> Any:  # noqa: N802 - TensorRT's name
        self.log = log
        return SimpleNamespace(deserialize_cuda_engine=self._deserialize)

    def _deserialize(self, content: bytes) -> Any:
        assert self.memory.depth > 0
        if self.refuses:
            severity = SimpleNamespace(value=1)
            self.log.log(severity, self.refuses)
            return None
        self.loaded.append(content)
        names = ["output", "input"]
        return SimpleNamespace(
            num_io_tensors=2,
            get_tensor_name=names.__getitem__,
            get_tensor_mode=lambda name: SimpleNamespace(name=name.upper()),
            create_execution_context=self._new_context,
            create_runtime_config=self._new_config,
        )

    def _new_config(self) -> Any:
        def take(name: str) -> Callable[[Any], None]:
            return lambda value: setattr(config, name, value)

        config = SimpleNamespace(
            create_runtime_cache=self._new_cache,
            set_execution_context_allocation_strategy=take("allocation"),
            set_runtime_cache=take("runtime_cache"),
        )
        return config

    def _new_cache(self) -> Any:
        def read(content: bytes) -> bool:
            self.compiled = content
            return True

        return SimpleNamespace(deserialize=read, serialize=lambda: self.compiled + b"+")

    def _new_context(self, asked: Any) -> FakeContext:
        self.asked = asked
        self.contexts.append(FakeContext(self.memory, self.log, self.scale, self.dtype))
        return self.contexts[-1]


SCALE = 2
COMPACT = Compact(scale=SCALE, features=8, convs=1)

SIDECAR = Sidecar(
    name="small",
    scale=SCALE,
    multiple_of=1,
    radius_px=3,
    architecture=text_from_architecture(COMPACT),
    precision="fp16",
    values="float32",
    profile=ShapeProfile(min_hw=(1, 1), opt_hw=(32, 32), max_hw=(32, 32)),
    weights_sha256="0" * 64,
    onnx_sha256="1" * 64,
    engine_sha256="",
    engine_bytes=0,
    library="tensorrt-rtx",
    library_version=FakeTrt.__version__,
    realesr_version="0.1.0",
    gpu=None,
    targets=("sm89",),
    build_seconds=1.5,
    layers=7,
    layers_of="network",
    proof="not proven: no GPU",
)
"""Of a small engine that was built ahead of time; tests fill in the hash of its bytes."""

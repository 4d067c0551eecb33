"""Runs networks with OpenVINO on the CPU. Takes weights, and .onnx files of float32 images of any size."""

import contextlib
import ctypes
import functools
import os
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realesr.engine import EngineBase, EngineSpec, PieceSizes, Precision, ProgressCallback, SizeRule, check_batch
from realesr.engines.fidelity import bf16_is_measured
from realesr.engines.memory_cost import MemoryCost
from realesr.engines.openvino_strips import OpenVinoLibrary, Shapes, StatefulRequest
from realesr.engines.translation import translated
from realesr.errors import EngineError, ModelError, RealesrError, UsageError
from realesr.machine.cgroup import usable_cores
from realesr.machine.freed_memory import give_back
from realesr.machine.processor import has_fast_bf16
from realesr.models.architecture import Architecture
from realesr.models.facts import ModelFacts
from realesr.models.onnx_graph import onnx_bytes
from realesr.models.weights import Weights
from realesr.runtime.strips import Strips, check_strips, first_rows_px


@contextlib.contextmanager
def _nothing_sent() -> Iterator[None]:
    """Hide the package openvino_telemetry, by which openvino reports its use while it is imported; it does without."""
    hidden = "openvino_telemetry" not in sys.modules
    if hidden:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if hidden:
            del sys.modules["openvino_telemetry"]


with _nothing_sent():
    import openvino  # type: ignore[import-untyped, unused-ignore]

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")

_HINTS: dict[Precision, str] = {"fp32": "f32", "bf16": "bf16"}

COST = MemoryCost(maps=4.25, enlarged_maps=2.75, strip_maps=25)
"""Measured: 2.1 maps of realesrgan-x4plus and 3.9 of realesr-animevideov3, and 2.6 times the weights while it compiles
for a shape, which is the rest at 256 px. In strips 6.2 kB a pixel of realesr-animevideov3 at 1024 x 48 px."""

PIECES = PieceSizes(largest_tile_px=512, largest_strip_px=49_152, smallest_image_in_strips_px=500_000)
"""Smaller images are faster in tiles than in strips: compiling takes 0.45 s of CPU time for each of an image's three
shapes of strips, and for its one shape of tiles, which read 7 to 15 % twice (realesr-animevideov3, 16 us a pixel)."""
ENLARGED_PIECES = PieceSizes(largest_tile_px=384)

_SHAPES_KEPT = 2
"""Compiled shapes at a time: the tiles of one image have one shape, and the parts of one that did not fit another."""

_OUT_OF_MEMORY = ("bad_alloc", "bad allocation", "out of memory", "Cannot allocate memory", "could not create a memory")
"""Parts of messages: C++'s on Linux and on Windows, the system's, oneDNN's. All of its errors are RuntimeError."""


class OpenVinoEngine(EngineBase):
    """An open network, compiled for each shape that it meets.

    One shape at a time takes two thirds of the memory of a network compiled for all, and 5 % less CPU time: 8.7 kB/px
    against 13.4 and 137 us/px against 145 (realesrgan-x4plus-anime, 256 px, OpenVINO 2026.4, AVX2).
    """

    def __init__(
        self, source: Path | bytes, spec: EngineSpec, threads: int, stateful_request: StatefulRequest | None = None
    ) -> None:
        self.spec = spec
        self._stateful_request = stateful_request
        self._source: Path | bytes | None = source
        self._threads = threads
        self._requests: dict[tuple[int, ...], Any] = {}

    def run(self, batch: NDArray[np.float32], on_progress: ProgressCallback | None = None) -> NDArray[np.float32]:
        """Enlarge a batch; see `Engine.run`."""
        check_batch(batch, self.spec)
        if self._source is None:
            raise EngineError("engine openvino is closed: open it again")
        _, _, height, width = batch.shape
        with _translated(EngineError, "engine openvino on cpu"):
            output = np.empty((1, 3, height * self.spec.scale, width * self.spec.scale), np.float32)
            request = self._request_for(self._source, batch.shape)
            got = tuple(request.get_output_tensor().shape)
            if got != output.shape:
                raise EngineError(f"the network gives {got} for {batch.shape}, expected {output.shape}")
            request.set_output_tensor(openvino.Tensor(output, shared_memory=True))
            request.infer({0: np.ascontiguousarray(batch)}, share_inputs=True, share_outputs=True)
            # The request must not keep the caller's array alive, nor write into it again.
            request.set_output_tensor(openvino.Tensor(openvino.Type.f32, output.shape))
        return output

    def _request_for(self, source: Path | bytes, shape: tuple[int, ...]) -> Any:
        """Return the compiled network of this shape; the most recent ones are kept."""
        request = self._requests.pop(shape, None)
        if request is None:
            while len(self._requests) >= _SHAPES_KEPT:
                del self._requests[next(iter(self._requests))]
                give_back()
            request = _compile(source, shape, self.spec.precision, self._threads)
        self._requests[shape] = request
        return request

    def open_strips(self, width_px: int, height_px: int, *, rows_px: int) -> Strips:
        """Begin an image, strip by strip; see `Engine.open_strips`."""
        if self._source is None:
            raise EngineError("engine openvino is closed: open it again")
        if self._stateful_request is None:
            return super().open_strips(width_px, height_px, rows_px=rows_px)
        check_strips(self.spec, width_px, height_px)
        return Strips(self._stateful_request.begin(width_px), self.spec, width_px=width_px, height_px=height_px)

    def bytes_for(self, architecture: Architecture, height_px: int, width_px: int, *, in_strips: bool = False) -> float:
        """Return the memory for a piece of an image; see `Engine.bytes_for`."""
        return COST.bytes_for(
            architecture, height_px, width_px, in_strips=in_strips
        )  # bf16 takes no more: its maps are smaller

    def close(self) -> None:
        """Free the compiled networks."""
        self._source = self._stateful_request = None
        self._requests.clear()


def open_openvino(
    model: Weights | Path, *, device: str = "auto", precision: str = "auto", threads: int | None = None
) -> OpenVinoEngine:
    """Open a network; the arguments are those of `realesr.engines.open_engine`."""
    if device.lower() not in ("auto", "cpu"):
        raise EngineError(f"engine openvino got the device {device}, expected one that it has here: cpu")
    body = _body_precision(model, precision)
    architecture: Architecture | None
    source: Path | bytes
    if isinstance(model, Path):
        source, facts = model, _facts_of_file(model)
        architecture, scale, multiple_of = facts.architecture, facts.scale, facts.multiple_of
    else:
        source, architecture = onnx_bytes(model, "fp32"), model.architecture
        scale, multiple_of = architecture.scale, architecture.multiple_of
    is_enlarged = architecture is None or architecture.has_enlarged_convolutions
    cores = threads or usable_cores()
    stateful_request, first_rows = None, None
    # It keeps what every convolution reads until the strip's end: 130 kB a pixel of the dense blocks of x4plus.
    if isinstance(model, Weights) and not is_enlarged:
        stateful_request = StatefulRequest(model, _library_for_strips(body, cores))
        first_rows = first_rows_px(model.architecture)
    spec = EngineSpec(
        name="openvino",
        scale=scale,
        precision=body,
        device="cpu",
        size=SizeRule(minimum_px=multiple_of, multiple_of=multiple_of),
        pieces=ENLARGED_PIECES if is_enlarged else PIECES,
        first_rows_px=first_rows,
    )
    return OpenVinoEngine(source, spec, cores, stateful_request)


def devices() -> tuple[str, ...]:
    """Return the names of the devices here."""
    return ("cpu",)


def precisions() -> tuple[Precision, ...]:
    """Return the precisions that this processor has."""
    capabilities: list[str] = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return PRECISIONS if "BF16" in capabilities else ("fp32",)


def _body_precision(model: Weights | Path, precision: str) -> Precision:
    if precision == "auto":
        is_safe = not isinstance(model, Path) and bf16_is_measured(model)
        return "bf16" if is_safe and has_fast_bf16() and "bf16" in precisions() else "fp32"
    for offered in PRECISIONS:
        if precision == offered:
            if offered not in precisions():
                raise EngineError(
                    f"got precision {precision}, but this processor has no bf16: expected fp32", option="precision"
                )
            return offered
    raise UsageError(f"engine openvino got precision {precision}, expected {' or '.join(PRECISIONS)}")


def _facts_of_file(path: Path) -> ModelFacts:
    """Return the facts that ONNX Runtime finds in a file; raise ModelError for files that only it runs."""
    from realesr.engines.onnx_runtime.engine import facts_from_file

    facts = facts_from_file(path)
    with _translated(ModelError, f"{path} cannot be opened as an ONNX network"):
        source = _core().read_model(str(path)).input(0)
        is_open = source.element_type == openvino.Type.f32 and all(side.is_dynamic for side in source.partial_shape[2:])
    if not is_open:
        raise ModelError(
            f"engine openvino got {path.name}, which takes {source.element_type.to_string()} {source.partial_shape}, "
            "expected float32 images of any size: take engine onnxruntime",
            option="engine",
        )
    return facts


@functools.cache
def _core() -> Any:
    """Return the one Core of this process, which is never destroyed.

    Its CPU plugin sets an alternate signal stack when a Core is made and puts the former one back when it is destroyed.
    Two Cores that are not destroyed in reverse order would leave a stack that is no longer there, and the next signal
    would end Python (openvino 2026.4).
    """
    core = openvino.Core()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_keep_what_the_parent_opened)
    return core


_open_requests: "weakref.WeakSet[Any]" = weakref.WeakSet()


def _keep_what_the_parent_opened() -> None:
    """Keep all objects of the parent's for ever, in a forked child: to free one waits for threads that it lacks."""
    for kept in (_core(), *_open_requests):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))


def _compile(source: Path | bytes, shape: tuple[int, ...], precision: Precision, threads: int) -> Any:
    """Compile a network for one shape. It is read anew each time: the graph's own copy of the weights is not kept."""
    network = _core().read_model(source if isinstance(source, bytes) else str(source))
    network.reshape({network.input(0): list(shape)})
    return _new_request(network, precision, threads)


def _new_request(network: Any, precision: Precision, threads: int) -> Any:
    """Compile a network, and return a request of its own for inference."""
    request = _core().compile_model(network, "CPU", _settings(precision, threads)).create_infer_request()
    _open_requests.add(request)
    return request


def _library_for_strips(precision: Precision, threads: int) -> OpenVinoLibrary:
    def compile_graph(content: bytes, shapes: Shapes) -> Any:
        network = _core().read_model(content)
        network.reshape({name: list(shape) for name, shape in shapes.items()})
        return _new_request(network, precision, threads)

    return OpenVinoLibrary(
        compile_graph=compile_graph, translated=lambda: _translated(EngineError, "engine openvino on cpu")
    )


def _settings(precision: Precision, threads: int) -> dict[str, Any]:
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        # Pinned threads of two processes would share cores while others idle.
        "ENABLE_CPU_PINNING": False,
        # The default is bf16 on processors that have it, whoever asks.
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
    }


def _translated(error_type: type[RealesrError], what: str) -> contextlib.AbstractContextManager[None]:
    return translated(what, out_of_memory=_OUT_OF_MEMORY, error_type=error_type)

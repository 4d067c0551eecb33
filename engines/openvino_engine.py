"""Runs networks with OpenVINO on the CPU. Takes weights, and .onnx files of float32 images of any size."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realesr.architectures import Compact
from realesr.cgroup import usable_cores
from realesr.engine import EngineBase, EngineSpec, Precision, SizeRule, check_batch
from realesr.engines.fidelity import bf16_is_measured
from realesr.engines.openvino_strips import Shapes, StripLibrary, StripNetwork
from realesr.errors import EngineError, ModelError, OutOfMemory, RealesrError, UsageError
from realesr.onnx_graph import cached_onnx
from realesr.processor import has_fast_bf16
from realesr.strips import Strips, check_strips, first_rows_px
from realesr.weights import Weights


@contextlib.contextmanager
def _nothing_sent() -> Iterator[None]:
    """Importing openvino reports its use by the package openvino_telemetry, and does without where that is missing."""
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

_SHAPES_KEPT = 2
"""Compiled shapes at a time: the tiles of one image have one shape, and the parts of one that did not fit another."""

_OUT_OF_MEMORY = ("bad_alloc", "bad allocation", "out of memory", "Cannot allocate memory", "could not create a memory")
"""Parts of messages: C++'s on Linux and on Windows, the system's, oneDNN's. All of its errors are RuntimeError."""


class OpenVinoEngine(EngineBase):
    """An open network, compiled for each shape that it meets.

    One shape at a time takes two thirds of the memory of a network compiled for all, and 5 % less CPU time: 8.7 kB/px
    against 13.4 and 137 us/px against 145 (realesrgan-x4plus-anime, 256 px, OpenVINO 2026.4, AVX2).
    """

    def __init__(self, path: Path, spec: EngineSpec, threads: int, strip_network: StripNetwork | None = None) -> None:
        self.spec = spec
        self._strip_network = strip_network
        self._path: Path | None = path
        self._threads = threads
        self._requests: dict[tuple[int, ...], Any] = {}

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Enlarge a batch; see `Engine.run`."""
        check_batch(batch, self.spec)
        if self._path is None:
            raise EngineError("engine openvino is closed: open it again")
        _, _, height, width = batch.shape
        with _translated(EngineError, "engine openvino on cpu"):
            output = np.empty((1, 3, height * self.spec.scale, width * self.spec.scale), np.float32)
            request = self._request_for(self._path, batch.shape)
            got = tuple(request.get_output_tensor().shape)
            if got != output.shape:
                raise EngineError(f"the network gives {got} for {batch.shape}, expected {output.shape}")
            request.set_output_tensor(openvino.Tensor(output, shared_memory=True))
            request.infer({0: np.ascontiguousarray(batch)}, share_inputs=True, share_outputs=True)
            # The request must not keep the caller's array alive, nor write into it again.
            request.set_output_tensor(openvino.Tensor(openvino.Type.f32, output.shape))
        return output

    def _request_for(self, path: Path, shape: tuple[int, ...]) -> Any:
        """The compiled network of this shape, the most recent ones kept."""
        request = self._requests.pop(shape, None)
        if request is None:
            while len(self._requests) >= _SHAPES_KEPT:
                del self._requests[next(iter(self._requests))]
            request = _compile(path, shape, self.spec.precision, self._threads).create_infer_request()
        self._requests[shape] = request
        return request

    def open_strips(self, width_px: int, height_px: int, *, rows_px: int) -> Strips:
        """Begin an image, strip by strip; see `Engine.open_strips`."""
        if self._path is None:
            raise EngineError("engine openvino is closed: open it again")
        if self._strip_network is None:
            return super().open_strips(width_px, height_px, rows_px=rows_px)
        check_strips(self.spec, width_px, height_px)
        return Strips(self._strip_network.begin(width_px), self.spec, width_px=width_px, height_px=height_px)

    def close(self) -> None:
        """Free the compiled networks."""
        self._path = self._strip_network = None
        self._requests.clear()


def open_openvino(
    model: Weights | Path, *, device: str = "auto", precision: str = "auto", threads: int | None = None
) -> OpenVinoEngine:
    """Open a network; the arguments are those of `realesr.engines.open_engine`."""
    if device.lower() not in ("auto", "cpu"):
        raise EngineError(f"engine openvino got the device {device}, expected one that it has here: cpu")
    body = _body_precision(model, precision)
    if isinstance(model, Path):
        path = model
        scale, multiple_of = _scale_and_multiple_of_file(model)
    else:
        path = cached_onnx(model, "fp32")
        scale, multiple_of = model.architecture.scale, model.architecture.multiple_of
    cores = threads or usable_cores()
    strip_network, first_rows = None, None
    # Of RRDBNets it keeps what every convolution of the trunk reads until the strip's end: 130 kB a pixel.
    if isinstance(model, Weights) and isinstance(model.architecture, Compact):
        strip_network = StripNetwork(model, _strip_library(body, cores))
        first_rows = first_rows_px(model.architecture)
    spec = EngineSpec(
        name="openvino",
        scale=scale,
        precision=body,
        device="cpu",
        size=SizeRule(minimum_px=multiple_of, multiple_of=multiple_of),
        first_rows_px=first_rows,
    )
    return OpenVinoEngine(path, spec, cores, strip_network)


def devices() -> tuple[str, ...]:
    """What `--device` may be here."""
    return ("cpu",)


def precisions() -> tuple[Precision, ...]:
    """What `--precision` may be on this processor."""
    capabilities: list[str] = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return PRECISIONS if "BF16" in capabilities else ("fp32",)


def _body_precision(model: Weights | Path, precision: str) -> Precision:
    if precision == "auto":
        is_safe = not isinstance(model, Path) and bf16_is_measured(model)
        return "bf16" if is_safe and has_fast_bf16() and "bf16" in precisions() else "fp32"
    for offered in PRECISIONS:
        if precision == offered:
            if offered not in precisions():
                raise EngineError(f"got precision {precision}, but this processor has no bf16: take --precision fp32")
            return offered
    raise UsageError(f"engine openvino got precision {precision}, expected {' or '.join(PRECISIONS)}")


def _scale_and_multiple_of_file(path: Path) -> tuple[int, int]:
    """What ONNX Runtime finds; files of another kind are left to it."""
    from realesr.engines.onnxruntime_engine import facts_from_file

    facts = facts_from_file(path)
    with _translated(ModelError, f"{path} cannot be opened as an ONNX network"):
        source = openvino.Core().read_model(str(path)).input(0)
        is_open = source.element_type == openvino.Type.f32 and all(side.is_dynamic for side in source.partial_shape[2:])
    if not is_open:
        raise ModelError(
            f"engine openvino got {path.name}, which takes {source.element_type.to_string()} {source.partial_shape}, "
            "expected float32 images of any size: take --engine onnxruntime"
        )
    return facts.scale, facts.multiple_of


def _compile(path: Path, shape: tuple[int, ...], precision: Precision, threads: int) -> Any:
    """Read anew for each shape: the graph's own copy of the weights is not held between."""
    core = openvino.Core()
    network = core.read_model(str(path))
    network.reshape({network.input(0): list(shape)})
    return core.compile_model(network, "CPU", _settings(precision, threads))


def _strip_library(precision: Precision, threads: int) -> StripLibrary:
    def compile_graph(content: bytes, shapes: Shapes) -> Any:
        core = openvino.Core()
        network = core.read_model(content)
        network.reshape({name: list(shape) for name, shape in shapes.items()})
        return core.compile_model(network, "CPU", _settings(precision, threads)).create_infer_request()

    return StripLibrary(
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


@contextlib.contextmanager
def _translated(error_type: type[RealesrError], what: str) -> Iterator[None]:
    """The one seam at which OpenVINO's errors become ours."""
    try:
        yield
    except MemoryError as error:
        raise OutOfMemory(f"{what}: out of memory; expected a smaller tile") from error
    except RuntimeError as error:
        message = " ".join(str(error).split())
        if any(part in message for part in _OUT_OF_MEMORY):
            raise OutOfMemory(f"{what}: out of memory; expected a smaller tile") from error
        raise error_type(f"{what}: {message[-300:]}") from error

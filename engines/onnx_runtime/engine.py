"""Runs networks with ONNX Runtime: on the CPU, or on any other device that the installed package offers."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realesr.engine import (
    MAX_BATCH,
    EngineBase,
    EngineSpec,
    Precision,
    ProgressCallback,
    SizeRule,
    check_batch,
)
from realesr.engines.engine_options import checked_options
from realesr.engines.memory_cost import GPU_COST, MemoryCost, piece_sizes
from realesr.engines.nvidia.gpu_memory import gpu_memory_bytes
from realesr.engines.onnx_runtime.binding import DeviceBinding
from realesr.engines.onnx_runtime.devices import ProviderPlace, add_place, check_packages, place_for
from realesr.engines.onnx_runtime.first_run import first_run
from realesr.engines.onnx_runtime.onnx_contents import read_contents
from realesr.engines.onnx_runtime.onnx_file import (
    FileForm,
    checked_facts,
    file_precision,
    form_from_session,
    written_architecture,
)
from realesr.engines.onnx_runtime.strips import OnnxRuntimeLibrary, StatefulSessions
from realesr.engines.translation import translated
from realesr.errors import EngineError, ModelError, RealesrError, UsageError
from realesr.machine.cgroup import usable_cores
from realesr.machine.environment import default_variable
from realesr.models.architecture import Architecture
from realesr.models.facts import ModelFacts
from realesr.models.onnx_graph import onnx_bytes
from realesr.models.weights import Weights
from realesr.runtime.strips import Strips, check_strips, first_rows_px

# ONNX Runtime reports its use to Microsoft by default since 1.29, from the import on, and reads the variable there.
with default_variable("ORT_DISABLE_TELEMETRY", "1"):
    import onnxruntime

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")

OPTIONS: Mapping[str, tuple[str, ...]] = {"prefer_nhwc": ("0", "1")}
"""prefer_nhwc: convolutions on CUDA run on channels-last maps, which tensor cores read without turning them first. Off
until it is measured (onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html)."""

_OUT_OF_MEMORY = (
    "Failed to allocate memory",
    "bad_alloc",
    "bad allocation",
    "out of memory",
    "OUT_OF_MEMORY",
    "ALLOC_FAILED",
    "ALLOCATION_FAILED",
    "8007000E",
    "Not enough memory resources",
)
"""Parts of messages: the arena's, C++'s on Linux and on Windows, CUDA's, cuBLAS's and cuDNN 8's, cuDNN 9's and
DirectML's. There is no type or code of its own for it (microsoft/onnxruntime, issue 16307)."""

COST = MemoryCost(maps=4, enlarged_maps=4, strip_maps=9, trunk_strip_maps=4)
"""On a CPU: at most 3.9 maps at 64 to 384 px (benchmarks/bench_memory.py). In strips at most 2.3 kB a pixel of
realesr-animevideov3, at 1024 x 64 to 10000 x 16 px, and 3.0 of the dense blocks of realesrgan-x4plus, states left out.
fp16 takes more, for results are kept in both types: 134 MB against 66 (realesr-animevideov3, 256 px), 414 against 258
(realesrgan-x4plus-anime, 128 px)."""

_TRIAL_MULTIPLES = (1, 2, 4, 8, 16, 32, 64)
"""Multiples that are tried in turn on a file that states none. Above 4: networks that cut their input into windows."""


class OnnxRuntimeEngine(EngineBase):
    """An open session. Its inputs and outputs are the file's first ones."""

    def __init__(
        self,
        session: Any,
        spec: EngineSpec,
        form: FileForm | None = None,
        stateful_sessions: StatefulSessions | None = None,
        binding: DeviceBinding | None = None,
    ) -> None:
        self.spec = spec
        self._stateful_sessions = stateful_sessions
        self._form = form or FileForm()
        self._session: Any = session
        self._binding = binding
        self._input: str = session.get_inputs()[0].name
        self._output: str = session.get_outputs()[0].name
        self._options = _run_options()

    def run(self, batch: NDArray[np.float32], on_progress: ProgressCallback | None = None) -> NDArray[np.float32]:
        """Enlarge a batch; see `Engine.run`."""
        check_batch(batch, self.spec)
        if self._session is None:
            raise EngineError("engine onnxruntime is closed: open it again")
        with _translated(EngineError, f"engine onnxruntime on {self.spec.device}"):
            output = self._form.from_output(self._output_of(self._form.to_input(batch)), len(batch))
        count, _, height, width = batch.shape
        expected = (count, 3, height * self.spec.scale, width * self.spec.scale)
        if output.shape != expected:
            raise EngineError(f"the network gave {output.shape} for {batch.shape}, expected {expected}")
        return output

    def _output_of(self, file_input: NDArray[Any]) -> NDArray[Any]:
        """Run the session on a batch of its own type."""
        if self._binding is None:
            output: NDArray[Any] = self._session.run([self._output], {self._input: file_input}, self._options)[0]
            return output
        return self._binding.run(file_input, self._options)

    def open_strips(self, width_px: int, height_px: int, *, rows_px: int) -> Strips:
        """Begin an image, strip by strip; see `Engine.open_strips`."""
        if self._session is None:
            raise EngineError("engine onnxruntime is closed: open it again")
        if self._stateful_sessions is None:
            return super().open_strips(width_px, height_px, rows_px=rows_px)
        check_strips(self.spec, width_px, height_px)
        return Strips(
            self._stateful_sessions.begin(width_px, rows_px), self.spec, width_px=width_px, height_px=height_px
        )

    def bytes_for(self, architecture: Architecture, height_px: int, width_px: int, *, in_strips: bool = False) -> float:
        """Return the memory for a piece of an image; see `Engine.bytes_for`."""
        cost = COST if self.spec.device_bytes is None else GPU_COST
        return cost.bytes_for(architecture, height_px, width_px, self.spec.precision, in_strips=in_strips)

    def close(self) -> None:
        """Free the session."""
        self._session = self._stateful_sessions = self._binding = None


def open_onnxruntime(
    model: Weights | Path,
    *,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    options: Mapping[str, str] | None = None,
) -> OnnxRuntimeEngine:
    """Open a network; the arguments are those of `realesr.engines.open_engine`, and `options` those of OPTIONS.

    A path is run in the precision, on the values and in the shape that its file has.
    """
    check_packages()
    prefer_nhwc = checked_options("onnxruntime", options or {}, OPTIONS)["prefer_nhwc"] == "1"
    place = place_for(device)
    if prefer_nhwc and place.kind != "cuda":
        raise EngineError(
            f"engine onnxruntime got the option prefer_nhwc=1 on the device {place.device}, expected the device cuda: "
            "no other has it"
        )
    form = FileForm()
    stateful_sessions, first_rows = None, None
    if isinstance(model, Path):
        facts = facts_from_file(model)  # before the file is opened here: it is tried in another process
        session = _open_session(model, place, "fp32", threads, error_type=ModelError, prefer_nhwc=prefer_nhwc)
        form = form_from_session(session, model)
        body = _file_precision(session, form, model, precision)
        architecture, scale, multiple_of = facts.architecture, facts.scale, facts.multiple_of
    else:
        body = _body_precision(place.kind, precision)
        content = onnx_bytes(model, body)  # no file, which others could alter between its check and its use
        session = _open_session(content, place, body, threads, error_type=EngineError, prefer_nhwc=prefer_nhwc)
        del content
        architecture = model.architecture
        scale, multiple_of = architecture.scale, architecture.multiple_of
        if place.kind == "cpu":  # elsewhere the states would travel to the host and back
            stateful_sessions = StatefulSessions(model, body, _library_for_strips(threads))
            first_rows = first_rows_px(model.architecture)
    spec = EngineSpec(
        name="onnxruntime",
        scale=scale,
        precision=body,
        device=place.device,
        size=SizeRule(minimum_px=multiple_of, multiple_of=multiple_of, fixed_px=form.size_px),
        io_dtype=form.io_dtype,
        pieces=piece_sizes(architecture, on_gpu=place.kind == "cuda"),
        max_batch=form.batch or MAX_BATCH,
        best_batch=form.batch or 1,
        first_rows_px=first_rows,
        device_bytes=gpu_memory_bytes(place.number) if place.kind == "cuda" else None,
    )
    binding = DeviceBinding(session, "cuda", place.number) if place.kind == "cuda" else None
    return OnnxRuntimeEngine(session, spec, form, stateful_sessions, binding)


def facts_from_file(path: Path) -> ModelFacts:
    """Return the facts about an .onnx file's network: from its metadata, and from a first run in another process.

    Raises:
        ModelError: the file is missing or damaged, its metadata contradict its graph, its network does not enlarge RGB
            images, or it takes more time or memory than a network needs.
    """
    check_packages()
    if not path.is_file():
        raise ModelError(f"{path} is no file: expected an ONNX network")
    contents = read_contents(path)
    architecture = written_architecture(contents, path)
    measured = first_run(path, contents.stored_bytes, is_ours=architecture is not None)
    return checked_facts(contents, architecture, path, scale=measured.scale, multiple_of=measured.multiple_of)


def form_and_session(path: Path, *, threads: int) -> tuple[FileForm, Any]:
    """Open a file on the CPU, in the process that tries it; errors are those of `facts_from_file`."""
    session = _open_session(path, ProviderPlace(kind="cpu"), "fp32", threads, error_type=ModelError)
    return form_from_session(session, path), session


def _file_precision(session: Any, form: FileForm, path: Path, asked: str) -> Precision:
    found = file_precision(session.get_modelmeta().custom_metadata_map, form)
    if asked not in ("auto", found):
        raise UsageError(f"got precision {asked} for {path.name}, which has its own, {found}: leave precision at auto")
    return found


def _body_precision(device_name: str, precision: str) -> Precision:
    if precision == "auto":
        return "fp32" if device_name == "cpu" else "fp16"
    for offered in PRECISIONS:
        if precision == offered:
            return offered
    raise UsageError(f"engine onnxruntime got precision {precision}, expected {' or '.join(PRECISIONS)}")


def _open_session(
    source: Path | bytes,
    place: ProviderPlace,
    precision: Precision,
    threads: int | None,
    *,
    error_type: type[RealesrError],
    prefer_nhwc: bool = False,
) -> Any:
    if isinstance(source, Path) and not source.is_file():
        raise ModelError(f"{source} is no file: expected an ONNX network")
    name = source if isinstance(source, Path) else "the network"
    options = _session_options(threads)
    with _translated(error_type, f"{name} cannot be opened as an ONNX network"):
        provider, arguments = add_place(options, place, precision, prefer_nhwc=prefer_nhwc)
        session = onnxruntime.InferenceSession(
            source if isinstance(source, bytes) else str(source), options, **arguments
        )
        session._model_bytes = None  # it keeps them for another try, 67 MB of realesrgan-x4plus (onnxruntime 1.32)
    # ONNX Runtime goes on without a provider that cannot start, and only prints that.
    if provider not in session.get_providers():
        raise EngineError(
            f"onnxruntime has {provider} but it cannot start here: expected the device's driver and libraries; "
            "install them, or take the device cpu",
            option="device",
        )
    return session


def _library_for_strips(threads: int | None) -> OnnxRuntimeLibrary:
    options = _session_options(threads)
    # The default order puts off what only makes outputs, here the cutting of states: every layer's rows stay until the
    # end. Peak 435 MB against 168 MB in this order (realesr-animevideov3, strips of 1024 x 64 px), as fast.
    options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    return OnnxRuntimeLibrary(
        open_session=lambda content: onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"]),
        make_value=onnxruntime.OrtValue.ortvalue_from_numpy,
        run_options=_run_options(),
        translated=lambda: _translated(EngineError, "engine onnxruntime on cpu"),
    )


def _session_options(threads: int | None) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or usable_cores()
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors come as exceptions: nothing is printed as well
    # Planned memory is one block for all of a run's arrays, none of which then makes room for the next: peak 658 MB
    # against 486 MB without on realesrgan-x4plus at 128 px, 176 against 134 on realesr-animevideov3 at 256 px, and no
    # faster. Without the arena, the latter peaks at 534 MB and takes up to twice the time (onnxruntime 1.32, 2 cores).
    options.enable_mem_pattern = False
    return options


def _run_options() -> Any:
    """Return options with which the arena gives back what it holds after each run, and no slower.

    275 MB stay instead of 487 (x4plus, 128 px).
    So a network that is kept open costs little, and a tile that did not fit leaves its memory to its halves.
    """
    options = onnxruntime.RunOptions()
    options.log_severity_level = 4
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def _translated(error_type: type[RealesrError], what: str) -> AbstractContextManager[None]:
    return translated(what, out_of_memory=_OUT_OF_MEMORY, is_foreign=_is_from_onnxruntime, error_type=error_type)


def _is_from_onnxruntime(error: Exception) -> bool:
    """Return whether an error is ONNX Runtime's: its exceptions share no base class but come from one module."""
    return type(error).__module__.startswith("onnxruntime.") or isinstance(error, (RuntimeError, ValueError))


def scale_and_multiple(session: Any, path: Path, form: FileForm, *, is_ours: bool) -> tuple[int, int]:
    """Find the first of _TRIAL_MULTIPLES by which the network gives a whole multiple of its input's size.

    A network of ours with a fixed shape is not run, for that may take minutes: its output's shape is declared.

    Raises:
        ModelError: There is none.
        OutOfMemory: The network takes more than this process may have.
    """
    declared = session.get_outputs()[0].shape[2:]
    if is_ours and form.size_px and all(isinstance(side, int) for side in declared):
        scale = max(1, declared[0] // form.size_px[0])
        if tuple(declared) == (form.size_px[0] * scale, form.size_px[1] * scale):
            return scale, 1
    problem = ""
    for multiple in (1,) if form.size_px else _TRIAL_MULTIPLES:
        odd = max(1, 32 // multiple) | 1  # odd, so that the sides are no multiples of the next number tried
        height, width = form.size_px or (odd * multiple, (odd + 2) * multiple)
        image = np.full((1, 3, height, width), 0.5, np.float32)
        try:
            with _translated(ModelError, f"{path} with an image of {width} x {height} px"):
                feed = {session.get_inputs()[0].name: form.to_input(image)}
                output = form.from_output(session.run(None, feed, _run_options())[0], 1)
        except ModelError as error:
            problem = str(error)
            continue
        scale = output.shape[2] // height
        if scale >= 1 and output.shape == (1, 3, height * scale, width * scale):
            return scale, multiple
        problem = f"{path} gave {output.shape} for {image.shape}, expected (1, 3, H * scale, W * scale)"
    raise ModelError(problem)

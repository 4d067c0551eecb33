"""Builds one TensorRT engine, in a process of its own: `python -m realesr.export.tensorrt_child`.

Reads a BuildTask as JSON from stdin and writes one JSON object a line to stdout: {"progress": share, "phase": name}
while it builds, in the end {"done": {...}} or {"error": kind, "message": text}. What TensorRT itself prints goes to
stderr.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from realesr.engines.nvidia.tensorrt_library import Library, last_words, load, new_log, one_line, targets
from realesr.errors import EngineError, MissingDependency, ModelError, RealesrError, UsageError
from realesr.machine.whole_file import whole_file

ERRORS: dict[str, type[RealesrError]] = {
    kind.__name__: kind for kind in (UsageError, ModelError, EngineError, MissingDependency)
}
"""Kinds of error that the child reports to its parent."""

Report = Callable[[dict[str, Any]], None]
Shape = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class BuildTask:
    """The task that the child is given; JSON can hold all of it."""

    onnx_path: str
    output_path: str
    library: Library
    compute_capabilities: tuple[str, ...]
    """Names like "sm89"; none for the library's own choice."""
    shapes: tuple[Shape, Shape, Shape]
    """Smallest, best and largest (N, 3, H, W)."""
    workspace_bytes: int
    timing_cache: str
    """A file that is read, if it is there, and written again; empty for none."""
    device: int
    """Number of the GPU that `tensorrt` builds on."""

    def to_json(self) -> str:
        """Return the text for the child's stdin."""
        return json.dumps(dataclasses.asdict(self))


@dataclass(frozen=True, kw_only=True)
class BuildResult:
    """Facts that the child reports besides the engine's file."""

    library_version: str
    seconds: float
    layers: int
    layers_of: str
    """Whose layers were counted: "engine" or "network"."""
    values: str
    """Type of input and output: "float32" or "uint8"."""
    engine_sha256: str
    """SHA-256 of the bytes that the builder gave, whatever the disk makes of them."""


def main() -> int:
    """Build; the exit status is 0 where an engine was written."""
    report = _take_stdout()
    try:
        result = build(_task_from_json(sys.stdin.read()), report)
    except RealesrError as error:
        report({"error": type(error).__name__, "message": str(error)})
        return 1
    except OSError as error:
        report({"error": "EngineError", "message": f"the engine cannot be written: {error.strerror or error}"})
        return 1
    report({"done": dataclasses.asdict(result)})
    return 0


def build(task: BuildTask, report: Report) -> BuildResult:
    """Parse, configure, build, write, inspect.

    Raises:
        MissingDependency: the library is not installed.
        UsageError: it has no such compute capability.
        ModelError: it cannot read the ONNX file.
        EngineError: it gives no engine.
        OSError: the engine cannot be written.
    """
    trt = load(task.library)
    log = new_log(trt)
    what = f"{task.library} {trt.__version__}"
    with _current_gpu(task):
        builder = _new_builder(trt, log, what)
        network, parser = _parsed(trt, builder, log, Path(task.onnx_path), what)
        config = _configured(trt, builder, network, task, what)
        config.progress_monitor = monitor = _new_monitor(trt, report)
        start = time.perf_counter()
        plan = builder.build_serialized_network(network, config)
        seconds = time.perf_counter() - start
        if plan is None:
            raise EngineError(f"{what} built no engine from {Path(task.onnx_path).name}: {last_words(log)}")
        content = memoryview(plan)
        Path(task.output_path).write_bytes(content)
        _save_timing_cache(config, task)
        layers = _engine_layers(trt, log, content)
        result = BuildResult(
            library_version=trt.__version__,
            seconds=seconds,
            layers=layers or network.num_layers,
            layers_of="engine" if layers else "network",
            values=_kind(network.get_input(0)),
            engine_sha256=hashlib.sha256(content).hexdigest(),
        )
        # What the builder holds references to goes after it.
        del content, plan, config, parser, network, builder, monitor
    return result


def _take_stdout() -> Report:
    """Return a function that writes messages to stdout, and let all else that is printed go to stderr."""
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    lock = threading.Lock()

    def report(message: dict[str, Any]) -> None:
        with lock:
            print(json.dumps(message), file=lines, flush=True)

    return report


def _task_from_json(text: str) -> BuildTask:
    fields = json.loads(text)
    fields["compute_capabilities"] = tuple(fields["compute_capabilities"])
    fields["shapes"] = tuple(tuple(shape) for shape in fields["shapes"])
    return BuildTask(**fields)


def _current_gpu(task: BuildTask) -> Any:
    """Make a GPU's context current, in which `tensorrt` tunes; TensorRT for RTX needs none.

    The context stays pushed to the end of the process's work: the builder's objects free memory in it.
    """
    if task.library == "tensorrt-rtx":
        return contextlib.nullcontext()
    from realesr.engines.nvidia.cuda_memory import open_cuda

    return open_cuda(task.device).active()


def _new_builder(trt: Any, log: Any, what: str) -> Any:
    try:
        builder = trt.Builder(log)
    except TypeError as error:  # pybind's word for a constructor that gave nothing
        raise EngineError(f"{what} does not start a builder: {last_words(log)}") from error
    if builder is None:
        raise EngineError(f"{what} does not start a builder: {last_words(log)}")
    return builder


def _parsed(trt: Any, builder: Any, log: Any, path: Path, what: str) -> tuple[Any, Any]:
    """Return the network and its parser, which must live as long: weights stay in the parser's memory."""
    flags = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flags is None else 1 << int(flags))
    parser = trt.OnnxParser(network, log)
    # By path where the weights lie in files beside it; the bytes would not say where to look.
    if not parser.parse_from_file(str(path)):
        reason = _parser_message(parser) or last_words(log)
        raise ModelError(f"{path} is no ONNX network that {what} can read: {reason}")
    _check_network(trt, network, path)
    return network, parser


def _parser_message(parser: Any) -> str:
    """Return the first error: its node, if it has one, and the reason."""
    if parser.num_errors == 0:
        return ""
    error = parser.get_error(0)
    reason = one_line(f"{error.code().name}: {error.desc()}")
    if not error.node_operator():
        return reason
    return f"node {error.node()} '{error.node_name()}' ({error.node_operator()}): {reason}"


def _check_network(trt: Any, network: Any, path: Path) -> None:
    if network.num_inputs != 1 or network.num_outputs != 1:
        raise ModelError(
            f"{path} has {network.num_inputs} inputs and {network.num_outputs} outputs, expected one image in, one out"
        )
    image, result = network.get_input(0), network.get_output(0)
    for tensor in (image, result):
        shape = tuple(tensor.shape)
        known = tensor.dtype in (trt.DataType.FLOAT, trt.DataType.UINT8) and tensor.dtype == image.dtype
        if not known or len(shape) != 4 or shape[1] not in (3, -1):
            raise ModelError(
                f"{path} has {tensor.name} as {_kind(tensor)} {shape}, expected float32, or uint8 on both sides, "
                "(N, 3, H, W), RGB"
            )


def _kind(tensor: Any) -> str:
    """Return a tensor's type: DataType.FLOAT -> "float32", DataType.UINT8 -> "uint8"."""
    name = str(tensor.dtype.name).lower()
    return {"float": "float32", "half": "float16"}.get(name, name)


def _configured(trt: Any, builder: Any, network: Any, task: BuildTask, what: str) -> Any:
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, task.workspace_bytes)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # or the inspector has nothing to say
    if task.compute_capabilities:
        _set_targets(trt, config, task.compute_capabilities, what)
    _add_profile(builder, config, network.get_input(0), task, what)
    if task.timing_cache:
        path = Path(task.timing_cache)
        cache = config.create_timing_cache(path.read_bytes() if path.exists() else b"")
        config.set_timing_cache(cache, False)
    return config


def _set_targets(trt: Any, config: Any, names: tuple[str, ...], what: str) -> None:
    known = targets(trt)
    for name in names:
        if name not in known:
            there_are = f"some of {', '.join(known)}" if known else "none: it builds for this machine's GPU"
            raise UsageError(f"{what} has no target {name}: expected {there_are}")
    config.num_compute_capabilities = len(names)
    for index, name in enumerate(names):
        config.set_compute_capability(getattr(trt.ComputeCapability, name.upper()), index)


def _add_profile(builder: Any, config: Any, image: Any, task: BuildTask, what: str) -> None:
    for axis, size in enumerate(image.shape):
        if size >= 0 and any(shape[axis] != size for shape in task.shapes):
            asked = ", ".join("x".join(map(str, shape)) for shape in task.shapes)
            raise UsageError(f"{Path(task.onnx_path).name} takes {tuple(image.shape)} only: got the shapes {asked}")
    profile = builder.create_optimization_profile()
    profile.set_shape(image.name, *task.shapes)
    if config.add_optimization_profile(profile) < 0:
        raise EngineError(f"{what} refuses the shapes {task.shapes}")


def _new_monitor(trt: Any, report: Report) -> Any:
    """Make a monitor that reports the share that is done. Phases are nested: each is a step of the one around it."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.lock = threading.Lock()  # TensorRT calls from several threads
            self.phases: dict[str, tuple[str | None, int, int]] = {}  # name -> phase around it, steps, steps done
            self.reported = 0.0

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with self.lock:
                self.phases[phase_name] = (parent_phase, num_steps, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            with self.lock:
                parent, steps, _ = self.phases.get(phase_name, (None, 1, 0))
                self.phases[phase_name] = (parent, steps, step + 1)
                share = self.share(phase_name)
                if share >= self.reported + 0.01:
                    self.reported = share
                    report({"progress": min(share, 1.0), "phase": phase_name})
            return True

        def phase_finish(self, phase_name: str) -> None:
            with self.lock:
                self.phases.pop(phase_name, None)

        def share(self, phase: str | None) -> float:
            share = 0.0
            while phase in self.phases:
                parent, steps, done = self.phases[phase]
                share = (done + share) / max(steps, 1)
                phase = parent
            return share

    return Monitor()


def _save_timing_cache(config: Any, task: BuildTask) -> None:
    """Write the timing cache, if that is possible: without it the next build only takes longer."""
    if not task.timing_cache:
        return
    with contextlib.suppress(OSError), whole_file(Path(task.timing_cache)) as part:
        part.write_bytes(memoryview(config.get_timing_cache().serialize()))


def _engine_layers(trt: Any, log: Any, content: Any) -> int:
    """Count the layers of the finished engine, fused as they are; 0 where the GPU that it is for is not here."""
    engine = trt.Runtime(log).deserialize_cuda_engine(content)
    if engine is None:
        return 0
    inspector = engine.create_engine_inspector()
    told = json.loads(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
    return len(told.get("Layers", []))


if __name__ == "__main__":
    sys.exit(main())

"""Runs TensorRT engines, of `tensorrt` or of TensorRT for RTX, on one NVIDIA GPU."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realesr.engine import MAX_BATCH, EngineBase, EngineSpec, Precision, ProgressCallback, SizeRule, check_batch
from realesr.engines.choice import nvidia_gpus
from realesr.engines.engine_options import checked_options
from realesr.engines.memory_cost import GPU_COST, GPU_PIECES
from realesr.engines.nvidia.cuda_memory import LIBRARIES, CudaMemory, GpuFacts, device_number, open_cuda
from realesr.engines.nvidia.gpu_memory import gpu_memory_bytes
from realesr.engines.nvidia.tensorrt_library import INSTALL, OUT_OF_MEMORY, installed, last_words, load, new_log
from realesr.engines.nvidia.tensorrt_pipeline import Pipeline
from realesr.engines.nvidia.tensorrt_sidecar import ShapeProfile, Sidecar, read_sidecar
from realesr.errors import EngineError, MissingDependency, ModelError, OutOfMemory, UsageError
from realesr.machine.whole_file import file_sha256, write_whole
from realesr.models.architecture import Architecture
from realesr.models.weights import Weights
from realesr.models.zoo import cache_folder

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")

OPTIONS: Mapping[str, tuple[str, ...]] = {"memory": ("auto", *LIBRARIES)}
"""memory: the library for the GPU's memory and streams; "auto" is the first that is installed and loads."""

_BEST_BATCH = 4
"""Assumption, not measured: of four parts the copies of three are hidden."""

PORTABLE_TARGETS = ("sm80", "sm86", "sm89", "sm120", "sm121")
"""TensorRT for RTX builds for these where no target is named: all that it knows from Ampere on. Hopper (sm90) and the
Blackwell of data centres (sm100) are not among them (`ComputeCapability` of tensorrt-rtx 1.7.1)."""

_ONLY_WHEN_NAMED = ("sm75",)
"""Further targets, for which it builds only where they are named."""

_TOO_OLD = ("insufficient for CUDA runtime version", "OLD_CUDA_DRIVER")


class TensorrtEngine(EngineBase):
    """An open engine; see `open_tensorrt`."""

    def __init__(self, loaded: "LoadedEngine", memory: CudaMemory, sidecar: Sidecar, spec: EngineSpec) -> None:
        self.spec = spec
        self._loaded: LoadedEngine | None = loaded
        self._memory = memory
        self._each = sidecar.profile.opt_batch
        log = loaded.log
        with memory.active():
            self._pipeline: Pipeline | None = Pipeline(
                memory,
                loaded.context,
                names=loaded.tensor_names,
                scale=spec.scale,
                io_dtype=spec.io_dtype,
                # TensorRT for RTX makes graphs itself, and knows when its kernels have settled.
                captures=sidecar.library == "tensorrt",
                failure=lambda what: failure(log, f"engine tensorrt on {spec.device} {what}"),
            )

    def run(self, batch: NDArray[np.float32], on_progress: ProgressCallback | None = None) -> NDArray[np.float32]:
        """Enlarge a batch; see `Engine.run`."""
        check_batch(batch, self.spec)
        if self._loaded is None or self._pipeline is None:
            raise EngineError("engine tensorrt is closed: open it again")
        self._loaded.log.messages.clear()
        with self._memory.active():
            return self._pipeline.run(batch, self._each if len(batch) % self._each == 0 else 1)

    def bytes_for(self, architecture: Architecture, height_px: int, width_px: int, *, in_strips: bool = False) -> float:
        """Return the GPU's memory for a tile; see `Engine.bytes_for`."""
        return GPU_COST.bytes_for(architecture, height_px, width_px, self.spec.precision)

    def close(self) -> None:
        """Free the engine and all its memory; keep what TensorRT for RTX has compiled."""
        if self._loaded is None or self._pipeline is None:
            return
        try:
            with self._memory.active():
                self._pipeline.release()
                self._pipeline = None  # it holds TensorRT's context, which must go while the GPU's is current
                self._loaded.close()
        finally:
            self._loaded = self._pipeline = None
            self._memory.close()


class LoadedEngine:
    """TensorRT's objects, in the order in which they need one another. Called inside `with memory.active():`."""

    def __init__(self, trt: Any, content: bytes, sidecar: Sidecar, path: Path) -> None:
        self.log = new_log(trt)
        self._runtime = trt.Runtime(self.log)
        self._engine = self._runtime.deserialize_cuda_engine(content)
        if self._engine is None:
            raise failure(self.log, f"{path} was not loaded by {sidecar.library} {trt.__version__}", _describe(sidecar))
        self._compiled: Any = None
        self._compiled_path = _compiled_path(sidecar)
        self.context: Any = self._new_context(trt, sidecar)
        if self.context is None:
            raise failure(self.log, f"{sidecar.library} made no context for {path}")

    def _new_context(self, trt: Any, sidecar: Sidecar) -> Any:
        """Make a context without workspace: the pipeline gives each shape its own, so that small tiles take little."""
        strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if sidecar.library == "tensorrt":
            return self._engine.create_execution_context(strategy)
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(strategy)
        config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        self._compiled = config.create_runtime_cache()
        with contextlib.suppress(OSError):
            self._compiled.deserialize(self._compiled_path.read_bytes())
        config.set_runtime_cache(self._compiled)
        return self._engine.create_execution_context(config)

    @property
    def tensor_names(self) -> tuple[str, str]:
        """Return the names of the one input and the one output; the builder has checked that there are no others."""
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        first, second = sorted(names, key=lambda name: self._engine.get_tensor_mode(name).name != "INPUT")
        return first, second

    def close(self) -> None:
        """Free everything, and keep the kernels that TensorRT for RTX compiled, for the next time."""
        self.context = None
        if self._compiled is not None:
            _write_compiled(self._compiled_path, bytes(memoryview(self._compiled.serialize())))
        self._compiled = self._engine = self._runtime = None


def open_tensorrt(
    model: Weights | Path,
    *,
    device: str = "auto",
    precision: str = "auto",
    options: Mapping[str, str] | None = None,
) -> TensorrtEngine:
    """Open an .engine file with its sidecar.

    The arguments are those of `realesr.engines.open_engine`, and `options` those of OPTIONS. An asked "fp32" means, as
    with .onnx files, that input and output are float32; the body has the file's precision.

    Raises:
        UsageError: a precision or an option that the engine does not have.
        ModelError: the file is missing, damaged, or has no sidecar.
        EngineError: there is no GPU or driver, or the engine is of another GPU or version.
        MissingDependency: the TensorRT of this engine, or the library for memory, is not installed.
    """
    library = checked_options("tensorrt", options or {}, OPTIONS)["memory"]
    if isinstance(model, Weights):
        raise EngineError(f"engine tensorrt needs {model.name} as an .engine file: export it to TensorRT first")
    sidecar = read_sidecar(model)
    if precision not in ("auto", "fp32", sidecar.precision):
        raise UsageError(f"got precision {precision} for {model.name}, which is {sidecar.precision}: leave it at auto")
    content = _intact_content(model, sidecar)
    trt = load(sidecar.library)
    check_version(sidecar, trt.__version__, model)
    number = device_number(device)
    memory = open_cuda(number, None if library == "auto" else library)
    try:
        check_gpu(sidecar, memory.facts, model)
        with memory.active():
            loaded = LoadedEngine(trt, content, sidecar, model)
        return TensorrtEngine(loaded, memory, sidecar, _spec(sidecar, number))
    except BaseException:
        memory.close()
        raise


def devices() -> tuple[str, ...]:
    """Return the names of the devices here.

    Raises:
        MissingDependency: no TensorRT is installed, or nothing for a GPU's memory.
        EngineError: there is no GPU or no driver.
    """
    if not installed():
        raise MissingDependency(f'engine tensorrt needs TensorRT: run "{INSTALL["tensorrt"]}"')
    open_cuda(0).close()  # says why, where there is none
    return tuple(f"cuda:{number}" for number in range(max(1, nvidia_gpus())))


def check_version(sidecar: Sidecar, version: str, path: Path) -> None:
    """Raise EngineError where another version built the engine: TensorRT promises nothing across versions."""
    if sidecar.library_version != version:
        raise EngineError(
            f"{path} was built by {sidecar.library} {sidecar.library_version}, but {version} is installed: build the "
            "engine again by exporting the network"
        )


def check_gpu(sidecar: Sidecar, gpu: GpuFacts, path: Path) -> None:
    """Raise EngineError where the engine was built for another GPU than this one."""
    here = f"this GPU is {gpu.name}, {gpu.target}"
    if sidecar.gpu is not None:
        there = sidecar.gpu
        if (there.name, there.compute_capability) != (gpu.name, gpu.compute_capability):
            raise EngineError(
                f"{path} was built on {there.name}, {there.target}, but {here}: build the engine again here"
            )
    elif sidecar.targets and gpu.target not in sidecar.targets:
        raise EngineError(
            f"{path} was built for {', '.join(sidecar.targets)}, but {here}: export it for this GPU",
            option="compute_capabilities",
        )
    elif not sidecar.targets and gpu.target not in PORTABLE_TARGETS:
        raise EngineError(
            f"{path} was built for {', '.join(PORTABLE_TARGETS)}, but {here}{_advice_for(gpu.target)}",
            option="compute_capabilities" if gpu.target in _ONLY_WHEN_NAMED else None,
        )


def _advice_for(target: str) -> str:
    """Return what to do where an engine for all GPUs is not for this one."""
    if target in _ONLY_WHEN_NAMED:
        return f": export it for {target}"
    return ", which TensorRT for RTX does not know: build it with tensorrt, or take another engine"


def failure(log: Any, what: str, more: str = "") -> EngineError:
    """Return our error for a failed call, from TensorRT's messages: its calls only give False or None."""
    message = last_words(log)
    every = " ".join(text for _, text in log.messages)
    if any(part in message for part in OUT_OF_MEMORY):
        return OutOfMemory(f"{what}: out of memory; expected a smaller tile ({message[:200]})")
    if any(part in every for part in _TOO_OLD):
        return EngineError(f"{what}: NVIDIA's driver is too old for it ({message[:120]}): install a newer driver")
    return EngineError(f"{what}: {message}{more}")


def _spec(sidecar: Sidecar, number: int) -> EngineSpec:
    profile, multiple = sidecar.profile, sidecar.multiple_of
    return EngineSpec(
        name="tensorrt",
        scale=sidecar.scale,
        precision=sidecar.precision,
        io_dtype=sidecar.values,
        device=f"cuda:{number}",
        size=_size_rule(profile, multiple),
        pieces=GPU_PIECES,
        max_batch=MAX_BATCH,
        best_batch=_BEST_BATCH,
        device_bytes=gpu_memory_bytes(number),
    )


def _size_rule(profile: ShapeProfile, multiple: int) -> SizeRule:
    if profile.is_fixed:
        return SizeRule(minimum_px=multiple, multiple_of=multiple, fixed_px=profile.min_hw)
    smallest = -(-max(profile.min_hw) // multiple) * multiple
    return SizeRule(minimum_px=smallest, multiple_of=multiple, maximum_px=min(profile.max_hw))


def _intact_content(path: Path, sidecar: Sidecar) -> bytes:
    """Return the engine's bytes; raise ModelError for a changed file, which is not even given to TensorRT."""
    if file_sha256(path) != sidecar.engine_sha256:
        raise ModelError(f"{path} is damaged, or not the engine that its .json describes: build the engine again")
    return path.read_bytes()


def _describe(sidecar: Sidecar) -> str:
    built = f"on {sidecar.gpu.name}" if sidecar.gpu else f"for {', '.join(sidecar.targets or PORTABLE_TARGETS)}"
    return f" (it was built {built})"


def _compiled_path(sidecar: Sidecar) -> Path:
    """Return the file of kernels that TensorRT for RTX has compiled; it checks itself whether they fit the GPU."""
    return cache_folder() / "engines" / "compiled" / f"{sidecar.engine_sha256[:24]}.bin"


def _write_compiled(path: Path, content: bytes) -> None:
    """Write compiled kernels, if that is possible: without them the next start only takes longer."""
    with contextlib.suppress(OSError):
        write_whole(path, content)

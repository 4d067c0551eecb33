"""Builds a TensorRT engine from an ONNX file, in a child process, and proves it before it is moved into place.

onnx file -> child: parse, build, write -> proof on this GPU, if it is for it -> <target> and <target>.json
"""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

import realesr
from realesr.engine import Precision
from realesr.engines import model_facts
from realesr.engines.memory_cost import piece_sizes
from realesr.engines.nvidia.cuda_memory import GpuFacts, gpu_facts
from realesr.engines.nvidia.tensorrt_library import LIBRARIES, Library
from realesr.engines.nvidia.tensorrt_sidecar import ShapeProfile, Sidecar, sidecar_path, text_from_sidecar
from realesr.errors import UsageError
from realesr.export.tensorrt_child import BuildResult, BuildTask
from realesr.export.tensorrt_process import BuildProgressCallback, build_apart
from realesr.export.tensorrt_proof import prove
from realesr.machine.whole_file import file_sha256, folder_beside, not_written, put_in_place
from realesr.models.facts import ModelFacts

__all__ = ["ShapeProfile", "TensorrtOptions", "TensorrtReport", "export_tensorrt", "profile_for"]

WORKSPACE_BYTES = 4 << 30
LIMIT_SECONDS = 1800.0
"""Assumption: TensorRT tunes a network of this kind in minutes; half an hour means that it hangs."""


@dataclass(frozen=True, kw_only=True)
class TensorrtOptions:
    """Options of the build of an engine."""

    profile: ShapeProfile
    """Sizes that the engine takes; see `profile_for`."""
    library: Library = "tensorrt"
    compute_capabilities: tuple[str, ...] = ()
    """Ahead of time, for tensorrt-rtx alone: "sm89", "sm120", ...; none is this GPU for tensorrt, and all GPUs from
    Ampere on for tensorrt-rtx."""
    workspace_bytes: int = WORKSPACE_BYTES
    """Most memory of the GPU that one layer may use beside its input and output."""
    limit_seconds: float = LIMIT_SECONDS
    """After this the builder is ended."""
    device: int = 0
    """Number of the GPU that `tensorrt` builds on, and that the engine is proven on."""
    timing_cache: Path | None = None
    """For `tensorrt`: a file of measurements that makes a second build faster. TensorRT for RTX measures nothing."""
    reference: Path | None = None
    """The float32 ONNX file that the engine is proven against; none is the file itself, run in float32 on the CPU."""
    on_progress: BuildProgressCallback | None = None

    def __post_init__(self) -> None:
        if self.library not in LIBRARIES:
            raise UsageError(f"got the library {self.library}, expected {' or '.join(LIBRARIES)}")
        if self.compute_capabilities and self.library == "tensorrt":
            raise UsageError(
                f"got the GPUs {','.join(self.compute_capabilities)} with tensorrt, which builds for this machine's "
                "GPU: take tensorrt-rtx",
                option="to",
            )
        if len(set(self.compute_capabilities)) < len(self.compute_capabilities):
            raise UsageError(
                f"got the GPUs {','.join(self.compute_capabilities)}: expected each once", option="compute_capabilities"
            )
        if self.workspace_bytes < 1 or self.limit_seconds <= 0:
            raise UsageError(
                f"got a workspace of {self.workspace_bytes} bytes and a limit of {self.limit_seconds:g} s, expected "
                "more than 0"
            )
        if self.timing_cache is not None and self.library != "tensorrt":
            raise UsageError("got a timing cache for tensorrt-rtx: only tensorrt has one")


@dataclass(frozen=True, kw_only=True)
class TensorrtReport:
    """An engine that was built."""

    engine: Path
    sidecar: Sidecar
    """Content of the JSON beside the engine; `sidecar.proof` is its proof, or why there is none."""


def profile_for(facts: ModelFacts, *, read_px: int | None = None, max_batch: int = 1) -> ShapeProfile:
    """Return the sizes of one engine that serves every photo: from the smallest tile of a network to the largest.

    Args:
        facts: of the network.
        read_px: side of the largest tile with its overlap, where it was asked for; the profile never gets smaller
            than what was measured to be best on a CPU.
        max_batch: largest batch that is to run at once. Parts of one image are copied while another computes, so
            larger ones gain little.
    """
    multiple = facts.multiple_of
    largest = piece_sizes(facts.architecture, on_gpu=False).largest_tile_px
    best = _round_up(largest * multiple, multiple)
    most = max(best, _round_up(read_px or 1, multiple))
    return ShapeProfile(
        min_hw=(multiple, multiple), opt_hw=(best, best), max_hw=(most, most), opt_batch=1, max_batch=max_batch
    )


def export_tensorrt(onnx_path: Path, target: Path, options: TensorrtOptions) -> TensorrtReport:
    """Build an engine, prove it where a GPU can run it, and move it into place with its sidecar.

    Args:
        onnx_path: a network of one RGB image in and one out, float32 (N, 3, H, W) both; its arithmetic is the engine's.
        target: the engine's file, replaced if it is there; its folder is made.
        options: of the build.

    Raises:
        UsageError: an option that the library does not know, or a shape that the network does not take.
        ModelError: the file is no network that TensorRT reads, or that enlarges images.
        EngineError: the builder failed, crashed or took too long, or the engine does not compute what the network does.
        MissingDependency: the library is not installed.
        OutputError: the target cannot be written.
    """
    try:
        with folder_beside(target) as folder:
            part = folder / target.name
            task = _task(onnx_path, part, options)
            result = build_apart(task, limit_seconds=options.limit_seconds, on_progress=options.on_progress)
            sidecar = _described(onnx_path, part, options, result)
            _write_sidecar(sidecar, part)
            sidecar = dataclasses.replace(sidecar, proof=prove(part, options.reference or onnx_path, options.device))
            _write_sidecar(sidecar, part)
            # The old sidecar goes first: an engine without one is refused, one beside a wrong one would not be.
            sidecar_path(target).unlink(missing_ok=True)
            put_in_place(part, target)
            put_in_place(sidecar_path(part), sidecar_path(target))
    except OSError as error:
        raise not_written(target, error, "free some space, or choose another folder") from error
    return TensorrtReport(engine=target, sidecar=sidecar)


def _task(onnx_path: Path, part: Path, options: TensorrtOptions) -> BuildTask:
    return BuildTask(
        onnx_path=str(onnx_path),
        output_path=str(part),
        library=options.library,
        compute_capabilities=options.compute_capabilities,
        shapes=options.profile.shapes,
        workspace_bytes=options.workspace_bytes,
        timing_cache=str(options.timing_cache or ""),
        device=options.device,
    )


def _described(onnx_path: Path, part: Path, options: TensorrtOptions, result: BuildResult) -> Sidecar:
    import onnx

    facts = model_facts(onnx_path)
    written = {entry.key: entry.value for entry in onnx.load(onnx_path, load_external_data=False).metadata_props}
    return Sidecar(
        name=facts.name,
        scale=facts.scale,
        multiple_of=facts.multiple_of,
        radius_px=facts.radius_px,
        architecture=written.get("realesr.architecture", ""),
        precision=precision_of(onnx_path),
        values="uint8" if result.values == "uint8" else "float32",
        profile=options.profile,
        weights_sha256=written.get("realesr.sha256", ""),
        onnx_sha256=file_sha256(onnx_path),
        engine_sha256=result.engine_sha256,
        engine_bytes=part.stat().st_size,
        library=options.library,
        library_version=result.library_version,
        realesr_version=realesr.__version__,
        gpu=_gpu_built_for(options),
        targets=options.compute_capabilities,
        build_seconds=round(result.seconds, 3),
        layers=result.layers,
        layers_of=result.layers_of,
        proof="not proven yet",
    )


def _gpu_built_for(options: TensorrtOptions) -> GpuFacts | None:
    return gpu_facts(options.device) if options.library == "tensorrt" else None


def precision_of(onnx_path: Path) -> Precision:
    """Return the precision of a network's body: fp16 where most weights are, even if some layers stay float32."""
    import onnx

    model = onnx.load(onnx_path, load_external_data=False)
    numbers = {onnx.TensorProto.FLOAT: 0, onnx.TensorProto.FLOAT16: 0}
    for tensor in model.graph.initializer:
        if tensor.data_type in numbers:
            numbers[tensor.data_type] += math.prod(tensor.dims)
    return "fp16" if numbers[onnx.TensorProto.FLOAT16] > numbers[onnx.TensorProto.FLOAT] else "fp32"


def _write_sidecar(sidecar: Sidecar, engine: Path) -> None:
    sidecar_path(engine).write_text(text_from_sidecar(sidecar), encoding="utf-8")


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple

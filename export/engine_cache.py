"""Builds the TensorRT engines that engine tensorrt needs for a network, and keeps them by what they are for.

    <cache>/engines/<network>-<precision>-<digest>/   <network>-<precision>.engine, its .json, key.json

A folder appears whole, by one rename, or not at all. An engine that does not fit its key, or whose bytes have changed,
is never loaded: it is built anew.
"""

import contextlib
import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from realesr.engine import Precision
from realesr.engines import model_facts
from realesr.engines.nvidia.cuda_memory import GpuFacts, device_number, gpu_facts
from realesr.engines.nvidia.tensorrt_library import INSTALL, Library, installed, load, targets
from realesr.engines.nvidia.tensorrt_sidecar import SUFFIX, ShapeProfile, read_sidecar
from realesr.errors import EngineError, MissingDependency, ModelError, OutputError, UsageError
from realesr.export.tensorrt_build import (
    LIMIT_SECONDS,
    TensorrtOptions,
    export_tensorrt,
    precision_of,
    profile_for,
)
from realesr.export.tensorrt_process import BuildProgressCallback
from realesr.machine.whole_file import file_sha256, folder_beside
from realesr.models.onnx_graph import cached_onnx
from realesr.models.weights import Weights
from realesr.models.zoo import cache_folder

_KEY = "key.json"


@dataclass(frozen=True, kw_only=True)
class EngineKey:
    """All that an engine depends on. Two equal keys may share an engine, no others."""

    onnx_sha256: str
    """SHA-256 of the graph with its weights; it changes with either, and with how graphs are written."""
    weights_sha256: str
    precision: Precision
    profile: ShapeProfile
    library: Library
    library_version: str
    gpu: GpuFacts

    @property
    def text(self) -> str:
        """Return the key as JSON, for `key.json`."""
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True) + "\n"

    @property
    def digest(self) -> str:
        """Return 16 hexadecimal digits for the folder's name."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]


def cached_engine(
    model: Weights | Path,
    *,
    device: str = "auto",
    precision: str = "auto",
    read_px: int | None = None,
    may_build: bool = True,
    limit_seconds: float = LIMIT_SECONDS,
    on_progress: BuildProgressCallback | None = None,
) -> Path:
    """Return the path of a network's engine for a GPU of this machine, built where there is none yet.

    Args:
        model: weights, or an .onnx file.
        device: "auto", "cuda", "cuda:1", ...
        precision: "fp16" or "fp32"; "auto" is fp16. A file has its own.
        read_px: side of the largest tile with its overlap, where it was asked for.
        may_build: whether to build, which takes seconds with TensorRT for RTX and minutes with TensorRT.
        limit_seconds: after this the builder is ended.
        on_progress: called while the engine is built.

    Raises:
        UsageError: a precision that TensorRT does not have.
        EngineError: there is no GPU here, the library is not for it, the builder failed, the cache cannot be written;
            or there is no engine and it may not be built.
        MissingDependency: no TensorRT is installed.
        ModelError: the .onnx file is no network that enlarges images.
    """
    number = device_number(device)
    gpu = gpu_facts(number)
    library, version = _library_for(gpu)
    onnx_path, reference, body = _onnx_files(model, precision)
    facts = model_facts(model)
    key = EngineKey(
        onnx_sha256=file_sha256(onnx_path),
        weights_sha256=model.sha256 if isinstance(model, Weights) else "",
        precision=body,
        profile=profile_for(facts, read_px=read_px),
        library=library,
        library_version=version,
        gpu=gpu,
    )
    stem = f"{facts.name[:40]}-{key.precision}"  # file systems take names of some 250 bytes
    engine = cache_folder() / "engines" / f"{stem}-{key.digest}" / f"{stem}{SUFFIX}"
    if _is_intact(engine, key):
        return engine
    if not may_build:
        raise EngineError(
            f"no engine of {facts.name} has been built for {gpu.name} yet: naming the engine tensorrt builds it",
            option="engine",
        )
    options = TensorrtOptions(
        profile=key.profile,
        library=library,
        compute_capabilities=(gpu.target,) if library == "tensorrt-rtx" else (),
        device=number,
        limit_seconds=limit_seconds,
        reference=reference,
        timing_cache=_timing_cache(key) if library == "tensorrt" else None,
        on_progress=on_progress,
    )
    try:
        _build(onnx_path, engine, key, options)
    except (OSError, OutputError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise EngineError(
            f"{engine.parent} cannot be written ({reason}): free some space, or set REALESR_CACHE to another folder"
        ) from error
    return engine


def _library_for(gpu: GpuFacts) -> tuple[Library, str]:
    """Return TensorRT and its version where it is installed, for it tunes on the GPU itself; else TensorRT for RTX."""
    there = installed()
    if not there:
        raise MissingDependency(f"engine tensorrt needs TensorRT: run '{INSTALL['tensorrt']}'")
    library = there[0]
    trt = load(library)
    if library == "tensorrt-rtx" and gpu.target not in targets(trt):
        raise EngineError(
            f"tensorrt-rtx {trt.__version__} is not for {gpu.name} ({gpu.target}), but for {', '.join(targets(trt))}: "
            f"run '{INSTALL['tensorrt']}'"
        )
    return library, trt.__version__


def _onnx_files(model: Weights | Path, precision: str) -> tuple[Path, Path, Precision]:
    """Return the graph to build from, the one to prove the engine against, and the precision of the first."""
    if isinstance(model, Path):
        if precision != "auto":
            raise UsageError(f"got precision {precision} for {model.name}, which has its own: leave precision at auto")
        return model, model, precision_of(model)
    if precision not in ("auto", "fp16", "fp32"):
        raise UsageError(f"engine tensorrt got precision {precision}, expected fp16 or fp32")
    body: Precision = "fp32" if precision == "fp32" else "fp16"
    return cached_onnx(model, body), cached_onnx(model, "fp32"), body


def _timing_cache(key: EngineKey) -> Path:
    """Return the file of measurements for one version on one GPU; TensorRT itself checks both again."""
    name = "".join(letter if letter.isalnum() else "-" for letter in f"{key.gpu.name}-{key.library_version}")
    return cache_folder() / "engines" / f"timing-{name}.bin"


def _is_intact(engine: Path, key: EngineKey) -> bool:
    """Return whether the folder holds, to the last bit, an engine that was built for this key."""
    try:
        if engine.with_name(_KEY).read_text(encoding="utf-8") != key.text:
            return False
        sidecar = read_sidecar(engine)
        built = (sidecar.onnx_sha256, sidecar.library_version, sidecar.profile)
        return built == (key.onnx_sha256, key.library_version, key.profile) and (
            file_sha256(engine) == sidecar.engine_sha256
        )
    except (OSError, ValueError, ModelError):
        return False


def _build(onnx_path: Path, engine: Path, key: EngineKey, options: TensorrtOptions) -> None:
    """Build into a folder of another name, then give it the right one."""
    with folder_beside(engine.parent) as work:
        ready = work / "ready"
        export_tensorrt(onnx_path, ready / engine.name, options)
        (ready / _KEY).write_text(key.text, encoding="utf-8")
        _place(ready, engine, key, work)


def _place(ready: Path, engine: Path, key: EngineKey, work: Path) -> None:
    """Rename the finished folder, unless another process was quicker; move away one that does not fit the key."""
    for attempt in range(2):
        try:
            ready.rename(engine.parent)
            return
        except OSError:
            if _is_intact(engine, key):
                return
            with contextlib.suppress(FileNotFoundError):
                engine.parent.rename(work / f"replaced-{attempt}")
    ready.rename(engine.parent)

"""Runs an export from end to end: a network -> ONNX -> TensorRT engine, as far as the options say."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realesr.engines import model_facts
from realesr.engines.nvidia.tensorrt_library import require
from realesr.errors import RealesrError, UsageError
from realesr.export.onnx_export import ExportReport, beside, check_target, export_onnx
from realesr.export.proof import Proof
from realesr.export.request import ExportOptions
from realesr.export.sidecar import facts_of_file
from realesr.export.tensorrt_process import BuildProgressCallback
from realesr.models.graph_options import GraphOptions
from realesr.models.onnx_graph import graph_bytes
from realesr.models.weights import Weights
from realesr.models.zoo import load_model
from realesr.progress import AmountCallback, MessageCallback

if TYPE_CHECKING:
    from realesr.engines.nvidia.tensorrt_library import Library
    from realesr.engines.nvidia.tensorrt_sidecar import ShapeProfile


@dataclass(frozen=True, kw_only=True)
class Artefact:
    """One file that was written."""

    path: Path
    facts: dict[str, Any]
    """Content of the JSON beside it."""


@dataclass(frozen=True, kw_only=True)
class Listener:
    """Callbacks of an export; those that are left out do nothing."""

    say: MessageCallback = lambda text: None
    on_proof: Callable[[Proof], None] = lambda proof: None
    on_download: AmountCallback | None = None
    on_build: BuildProgressCallback = lambda share, phase: None


def export_network(options: ExportOptions, listener: Listener | None = None) -> tuple[Artefact, ...]:
    """Export a network, and return the files that were written.

    Raises:
        UsageError: options that make no sense, or not for this network.
        ModelError: the network cannot be had.
        MissingDependency: TensorRT was asked for and is not installed.
        OutputExists: a file is there and `overwrite` is false.
        OutputError: a file cannot be written.
        ExportError: an ONNX file does not compute what the network does.
        EngineError: an engine cannot be built, or does not compute what the network does.
    """
    listener = listener or Listener()
    network = load_model(
        options.model, denoise=options.denoise, denoise_with=options.denoise_with, on_progress=listener.on_download
    )
    if options.kind == "onnx":
        return _to_onnx(options, network, listener)
    check_target(options.target(_name(network)), overwrite=options.overwrite)
    require(_library(options))  # before minutes go into a graph that nothing can be built from
    if isinstance(network, Path):
        if options.precision != "fp32" or options.shape_nhw is not None or options.uint8:
            raise UsageError(
                f"got a precision, a shape or uint8 for {network}: an ONNX file has its own; leave them out"
            )
        return (_to_tensorrt(options, network, None, listener),)
    with beside(options.target(network.name)) as folder:
        # Sizes are the engine's matter: in the graph they stay open, for its smallest batch is always 1.
        graph = ExportOptions(
            to="onnx",
            output=folder / f"{network.name}.onnx",
            precision=options.precision,
            opset=options.opset,
            uint8=options.uint8,
        )
        report = _exported(graph, network, listener)
        return (_to_tensorrt(options, report.path, _reference(network, folder), listener),)


def _to_onnx(options: ExportOptions, network: Weights | Path, listener: Listener) -> tuple[Artefact, ...]:
    if isinstance(network, Path):
        raise UsageError(
            f"got {network}, which is an ONNX file already: give weights, or export it to tensorrt", option="to"
        )
    report = _exported(options, network, listener)
    found = Artefact(path=report.path, facts=asdict(report.sidecar))
    has_batch = options.shape_nhw is not None and options.shape_nhw[0] > 1
    if options.to is not None or options.precision != "fp16" or has_batch:
        return (found,)
    return (found, *_engine_beside(options, network, report.path, listener))


def _engine_beside(options: ExportOptions, network: Weights, path: Path, listener: Listener) -> tuple[Artefact, ...]:
    """Build the engine that comes with an fp16 file where TensorRT is installed; a failure is said, and no error."""
    from realesr.engines.nvidia.tensorrt_library import installed

    if not installed():
        return ()
    target = path.with_suffix(".engine")
    asked = replace(options, to=installed()[0], output=target)
    try:
        check_target(target, overwrite=options.overwrite)
        with beside(target) as folder:
            return (_to_tensorrt(asked, path, _reference(network, folder), listener),)
    except RealesrError as error:
        listener.say(f"no TensorRT engine beside it: {error}")
        return ()


def _exported(options: ExportOptions, network: Weights, listener: Listener) -> ExportReport:
    return export_onnx(options, network, say=listener.say, on_proof=listener.on_proof)


def _reference(network: Weights, folder: Path) -> Path:
    """Write the float32 graph, which an engine is proven against, and return its path."""
    path = folder / "reference.onnx"
    path.write_bytes(graph_bytes(network, GraphOptions()))
    return path


def _to_tensorrt(options: ExportOptions, onnx_path: Path, reference: Path | None, listener: Listener) -> Artefact:
    from realesr.engines.nvidia.tensorrt_sidecar import sidecar_path
    from realesr.export.tensorrt_build import LIMIT_SECONDS, WORKSPACE_BYTES, TensorrtOptions, export_tensorrt

    library = _library(options)
    target = options.target(onnx_path.stem)
    listener.say(f"{target.name}: building with {library}")
    report = export_tensorrt(
        onnx_path,
        target,
        TensorrtOptions(
            profile=_profile(options, onnx_path),
            library=library,
            compute_capabilities=options.compute_capabilities,
            workspace_bytes=WORKSPACE_BYTES if options.workspace_mb is None else options.workspace_mb << 20,
            limit_seconds=LIMIT_SECONDS if options.limit_minutes is None else options.limit_minutes * 60,
            timing_cache=options.timing_cache,
            reference=reference,
            on_progress=listener.on_build,
        ),
    )
    return Artefact(path=report.engine, facts=json.loads(sidecar_path(report.engine).read_text(encoding="utf-8")))


def _library(options: ExportOptions) -> "Library":
    return "tensorrt-rtx" if options.to == "tensorrt-rtx" else "tensorrt"


def _profile(options: ExportOptions, onnx_path: Path) -> "ShapeProfile":
    """Return the one shape that was asked for or that the file takes, else every size of tile."""
    from realesr.export.tensorrt_build import ShapeProfile, profile_for

    facts = model_facts(onnx_path)  # in words where it is no network of ours or damaged
    count, _, height, width = facts_of_file(onnx_path)["input_shape"]
    count, height, width = options.shape_nhw or (count, height, width)
    if not isinstance(height, int) or not isinstance(width, int):
        return profile_for(facts)
    batch, size = count if isinstance(count, int) else 1, (height, width)
    return ShapeProfile(min_hw=size, opt_hw=size, max_hw=size, opt_batch=batch, max_batch=batch)


def _name(network: Weights | Path) -> str:
    return network.stem if isinstance(network, Path) else network.name

"""Ways of running a network, a file or a folder each. `open_engine` opens one; nothing heavy is imported before."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realesr.engine import Engine, NearestEngine, Precision
from realesr.engines.choice import Choice, choose, kept_choice, machine_here
from realesr.engines.engine_options import checked_options
from realesr.engines.facts import EngineFacts
from realesr.engines.fidelity import bf16_is_measured
from realesr.errors import EngineError, MissingDependency, RealesrError, UsageError
from realesr.machine.forking import check_not_forked
from realesr.machine.memory import check_addresses
from realesr.models.facts import ModelFacts

if TYPE_CHECKING:
    from realesr.models.weights import Weights
    from realesr.models.zoo import ZooEntry

__all__ = [
    "ENGINE_NAMES",
    "ChosenEngine",
    "EngineFacts",
    "ModelFacts",
    "available_engines",
    "model_facts",
    "open_chosen_engine",
    "open_engine",
]

ENGINE_NAMES = ("winograd", "onnxruntime", "openvino", "ncnn", "torch", "tensorrt", "nearest")
"""Names that `open_engine` takes, beside "auto"."""

ENGINE_FILE_SUFFIX = ".engine"
"""Suffix of files that only engine tensorrt runs."""

EngineFile = Callable[[str, str, bool], Path]
"""Takes a device, a precision and whether building is allowed; gives the path of a network's TensorRT engine."""

_WITHOUT_OPTIONS = ("winograd", "openvino", "ncnn")

_ADDRESSES_TO_LOAD = {"onnxruntime": 120e6, "openvino": 400e6, "ncnn": 90e6, "torch": 740e6}
"""Name of an engine and of its package -> growth of the process's size from importing it to the first tile of a small
network, rounded up; measured on 2026-11-27 (onnxruntime 1.32, openvino 2026.4, ncnn 1.0, torch 2.13)."""

_INSTALL = {
    "winograd": "",
    "onnxruntime": "pip install onnxruntime",
    "openvino": "pip install openvino",
    "ncnn": "pip install ncnn",
    "torch": "pip install torch",
    "tensorrt": "pip install tensorrt cuda-bindings",
    "nearest": "",
}


@dataclass(frozen=True, kw_only=True)
class ChosenEngine:
    """An open engine, and how it was chosen."""

    engine: Engine
    chosen_because: str = ""
    """Why the automatic choice took this engine and device; empty where both were asked for."""
    tuned_tile_px: int | None = None
    """Side of the tile, overlap included, that `realesr tune` measured as the fastest; None where it was not run."""


def open_engine(model: "Weights | Path", **settings: Any) -> Engine:
    """Open a network; arguments and errors are those of `open_chosen_engine`."""
    return open_chosen_engine(model, **settings).engine


def open_chosen_engine(
    model: "Weights | Path",
    *,
    engine: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    options: Mapping[str, str] | None = None,
    engine_file: EngineFile | None = None,
) -> ChosenEngine:
    """Open a network, and tell why this engine was chosen.

    Args:
        model: weights, or the path of an .onnx file (for onnxruntime) or an .engine file (for tensorrt).
        engine: one of ENGINE_NAMES; "auto" is what `realesr.engines.choice` takes here.
        device: what the engine offers: "cpu", "cuda", "cuda:1", ...; "auto" likewise: a GPU before the CPU.
        precision: "fp32", "fp16" or "bf16" of the network's body; "auto" is fp16 on a GPU; on a CPU bf16 where
            processor and network are known to be good at it, else fp32.
        threads: CPU threads, 1 or more; none takes every core that this process may use.
        options: switches of one engine by name; the OPTIONS of its module say which there are, and so do
            `available_engines`. Where the engine is chosen automatically they must be options of the one chosen.
        engine_file: builds TensorRT's engines (engines import nothing that does); without it tensorrt runs .engine
            files alone. The automatic choice builds none while another engine has a GPU.

    Raises:
        UsageError: a name or combination that makes no sense, or an option that the engine does not have.
        EngineError: the engine does not have the device here, or cannot start; or this process was forked from one that
            had opened a network.
        ModelError: the file of `model` is damaged or holds no network that enlarges images.
        MissingDependency: the engine's package is not installed.
    """
    check_not_forked()
    if threads is not None and threads < 1:
        raise UsageError(f"got {threads} threads, expected 1 or more")
    given = dict(options or {})
    if engine == "nearest":
        return ChosenEngine(engine=_open_nearest(model, device, precision, given))
    if engine not in ("auto", *ENGINE_NAMES):
        raise UsageError(f"got the engine {engine}, expected auto, {', '.join(ENGINE_NAMES)}")
    is_file = isinstance(model, Path)
    if isinstance(model, Path) and model.suffix.lower() == ENGINE_FILE_SUFFIX:
        if engine not in ("auto", "tensorrt"):
            raise UsageError(f"engine {engine} got {model.name}, which only engine tensorrt runs")
        return ChosenEngine(engine=_open_tensorrt(model, device, precision, given))
    choices = choose(
        engine=engine,
        device=device,
        precision=precision,
        is_file=is_file,
        is_faithful_in_bf16=not isinstance(model, Path) and bf16_is_measured(model),
        has_enlarged_convolutions=isinstance(model, Path) or model.architecture.has_enlarged_convolutions,
        machine=machine_here(),
    )
    if engine == "auto" and not isinstance(model, Path):
        choices = (*_kept_choices(model, device, precision), *choices)
    return _open_first(choices, model, precision, threads, given, engine_file, may_build=engine == "tensorrt")


def _open_first(
    choices: Sequence[Choice],
    model: "Weights | Path",
    precision: str,
    threads: int | None,
    options: Mapping[str, str],
    engine_file: EngineFile | None,
    *,
    may_build: bool,
) -> ChosenEngine:
    """Open the first choice that starts; the reason tells of those that did not."""
    failures: list[str] = []
    for choice in choices:
        try:
            if choice.engine == "tensorrt":
                has_other_gpu = any(other.engine != "tensorrt" and other.device != "cpu" for other in choices)
                opened = _open_built(model, choice, precision, options, engine_file, may_build or not has_other_gpu)
            else:
                opened = _open_chosen(choice, model, precision, threads, options)
        except (EngineError, MissingDependency, UsageError) as error:
            if len(choices) == 1 or (isinstance(error, UsageError) and (options or choice.setting is None)):
                raise
            failures.append(f"{choice.engine} on {choice.device} did not start ({error})")
            continue
        tile_px = choice.setting.tile_px if choice.setting else None
        reason = "; ".join([choice.reason, *failures])
        return ChosenEngine(engine=opened, chosen_because=reason, tuned_tile_px=tile_px)
    raise EngineError(f"no engine works on the device {choices[-1].device}: {'; '.join(failures)}")


def _kept_choices(weights: "Weights", device: str, precision: str) -> tuple[Choice, ...]:
    """Return the setting that `realesr tune` has kept for this network, where it fits what was asked for."""
    from realesr.engines.tuning import kept_setting

    setting = kept_setting(weights, precision)
    return (kept_choice(setting),) if setting is not None and device in ("auto", setting.device) else ()


def _open_chosen(
    choice: Choice, model: "Weights | Path", precision: str, threads: int | None, options: Mapping[str, str]
) -> Engine:
    if choice.setting is not None:
        precision, threads = choice.setting.precision, threads or choice.setting.threads
        options = {**choice.setting.options, **options}
    if choice.engine in _WITHOUT_OPTIONS:
        checked_options(choice.engine, options, {})
    _check_addresses(choice.engine)
    try:
        if choice.engine == "onnxruntime":
            from realesr.engines.onnx_runtime.engine import open_onnxruntime

            return open_onnxruntime(model, device=choice.device, precision=precision, threads=threads, options=options)
        if choice.engine == "openvino":
            from realesr.engines.openvino_engine import open_openvino

            return open_openvino(model, device=choice.device, precision=precision, threads=threads)
        if choice.engine == "winograd":
            from realesr.engines.winograd.engine import open_winograd

            return open_winograd(model, device=choice.device, precision=precision, threads=threads)
        if choice.engine == "ncnn":
            from realesr.engines.ncnn_engine import open_ncnn

            return open_ncnn(model, device=choice.device, precision=precision, threads=threads)
        from realesr.engines.pytorch.engine import open_torch

        return open_torch(model, device=choice.device, precision=precision, threads=threads, options=options)
    except ImportError as error:
        raise _import_problem(choice.engine, error) from error


def _check_addresses(engine: str) -> None:
    """Raise OutOfMemory where a limit of this process leaves too few addresses to load an engine's package."""
    if engine in _ADDRESSES_TO_LOAD and engine not in sys.modules:
        check_addresses(_ADDRESSES_TO_LOAD[engine], f"engine {engine}")


def _open_built(
    model: "Weights | Path",
    choice: Choice,
    precision: str,
    options: Mapping[str, str],
    engine_file: EngineFile | None,
    may_build: bool,
) -> Engine:
    from realesr.engines.nvidia.tensorrt_engine import OPTIONS

    checked_options("tensorrt", options, OPTIONS)  # before minutes of building
    if engine_file is None:
        raise EngineError(f"engine tensorrt got {model.name}, expected an .engine file: export it to TensorRT first")
    return _open_tensorrt(engine_file(choice.device, precision, may_build), choice.device, "auto", options)


def _open_tensorrt(path: Path, device: str, precision: str, options: Mapping[str, str]) -> Engine:
    from realesr.engines.nvidia.tensorrt_engine import open_tensorrt

    return open_tensorrt(path, device=device, precision=precision, options=options)


def model_facts(model: "Weights | ZooEntry | Path") -> ModelFacts:
    """Return the facts about a network that planning its tiles needs; an entry of the zoo has them without its weights.

    Raises:
        ModelError: a path whose file is missing or damaged, or holds no network that enlarges images of any size.
        MissingDependency: onnxruntime is not installed, and the model is a path.
    """
    if isinstance(model, Path):
        if model.suffix.lower() == ENGINE_FILE_SUFFIX:
            from realesr.engines.nvidia.tensorrt_sidecar import read_sidecar

            return read_sidecar(model).facts
        try:
            from realesr.engines.onnx_runtime.engine import facts_from_file
        except ImportError as error:
            raise _import_problem("onnxruntime", error) from error
        return facts_from_file(model)
    architecture = model.architecture
    return ModelFacts(
        name=model.name,
        scale=architecture.scale,
        radius_px=architecture.radius_px,
        multiple_of=architecture.multiple_of,
        architecture=architecture,
    )


def available_engines() -> tuple[EngineFacts, ...]:
    """Return every engine, whether it works here, and what it offers. Imports their packages: it takes seconds."""
    return (
        _facts("winograd", _winograd, "realesr"),
        _facts("onnxruntime", _onnxruntime, "onnxruntime", "onnxruntime-gpu"),
        _facts("openvino", _openvino, "openvino"),
        _facts("ncnn", _ncnn, "ncnn"),
        _facts("torch", _torch, "torch"),
        _facts(
            "tensorrt", _tensorrt, "tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-rtx-cu13", "tensorrt-rtx"
        ),
        EngineFacts(name="nearest", version=None, devices=("cpu",), precisions=("fp32",), install=_INSTALL["nearest"]),
    )


_Options = Mapping[str, tuple[str, ...]]

_Offer = tuple[tuple[str, ...], tuple[Precision, ...], _Options, tuple[str, ...]]
"""Devices, precisions, options, and notes on further packages that were found."""


def _facts(name: str, offer: Callable[[], _Offer], *packages: str) -> EngineFacts:
    """Return what one engine offers here, or why it offers nothing."""
    problem = ""
    try:
        devices, precisions, options, notes = offer()
    except (ImportError, RealesrError) as error:
        (devices, precisions, options, notes), problem = ((), (), {}, ()), str(_import_problem(name, error))
    return EngineFacts(
        name=name,
        version=_version(*packages),
        devices=devices,
        precisions=precisions,
        install=_INSTALL[name],
        options=options,
        problem=problem,
        notes=notes,
    )


def _winograd() -> _Offer:
    from realesr.engines.winograd import engine as winograd_engine

    return winograd_engine.devices(), winograd_engine.PRECISIONS, {}, ()


def _onnxruntime() -> _Offer:
    from realesr.engines.onnx_runtime import devices as onnxruntime_devices
    from realesr.engines.onnx_runtime import engine as onnxruntime_engine

    devices, notes = onnxruntime_devices.devices(), onnxruntime_devices.plugin_problems()
    return devices, onnxruntime_engine.PRECISIONS, onnxruntime_engine.OPTIONS, notes


def _openvino() -> _Offer:
    from realesr.engines import openvino_engine

    return openvino_engine.devices(), openvino_engine.precisions(), {}, ()


def _ncnn() -> _Offer:
    from realesr.engines import ncnn_engine

    devices, precisions = ncnn_engine.devices(), ncnn_engine.PRECISIONS
    return devices, precisions if len(devices) > 1 else precisions[:1], {}, ()


def _torch() -> _Offer:
    from realesr.engines.pytorch import engine as torch_engine

    return torch_engine.devices(), torch_engine.PRECISIONS, torch_engine.OPTIONS, ()


def _tensorrt() -> _Offer:
    from realesr.engines.nvidia import tensorrt_engine

    return tensorrt_engine.devices(), tensorrt_engine.PRECISIONS, tensorrt_engine.OPTIONS, ()


def _open_nearest(model: "Weights | Path", device: str, precision: str, options: Mapping[str, str]) -> NearestEngine:
    checked_options("nearest", options, {})
    if device not in ("auto", "cpu"):
        raise EngineError(f"engine nearest got the device {device}, expected one that it has here: cpu")
    if precision not in ("auto", "fp32"):
        raise UsageError(f"engine nearest got precision {precision}, expected fp32")
    return NearestEngine(model_facts(model).scale)


def _import_problem(name: str, error: Exception) -> RealesrError:
    """Return the error for an engine whose file cannot be imported."""
    if isinstance(error, RealesrError):
        return error
    if isinstance(error, ModuleNotFoundError) and error.name == name:
        return MissingDependency(f"engine {name} needs the package {name}: run '{_INSTALL[name]}'")
    message = " ".join(str(error).split())
    return EngineError(f"the package {name} is installed but does not load ({message}): reinstall it")


def _version(*packages: str) -> str | None:
    import importlib.metadata

    for package in packages:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None

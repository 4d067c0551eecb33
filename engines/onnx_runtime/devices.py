"""Devices of ONNX Runtime: providers of the installed package, and plug-ins that packages beside it bring.

ONNX Runtime is imported inside functions: `onnxruntime_engine` must set a variable before its first import.
"""

import contextlib
import functools
import importlib
import importlib.metadata
import re
import sys
from dataclasses import dataclass
from typing import Any

from realesr.engine import Precision
from realesr.engines.choice import PLUGIN_MODULES
from realesr.engines.installed import is_installed
from realesr.errors import EngineError, MissingDependency, UsageError

_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino", "onnxruntime-qnn")
"""Packages that install the same folder, so that a later one overwrites an earlier."""

_NUMBERED = ("cuda", "tensorrt", "dml", "migraphx", "cann", *PLUGIN_MODULES)
"""Providers with an option `device_id`, as their pages under onnxruntime.ai/docs/execution-providers list it, and
plug-ins, which list their devices."""

_PLUGIN_PACKAGES = {"webgpu": "onnxruntime-ep-webgpu", "tensorrt_rtx": "onnxruntime-ep-nv-tensorrt-rtx"}

_FIRST_WEBGPU_WITH_NUMBERS = (0, 5)
"""Version of the plug-in that takes `adapterIndex`; earlier ones choose the GPU themselves (its page on the index)."""

_CUDA_OPTIONS = {"arena_extend_strategy": "kSameAsRequested", "cudnn_conv_algo_search": "HEURISTIC"}
"""Memory grows by what is needed, not to the next power of two, and cuDNN is asked for its best guess: trying all
algorithms, the default, is done for each of a network's 351 convolutions and for each new shape of tiles. Names:
onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html. Not measured on a GPU yet."""


@dataclass(frozen=True, kw_only=True)
class ProviderPlace:
    """One device of ONNX Runtime."""

    kind: str
    """Name without a number: "cpu", "cuda", ..."""
    number: int = 0

    @property
    def device(self) -> str:
        """Return its name, with a number where it has one: "cuda:0"."""
        return f"{self.kind}:{self.number}" if self.kind in _NUMBERED else self.kind

    @property
    def is_plugin(self) -> bool:
        """Return whether a package beside ONNX Runtime brings it."""
        return self.kind in PLUGIN_MODULES


def check_packages() -> None:
    """Raise EngineError where two packages of ONNX Runtime have overwritten each other."""
    installed = []
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            importlib.metadata.version(package)
            installed.append(package)
    if len(installed) > 1:
        raise EngineError(
            f"{' and '.join(installed)} are installed and overwrite each other: expected one of them; run "
            f"'pip uninstall -y {' '.join(installed)}', then 'pip install {installed[-1]}'"
        )


def devices() -> tuple[str, ...]:
    """Return the names of the devices here: "cpu", the package's other providers, and plug-ins that find a device."""
    check_packages()
    import onnxruntime

    names = [name.removesuffix("ExecutionProvider").lower() for name in onnxruntime.get_available_providers()]
    others = [name for name in names if name not in ("cpu", "azure")]  # Azure sends the image to a server
    return ("cpu", *others, *(name for name in PLUGIN_MODULES if not plugin_problem(name)))


def place_for(device: str) -> ProviderPlace:
    """Return the place of a device such as "cuda:1", checked against those that are here; "auto" is the CPU.

    Raises:
        EngineError: it is not offered here.
        UsageError: a number that makes no sense.
        MissingDependency: a plug-in whose package is not installed.
    """
    kind, colon, number = ("cpu" if device == "auto" else device.lower()).partition(":")
    if kind in PLUGIN_MODULES:
        plugin_devices(kind)  # says what is wrong with it
    elif kind != "cpu" and kind not in devices():
        raise EngineError(
            f"engine onnxruntime got the device {device}, expected one that it has here: {', '.join(devices())}"
        )
    if colon and (kind not in _NUMBERED or not number.isdigit()):
        raise UsageError(
            f"got the device {device}, expected {kind}:0, {kind}:1, ..."
            if kind in _NUMBERED
            else f"got the device {device}, expected {kind}: it has no numbers"
        )
    return ProviderPlace(kind=kind, number=int(number or 0))


def add_place(
    options: Any, place: ProviderPlace, precision: Precision, *, prefer_nhwc: bool = False
) -> tuple[str, dict[str, Any]]:
    """Put a place into a session's options.

    Args:
        options: of the session.
        place: where it is to run.
        precision: of the network's body.
        prefer_nhwc: whether convolutions on CUDA run on channels-last maps.

    Returns:
        The provider that the session must then have, and the further arguments of `InferenceSession`.
    """
    if place.is_plugin:
        found, own = _plugin_device(place)
        options.add_provider_for_devices([found], own)
        return str(found.ep_name), {}
    import onnxruntime

    spelled = {offered.lower(): offered for offered in onnxruntime.get_available_providers()}
    provider = str(spelled[f"{place.kind}executionprovider"])
    if place.kind == "cpu":
        return provider, {"providers": [provider]}
    own = {"device_id": str(place.number)} if place.kind in _NUMBERED else {}
    if place.kind == "cuda":
        with contextlib.redirect_stdout(sys.stderr):  # it prints what it does not find, and stdout is for results
            onnxruntime.preload_dlls()  # finds CUDA and cuDNN where pip has put them
        own |= _CUDA_OPTIONS
        if prefer_nhwc:
            own["prefer_nhwc"] = "1"
        if precision == "fp32":
            own["use_tf32"] = "0"  # 10 bits of mantissa would be those of fp16
    return provider, {"providers": [(provider, own), "CPUExecutionProvider"]}


def plugin_problems() -> tuple[str, ...]:
    """Return why plug-ins that are installed cannot be used here, one line each."""
    installed = (kind for kind, names in PLUGIN_MODULES.items() if any(map(is_installed, names)))
    return tuple(f"{kind}: {problem}" for kind in installed if (problem := plugin_problem(kind)))


def plugin_problem(kind: str) -> str:
    """Return why a plug-in cannot be used here, in one line; empty where it can."""
    try:
        plugin_devices(kind)
    except (EngineError, MissingDependency) as error:
        return str(error)
    return ""


def plugin_devices(kind: str) -> tuple[Any, ...]:
    """Return the devices of a plug-in, real ones only; its library stays registered until the process ends.

    Raises:
        MissingDependency: its package is not installed.
        EngineError: its library cannot be registered, or finds no device.
    """
    module = _plugin_module(kind)
    found, problem = _registered(kind, module)
    if problem:
        raise EngineError(
            f"the plug-in {_PLUGIN_PACKAGES[kind]} cannot start here ({problem}): expected the GPU's driver"
        )
    if not found:
        raise EngineError(
            f"the plug-in {_PLUGIN_PACKAGES[kind]} starts but finds no device: expected a GPU with its driver"
            + (" and the Vulkan loader" if kind == "webgpu" else "")
        )
    return found


@functools.cache
def _registered(kind: str, module: Any) -> tuple[tuple[Any, ...], str]:
    """Register a plug-in once, for a second time is an error of its own; return its devices and what went wrong."""
    import onnxruntime

    try:
        onnxruntime.register_execution_provider_library(f"realesr-{kind}", module.get_library_path())
        names = module.get_ep_names()
        found = [device for device in onnxruntime.get_ep_devices() if device.ep_name in names]
    except Exception as error:  # a driver that is too old may raise anything
        message = " ".join(str(error).split())
        return (), re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", message)[-300:]
    return tuple(device for device in found if device.device.metadata.get("is_virtual") != "1"), ""


def _plugin_module(kind: str) -> Any:
    for name in PLUGIN_MODULES[kind]:
        if is_installed(name):
            try:
                return importlib.import_module(name)
            except Exception as error:  # it loads libraries of its own
                message = " ".join(str(error).split())
                raise EngineError(
                    f"the package {_PLUGIN_PACKAGES[kind]} does not load ({message}): reinstall it"
                ) from error
    package = _PLUGIN_PACKAGES[kind]
    raise MissingDependency(f"the device {kind} needs the package {package}: run 'pip install {package}'")


def _plugin_device(place: ProviderPlace) -> tuple[Any, dict[str, str]]:
    """Return what `add_provider_for_devices` takes. WebGPU's plug-in shows one device and finds the GPU itself."""
    found = plugin_devices(place.kind)
    if place.kind == "webgpu" and place.number > 0:
        version = found[0].ep_metadata.get("version", "0")
        if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < _FIRST_WEBGPU_WITH_NUMBERS:
            raise EngineError(
                f"got the device {place.device}, but onnxruntime-ep-webgpu {version} chooses the GPU itself: "
                "expected webgpu, or version 0.5 or later of the package"
            )
        return found[0], {"adapterIndex": str(place.number)}
    if place.number >= len(found):
        raise EngineError(f"got the device {place.device}, expected {place.kind}:0 to {place.kind}:{len(found) - 1}")
    return found[place.number], {}

"""Runs networks with ncnn: float32 with Winograd's convolutions on the CPU, and any maker's GPU through Vulkan."""

import contextlib
import ctypes
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realesr.engine import EngineBase, EngineSpec, PieceSizes, Precision, ProgressCallback, SizeRule, check_batch
from realesr.engines.facts import weights_alone
from realesr.engines.memory_cost import MemoryCost
from realesr.engines.translation import translated
from realesr.errors import EngineError, UsageError
from realesr.machine.cgroup import usable_cores
from realesr.machine.environment import default_variable
from realesr.models.architecture import Architecture
from realesr.models.ncnn_graph import INPUT, OUTPUT, ncnn_files
from realesr.models.weights import Weights

# OpenMP's threads shall sleep while they wait. By default they spin, and take the cores from whatever reads, writes and
# joins tiles: on two cores with other work besides, 20 to 29 us/px asleep against 55 to 85 spinning
# (realesr-animevideov3, 256 px), 209 against 504 (realesrgan-x4plus-anime).
with default_variable("OMP_WAIT_POLICY", "PASSIVE"):
    import ncnn  # type: ignore[import-untyped, unused-ignore]

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")
"""Precisions on Vulkan; a CPU has fp32 alone."""

COST = MemoryCost(maps=12, enlarged_maps=14)
"""It transforms maps for Winograd's convolutions, and keeps what it has freed: at most 11.8 maps of
realesr-animevideov3 and 13.9 of realesrgan-x4plus, at 128 px and more."""

PIECES = PieceSizes(largest_tile_px=320)
ENLARGED_PIECES = PieceSizes(largest_tile_px=192)

_NO_MEMORY = -100
"""Code of ncnn's calls where memory is short (src/net.cpp, src/layer.h); other numbers below 0 are other faults."""

_VULKAN_LOADERS = {
    "win32": ("vulkan-1.dll",),
    "darwin": ("libvulkan.dylib", "libvulkan.1.dylib", "libMoltenVK.dylib"),
}
_VULKAN_LOADERS_ELSEWHERE = ("libvulkan.so.1", "libvulkan.so")


class NcnnEngine(EngineBase):
    """An open net. One image at a time: ncnn's arrays have no batch."""

    def __init__(self, net: Any, spec: EngineSpec) -> None:
        self.spec = spec
        self._net: Any = net

    def run(self, batch: NDArray[np.float32], on_progress: ProgressCallback | None = None) -> NDArray[np.float32]:
        """Enlarge a batch; see `Engine.run`."""
        check_batch(batch, self.spec)
        if self._net is None:
            raise EngineError("engine ncnn is closed: open it again")
        _, _, height, width = batch.shape
        with _translated(self.spec.device):
            extractor = self._net.create_extractor()
            given = extractor.input(INPUT, ncnn.Mat(np.ascontiguousarray(batch[0])))
            code, result = extractor.extract(OUTPUT) if given == 0 else (given, None)
            if code == _NO_MEMORY:
                raise MemoryError
            output = np.array(result)[None] if code == 0 else np.empty(0, np.float32)
        expected = (1, 3, height * self.spec.scale, width * self.spec.scale)
        if output.shape != expected:
            raise EngineError(
                f"engine ncnn on {self.spec.device} gave {output.shape} (code {code}), expected {expected}"
            )
        return output

    def bytes_for(self, architecture: Architecture, height_px: int, width_px: int, *, in_strips: bool = False) -> float:
        """Return the memory for a piece of an image; see `Engine.bytes_for`."""
        return COST.bytes_for(architecture, height_px, width_px)

    def close(self) -> None:
        """Free the net."""
        self._net = None


def open_ncnn(
    model: Weights | Path, *, device: str = "auto", precision: str = "auto", threads: int | None = None
) -> NcnnEngine:
    """Open a network; the arguments are those of `realesr.engines.open_engine`."""
    weights = weights_alone(model, "ncnn")
    gpu = _parsed_device(device)
    body = _body_precision(gpu, precision)
    net = ncnn.Net()
    _set_options(net, gpu, body, threads or usable_cores())
    with _translated("cpu" if gpu is None else f"vulkan:{gpu}"):
        _load(net, weights)
    multiple_of = weights.architecture.multiple_of
    spec = EngineSpec(
        name="ncnn",
        scale=weights.architecture.scale,
        precision=body,
        device="cpu" if gpu is None else f"vulkan:{gpu}",
        size=SizeRule(minimum_px=multiple_of, multiple_of=multiple_of),
        pieces=ENLARGED_PIECES if weights.architecture.has_enlarged_convolutions else PIECES,
    )
    return NcnnEngine(net, spec)


def devices() -> tuple[str, ...]:
    """Return the names of the devices here, "cpu" first."""
    return ("cpu", *(f"vulkan:{number}" for number in range(_gpu_count())))


def _gpu_count() -> int:
    """Count the GPUs that Vulkan shows. Without a loader of Vulkan ncnn is not asked: it would complain on stderr."""
    return int(ncnn.get_gpu_count()) if _has_vulkan_loader() else 0


def _has_vulkan_loader() -> bool:
    for name in _VULKAN_LOADERS.get(sys.platform, _VULKAN_LOADERS_ELSEWHERE):
        with contextlib.suppress(OSError):
            ctypes.CDLL(name)
            return True
    return False


def _parsed_device(device: str) -> int | None:
    """Return a GPU's number ("vulkan:1" -> 1), or None for the CPU: Vulkan, which starts slowly, is not asked then."""
    wanted = {"auto": "cpu", "vulkan": "vulkan:0"}.get(device.lower(), device.lower())
    if wanted == "cpu":
        return None
    offered = devices()
    if wanted not in offered:
        raise EngineError(
            f"engine ncnn got the device {device}, expected one that it has here: {', '.join(offered)}"
            + ("" if _has_vulkan_loader() else " (Vulkan is not installed)")
        )
    return int(wanted.partition(":")[2])


def _body_precision(gpu: int | None, precision: str) -> Precision:
    if precision == "auto":
        return "fp32" if gpu is None else "fp16"
    if precision == "fp16" and gpu is None:
        # Its options of 16 bits change nothing on an x86 processor: not one value differs.
        raise UsageError("engine ncnn got precision fp16 on the CPU, expected fp32: it calculates in fp32 there")
    for offered in PRECISIONS:
        if precision == offered:
            return offered
    raise UsageError(f"engine ncnn got precision {precision}, expected {' or '.join(PRECISIONS)}")


def _set_options(net: Any, gpu: int | None, precision: Precision, threads: int) -> None:
    options = net.opt
    options.num_threads = threads
    options.use_vulkan_compute = gpu is not None
    if gpu is not None:
        net.set_vulkan_device(gpu)
    for name in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"):
        setattr(options, name, precision == "fp16")
    options.use_bf16_storage = False


def _load(net: Any, weights: Weights) -> None:
    """Load a network from files: what is loaded from memory is used in place, and Python would free it."""
    param, numbers = ncnn_files(weights)
    try:
        with tempfile.TemporaryDirectory(prefix="realesr-ncnn-") as folder:
            (Path(folder) / "net.param").write_text(param, encoding="ascii")
            (Path(folder) / "net.bin").write_bytes(numbers)
            codes = net.load_param(f"{folder}/net.param"), net.load_model(f"{folder}/net.bin")
    except OSError as error:
        raise EngineError(
            f"the folder for temporary files cannot be written ({error.strerror}): free some space, or set TMPDIR"
        ) from error
    if codes != (0, 0):
        raise EngineError(
            f"ncnn does not load {weights.name} (codes {codes}): expected 0; take another engine", option="engine"
        )


def _translated(device: str) -> contextlib.AbstractContextManager[None]:
    """Translate ncnn's errors; most are codes and not exceptions."""
    return translated(f"engine ncnn on {device}")

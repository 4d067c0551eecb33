"""Chooses engine and device where the user names none: a table of rows in the order in which they are tried.

Looking must stay cheap, for every start of `realesr upscale` does it: no engine's package is imported here. Whether a
row really works shows when it is opened; `open_engine` then goes on to the next one, and says so.
"""

import importlib.util
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from realesr.engines.installed import is_installed
from realesr.engines.nvidia.cuda_memory import CUDA_MEMORY_MODULES
from realesr.engines.nvidia.tensorrt_library import TENSORRT_MODULES
from realesr.engines.winograd.kernel import is_usable
from realesr.machine.nvidia_driver import gpu_names
from realesr.machine.processor import has_amx, has_fast_bf16

if TYPE_CHECKING:
    from realesr.engines.tuning import Setting

PLUGIN_MODULES = {
    "webgpu": ("onnxruntime_ep_webgpu",),
    "tensorrt_rtx": ("onnxruntime_ep_nv_tensorrt_rtx",),
}
"""Devices that ONNX Runtime gets from a package of their own, and the modules in which the library may lie."""

MEASURED_PROCESSORS = ("x86_64", "AMD64")
"""Processors on which winograd, OpenVINO and ncnn were measured against ONNX Runtime. On others they run when they are
asked for, or when `realesr tune` has found them to be the fastest."""


@dataclass(frozen=True, kw_only=True)
class ChoiceRow:
    """One engine on one kind of device."""

    engine: str
    """Its name."""
    device: str
    """Kind of device, without a number: "cpu", "cuda", ..."""
    why: str
    """Reason that the user is told where this row is taken."""
    precisions: tuple[str, ...]
    """Precisions that the engine has there."""
    runs_files: bool = False
    """Whether it runs .onnx files, or weights alone."""
    needs_bf16: bool = False
    """Whether it is worth its place only in bf16: on processors made for it, and networks that stay near fp32 in it."""
    needs_amx: bool = False
    """Whether it is worth its place only where the processor multiplies matrices of bf16."""
    without_enlarged_convolutions: bool = False
    """Whether it is worth its place only for networks that do not convolve behind an enlargement."""


_ALWAYS_INSTALLED = ChoiceRow(
    engine="onnxruntime",
    device="cpu",
    why="no GPU that an installed engine can use",
    precisions=("fp32", "fp16"),
    runs_files=True,
)

ROWS = (
    ChoiceRow(engine="tensorrt", device="cuda", why="an NVIDIA GPU with TensorRT", precisions=("fp32", "fp16")),
    ChoiceRow(
        engine="onnxruntime",
        device="cuda",
        why="an NVIDIA GPU with onnxruntime-gpu",
        precisions=("fp32", "fp16"),
        runs_files=True,
    ),
    ChoiceRow(engine="torch", device="cuda", why="an NVIDIA GPU with PyTorch", precisions=("fp32", "fp16", "bf16")),
    ChoiceRow(
        engine="torch",
        device="mps",
        why="an Apple GPU with PyTorch (not measured against Core ML)",
        precisions=("fp32", "fp16", "bf16"),
    ),
    ChoiceRow(
        engine="onnxruntime",
        device="tensorrt_rtx",
        why="an NVIDIA GPU with ONNX Runtime's TensorRT-RTX plug-in",
        precisions=("fp32", "fp16"),
        runs_files=True,
    ),
    ChoiceRow(
        engine="onnxruntime",
        device="webgpu",
        why="a GPU with ONNX Runtime's WebGPU plug-in",
        precisions=("fp32", "fp16"),
        runs_files=True,
    ),
    ChoiceRow(
        engine="openvino",
        device="cpu",
        why="this processor's AMX with OpenVINO's bf16, near enough to fp32 (not measured against winograd)",
        precisions=("bf16",),
        needs_bf16=True,
        needs_amx=True,
    ),
    ChoiceRow(engine="winograd", device="cpu", why="the fastest fp32 on a CPU, realesr's own", precisions=("fp32",)),
    ChoiceRow(
        engine="openvino",
        device="cpu",
        why="this processor's bf16 with OpenVINO, measured to be near enough to fp32",
        precisions=("bf16",),
        needs_bf16=True,
    ),
    ChoiceRow(
        engine="ncnn",
        device="cpu",
        why="the fastest fp32 of small networks on a CPU, ncnn's",
        precisions=("fp32",),
        without_enlarged_convolutions=True,
    ),
    ChoiceRow(engine="openvino", device="cpu", why="OpenVINO's fp32 on a CPU", precisions=("fp32",)),
    _ALWAYS_INSTALLED,
    ChoiceRow(engine="torch", device="cpu", why="PyTorch on the CPU", precisions=("fp32", "fp16", "bf16")),
    ChoiceRow(engine="ncnn", device="vulkan", why="ncnn on a GPU through Vulkan", precisions=("fp32", "fp16")),
)
"""GPUs before the CPU; on each, what others measured as the fastest first (x4plus in fp16: TensorRT, then ONNX
Runtime, then PyTorch). Of these we have measured only PyTorch, on an H100. Vulkan comes last, where only those get it
who ask for it: what it shows may be a processor that plays a GPU.

On CPUs microseconds per input pixel, the same weights and pixels in all engines:

|                               | ONNX Runtime | OpenVINO fp32 | ncnn | OpenVINO bf16 | winograd |
|-------------------------------|--------------|---------------|------|---------------|----------|
| two cores with AVX-512-BF16, wall time                                                         |
| realesrgan-x4plus, 128 px     |          206 |           201 |  150 |            97 |        ? |
| realesr-animevideov3, 256 px  |          8.2 |           6.1 |  4.7 |           3.2 |        ? |
| two cores with AVX2 (AMD Zen 3), wall time                                                     |
| realesrgan-x4plus, 128 px     |          259 |           252 |  275 |             - |      136 |
| realesrgan-x4plus-anime, 128  |           89 |            92 |   90 |             - |       44 |
| realesr-animevideov3, 256 px  |         11.0 |           8.8 |  7.3 |             - |      4.6 |

Against ONNX Runtime winograd's fp32 is 1.9 to 2.4 times as fast on the second, and exact; bf16 was 2.1 to 2.6 times on
the first, and is not. So winograd comes first on both.

With AMX (Intel, from Sapphire Rapids on) arithmetic puts bf16 first. It was not measured: `realesr tune` decides.

|                                                       | multiply-accumulates a cycle and core |
|-------------------------------------------------------|---------------------------------------|
| fp32, AVX-512 with two units of 16 lanes              |                                    32 |
| winograd: 144 for the work of 36, so at most          |                                   128 |
| winograd, measured with x4plus (57.6 us at 4.1 GHz)   |                                    76 |
| bf16, AVX-512 with two units                          |                                    64 |
| bf16, AMX: 16 x 16 x 32 in 16 cycles                  |                                   512 |

OpenVINO is ahead of winograd there from 15 % of AMX's rate on; of the AVX-512 units' bf16 it reached 88 %.
Source of the last two rows: Intel, "64 and IA-32 Architectures Optimization Reference Manual", VDPBF16PS and TDPBF16PS.

Where it was not compiled: with x4plus ncnn takes 50 kB a pixel, six times as much as OpenVINO. Its tiles are smaller,
and what more of them overlaps costs more than it gains.
"""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Hardware and engines of this machine, found without importing an engine's package."""

    nvidia_gpus: int
    """Number of GPUs that NVIDIA's driver shows to this process."""
    has_fast_bf16: bool = False
    """Whether the processor multiplies bf16 numbers itself."""
    has_amx: bool = False
    """Whether it multiplies matrices of them."""
    offered: frozenset[tuple[str, str]]
    """(engine, device without number) of each row whose packages are installed and whose hardware is there."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One engine on one device, and why."""

    engine: str
    device: str
    reason: str
    """One line for people; empty where the user chose both."""
    setting: "Setting | None" = None
    """Setting that `realesr tune` measured as the fastest, where the choice is due to that."""


def kept_choice(setting: "Setting") -> Choice:
    """Return the choice that comes first where `realesr tune` has been run for a network."""
    options = ", ".join(f"{name}={value}" for name, value in setting.options.items())
    return Choice(
        engine=setting.engine,
        device=setting.device,
        reason="the fastest that was measured here" + (f", with {options}" if options else ""),
        setting=setting,
    )


def choose(
    *,
    engine: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    is_file: bool = False,
    is_faithful_in_bf16: bool = False,
    has_enlarged_convolutions: bool = True,
    machine: Machine,
) -> tuple[Choice, ...]:
    """Return what to open, best first; the later choices are for the case that an earlier one cannot start.

    Args:
        engine: "auto", or the name of the only engine to take.
        device: "auto", or the only device to take: "cpu", "cuda:1", ...
        precision: "auto", "fp32", "fp16" or "bf16".
        is_file: whether the network is an .onnx file.
        is_faithful_in_bf16: whether the network was measured to be near enough to fp32 in bf16.
        has_enlarged_convolutions: whether the network convolves behind an enlargement.
        machine: what there is here.

    Returns:
        At least one choice. Where no row fits what was asked for, it is just that: the engine then says what is wrong.
    """
    if engine != "auto" and device != "auto":
        return (Choice(engine=engine, device=device, reason=""),)
    kind = device.lower().partition(":")[0]
    rows = [
        row
        for row in ROWS
        if engine in ("auto", row.engine)
        and kind in ("auto", row.device)
        and (precision == "auto" or precision in row.precisions)
        and (row.runs_files or not is_file)
        and (not row.needs_amx or machine.has_amx)
        and (not row.needs_bf16 or (machine.has_fast_bf16 and (is_faithful_in_bf16 or precision == "bf16")))
        and (not (has_enlarged_convolutions and row.without_enlarged_convolutions) or engine != "auto")
        and (row.engine, row.device) in machine.offered
    ]
    if not rows:
        return (_nothing_fits(engine, device),)
    if _ALWAYS_INSTALLED in rows:  # where that is broken, it must be mended and not passed over
        rows = rows[: rows.index(_ALWAYS_INSTALLED) + 1]
    return tuple(
        Choice(engine=row.engine, device=row.device if device == "auto" else device, reason=_reason(row, machine, kind))
        for row in rows
    )


def _nothing_fits(engine: str, device: str) -> Choice:
    if engine != "auto":
        return Choice(engine=engine, device=device, reason="")
    return Choice(engine="onnxruntime", device=device, reason="no other engine fits what was asked for")


def _reason(row: ChoiceRow, machine: Machine, asked_kind: str) -> str:
    if row.device == "cpu" and asked_kind == "cpu":
        return "the CPU was asked for"
    if row.device == "cuda" and asked_kind == "auto" and machine.nvidia_gpus > 1:
        numbers = ",".join(map(str, range(machine.nvidia_gpus)))
        return f"{row.why}; device cuda:{numbers} uses all {machine.nvidia_gpus}"
    return row.why


def machine_here(*, with_unmeasured: bool = False) -> Machine:
    """Look at this machine. Milliseconds where there is no GPU; starting an NVIDIA driver can take 0.1 s.

    Args:
        with_unmeasured: whether to offer engines that nobody has measured on a processor of this kind.
    """
    gpus = nvidia_gpus()
    offered = {("onnxruntime", "cpu")}
    if with_unmeasured or platform.machine() in MEASURED_PROCESSORS:
        offered |= _installed_for_cpus()
    if is_installed("torch"):
        offered.add(("torch", "cpu"))
        if sys.platform == "darwin" and platform.machine() == "arm64":
            offered.add(("torch", "mps"))
        if gpus and _torch_has_cuda():
            offered.add(("torch", "cuda"))
    if is_installed("ncnn"):
        offered.add(("ncnn", "vulkan"))
    if gpus and _has_package("onnxruntime-gpu"):
        offered.add(("onnxruntime", "cuda"))
    has_tensorrt = any(map(is_installed, TENSORRT_MODULES.values()))
    if gpus and has_tensorrt and any(map(is_installed, CUDA_MEMORY_MODULES.values())):
        offered.add(("tensorrt", "cuda"))
    for device, modules in PLUGIN_MODULES.items():
        if any(map(is_installed, modules)) and (gpus or device != "tensorrt_rtx"):
            offered.add(("onnxruntime", device))
    return Machine(nvidia_gpus=gpus, has_fast_bf16=has_fast_bf16(), has_amx=has_amx(), offered=frozenset(offered))


def _installed_for_cpus() -> set[tuple[str, str]]:
    own = {("winograd", "cpu")} if is_usable() else set()
    return own | {(name, "cpu") for name in ("openvino", "ncnn") if is_installed(name)}


def nvidia_gpus() -> int:
    """Return how many GPUs NVIDIA's driver shows to this process; CUDA_VISIBLE_DEVICES counts."""
    return len(gpu_names())


def _has_package(name: str) -> bool:
    import importlib.metadata

    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _torch_has_cuda() -> bool:
    """Return whether the installed torch is built for CUDA, by its libraries: importing it takes seconds."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return False
    return any((Path(found.origin).parent / "lib").glob("*torch_cuda*"))

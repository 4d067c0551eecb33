"""Runs networks with PyTorch, on the CPU or on a GPU that it knows. Takes weights, not .onnx files."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils import convert_conv2d_weight_memory_format

from realesr.cgroup import usable_cores
from realesr.engine import MAX_BATCH, EngineBase, EngineSpec, Precision, SizeRule, check_batch
from realesr.errors import EngineError, OutOfMemory, UsageError
from realesr.networks import build_with
from realesr.networks.strips import StripModule
from realesr.strips import Strips, check_strips, first_rows_px
from realesr.weights import Weights

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16")

_DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc", "bad allocation")
"""Parts of messages: the CPU allocator's on Linux and on Windows, MPS's, and C++'s. Only CUDA has a type for it."""


Mode = Literal["eager", "compile", "graphs"]
"""How the module is called: kernel by kernel; compiled by TorchInductor, anew for each shape of tiles; or as one CUDA
graph, recorded at the first tile of a shape."""

Forward = Callable[[torch.Tensor], torch.Tensor]


class TorchEngine(EngineBase):
    """An open module on one device."""

    def __init__(
        self, forward: Forward, device: torch.device, spec: EngineSpec, module: torch.nn.Module | None = None
    ) -> None:
        self.spec = spec
        self._module = module  # what strips go through, layer by layer
        self._forward: Forward | None = forward
        self._device = device

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Enlarge a batch; see `Engine.run`."""
        check_batch(batch, self.spec)
        if self._forward is None:
            raise EngineError("engine torch is closed: open it again")
        with _translated(self._device), _current(self._device), torch.inference_mode():
            lr = _on_device(batch, self._device)
            lr = lr.to(_DTYPES[self.spec.precision], memory_format=torch.channels_last)
            return _on_host(self._forward(lr))

    def open_strips(self, width_px: int, height_px: int, *, rows_px: int) -> Strips:
        """Begin an image, strip by strip; see `Engine.open_strips`."""
        if self._forward is None:
            raise EngineError("engine torch is closed: open it again")
        if self._module is None:
            return super().open_strips(width_px, height_px, rows_px=rows_px)
        check_strips(self.spec, width_px, height_px)
        run = _StripRun(StripModule(self._module, rows_px), self._device, _DTYPES[self.spec.precision])
        return Strips(run, self.spec, width_px=width_px, height_px=height_px)

    def close(self) -> None:
        """Free the module."""
        self._forward = self._module = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


class _StripRun:
    """See `realesr.strips.StripRun`."""

    def __init__(self, strips: StripModule, device: torch.device, dtype: torch.dtype) -> None:
        self._strips = strips
        self._device = device
        self._dtype = dtype

    def step(self, rows: NDArray[np.float32], *, is_last: bool) -> NDArray[np.float32]:
        """Enlarge the next rows."""
        with _translated(self._device), _current(self._device), torch.inference_mode():
            lr = _on_device(rows, self._device).to(self._dtype, memory_format=torch.channels_last)
            return _on_host(self._strips.step(lr, is_last=is_last))


def open_torch(
    model: Weights | Path,
    *,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    mode: Mode = "eager",
) -> TorchEngine:
    """Open a network; the arguments are those of `realesr.engines.open_engine`, and how its module is called.

    What torch keeps for the whole process is set anew: the number of CPU threads; on NVIDIA GPUs also that cuDNN tries
    its algorithms once for each shape, and, for fp32, that convolutions are not rounded to TF32.
    """
    if isinstance(model, Path):
        raise UsageError(
            f"engine torch got {model.name}, expected weights (.safetensors, .pth): take engine onnxruntime"
        )
    chosen = _parsed_device(device)
    body = _body_precision(chosen, precision)
    _check_mode(mode, chosen)
    torch.set_num_threads(threads or usable_cores())
    if chosen.type == "cuda":
        torch.backends.cudnn.benchmark = True
        if body == "fp32":
            # Its 10 bits of mantissa would be those of fp16. The newer name of this switch
            # (torch.backends.cudnn.conv.fp32_precision) makes torch raise where anything reads the older one.
            torch.backends.cudnn.allow_tf32 = False
    module = build_with(model)
    with _translated(chosen):
        # Channels last: best of alternating runs on two cores with AVX2, CPU time, 23.7 us/px against 27.6
        # (animevideov3, 128 px) and 414 against 637 (RRDB of 6 blocks, 64 px); 2.6 to 6 times less in fp16 and bf16.
        module = convert_conv2d_weight_memory_format(module.eval().to(chosen, _DTYPES[body]), torch.channels_last)
    multiple_of = model.architecture.multiple_of
    spec = EngineSpec(
        name="torch",
        scale=model.architecture.scale,
        precision=body,
        device=str(chosen),
        size=SizeRule(minimum_px=multiple_of, multiple_of=multiple_of),
        max_batch=MAX_BATCH,
        first_rows_px=first_rows_px(model.architecture),
    )
    return TorchEngine(_forward(module, mode), chosen, spec, module)


def _check_mode(mode: str, device: torch.device) -> None:
    if mode not in get_args(Mode):
        raise UsageError(f"engine torch got the mode {mode}, expected {', '.join(get_args(Mode))}")
    if mode == "graphs" and device.type != "cuda":
        raise UsageError(f"engine torch got the mode graphs on {device}, expected an NVIDIA GPU: CUDA graphs run there")


def _forward(module: torch.nn.Module, mode: Mode) -> Forward:
    if mode == "compile":
        compiled: Forward = torch.compile(module, dynamic=False)
        return compiled
    return _Recorded(module) if mode == "graphs" else module


class _Recorded:
    """A module as a CUDA graph: hundreds of kernels start as one. Recorded anew where the shape of tiles changes.

    Source: "CUDA Graphs" in torch's notes on CUDA semantics: warm up on another stream, then record; inputs and outputs
    keep their addresses.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        self._module = module
        self._graph: torch.cuda.CUDAGraph | None = None
        self._input = self._output = torch.empty(0)

    def __call__(self, lr: torch.Tensor) -> torch.Tensor:
        """The module's output; the next call writes over it."""
        if self._graph is None or self._input.shape != lr.shape:
            self._record(lr)
        assert self._graph is not None
        self._input.copy_(lr)
        self._graph.replay()
        return self._output

    def _record(self, lr: torch.Tensor) -> None:
        self._graph, self._output = None, torch.empty(0)  # gives back the memory of the last shape
        self._input = lr.clone()
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(2):
                self._module(self._input)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        # Only this thread's mistakes spoil the recording: other devices have threads that allocate meanwhile.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._output = self._module(self._input)
        self._graph = graph


def _on_device(batch: NDArray[np.float32], device: torch.device) -> torch.Tensor:
    """The batch in the device's memory; from page-locked memory, which the GPU reads by itself, where there is any."""
    if device.type != "cuda":
        return torch.tensor(batch).to(device)
    locked = torch.empty(batch.shape, pin_memory=True)  # torch keeps such blocks for the next time
    locked.numpy()[...] = batch
    return locked.to(device, non_blocking=True)


def _on_host(sr: torch.Tensor) -> NDArray[np.float32]:
    """The output as an array of its own; it becomes float32 on the device, where that costs nothing."""
    values = sr.to(torch.float32).contiguous()
    if values.device.type != "cuda":
        array: NDArray[np.float32] = values.to("cpu").numpy()
        return array
    locked = torch.empty(values.shape, pin_memory=True)
    locked.copy_(values, non_blocking=True)
    torch.cuda.current_stream().synchronize()
    output: NDArray[np.float32] = locked.numpy()
    return output


def _current(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Makes a GPU the one that streams and graphs without a device belong to."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def devices() -> tuple[str, ...]:
    """What `--device` may be here, "cpu" first."""
    cuda = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return ("cpu", *cuda, *mps)


def _parsed_device(device: str) -> torch.device:
    """ "cuda" is the first one."""
    wanted = {"auto": "cpu", "cuda": "cuda:0"}.get(device.lower(), device.lower())
    if wanted not in devices():
        raise EngineError(
            f"engine torch got the device {device}, expected one that it has here: {', '.join(devices())}"
        )
    return torch.device(wanted)


def _body_precision(device: torch.device, precision: str) -> Precision:
    if precision == "auto":
        return "fp32" if device.type == "cpu" else "fp16"
    for offered in PRECISIONS:
        if precision == offered:
            return offered
    raise UsageError(f"engine torch got precision {precision}, expected {', '.join(PRECISIONS)}")


@contextlib.contextmanager
def _translated(device: torch.device) -> Iterator[None]:
    """The one seam at which torch's errors become ours."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        message = " ".join(str(error).split())
        what = f"engine torch on {device}"
        is_text_about_memory = any(part in message for part in _OUT_OF_MEMORY)
        if isinstance(error, torch.OutOfMemoryError | MemoryError) or is_text_about_memory:
            if device.type == "cuda":
                torch.cuda.empty_cache()
            raise OutOfMemory(f"{what}: out of memory; expected a smaller tile ({message[:200]})") from error
        raise EngineError(f"{what}: {message[:300]}") from error

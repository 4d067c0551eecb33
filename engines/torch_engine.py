"""Runs networks with PyTorch, on the CPU or on a GPU that it knows. Takes weights, not .onnx files."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils import convert_conv2d_weight_memory_format

from realesr.cgroup import usable_cores
from realesr.engine import MAX_BATCH, EngineBase, EngineSpec, Precision, SizeRule, check_batch
from realesr.errors import EngineError, OutOfMemory, UsageError
from realesr.networks import build
from realesr.weights import Weights

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16")

_DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc", "bad allocation")
"""Parts of messages: the CPU allocator's on Linux and on Windows, MPS's, and C++'s. Only CUDA has a type for it."""


class TorchEngine(EngineBase):
    """An open module on one device."""

    def __init__(self, module: torch.nn.Module, device: torch.device, spec: EngineSpec) -> None:
        self.spec = spec
        self._module: torch.nn.Module | None = module
        self._device = device

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Enlarge a batch; see `Engine.run`."""
        check_batch(batch, self.spec)
        if self._module is None:
            raise EngineError("engine torch is closed: open it again")
        with _translated(self._device), torch.inference_mode():
            lr = torch.tensor(batch).to(self._device, _DTYPES[self.spec.precision], memory_format=torch.channels_last)
            sr: torch.Tensor = self._module(lr)
            output: NDArray[np.float32] = sr.to("cpu", torch.float32).contiguous().numpy()
        return output

    def close(self) -> None:
        """Free the module."""
        self._module = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def open_torch(
    model: Weights | Path, *, device: str = "auto", precision: str = "auto", threads: int | None = None
) -> TorchEngine:
    """Open a network; the arguments are those of `realesr.engines.open_engine`.

    The number of CPU threads is torch's own, one for the whole process: it is set anew.
    """
    if isinstance(model, Path):
        raise UsageError(
            f"engine torch got {model.name}, expected weights (.safetensors, .pth): take engine onnxruntime"
        )
    chosen = _parsed_device(device)
    body = _body_precision(chosen, precision)
    torch.set_num_threads(threads or usable_cores())
    module = build(model.architecture)
    module.load_state_dict({key: torch.from_numpy(np.array(array)) for key, array in model.state.items()}, strict=True)
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
    )
    return TorchEngine(module, chosen, spec)


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

"""Runs networks with PyTorch, on the CPU or on a GPU that it knows. Takes weights, not .onnx files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils import convert_conv2d_weight_memory_format

from realesr.cgroup import usable_cores
from realesr.engine import MAX_BATCH, EngineBase, EngineSpec, Precision, SizeRule, check_batch
from realesr.engines.engine_options import checked_options
from realesr.engines.torch_device import (
    Stream,
    in_thread_of,
    new_streams,
    on_device,
    on_host,
    translated,
    working_on,
)
from realesr.engines.torch_forward import OPTIONS, Forward, check_options, forward_for
from realesr.engines.torch_tile_rows import TorchTileRows
from realesr.errors import EngineError, UsageError
from realesr.networks import build_with
from realesr.networks.strips import StripModule
from realesr.strips import Strips, check_strips, first_rows_px
from realesr.weights import Weights

if TYPE_CHECKING:
    from realesr.tiles import TilePlan

__all__ = ["OPTIONS", "PRECISIONS", "TorchEngine", "devices", "open_torch"]

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16")

_DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class TorchEngine(EngineBase):
    """An open module on one device.

    Args:
        forwards: the network, once for each of `streams`.
        streams: of the device, as `new_streams` makes them; one, or as many as there are tiles in flight.
        device: where the module lies.
        spec: facts about the engine.
        module: what strips go through, layer by layer.
    """

    def __init__(
        self,
        forwards: Sequence[Forward],
        streams: Sequence[Stream],
        device: torch.device,
        spec: EngineSpec,
        module: torch.nn.Module | None = None,
    ) -> None:
        self.spec = spec
        self._module = module
        self._forwards = list(forwards)
        self._streams = list(streams)
        self._device = device

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Enlarge a batch; see `Engine.run`."""
        check_batch(batch, self.spec)
        self._check_open()
        return in_thread_of(self._device, self._run, batch)

    def _run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        with working_on(self._device, self._streams[0]):
            lr = on_device(batch, self._device)
            lr = lr.to(_DTYPES[self.spec.precision], memory_format=torch.channels_last)
            return on_host(self._forwards[0](lr))

    def open_strips(self, width_px: int, height_px: int, *, rows_px: int) -> Strips:
        """Begin an image, strip by strip; see `Engine.open_strips`."""
        self._check_open()
        if self._module is None:
            return super().open_strips(width_px, height_px, rows_px=rows_px)
        check_strips(self.spec, width_px, height_px)
        strips = StripModule(self._module, rows_px)
        run = _StripRun(strips, self._device, self._streams[0], _DTYPES[self.spec.precision])
        return Strips(run, self.spec, width_px=width_px, height_px=height_px)

    def open_tile_rows(self, plan: "TilePlan", *, eight_bit: bool) -> TorchTileRows:
        """Begin an image whose tiles are joined on the device; see `Engine.open_tile_rows`."""
        self._check_open()
        return TorchTileRows(
            self._forwards,
            self._streams,
            device=self._device,
            dtype=_DTYPES[self.spec.precision],
            scale=self.spec.scale,
            plan=plan,
            eight_bit=eight_bit,
        )

    def _check_open(self) -> None:
        if not self._forwards:
            raise EngineError("engine torch is closed: open it again")

    def close(self) -> None:
        """Free the module."""
        self._forwards, self._module = [], None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


class _StripRun:
    """See `realesr.strips.StripRun`."""

    def __init__(self, strips: StripModule, device: torch.device, stream: Stream, dtype: torch.dtype) -> None:
        self._strips = strips
        self._device = device
        self._stream = stream
        self._dtype = dtype

    def step(self, rows: NDArray[np.float32], *, is_last: bool) -> NDArray[np.float32]:
        """Enlarge the next rows."""
        return in_thread_of(self._device, self._step, rows, is_last)

    def _step(self, rows: NDArray[np.float32], is_last: bool) -> NDArray[np.float32]:
        with working_on(self._device, self._stream):
            lr = on_device(rows, self._device).to(self._dtype, memory_format=torch.channels_last)
            return on_host(self._strips.step(lr, is_last=is_last))


def open_torch(
    model: Weights | Path,
    *,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    options: Mapping[str, str] | None = None,
) -> TorchEngine:
    """Open a network; the arguments are those of `realesr.engines.open_engine`, the options those of OPTIONS.

    What torch keeps for the whole process is set anew: the number of CPU threads; on NVIDIA GPUs also whether cuDNN
    tries its algorithms once for each shape, and, for fp32, that convolutions are not rounded to TF32.
    """
    if isinstance(model, Path):
        raise UsageError(
            f"engine torch got {model.name}, expected weights (.safetensors, .pth): take engine onnxruntime"
        )
    chosen = _parsed_device(device)
    body = _body_precision(chosen, precision)
    switches = checked_options("torch", options or {}, OPTIONS)
    check_options(switches, chosen)
    torch.set_num_threads(threads or usable_cores())
    if chosen.type == "cuda":
        torch.backends.cudnn.benchmark = switches["benchmark"] == "1"
        if body == "fp32":
            # Its 10 bits of mantissa would be those of fp16. The newer name of this switch
            # (torch.backends.cudnn.conv.fp32_precision) makes torch raise where anything reads the older one.
            torch.backends.cudnn.allow_tf32 = False
    module = build_with(model)
    with translated(chosen):
        # Channels last: best of alternating runs on two cores with AVX2, CPU time, 23.7 us/px against 27.6
        # (animevideov3, 128 px) and 414 against 637 (RRDB of 6 blocks, 64 px); 2.6 to 6 times less in fp16 and bf16.
        module = convert_conv2d_weight_memory_format(module.eval().to(chosen, _DTYPES[body]), torch.channels_last)
        streams = new_streams(chosen, int(switches["streams"]))
        forwards = [forward_for(module, switches) for _ in streams]
        free_bytes = _free_bytes(chosen)
    multiple_of = model.architecture.multiple_of
    spec = EngineSpec(
        name="torch",
        scale=model.architecture.scale,
        precision=body,
        device=str(chosen),
        size=SizeRule(minimum_px=multiple_of, multiple_of=multiple_of),
        max_batch=MAX_BATCH,
        first_rows_px=first_rows_px(model.architecture),
        joins_tiles=switches["join"] == "device" or (switches["join"] == "auto" and chosen.type == "cuda"),
        device_free_bytes=free_bytes,
    )
    return TorchEngine(forwards, streams, chosen, spec, module)


def _free_bytes(device: torch.device) -> int | None:
    """Free memory of a GPU, once all that was given to it so far is done."""
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)  # the weights were copied on another stream than those that will read them
    free, _total = torch.cuda.mem_get_info(device)
    return free


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

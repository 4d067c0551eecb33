"""Runs networks with PyTorch, on the CPU or on a GPU that it knows. Takes weights, not .onnx files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils import convert_conv2d_weight_memory_format

from realesr.engine import (
    MAX_BATCH,
    EngineBase,
    EngineSpec,
    Precision,
    ProgressCallback,
    SizeRule,
    check_batch,
)
from realesr.engines.engine_options import checked_options
from realesr.engines.facts import weights_alone
from realesr.engines.memory_cost import GPU_COST, MemoryCost, piece_sizes
from realesr.engines.pytorch.device import (
    ProcessSettings,
    Stream,
    in_thread_of,
    new_streams,
    on_device,
    on_host,
    translated,
    working_on,
)
from realesr.engines.pytorch.forward import OPTIONS, Forward, check_options, forward_for
from realesr.engines.pytorch.layers import LayerNetwork
from realesr.engines.pytorch.strips import TorchStripRun
from realesr.engines.pytorch.tile_rows import TorchTileRows
from realesr.errors import EngineError, UsageError
from realesr.machine.cgroup import usable_cores
from realesr.machine.freed_memory import give_back
from realesr.machine.leaving import native_call
from realesr.models.architecture import Architecture
from realesr.models.weights import Weights
from realesr.runtime.strips import Strips, check_strips, first_rows_px

if TYPE_CHECKING:
    from realesr.runtime.tiles import TilePlan

__all__ = ["OPTIONS", "PRECISIONS", "TorchEngine", "devices", "open_torch"]

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16")

_DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

_CPU_COST = MemoryCost(maps=4, enlarged_maps=4, strip_maps=9, trunk_strip_maps=4)
"""Measured by benchmarks/bench_memory.py, 64 to 384 px: at most 3.5 maps, and some 10 MB besides. fp16 and bf16 take
more, not less: 102 MB against 48 (animevideov3, 256 px). Strips: 435 MB of x4plus-anime at 320 x
64 px, 168 MB of animevideov3 at 1024 x 64, where this says 429 and 212."""


class TorchEngine(EngineBase):
    """An open network on one device.

    Args:
        forwards: the network, once for each of `streams`.
        streams: of the device, as `new_streams` makes them; one, or as many as there are tiles in flight.
        device: where the network lies.
        spec: facts about the engine.
        network: its layers, which strips go through one by one.
        settings: what torch keeps for the whole process, for strips; `forwards` set their own.
    """

    def __init__(
        self,
        forwards: Sequence[Forward],
        streams: Sequence[Stream],
        device: torch.device,
        spec: EngineSpec,
        network: LayerNetwork | None = None,
        settings: ProcessSettings | None = None,
    ) -> None:
        self.spec = spec
        self._network = network
        self._settings = settings or ProcessSettings(threads=torch.get_num_threads())
        self._forwards = list(forwards)
        self._streams = list(streams)
        self._device = device
        self._last_shape: tuple[int, ...] = ()

    def run(self, batch: NDArray[np.float32], on_progress: ProgressCallback | None = None) -> NDArray[np.float32]:
        """Enlarge a batch; see `Engine.run`."""
        check_batch(batch, self.spec)
        self._check_open()
        return in_thread_of(self._device, self._run, batch)

    def _run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._device.type == "cpu" and batch.shape != self._last_shape:
            give_back()
            self._last_shape = batch.shape
        with working_on(self._device, self._streams[0]):
            lr = on_device(batch, self._device)
            lr = lr.to(_DTYPES[self.spec.precision], memory_format=torch.channels_last)
            return on_host(self._forwards[0](lr))

    def open_strips(self, width_px: int, height_px: int, *, rows_px: int) -> Strips:
        """Begin an image, strip by strip; see `Engine.open_strips`."""
        self._check_open()
        if self._network is None:
            return super().open_strips(width_px, height_px, rows_px=rows_px)
        check_strips(self.spec, width_px, height_px)
        run = TorchStripRun(
            self._network,
            device=self._device,
            stream=self._streams[0],
            dtype=_DTYPES[self.spec.precision],
            rows_px=rows_px,
        )
        strips = _StripsWithSettings(run, self._settings)
        return Strips(strips, self.spec, width_px=width_px, height_px=height_px)

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

    def bytes_for(self, architecture: Architecture, height_px: int, width_px: int, *, in_strips: bool = False) -> float:
        """Return the memory for a tile or for strips, on the device; see `Engine.bytes_for`."""
        cost = GPU_COST if self._device.type == "cuda" else _CPU_COST
        return cost.bytes_for(architecture, height_px, width_px, self.spec.precision, in_strips=in_strips)

    def _check_open(self) -> None:
        if not self._forwards:
            raise EngineError("engine torch is closed: open it again")

    def close(self) -> None:
        """Free the network."""
        self._forwards, self._network = [], None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def open_torch(
    model: Weights | Path,
    *,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    options: Mapping[str, str] | None = None,
) -> TorchEngine:
    """Open a network; the arguments are those of `realesr.engines.open_engine`, the options those of OPTIONS.

    What torch keeps for the whole process is set while it calculates, and is then as before: the number of CPU threads;
    on NVIDIA GPUs also whether cuDNN tries its algorithms once for each shape, and, for fp32, that convolutions are not
    rounded to TF32.
    """
    weights = weights_alone(model, "torch")
    chosen = _parsed_device(device)
    body = _body_precision(chosen, precision)
    switches = checked_options("torch", options or {}, OPTIONS)
    check_options(switches, chosen)
    settings = _settings(chosen, body, threads, tries_algorithms=switches["benchmark"] == "1")
    with translated(chosen):
        network = _moved(LayerNetwork(weights), chosen, _DTYPES[body])
        streams = new_streams(chosen, int(switches["streams"]))
        forwards = [_with_settings(forward_for(network, switches), settings) for _ in streams]
        memory_bytes = _memory_bytes(chosen)
    architecture = weights.architecture
    spec = EngineSpec(
        name="torch",
        scale=architecture.scale,
        precision=body,
        device=str(chosen),
        size=SizeRule(minimum_px=architecture.multiple_of, multiple_of=architecture.multiple_of),
        pieces=piece_sizes(architecture, on_gpu=chosen.type == "cuda"),
        max_batch=MAX_BATCH,
        first_rows_px=first_rows_px(architecture),
        joins_tiles=switches["join"] == "device" or (switches["join"] == "auto" and chosen.type == "cuda"),
        device_bytes=memory_bytes,
    )
    return TorchEngine(forwards, streams, chosen, spec, network, settings)


def _settings(
    device: torch.device, precision: Precision, threads: int | None, *, tries_algorithms: bool
) -> ProcessSettings:
    """Return what torch shall keep for the whole process while it calculates."""
    count = threads or usable_cores()
    if device.type != "cuda":
        return ProcessSettings(threads=count)
    return ProcessSettings(
        threads=count, tries_algorithms=tries_algorithms, allows_tf32=False if precision == "fp32" else None
    )


def _with_settings(forward: Forward, settings: ProcessSettings) -> Forward:
    def call(lr: torch.Tensor) -> torch.Tensor:
        with settings.applied():
            return forward(lr)

    return call


class _StripsWithSettings:
    """One image in strips, with torch's settings for the whole process; see `ProcessSettings`."""

    def __init__(self, run: TorchStripRun, settings: ProcessSettings) -> None:
        self._run: TorchStripRun | None = run
        self._settings = settings

    def step(self, rows: NDArray[np.float32], *, is_last: bool) -> NDArray[np.float32]:
        """Enlarge the next rows; see `StripRun.step`."""
        assert self._run is not None
        with self._settings.applied():
            result = self._run.step(rows, is_last=is_last)
        if is_last:
            with native_call():  # see `in_thread_of`
                self._run = None
        return result

    def state(self) -> dict[str, NDArray[Any]]:
        """Return what the next strip is computed from; see `StripRun.state`."""
        assert self._run is not None
        return self._run.state()

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from a state; see `StripRun.restore`."""
        assert self._run is not None
        self._run.restore(state)


def _moved(network: LayerNetwork, device: torch.device, dtype: torch.dtype) -> LayerNetwork:
    """Return a network for inference in a device's memory.

    Channels last: best of alternating runs on two cores with AVX2, CPU time, 23.7 us/px against 27.6 (animevideov3,
    128 px) and 414 against 637 (x4plus of 6 blocks, 64 px); 2.6 to 6 times less in fp16 and bf16.
    """
    moved: LayerNetwork = convert_conv2d_weight_memory_format(network.eval().to(device, dtype), torch.channels_last)
    return moved


def _memory_bytes(device: torch.device) -> int | None:
    """Return the memory of a GPU, once all that was given to it so far is done; None of a CPU."""
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)  # the weights were copied on another stream than those that will read them
    return int(torch.cuda.get_device_properties(device).total_memory)


def devices() -> tuple[str, ...]:
    """Return the names of the devices here, "cpu" first."""
    cuda = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return ("cpu", *cuda, *mps)


def _parsed_device(device: str) -> torch.device:
    """Return the device of this name; "cuda" is the first one."""
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

"""Throughput of tiles on a GPU, against what the GPU can do at most; called by bench_tiles.py.

Two limits are measured first: a product of two large half-precision matrices (FLOP/s), and a copy of a large array
(B/s, read and written). A network cannot be faster than its arithmetic at the first rate, nor than its least traffic at
the second: each convolution reads its input and writes its output once. The larger of the two times bounds it; the
percentages say how much of each limit a row has reached. Times are those of whole runs, from an array in the computer's
memory to another one.

    python benchmarks/gpu_tiles.py --rehearse      the same in small on the CPU, to see that it works; nothing is kept
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import report
import torch
from numpy.typing import NDArray

from realesr.engine import MAX_BATCH, Engine, EngineBase, EngineSpec
from realesr.engines import open_engine
from realesr.engines.torch_engine import Mode, open_torch
from realesr.networks import build, build_with
from realesr.weights import Weights
from realesr.zoo import load_model

PEERS = "torch eager, contiguous"
"""As Real-ESRGAN's own program and most others run: half precision, NCHW, one kernel after the other."""
WAYS = (PEERS, *(f"torch {mode}, channels last" for mode in get_args(Mode)), "onnxruntime", "tensorrt")

GRID: list[tuple[str, int, int]] = [
    ("realesrgan-x4plus", 256, 1),
    ("realesrgan-x4plus", 512, 1),
    ("realesrgan-x4plus", 256, 4),
    ("realesr-animevideov3", 256, 1),
    ("realesr-animevideov3", 512, 1),
    ("realesr-animevideov3", 256, 4),
]
"""Network, what a tile reads in px, batch."""

CHILD_SECONDS = 1800
"""A row that takes longer is given up: compiling and building take minutes."""


class PeersEngine(EngineBase):
    """The module in half precision as it comes, with plain copies there and back."""

    def __init__(self, weights: Weights, device: str) -> None:
        self._module = build_with(weights).eval().to(device).half()
        self._device = device
        scale = weights.architecture.scale
        self.spec = EngineSpec(name="peers", scale=scale, precision="fp16", device=device, max_batch=MAX_BATCH)

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Enlarge a batch."""
        with torch.inference_mode():
            sr = self._module(torch.from_numpy(batch).to(self._device).half())
            output: NDArray[np.float32] = sr.float().cpu().numpy()
        return output


def opened(way: str, weights: Weights, device: str, tile_px: int) -> Engine:
    """The network, run in one of WAYS, in half precision."""
    if way == PEERS:
        return PeersEngine(weights, device)
    for mode in get_args(Mode):
        if way == f"torch {mode}, channels last":
            return open_torch(weights, device=device, precision="fp16", mode=mode)
    return open_engine(
        weights, engine=way, device=device, precision="fp16", engine_file=_engine_file_for(weights, tile_px)
    )


def _engine_file_for(weights: Weights, tile_px: int) -> Callable[[str, str, bool], Path]:
    def engine_file(device: str, precision: str, may_build: bool) -> Path:
        from realesr.export.engine_cache import cached_engine

        return cached_engine(weights, device=device, precision=precision, read_px=tile_px, may_build=may_build)

    return engine_file


def median_seconds(step: Callable[[], Any], seconds: float) -> float:
    """Median of the runs that fill this time, at least three, after two to warm up."""
    step(), step()
    times: list[float] = []
    while sum(times) < seconds or len(times) < 3:
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def limits(device: str, seconds: float) -> dict[str, Any]:
    """What the device does at most: half-precision matrix products in TFLOP/s, copies in GB/s."""
    is_gpu = device.startswith("cuda")
    side, numbers = (8192, 1 << 29) if is_gpu else (512, 1 << 22)
    left, right = (torch.randn(side, side, device=device, dtype=torch.float16) for _ in range(2))
    source = torch.zeros(numbers, device=device, dtype=torch.float16)
    target = torch.empty_like(source)

    def timed(step: Callable[[], Any]) -> float:
        def finished() -> None:
            step()
            if is_gpu:
                torch.cuda.synchronize()

        return median_seconds(finished, seconds)

    return {
        "device": torch.cuda.get_device_name() if is_gpu else "cpu (rehearsal)",
        "memory_gb": torch.cuda.get_device_properties(0).total_memory / 1e9 if is_gpu else None,
        "cuda": torch.version.cuda,
        "fp16_tflop_s": 2 * side**3 / timed(lambda: left @ right) / 1e12,
        "copy_gb_s": 2 * 2 * numbers / timed(lambda: target.copy_(source)) / 1e9,
    }


def least_bytes_per_px(weights: Weights) -> float:
    """Bytes in half precision that the convolutions of a network read and write for one input pixel, each once."""
    module, moved = build(weights.architecture), 0

    def count(_: Any, given: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal moved
        moved += 2 * (given[0].numel() + output.numel())

    for part in module.modules():
        if isinstance(part, torch.nn.Conv2d):
            part.register_forward_hook(count)
    with torch.inference_mode():
        module(torch.zeros(1, 3, 16, 16))
    return moved / 16**2


def row(
    model: str, tile_px: int, batch: int, way: str, device: str, seconds: float, top: dict[str, Any]
) -> dict[str, Any]:
    """Measure one way of running one network, against the limits `top`."""
    weights = load_model(model)
    assert isinstance(weights, Weights)  # a name of the zoo is never a file
    pixels = np.random.default_rng(0).random((batch, 3, tile_px, tile_px), np.float32)
    with opened(way, weights, device, tile_px) as engine:
        taken = median_seconds(lambda: engine.run(pixels), seconds)
    area = batch * tile_px**2
    arithmetic_s = 2 * weights.architecture.mac_per_px * area / (top["fp16_tflop_s"] * 1e12)
    traffic_s = least_bytes_per_px(weights) * area / (top["copy_gb_s"] * 1e9)
    return {
        "input_mp_s": area / taken / 1e6,
        "output_mp_s": area * engine.spec.scale**2 / taken / 1e6,
        "matrix_percent": arithmetic_s / taken * 100,
        "bandwidth_percent": traffic_s / taken * 100,
        "bound_by": "arithmetic" if arithmetic_s > traffic_s else "bandwidth",
        "peak_gpu_gb": torch.cuda.max_memory_allocated() / 1e9 if device.startswith("cuda") else None,
    }


def in_a_process(*arguments: Any) -> dict[str, Any]:
    """Call a function of this file in a process of its own, so that nothing is left of the one before."""
    command = [sys.executable, __file__, "--child", json.dumps(arguments)]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=CHILD_SECONDS)
    except subprocess.TimeoutExpired:
        return {"failed": f"it took more than {CHILD_SECONDS} s"}
    if answer.returncode:
        return {"failed": (answer.stderr.strip().splitlines() or [f"it ended with {answer.returncode}"])[-1]}
    found: dict[str, Any] = json.loads(answer.stdout.strip().splitlines()[-1])
    return found


def with_ratios(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each row with how many times faster it is than the peers' way with the same network, tile and batch."""
    same = ("model", "tile_px", "batch")
    peers = {tuple(one[key] for key in same): one for one in rows if one["way"] == PEERS and "failed" not in one}
    told = []
    for one in rows:
        base = peers.get(tuple(one[key] for key in same))
        ratio = one["input_mp_s"] / base["input_mp_s"] if base and "failed" not in one else None
        told.append({**one, "times_peers": ratio})
    return told


def measured(
    device: str, seconds: float, grid: list[tuple[str, int, int]]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The limits of the device, and a row for each network and way; those that cannot be had say why."""
    top = in_a_process("limits", device, seconds)
    if "failed" in top:
        return top, []
    rows = []
    for model, tile_px, batch in grid:
        for way in WAYS:
            figures = in_a_process("row", model, tile_px, batch, way, device, seconds, top)
            rows.append({"model": model, "tile_px": tile_px, "batch": batch, "way": way, **figures})
    return top, with_ratios(rows)


def show(top: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Print limits and rows."""
    report.show("Limits of the GPU", [top])
    good = [one for one in rows if "failed" not in one]
    if good:
        report.show("Throughput of tiles on the GPU, FP16", good)
    for one in rows:
        if "failed" in one:
            print(f"skipped: {one['model']}, {one['tile_px']} px, batch {one['batch']}, {one['way']}: {one['failed']}")


def main() -> None:
    """A row in this process, or the rehearsal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        name, *values = json.loads(arguments.child)
        print(json.dumps(limits(*values) if name == "limits" else row(*values)))
    elif arguments.rehearse:
        show(*measured("cpu", 0.1, [("realesr-animevideov3", 32, 1)]))
    else:
        parser.error("expected --rehearse; the figures are taken by bench_tiles.py")


if __name__ == "__main__":
    main()

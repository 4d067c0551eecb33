"""Throughput on a GPU: the peers' way, ours with every option, and the engine alone; called by bench_tiles.py.

Two limits are measured first: a product of two large half-precision matrices (FLOP/s), and a copy of a large array
(B/s, read and written). A network cannot be faster than its arithmetic at the first rate, nor than its least traffic at
the second: each convolution reads its input and writes its output once. The percentages say how much of each limit a
row has reached.

The peers' way is Real-ESRGAN's own: half precision, NCHW, kernel by kernel, tiles of 400 px that read 10 px more on
every side, the whole result kept on the GPU and turned into bytes on the CPU. Both ways go from one JPEG file to
another of quality 95. The peers' has half of the colour resolution, as theirs do, ours all of it.

Rows come in order of importance, so that a time limit keeps the best. `whole_s` is wall time: of a photo from file to
file, of a tile from an array in the computer's memory to another one. `array_s` is that of a photo from array to array,
and what the percentages are of. `gpu_s` is the time between two CUDA events. `first_s` is the first image or tile,
which searches for cuDNN's algorithms and records graphs.

    python benchmarks/gpu_tiles.py --rehearse      the same in small on the CPU, to see that it works; nothing is kept
"""

import argparse
import functools
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import report
import torch
from bench_host import computed_per_px
from gpu_bench import JPEG_QUALITY, Bench, Case, Options, bench_for, measured
from gpu_peers import PEERS_OVERLAP_PX, enlarge_as_peers, peers_tiles
from gpu_profile import profile
from gpu_timing import Memory, Row, device_seconds, median_seconds, whole_seconds
from numpy.typing import NDArray
from PIL import Image

from realesr.engines.fidelity import psnr_db
from realesr.engines.pytorch.device import in_thread_of, on_device, working_on
from realesr.engines.pytorch.engine import TorchEngine, open_torch
from realesr.engines.trial import photo_like
from realesr.models.architecture import Architecture
from realesr.models.weights import Weights
from realesr.networks import build, build_with
from realesr.options import FileOptions
from realesr.runtime.tiled import plan_for

__all__ = ["profile", "rows", "show"]

Picture = NDArray[np.uint8]
"""(height, width, 3) RGB."""

COMPILE_S = 120.0
"""Left for a row that compiles: TorchInductor takes a minute for x4plus. An assumption."""

SINGLE_OPTIONS: tuple[Options, ...] = (
    {},
    {"kernels": "triton"},
    {"join": "host"},
    {"streams": "2"},
    {"mode": "graphs"},
    {"benchmark": "0"},
)
"""Options that `upscale` is measured with one by one, the defaults first. Tiles are in flight on two streams only
where the device joins them."""
ENGINE_OPTIONS: tuple[Options, ...] = ({}, {"kernels": "triton"}, {"mode": "graphs"})
"""Options that the engine alone is measured with."""


def rows(
    device: str, seconds: float, *, small: bool = False, clock: Callable[[], float] = time.monotonic
) -> Iterator[Row]:
    """Measure one way after the other, the most important first.

    Args:
        device: "cuda", or "cpu" for the rehearsal.
        seconds: after these no row is begun; what is left out says so.
        small: networks, photo and tiles that a CPU does in seconds.
        clock: tells seconds.

    Yields:
        A row for each way, "what" it is of first; one that cannot be had says why under "failed" or "skipped".
    """
    end = clock() + seconds
    with tempfile.TemporaryDirectory() as folder:
        bench = bench_for(device, Path(folder), small=small)
        yield measured(Case(what="limits", model="", step=lambda: limits(bench)), left_s=math.inf)
        done: list[Row] = []
        for case in _cases(bench):
            row = measured(case, left_s=end - clock())
            if case.what in ("peers", "upscale"):
                row["times_peers"] = times_peers(row, [*done, row], "input_mp_s")
                row["times_peers_array"] = times_peers(row, [*done, row], "array_input_mp_s")
                bench.taken.append((case.what, case.options, row.get("whole_s")))
            done.append(row)
            yield row


def times_peers(row: Row, done: Iterable[Row], speed: str) -> float | None:
    """Return a row's speed relative to the fastest of the peers' ways with the same network."""
    peers = [one[speed] for one in done if one["what"] == "peers" and one["model"] == row["model"] and speed in one]
    return float(row[speed] / max(peers)) if peers and speed in row else None


def together(taken: Iterable[tuple[Options, float]]) -> list[Options]:
    """Options that gained over the defaults, together: the best two, and all of them; of one switch the better setting.

    Args:
        taken: options and their seconds; where those of the defaults are missing, nothing is known to gain.
    """
    by_time = [options for options, _ in sorted(taken, key=lambda pair: pair[1])]
    gained: list[Options] = []
    for options in by_time[: by_time.index({})] if {} in by_time else []:
        if not any(options.keys() & other.keys() for other in gained):
            gained.append(options)
    counts = dict.fromkeys((2, len(gained))) if len(gained) > 1 else {}
    return [{key: value for options in gained[:count] for key, value in options.items()} for count in counts]


def _cases(bench: Bench) -> Iterator[Case]:
    """Yield what is measured; which options are tried together follows from the rows before."""
    large, fast = bench.models

    def peers(searches: bool) -> Case:
        options = {"cudnn.benchmark": "on" if searches else "off"}
        step = partial(peers_photo, bench, large, searches=searches)
        return Case(what="peers", model=large, tile_px=bench.peers_tile_px, options=options, step=step)

    def upscale(options: Options, needs_s: float = 0.0) -> Case:
        step = partial(upscale_photo, bench, large, options)
        return Case(what="upscale", model=large, options=options, needs_s=needs_s, step=step)

    def engine(model: str, tile_px: int, options: Options, needs_s: float = 0.0) -> Case:
        step = partial(engine_tile, bench, model, tile_px, options)
        return Case(what="engine", model=model, tile_px=tile_px, options=options, needs_s=needs_s, step=step)

    yield from (peers(False), peers(True))
    yield from (upscale(options) for options in SINGLE_OPTIONS)
    ours = [(options, taken) for what, options, taken in bench.taken if what == "upscale" and taken is not None]
    yield from (upscale(options) for options in together(ours))
    for model in (large, fast):
        for tile_px in bench.tile_sides[model]:
            yield from (engine(model, tile_px, options) for options in ENGINE_OPTIONS)
    yield upscale({"mode": "compile"}, COMPILE_S)
    yield engine(large, bench.tile_sides[large][0], {"mode": "compile"}, COMPILE_S)


def limits(bench: Bench) -> Row:
    """Measure the device's peak rates on random numbers: half-precision matrix products in TFLOP/s, copies in GB/s."""
    is_gpu = bench.device.startswith("cuda")
    side, numbers = (8192, 1 << 29) if is_gpu else (256, 1 << 20)
    left, right = (torch.randn(side, side, device=bench.device, dtype=torch.float16) for _ in range(2))
    source = torch.randn(numbers, device=bench.device, dtype=torch.float16)
    target = torch.empty_like(source)
    product_s = device_seconds(lambda: left @ right, bench.device, bench.row_seconds)
    copy_s = device_seconds(lambda: target.copy_(source), bench.device, bench.row_seconds)
    bench.top = {"fp16_tflop_s": 2 * side**3 / product_s / 1e12, "copy_gb_s": 2 * 2 * numbers / copy_s / 1e9}
    return {
        "device": torch.cuda.get_device_name() if is_gpu else "cpu (rehearsal)",
        "memory_gb": torch.cuda.get_device_properties(0).total_memory / 1e9 if is_gpu else None,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if is_gpu else None,  # type: ignore[no-untyped-call]
        **bench.top,
    }


@functools.cache
def least_bytes_per_px(architecture: Architecture) -> float:
    """Bytes in half precision that the convolutions of a network read and write for one input pixel, each once."""
    moved = 0
    with torch.device("meta"):  # shapes alone: nothing is computed
        module, picture = build(architecture), torch.zeros(1, 3, 16, 16)

    def count(_: Any, given: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal moved
        moved += 2 * (given[0].numel() + output.numel())

    for part in module.modules():
        if isinstance(part, torch.nn.Conv2d):
            part.register_forward_hook(count)
    with torch.inference_mode():
        module(picture)
    return moved / 16**2


def reached(weights: Weights, area_px: int, taken_s: float, top: Row) -> Row:
    """Return the share of each limit that an image or a tile of this area reached; overlaps do not count."""
    if not top:
        return {}
    arithmetic_s = 2 * weights.architecture.macs_per_px * area_px / (top["fp16_tflop_s"] * 1e12)
    traffic_s = least_bytes_per_px(weights.architecture) * area_px / (top["copy_gb_s"] * 1e9)
    return {"matrix_percent": arithmetic_s / taken_s * 100, "bandwidth_percent": traffic_s / taken_s * 100}


def peers_photo(bench: Bench, model: str, *, searches: bool) -> Row:
    """Measure the peers' way; `searches` lets cuDNN try its algorithms for each shape, which their program does not."""
    weights = bench.weights(model)
    scale = weights.architecture.scale
    memory = Memory(bench.device)
    module = build_with(weights).eval().to(bench.device, bench.dtype)

    def from_array(photo: Picture) -> Picture:
        return enlarge_as_peers(module, photo, scale=scale, tile_px=bench.peers_tile_px)

    def from_file() -> None:
        Image.fromarray(from_array(_picture(bench.photo))).save(bench.target, quality=JPEG_QUALITY)

    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = searches
    try:
        row = _photo_row(bench, weights, from_file, from_array, memory)
    finally:
        torch.backends.cudnn.benchmark = before
    height, width, _ = _picture(bench.photo).shape
    read_px = [
        sum(tile.stop - tile.start for tile in peers_tiles(length, bench.peers_tile_px, PEERS_OVERLAP_PX))
        for length in (height, width)
    ]
    bench.peers_picture = _thumbnail(bench.target)
    return {**row, "computed_per_px": math.prod(read_px) / (height * width)}


def upscale_photo(bench: Bench, model: str, options: Options) -> Row:
    """Measure `Upscaler.upscale_file` in half precision, kept open over all images."""
    memory = Memory(bench.device)
    file = FileOptions(overwrite=True, quality=JPEG_QUALITY)
    with bench.upscaler(model, options) as upscaler:

        def from_file() -> None:
            upscaler.upscale_file(bench.photo, bench.target, file=file)

        row = _photo_row(bench, bench.weights(model), from_file, upscaler.upscale, memory)
        pool = upscaler.pool_for(bits=8)
        height, width, _ = _picture(bench.photo).shape
        plan = plan_for(pool, height, width)
    psnr = None if bench.peers_picture is None else _psnr(bench.peers_picture, _thumbnail(bench.target))
    return {
        **row,
        "computed_per_px": computed_per_px(plan, height, width),
        "tile_read_px": "{1} x {0}".format(*plan.tile_shape),
        "psnr_to_peers_db": psnr,
        "notices": "; ".join(pool.notices),
    }


def _photo_row(
    bench: Bench,
    weights: Weights,
    from_file: Callable[[], None],
    from_array: Callable[[Picture], Picture],
    memory: Memory,
) -> Row:
    """The first image, the median of two or more that follow, and the same without files."""
    photo = _picture(bench.photo)
    area = photo.shape[0] * photo.shape[1]
    first_s = whole_seconds(from_file)
    times = [whole_seconds(from_file), whole_seconds(from_file)]
    while sum(times) < bench.row_seconds:
        times.append(whole_seconds(from_file))
    whole_s = statistics.median(times)
    array_s = statistics.median([whole_seconds(lambda: from_array(photo)) for _ in range(2)])
    peak = memory.peak()
    return {
        "whole_s": whole_s,
        "spread_s": max(times) - min(times),
        "first_s": first_s,
        "input_mp_s": area / whole_s / 1e6,
        "array_s": array_s,
        "array_input_mp_s": area / array_s / 1e6,
        **reached(weights, area, array_s, bench.top),
        "peak_gpu_gb": None if peak is None else peak / 1e9,
    }


def engine_tile(bench: Bench, model: str, tile_px: int, options: Options) -> Row:
    """Measure an open engine with single tiles: from array to array, and the network alone on what lies on the GPU.

    Bytes for each input px are those beside the weights: of the first tile, which cuDNN's search may want more for, of
    those that follow, and what torch has reserved in the end.
    """
    weights = bench.weights(model)
    pixels, area = photo_like(tile_px), tile_px**2
    with open_torch(weights, device=bench.device, precision=bench.precision, options=options) as engine:
        memory = Memory(bench.device)
        first_s = whole_seconds(lambda: engine.run(pixels))
        first_bytes = memory.peak()
        output = engine.run(pixels)
        whole_s = median_seconds(lambda: engine.run(pixels), bench.row_seconds)
        later_bytes, reserved_bytes = memory.peak(), memory.reserved()
        gpu_s = forward_seconds(engine, pixels, bench)
    row = {
        "whole_s": whole_s,
        "gpu_s": gpu_s,
        "first_s": first_s,
        "input_mp_s": area / whole_s / 1e6,
        "gpu_input_mp_s": area / gpu_s / 1e6,
        **reached(weights, area, gpu_s, bench.top),
        "first_bytes_per_px": _each(first_bytes, area),
        "bytes_per_px": _each(later_bytes, area),
        "reserved_bytes_per_px": _each(reserved_bytes, area),
    }
    if not options:
        bench.outputs[model, tile_px] = output
    reference = bench.outputs.get((model, tile_px))
    return {**row, "psnr_to_default_db": None if reference is None or not options else _psnr(reference, output)}


def forward_seconds(engine: TorchEngine, pixels: NDArray[np.float32], bench: Bench) -> float:
    """GPU time of the network alone, in the thread and on the stream of the engine: nothing is searched for again."""
    device, stream, forward = engine._device, engine._streams[0], engine._forwards[0]

    def timed() -> float:
        with working_on(device, stream):
            lr = on_device(pixels, device).to(bench.dtype, memory_format=torch.channels_last)
            return device_seconds(lambda: forward(lr), bench.device, bench.row_seconds)

    return in_thread_of(device, timed)


def _each(total: int | None, count: int) -> float | None:
    return None if total is None else total / count


def _picture(path: Path) -> Picture:
    with Image.open(path) as file:
        return np.asarray(file.convert("RGB"))


def _thumbnail(path: Path) -> NDArray[np.float32]:
    """An eighth of a JPEG in [0, 1], which its decoder gives without unpacking the rest."""
    with Image.open(path) as file:
        file.draft("RGB", (file.width // 8, file.height // 8))
        return np.asarray(file.convert("RGB"), np.float32) / np.float32(255)


def _psnr(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return the PSNR of two pictures in [0, 1]; 200 where they are equal, for JSON knows no infinity.

    Raises:
        ValueError: a value is not finite.
    """
    error = float(np.mean((one.clip(0, 1) - other.clip(0, 1)) ** 2, dtype=np.float64))
    if not math.isfinite(error):
        raise ValueError("the result has values that are not finite")
    return min(psnr_db(error), 200.0)


def show(done: list[Row]) -> None:
    """Print rows as one table for each kind, and what could not be had."""
    good = [row for row in done if "failed" not in row and "skipped" not in row]
    for what in dict.fromkeys(row["what"] for row in good):
        report.show(what, [{key: row[key] for key in row if key != "what"} for row in good if row["what"] == what])
    for row in done:
        for outcome in ("failed", "skipped"):
            if outcome in row:
                words = (row["what"], row["model"], row["tile_px"], row["options"])
                print(f"{outcome}: {', '.join(str(word) for word in words if word)}: {row[outcome]}")


def main() -> None:
    """Rehearse."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rehearse", action="store_true")
    if not parser.parse_args().rehearse:
        parser.error("expected --rehearse; the figures are taken by bench_tiles.py")
    show([*rows("cpu", 60.0, small=True), *profile("cpu", small=True)])


if __name__ == "__main__":
    main()

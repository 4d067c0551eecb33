"""Throughput of tiles, and the time that the command spends outside the engine.

    python benchmarks/bench_tiles.py                                       by network, engine, precision, tile and batch
    python benchmarks/bench_tiles.py --on gpu [--limit SECONDS]            on an NVIDIA GPU: see gpu_tiles.py
    python benchmarks/bench_tiles.py --outside PHOTO --model NAME          time outside the engine, for one photo

Throughput on a CPU: each row is a process of its own, which opens an engine, runs it once to warm up, and then takes
the median of the runs that follow; then the tiled runtime does four tiles (or pairs of them) with it, and what it takes
besides is the row's share of time outside the engine. Time outside the engine, in percent of the engine's own:

    (wall time of the command - the same tiles through the engine alone) / the same tiles through the engine alone

Both are whole processes and take turns; the engine's process counts only its strips or tiles.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import report
from numpy.typing import NDArray

from realesr.engine import Engine, EngineBase, ProgressCallback
from realesr.engines.choice import nvidia_gpus
from realesr.runtime.engine_pool import EnginePool
from realesr.runtime.pipeline import Rows, planes_from_rows
from realesr.runtime.rows import in_chunks
from realesr.runtime.strip_bands import StripLayout, strip_layout_for
from realesr.runtime.tiled import enlarge_bands, plan_for
from realesr.runtime.tiling import Tiling

GRID: list[tuple[str, str, str, int, int]] = [
    (model, engine, precision, tile, batch)
    for model, tiles in (("realesrgan-x4plus", (128, 192, 256)), ("realesr-animevideov3", (256, 384, 512)))
    for engine, precision, batch in (
        ("winograd", "fp32", 1),
        ("openvino", "fp32", 1),
        ("ncnn", "fp32", 1),
        ("onnxruntime", "fp32", 1),
        ("onnxruntime", "fp32", 2),
        ("onnxruntime", "fp16", 1),
        ("torch", "fp32", 1),
    )
    for tile in tiles
    if tile == tiles[0] or (engine in ("winograd", "onnxruntime") and (precision, batch) == ("fp32", 1))
]
"""Network, engine, precision, what a tile reads in px, batch."""


def throughput(case: tuple[str, str, str, int, int], seconds: float) -> dict[str, Any]:
    """Measure one row in a process of its own."""
    command = [sys.executable, __file__, "--child", json.dumps([*case, seconds])]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    model, engine, precision, tile, batch = case
    head = {"model": model, "engine": engine, "precision": precision, "tile_px": tile, "batch": batch}
    if answer.returncode:
        return {**head, "failed": answer.stderr.strip().splitlines()[-1]}
    return {**head, **json.loads(answer.stdout)}


class TimedEngine(EngineBase):
    """An engine that adds up the seconds of its runs."""

    def __init__(self, engine: Engine, batch: int) -> None:
        self._engine = engine
        self.spec = replace(engine.spec, best_batch=batch)
        self.times: list[float] = []

    def run(self, batch: NDArray[np.float32], on_progress: ProgressCallback | None = None) -> NDArray[np.float32]:
        """Enlarge a batch."""
        started = time.perf_counter()
        output = self._engine.run(batch)
        self.times.append(time.perf_counter() - started)
        return output

    def close(self) -> None:
        """Close the engine."""
        self._engine.close()


def share_outside(engine: Engine, tile: int, batch: int) -> float:
    """Percent of the engine's time that the tiled runtime takes besides, for two rows of tiles; no file is read."""
    timed = TimedEngine(engine, batch)
    network = EnginePool(timed, tiling=Tiling(tile_px=tile, overlap_px=0, blend=False))
    height, width = 2 * tile, 2 * batch * tile
    bands = iter([np.random.default_rng(1).random((3, height, width), np.float32)])
    started = time.perf_counter()
    for _ in enlarge_bands(bands, network, height_px=height, width_px=width):
        pass
    return (time.perf_counter() - started - sum(timed.times)) / sum(timed.times) * 100


def throughput_child(model: str, engine_name: str, precision: str, tile: int, batch: int, seconds: float) -> None:
    """Run one engine on noise for a while; print the figures."""
    from realesr.engines import open_engine
    from realesr.machine import memory
    from realesr.models.zoo import load_model

    pixels = np.random.default_rng(0).random((batch, 3, tile, tile), np.float32)
    with open_engine(load_model(model), engine=engine_name, device="cpu", precision=precision) as engine:
        engine.run(pixels)
        times: list[float] = []
        while sum(times) < seconds or len(times) < 3:
            started = time.perf_counter()
            engine.run(pixels)
            times.append(time.perf_counter() - started)
        per_pixel = statistics.median(times) / (batch * tile * tile)
        figures = {
            "us_per_input_px": per_pixel * 1e6,
            "input_mp_s": 1e-6 / per_pixel,
            "output_mp_s": engine.spec.scale**2 * 1e-6 / per_pixel,
            "outside_percent": share_outside(engine, tile, batch),
            "runs": len(times),
            "peak_gb": memory.peak_bytes() / 1e9,
        }
    print(json.dumps(figures))


def outside(photo: Path, model: str, runs: int, options: list[str]) -> dict[str, Any]:
    """Alternate the command and the engine alone; medians and spread."""
    command_s, engine_s = [], []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(runs):
            target = Path(folder) / f"{turn}.{'jpg' if '--format jpeg' in ' '.join(options) else 'png'}"
            command = [
                sys.executable,
                "-m",
                "realesr",
                "upscale",
                str(photo),
                "-m",
                model,
                "-o",
                str(target),
                "--quiet",
            ]
            started = time.perf_counter()
            subprocess.run([*command, *options], check=True, stdout=subprocess.DEVNULL)
            command_s.append(time.perf_counter() - started)
            megabytes = target.stat().st_size / 1e6
            target.unlink()
            child = [sys.executable, __file__, "--engine-alone", str(photo), "--model", model]
            engine_s.append(float(subprocess.run(child, check=True, capture_output=True, text=True).stdout))
            print(f"run {turn + 1}: command {command_s[-1]:.1f} s, engine {engine_s[-1]:.1f} s", file=sys.stderr)
    share = [(c - e) / e * 100 for c, e in zip(command_s, engine_s, strict=True)]
    return {
        "model": model,
        "options": " ".join(options) or "defaults",
        "command_s": statistics.median(command_s),
        "engine_s": statistics.median(engine_s),
        "outside_percent": statistics.median(share),
        "outside_min": min(share),
        "outside_max": max(share),
        "runs": runs,
        "output_mb": megabytes,
    }


def engine_alone(photo: Path, model: str) -> None:
    """Run the strips or tiles that the command would run, and count nothing else; print the seconds.

    They are the photo's own: with animevideov3, noise took 6 % more CPU time than a photo.
    """
    from realesr.api import Upscaler
    from realesr.images.reader import open_image

    with open_image(photo) as reader:
        pixels = reader.read_rows(reader.info.height_px)
    with Upscaler(model) as upscaler:
        network = upscaler.pool_for(bits=8)
        plan = strip_layout_for(network, *pixels.shape[:2])
        seconds = tiles_alone(network, pixels) if plan is None else strips_alone(network, pixels, plan)
    print(seconds)


def tiles_alone(network: EnginePool, pixels: Rows) -> float:
    """Seconds of the engine."""
    seconds = 0.0
    plan = plan_for(network, *pixels.shape[:2])
    height, width = plan.tile_shape
    for row, column in plan:
        part = pixels[row.start : row.start + height, column.start : column.start + width]
        (tile,) = planes_from_rows([part], bits=8)
        started = time.perf_counter()
        network.engine.run(tile[None])
        seconds += time.perf_counter() - started
    return seconds


def strips_alone(network: EnginePool, pixels: Rows, plan: StripLayout) -> float:
    """Seconds of the engine; without the image's last rows and columns, where it has to be filled up."""
    seconds = 0.0
    for column in plan.columns.tiles:
        strips = network.engine.open_strips(plan.columns.tile_px, plan.height_px, rows_px=plan.rows_px)
        for start, stop in in_chunks(plan.height_px, plan.rows_px):
            (rows,) = planes_from_rows([pixels[start:stop, column.start : column.start + plan.columns.tile_px]], bits=8)
            started = time.perf_counter()
            strips.push(rows)
            seconds += time.perf_counter() - started
    return seconds


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10, help="least time for each row on a CPU")
    parser.add_argument("--limit", type=float, default=600, help="seconds after which no row on a GPU is begun")
    parser.add_argument("--out", type=Path, help="folder for a GPU's figures instead of benchmarks/results")
    parser.add_argument("--on", choices=("cpu", "gpu", "both"), help="default: both where there is an NVIDIA GPU")
    parser.add_argument("--outside", type=Path, metavar="PHOTO")
    parser.add_argument("--model", default="realesrgan-x4plus")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--options", default="", help="further options for `realesr upscale`, as one string")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--engine-alone", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        throughput_child(*json.loads(arguments.child))
    elif arguments.engine_alone:
        engine_alone(arguments.engine_alone, arguments.model)
    elif arguments.outside:
        row = outside(arguments.outside, arguments.model, arguments.runs, arguments.options.split())
        report.show("Time outside the engine", [row])
        report.save(f"outside-{arguments.model}", [row])
    else:
        on = arguments.on or ("both" if nvidia_gpus() else "cpu")
        if on in ("cpu", "both"):
            measure_cpu(arguments.seconds)
        if on in ("gpu", "both"):
            measure_gpu(arguments.limit, arguments.out)


def measure_cpu(seconds: float) -> None:
    """Every row of GRID."""
    rows = [throughput(case, seconds) for case in GRID]
    report.show("Throughput of tiles", [row for row in rows if "failed" not in row])
    for row in rows:
        if "failed" in row:
            print("skipped:", row)
    report.save("tiles", rows)


def measure_gpu(limit_s: float, folder: Path | None) -> None:
    """Every row of gpu_tiles, then its profile; the file is whole after each, so that a run may end at any time."""
    if not nvidia_gpus():
        sys.exit("no NVIDIA GPU here: nothing was measured")
    import gpu_tiles

    rows: list[dict[str, Any]] = []
    for row in itertools.chain(gpu_tiles.rows("cuda", limit_s), gpu_tiles.profile("cuda")):
        rows.append(row)
        report.save("tiles-gpu", rows, folder=folder, quiet=True)
        print(json.dumps(row), file=sys.stderr)
    gpu_tiles.show(rows)
    report.save("tiles-gpu", rows, folder=folder)


if __name__ == "__main__":
    main()

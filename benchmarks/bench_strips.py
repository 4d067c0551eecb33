"""Measures strips: time against the untiled run and against tiles, including the rows that fill and flush them.

    python benchmarks/bench_strips.py                        small networks against untiled, deep ones against tiles
    python benchmarks/bench_strips.py --heights 512          only that height; likewise --models, --width, --runs
    python benchmarks/bench_strips.py --memory               peak memory of strips by height: it must not grow
    python benchmarks/bench_strips.py --engine winograd --models realesrgan-x4plus --width 1200 --piece 700
                                                             against a square of 700 x 700 px in one piece

Each time is that of the runtime on noise, from the first row to the last, without files; beside it stands the CPU time
of all threads, which other work on the machine changes less. Ways take turns, and rows have medians. Deep networks run
beside tiles with a halo of 64 px, which leaves seams of two levels at 99.9 %, and as they are cut by default. The
difference is the largest one to the untiled result; where that takes too much memory it is left out.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import report
from numpy.typing import NDArray

from realesr.engine import Engine
from realesr.machine.memory import peak_bytes
from realesr.runtime.engine_pool import EnginePool
from realesr.runtime.rows import in_chunks
from realesr.runtime.strip_bands import enlarge_rows
from realesr.runtime.strip_bands import strip_layout_for as plan_of
from realesr.runtime.tiled import enlarge_bands
from realesr.runtime.tiling import Tiling

MODELS = ("realesr-animevideov3", "realesr-general-x4v3", "realesrgan-x4plus-anime", "realesrgan-x4plus")
TILES_HALO_PX = 64
UNTILED_PX = 320 * 512
"""Larger images do not go through a deep network untiled here."""


Way = tuple[Callable[[], NDArray[np.float32]], int]
"""What runs, and the pixels that it takes."""


def measure(model: str, engine_name: str, height: int, width: int, runs: int, piece_px: int) -> list[dict[str, Any]]:
    """Measure all ways for one image, or strips against a square piece; return one row for each."""
    from realesr.engines import model_facts, open_engine
    from realesr.models.zoo import load_model
    from realesr.options import NetworkOptions
    from realesr.runtime.tiling import tiling_for

    weights = load_model(model)
    facts = model_facts(weights)
    image = np.random.default_rng(0).random((3, height, width), np.float32)
    with open_engine(weights, engine=engine_name, precision="fp32") as engine:
        tiling = tiling_for(facts, NetworkOptions(model=model, exact=True), engine)
        assert tiling.strips is not None, f"engine {engine_name} has no strips"
        pixels = height * width
        ways: dict[str, Way] = {
            "strips": (lambda: _whole(enlarge_rows, EnginePool(engine, tiling=tiling), image), pixels)
        }
        if piece_px:
            piece = np.random.default_rng(0).random((1, 3, piece_px, piece_px), np.float32)
            ways[f"one piece of {piece_px} px"] = lambda: engine.run(piece)[0], piece_px**2
        is_deep = facts.architecture is not None and facts.architecture.has_enlarged_convolutions
        if not piece_px and (not is_deep or pixels <= UNTILED_PX):
            ways["untiled"] = lambda: engine.run(image[None])[0], pixels
        if is_deep and not piece_px:
            narrow = tiling_for(facts, NetworkOptions(model=model), engine)
            read = narrow.tile_px + 2 * narrow.overlap_px
            wide = replace(narrow, tile_px=read - 2 * TILES_HALO_PX, overlap_px=TILES_HALO_PX)
            for name, cut in (("tiles, halo 64", wide), (f"tiles, halo {narrow.overlap_px}", narrow)):
                ways[name] = (lambda cut=cut: _whole(enlarge_bands, _in_tiles(engine, cut), image)), pixels  # type: ignore[misc]
        plan = plan_of(EnginePool(engine, tiling=replace(tiling, tile_px=64)), height, width)
        assert plan is not None, f"{width} x {height} px do not go in strips with {engine_name}: take a larger --width"
        head = {"model": model, "engine": engine.spec.name, "width": width, "height": height}
        strips = {"strip": f"{plan.columns.tile_px} x {plan.rows_px}"}
        return [{**head, **row, **strips} for row in _timed(ways, runs)]


def _in_tiles(engine: Engine, tiling: Tiling) -> EnginePool:
    return EnginePool(engine, tiling=replace(tiling, strips=None))


def _whole(enlarge: Callable[..., Any], network: EnginePool, image: NDArray[np.float32]) -> NDArray[np.float32]:
    _, height, width = image.shape
    if network.tiling.strips is not None:
        # A tile of the whole image would be taken untiled.
        network.tiling = replace(network.tiling, tile_px=64)
    bands = (image[:, start:stop] for start, stop in in_chunks(height))
    return np.concatenate(list(enlarge(bands, network, height_px=height, width_px=width)), axis=1)


def _timed(ways: dict[str, Way], runs: int) -> list[dict[str, Any]]:
    """Time each way `runs` times, in turns."""
    us_per_px: dict[str, list[float]] = {name: [] for name in ways}
    cpu_us_per_px: dict[str, list[float]] = {name: [] for name in ways}
    last: dict[str, NDArray[np.float32]] = {}
    for _ in range(runs):
        for name, (way, pixels) in ways.items():
            started, cpu_started = time.perf_counter(), time.process_time()
            last[name] = way()
            us_per_px[name].append((time.perf_counter() - started) / pixels * 1e6)
            cpu_us_per_px[name].append((time.process_time() - cpu_started) / pixels * 1e6)
    strips, cpu_strips = (statistics.median(times["strips"]) for times in (us_per_px, cpu_us_per_px))
    rows = []
    for name, times in us_per_px.items():
        median, cpu = statistics.median(times), statistics.median(cpu_us_per_px[name])
        difference = float(np.abs(last[name] - last["untiled"]).max()) if "untiled" in last else float("nan")
        rows.append(
            {
                "way": name,
                "us_per_px": median,
                "strips_to_this": strips / median,
                "cpu_us_per_px": cpu,
                "cpu_strips_to_this": cpu_strips / cpu,
                "largest_difference": difference,
                "runs": len(times),
            }
        )
    return rows


def peak(model: str, engine_name: str, height: int, width: int) -> dict[str, Any]:
    """Return the peak memory of strips in a process of their own; rows are made and dropped band by band."""
    command = [sys.executable, __file__, "--child", json.dumps([model, engine_name, height, width])]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    return {"model": model, "engine": engine_name, "width": width, "height": height, **json.loads(answer.stdout)}


def peak_child(model: str, engine_name: str, height: int, width: int) -> None:
    """Print the peak memory of this process after one image in strips."""
    from realesr.engines import model_facts, open_engine
    from realesr.models.zoo import load_model
    from realesr.options import NetworkOptions
    from realesr.runtime.tiling import tiling_for

    weights = load_model(model)
    with open_engine(weights, engine=engine_name, precision="fp32") as engine:
        tiling = tiling_for(model_facts(weights), NetworkOptions(model=model, exact=True), engine)
        network = EnginePool(engine, tiling=replace(tiling, tile_px=64))
        band = np.random.default_rng(0).random((3, 64, width), np.float32)
        bands = (band[:, : stop - start] for start, stop in in_chunks(height))
        started = time.perf_counter()
        for _ in enlarge_rows(bands, network, height_px=height, width_px=width):
            pass
        seconds = time.perf_counter() - started
        plan = plan_of(network, height, width)
        assert plan is not None
    strip = f"{plan.columns.tile_px} x {plan.rows_px}"
    figures = {"strip": strip, "peak_gb": peak_bytes() / 1e9, "us_per_px": seconds / height / width * 1e6}
    print(json.dumps(figures))


def main() -> None:
    """Measure, print tables, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--heights", nargs="+", type=int, default=[512, 3000])
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--engine", default="onnxruntime")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--piece", type=int, default=0, metavar="PX", help="compare with a square in one piece instead")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        peak_child(*json.loads(arguments.child))
        return
    what = "strips-memory" if arguments.memory else "strips"
    for model in arguments.models:
        rows: list[dict[str, Any]] = []
        for height in arguments.heights:
            if arguments.memory:
                rows.append(peak(model, arguments.engine, height, arguments.width))
            else:
                rows += measure(model, arguments.engine, height, arguments.width, arguments.runs, arguments.piece)
        report.show("Peak memory of strips" if arguments.memory else "Strips", rows)
        report.save(f"{what}-{arguments.engine}-{model}", rows)


if __name__ == "__main__":
    main()

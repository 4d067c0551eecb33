"""Measures strips: time against the untiled run and against tiles, including the rows that fill and flush them.

    python benchmarks/bench_strips.py                        small networks against untiled, deep ones against tiles
    python benchmarks/bench_strips.py --heights 512          only that height; likewise --models, --width, --runs
    python benchmarks/bench_strips.py --memory               peak memory of strips by height: it must not grow
    python benchmarks/bench_strips.py --engine winograd --models realesrgan-x4plus --width 1200 --piece 700
                                                             against a square of 700 x 700 px in one piece
    python benchmarks/bench_strips.py --engine winograd --models realesrgan-x4plus --width 420 --heights 240 --photo
                                                             on a photo, whose differences count, against untiled
    python benchmarks/bench_strips.py --engine winograd --models realesrgan-x4plus --heights 300 --photo --parts 3
                                                             and with the width cut, as where memory is short

Each time is that of the runtime on noise or on a photo, from the first row to the last, without files; beside it stands
the CPU time of all threads, which other work on the machine changes less. Ways take turns, and rows have medians; a
square in one piece runs before, in the middle of and after the strips. Deep networks run beside tiles with a halo of
64 px, which leaves seams of two levels at 99.9 %, and as they are cut by default. The difference is the largest one to
the untiled result, of values up to 1; where that takes too much memory it is left out.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
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
from realesr.runtime.tile_size import StripBudget, StripSize
from realesr.runtime.tiled import enlarge_bands
from realesr.runtime.tiling import Tiling

MODELS = ("realesr-animevideov3", "realesr-general-x4v3", "realesrgan-x4plus-anime", "realesrgan-x4plus")
TILES_HALO_PX = 64
UNTILED_PX = 320 * 512
"""Larger images do not go through a deep network untiled here."""


Way = tuple[Callable[[], NDArray[np.float32]], int]
"""What runs, and the pixels that it takes."""


def crop_of_photo(height: int, width: int) -> NDArray[np.float32]:
    """Return the upper left of a photo of 512 x 512 px, as (3, height, width) RGB in [0, 1]."""
    from skimage import data

    crop = data.astronaut()[:height, :width]  # type: ignore[no-untyped-call]
    assert crop.shape[:2] == (height, width), "the photo has 512 x 512 px"
    return np.ascontiguousarray(crop.transpose(2, 0, 1), np.float32) / np.float32(255)


@dataclass(frozen=True, kw_only=True)
class BudgetOfParts(StripBudget):
    """Cuts the width into so many parts, as where memory is short, and takes the fewest rows."""

    parts: int

    def size_for(self, height_px: int, width_px: int) -> StripSize:
        """Return the size of strips, whatever memory they take."""
        return StripSize(rows_px=self.pieces.smallest_strip_rows, columns_px=-(-width_px // self.parts))


def measure(
    model: str, engine_name: str, image: NDArray[np.float32], runs: int, parts: int = 1
) -> list[dict[str, Any]]:
    """Measure all ways for one image, strips over so many parts of its width; return one row for each."""
    from realesr.engines import model_facts, open_engine
    from realesr.models.zoo import load_model
    from realesr.options import NetworkOptions
    from realesr.runtime.tiling import tiling_for

    weights = load_model(model)
    facts = model_facts(weights)
    _, height, width = image.shape
    with open_engine(weights, engine=engine_name, precision="fp32") as engine:
        tiling = tiling_for(facts, NetworkOptions(model=model, exact=True), engine)
        assert tiling.strips is not None, f"engine {engine_name} has no strips"
        if parts > 1:
            tiling = replace(tiling, strips=BudgetOfParts(**vars(tiling.strips), parts=parts))
        pixels = height * width
        ways: dict[str, Way] = {
            "strips": (lambda: _whole(enlarge_rows, EnginePool(engine, tiling=tiling), image), pixels)
        }
        is_deep = facts.architecture is not None and facts.architecture.has_enlarged_convolutions
        if not is_deep or pixels <= UNTILED_PX:
            ways["untiled"] = lambda: engine.run(image[None])[0], pixels
        if is_deep:
            narrow = tiling_for(facts, NetworkOptions(model=model), engine)
            read = narrow.tile_px + 2 * narrow.overlap_px
            wide = replace(narrow, tile_px=read - 2 * TILES_HALO_PX, overlap_px=TILES_HALO_PX)
            for name, cut in (("tiles, halo 64", wide), (f"tiles, halo {narrow.overlap_px}", narrow)):
                ways[name] = (lambda cut=cut: _whole(enlarge_bands, _in_tiles(engine, cut), image)), pixels  # type: ignore[misc]
        strips = _strip_of(EnginePool(engine, tiling=replace(tiling, tile_px=64)), height, width)
        head = {"model": model, "engine": engine.spec.name, "width": width, "height": height}
        return [{**head, **row, "strip": strips} for row in _timed(ways, runs)]


def measure_beside_piece(
    model: str, engine_name: str, image: NDArray[np.float32], piece_px: int
) -> list[dict[str, Any]]:
    """Measure strips, and before, in the middle and after them a square in one piece: a machine's speed may drift."""
    from realesr.engines import model_facts, open_engine
    from realesr.models.zoo import load_model
    from realesr.options import NetworkOptions
    from realesr.runtime.tiling import tiling_for

    weights = load_model(model)
    _, height, width = image.shape
    piece = np.random.default_rng(0).random((1, 3, piece_px, piece_px), np.float32)
    of_pieces: list[NDArray[np.float64]] = []

    def time_piece() -> None:
        before = _clocks()
        engine.run(piece)
        of_pieces.append(_clocks() - before)

    def halves() -> Iterator[NDArray[np.float32]]:
        for start, stop in in_chunks(height, -(-height // 2)):
            time_piece()
            yield image[:, start:stop]

    with open_engine(weights, engine=engine_name, precision="fp32") as engine:
        tiling = tiling_for(model_facts(weights), NetworkOptions(model=model), engine)
        pool = EnginePool(engine, tiling=replace(tiling, tile_px=64))
        before = _clocks()
        for _ in enlarge_rows(halves(), pool, height_px=height, width_px=width):
            pass
        of_strips = _clocks() - before - sum(of_pieces)
        time_piece()
        strip = _strip_of(pool, height, width)
    head = {"model": model, "engine": engine.spec.name, "width": width, "height": height, "strip": strip}
    of_strips, of_piece = 1e6 * of_strips / height / width, 1e6 * np.mean(of_pieces, axis=0) / piece_px**2
    return [
        {**head, "way": way, "us_per_px": wall, "cpu_us_per_px": cpu, "strips_to_this": of_strips[0] / wall}
        | {"cpu_strips_to_this": of_strips[1] / cpu, "runs": runs}
        for way, (wall, cpu), runs in (("strips", of_strips, 1), (f"one piece of {piece_px} px", of_piece, 3))
    ]


def _clocks() -> NDArray[np.float64]:
    """Return the time on the wall and the CPU time of all threads, in seconds."""
    return np.array([time.perf_counter(), time.process_time()])


def _strip_of(pool: EnginePool, height: int, width: int) -> str:
    plan = plan_of(pool, height, width)
    assert plan is not None, f"{width} x {height} px do not go in strips: take a larger --width"
    return f"{plan.columns.tile_px} x {plan.rows_px}"


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
            before = _clocks()
            last[name] = way()
            wall, cpu = 1e6 * (_clocks() - before) / pixels
            us_per_px[name].append(wall)
            cpu_us_per_px[name].append(cpu)
    strips, cpu_strips = (statistics.median(times["strips"]) for times in (us_per_px, cpu_us_per_px))
    rows = []
    for name, times in us_per_px.items():
        median, cpu_median = statistics.median(times), statistics.median(cpu_us_per_px[name])
        difference = float(np.abs(last[name] - last["untiled"]).max()) if "untiled" in last else float("nan")
        rows.append(
            {
                "way": name,
                "us_per_px": median,
                "strips_to_this": strips / median,
                "cpu_us_per_px": cpu_median,
                "cpu_strips_to_this": cpu_strips / cpu_median,
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
    parser.add_argument("--photo", action="store_true", help="a photo of at most 512 x 512 px in the place of noise")
    parser.add_argument("--parts", type=int, default=1, help="cut the width into so many")
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
                noise = np.random.default_rng(0).random((3, height, arguments.width), np.float32)
                image = crop_of_photo(height, arguments.width) if arguments.photo else noise
                if arguments.piece:
                    rows += measure_beside_piece(model, arguments.engine, image, arguments.piece)
                else:
                    rows += measure(model, arguments.engine, image, arguments.runs, arguments.parts)
        report.show("Peak memory of strips" if arguments.memory else "Strips", rows)
        cut = f"-{arguments.parts}-parts" if arguments.parts > 1 else ""
        report.save(f"{what}-{arguments.engine}-{model}-{arguments.width}px{cut}", rows)


if __name__ == "__main__":
    main()

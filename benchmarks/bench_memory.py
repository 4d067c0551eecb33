"""Measures the memory of a tile by network, engine and side: the source of the costs in `engines/memory_cost.py`.

    python benchmarks/bench_memory.py                                              ONNX Runtime and torch
    python benchmarks/bench_memory.py --engines winograd --sides 256 512 960       an engine that takes large tiles

Each figure comes from a process of its own, which opens the network with random weights (their values do not matter),
sets the kernel's mark of its peak back (Linux only), and runs one tile. "more" is the peak above what was held before
the run. The straight line through the figures of one network and engine, in pixels of the tile, is printed below. The
microseconds are for ratios only: nothing keeps the machine quiet.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import report

from realesr.models.architecture import Architecture
from realesr.models.zoo import ZOO

NETWORKS: dict[str, Architecture] = {
    "x4plus": ZOO["realesrgan-x4plus"].architecture,
    "x4plus-anime": ZOO["realesrgan-x4plus-anime"].architecture,
    "x2plus": ZOO["realesrgan-x2plus"].architecture,
    "animevideov3": ZOO["realesr-animevideov3"].architecture,
    "general-x4v3": ZOO["realesr-general-x4v3"].architecture,
}

SIDES_PX = {"x4plus": (64, 128, 192, 256), "x2plus": (128, 256)}
OTHER_SIDES_PX = {True: (64, 128, 192, 256), False: (64, 128, 192, 256, 384)}
"""By whether the network convolves behind an enlargement."""


def measure(network: str, engine_name: str, side_px: int) -> dict[str, float]:
    """Open and run the engine in this process; return bytes and microseconds."""
    import psutil

    from realesr.engines import open_engine
    from realesr.machine.memory import peak_bytes
    from realesr.models.weights import Weights

    architecture = NETWORKS[network]
    generator = np.random.default_rng(0)
    state = {key: generator.normal(0, 0.01, shape).astype(np.float32) for key, shape in architecture.shapes.items()}
    weights = Weights(name=network, architecture=architecture, state=state, sha256="0" * 64)
    with open_engine(weights, engine=engine_name, device="cpu", precision="fp32") as engine:
        engine.run(np.zeros((1, 3, 16, 16), np.float32))
        Path("/proc/self/clear_refs").write_text("5")
        held = psutil.Process().memory_info().rss
        start = time.perf_counter()
        engine.run(generator.random((1, 3, side_px, side_px), dtype=np.float32))
        seconds = time.perf_counter() - start
    return {
        "held_bytes": held,
        "peak_bytes": peak_bytes(),
        "more_bytes": peak_bytes() - held,
        "us_per_px": seconds / side_px**2 * 1e6,
    }


def measure_apart(network: str, engine_name: str, side_px: int, cache: str) -> dict[str, object]:
    """Run `measure` in a fresh process."""
    command = [sys.executable, __file__, "--one", network, engine_name, str(side_px)]
    answer = subprocess.run(
        command, env={**os.environ, "REALESR_CACHE": cache}, stdout=subprocess.PIPE, text=True, check=True
    )
    return {"network": network, "engine": engine_name, "side_px": side_px, **json.loads(answer.stdout)}


def lines_of(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """Fit more_bytes over the tile's area by least squares, for each network and engine."""
    lines: list[dict[str, object]] = []
    for network, engine_name in dict.fromkeys((row["network"], row["engine"]) for row in rows):
        chosen = [row for row in rows if (row["network"], row["engine"]) == (network, engine_name)]
        areas = np.array([float(str(row["side_px"])) ** 2 for row in chosen])
        more = np.array([float(str(row["more_bytes"])) for row in chosen])
        slope, base = np.polyfit(areas, more, 1)
        worst = float(np.max(more - (base + slope * areas)))
        lines.append(
            {"network": network, "engine": engine_name, "bytes_per_px": slope, "base_bytes": base, "worst_bytes": worst}
        )
    return lines


def main() -> None:
    """Measure all, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", nargs=3, metavar=("NETWORK", "ENGINE", "SIDE"), help="measure one here, print JSON")
    parser.add_argument("--engines", nargs="+", default=["onnxruntime", "torch"])
    parser.add_argument("--sides", nargs="+", type=int, help="of the tile, px; default: up to 256 or 384")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    arguments = parser.parse_args()
    if arguments.one:
        network, engine_name, side = arguments.one
        print(json.dumps(measure(network, engine_name, int(side))))
        return

    rows = []
    with tempfile.TemporaryDirectory() as cache:
        for engine_name in arguments.engines:
            for network in arguments.networks:
                for side in arguments.sides or SIDES_PX.get(
                    network, OTHER_SIDES_PX[NETWORKS[network].has_enlarged_convolutions]
                ):
                    rows.append(measure_apart(network, engine_name, side, cache))
                    print(rows[-1], file=sys.stderr)
    lines = lines_of(rows)
    report.show("Memory of one tile", rows)
    report.show("more_bytes = base_bytes + bytes_per_px * pixels of the tile", lines)
    report.save("-".join(["memory", *arguments.engines]), rows, lines=lines)


if __name__ == "__main__":
    main()

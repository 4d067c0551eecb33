"""Building TensorRT-RTX engines ahead of time, with no GPU: seconds and sizes, by network and precision.

    python benchmarks/bench_builds.py
    python benchmarks/bench_builds.py --models realesr-animevideov3 --for sm75

Each engine takes what `realesr upscale --engine tensorrt` asks for: all sizes up to the largest tile. "build_s" is the
builder alone; "total_s" is the whole `realesr.export.tensorrt_build.export_tensorrt`, with the start of its process,
reading the file, and the proof where there is a GPU. Median of --repeat builds. MiB are 2^20 bytes. The JSON has the
machine's load before the first build: processes that wanted a core, averaged over a minute.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import report

from realesr.engine import Precision
from realesr.engines import model_facts
from realesr.export.tensorrt_build import TensorrtOptions, TensorrtReport, export_tensorrt, profile_for
from realesr.models.onnx_graph import onnx_bytes
from realesr.models.weights import Weights
from realesr.models.zoo import load_model

MODELS = ("realesrgan-x4plus", "realesrgan-x4plus-anime", "realesr-animevideov3")
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")
MIB = 1 << 20


def measure(weights: Weights, precision: Precision, targets: tuple[str, ...], repeat: int) -> dict[str, Any]:
    """Build one network `repeat` times."""
    reports: list[TensorrtReport] = []
    totals: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / f"{weights.name}.onnx"
        source.write_bytes(onnx_bytes(weights, precision))
        options = TensorrtOptions(
            library="tensorrt-rtx", profile=profile_for(model_facts(weights)), compute_capabilities=targets
        )
        for _ in range(repeat):
            start = time.perf_counter()
            reports.append(export_tensorrt(source, Path(folder) / f"{weights.name}.engine", options))
            totals.append(time.perf_counter() - start)
        onnx_bytes_count = source.stat().st_size
    sidecar = reports[-1].sidecar
    return {
        "network": weights.name,
        "precision": precision,
        "for": ", ".join(targets) or "sm80 and later",
        "sizes_px": f"{sidecar.profile.min_hw[0]} to {sidecar.profile.max_hw[0]}",
        "build_s": statistics.median(report.sidecar.build_seconds for report in reports),
        "total_s": statistics.median(totals),
        "onnx_mib": onnx_bytes_count / MIB,
        "engine_mib": sidecar.engine_bytes / MIB,
        "layers": sidecar.layers,
        "library": f"{sidecar.library} {sidecar.library_version}",
        "proof": sidecar.proof if isinstance(sidecar.proof, str) else "proven",
    }


def main() -> None:
    """Build all, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--for", dest="targets", default="", help="compute capabilities, like sm89,sm120")
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    targets = tuple(filter(None, arguments.targets.split(",")))

    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    rows = []
    for name in arguments.models:
        weights = load_model(name)
        if not isinstance(weights, Weights):
            sys.exit(f"{name} is a file: expected a network of the zoo")
        for precision in PRECISIONS:
            rows.append(measure(weights, precision, targets, arguments.repeat))
            print(rows[-1], file=sys.stderr)
    shown = [{key: value for key, value in row.items() if key not in ("library", "proof")} for row in rows]
    report.show("TensorRT-RTX engines, built ahead of time", shown)
    report.save("builds", rows, repeat=arguments.repeat, load_before=load)


if __name__ == "__main__":
    main()

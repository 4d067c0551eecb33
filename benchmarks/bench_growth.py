"""Measures whether memory grows with the number of images: arrays of changing sizes, and files.

    python benchmarks/bench_growth.py                                   every engine that is installed
    python benchmarks/bench_growth.py --engines openvino --arrays 300   fewer

Each row comes from a process of its own, which keeps one `Upscaler` open for realesr-animevideov3: arrays whose sides
are drawn anew each time, 20 to 120 px, or files of 40 x 30 px written into a temporary folder. Memory is what is
resident, as the system counts it: after a tenth, when all is loaded, after four tenths, when libraries' caches of what
they have compiled for each shape are full, and at the end.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import report

NETWORK = "realesr-animevideov3"
ENGINES = ("winograd", "onnxruntime", "openvino", "ncnn", "torch")
SIDES_PX = (20, 120)


def resident_mb() -> float:
    """Return the resident memory of this process."""
    import psutil

    return float(psutil.Process().memory_info().rss / 1e6)


def grow_by_arrays(engine: str, count: int) -> list[float]:
    """Enlarge `count` arrays; return the megabytes after a tenth, after four tenths and at the end."""
    from realesr import Upscaler

    generator = np.random.default_rng(0)
    held: list[float] = []
    with Upscaler(NETWORK, engine=engine, precision="fp32") as upscaler:
        for number in range(1, count + 1):
            height, width = generator.integers(SIDES_PX[0], SIDES_PX[1], 2, endpoint=True)
            upscaler.upscale(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))
            if number in (count // 10, count * 4 // 10, count):
                held.append(resident_mb())
    return held


def grow_by_files(engine: str, count: int) -> list[float]:
    """Enlarge a small JPEG file `count` times; return the megabytes after a tenth, after four tenths and at the end."""
    from PIL import Image

    from realesr import FileOptions, Upscaler

    held: list[float] = []
    with tempfile.TemporaryDirectory() as name, Upscaler(NETWORK, engine=engine) as upscaler:
        source = Path(name, "small.jpg")
        Image.effect_noise((40, 30), 50).convert("RGB").save(source)
        for number in range(1, count + 1):
            upscaler.upscale_file(source, Path(name, "large.png"), file=FileOptions(overwrite=True))
            if number in (count // 10, count * 4 // 10, count):
                held.append(resident_mb())
    return held


def measure_apart(engine: str, inputs: str, count: int) -> dict[str, object]:
    """Measure one engine in a fresh process."""
    command = [sys.executable, __file__, "--one", engine, inputs, str(count)]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    first, second, last = json.loads(answer.stdout)
    return {
        "engine": engine,
        "inputs": inputs,
        "count": count,
        "mb_after_0.1": first,
        "mb_after_0.4": second,
        "mb_at_end": last,
        "growth_percent": (last / first - 1) * 100,
        "growth_percent_from_0.4": (last / second - 1) * 100,
    }


def main() -> None:
    """Measure all, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", nargs=3, metavar=("ENGINE", "INPUTS", "COUNT"), help="measure one here, print JSON")
    parser.add_argument("--engines", nargs="+", default=[e for e in ENGINES if e == "winograd" or find_spec(e)])
    parser.add_argument("--arrays", type=int, default=1000)
    parser.add_argument("--files", type=int, default=2000, help="through engine nearest; 0: none")
    arguments = parser.parse_args()
    if arguments.one:
        engine, inputs, count = arguments.one
        grow = grow_by_arrays if inputs == "arrays" else grow_by_files
        print(json.dumps(grow(engine, int(count))))
        return

    cases = [(engine, "arrays", arguments.arrays) for engine in arguments.engines]
    cases += [("nearest", "files", arguments.files)] if arguments.files else []
    rows: list[dict[str, object]] = []
    for case in cases:
        rows.append(measure_apart(*case))
        print(rows[-1], file=sys.stderr)
        report.save("growth", rows, quiet=True)
    report.show("Resident memory as images go through one Upscaler", rows)
    report.save("growth", rows)


if __name__ == "__main__":
    main()

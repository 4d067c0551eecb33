"""Time of engine winograd, for one tile or for the whole command, alone or against another installed copy of realesr.

    python benchmarks/bench_winograd.py                                 this copy
    python benchmarks/bench_winograd.py --against /tmp/before           and the copy in that folder, taking turns
    python benchmarks/bench_winograd.py --tiles realesrgan-x4plus=256   other networks and sides
    python benchmarks/bench_winograd.py --command [...]                 the whole command, on a photo of these sides

Each copy runs in a process of its own, which waits while the other one runs, and each pair of runs has new processes:
where their memory comes to lie makes one 8 % faster than the next. Times are medians, on the wall and of all threads'
CPU time; the ratio is the median of the ratios of the pairs. The difference is the largest one between the two copies'
results, whose values are about 0 to 1; of the command's, in levels of the PNG files.
"""

import argparse
import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

TILES = ("realesrgan-x4plus=256", "realesr-animevideov3=512")


def first_of(*names: str) -> Any:
    """Import the first module that there is. Names of older copies come first: an editable install has the others."""
    for name in names[:-1]:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    return importlib.import_module(names[-1])


def serve(model: str, side_px: int, threads: int | None, result: Path) -> None:
    """Run one tile for each line of stdin, and answer with its seconds; the first result is kept in a file."""
    load_model = first_of("realesr.zoo", "realesr.models.zoo").load_model
    open_winograd = first_of("realesr.engines.winograd_engine", "realesr.engines.winograd.engine").open_winograd
    batch = np.random.default_rng(0).random((1, 3, side_px, side_px), dtype=np.float32)
    with open_winograd(load_model(model), threads=threads) as engine:
        np.save(result, engine.run(batch))
        print("ready", flush=True)
        for _ in sys.stdin:
            wall, cpu = time.perf_counter(), time.process_time()
            engine.run(batch)
            print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu]), flush=True)


class Copy:
    """One copy of realesr in a process of its own."""

    def __init__(self, folder: Path | None, model: str, side_px: int, threads: int | None, result: Path) -> None:
        """Start it; `folder`: of another copy than the one that is installed."""
        command = [sys.executable, __file__, "--serve", model, str(side_px), str(threads or 0), str(result)]
        environment = dict(os.environ) if folder is None else {**os.environ, "PYTHONPATH": str(folder.resolve())}
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=tempfile.gettempdir(),
        )
        self._read()

    def time_one(self) -> tuple[float, float]:
        """Run one tile; seconds on the wall and of CPU time."""
        assert self._process.stdin is not None
        print("run", file=self._process.stdin, flush=True)
        wall, cpu = json.loads(self._read())
        return wall, cpu

    def _read(self) -> str:
        """Wait for the next line of the process."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a copy has ended: see its message above")
        return line

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def run_command(folder: Path | None, model: str, photo: Path, result: Path) -> tuple[float, float]:
    """Upscale a photo by the command of a copy; seconds on the wall and of CPU time."""
    environment = dict(os.environ) if folder is None else {**os.environ, "PYTHONPATH": str(folder.resolve())}
    command = [sys.executable, "-m", "realesr", "upscale", str(photo), "-m", model, "-o", str(result)]
    wall, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    options = ["--engine", "winograd", "--overwrite", "--quiet"]
    subprocess.run(
        [*command, *options], env=environment, cwd=tempfile.gettempdir(), check=True, stdout=subprocess.DEVNULL
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure_command(tile: str, against: Path | None, runs: int) -> dict[str, Any]:
    """Time the command on a photo, MODEL=SIDE, in each copy."""
    from PIL import Image
    from skimage import data

    model, _, side = tile.partition("=")
    folders = [None] if against is None else [None, against]
    with tempfile.TemporaryDirectory() as folder:
        photo, results = Path(folder, "photo.png"), [Path(folder, "this.png"), Path(folder, "other.png")]
        Image.fromarray(data.astronaut()).resize((int(side), int(side))).save(photo)  # type: ignore[no-untyped-call]
        times = []
        for number in range(runs):
            turns = range(len(folders)) if number % 2 == 0 else reversed(range(len(folders)))
            taken = {turn: run_command(folders[turn], model, photo, results[turn]) for turn in turns}
            times.append([taken[turn] for turn in range(len(folders))])
        row = {"model": model, "side_px": int(side), "runs": runs, **summary(times)}
        if against is not None:
            this, other = (np.asarray(Image.open(result), np.int16) for result in results)
            row["difference_levels"] = int(np.abs(this - other).max())
    return row


def summary(times: list[list[tuple[float, float]]]) -> dict[str, float]:
    """Return the medians of runs, each of one or two copies, and those of the ratios of the pairs."""
    row: dict[str, float] = {}
    for number, kind in enumerate(("wall", "cpu")):
        row[f"{kind}_s"] = statistics.median(run[0][number] for run in times)
        if len(times[0]) > 1:
            row[f"{kind}_s_other"] = statistics.median(run[1][number] for run in times)
            row[f"{kind}_ratio"] = statistics.median(run[0][number] / run[1][number] for run in times)
    return row


def measure(tile: str, against: Path | None, runs: int, threads: int | None) -> dict[str, Any]:
    """Time one tile, MODEL=SIDE, in each copy."""
    model, _, side = tile.partition("=")
    with tempfile.TemporaryDirectory() as folder:
        results = [Path(folder, "this.npy"), Path(folder, "other.npy")]
        folders = [None] if against is None else [None, against]
        times = []
        for number in range(runs):
            copies = [
                Copy(where, model, int(side), threads, result) for where, result in zip(folders, results, strict=False)
            ]
            turns = copies if number % 2 == 0 else copies[::-1]
            taken = {copy: copy.time_one() for copy in turns}
            times.append([taken[copy] for copy in copies])
            for copy in copies:
                copy.close()
        row: dict[str, Any] = {"model": model, "side_px": int(side), "runs": runs, **summary(times)}
        if against is not None:
            row["difference"] = float(np.abs(np.load(results[0]) - np.load(results[1])).max())
    return row


def main() -> None:
    """Measure all tiles and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", nargs="+", default=TILES, metavar="MODEL=SIDE")
    parser.add_argument("--against", type=Path, metavar="DIR", help="another installed copy of realesr")
    parser.add_argument("--runs", type=int, default=9, help="pairs of processes")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--command", action="store_true", help="time the whole command")
    parser.add_argument("--save", action="store_true", help="write the figures under results/")
    parser.add_argument("--serve", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        model, side, threads, result = arguments.serve
        serve(model, int(side), int(threads) or None, Path(result))
        return

    import report

    against, runs = arguments.against, arguments.runs
    if arguments.command:
        name, rows = "winograd-command", [measure_command(tile, against, runs) for tile in arguments.tiles]
    else:
        name, rows = "winograd", [measure(tile, against, runs, arguments.threads) for tile in arguments.tiles]
    report.show(f"Engine {name}", rows)
    if arguments.save:
        report.save(name, rows)


if __name__ == "__main__":
    main()

"""Injects faults of every kind, counts how each ends, and writes what came of it to RELIABILITY.md.

    python benchmarks/bench_faults.py                          everything, into results/ and RELIABILITY.md
    python benchmarks/bench_faults.py --only images,kills      these kinds; the others keep their last figures
    python benchmarks/bench_faults.py --trials 20 --out DIR    a few of each, into another folder

Every trial ends as "right", "refused" in one clear line, or as a fault; `faults_verdicts.py` says what the faults are.
The same seed gives the same inputs; when a signal comes, or a disk is full, is left to the machine. It exits with 1
where there was a fault.
"""

import argparse
import datetime
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faults_disks
import faults_downloads
import faults_engines
import faults_images
import faults_jpegs
import faults_kills
import faults_memory
import faults_models
import faults_onnx
import faults_recipes
import faults_soak
import report
from faults_page import write_page
from faults_verdicts import Tally

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of fault injection."""

    inject: Callable[[Tally, int, int, Path], None]
    """Takes where to count, the number of trials, the seed, and an empty folder."""
    trials: int


KINDS = {
    module.__name__.removeprefix("faults_"): Kind(inject=module.inject, trials=module.TRIALS)
    for module in (
        faults_onnx,  # the longest first: kinds run side by side
        faults_kills,
        faults_images,
        faults_disks,
        faults_memory,
        faults_jpegs,
        faults_downloads,
        faults_engines,
        faults_soak,
        faults_models,
        faults_recipes,
    )
}


def run_kind(name: str, trials: int | None, seed: int, kept_folder: Path | None) -> dict[str, Any]:
    """Run one kind; return its rows, figures and faults, with date, commit and seconds."""
    kind, began = KINDS[name], time.monotonic()
    tally = Tally(name, kept_folder)
    with tempfile.TemporaryDirectory(prefix=f"realesr-faults-{name}-", ignore_cleanup_errors=True) as folder:
        kind.inject(tally, trials or kind.trials, seed, Path(folder))
    seconds = time.monotonic() - began
    rows = tally.rows()
    print(f"{name}: {rows[-1]['trials']} trials, {len(tally.faults)} faults shown, {seconds:.0f} s", file=sys.stderr)
    return {
        "date": datetime.date.today().isoformat(),
        "commit": report.facts()["commit"],
        "command": f"python benchmarks/bench_faults.py --only {name} --seed {seed}"
        + (f" --trials {trials}" if trials else ""),
        "seconds": round(seconds, 1),
        "rows": rows,
        "figures": tally.figures,
        "skipped": tally.skipped,
        "faults": tally.faults,
    }


def earlier(folder: Path) -> dict[str, Any]:
    """Return kind -> its last results in a folder."""
    files = sorted(folder.glob("*-faults.json"))
    kinds: dict[str, Any] = json.loads(files[-1].read_text())["kinds"] if files else {}
    return kinds


@contextmanager
def own_cache() -> Iterator[None]:
    """Let everything that is started meanwhile keep its downloads and ONNX files in a new folder."""
    before = os.environ.get("REALESR_CACHE")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as cache:
        os.environ["REALESR_CACHE"] = cache
        try:
            yield
        finally:
            del os.environ["REALESR_CACHE"]
            if before is not None:
                os.environ["REALESR_CACHE"] = before


def main(words: list[str] | None = None) -> int:
    """Run the kinds that were asked for, print tables, write JSON and the page; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help=f"kinds, with commas between them: {', '.join(KINDS)}")
    parser.add_argument("--trials", type=int, help="of each kind, instead of its own number")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="kinds that run side by side")
    parser.add_argument("--out", type=Path, help="folder for JSON and page, instead of results/ and the top level")
    parser.add_argument("--keep", type=Path, help="folder that inputs are copied to which led to a fault")
    arguments = parser.parse_args(words)
    wanted = arguments.only.split(",") if arguments.only else list(KINDS)
    if unknown := [name for name in wanted if name not in KINDS]:
        parser.error(f"got --only {', '.join(unknown)}, expected some of {', '.join(KINDS)}")

    folder, page = (arguments.out, arguments.out) if arguments.out else (report.RESULTS, ROOT)
    results = earlier(folder)
    began = time.monotonic()
    with own_cache(), ThreadPoolExecutor(arguments.jobs) as pool:
        runs = {
            name: pool.submit(run_kind, name, arguments.trials, arguments.seed, arguments.keep)
            for name in KINDS
            if name in wanted
        }
        for name, run in runs.items():
            results[name] = run.result()
            report.save("faults", [], folder=folder, quiet=True, kinds=results)
    seconds = time.monotonic() - began
    path = report.save("faults", [], folder=folder, kinds=results, seconds=round(seconds, 1))
    write_page(page / "RELIABILITY.md", json.loads(path.read_text()))
    for name in runs:
        report.show(name, results[name]["rows"])
    found = [(name, fault) for name in runs for fault in results[name]["faults"]]
    for name, fault in found:
        print(f"{name}, {fault['subject']}: {fault['verdict']}: {fault['example']}", file=sys.stderr)
    print(f"{sum(results[name]['rows'][-1]['trials'] for name in runs)} trials in {seconds:.0f} s", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

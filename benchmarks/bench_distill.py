"""Scores distilled networks beside their teacher; draws the course of a distillation; measures the cache's memory.

    python benchmarks/bench_distill.py runs/fast realesr-general-x4v3 --photos judge [--real lowquality]
    python benchmarks/bench_distill.py --curve runs/fast
    python benchmarks/bench_distill.py --memory 50000

The first makes patches of 64 px of photos that nothing was learned from, degraded by the recipe `corrected` with fixed
seeds, and has every network enlarge them by the fastest engine here. Scores: PSNR to the teacher's answers and to the
truth, on RGB, 4 px of border left out; the mean absolute Laplacian (four neighbours) in levels of 255, which tells how
much texture there is, right or wrong, and as a share of the teacher's. Seconds a megapixel of the input are the best of
three tiles of 256 px. With --real also NIQE of enlarged photos of low quality, which has no truth: lower is better. The
picture has the patches in which the teacher draws most: input, bicubic, the networks in their order, teacher, truth.
"""

import argparse
import datetime
import json
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import report
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch.nn import functional

from realesr import Upscaler
from realesr.engine import Engine
from realesr.engines import open_engine
from realesr.models.zoo import load_model
from realesr.scores.niqe import niqe
from realesr.train.data.crops import read_crop
from realesr.train.data.image_list import find_training_images
from realesr.train.degrade.recipe import CORRECTED
from realesr.train.degraded_crops import as_bytes, as_floats, degraded_crops
from realesr.train.distill.answers import SHARD, Answers
from realesr.train.distill.asking import answered
from realesr.train.distill.patch_batches import AnsweredPatches, patch_batches
from realesr.train.metrics import psnr

Bytes = NDArray[np.uint8]
Row = dict[str, Any]

SCALE, PATCH_PX, READ_PX, BORDER_PX, SEED = 4, 64, 400, 4, 0
LOT = 16
TILE_PX, MEGAPIXEL = 256, 1e6
ROWS, CELL_PX = 8, 192
COLOURS = {"stage A": "#2050a0", "stage B": "#c05020", "bicubic": "#808080"}


def degraded_patches(photos: Sequence[Path], count: int) -> tuple[Bytes, Bytes]:
    """Patches and their truth, the same for the same photos: (N, 3, 64, 64) and (N, 3, 256, 256)."""
    lr, hr = [], []
    for start in range(0, count, LOT):
        numbers = range(start, min(start + LOT, count))
        crops = [read_crop(photos[number % len(photos)], READ_PX, seed=SEED + number) for number in numbers]
        whole = [torch.from_numpy(np.pad(crop.pixels, [(0, 0), *edges(crop.pixels)], "symmetric")) for crop in crops]
        sizes: dict[str, Any] = {"scale": SCALE, "crop_px": PATCH_PX * SCALE}
        images = torch.stack([as_floats(each) for each in whole])
        small, large, _ = degraded_crops(images, CORRECTED, seed=SEED + start, sharpened=False, **sizes)
        lr.append(as_bytes(small).numpy())
        hr.append(as_bytes(large).numpy())
    return np.concatenate(lr), np.concatenate(hr)


def edges(pixels: NDArray[Any]) -> list[tuple[int, int]]:
    """What a crop lacks at its bottom and right."""
    return [(0, max(0, READ_PX - side)) for side in pixels.shape[1:]]


def bicubic(lr: Bytes) -> Bytes:
    """Keys' cubic with a = -0.5, as Pillow has it, rounded."""
    large = functional.interpolate(as_floats(torch.from_numpy(lr)), scale_factor=SCALE, mode="bicubic", antialias=True)
    return as_bytes(large).numpy()


def seconds_per_megapixel(network: Engine) -> float:
    """Return the seconds for a megapixel of the input, by the best of three tiles."""
    tile = np.random.default_rng(0).random((1, 3, TILE_PX, TILE_PX), np.float32)
    network.run(tile)
    found = []
    for _ in range(3):
        started = time.perf_counter()
        network.run(tile)
        found.append(time.perf_counter() - started)
    return min(found) * MEGAPIXEL / TILE_PX**2


def laplacian_levels(images: Bytes) -> float:
    """Return the mean absolute Laplacian (four neighbours) without the border, in levels of 255."""
    means = []
    for image in images:
        levels = image.astype(np.float32)
        around = levels[:, :-2, 1:-1] + levels[:, 2:, 1:-1] + levels[:, 1:-1, :-2] + levels[:, 1:-1, 2:]
        means.append(np.abs(4 * levels[:, 1:-1, 1:-1] - around).mean())
    return float(np.mean(means))


def mean_psnr(images: Bytes, truth: Bytes) -> float:
    """Return the mean PSNR in dB."""
    pairs = zip(images, truth, strict=True)
    found = [psnr(*(as_floats(torch.from_numpy(each[None])) for each in pair), border_px=BORDER_PX) for pair in pairs]
    return float(torch.cat(found).clamp(max=100).mean())


def mean_niqe(network: str | None, photos: Sequence[Path]) -> float | None:
    """Return the mean NIQE of enlarged photos; None where there are none. Without a network they are bicubic."""
    if not photos:
        return None
    images = [open_rgb(path) for path in photos]
    if network is None:
        sizes = [(image.width * SCALE, image.height * SCALE) for image in images]
        large = [image.resize(size, Image.Resampling.BICUBIC) for image, size in zip(images, sizes, strict=True)]
    else:
        with Upscaler(network) as upscaler:
            large = [upscaler.upscale(image) for image in images]
    return float(np.mean([niqe(np.asarray(image)) for image in large]))


def open_rgb(path: Path) -> Image.Image:
    """Return a photo without alpha."""
    with Image.open(path) as image:
        return image.convert("RGB")


def table(photos: Sequence[Path], real: Sequence[Path], networks: list[str], teacher: str, count: int) -> list[Row]:
    """Score bicubic, the networks and the teacher; write the picture."""
    lr, truth = degraded_patches(photos, count)
    enlarged: dict[str, Bytes] = {}
    rows: list[Row] = []
    for name in (teacher, "bicubic", *networks):
        row: Row = {"who": name}
        if name == "bicubic":
            enlarged[name], row["niqe"] = bicubic(lr), mean_niqe(None, real)
        else:
            with open_engine(load_model(name)) as network:
                enlarged[name] = answered(network, lr)
                row |= {"engine": network.spec.name, "s_per_mp": seconds_per_megapixel(network)}
            row["niqe"] = mean_niqe(name, real)
        texture = laplacian_levels(enlarged[name])
        row |= {
            "to_teacher_db": mean_psnr(enlarged[name], enlarged[teacher]),
            "to_truth_db": mean_psnr(enlarged[name], truth),
            "laplacian_levels": texture,
            "laplacian_share": texture / laplacian_levels(enlarged[teacher]),
        }
        rows.append(row)
        print(row, file=sys.stderr)
    columns = [enlarged[name] for name in ("bicubic", *networks, teacher)]
    write_picture(lr, [*columns, truth], report.RESULTS / f"{datetime.date.today()}-distill.jpg")
    return rows


def write_picture(lr: Bytes, columns: Sequence[Bytes], path: Path) -> None:
    """Write the patches in which the teacher, the last column but one, draws most: the middle of each."""
    strength = [laplacian_levels(image[None]) for image in columns[-2]]
    nearest = lr.repeat(SCALE, 2).repeat(SCALE, 3)
    start = (PATCH_PX * SCALE - CELL_PX) // 2
    middle = slice(start, start + CELL_PX)
    rows = [
        np.concatenate([column[place, :, middle, middle] for column in (nearest, *columns)], axis=2)
        for place in np.argsort(strength)[::-1][:ROWS]
    ]
    Image.fromarray(np.concatenate(rows, axis=1).transpose(1, 2, 0)).save(path, quality=92)


def curve(run: Path) -> list[Row]:
    """Draw PSNR to the teacher over the iterations of both stages; return the points."""
    rows: list[Row] = []
    before = 0
    for stage, folder in (("stage A", run / "stage_a"), ("stage B", run)):
        records = [json.loads(line) for line in (folder / "log.jsonl").read_text("utf-8").splitlines()]
        scores = [record for record in records if record["kind"] == "validation"]
        rows += [
            {
                "stage": stage,
                "iteration": record["iteration"],
                "passed": before + record["iteration"],
                "to_teacher_db": record["psnr"],
                "bicubic_db": record["bicubic_psnr"],
            }
            for record in scores
        ]
        before = rows[-1]["passed"]
    draw_curve(rows, report.RESULTS / f"{datetime.date.today()}-distill-curve.png")
    return rows


def draw_curve(rows: list[Row], path: Path) -> None:
    """Draw the points of both stages, and bicubic as a level line."""
    width, height, margin = 720, 420, 60
    values = [row[key] for row in rows for key in ("to_teacher_db", "bicubic_db")]
    low, high, last = min(values) - 0.2, max(values) + 0.2, rows[-1]["passed"]

    def place(passed: float, value: float) -> tuple[float, float]:
        x = margin + (width - 2 * margin) * passed / last
        return x, height - margin - (height - 2 * margin) * (value - low) / (high - low)

    picture = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(picture)
    pen.rectangle((*place(0, high), *place(last, low)), outline="#888888")
    words = f"0 to {last} iterations; PSNR to the teacher in dB, {low:.1f} to {high:.1f}"
    pen.text((margin, height - margin + 8), words, "#444444", font_size=13)
    lines = {
        stage: [(row["passed"], row["to_teacher_db"]) for row in rows if row["stage"] == stage] for stage in COLOURS
    }
    lines["bicubic"] = [(0, rows[-1]["bicubic_db"]), (last, rows[-1]["bicubic_db"])]
    for number, (name, points) in enumerate(lines.items()):
        pen.line([place(*point) for point in points], COLOURS[name], width=3)
        legend = f"{name}: {points[-1][1]:.2f}"
        pen.text((width - margin - 160, height / 2 - 30 + 20 * number), legend, COLOURS[name], font_size=13)
    picture.save(path)


def memory(count: int) -> list[Row]:
    """Read each of so many patches once, in batches of 16; return the process's peak of memory before and after.

    The files are sparse: a patch is read from the disk's cache all the same, and none of it belongs to the process.
    """
    with tempfile.TemporaryDirectory() as name:
        kept = Answers(folder=Path(name), patch_px=PATCH_PX, scale=SCALE)
        for number in range(-(-count // SHARD)):
            shard = Path(name) / f"{number:06d}"
            shard.mkdir()
            for file, px in (("lr.npy", PATCH_PX), ("answers.npy", PATCH_PX * SCALE)):
                np.lib.format.open_memmap(shard / file, "w+", np.uint8, (SHARD, 3, px, px))
        source = AnsweredPatches(answers=kept, count=count, crop_px=PATCH_PX * SCALE, flip=True, rotate=True)
        stream, batch = patch_batches(source, seed=0, first_iteration=0, batch=16), 16
        next(stream)
        before, started = peak_bytes(), time.perf_counter()
        for _ in range(count // batch):
            next(stream)
        seconds = time.perf_counter() - started
    size = kept.shard_bytes() / SHARD * count
    peaks = {"peak_before_mb": before / 1e6, "peak_mb": peak_bytes() / 1e6, "more_mb": (peak_bytes() - before) / 1e6}
    return [{"patches": count, "on_disk_mb": size / 1e6, **peaks, "patches_s": count / seconds}]


def peak_bytes() -> int:
    """Return the most memory that this process has held (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Measure, print a table, write JSON and a picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help="names, files, or folders of runs")
    parser.add_argument("--photos", type=Path, nargs="+", default=[], metavar="PATH", help="that nothing learned from")
    parser.add_argument("--real", type=Path, nargs="+", default=[], metavar="PATH", help="photos of low quality")
    parser.add_argument("--teacher", default="realesrgan-x4plus")
    parser.add_argument("--patches", type=int, default=128)
    parser.add_argument("--curve", type=Path, metavar="RUN", help="draw the course of this distillation")
    parser.add_argument("--memory", type=int, metavar="N", help="read a cache of so many patches")
    arguments = parser.parse_args()
    if arguments.curve:
        report.save("distill-curve", curve(arguments.curve))
    elif arguments.memory:
        rows = memory(arguments.memory)
        report.show("The cache of a teacher's answers", rows)
        report.save("distill-memory", rows)
    elif arguments.photos:
        photos, real = (find_training_images(paths) if paths else [] for paths in (arguments.photos, arguments.real))
        rows = table(photos, real, arguments.networks, arguments.teacher, arguments.patches)
        report.show(f"{arguments.patches} patches of {len(photos)} photos", rows)
        report.save("distill", rows, photos=[path.name for path in photos], real=[path.name for path in real])
    else:
        parser.error("expected --photos, --curve or --memory")


if __name__ == "__main__":
    main()

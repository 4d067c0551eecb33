"""Both stages of the recipe tiny_cpu from scratch, on photos that packages ship, through the commands themselves.

    apt-get download mate-backgrounds lomiri-wallpapers-16.04 lomiri-wallpapers-20.04 plasma-workspace-wallpapers
    for package in *.deb; do dpkg -x $package photos; done
    python benchmarks/bench_tiny_cpu.py --photos photos/usr/share/backgrounds/*.jpg \
        photos/usr/share/backgrounds/mate/nature/*.jpg photos/usr/share/wallpapers/*/contents/images/2560x1600.jpg

Trains on photos of scikit-image, which has few that show the world, and on more: here those of Debian's packages of
backgrounds for desktops. Scores on 24 crops of three other photos of scikit-image, degraded with fixed seeds: PSNR on
RGB against the true crop, 4 px cropped at each border. The rivals are bicubic interpolation, and bicubic interpolation
followed by the Gaussian blur that scores best on these very crops. The networks enlarge the crops through
`realesr upscale`. Colour drift is the mean difference of the colours of squares of 32 px from those of the input.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import report
import torch
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from realesr.train.degrade.apply import apply
from realesr.train.degrade.draw import draw
from realesr.train.degrade.recipe import CORRECTED
from realesr.train.metrics import colour_drift, psnr

TRAIN = (
    "astronaut.png",
    "camera.png",
    "coins.png",
    "color.png",
    "grass.png",
    "moon.png",
    "motorcycle_left.png",
    "motorcycle_right.png",
)
TRAIN_SIDES_PX = (600, 300)
"""Photos are shrunk by whole numbers to shorter sides of about these: sharper, and more of the photo in a crop."""
HELD_OUT = ("chelsea.png", "coffee.png", "rocket.jpg")
CROPS_EACH = 8
CROP_PX, SCALE, BORDER_PX, SEED = 128, 4, 4, 0
CURVE, RIVALS = "#2050a0", ("#808080", "#c05020")


def make_images(folder: Path, photos: list[Path]) -> None:
    """Photos to train on, and pairs to score on: `train`, `gt`, `lq`."""
    import skimage

    shipped = Path(skimage.__file__).parent / "data"
    for name in ("train", "gt", "lq"):
        (folder / name).mkdir()
    for number, path in enumerate([*(shipped / name for name in TRAIN), *photos]):
        with Image.open(path) as photo:
            colour = photo.convert("RGB")
        for factor in sorted({max(1, round(min(colour.size) / side)) for side in TRAIN_SIDES_PX}):
            # Uncompressed: squares are cut out of a file that is read every time.
            colour.reduce(factor).save(folder / "train" / f"{number:03d}-{path.stem}-{factor}.tif")
    crops = [crop for name in HELD_OUT for crop in cut(shipped / name)]
    hr = torch.from_numpy(np.stack(crops).transpose(0, 3, 1, 2).astype(np.float32) / 255)
    drawn = draw(CORRECTED, len(crops), torch.Generator().manual_seed(SEED), hr_px=(CROP_PX, CROP_PX), scale=SCALE)
    for number, (crop, lr) in enumerate(zip(crops, apply(hr, drawn), strict=True)):
        Image.fromarray(crop).save(folder / "gt" / f"{number:02d}.png")
        small = (lr * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(small).save(folder / "lq" / f"{number:02d}.png")


def cut(path: Path) -> list[np.ndarray]:
    """Crops of one photo, in places that a seed chooses."""
    with Image.open(path) as photo:
        pixels = np.asarray(photo.convert("RGB"))
    places = np.random.default_rng(SEED)
    crops = []
    for _ in range(CROPS_EACH):
        top = int(places.integers(pixels.shape[0] - CROP_PX + 1))
        left = int(places.integers(pixels.shape[1] - CROP_PX + 1))
        crops.append(pixels[top : top + CROP_PX, left : left + CROP_PX])
    return crops


def load(folder: Path) -> torch.Tensor:
    """All images of a folder, (N, 3, H, W) in [0, 1]."""
    images = [np.asarray(Image.open(path).convert("RGB"), np.float32) / 255 for path in sorted(folder.glob("*.png"))]
    return torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).copy())


def score(images: torch.Tensor, truth: torch.Tensor) -> float:
    """Mean PSNR in dB."""
    return float(
        np.mean([float(psnr(a[None], b[None], border_px=BORDER_PX)) for a, b in zip(images, truth, strict=True)])
    )


def rivals(folder: Path, truth: torch.Tensor) -> dict[str, float]:
    """Bicubic interpolation, alone and with the best blur."""
    enlarged = []
    for path in sorted((folder / "lq").glob("*.png")):
        with Image.open(path) as small:
            large = small.convert("RGB").resize((CROP_PX, CROP_PX), Image.Resampling.BICUBIC)
        enlarged.append(np.asarray(large, np.float32) / 255)
    bicubic = np.stack(enlarged)

    def blurred(sigma: float) -> float:
        pixels = np.clip(gaussian_filter(bicubic, (0, sigma, sigma, 0)), 0, 1).transpose(0, 3, 1, 2)
        return score(torch.from_numpy(np.round(pixels * 255).astype(np.float32) / 255), truth)

    by_sigma = {sigma: blurred(sigma) for sigma in np.arange(0.25, 6.01, 0.25)}
    best = max(by_sigma, key=lambda sigma: by_sigma[sigma])
    return {"bicubic": blurred(0), "bicubic_and_blur": by_sigma[best], "blur_sigma_px": float(best)}


def realesr(*arguments: object) -> float:
    """Run the command; returns its seconds."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "realesr", *map(str, arguments)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def curve(run: Path) -> list[tuple[int, float]]:
    """(iteration, PSNR) of each validation."""
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [(record["iteration"], record["psnr"]) for record in records if record["kind"] == "validation"]


def draw_curve(points: list[tuple[int, float]], lines: dict[str, float], path: Path) -> None:
    """PSNR over iterations, and the rivals as level lines."""
    width, height, margin = 720, 420, 60
    values = [value for _, value in points] + list(lines.values())
    low, high, last = min(values) - 0.2, max(values) + 0.2, points[-1][0]

    def place(iteration: float, value: float) -> tuple[float, float]:
        x = margin + (width - 2 * margin) * iteration / last
        return x, height - margin - (height - 2 * margin) * (value - low) / (high - low)

    picture = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(picture)
    pen.rectangle((*place(0, high), *place(last, low)), outline="#888888")
    pen.text(
        (margin, height - margin + 8), f"0 to {last} iterations; PSNR in dB, higher is better", "#444444", font_size=13
    )
    legend = [(f"stage 1: {points[-1][1]:.2f}", CURVE)]
    for (name, value), colour in zip(lines.items(), RIVALS, strict=True):
        pen.line((*place(0, value), *place(last, value)), colour, width=2)
        legend.append((f"{name}: {value:.2f}", colour))
    pen.line([place(*point) for point in points], CURVE, width=3)
    for row, (words, colour) in enumerate(legend):
        pen.text((width - margin - 225, height - margin - 66 + 20 * row), words, colour, font_size=13)
    picture.save(path)


def draw_picture(folder: Path, outputs: list[Path], path: Path, rows: int = 6) -> None:
    """One row a crop: input, bicubic, stage 1, stage 2, truth."""
    lines = []
    for number in range(0, len(HELD_OUT) * CROPS_EACH, len(HELD_OUT) * CROPS_EACH // rows):
        name = f"{number:02d}.png"
        with Image.open(folder / "lq" / name) as small:
            colour = small.convert("RGB")
            cells = [
                colour.resize((CROP_PX, CROP_PX), how) for how in (Image.Resampling.NEAREST, Image.Resampling.BICUBIC)
            ]
        enlarged = f"{number:02d}_x{SCALE}.png"
        places = [*(output / enlarged for output in outputs), folder / "gt" / name]
        cells += [Image.open(place).convert("RGB") for place in places]
        lines.append(np.hstack([np.asarray(cell) for cell in cells]))
    Image.fromarray(np.vstack(lines)).save(path, quality=92)


def measure(folder: Path, photos: list[Path], recipe_changes: list[str]) -> list[dict[str, Any]]:
    """Train both stages, score them, write the pictures."""
    make_images(folder, photos)
    data = ("--data", folder / "train", "--val-gt", folder / "gt", "--val-lq", folder / "lq", "--recipe", "tiny_cpu")
    changes = [word for change in recipe_changes for word in ("--set", change)]
    net, gan = folder / "net", folder / "gan"
    truth, inputs = load(folder / "gt"), load(folder / "lq")
    rows: list[dict[str, Any]] = []
    for stage, run, init in (("stage1", net, ()), ("stage2", gan, ("--init", net))):
        seconds = realesr("train", stage, *data, *init, *changes, "--out", run)
        realesr("upscale", folder / "lq", "-m", run, "-o", folder / f"{stage}-large", "--format", "png", "--quiet")
        enlarged = load(folder / f"{stage}-large")
        rows.append(
            {
                "what": stage,
                "psnr_db": score(enlarged, truth),
                "colour_drift_levels": float(colour_drift(enlarged, inputs)),
                "seconds": seconds,
            }
        )
        print(rows[-1], file=sys.stderr)
    others = rivals(folder, truth)
    for name in ("bicubic", "bicubic_and_blur"):
        rows.append({"what": name, "psnr_db": others[name], "colour_drift_levels": None, "seconds": None})
    best = max(others["bicubic"], others["bicubic_and_blur"])
    for row in rows:
        row |= {"over_best_rival_db": row["psnr_db"] - best, "under_stage1_db": rows[0]["psnr_db"] - row["psnr_db"]}
    lines = {
        "bicubic": others["bicubic"],
        f"bicubic and blur of {others['blur_sigma_px']:g} px": others["bicubic_and_blur"],
    }
    draw_curve(curve(net), lines, report.RESULTS / "tiny_cpu_curve.png")
    draw_picture(folder, [folder / "stage1-large", folder / "stage2-large"], report.RESULTS / "tiny_cpu_crops.jpg")
    return rows


def main() -> None:
    """Measure, print a table, write JSON and two pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, nargs="*", default=[], metavar="FILE", help="more to train on")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="changes the recipe")
    parser.add_argument("--keep", type=Path, help="an empty folder for everything that is made")
    arguments = parser.parse_args()
    if arguments.keep:
        arguments.keep.mkdir(parents=True)
        rows = measure(arguments.keep, arguments.photos, arguments.set)
    else:
        with tempfile.TemporaryDirectory() as folder:
            rows = measure(Path(folder), arguments.photos, arguments.set)
    report.show("tiny_cpu", rows)
    report.save("tiny-cpu", rows)


if __name__ == "__main__":
    main()

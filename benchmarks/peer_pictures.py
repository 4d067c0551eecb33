"""The pictures of bench_peers.py: makes the photo, compares results, and draws the bars.

    python benchmarks/peer_pictures.py photo SOURCE TARGET WIDTH HEIGHT      the middle of a photo, of this size
    python benchmarks/peer_pictures.py compare PICTURE REFERENCE             PSNR and differences, as JSON

Both run in processes of their own, for the memory that they take would count as that of every process measured later.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

NAMES_WIDTH_PX, BARS_WIDTH_PX, SECONDS_WIDTH_PX, LINE_HEIGHT_PX = 400, 640, 100, 34


def make_photo(source: Path, target: Path, width: int, height: int) -> None:
    """Write the middle of a photo, enlarged first where it is too small."""
    with Image.open(source) as image:
        ImageOps.fit(image.convert("RGB"), (width, height), Image.Resampling.LANCZOS).save(target)


def compare(picture: Path, reference: Path) -> dict[str, float]:
    """Return PSNR in dB, and differences in 8-bit levels; bench_peers.py says what the seam is."""
    Image.MAX_IMAGE_PIXELS = None
    one, other = (np.asarray(Image.open(path).convert("RGB"), np.float32) for path in (picture, reference))
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


def draw(path: Path, title: str, rows: list[dict[str, Any]]) -> None:
    """Draw bars of seconds, the shortest first."""
    done = sorted((row for row in rows if not row["skipped"]), key=lambda row: float(row["seconds"]))
    font = ImageFont.load_default(size=18)
    size = NAMES_WIDTH_PX + BARS_WIDTH_PX + SECONDS_WIDTH_PX, LINE_HEIGHT_PX * (len(done) + 2)
    image = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(image)
    pen.text((12, 8), title, "black", font)
    for number, row in enumerate(done, start=1):
        top = number * LINE_HEIGHT_PX + 8
        end = NAMES_WIDTH_PX + max(2, round(BARS_WIDTH_PX * row["seconds"] / done[-1]["seconds"]))
        colour = "#1f6f8b" if row["row"].startswith("realesr ") else "#b8b8b8"
        pen.text((12, top), str(row["row"]), "black", font)
        pen.rectangle((NAMES_WIDTH_PX, top, end, top + 20), colour)
        pen.text((end + 8, top), f"{row['seconds']:.1f} s", "black", font)
    image.save(path)


def main() -> None:
    """Make a photo, or compare two pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    photo = commands.add_parser("photo")
    photo.add_argument("source", type=Path)
    photo.add_argument("target", type=Path)
    photo.add_argument("width", type=int)
    photo.add_argument("height", type=int)
    both = commands.add_parser("compare")
    both.add_argument("picture", type=Path)
    both.add_argument("reference", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "photo":
        make_photo(arguments.source, arguments.target, arguments.width, arguments.height)
    else:
        print(json.dumps(compare(arguments.picture, arguments.reference)))


if __name__ == "__main__":
    main()

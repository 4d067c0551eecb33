"""Error of each engine and precision against float32 in ONNX Runtime, by network.

    python benchmarks/bench_precision.py PHOTO [PHOTO ...]

Each photo is cut to the middle --side px; crops of scikit-image's photos and the pictures that exports are proven on
(`realesr.export.pictures`) are added. PSNR is over all values of one image, peak 1, nothing rounded; its least value is
that of the worst image, and so is what 99.9 % of an image's values are within. Levels are 8-bit ones.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import report
import skimage.data
from numpy.typing import NDArray
from PIL import Image

from realesr.engine import Engine
from realesr.engines import open_engine
from realesr.errors import RealesrError
from realesr.export.pictures import made_photo, noise
from realesr.export.proof import Case, CaseResult, measure
from realesr.models.weights import Weights
from realesr.models.zoo import load_model

MODELS = ("realesr-animevideov3", "realesrgan-x4plus-anime", "realesrgan-x4plus")
WAYS = (
    ("winograd", "fp32"),
    ("onnxruntime", "fp16"),
    ("torch", "fp32"),
    ("torch", "bf16"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
    ("ncnn", "fp32"),
    ("ncnn", "fp16"),
)
"""Engine and precision; what cannot be opened here is left out, and said."""
SKIMAGE = ("astronaut", "chelsea", "coffee", "rocket")
MADE = "made"

Named = list[tuple[str, NDArray[np.float32]]]


def middle(image: Image.Image, side_px: int) -> NDArray[np.float32]:
    """The middle of an image as (1, 3, h, w) float32 in [0, 1], at most side_px a side."""
    width, height = min(image.width, side_px), min(image.height, side_px)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    pixels = np.asarray(image.convert("RGB").crop((left, top, left + width, top + height)), np.float32) / 255
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])


def all_images(paths: list[Path], side_px: int) -> Named:
    """Every image by name: given ones, scikit-image's, made ones."""
    images = [(path.name, middle(eight_bits(path), side_px)) for path in paths]
    images += [(name, middle(Image.fromarray(getattr(skimage.data, name)()), side_px)) for name in SKIMAGE]
    return [*images, (f"{MADE} photo", made_photo(1, side_px, side_px)), (f"{MADE} noise", noise(1, side_px, side_px))]


def eight_bits(path: Path) -> Image.Image:
    """Pillow reads colours of 16 bits as 8, and grey of 16 bits as numbers that `convert` cuts off."""
    image = Image.open(path)
    return image.convert("RGBA").convert("RGB") if image.mode in ("P", "PA") else image.convert("RGB")


def opened(weights: Weights, engine: str, precision: str) -> Engine | None:
    """The engine, or None with a word about why not."""
    try:
        return open_engine(weights, engine=engine, device="cpu", precision=precision)
    except RealesrError as error:
        print(f"left out: {engine} {precision}: {error}", file=sys.stderr)
        return None


def rows_of(model: str, images: Named) -> Iterator[dict[str, Any]]:
    """One row for each way of running the network."""
    weights = load_model(model)
    assert isinstance(weights, Weights)
    with open_engine(weights, engine="onnxruntime", device="cpu", precision="fp32") as exact:
        cases = [Case(picture=name, batch=batch, expected=exact.run(batch)) for name, batch in images]
    for engine, precision in WAYS:
        candidate = opened(weights, engine, precision)
        if candidate is not None:
            with candidate:
                yield figures(model, engine, precision, [measure(case, candidate.run) for case in cases])


def figures(model: str, engine: str, precision: str, rows: list[CaseResult]) -> dict[str, Any]:
    """Over all real images together; beside them the worst of the made ones."""
    real = [row for row in rows if not row.picture.startswith(MADE)]
    worst = min(real, key=lambda row: row.psnr_db)
    return {
        "model": model,
        "engine": engine,
        "precision": precision,
        "images": len(real),
        "max levels": max(row.max_levels for row in real),
        "99.9 % levels": max(row.p999_levels for row in real),
        "mean levels": float(np.mean([row.mean_levels for row in real])),
        "least dB": worst.psnr_db,
        "of": worst.picture,
        "mean dB": float(np.mean([row.psnr_db for row in real])),
        **{f"{row.picture} dB": row.psnr_db for row in rows if row.picture.startswith(MADE)},
    }


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="+")
    parser.add_argument("--side", type=int, default=64, help="largest side of what is cut from each image, px")
    parser.add_argument("--models", nargs="*", help="only these networks")
    arguments = parser.parse_args()
    images = all_images(arguments.photos, arguments.side)
    rows = [row for model in MODELS if not arguments.models or model in arguments.models
            for row in rows_of(model, images)]  # fmt: skip
    report.show("error against float32 in ONNX Runtime", rows)
    report.save("precision", rows, side_px=arguments.side)


if __name__ == "__main__":
    main()

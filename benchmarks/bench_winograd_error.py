"""Largest rounding error of engine winograd in levels of 255, against the network in float64.

    python benchmarks/bench_winograd_error.py IMAGE... [--models realesrgan-x4plus ...]

Beside it stands PyTorch's own error in float32, by plain convolutions. Of images of more than 128 x 128 px the middle
is taken: in float64 a megapixel of x4plus takes an hour.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import report
import torch
from numpy.typing import NDArray
from PIL import Image

from realesr.engines import open_engine
from realesr.models.weights import Weights
from realesr.models.zoo import load_model
from realesr.networks import build_with

MODELS = ("realesrgan-x4plus", "realesr-animevideov3")
SIDE_PX = 128


def middle_of(path: Path) -> NDArray[np.float32]:
    """Return the middle of an image, at most SIDE_PX a side, as (1, 3, height, width) RGB in [0, 1]."""
    with Image.open(path) as image:
        values = np.asarray(image.convert("RGB"), np.float32) / 255
    top, left = (max(0, (length - SIDE_PX) // 2) for length in values.shape[:2])
    middle = values[top : top + SIDE_PX, left : left + SIDE_PX]
    return np.ascontiguousarray(middle.transpose(2, 0, 1)[None])


def measure(model: str, images: list[Path]) -> list[dict[str, Any]]:
    """Return a row for each image."""
    weights, rows = load_model(model), []
    assert isinstance(weights, Weights), f"{model} has no weights that PyTorch takes"
    single, double = build_with(weights).eval(), build_with(weights).eval().double()
    with open_engine(weights, engine="winograd") as engine, torch.inference_mode():
        for path in images:
            batch = middle_of(path)
            exact = double(torch.from_numpy(batch).double()).numpy()
            plain = single(torch.from_numpy(batch)).numpy()
            errors = 255 * np.abs(engine.run(batch) - exact)
            rows.append(
                {
                    "model": model,
                    "image": path.name,
                    "px": f"{batch.shape[3]} x {batch.shape[2]}",
                    "largest": errors.max(),
                    "99.9 %": np.quantile(errors, 0.999),
                    "PyTorch, largest": 255 * np.abs(plain - exact).max(),
                }
            )
    return rows


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    arguments = parser.parse_args()
    rows = [row for model in arguments.models for row in measure(model, arguments.images)]
    report.show("Rounding errors in levels", rows)
    report.save("winograd-error", rows)


if __name__ == "__main__":
    main()

"""Seams: |tiled - whole image| in 8-bit levels, by network and overlap.

    python benchmarks/bench_seams.py PHOTO [PHOTO ...]

Tiles answer for 128 px with the small networks and for 192 px with the deep ones, at least four tiles a photo. The
last columns look only at output pixels within 2 px of the lines where tiles meet. Each photo is cut to --side px first,
since the whole image has to fit into memory (x4plus: about 29 kB a pixel).
"""

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import report
from numpy.typing import NDArray
from PIL import Image

from realesr.engines import model_facts, open_engine
from realesr.models.zoo import load_model
from realesr.runtime.engine_pool import EnginePool
from realesr.runtime.rows import Band
from realesr.runtime.tiled import enlarge_bands, plan_for
from realesr.runtime.tiling import Tiling

CASES: list[tuple[str, int, list[tuple[int, bool]]]] = [
    ("realesr-animevideov3", 128, [(0, False), (10, False), (18, False)]),
    ("realesrgan-x4plus-anime", 192, [(10, False), (32, False), (32, True), (64, True), (94, False)]),
    ("realesrgan-x4plus", 192, [(10, False), (32, False), (32, True), (64, True), (128, True)]),
]
"""Network, tile, and (overlap, whether tiles fade into one another)."""


def read(path: Path, side_px: int) -> Band:
    """The middle of a photo as (3, h, w) float32 in [0, 1], at most side_px a side."""
    image = Image.open(path).convert("RGB")
    width, height = min(image.width, side_px), min(image.height, side_px)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    pixels = np.asarray(image.crop((left, top, left + width, top + height)), np.float32) / 255
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def levels(band: Band) -> NDArray[np.int16]:
    """As written to an 8-bit file."""
    return np.rint(np.clip(band, 0, 1) * 255).astype(np.int16)


def tiled(image: Band, network: EnginePool) -> Band:
    """The image through the runtime."""
    _, height, width = image.shape
    return np.concatenate(list(enlarge_bands([image], network, height_px=height, width_px=width)), axis=1)


def near_cuts(network: EnginePool, image: Band) -> NDArray[np.bool_]:
    """Mask of output pixels within 2 px of a line where tiles meet."""
    plan, scale = plan_for(network, *image.shape[1:]), network.spec.scale
    mask = np.zeros((image.shape[1] * scale, image.shape[2] * scale), bool)
    for axis, tiles in ((0, plan.rows.tiles), (1, plan.columns.tiles)):
        for before, after in itertools.pairwise(tiles):
            cut = (before.last + after.first) * scale // 2
            mask[(slice(None),) * axis + (slice(cut - 2, cut + 2),)] = True
    return mask


def rows_of(model: str, tile_px: int, overlaps: list[tuple[int, bool]], photos: list[Path], side: int) -> Iterator[Any]:
    """One row for each overlap: over all photos together."""
    loaded = load_model(model)
    engine = open_engine(loaded, engine="onnxruntime", precision="fp32")
    images = [read(photo, side) for photo in photos]
    wholes = [levels(engine.run(image[None])[0]) for image in images]
    for overlap, blend in overlaps:
        network = EnginePool(engine, tiling=Tiling(tile_px=tile_px, overlap_px=overlap, blend=blend))
        differences, at_cuts, counts = [], [], []
        for image, whole in zip(images, wholes, strict=True):
            difference = np.abs(levels(tiled(image, network)) - whole)
            counts.append(len(plan_for(network, *image.shape[1:])))
            differences.append(difference.ravel())
            at_cuts.append(difference[:, near_cuts(network, image)].ravel())
        everywhere, cuts = np.concatenate(differences), np.concatenate(at_cuts)
        yield {
            "model": model,
            "radius_px": model_facts(loaded).radius_px,
            "tile_px": tile_px,
            "overlap_px": overlap,
            "join": "fade" if blend else "cut",
            "tiles": "+".join(map(str, counts)),
            **{f"{key}": value for key, value in figures("", everywhere).items()},
            **{f"{key}": value for key, value in figures(" at cuts", cuts).items()},
        }
    engine.close()


def figures(where: str, difference: NDArray[np.int16]) -> dict[str, float]:
    """Mean, 99.9 % and largest difference, in 8-bit levels."""
    if not difference.size:
        return {f"mean{where}": 0.0, f"99.9 %{where}": 0.0, f"max{where}": 0.0}
    return {
        f"mean{where}": float(difference.mean()),
        f"99.9 %{where}": float(np.percentile(difference, 99.9)),
        f"max{where}": float(difference.max()),
    }


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="+")
    parser.add_argument("--side", type=int, default=480, help="largest side of what is cut from each photo, px")
    parser.add_argument("--models", nargs="*", help="only these networks")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for model, tile_px, overlaps in CASES:
        if not arguments.models or model in arguments.models:
            rows += rows_of(model, tile_px, overlaps, arguments.photos, arguments.side)
    report.show("|tiled - whole image| in 8-bit levels", rows)
    report.save("seams", rows)


if __name__ == "__main__":
    main()

"""Iterations a second of both stages by wall clock, and the share of each part.

    python benchmarks/bench_train.py                                            what a CPU can do in minutes
    python benchmarks/bench_train.py --recipe x4plus --batch 48 --device cuda   the paper's shape on a GPU

Each row is a run of its own through `realesr.train`, from a random initialisation, on photos that scikit-image ships.
The perceptual loss has a VGG19 of random weights: its time does not depend on them. The first iterations are left out.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import report
import torch

from realesr.train.log import LOG
from realesr.train.request import Request
from realesr.train.timing import PARTS
from realesr.train.trainer import train
from realesr.train.vgg import Vgg19

CPU_ROWS = (("tiny_cpu", 4, 80), ("general_x4", 2, 4), ("x4plus", 1, 2))
"""Recipe, batch, iterations that are counted."""

PHOTOS = ("astronaut.png", "hubble_deep_field.jpg", "motorcycle_left.png", "retina.jpg")


def photos() -> list[Path]:
    """Photos that are large enough for crops of 400 px."""
    import skimage

    return [Path(skimage.__file__).parent / "data" / name for name in PHOTOS]


def one_run(recipe: str, stage: str, batch: int, counted: int, device: str, changes: list[str]) -> dict[str, Any]:
    """Train for a while; iterations a second, and percent of the time by part."""
    warm_up = max(2, counted // 4)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        vgg = folder / "vgg.pth"
        torch.save(Vgg19().state_dict(), vgg)
        settings: dict[str, Any] = {
            f"{stage}.iterations": warm_up + counted,
            f"{stage}.batch": batch,
            "log_every": 1,
            "validation.every": 0,
            "save.every": 10**9,
            "stage2.d_warm_up": 0,  # both networks learn in every iteration that counts
        }
        if device == "cpu":  # most processors only imitate bfloat16, ten times as slow
            settings |= {f"{stage}.bf16": "false", "data.workers": 1}
        request = Request(
            stage="stage1" if stage == "stage1" else "stage2",
            out=folder / "run",
            data=photos(),
            recipe=recipe,
            changes=[f"{key}={value}" for key, value in settings.items()] + changes,
            init="none",
            vgg=vgg,
            device=device,
        )
        train(request, say=lambda _: None, show=lambda _: None)
        records = [json.loads(line) for line in (folder / "run" / LOG).read_text().splitlines()]
    losses = [record for record in records if record["kind"] == "losses"]
    return row_of(recipe, stage, batch, losses[warm_up - 1 :])


def row_of(recipe: str, stage: str, batch: int, records: list[dict[str, Any]]) -> dict[str, Any]:
    """Return speeds and shares of the iterations after the first record, of which only the time counts.

    The parts' times on a GPU are those between events in its queue, so their sum leaves out when the GPU has nothing to
    do. Speeds are by wall clock therefore, from record to record, each of which waits for the GPU; `gaps_percent` is
    the share of the time that no part accounts for.
    """
    first, last, counting = records[0], records[-1], records[1:]
    count, seconds = last["iteration"] - first["iteration"], last["time"] - first["time"]
    of_parts = {part: sum(each["seconds"].get(part, 0.0) for each in counting) for part in PARTS if part != "save"}
    whole = sum(of_parts.values())
    speed = {"iterations_s": count / seconds, "images_s": batch * count / seconds, "counted": count}
    shares = {f"{part}_percent": 100 * value / whole for part, value in of_parts.items()}
    gaps = {"gaps_percent": 100 * (1 - whole / seconds)}
    return {"recipe": recipe, "stage": stage, "batch": batch, **speed, **shares, **gaps}


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", help="one recipe only")
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--iterations", type=int, default=40, help="that are counted")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="changes the recipe")
    arguments = parser.parse_args()
    todo = ((arguments.recipe, arguments.batch, arguments.iterations),) if arguments.recipe else CPU_ROWS
    rows = []
    for recipe, batch, counted in todo:
        for stage in ("stage1", "stage2"):
            rows.append(one_run(recipe, stage, batch, counted, arguments.device, arguments.set))
            print(rows[-1], file=sys.stderr)
    device = torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu"
    report.show(f"Training on {device}", rows)
    report.save(f"train-{arguments.device}", rows, device=device)


if __name__ == "__main__":
    main()

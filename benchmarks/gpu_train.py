"""Training of x4plus on a GPU: its speed in both stages, and whether a run goes on from its checkpoint.

    python benchmarks/gpu_train.py --photos FOLDER                    the paper's shape: batches of 48 crops of 256 px
    python benchmarks/gpu_train.py --photos FOLDER --device cpu --small   the same code in seconds

Both stages start from random weights; the perceptual loss has a VGG19 of random weights: times do not depend on them.
Stage 2 mixes its batches in a pool and saves a checkpoint two iterations before its end; another run takes that up and
does these two again. On a CPU they must come to the same bits, on a GPU near the same losses.
"""

import argparse
import json
import math
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from bench_train import row_of

from realesr.train.checkpoint import FOLDER, checkpoints
from realesr.train.log import LOG
from realesr.train.recipe import Stage
from realesr.train.request import Request
from realesr.train.trainer import train
from realesr.train.vgg import Vgg19

Row = dict[str, Any]

NEAR = 0.05
"""By how much losses of the same iteration may differ, in parts of their size, where a GPU adds in another order."""

COMPARED = ("l1", "perceptual", "gan")

TINY = ("rrdb.features=8", "rrdb.blocks=1", "rrdb.growth=4", "discriminator.features=4", "data.read_px=48")


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Numbers of iterations and sizes of the training."""

    batch: int
    crop_px: int
    warm_up: int
    """Iterations that are not counted."""
    counted: int
    again: int = 2
    """Iterations after the checkpoint."""
    workers: int
    changes: tuple[str, ...] = ()

    @property
    def saved_at(self) -> int:
        """Iteration of the checkpoint."""
        return self.warm_up + self.counted


FULL = Sizes(batch=48, crop_px=256, warm_up=3, counted=10, workers=8)
SMALL = Sizes(batch=2, crop_px=32, warm_up=1, counted=2, workers=0, changes=TINY)


def training(device: str, folder: Path, photos: list[Path], *, small: bool) -> Iterator[Row]:
    """Train both stages, take stage 2 up from its checkpoint; yields rows that JSON takes as soon as they are known.

    Args:
        device: "cuda" or "cpu".
        folder: for runs and weights, 1 GB; nothing in it is a result.
        photos: images of 400 px or more a side.
        small: a tiny network and tiny crops, to see that it works.
    """
    sizes = SMALL if small else FULL
    folder.mkdir(parents=True, exist_ok=True)
    vgg = folder / "vgg.pth"
    torch.save(Vgg19().state_dict(), vgg)
    for stage in ("stage1", "stage2"):
        yield {"what": f"x4plus {stage}", **_measured(device, folder, photos, stage, vgg, sizes)}
    yield {"what": "x4plus stage2 resumed", **_resumed(device, folder, photos, vgg, sizes)}


def _measured(device: str, folder: Path, photos: list[Path], stage: Stage, vgg: Path, sizes: Sizes) -> Row:
    """Train one stage; returns its speed by wall clock, shares of the parts, and the most GPU memory."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    train(_request(device, folder / stage, photos, stage, vgg, sizes), say=_nothing, show=_nothing)
    records = _losses(folder / stage)
    row = row_of("x4plus", stage, sizes.batch, records[sizes.warm_up - 1 : sizes.saved_at])
    del row["recipe"], row["stage"]
    if device == "cuda":
        row["peak_gpu_gb"] = torch.cuda.max_memory_allocated() / 1e9
    return {"crop_px": sizes.crop_px, **row}


def _resumed(device: str, folder: Path, photos: list[Path], vgg: Path, sizes: Sizes) -> Row:
    """Go on from the checkpoint of stage 2 in another folder; returns how far losses are from those of the run itself.

    Raises:
        ArithmeticError: they are not the same, or not near on a GPU.
    """
    run, again = folder / "stage2", folder / "stage2-resumed"
    checkpoint = next(path for path in checkpoints(run) if int(path.name) == sizes.saved_at)
    shutil.copytree(checkpoint, again / FOLDER / checkpoint.name)
    said: list[str] = []
    train(_request(device, again, photos, "stage2", vgg, sizes), say=said.append, show=_nothing)
    expected, found = _losses(run)[sizes.saved_at :], _losses(again)
    off = max(_difference(one, other) for one, other in zip(expected, found, strict=True))
    is_same = _network(run) == _network(again)
    row = {"batch": sizes.batch, "iterations": len(found), "largest_difference": off, "same_bits": is_same}
    if not off <= (NEAR if device == "cuda" else 0) or (device == "cpu" and not is_same):
        raise ArithmeticError(f"the resumed run differs: {row}; it said: {said[:3]}")
    return row


def _request(device: str, out: Path, photos: list[Path], stage: Stage, vgg: Path, sizes: Sizes) -> Request:
    has_more = stage == "stage2"
    settings: dict[str, Any] = {
        f"{stage}.iterations": sizes.saved_at + (sizes.again if has_more else 0),
        f"{stage}.batch": sizes.batch,
        "stage1.crop_px": sizes.crop_px,
        "stage2.crop_px": sizes.crop_px,
        "stage2.d_warm_up": 0,  # both networks learn in every iteration that counts
        "degrade.pool": sizes.batch if has_more else 0,  # full after one iteration
        "data.workers": sizes.workers,
        "log_every": 1,
        "validation.every": 0,
        "save.every": sizes.saved_at,
    }
    if device == "cpu":  # most processors only imitate bfloat16, ten times as slow
        settings[f"{stage}.bf16"] = "false"
    changes = [*(f"{key}={value}" for key, value in settings.items()), *sizes.changes]
    return Request(
        stage=stage, out=out, data=photos, recipe="x4plus", changes=changes, init="none", vgg=vgg, device=device
    )


def _losses(run: Path) -> list[Row]:
    """Records of a run's losses, one an iteration."""
    records = [json.loads(line) for line in (run / LOG).read_text().splitlines()]
    return [record for record in records if record["kind"] == "losses"]


def _difference(one: Row, other: Row) -> float:
    """The largest relative difference of two records' losses; infinite where one is not finite."""
    worst = 0.0
    for name in COMPARED:
        difference = abs(one[name] - other[name]) / max(abs(one[name]), 1e-12)
        worst = max(worst, difference if math.isfinite(difference) else math.inf)
    return worst


def _network(run: Path) -> bytes:
    return (run / "last.safetensors").read_bytes()


def _nothing(_: str) -> None:
    pass


def main() -> None:
    """Print a line of JSON for each row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="a tiny network, to see that it works")
    arguments = parser.parse_args()
    photos = sorted(path for path in arguments.photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    with tempfile.TemporaryDirectory() as folder:
        for row in training(arguments.device, Path(folder), photos, small=arguments.small):
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()

"""Scores the students of a distillation on degraded patches of photos that none of them has learned from.

    python benchmarks/distil_judge.py --photos judge --out judged OUT/snapshots-1.safetensors realesr-general-x4v3 ...

Each is a name or file of a network, or a file of snapshots; with --from-l1 OUT/student-l1.safetensors, blends of its
weights with the last snapshot of each file are scored as well. The teacher's answers are made once and kept in --out,
where scores.md and patches.png are written too.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from distil import TEACHER, loaded
from distil_patches import (
    SCALE,
    HeldOut,
    Patches,
    as_bytes,
    as_float,
    bicubic,
    degraded,
    images_in,
    picture,
    read_crops,
    window,
)
from distil_snapshots import blended, read_snapshots, scores
from distil_table import table
from safetensors import safe_open
from torch import Tensor, nn

from realesr.models.weights import Weights, read_weights
from realesr.networks import build_with
from realesr.train.checkpoint import write_network

READ_PX, LR_PX, GROUP = 400, 64, 4
SHARES = (0.25, 0.5, 0.75)
"""Shares of a snapshot in the blends."""

State = Mapping[str, Tensor]


def held_out(photos: Sequence[Path], keep: Path, *, count: int, teacher: str = TEACHER) -> HeldOut:
    """Return degraded patches with the teacher's answers, from `keep` where they were made before."""
    if keep.exists():
        with np.load(keep) as kept:
            lr, answers, truth = (torch.from_numpy(kept[name]) for name in ("lr", "answers", "truth"))
        return HeldOut(patches=Patches(lr=lr, answers=answers), truth=truth)
    crops, dice = read_crops(photos, READ_PX), np.random.default_rng(0)
    ordered = [crops[place] for place in dice.permutation(len(crops))]
    hr = torch.stack([window([ordered[number % len(ordered)]], READ_PX, dice) for number in range(count)])
    lr, truth = degraded(hr, LR_PX * SCALE, group=GROUP, seed=0)
    answers = enlarged(loaded(teacher), lr)
    keep.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(keep, lr=lr.numpy(), answers=answers.numpy(), truth=truth.numpy())
    return HeldOut(patches=Patches(lr=lr, answers=answers), truth=truth)


def enlarged(weights: Weights, lr: Tensor) -> Tensor:
    """Return a network's results in bytes: by engine winograd or torch on this machine, patch by patch."""
    from realesr.engines import open_engine
    from realesr.engines.winograd.kernel import is_usable

    with open_engine(weights, engine="winograd" if is_usable() else "torch", device="cpu") as network:
        results = [torch.from_numpy(np.array(network.run(as_float(part[None]).numpy()))) for part in lr]
    return as_bytes(torch.cat(results))


def students(source: str, l1: State | None) -> Iterator[tuple[str, State]]:
    """Yield the state dicts in a file of snapshots, and blends of the last one with that of stage A."""
    states = read_snapshots(Path(source))
    for name, state in states.items():
        yield name, state
    if l1 is not None and states:
        name, last = list(states.items())[-1]
        for share in SHARES:
            yield f"{name}, {share:g} of it", blended(l1, last, share)


def has_snapshots(source: str) -> bool:
    """Return whether this is a file of snapshots: it is named by their keys, "student/key"."""
    path = Path(source)
    if path.suffix != ".safetensors" or not path.exists():
        return False
    with safe_open(path, "pt") as file:
        return all("/" in key for key in file.keys())  # noqa: SIM118


@torch.no_grad()
def run(module: nn.Module, lr: Tensor) -> Tensor:
    """Return a network's results in [0, 1], rounded to 8 bits."""
    return as_float(as_bytes(torch.cat([module(as_float(part)) for part in lr.split(8)])))  # type: ignore[no-untyped-call]


def main() -> None:
    """Score, and write the table and the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+", metavar="NETWORK", help="name, file, or file of snapshots")
    parser.add_argument("--photos", type=Path, required=True, metavar="FOLDER", help="crops of held-out photos")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--patches", type=int, default=128)
    parser.add_argument("--from-l1", type=Path, metavar="FILE", help="the student of stage A, for blends")
    parser.add_argument("--shown", default="", metavar="NAMES", help="rows of the table that the picture shows")
    parser.add_argument("--write", default="", metavar="NAME", help="write the student of this row as a file")
    arguments = parser.parse_args()
    held = held_out(images_in([arguments.photos]), arguments.out / "patches.npz", count=arguments.patches)
    start = read_weights(arguments.from_l1) if arguments.from_l1 else None
    l1 = {key: torch.as_tensor(value) for key, value in start.state.items()} if start else None
    answers, rows, shown = as_float(held.patches.answers), [], []

    def note(name: str, images: Tensor) -> None:
        rows.append({"who": name, **scores(images, held)})
        print(table(rows[-1:]).splitlines()[-1], flush=True)
        if name in arguments.shown.split(","):
            shown.append(images)

    note("teacher", answers)
    note("bicubic", bicubic(as_float(held.patches.lr)))
    for source in arguments.networks:
        if not has_snapshots(source):
            note(source, run(build_with(loaded(source)), held.patches.lr))
            continue
        if start is None:
            parser.error(f"got snapshots in {source}: expected --from-l1, whose network they are of")
        for name, state in students(source, l1):
            module = build_with(start)
            module.load_state_dict(dict(state))
            note(name, run(module, held.patches.lr))
            if name == arguments.write:
                write_network(arguments.out / "chosen.safetensors", state, start.architecture)
    (arguments.out / "scores.md").write_text(table(rows) + "\n", "utf-8")
    picture(arguments.out / "patches.png", held, *shown, answers)


if __name__ == "__main__":
    main()

"""Patches of crops with the teacher's answers, for training and scoring in `distil.py`, and a picture of some."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from distil_crops import photo_of
from distil_steps import laplacian
from PIL import Image
from torch import Tensor
from torch.nn import functional

from realesr.train.checkpoint import write_file
from realesr.train.degrade.apply import apply, crop_pair
from realesr.train.degrade.draw import draw
from realesr.train.degrade.filters import to_device
from realesr.train.degrade.recipe import CORRECTED

SCALE = 4

HELD_OUT_EVERY = 10
"""One of as many photos is held out where no others are named."""

LARGEST_PNG = 3_000_000
MOST_ROWS = 6
CELL_PX = 160
"""Side of the part of a patch that the picture shows, in HR px."""


@dataclass(frozen=True, kw_only=True)
class Patches:
    """Inputs and the teacher's answers, bytes on the device."""

    lr: Tensor
    """(N, 3, px, px)."""
    answers: Tensor
    """(N, 3, px * SCALE, px * SCALE)."""

    def batch(self, count: int, dice: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Draw some with replacement, all flipped and turned alike; float32 in [0, 1]."""
        places = to_device(torch.from_numpy(dice.integers(len(self.lr), size=count)), self.lr.device)
        turns, is_flipped = int(dice.integers(4)), bool(dice.integers(2))
        chosen = (each.index_select(0, places) for each in (self.lr, self.answers))
        turned = (each.rot90(turns, (2, 3)) for each in chosen)
        lr, answers = (as_float(each.flip(3) if is_flipped else each) for each in turned)
        return lr, answers


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Patches of other photos, for the scores: first the degraded ones, then pixels of photos."""

    patches: Patches
    truth: Tensor
    """Ground truth of the degraded patches, bytes."""


def images_in(places: Sequence[Path]) -> list[Path]:
    """Return the photos among files and in folders, in order."""
    files = [file for place in places for file in (sorted(place.rglob("*")) if place.is_dir() else [place])]
    return [file for file in files if file.suffix.lower() in (".jpg", ".jpeg", ".png")]


def split(crops: Sequence[Path], least_px: int) -> tuple[list[Tensor], list[Tensor]]:
    """Read all crops: those to learn from, and those of other photos that are held out."""
    photos = sorted({photo_of(path) for path in crops})
    if len(photos) < 2:
        raise SystemExit(f"got crops of {len(photos)} photos, expected two or more: one is held out")
    held = set(photos[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY] or photos[-1:])
    learning = [path for path in crops if photo_of(path) not in held]
    return read_crops(learning, least_px), read_crops([path for path in crops if photo_of(path) in held], least_px)


def read_crops(crops: Sequence[Path], least_px: int) -> list[Tensor]:
    """Read whole crops as (3, H, W) bytes; those that are smaller than `least_px` are mirrored."""
    return [_read(path, least_px) for path in sorted(crops)]


def _read(path: Path, least_px: int) -> Tensor:
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    missing = [(0, max(0, least_px - side)) for side in pixels.shape[:2]]
    return torch.from_numpy(np.pad(pixels, [*missing, (0, 0)], "symmetric").transpose(2, 0, 1).copy())


def degraded(hr: Tensor, crop_px: int, *, group: int, seed: int) -> tuple[Tensor, Tensor]:
    """Degrade photos as in training; return patches and their ground truth, in bytes.

    Args:
        hr: (N, 3, H, W) bytes, on any device.
        crop_px: side of the patches' ground truth.
        group: samples that share sizes.
        seed: decides everything that is drawn.
    """
    dice = torch.Generator().manual_seed(seed)
    size_px = (hr.shape[2], hr.shape[3])
    drawn = draw(replace(CORRECTED, group=group), len(hr), dice, hr_px=size_px, scale=SCALE, crop_px=crop_px)
    values = as_float(hr)
    lr, truth = crop_pair(apply(values, drawn), values, drawn, crop_px)
    return as_bytes(lr), as_bytes(truth)


def native(crops: Sequence[Tensor], count: int, px: int, dice: np.random.Generator) -> Tensor:
    """Return undegraded patches of photos in bytes; half of them are downscaled by two."""
    full = [window(crops, px, dice) for _ in range(count - count // 2)]
    large = [window(crops, 2 * px, dice) for _ in range(count // 2)]
    if not large:
        return torch.stack(full)
    return torch.cat([torch.stack(full), as_bytes(functional.avg_pool2d(as_float(torch.stack(large)), 2))])


def window(crops: Sequence[Tensor], side_px: int, dice: np.random.Generator) -> Tensor:
    """Cut a square out of a random crop."""
    crop = crops[int(dice.integers(len(crops)))]
    top, left = (int(dice.integers(size - side_px + 1)) for size in crop.shape[1:])
    return crop[:, top : top + side_px, left : left + side_px]


def bicubic(lr: Tensor) -> Tensor:
    """Enlarge by bicubic interpolation, rounded to 8 bits."""
    return as_float(as_bytes(functional.interpolate(lr, scale_factor=SCALE, mode="bicubic", align_corners=False)))


def picture(path: Path, held: HeldOut, *columns: Tensor) -> None:
    """Write some patches side by side: the input, then each column; fewer where the file would become too large.

    Rows are degraded and native patches in turns, as far as there are both, those with the most detail first.
    """
    known, answers = len(held.truth), as_float(held.patches.answers)
    details = [float(laplacian(answer[None]).abs().mean()) for answer in answers]
    ranked = sorted(range(len(details)), key=details.__getitem__, reverse=True)
    of_pairs, of_photos = ([place for place in ranked if (place < known) is wanted] for wanted in (True, False))
    pairs = zip_longest(of_pairs, of_photos)
    places = [place for pair in pairs for place in pair if place is not None][:MOST_ROWS]
    large = as_float(held.patches.lr).repeat_interleave(SCALE, 2).repeat_interleave(SCALE, 3)
    for rows in range(len(places), 0, -1):
        lines = [torch.cat([_middle(each[place]) for each in (large, *columns)], 2) for place in places[:rows]]
        image = Image.fromarray(as_bytes(torch.cat(lines, 1)).permute(1, 2, 0).contiguous().cpu().numpy())
        write_file(path, lambda part, image=image: image.save(part, "PNG"))  # type: ignore[misc]
        if path.stat().st_size <= LARGEST_PNG:
            return


def _middle(image: Tensor) -> Tensor:
    top, left = (max(0, side - CELL_PX) // 2 for side in image.shape[1:])
    return image[:, top : top + CELL_PX, left : left + CELL_PX]


def as_float(images: Tensor) -> Tensor:
    """Turn bytes into float32 in [0, 1]."""
    return images.float() / 255


def as_bytes(images: Tensor) -> Tensor:
    """Round values in [0, 1] to bytes; what lies outside is clamped."""
    return images.float().clamp(0, 1).mul(255).round().to(torch.uint8)

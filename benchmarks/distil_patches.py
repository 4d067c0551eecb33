"""Patches of crops with the teacher's answers, for training and scoring in `distil.py`, and a picture of some."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from distil_crops import photo_of
from PIL import Image
from torch import Tensor
from torch.nn import functional

from realesr.train.checkpoint import write_file
from realesr.train.data.crops import read_crop
from realesr.train.degrade.filters import to_device
from realesr.train.validation import hold_out

SCALE = 4

LARGEST_PNG = 1_000_000
MOST_ROWS = 4
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


def split(crops: Sequence[Path], device: torch.device, least_px: int) -> tuple[list[Tensor], list[Tensor]]:
    """Read all crops, bytes on the device: those to learn from, and those of other photos that are held out.

    Crops that are smaller than `least_px` are mirrored.
    """
    photos = sorted({photo_of(path) for path in crops})
    if len(photos) < 2:
        raise SystemExit(f"got crops of {len(photos)} photos, expected two or more: one is held out")
    held = {path.name for path in hold_out([Path(name) for name in photos], len(photos))[1]}
    learning: list[Tensor] = []
    held_out: list[Tensor] = []
    for path in sorted(crops):
        pixels = _read(path, least_px).to(device)
        (held_out if photo_of(path) in held else learning).append(pixels)
    return learning, held_out


def _read(path: Path, least_px: int) -> Tensor:
    """Read a whole crop as (3, side, side) bytes, mirrored where it is smaller than `least_px`."""
    with Image.open(path) as image:
        side_px = max(least_px, min(image.size))
    pixels = torch.from_numpy(read_crop(path, side_px, seed=0).pixels)
    return pixels if pixels.dtype == torch.uint8 else as_bytes(pixels)


def window(crops: Sequence[Tensor], side_px: int, dice: np.random.Generator) -> Tensor:
    """Cut a square out of a random crop."""
    crop = crops[int(dice.integers(len(crops)))]
    top, left = (int(dice.integers(size - side_px + 1)) for size in crop.shape[1:])
    return crop[:, top : top + side_px, left : left + side_px]


def bicubic(lr: Tensor) -> Tensor:
    """Enlarge by bicubic interpolation, rounded to 8 bits."""
    return as_float(as_bytes(functional.interpolate(lr, scale_factor=SCALE, mode="bicubic", align_corners=False)))


def laplacian_levels(images: Tensor) -> float:
    """Return the mean absolute Laplacian (four neighbours) in levels of 255, a measure of texture."""
    inner = 4 * images[:, :, 1:-1, 1:-1]
    around = images[:, :, :-2, 1:-1] + images[:, :, 2:, 1:-1] + images[:, :, 1:-1, :-2] + images[:, :, 1:-1, 2:]
    return float((inner - around).abs().mean() * 255)


def picture(path: Path, held: HeldOut, *columns: Tensor) -> None:
    """Write some patches side by side: the input, then each column; fewer where the file would become too large.

    Rows are degraded and native patches in turns, those with the most detail first.
    """
    known, answers = len(held.truth), as_float(held.patches.answers)
    details = [laplacian_levels(answer[None]) for answer in answers]
    ranked = sorted(range(len(details)), key=details.__getitem__, reverse=True)
    degraded, native = ([place for place in ranked if (place < known) is wanted] for wanted in (True, False))
    places = [place for pair in zip(degraded, native, strict=False) for place in pair][:MOST_ROWS]
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

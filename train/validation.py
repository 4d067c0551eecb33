"""Validates a run: scores the same degraded crops of held-out images every so many iterations."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from realesr.errors import InputError
from realesr.train.data.crops import read_crop
from realesr.train.degrade.apply import apply
from realesr.train.degrade.draw import draw
from realesr.train.degrade.recipe import DegradeRecipe
from realesr.train.metrics import colour_drift, psnr, ssim
from realesr.train.recipe import ValidationOptions

LARGEST_LR_PX = 512
"""Given pairs are validated on their middle of this side, in LR px: the whole of a large photo would not fit a GPU."""

_SEED = 20_210_722
"""Seed of every validation set, whatever the run's seed, so that runs can be compared."""

_BORDER_PX = 4
"""Border that scores leave out, in HR px (BasicSR's crop_border)."""


@dataclass(frozen=True, kw_only=True)
class ValidationSet:
    """The pairs that are scored; sizes may differ from pair to pair."""

    lr: tuple[Tensor, ...]
    """(3, h, w) float32 RGB in [0, 1]."""
    hr: tuple[Tensor, ...]
    """(3, h * scale, w * scale)."""
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.lr)


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The mean scores over a validation set."""

    psnr: float
    """On RGB, in dB."""
    ssim: float
    colour_drift: float
    """Levels of 255 by which local means differ from those of the input."""

    def as_dict(self) -> dict[str, float]:
        """Return the scores by name."""
        return {"psnr": self.psnr, "ssim": self.ssim, "colour_drift": self.colour_drift}


def hold_out(images: Sequence[Path], count: int) -> tuple[list[Path], list[Path]]:
    """Split images into those to train on and those to validate on.

    Which are held out follows from their names alone, so that a folder that has grown holds out most of the same. At
    most a tenth is, and at least one; a single image has to serve for both.

    Returns:
        Both lists, in the order of `images`.
    """
    if len(images) == 1:
        return list(images), list(images)
    count = min(count, max(1, len(images) // 10))
    by_hash = sorted(images, key=lambda path: hashlib.sha256(path.name.encode()).hexdigest())
    held = set(by_hash[:count])
    return [path for path in images if path not in held], [path for path in images if path in held]


def degraded_set(
    images: Sequence[Path], recipe: DegradeRecipe, options: ValidationOptions, *, scale: int
) -> ValidationSet:
    """Cut crops out of images, and degrade them: always the same for the same images and recipe."""
    hr_px = options.crop_px // scale * scale
    crops, names = [], []
    for number in range(options.crops):
        path = images[number % len(images)]
        crops.append(_as_float(torch.from_numpy(read_crop(path, hr_px, seed=_SEED + number).pixels)))
        names.append(path.stem)
    generator = torch.Generator().manual_seed(_SEED)
    drawn = draw(recipe, len(crops), generator, hr_px=(hr_px, hr_px), scale=scale)
    hr = torch.stack(crops)
    return ValidationSet(lr=tuple(apply(hr, drawn)), hr=tuple(hr), names=tuple(names))


def given_set(pairs: Sequence[tuple[Path, Path]], *, scale: int) -> ValidationSet:
    """Read given pairs, (HR, LR) each.

    Raises:
        InputError: the sizes of a pair do not fit the scale; both are named.
    """
    lr, hr = [], []
    for hr_path, lr_path in pairs:
        large, small = _read_whole(hr_path), _read_whole(lr_path)
        _check_sizes(hr_path, large, lr_path, small, scale)
        top, left = ((side - min(side, LARGEST_LR_PX)) // 2 for side in small.shape[1:])
        height, width = (min(side, LARGEST_LR_PX) for side in small.shape[1:])
        lr.append(small[:, top : top + height, left : left + width])
        top, left, height, width = (value * scale for value in (top, left, height, width))
        hr.append(large[:, top : top + height, left : left + width])
    return ValidationSet(lr=tuple(lr), hr=tuple(hr), names=tuple(path.stem for path, _ in pairs))


@torch.no_grad()
def validate(generator: nn.Module, pairs: ValidationSet, device: torch.device) -> tuple[Scores, list[Tensor]]:
    """Score a network in float32.

    Args:
        generator: in evaluation mode or without layers that care; on `device`.
        pairs: the validation set.
        device: that of the generator.

    Returns:
        Means over all pairs, and the enlarged images, (3, H, W) float32 in [0, 1], rounded to 8 bits, on the CPU.
    """
    enlarged, rows = [], []
    for lr, hr in zip(pairs.lr, pairs.hr, strict=True):
        sr = generator(lr[None].to(device)).float().clamp(0, 1).mul(255).round().div(255).cpu()
        truth = hr[None]
        rows.append(
            (
                float(psnr(sr, truth, border_px=_BORDER_PX)),
                float(ssim(sr, truth, border_px=_BORDER_PX)),
                float(colour_drift(sr, lr[None])),
            )
        )
        enlarged.append(sr[0])
    means = np.mean(np.array(rows, np.float64), axis=0)
    return Scores(psnr=float(means[0]), ssim=float(means[1]), colour_drift=float(means[2])), enlarged


def grid_picture(pairs: ValidationSet, enlarged: Sequence[Tensor], rows: int) -> Image.Image:
    """Draw a row for each pair: input by nearest neighbour and by bicubic interpolation, network, truth."""
    lines = []
    for lr, sr, hr in list(zip(pairs.lr, enlarged, pairs.hr, strict=True))[:rows]:
        small, size = _as_image(lr), (hr.shape[2], hr.shape[1])
        cells = (
            small.resize(size, Image.Resampling.NEAREST),
            small.resize(size, Image.Resampling.BICUBIC),
            _as_image(sr),
            _as_image(hr),
        )
        lines.append(np.hstack([np.asarray(cell) for cell in cells]))
    width = max(line.shape[1] for line in lines)
    padded = [np.pad(line, ((0, 0), (0, width - line.shape[1]), (0, 0))) for line in lines]
    return Image.fromarray(np.vstack(padded))


def _check_sizes(hr_path: Path, hr: Tensor, lr_path: Path, lr: Tensor, scale: int) -> None:
    if hr.shape[1:] != (lr.shape[1] * scale, lr.shape[2] * scale):
        (high, wide), (small_high, small_wide) = hr.shape[1:], lr.shape[1:]
        raise InputError(
            f"{hr_path} is {wide} x {high} px and {lr_path} is {small_wide} x {small_high} px: "
            f"expected the first to be {scale} times the second"
        )


def _read_whole(path: Path) -> Tensor:
    from realesr.images.reader import open_image

    with open_image(path) as reader:
        rows = reader.read_rows(reader.info.height_px)
    full = np.float32(65535 if reader.info.bits == 16 else 255)
    colour = rows[..., :3] if rows.shape[2] >= 3 else rows[..., :1].repeat(3, axis=2)
    return torch.from_numpy(np.ascontiguousarray(colour.transpose(2, 0, 1), np.float32) / full)


def _as_float(pixels: Tensor) -> Tensor:
    return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels


def _as_image(pixels: Tensor) -> Image.Image:
    return Image.fromarray((pixels.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().numpy())

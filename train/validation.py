"""Validates a run: scores the same degraded crops of held-out images every so many iterations.

The truth is what the stage learns: sharpened where its losses look at the sharpened truth. Bicubic interpolation is
scored beside the network, as what it has to beat.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from realesr.errors import InputError
from realesr.train.data.crops import FailureCallback, crops_in_turn
from realesr.train.data.failures import nothing_readable
from realesr.train.degrade.apply import apply
from realesr.train.degrade.draw import draw
from realesr.train.degrade.filters import sharpen
from realesr.train.degrade.recipe import DegradeRecipe
from realesr.train.metrics import SSIM_LEAST_PX, colour_drift, psnr, ssim
from realesr.train.recipe import ValidationOptions
from realesr.train.stage_options import StageOptions

if TYPE_CHECKING:
    from realesr.scores.lpips import Lpips

LARGEST_LR_PX = 512
"""Given pairs are validated on their middle of this side, in LR px: the whole of a large photo would not fit a GPU."""

_SEED = 20_210_722
"""Seed of every validation set, whatever the run's seed, so that runs can be compared."""

_BORDER_PX = 4
"""Border that scores leave out, in HR px (BasicSR's crop_border)."""

_MOST_PSNR = 100.0
"""PSNR of a crop counts at most so many dB: that of a flat one may be infinite, and so would be the mean."""


@dataclass(frozen=True, kw_only=True)
class ValidationSet:
    """The pairs that are scored; sizes may differ from pair to pair."""

    lr: tuple[Tensor, ...]
    """(3, h, w) float32 RGB in [0, 1]."""
    hr: tuple[Tensor, ...]
    """(3, h * scale, w * scale): the truth that the stage learns, in multiples of 1/255."""
    names: tuple[str, ...]
    is_sharp: bool = False
    """Whether the truth was sharpened."""
    lpips: "Lpips | None" = None
    """LPIPS, where its weights are given."""

    def __len__(self) -> int:
        return len(self.lr)

    def as_record(self) -> dict[str, Any]:
        """Return what decides whether scores of two sets can be compared, as JSON, beside the options of both."""
        return {"images": list(self.names), "sharp": self.is_sharp}


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The mean scores over a validation set."""

    psnr: float
    """On RGB, in dB; each pair's at most 100."""
    ssim: float
    colour_drift: float
    """Levels of 255 by which local means differ from those of the input."""
    lpips: float | None = None
    """Perceptual distance: 0 is none. Of whole images, border and all."""

    def as_dict(self) -> dict[str, float]:
        """Return the scores by name; LPIPS where it was computed."""
        scores = {"psnr": self.psnr, "ssim": self.ssim, "colour_drift": self.colour_drift}
        return scores if self.lpips is None else {**scores, "lpips": self.lpips}


def degraded_set(
    images: Sequence[Path],
    recipe: DegradeRecipe,
    options: ValidationOptions,
    *,
    stage: StageOptions,
    scale: int,
    on_failure: FailureCallback | None = None,
) -> ValidationSet:
    """Cut crops out of images, and degrade them as the stage does: always the same for the same images and options.

    Images that cannot be read are left out, and `on_failure` is told; see `crops_in_turn`.

    Raises:
        InputError: no image can be read; without `on_failure`, one cannot.
        ModelError: the weights of LPIPS cannot be read.
    """
    hr_px = options.crop_px // scale * scale
    crops, names = [], []
    for path, crop in crops_in_turn(images, options.crops, hr_px, seed=_SEED, on_failure=on_failure):
        crops.append(_as_float(torch.from_numpy(crop.pixels)))
        names.append(path.stem)
    generator = torch.Generator().manual_seed(_SEED)
    # In one group all crops would have the same sizes, and the scores would depend on the luck of one draw.
    recipe = replace(recipe, group=recipe.group or 1)
    drawn = draw(recipe, len(crops), generator, hr_px=(hr_px, hr_px), scale=scale)
    hr = torch.stack(crops)
    lr = apply(sharpen(hr) if stage.l1_sharp else hr, drawn)
    return _made(list(lr), crops, names, options, stage)


def given_set(
    pairs: Sequence[tuple[Path, Path]],
    options: ValidationOptions,
    *,
    stage: StageOptions,
    scale: int,
    on_failure: FailureCallback | None = None,
) -> ValidationSet:
    """Read given pairs, (HR, LR) each.

    Pairs that cannot be read, that are too small to be scored, or whose sizes do not fit the scale, are left out, and
    `on_failure` is told.

    Raises:
        InputError: no pair can be used; without `on_failure`, one cannot.
        ModelError: the weights of LPIPS cannot be read.
    """
    lr, hr, names, unreadable = [], [], [], {}
    for hr_path, lr_path in pairs:
        try:
            large, small = _read_pair(hr_path, lr_path, scale)
        except InputError as error:
            if on_failure is None:
                raise
            unreadable[f"{hr_path} and {lr_path}"] = str(error)
            on_failure(f"{hr_path} and {lr_path}", str(error))
            continue
        names.append(hr_path.stem)
        top, left = ((side - min(side, LARGEST_LR_PX)) // 2 for side in small.shape[1:])
        height, width = (min(side, LARGEST_LR_PX) for side in small.shape[1:])
        lr.append(small[:, top : top + height, left : left + width])
        top, left, height, width = (value * scale for value in (top, left, height, width))
        hr.append(large[:, top : top + height, left : left + width])
    if not names:
        raise nothing_readable(unreadable)
    return _made(lr, hr, names, options, stage)


def answered_set(
    lr: NDArray[np.uint8],
    answers: NDArray[np.uint8],
    names: Sequence[str],
    options: ValidationOptions,
    *,
    stage: StageOptions,
) -> ValidationSet:
    """Take a teacher's answers for the truth, (N, 3, H, W), to (N, 3, h, w), as a network that is distilled does.

    Raises:
        ModelError: the weights of LPIPS cannot be read.
    """
    small, large = (_as_float(torch.from_numpy(pixels)) for pixels in (lr, answers))
    return _made(list(small), list(large), names, options, stage)


@torch.no_grad()
def validate(generator: nn.Module, pairs: ValidationSet, device: torch.device) -> tuple[Scores, list[Tensor]]:
    """Score a network, which runs in float32.

    Args:
        generator: in evaluation mode or without layers that care; on `device`.
        pairs: the validation set.
        device: that of the generator.

    Returns:
        Means over all pairs, and the enlarged images, (3, H, W) float32 in [0, 1], rounded to 8 bits, on the CPU.
    """
    enlarged = [_eight_bit(generator(lr[None].to(device))[0].float()).cpu() for lr in pairs.lr]
    return _scores(enlarged, pairs), enlarged


def bicubic_scores(pairs: ValidationSet) -> Scores:
    """Score bicubic interpolation, what a network has to beat: the same for the whole run.

    Raises:
        InputError: an image is too small for SSIM or LPIPS.
    """
    return _scores([_bicubic(lr, hr) for lr, hr in zip(pairs.lr, pairs.hr, strict=True)], pairs)


def scores_line(scores: Scores, bicubic: Scores, *, is_best: bool) -> str:
    """Return a line like "PSNR 27.31 dB (best; bicubic 26.02), SSIM 0.8123 (bicubic 0.7923), colours off by ..."."""
    parts = [
        f"PSNR {scores.psnr:.2f} dB ({'best; ' if is_best else ''}bicubic {bicubic.psnr:.2f})",
        f"SSIM {scores.ssim:.4f} (bicubic {bicubic.ssim:.4f})",
    ]
    if scores.lpips is not None and bicubic.lpips is not None:
        parts.append(f"LPIPS {scores.lpips:.4f} (bicubic {bicubic.lpips:.4f})")
    return ", ".join([*parts, f"colours off by {scores.colour_drift:.2f} levels"])


def comparison_rows(pairs: ValidationSet, enlarged: Sequence[Tensor], count: int) -> list[NDArray[np.uint8]]:
    """Return a picture of each of the first pairs: input by nearest neighbour, by bicubic, network, truth side by side.

    Returns:
        (H, 4 W, 3) RGB each; the same pairs at each validation.
    """
    rows = []
    for lr, sr, hr in list(zip(pairs.lr, enlarged, pairs.hr, strict=True))[:count]:
        nearest = functional.interpolate(lr[None], hr.shape[1:], mode="nearest-exact")[0]
        rows.append(_pixels(torch.cat([nearest, _bicubic(lr, hr), sr, hr], dim=2)))
    return rows


def grid_picture(rows: Sequence[NDArray[np.uint8]]) -> Image.Image:
    """Return the rows below each other, black where one is shorter."""
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows]
    return Image.fromarray(np.vstack(padded))


def _made(
    lr: Sequence[Tensor], hr: Sequence[Tensor], names: Sequence[str], options: ValidationOptions, stage: StageOptions
) -> ValidationSet:
    """Return the set of these pairs, with the truth that the stage learns."""
    learned = [_eight_bit(sharpen(image[None])[0] if stage.learns_sharp else image) for image in hr]
    return ValidationSet(
        lr=tuple(lr),
        hr=tuple(learned),
        names=tuple(names),
        is_sharp=stage.learns_sharp,
        lpips=_opened_lpips(options),
    )


def _opened_lpips(options: ValidationOptions) -> "Lpips | None":
    if not options.lpips:
        return None
    from realesr.scores.lpips import open_lpips

    return open_lpips(Path(path).expanduser() for path in options.lpips)


def _scores(enlarged: Sequence[Tensor], pairs: ValidationSet) -> Scores:
    """Return the means of each score."""
    images, distances = list(zip(enlarged, pairs.lr, pairs.hr, strict=True)), []
    if pairs.lpips is not None:
        distances = [pairs.lpips.distance(_pixels(sr), _pixels(hr)) for sr, _, hr in images]
    psnrs = [float(psnr(sr[None], hr[None], border_px=_BORDER_PX)) for sr, _, hr in images]
    return Scores(
        psnr=float(np.minimum(psnrs, _MOST_PSNR).mean()),
        ssim=float(np.mean([float(ssim(sr[None], hr[None], border_px=_BORDER_PX)) for sr, _, hr in images])),
        colour_drift=float(np.mean([float(colour_drift(sr[None], lr[None])) for sr, lr, _ in images])),
        lpips=float(np.mean(distances)) if distances else None,
    )


def _bicubic(lr: Tensor, hr: Tensor) -> Tensor:
    """Return the input at the size of the truth, (3, H, W) rounded to 8 bits, by Keys' cubic with a = -0.5.

    It is that of Pillow and of MATLAB's imresize; without `antialias` PyTorch takes a = -0.75, as OpenCV does.
    """
    return _eight_bit(functional.interpolate(lr[None], hr.shape[1:], mode="bicubic", antialias=True)[0])


def _read_pair(hr_path: Path, lr_path: Path, scale: int) -> tuple[Tensor, Tensor]:
    hr, lr = _read_whole(hr_path), _read_whole(lr_path)
    if hr.shape[1:] != (lr.shape[1] * scale, lr.shape[2] * scale):
        (high, wide), (small_high, small_wide) = hr.shape[1:], lr.shape[1:]
        raise InputError(
            f"{hr_path} is {wide} x {high} px and {lr_path} is {small_wide} x {small_high} px: "
            f"expected the first to be {scale} times the second"
        )
    least_px = SSIM_LEAST_PX + 2 * _BORDER_PX
    if min(hr.shape[1:]) < least_px:
        raise InputError(f"{hr_path} is {hr.shape[2]} x {hr.shape[1]} px: expected {least_px} px a side, to be scored")
    return hr, lr


def _read_whole(path: Path) -> Tensor:
    from realesr.images.reader import open_image

    with open_image(path) as reader:
        rows = reader.read_rows(reader.info.height_px)
    full = np.float32(65535 if reader.info.bits == 16 else 255)
    colour = rows[..., :3] if rows.shape[2] >= 3 else rows[..., :1].repeat(3, axis=2)
    return torch.from_numpy(np.ascontiguousarray(colour.transpose(2, 0, 1), np.float32) / full)


def _as_float(pixels: Tensor) -> Tensor:
    return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels


def _eight_bit(image: Tensor) -> Tensor:
    return image.clamp(0, 1).mul(255).round().div(255)


def _pixels(image: Tensor) -> NDArray[np.uint8]:
    """Return (3, H, W) in [0, 1] as (H, W, 3) bytes."""
    return (image * 255).round().byte().permute(1, 2, 0).contiguous().numpy()

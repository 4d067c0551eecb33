"""Makes training pairs of a batch of the loader: degraded, cropped, mixed with earlier ones, sharpened."""

from dataclasses import dataclass

import torch
from torch import Tensor

from realesr.train.data.loader import Batch
from realesr.train.data.pair_pool import PairPool
from realesr.train.degrade.apply import apply, crop_pair
from realesr.train.degrade.degradation import Degradation
from realesr.train.degrade.draw import draw
from realesr.train.degrade.filters import sharpen
from realesr.train.degrade.recipe import DegradeRecipe
from realesr.train.distributed import World

_DRAWS, _POOL = 1, 2
"""Purpose of a random generator, part of its seed."""


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """The images of one step, on the device, float32 RGB in [0, 1]."""

    lr: Tensor
    """(N, 3, crop / scale, crop / scale)."""
    hr: Tensor
    """(N, 3, crop, crop)."""
    sharp: Tensor
    """`hr`, sharpened; `hr` itself where no loss looks at it."""
    drawn: Degradation | None
    """The degradation of those that were degraded; None where all are given pairs."""


def make_pairs(
    batch: Batch,
    recipe: DegradeRecipe,
    *,
    seed: int,
    iteration: int,
    world: World,
    scale: int,
    crop_px: int,
    sharpened: bool,
    sharp_truth: bool,
    pool: PairPool | None,
) -> Pairs:
    """Degrade a batch and cut the networks' crops out of it.

    All processes draw the numbers of the whole batch, and each takes those of its part: so what a sample goes through
    does not depend on how many processes there are.

    Args:
        batch: this process's part.
        recipe: the degradation.
        seed: of the run.
        iteration: from 0; with `seed` it decides everything that is drawn.
        world: which part this is.
        scale: HR px per LR px and side.
        crop_px: side of the HR crops.
        sharpened: whether what is degraded is sharpened first (Real-ESRGAN+ does so).
        sharp_truth: whether a sharpened truth is needed.
        pool: mixes the pairs of many iterations; its state changes.
    """
    device = world.device
    lr_parts, hr_parts, drawn = [], [], None
    if len(batch.hr):
        hr = _to_device(batch.hr, device)
        count = len(hr)
        everyone = draw(
            recipe,
            count * world.size,
            _generator(seed, iteration, _DRAWS),
            hr_px=(hr.shape[2], hr.shape[3]),
            scale=scale,
            crop_px=crop_px,
        )
        drawn = everyone[world.rank * count : (world.rank + 1) * count]
        lr = apply(sharpen(hr) if sharpened else hr, drawn)
        lr, hr = crop_pair(lr, hr, drawn, crop_px)
        if pool is not None:
            lr, hr = pool.exchange(lr, hr, _generator(seed, iteration, _POOL, world.rank))
        lr_parts.append(lr)
        hr_parts.append(hr)
    if batch.pair_lr is not None and batch.pair_hr is not None:
        lr_parts.append(_to_device(batch.pair_lr, device))
        hr_parts.append(_to_device(batch.pair_hr, device))
    lr, hr = torch.cat(lr_parts), torch.cat(hr_parts)
    return Pairs(lr=lr, hr=hr, sharp=sharpen(hr) if sharp_truth else hr, drawn=drawn)


def _to_device(images: Tensor, device: torch.device) -> Tensor:
    there = images.to(device, non_blocking=True)
    return there.float().div_(255) if there.dtype == torch.uint8 else there


def _generator(*seeds: int) -> torch.Generator:
    """Return a random generator whose numbers follow from these seeds, and from nothing else."""
    mixed = 0
    for seed in seeds:
        mixed = (mixed * 6_364_136_223_846_793_005 + seed + 1_442_695_040_888_963_407) % 2**63
    return torch.Generator().manual_seed(mixed)

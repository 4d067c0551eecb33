"""Makes training pairs of a batch of the loader: degraded, cropped, mixed with earlier ones, sharpened."""

from dataclasses import dataclass, replace

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
from realesr.train.stage_options import StageOptions

_DRAWS, _POOL = 1, 2
"""Purpose of a random generator, part of its seed."""


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """The images of one step, on the device, float32 RGB in [0, 1]."""

    lr: Tensor
    """(N, 3, crop / scale, crop / scale)."""
    hr: Tensor
    """(N, 3, crop, crop): the truth; in stage 1 the sharpened one where a loss looks at it."""
    sharp: Tensor
    """The sharpened truth; `hr` itself in stage 1, and where no loss looks at it."""
    drawn: Degradation | None
    """The degradation of those that were degraded; None where all are given pairs."""


def make_pairs(
    batch: Batch,
    recipe: DegradeRecipe,
    *,
    options: StageOptions,
    seed: int,
    iteration: int,
    world: World,
    scale: int,
    pool: PairPool | None,
) -> Pairs:
    """Degrade a batch and cut the networks' crops out of it.

    All processes draw the numbers of the whole batch, and each takes those of its part: so what a sample goes through
    does not depend on how many processes there are. Only where `recipe.group` is 0 does it: each process's part is a
    group then.

    Args:
        batch: this process's part.
        recipe: the degradation.
        options: of the stage: what is sharpened, and the side of the crops.
        seed: of the run.
        iteration: from 0; with `seed` it decides everything that is drawn.
        world: which part this is.
        scale: HR px per LR px and side.
        pool: mixes the pairs of many iterations; its state changes.
    """
    lr_parts, hr_parts, drawn = [], [], None
    if len(batch.hr):
        hr = _to_device(batch.hr, world.device)
        drawn = _drawn(
            hr, recipe, _generator(seed, iteration, _DRAWS), world=world, scale=scale, crop_px=options.crop_px
        )
        lr, hr = _degraded(hr, drawn, options)
        if pool is not None:
            lr, hr = pool.exchange(lr, hr, _generator(seed, iteration, _POOL, world.rank))
        lr_parts.append(lr)
        hr_parts.append(hr)
    if batch.pair_lr is not None and batch.pair_hr is not None:
        hr = _to_device(batch.pair_hr, world.device)
        lr_parts.append(_to_device(batch.pair_lr, world.device))
        hr_parts.append(sharpen(hr) if _has_sharp_truth_only(options) else hr)
    lr, hr = torch.cat(lr_parts), torch.cat(hr_parts)
    is_other = options.needs_sharp and not _has_sharp_truth_only(options)
    return Pairs(lr=lr, hr=hr, sharp=sharpen(hr) if is_other else hr, drawn=drawn)


def _drawn(
    hr: Tensor, recipe: DegradeRecipe, generator: torch.Generator, *, world: World, scale: int, crop_px: int
) -> Degradation:
    """Draw the degradation of all processes; return that of this one."""
    count = len(hr)
    recipe = replace(recipe, group=recipe.group or count)
    size = (hr.shape[2], hr.shape[3])
    everyone = draw(recipe, count * world.size, generator, hr_px=size, scale=scale, crop_px=crop_px)
    return everyone[world.rank * count : (world.rank + 1) * count]


def _degraded(hr: Tensor, drawn: Degradation, options: StageOptions) -> tuple[Tensor, Tensor]:
    """Degrade images; return the crops of LR and of the truth."""
    sharp = sharpen(hr) if options.l1_sharp else hr
    return crop_pair(apply(sharp, drawn), sharp if _has_sharp_truth_only(options) else hr, drawn, options.crop_px)


def _has_sharp_truth_only(options: StageOptions) -> bool:
    """Return whether the truth is cut out of the sharpened image, as in stage 1.

    Stage 2 sharpens the truth after it was cut out and mixed, as its discriminator sees the one that is not sharpened;
    near borders the results differ. Source: Real-ESRGAN, realesrgan/models/realesrnet_model.py and
    realesrgan_model.py, feed_data.
    """
    return options.needs_sharp and not options.gan


def _to_device(images: Tensor, device: torch.device) -> Tensor:
    there = images.to(device, non_blocking=True)
    return there.float().div_(255) if there.dtype == torch.uint8 else there


def _generator(*seeds: int) -> torch.Generator:
    """Return a random generator whose numbers follow from these seeds, and from nothing else."""
    mixed = 0
    for seed in seeds:
        mixed = (mixed * 6_364_136_223_846_793_005 + seed + 1_442_695_040_888_963_407) % 2**63
    return torch.Generator().manual_seed(mixed)

"""Makes the patches that a teacher answers: degraded as in training, and pixels of photos as they are."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from realesr.train.data.loader import Batch, TrainingData, batches
from realesr.train.data.samples import seed_of
from realesr.train.degrade.recipe import DegradeRecipe
from realesr.train.degraded_crops import as_bytes, as_floats, degraded_crops

_HELD_OUT_SEED = 20_210_722
"""Added to the seed of patches that are held out: those of one image shall not be the ones that are learned from, where
there is only one image."""

_LARGEST_GROUP = 8
"""Samples that share sizes where the recipe says that a whole batch does: 64 alike would be too many."""


@dataclass(frozen=True, kw_only=True)
class PatchOptions:
    """Everything that patches depend on beside the images."""

    degrade: DegradeRecipe
    scale: int
    patch_px: int
    """Side of the patches, in LR px."""
    read_px: int
    """Side of what is cut from an image and degraded, in HR px."""
    native: float
    """Share of the patches that are pixels of the images as they are."""
    sharpened: bool
    """Whether images are sharpened before they are degraded."""
    seed: int


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Patches that wait for answers."""

    lr: Tensor
    """(N, 3, patch_px, patch_px) uint8 on the CPU."""
    records: list[dict[str, Any]]
    """What was drawn, as JSON, one a patch."""
    failures: dict[str, str]
    """Images that could not be read, and why."""


def patches(
    images: Sequence[Path],
    options: PatchOptions,
    *,
    size: int,
    first: int = 0,
    held_out: bool = False,
    workers: int = 0,
    max_failures: int = 0,
    device: torch.device | str = "cpu",
) -> Iterator[Inputs]:
    """Yield patches without end, `size` at once; the k-th lot follows from images, options and k.

    Args:
        images: are cut.
        options: of the patches.
        size: patches at once.
        first: k of the first lot.
        held_out: whether other patches come than with False, of the same images even.
        workers: processes that read images; 0 reads in this one.
        max_failures: most images that may be unreadable.
        device: where images are degraded.

    Raises:
        InputError: more images than that cannot be read.
    """
    seed = options.seed + (_HELD_OUT_SEED if held_out else 0)
    source = TrainingData(
        images=tuple(images),
        pairs=(),
        pair_share=0.0,
        crop_px=options.read_px,
        pair_crop_px=options.patch_px * options.scale,
        scale=options.scale,
        flip=False,
        rotate=False,
        max_failures=max_failures,
    )
    stream = batches(source, seed=seed, first_iteration=first, batch=size, workers=workers)
    for number, batch in enumerate(stream, start=first):
        yield _inputs(batch, options, seed_of(number, seed), device)


def _inputs(batch: Batch, options: PatchOptions, seed: int, device: torch.device | str) -> Inputs:
    """Make a batch's patches: degraded ones first, then native ones."""
    natives = round(options.native * len(batch.hr))
    degraded = len(batch.hr) - natives
    records: list[dict[str, Any]] = [{"image": path} for path in batch.paths]
    parts = []
    if degraded:
        recipe = replace(options.degrade, group=options.degrade.group or _LARGEST_GROUP)
        lr, _, drawn = degraded_crops(
            batch.hr[:degraded],
            recipe,
            seed=seed,
            scale=options.scale,
            crop_px=options.patch_px * options.scale,
            sharpened=options.sharpened,
            device=device,
        )
        parts.append(as_bytes(lr).cpu())
        for place in range(degraded):
            records[place]["degradation"] = drawn[place : place + 1].to_json()
    dice = np.random.default_rng(seed)
    for place in range(degraded, len(batch.hr)):
        patch, records[place]["native"] = _native(batch.hr[place], options.patch_px, dice)
        parts.append(patch[None])
    return Inputs(lr=torch.cat(parts), records=records, failures=batch.failures)


def _native(crop: Tensor, px: int, dice: np.random.Generator) -> tuple[Tensor, dict[str, Any]]:
    """Cut a patch out of a crop, half of them at half the size; return it in bytes, and from where it is."""
    factor = 2 if dice.random() < 0.5 and min(crop.shape[1:]) >= 2 * px else 1
    top, left = (int(dice.integers(side - factor * px + 1)) for side in crop.shape[1:])
    area = as_floats(crop[:, top : top + factor * px, left : left + factor * px])
    patch = as_bytes(functional.avg_pool2d(area, factor) if factor > 1 else area)
    return patch, {"corner_yx": [top, left], "shrunk": factor}

"""Yields batches of patches and answers. Seed and iteration alone decide what a batch holds, as for images.

A CPU learns slower than a disk reads. A GPU learns from 5,000 patches a second, a gigabyte: where all of them fit
into a part of its memory they are kept there, and cut out there.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from realesr.errors import InputError
from realesr.runtime.rows import prefetch
from realesr.train.data.loader import Batch
from realesr.train.data.samples import image_of, seed_of
from realesr.train.distill.answers import SHARD, Answers, Bytes
from realesr.train.recipe import Recipe
from realesr.train.stage_options import StageOptions

_MEMORY_SHARE = 0.25
"""Most of a GPU's free memory that patches may take: the networks come after them."""


@dataclass(frozen=True, kw_only=True)
class AnsweredPatches:
    """The patches to train on, and how they are cropped."""

    answers: Answers
    count: int
    """Patches that are used, from the first."""
    crop_px: int
    """Side of what is cut from the answers, in HR px; a multiple of the scale."""
    flip: bool
    """Mirror half of the patches."""
    rotate: bool
    """Flip half of them upside down, and swap the axes of half."""

    def __post_init__(self) -> None:
        there = self.answers.whole_shards() * SHARD
        if there < self.count:
            raise InputError(
                f"{self.answers.folder} has answers to {there:,} patches, expected {self.count:,}: the command that "
                "distils makes the others"
            )

    @property
    def images(self) -> tuple[()]:
        """Return the images to degrade: none."""
        return ()

    @property
    def pairs(self) -> range:
        """Return the numbers of the pairs of patch and answer."""
        return range(self.count)


def answers_of(folder: Path, recipe: Recipe) -> Answers:
    """Return the answers in a folder, of the sizes that the recipe asked for."""
    return Answers(folder=folder, patch_px=recipe.teacher.patch_px, scale=recipe.architecture.scale)


def answered_patches(folder: Path, recipe: Recipe, options: StageOptions) -> AnsweredPatches:
    """Return the patches that a stage of a recipe trains on.

    Raises:
        InputError: fewer are answered than the recipe asks for.
    """
    return AnsweredPatches(
        answers=answers_of(folder, recipe),
        count=-(-recipe.teacher.patches // SHARD) * SHARD,
        crop_px=options.crop_px,
        flip=recipe.data.flip,
        rotate=recipe.data.rotate,
    )


@dataclass(frozen=True)
class Cut:
    """The patch of one sample, and the square of it that is learned from."""

    number: int
    """Of the patch."""
    top: int
    """First row of the square, in LR px."""
    left: int
    across: bool
    """Whether the square is mirrored, left to right."""
    down: bool
    """Whether it is flipped upside down."""
    swapped: bool
    """Whether its axes are swapped, after that."""


def patch_batches(
    source: AnsweredPatches,
    *,
    seed: int,
    first_iteration: int,
    batch: int,
    rank: int = 0,
    world: int = 1,
    device: torch.device | None = None,
) -> Iterator[Batch]:
    """Yield batches of patches as given pairs, without end.

    Args:
        source: the patches.
        seed: of the run.
        first_iteration: number of the first batch.
        batch: samples of this process and iteration.
        rank: number of this process.
        world: processes that train.
        device: of the training; a GPU gets all patches that this process reads where they fit, and batches lie there.

    Raises:
        InputError: a patch cannot be read.
    """
    kept = keep_on_gpu(source, device) if device is not None and device.type == "cuda" else None

    def make(iteration: int) -> Batch:
        first = (iteration * world + rank) * batch
        cuts = [cut_of(sample, source, seed) for sample in range(first, first + batch)]
        lr, hr = _read(source, cuts) if kept is None else cut_out(*kept, cuts, source)
        return Batch(
            hr=torch.empty((0, 3, 1, 1), dtype=torch.uint8),
            pair_hr=hr,
            pair_lr=lr,
            paths=[f"patch {cut.number} of {source.answers.folder}" for cut in cuts],
            padded=0,
        )

    stream = map(make, count(first_iteration))
    if kept is not None:
        yield from stream
        return
    with closing(prefetch(stream)) as read:  # copied from the disk's cache, outside Python's lock
        yield from read


def cut_of(sample: int, source: AnsweredPatches, seed: int) -> Cut:
    """Draw which patch a sample is, and what is cut out of it."""
    dice = np.random.default_rng(seed_of(sample, seed))
    rest = source.answers.patch_px - source.crop_px // source.answers.scale
    top, left = (int(dice.integers(rest + 1)) for _ in range(2))
    across, down, swapped = (bool(value) for value in dice.random(3) < 0.5)
    return Cut(
        image_of(sample, source.count, seed),
        top,
        left,
        across=source.flip and across,
        down=source.rotate and down,
        swapped=source.rotate and swapped,
    )


def keep_on_gpu(source: AnsweredPatches, device: torch.device) -> tuple[Tensor, Tensor] | None:
    """Copy all patches and answers into a GPU's memory; None where they would take too much of it.

    Returns:
        (N, 3, h, w) and (N, 3, h * scale, w * scale), uint8.

    Raises:
        InputError: a patch cannot be read.
    """
    answers = source.answers
    shards = -(-source.count // SHARD)
    if shards * answers.shard_bytes() > _MEMORY_SHARE * torch.cuda.mem_get_info(device)[0]:
        return None
    return all_patches(source, device)


def all_patches(source: AnsweredPatches, device: torch.device) -> tuple[Tensor, Tensor]:
    """Read all patches and answers into the memory of a device; results and errors are those of `keep_on_gpu`."""
    answers, px = source.answers, source.answers.patch_px
    lr, hr = (
        torch.empty((source.count, 3, side, side), dtype=torch.uint8, device=device)
        for side in (px, px * answers.scale)
    )
    for first in range(0, source.count, SHARD):
        size = min(SHARD, source.count - first)
        parts = [np.empty((size, *kept.shape[1:]), np.uint8) for kept in (lr, hr)]
        for place in range(size):
            answers.read(first + place, parts[0][place], parts[1][place])
        for kept, part in zip((lr, hr), parts, strict=True):
            kept[first : first + size] = torch.from_numpy(part).to(device)
    return lr, hr


def cut_out(lr: Tensor, hr: Tensor, cuts: Sequence[Cut], source: AnsweredPatches) -> tuple[Tensor, Tensor]:
    """Cut a square out of each sample's patch and answer and turn both alike, on their device; bytes to bytes."""
    scale, px = source.answers.scale, source.crop_px // source.answers.scale
    # One copy to the device for all that was drawn: a copy of its own for each number would take longer than the cut.
    drawn = torch.tensor([[cut.number, cut.top, cut.left, cut.across, cut.down, cut.swapped] for cut in cuts])
    numbers, top, left, across, down, swapped = drawn.to(lr.device, non_blocking=True)[:, :, None, None, None].unbind(1)
    channels = torch.arange(3, device=lr.device)[:, None, None]
    squares = []
    for pixels, factor in ((lr, 1), (hr, scale)):
        along = torch.arange(px * factor, device=lr.device)
        rows = top * factor + torch.where(down > 0, along.flip(0), along).transpose(2, 3)
        columns = left * factor + torch.where(across > 0, along.flip(0), along)
        square = pixels[numbers, channels, rows, columns]
        squares.append(torch.where(swapped > 0, square.transpose(2, 3), square))
    return squares[0], squares[1]


def _read(source: AnsweredPatches, cuts: Sequence[Cut]) -> tuple[Tensor, Tensor]:
    """Read the squares of these samples from the disk."""
    answers, px = source.answers, source.crop_px // source.answers.scale
    lr = np.empty((len(cuts), 3, px, px), np.uint8)
    hr = np.empty((len(cuts), 3, source.crop_px, source.crop_px), np.uint8)
    small, large = (
        np.empty((3, side, side), np.uint8) for side in (answers.patch_px, answers.patch_px * answers.scale)
    )
    for place, cut in enumerate(cuts):
        answers.read(cut.number, small, large)
        lr[place], hr[place] = _square(small, cut, px), _square(large, cut, px, answers.scale)
    tensors = torch.from_numpy(lr), torch.from_numpy(hr)
    return (tensors[0].pin_memory(), tensors[1].pin_memory()) if torch.cuda.is_available() else tensors


def _square(pixels: Bytes, cut: Cut, px: int, factor: int = 1) -> Bytes:
    """Cut the square of a sample out of (3, h, w), of which `factor` px are one px of the patch, and turn it."""
    rows, columns = (slice(start * factor, (start + px) * factor) for start in (cut.top, cut.left))
    square = pixels[:, rows, columns]
    square = square[:, :, ::-1] if cut.across else square
    square = square[:, ::-1] if cut.down else square
    return square.transpose(0, 2, 1) if cut.swapped else square

"""Yields batches of patches and answers. Seed and iteration alone decide what a batch holds, as for images."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import torch

from realesr.errors import InputError
from realesr.train.data.loader import Batch
from realesr.train.data.samples import image_of, seed_of
from realesr.train.distill.answers import SHARD, Answers, Bytes
from realesr.train.recipe import Recipe
from realesr.train.stage_options import StageOptions

_PREFETCHED_BATCHES = 2


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


def patch_batches(
    source: AnsweredPatches, *, seed: int, first_iteration: int, batch: int, rank: int = 0, world: int = 1
) -> Iterator[Batch]:
    """Yield batches of patches as given pairs, without end; arguments are those of `data.loader.batches`.

    A thread reads ahead: reading is copying from the disk's cache, outside Python's lock.

    Raises:
        InputError: a patch cannot be read.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="realesr-patches") as pool:
        waiting: deque[Future[Batch]] = deque()
        for iteration in count(first_iteration):
            first = (iteration * world + rank) * batch
            waiting.append(pool.submit(_read, source, range(first, first + batch), seed))
            if len(waiting) > _PREFETCHED_BATCHES:
                yield waiting.popleft().result()


def _read(source: AnsweredPatches, samples: range, seed: int) -> Batch:
    """Read the patches of these samples."""
    answers, px = source.answers, source.crop_px // source.answers.scale
    lr = np.empty((len(samples), 3, px, px), np.uint8)
    hr = np.empty((len(samples), 3, source.crop_px, source.crop_px), np.uint8)
    small, large = (
        np.empty((3, side, side), np.uint8) for side in (answers.patch_px, answers.patch_px * answers.scale)
    )
    numbers = [image_of(sample, source.count, seed) for sample in samples]
    for place, (sample, number) in enumerate(zip(samples, numbers, strict=True)):
        answers.read(number, small, large)
        lr[place], hr[place] = _cut(small, large, source, np.random.default_rng(seed_of(sample, seed)))
    tensors = [torch.from_numpy(array) for array in (hr, lr)]
    if torch.cuda.is_available():
        tensors = [tensor.pin_memory() for tensor in tensors]
    return Batch(
        hr=torch.empty((0, 3, 1, 1), dtype=torch.uint8),
        pair_hr=tensors[0],
        pair_lr=tensors[1],
        paths=[f"patch {number} of {answers.folder}" for number in numbers],
        padded=0,
    )


def _cut(lr: Bytes, answer: Bytes, source: AnsweredPatches, dice: np.random.Generator) -> tuple[Bytes, Bytes]:
    """Cut the same square out of a patch and its answer, and turn both alike."""
    scale, px = source.answers.scale, source.crop_px // source.answers.scale
    top, left = (int(dice.integers(side - px + 1)) for side in lr.shape[1:])
    across, down, swapped = dice.random(3) < 0.5
    squares = []
    for pixels, factor in ((lr, 1), (answer, scale)):
        rows, columns = (slice(start * factor, (start + px) * factor) for start in (top, left))
        square = pixels[:, rows, columns]
        square = square[:, :, ::-1] if source.flip and across else square
        square = square[:, ::-1] if source.rotate and down else square
        squares.append(square.transpose(0, 2, 1) if source.rotate and swapped else square)
    return squares[0], squares[1]

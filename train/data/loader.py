"""Yields batches of crops, prefetched by other processes. Seed and iteration alone decide what a batch holds."""

import multiprocessing
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from realesr.errors import InputError, RealesrError, UsageError
from realesr.train.data.crops import Crop, read_crop, read_crop_pair
from realesr.train.data.samples import image_of, pairs_before, seed_of

_ReadSample = tuple[str, Crop, Crop | None] | str
"""Path, crop, and the small crop of a pair (None without); or a line that says what is wrong."""

_PREFETCHED_BATCHES = 2
"""How many batches each reading process prefetches."""


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """The images and pairs to train on, and how they are cropped."""

    images: tuple[Path, ...]
    """Images to degrade."""
    pairs: tuple[tuple[Path, Path], ...]
    """Given pairs, (HR, LR)."""
    pair_share: float
    """Share of pairs in each process's batch, 0 to 1; see `samples.pairs_before`."""
    crop_px: int
    """Side of what is cut from images, in HR px."""
    pair_crop_px: int
    """Side of what is cut from pairs, in HR px."""
    scale: int
    """HR px per LR px and side."""
    flip: bool
    """Mirror half of the crops."""
    rotate: bool
    """Flip half of the crops upside down, and swap the axes of half."""

    def __post_init__(self) -> None:
        if not 0 <= self.pair_share <= 1:
            raise UsageError(f"got pair_share = {self.pair_share}, expected 0 to 1")
        if self.pair_share < 1 and not self.images:
            raise UsageError(f"got no images to degrade, expected some where pair_share is {self.pair_share}")
        if self.pair_share > 0 and not self.pairs:
            raise UsageError(f"got no pairs, expected some where pair_share is {self.pair_share}")
        if self.crop_px < 1 or self.pair_crop_px < 1 or self.pair_crop_px % self.scale:
            raise UsageError(
                f"got crop_px = {self.crop_px} and pair_crop_px = {self.pair_crop_px}, expected 1 or more, and the "
                f"second to be a multiple of the scale {self.scale}"
            )


@dataclass(kw_only=True)
class Batch:
    """One process's part of one iteration's images. Bytes, or float32 in [0, 1] once one of them has 16 bits."""

    hr: Tensor
    """(n, 3, crop_px, crop_px); n may be 0."""
    pair_hr: Tensor | None
    """(m, 3, pair_crop_px, pair_crop_px), or None."""
    pair_lr: Tensor | None
    paths: list[str]
    """Paths of the images, then of the pairs' HR images."""
    padded: int
    """How many images were smaller than their crop, and were mirrored."""


@dataclass(frozen=True, kw_only=True)
class _ArrayBatch:
    """A `Batch` as a reading process sends it, in arrays.

    No tensors: a process that ends while its sending thread is in torch's code is aborted, and torch then raises
    RuntimeError wherever the training process is (3 to 6 of 50 processes, PyTorch 2.13; none of 50 with arrays).
    """

    hr: NDArray[Any]
    pair_hr: NDArray[Any] | None
    pair_lr: NDArray[Any] | None
    paths: list[str]
    padded: int

    def batch(self, *, is_pinned: bool = False) -> Batch:
        """Return the same in tensors."""

        def tensor(array: NDArray[Any]) -> Tensor:
            made = torch.from_numpy(array)
            return made.pin_memory() if is_pinned else made

        return Batch(
            hr=tensor(self.hr),
            pair_hr=None if self.pair_hr is None else tensor(self.pair_hr),
            pair_lr=None if self.pair_lr is None else tensor(self.pair_lr),
            paths=self.paths,
            padded=self.padded,
        )

    def pin_memory(self) -> Batch:
        """Return the batch in pinned memory; torch calls this where there is a GPU."""
        return self.batch(is_pinned=True)


@dataclass(frozen=True)
class _Sample:
    number: int
    is_pair: bool


def batches(
    source: TrainingData,
    *,
    seed: int,
    first_iteration: int,
    batch: int,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
) -> Iterator[Batch]:
    """Yield batches without end.

    Args:
        source: the images.
        seed: of the run.
        first_iteration: the first batch is that of this iteration, from 0.
        batch: samples of this process.
        rank: of this process among `world`, which share one sequence of samples.
        world: processes.
        workers: processes that read; 0 reads in this one.

    Raises:
        InputError: an image cannot be read, or a reading process was ended.
    """
    plan = _BatchSampler(first_iteration, batch=batch, pair_share=source.pair_share, rank=rank, world=world)
    loader: DataLoader[_ReadSample] = DataLoader(
        _CropDataset(source, seed),
        batch_sampler=plan,
        collate_fn=_collated,
        num_workers=workers,
        prefetch_factor=_PREFETCHED_BATCHES if workers else None,
        pin_memory=torch.cuda.is_available(),
        # libvips has threads of its own, and a process that is forked beside them may hang.
        multiprocessing_context="spawn" if workers else None,
        worker_init_fn=_begin_reading,
    )
    stream = iter(loader)
    while True:
        try:
            found = next(stream)
        except RuntimeError as error:
            if not str(error).startswith("DataLoader worker (pid"):  # torch has no class of its own for it
                raise
            raise InputError(
                "a process that reads images was ended, mostly for want of memory: lower data.workers, or set it to 0"
            ) from error
        if isinstance(found, str):
            raise InputError(found)
        yield found.batch() if isinstance(found, _ArrayBatch) else found


class _BatchSampler:
    """Yields the numbers of each batch's samples."""

    def __init__(self, first_iteration: int, *, batch: int, pair_share: float, rank: int, world: int) -> None:
        self._first, self._batch, self._share = first_iteration, batch, pair_share
        self._rank, self._world = rank, world

    def __iter__(self) -> Iterator[list[_Sample]]:
        for iteration in count(self._first):
            pairs, later_pairs = (pairs_before(each, self._batch, self._share) for each in (iteration, iteration + 1))
            images, later_images = (iteration * self._batch - pairs, (iteration + 1) * self._batch - later_pairs)
            yield [
                *self._part(images, later_images, is_pair=False),
                *self._part(pairs, later_pairs, is_pair=True),
            ]

    def _part(self, start: int, end: int, *, is_pair: bool) -> Iterator[_Sample]:
        """Return this process's part of a batch; every process has had `start` samples before it and `end` after it."""
        first = start * self._world + self._rank * (end - start)
        return (_Sample(number, is_pair) for number in range(first, first + end - start))


class _CropDataset(Dataset["_ReadSample"]):
    """Reads a sample; an error is an answer too, so that its words come through to the training process as they are."""

    def __init__(self, source: TrainingData, seed: int) -> None:
        self._source, self._seed = source, seed

    def __getitem__(self, sample: _Sample) -> "_ReadSample":
        source = self._source
        options: dict[str, Any] = {"flip": source.flip, "rotate": source.rotate}
        options["seed"] = seed_of(sample.number, self._seed)
        try:
            if sample.is_pair:
                hr, lr = source.pairs[image_of(sample.number, len(source.pairs), self._seed)]
                pair = read_crop_pair(hr, lr, source.pair_crop_px, scale=source.scale, **options)
                return str(hr), *pair
            path = source.images[image_of(sample.number, len(source.images), self._seed)]
            return str(path), read_crop(path, source.crop_px, **options), None
        except RealesrError as error:
            return str(error)


def _collated(samples: list["_ReadSample"]) -> _ArrayBatch | str:
    whole = []
    for sample in samples:
        if isinstance(sample, str):
            return sample
        whole.append(sample)
    images = [crop for _, crop, lr in whole if lr is None]
    pairs = [(hr, lr) for _, hr, lr in whole if lr is not None]
    return _ArrayBatch(
        hr=_stacked(images),
        pair_hr=_stacked([hr for hr, _ in pairs]) if pairs else None,
        pair_lr=_stacked([lr for _, lr in pairs]) if pairs else None,
        paths=[path for path, _, _ in whole],
        padded=sum(crop.padded for _, crop, _ in whole),
    )


def _stacked(crops: list[Crop]) -> NDArray[Any]:
    if not crops:
        return np.empty((0, 3, 1, 1), np.uint8)
    arrays = [crop.pixels for crop in crops]
    if any(array.dtype != np.uint8 for array in arrays):
        arrays = [array.astype(np.float32) / (255 if array.dtype == np.uint8 else 1) for array in arrays]
    return np.stack(arrays)


def _begin_reading(_: int) -> None:
    """Prepare a reading process: one thread, for the number of processes says how many are wanted."""
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process once the one that trains is gone, however it ended.

    Without this, reading processes of a trainer that was killed wait for ever for room in a queue that nobody reads.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)

"""Yields batches of crops, prefetched by other processes. Seed and iteration alone decide what a batch holds.

An image that cannot be read is left out: the one of the next sample takes its place, and the batch tells.
"""

import multiprocessing
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
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
from realesr.train.data.failures import ReadFailures, nothing_readable
from realesr.train.data.samples import images_in_turn, pairs_before, seed_of

_ReadSample = tuple[str, Crop, Crop | None]
"""Path, crop, and the small crop of a pair (None without)."""

_Reasons = dict[str, str]
"""Names of the images that could not be read, and why."""

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
    max_failures: int
    """Most images and pairs that may be unreadable before the run ends."""

    def __post_init__(self) -> None:
        if not 0 <= self.pair_share <= 1:
            raise UsageError(f"got pair_share = {self.pair_share}, expected 0 to 1")
        if self.pair_share < 1 and not self.images:
            raise UsageError(f"got no images to degrade, expected some where pair_share is {self.pair_share}")
        if self.pair_share > 0 and not self.pairs:
            raise UsageError(f"got no pairs, expected some where pair_share is {self.pair_share}")
        if self.max_failures < 0:
            raise UsageError(f"got max_failures = {self.max_failures}, expected 0 or more")
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
    failures: _Reasons = field(default_factory=dict)
    """Images that could not be read, and why, each once in the life of this process; pairs by both names."""


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
    failures: _Reasons

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
            failures=self.failures,
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
        InputError: more than `source.max_failures` images cannot be read, or none can, or a reading process was ended.
    """
    plan = _BatchSampler(first_iteration, batch=batch, pair_share=source.pair_share, rank=rank, world=world)
    loader: DataLoader[Any] = DataLoader(
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
    failures = ReadFailures(source.max_failures)
    while True:
        try:
            found = next(stream)
        except RuntimeError as error:
            if not str(error).startswith("DataLoader worker (pid"):  # torch has no class of its own for it
                raise
            raise InputError(
                "a process that reads images was ended, mostly for want of memory: lower data.workers, or set it to 0"
            ) from error
        if isinstance(found, dict):
            failures.add(found)
            raise nothing_readable(found)
        read = found.batch() if isinstance(found, _ArrayBatch) else found
        read.failures = failures.add(read.failures)
        yield read


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


class _CropDataset(Dataset[_ReadSample]):
    """Reads batches. Failures are answers too, so that their words come through to the training process as they are."""

    def __init__(self, source: TrainingData, seed: int) -> None:
        self._source, self._seed = source, seed

    def __getitems__(self, batch: list[_Sample]) -> tuple[list[_ReadSample], _Reasons]:
        """Read samples; fewer than there are where more images failed than may, or none is left.

        Torch calls this with the samples of one batch, and hands what it returns to `_collated`.
        """
        read: list[_ReadSample] = []
        failures: _Reasons = {}
        for sample in batch:
            found = self._first_readable(sample, failures)
            if found is None:
                return [], failures
            read.append(found)
        return read, failures

    def _first_readable(self, sample: _Sample, failures: _Reasons) -> _ReadSample | None:
        """Read the sample's image, or the first after it that can be read; `failures` gets the others.

        It gives up as soon as the run must end, or a disk that is gone would be asked for every one of its images.
        """
        source = self._source
        count = len(source.pairs) if sample.is_pair else len(source.images)
        for index in images_in_turn(sample.number, count, self._seed):
            files = source.pairs[index] if sample.is_pair else (source.images[index],)
            name = " and ".join(map(str, files))
            if name in failures:
                continue
            try:
                return self._read(files, sample.number)
            except (RealesrError, OSError) as error:
                failures[name] = str(error)
            if len(failures) > source.max_failures:
                return None
        return None

    def _read(self, files: tuple[Path, ...], number: int) -> _ReadSample:
        """Read a crop of an image, or of a pair; the sample's number decides where."""
        source = self._source
        options: dict[str, Any] = {"flip": source.flip, "rotate": source.rotate, "seed": seed_of(number, self._seed)}
        if len(files) == 1:
            return str(files[0]), read_crop(files[0], source.crop_px, **options), None
        hr, lr = files
        return str(hr), *read_crop_pair(hr, lr, source.pair_crop_px, scale=source.scale, **options)


def _collated(found: Any) -> _ArrayBatch | _Reasons:
    """Stack what `_CropDataset.__getitems__` returned; where a batch could not be filled, return its failures alone."""
    samples: list[_ReadSample]
    failures: _Reasons
    samples, failures = found
    if not samples:
        return failures
    images = [crop for _, crop, lr in samples if lr is None]
    pairs = [(hr, lr) for _, hr, lr in samples if lr is not None]
    return _ArrayBatch(
        hr=_stacked(images),
        pair_hr=_stacked([hr for hr, _ in pairs]) if pairs else None,
        pair_lr=_stacked([lr for _, lr in pairs]) if pairs else None,
        paths=[path for path, _, _ in samples],
        padded=sum(crop.padded for _, crop, _ in samples),
        failures=failures,
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

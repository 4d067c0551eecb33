"""Computes which image the k-th sample of a run is, and its seed: k is all that a checkpoint has to remember."""

from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_ORDER, _SEED = 1, 2
"""Purposes of random numbers, part of their seed."""


def pairs_before(iteration: int, batch: int, share: float) -> int:
    """Return how many given pairs a process has had before an iteration; its other samples were images to degrade.

    A batch has `batch * share` pairs, rounded down or up so that the share is kept over the iterations, even where it
    comes to less than one pair a batch. Every process has as many as the others. Where `batch * share` is a whole
    number, all batches are alike, and n processes see what one process with n times the batch does.

    Args:
        iteration: from 0.
        batch: samples of each process and iteration.
        share: of pairs, 0 to 1; taken as a fraction of at most 10,000 parts, so that 0.1 is a tenth.
    """
    return int(iteration * batch * Fraction(share).limit_denominator(10_000))


def image_of(sample: int, count: int, seed: int) -> int:
    """Return the index of the sample's image: every image comes once an epoch, each epoch in another order.

    Args:
        sample: number of the sample in the run, from 0.
        count: images.
        seed: of the run.
    """
    return next(images_in_turn(sample, count, seed))


def images_in_turn(sample: int, count: int, seed: int) -> Iterator[int]:
    """Yield the index of the sample's image, then of those that replace it where it cannot be read.

    They are the images of the samples that follow in the epoch's order, and after its end those from its beginning.
    So the replacement follows from these numbers alone: it is the same after a resume and in every process.
    """
    epoch, place = divmod(sample, count)
    order = _order(epoch, count, seed)
    return (int(order[(place + step) % count]) for step in range(count))


def seed_of(sample: int, seed: int) -> int:
    """Return the sample's own seed, of its crop and flips, below 2**63."""
    return int(np.random.SeedSequence((seed, _SEED, sample)).generate_state(1, np.uint64)[0] >> 1)


@lru_cache(maxsize=4)
def _order(epoch: int, count: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(np.random.SeedSequence((seed, _ORDER, epoch))).permutation(count)
